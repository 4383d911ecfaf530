"""Other structures of a law in time, beside the shipped one, for the comparison in demos/crystal/law_structures.py.

All take the pieces of steps of `surrogates.path.windows`: deviators in the corotated frame as vectors of five, strains
in per cent, times in us, stresses as Kirchhoff deviators over 2 G in per cent. The state of a point is one row.

- `Elements`: the shipped law, viscoplastic elements in parallel and memory (`surrogates.path.overlay`).
- `Potentials`: a free energy and a dissipation potential. With elements k of the shares w_k, elastic strains e_k and
  plastic increments p_k, and springs b_j that the plastic increments load, b <- b + C p,

      psi / 2 G = sum_k w_k |e_k|^2 / 2 + sum_i c_i (sqrt(1 + |A_i b|^2) - 1)                                      (1)
      phi / 2 G = sum_k w_k (r_k (|p_k| + B_k . p_k) + (2/3) |p_k|^(3/2) / sqrt(a_k dt)),   |B_k| < 1              (2)

  A step minimises psi + phi over the p_k, where the second term of (1) is replaced by its tangent at the start and the
  bound kappa_k of its curvature. Then the springs fade, b <- b - (1 - exp(-g p)) (dpsi/db) / L, with the bounds L of
  the curvature, so that psi cannot rise. A network reads r, a, B, g from the state at the start, which leaves phi a
  potential. Hence for any weights and any step: the stress has a potential (its tangent is symmetric and not negative),
  and psi rises by no more than the work of the stress at the end of the step.
- `WithGrains`: the mean stress of a few grains as one more element in parallel, which the network reads as a tensor.
  Only the elements and the memory are learned; the grains are solved elsewhere.
- `Frames`: one anisotropic network of a single crystal, an element with scalar memory, that is evaluated in several
  fixed frames and averaged. Its isotropy is that of the set of frames.

References:
    Halphen and Nguyen (1975), generalised standard materials;
    Ortiz and Stainier (1999), doi:10.1016/S0045-7825(98)00219-9, a step as a minimum.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from surrogates.path.corotated import five, from_five
from surrogates.path.overlay import Overlay, Sizes, product

SMALL = 1e-8  # added to squares of lengths


class Piece(NamedTuple):
    """A piece of a step of n points.

    Attributes:
        D: Increment of strain (n, 5), per cent.
        E: Strain at the start (n, 5).
        dt: Duration (n,), us.
        volume: J - 1 at the start (n,).
        base: Stress of a few grains at the end (n, 5); zero where there are none.
    """

    D: Tensor
    E: Tensor
    dt: Tensor
    volume: Tensor
    base: Tensor


class Structure(torch.nn.Module):
    """A law over pieces of steps.

    Attributes:
        state: Numbers of state per point; all are zero in virgin points.
    """

    state: int

    def forward(self, state: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """Stress (n, 5) at the end of a piece and the new state (n, state)."""
        raise NotImplementedError

    def energy(self, state: Tensor) -> Tensor:
        """Free energy over 2 G (n,), per cent squared."""
        raise NotImplementedError


class Elements(Structure):
    """The shipped law.

    Args:
        sizes: Sizes of the law.
        seed: Seed of the weights.
    """

    def __init__(self, sizes: Sizes, seed: int = 0) -> None:
        super().__init__()
        self.overlay, self.elements, self.state = Overlay(sizes, seed), sizes.elements, sizes.state

    def forward(self, state: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """Stress and new state."""
        tensors = state.reshape(len(state), -1, 5)
        e, m = tensors[:, : self.elements], tensors[:, self.elements :]
        new = self.overlay(e, m, piece.E, piece.volume, piece.D, piece.dt)
        return self.overlay.stress(new.e), torch.cat([new.e, new.m], dim=1).flatten(1)

    def energy(self, state: Tensor) -> Tensor:
        """Elastic energy."""
        return 0.5 * self.overlay.energy(state.reshape(len(state), -1, 5)[:, : self.elements])


class WithGrains(Structure):
    """A few grains, elements and memory in parallel. The state ends with the stress of the grains.

    Args:
        sizes: Sizes of the learned part.
        seed: Seed of the weights.
    """

    def __init__(self, sizes: Sizes, seed: int = 0) -> None:
        super().__init__()
        # The stress of the grains takes the place of one more memory tensor.
        self.overlay = Overlay(sizes._replace(memory=sizes.memory + 1), seed)
        self.elements, self.state = sizes.elements, sizes.state + 5
        self.logit = torch.nn.Parameter(torch.zeros(1))

    def forward(self, state: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """Stress and new state."""
        tensors = state.reshape(len(state), -1, 5)
        e, m = tensors[:, : self.elements], tensors[:, self.elements :]
        new = self.overlay(e, m, piece.E, piece.volume, piece.D, piece.dt)
        share = torch.sigmoid(self.logit)
        stress = share * piece.base + (1 - share) * self.overlay.stress(new.e)
        return stress, torch.cat([new.e, new.m[:, :-1], piece.base.unsqueeze(1)], dim=1).flatten(1)


class Perceptron(torch.nn.Module):
    """Two hidden layers; the last one starts small.

    Args:
        inputs: Numbers read.
        width: Of the hidden layers.
        outputs: Numbers given.
        generator: Of the initial weights.
    """

    def __init__(self, inputs: int, width: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = (inputs, width, width, outputs)
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for a, b, scale in zip(sizes, sizes[1:], (1.0, 1.0, 0.03)):
            self.weights.append(torch.nn.Parameter(scale / math.sqrt(a) * torch.randn(b, a, generator=generator)))
            self.biases.append(torch.nn.Parameter(torch.zeros(b)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, outputs) of inputs (n, inputs)."""
        for W, b in zip(self.weights[:-1], self.biases[:-1]):
            x = torch.nn.functional.silu(torch.nn.functional.linear(x, W, b))
        return torch.nn.functional.linear(x, self.weights[-1], self.biases[-1])


