"""Temporary: the contract of the polycrystal on today's crystal; goes away with the merge of the kernel."""
from dataclasses import dataclass
import numpy as np, torch
from micro.crystal.law import Crystal, CrystalState
from micro.crystal.materials import CrystalParameters
from micro.tensors import inverse, determinant, matmul, random_rotations

@dataclass(frozen=True)
class Texture:
    orientations: torch.Tensor
    weights: torch.Tensor

def random_texture(grains, seed=0):
    return Texture(random_rotations(grains, seed), torch.full((grains,), 1.0 / grains, dtype=torch.float64))

def load_material(name):
    return CrystalParameters()

SIZES = (9, 9, 12, 6, 5)

class TaylorPolycrystal:
    def __init__(self, texture=128, *, seed=0, parameters=None, tolerance=None, slip="domains", backend="auto", device="cpu"):
        self.texture = texture if isinstance(texture, Texture) else random_texture(texture, seed)
        self.crystal = Crystal(parameters)
        self.parameters = self.crystal.parameters
        self.g = len(self.texture.orientations)
    def initial_state(self, n):
        s = self.crystal.initial_state(n * self.g)
        return torch.cat([a.reshape(n, self.g, -1) for a in s], -1).reshape(n, -1)
    def split(self, state):
        n = len(state)
        parts = state.reshape(n * self.g, -1).split(SIZES, -1)
        return CrystalState(parts[0].reshape(-1, 3, 3), parts[1].reshape(-1, 3, 3), *parts[2:])
    def update(self, F, state, dt):
        n, g, q = len(F), self.g, self.texture.orientations
        Fc = matmul(matmul(q.mT, F[:, None]), q).reshape(n * g, 3, 3)
        new, ok = self.crystal.update(Fc, self.split(state), torch.as_tensor(dt, dtype=torch.float64).expand(n).repeat_interleave(g))
        sigma = self.crystal.cauchy(Fc, new).reshape(n, g, 3, 3)
        sigma = (self.texture.weights[:, None, None] * matmul(matmul(q, sigma), q.mT)).sum(1)
        J = determinant(F)[:, None, None]
        P = J * matmul(sigma, inverse(F).mT)
        return P, torch.cat([a.reshape(n, g, -1) for a in new], -1).reshape(n, -1), ok.reshape(n, g).all(1)
    def unpack(self, state):
        s, n = self.split(state), len(state)
        return s.F_in.reshape(n, self.g, 3, 3), s.e.reshape(n, self.g, 12), s.lam.reshape(n, self.g, 6)
