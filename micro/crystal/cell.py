"""Grains in a periodic cell: the single crystal as the point law of `micro.spectral`.

All grains of a cell follow one law. Their orientations are part of the state, which is a table of numbers per point:
the rotation from the crystal to the sample frame, then the state of the crystal. So one call of the law serves all
points of all cells of a batch, and a voxel may have an orientation of its own.

References:
    Liu et al. (2022), section 3.1 (2DFFT), doi:10.1016/j.jmps.2021.104668.
"""

import math

import numpy as np
import torch
from torch import Tensor

from micro.crystal.law import Crystal, CrystalState
from micro.crystal.materials import CrystalParameters
from micro.spectral.solver import SpectralCells
from micro.spectral.voronoi import seeds, stream, voronoi
from micro.tensors import cofactor, determinant, matmul, quaternion_rotations

#: Components of a rotation, which precede the state of the crystal.
ROTATION = 9


class CrystalPoints:
    """The single crystal as a point law; see `micro.spectral.solver.PointLaw`.

    Args:
        parameters: Material parameters; magnesium by default.
        device: Torch device.
    """

    def __init__(self, parameters: CrystalParameters | None = None, *, device: str | torch.device = "cpu") -> None:
        self.crystal = Crystal(parameters, device=device)
        self._shapes = [part.shape[1:] for part in self.crystal.initial_state(1)]

    def initial_state(self, n: int) -> Tensor:
        """Return the state (n, k) of `n` virgin crystals whose axes are those of the sample."""
        crystals = self.crystal.initial_state(n)
        one = torch.eye(3).to(crystals[0]).flatten().expand(n, ROTATION)
        return torch.cat([one, *(part.flatten(1) for part in crystals)], dim=1)

    def oriented(self, orientations: Tensor) -> Tensor:
        """Return the states (n, k) of virgin crystals with the `orientations` (n, 3, 3), crystal to sample frame."""
        state = self.initial_state(len(orientations))
        state[:, :ROTATION] = orientations.to(state).flatten(1)
        return state

    def unpack(self, state: Tensor) -> tuple[Tensor, CrystalState]:
        """Return the orientations (n, 3, 3) and the crystals of states (n, k)."""
        parts = state[:, ROTATION:].split([math.prod(shape) for shape in self._shapes], dim=1)
        crystals = CrystalState(*(part.unflatten(1, shape) if shape else part[:, 0] for part, shape in zip(parts, self._shapes)))
        return state[:, :ROTATION].unflatten(1, (3, 3)), crystals

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first Piola-Kirchhoff stress (n, 3, 3), Pa, in the sample frame, and the new state.

        The stress of a crystal whose step fails is not a number.
        """
        q, crystals = self.unpack(state)
        F_crystal = matmul(matmul(q.mT, F), q)
        new, ok = self.crystal.update(F_crystal, crystals, dt)
        sigma = matmul(matmul(q, self.crystal.cauchy(F_crystal, new)), q.mT)
        P = torch.where((ok & (determinant(F) > 0))[:, None, None], matmul(sigma, cofactor(F)), torch.nan)
        return P, torch.cat([state[:, :ROTATION], *(part.reshape(len(F), -1) for part in new)], dim=1)


def grain_orientations(grains: int, dimension: int, rng: np.random.Generator) -> Tensor:
    """Return random orientations (grains, 3, 3), crystal to sample frame.

    In three dimensions they are uniform on SO(3). In two they are turns about the third axis by angles uniform in a
    full turn, so that slip stays in the plane.
    """
    if dimension == 2:
        half = torch.from_numpy(rng.uniform(0, math.pi, grains))
        zero = torch.zeros_like(half)
        return quaternion_rotations(torch.stack([half.cos(), zero, zero, half.sin()], dim=1))
    q = rng.standard_normal((grains, 4))
    return quaternion_rotations(torch.from_numpy(q / np.linalg.norm(q, axis=1, keepdims=True)))


def random_cell(grains: int, shape: tuple[int, ...], seed: int, sample: int) -> tuple[np.ndarray, Tensor]:
    """Return the grain numbers (N...) and the orientations (grains, 3, 3) of one random polycrystal.

    They depend on `seed` and `sample` alone: seeds first, then orientations, from the stream of the sample.
    """
    rng = stream(seed, sample)
    points = seeds(grains, len(shape), rng)
    return voronoi(points, shape), grain_orientations(grains, len(shape), rng)


def polycrystal_cells(
    grain: np.ndarray,
    orientations: Tensor,
    parameters: CrystalParameters | None = None,
    *,
    device: str | torch.device = "cpu",
    **options: object,
) -> SpectralCells:
    """Return a batch of periodic polycrystals.

    Args:
        grain: Grain numbers (b, N...), from 0.
        orientations: Orientation of each grain of each cell (b, g, 3, 3), crystal to sample frame.
        parameters: Material parameters; magnesium by default.
        device: Torch device.
        options: Further options of `SpectralCells`.

    Raises:
        ValueError: The shapes do not fit, or a grain has no orientation.
    """
    if orientations.dim() != 4 or orientations.shape[-2:] != (3, 3) or len(orientations) != len(grain):
        raise ValueError(f"orientations must have shape ({len(grain)}, g, 3, 3), got {tuple(orientations.shape)}.")
    if grain.min() < 0 or grain.max() >= orientations.shape[1]:
        raise ValueError(f"grain must number {orientations.shape[1]} grains from 0, got up to {grain.max()}.")
    law = CrystalPoints(parameters, device=device)
    flat = torch.from_numpy(np.ascontiguousarray(grain)).flatten(1)
    each = orientations[torch.arange(len(flat))[:, None], flat]  # (b, points, 3, 3)
    internal = law.oriented(each.flatten(0, 1)).unflatten(0, flat.shape)
    phase = torch.zeros(grain.shape, dtype=torch.long)
    return SpectralCells(phase, [law], internal=internal, device=device, **options)  # type: ignore[arg-type]