def flow(
    e: Tensor, X: Tensor, r: Tensor, viscosity: Tensor, kappa: Tensor, D: Tensor, dt: Tensor
) -> tuple[Tensor, Tensor]:
    """Plastic increments p (n, K, 5) that minimise |e + D - p|^2/2 + X.p + kappa |p|^2/2 + r |p| + (2/3) |p|^1.5/q^0.5.

    With q = viscosity dt: along e + D - X, of the length s^2 with (1 + kappa) s^2 + s / sqrt(q) = |e + D - X| - r. The
    lengths (n, K) are the second result.

    Args:
        e: Elastic strains (n, K, 5).
        X: Forces of the energy and of the potential that oppose the flow (n, K, 5).
        r: Strengths (n, K).
        viscosity: Viscosities (n, K).
        kappa: Bounds of the curvature of the energy (K,).
        D: Increment of strain (n, 5).
        dt: Duration (n,).
    """
    xi = e + D.unsqueeze(1) - X
    size = torch.sqrt((xi * xi).sum(-1) + SMALL)
    over = (size - r).clamp(min=0)
    q = viscosity.sqrt() * dt.sqrt().unsqueeze(1)
    s = 2 * over * q / (1 + torch.sqrt(1 + 4 * (1 + kappa) * over * q * q))
    return (s * s / size).unsqueeze(-1) * xi, s * s


class Potentials(Structure):
    """Free energy and dissipation potential with internal variables.

    Args:
        sizes: Sizes of the law; memory is the number of springs.
        terms: Terms of the energy of the springs.
        seed: Seed of the weights.
    """

    def __init__(self, sizes: Sizes, terms: int = 16, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        K, M, tensors, P = sizes.elements, sizes.memory, sizes.tensors, sizes.products
        self.elements, self.springs, self.state = K, M, sizes.state
        draw = lambda *shape: torch.nn.Parameter(torch.randn(*shape, generator=generator) / math.sqrt(shape[1]))
        self.mix, self.left, self.right = draw(sizes.mixed, tensors), draw(P, tensors), draw(P, tensors)
        self.basis = draw(sizes.basis, tensors + P)
        self.network = Perceptron(sizes.features, sizes.width, K * (2 + sizes.basis) + M, generator)
        self.A, self.C = draw(terms, M), draw(M, K)
        self.c = torch.nn.Parameter(torch.full((terms,), math.log(0.01)))
        self.strength = torch.nn.Parameter(torch.linspace(math.log(0.03), math.log(0.6), K))
        self.viscosity = torch.nn.Parameter(torch.full((K,), math.log(200.0)))
        self.share = torch.nn.Parameter(torch.zeros(K))
        self.rate = torch.nn.Parameter(torch.linspace(0.0, math.log(100.0), M))
        rows, columns = torch.triu_indices(sizes.mixed, sizes.mixed)
        self.rows, self.columns = torch.nn.Buffer(rows), torch.nn.Buffer(columns)

    def invariants(self, T: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Invariants (n, f) and isotropic tensors (n, basis, 5) of tensors T (n, t, 5); see `Overlay.invariants`."""
        mixed, squares = torch.matmul(self.mix, T), product(torch.matmul(self.left, T), torch.matmul(self.right, T))
        basis = torch.matmul(self.basis, torch.cat([T, squares], dim=1))
        gram = torch.matmul(mixed, mixed.mT)[:, self.rows, self.columns]
        parts = [gram, torch.matmul(squares, mixed.mT).flatten(1), (squares * squares).sum(-1), 30.0 * volume[:, None]]
        raw = torch.cat(parts, dim=1)
        return raw / torch.sqrt(torch.sqrt(1 + raw * raw)), basis / torch.sqrt(1 + (basis**2).sum(-1, keepdim=True))

    def stored(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of the springs (n,) and its derivative (n, M, 5); second term of Eq. (1)."""
        v, c = torch.matmul(self.A, b), self.c.exp()
        root = torch.sqrt(1 + (v * v).sum(-1))
        return (c * (root - 1)).sum(1), torch.matmul(self.A.T, (c / root).unsqueeze(-1) * v)

    def forward(self, state: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """Stress and new state: the minimum of Eqs. (1) + (2), then the springs fade."""
        K, n = self.elements, len(state)
        T = state.reshape(n, -1, 5)
        e, b = T[:, :K], T[:, K:]
        features, basis = self.invariants(torch.cat([T, piece.E.unsqueeze(1)], dim=1), piece.volume)
        out = self.network(features)
        a = out[:, : K * (2 + basis.shape[1])].reshape(n, K, -1)
        r = torch.exp(self.strength + 1.5 * torch.tanh(a[..., 0]))
        viscosity = torch.exp(self.viscosity + 1.5 * torch.tanh(a[..., 1]))
        B = 0.3 * torch.matmul(a[..., 2:], basis)
        B = 0.95 * B / torch.sqrt(1 + (B * B).sum(-1, keepdim=True))
        share = torch.softmax(self.share, dim=0)
        C = 0.01 * self.rate.exp().unsqueeze(1) * self.C  # of plastic strains in per cent
        X = torch.matmul(C.T, self.stored(b)[1]) / share.unsqueeze(1) + r.unsqueeze(-1) * B
        S = torch.matmul(self.A, C).abs()
        kappa = (self.c.exp()[:, None] * S * S.sum(1, keepdim=True)).sum(0) / share
        p, length = flow(e, X, r, viscosity, kappa, piece.D, piece.dt)
        e = e + piece.D.unsqueeze(1) - p
        plastic = (share * length).sum(1, keepdim=True)
        b = b + torch.matmul(C, p)
        A = self.A.abs()
        bound = (self.c.exp()[:, None] * A * A.sum(1, keepdim=True)).sum(0) + SMALL
        g = torch.exp(self.rate + 1.5 * torch.tanh(out[:, -self.springs :]))
        b = b + (torch.expm1(-0.01 * g * plastic) / bound).unsqueeze(-1) * self.stored(b)[1]
        return (share.unsqueeze(-1) * e).sum(1), torch.cat([e, b], dim=1).flatten(1)

    def energy(self, state: Tensor) -> Tensor:
        """Free energy, Eq. (1)."""
        T = state.reshape(len(state), -1, 5)
        elastic = (torch.softmax(self.share, dim=0) * (T[:, : self.elements] ** 2).sum(-1)).sum(1)
        return 0.5 * elastic + self.stored(T[:, self.elements :])[0]


def turns(rotations: Tensor) -> Tensor:
    """Matrices (k, 5, 5) that turn vectors of five as rotations (k, 3, 3) turn their tensors, Q A Q^T."""
    units = from_five(torch.eye(5, dtype=rotations.dtype))
    return five(rotations[:, None] @ units @ rotations[:, None].mT).mT


class Frames(Structure):
    """A single crystal in several frames, averaged.

    Args:
        rotations: From the frame of the crystal to that of the sample (k, 3, 3).
        memory: Scalars of memory per crystal.
        width: Of the network.
        seed: Seed of the weights.
    """

    def __init__(self, rotations: Tensor, memory: int = 5, width: int = 48, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.turn = torch.nn.Buffer(turns(rotations).float())
        self.frames, self.memory = len(rotations), memory
        self.state = self.frames * (5 + memory)
        self.network = Perceptron(5 + memory + 5 + 1, width, 2 + 5 + 2 * memory, generator)
        self.loads = torch.nn.Parameter(torch.randn(memory, 5, generator=generator) / math.sqrt(5))
        self.strength, self.viscosity = (torch.nn.Parameter(torch.full((1,), math.log(x))) for x in (0.2, 200.0))
        self.rate = torch.nn.Parameter(torch.linspace(0.0, math.log(100.0), memory))

    def forward(self, state: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """Stress and new state; the frames of a point are its rows."""
        n, k, q = len(state), self.frames, self.memory
        state = state.reshape(n * k, 5 + q)
        e, h = state[:, :5], state[:, 5:]
        D, E = (torch.einsum("kji,nj->nki", self.turn, x).reshape(n * k, 5) for x in (piece.D, piece.E))
        dt, volume = piece.dt.repeat_interleave(k), piece.volume.repeat_interleave(k)
        out = self.network(torch.cat([3 * e, h, 2 * E, 30 * volume.unsqueeze(1)], dim=1))
        r = torch.exp(self.strength + 1.5 * torch.tanh(out[:, :1]))
        viscosity = torch.exp(self.viscosity + 1.5 * torch.tanh(out[:, 1:2]))
        X = 0.95 * r * out[:, 2:7] / torch.sqrt(1 + (out[:, 2:7] ** 2).sum(1, keepdim=True))
        zero = torch.zeros_like(self.strength)
        p, plastic = flow(e.unsqueeze(1), X.unsqueeze(1), r, viscosity, zero, D, dt)
        p = p.squeeze(1)
        e = e + D - p
        target = torch.tanh(out[:, 7 : 7 + q] + torch.matmul(p / (plastic + 1e-6), self.loads.T))
        g = torch.exp(self.rate + 1.5 * torch.tanh(out[:, 7 + q :]))
        h = h - torch.expm1(-0.01 * g * plastic) * (target - h)
        stress = torch.einsum("kij,nkj->ni", self.turn, e.reshape(n, k, 5)) / k
        return stress, torch.cat([e, h], dim=1).reshape(n, -1)

    def energy(self, state: Tensor) -> Tensor:
        """Elastic energy, the mean of the frames."""
        return 0.5 * (state.reshape(len(state), self.frames, -1)[..., :5] ** 2).sum((1, 2)) / self.frames
