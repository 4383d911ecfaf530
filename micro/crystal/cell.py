"""Grains in a periodic cell: the single crystal as the point law of `micro.spectral`.

All grains of a cell follow one law. Their orientations are part of the state, which is a table of numbers per point:
the state of the crystal, then the rotation from the crystal to the sample frame. So one call of the law serves all
points of all cells of a batch, and a voxel may have an orientation of its own.

References:
    Liu et al. (2022), section 3.1 (2DFFT), doi:10.1016/j.jmps.2021.104668.
"""

import math

import numpy as np
import torch
from torch import Tensor

from micro.crystal.compiled import CompiledPolycrystal, available
from micro.crystal.constants import SOLVED
from micro.crystal.integrator import CrystalState
from micro.crystal.law import Crystal
from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.systems import crystal_systems
from micro.spectral.solver import SpectralCells
from micro.spectral.voronoi import seeds, stream, voronoi
from micro.tensors import PATH_ORDER, determinant, from_components, matmul, quaternion_rotations, to_components

#: Components of a rotation, which follow the state of the crystal.
ROTATION = 9
#: Equal steps of a crystal that has not been solved in one.
FINER = 8


class _Compiled:
    """Crystals advanced by the compiled law, in their own frames, as polycrystals of one grain.

    One step of the second-order scheme per step of the cell: with control of the error the stress would not be a
    smooth function of F, and the iteration for equilibrium would not converge below the tolerance of that control. The
    few crystals whose step is too large for Newton's iteration take `FINER` equal steps, and control of the error after
    all where that is not enough.
    """

    def __init__(self, parameters: CrystalParameters, substeps: int) -> None:
        systems, one = crystal_systems(parameters), (np.eye(3)[None], np.ones(1))
        self._laws = [CompiledPolycrystal(systems, *one, tolerance=None, substeps=n * substeps) for n in (1, FINER)]
        self._laws.append(CompiledPolycrystal(systems, *one))
        self.width = self._laws[0].state_size

    def initial_state(self, n: int) -> Tensor:
        return torch.from_numpy(self._laws[0].initial_state(n))

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first Piola-Kirchhoff stress (n, 3, 3), Pa, the state, and whether each crystal was solved.

        Tensors are lists of components here, each a row of all points: products of long rows cost a tenth of those of
        small matrices.
        """
        n, start, time = len(F), state.numpy(), dt.numpy()
        Q, turned = _rows(start[:, self.width :]), _rows(F.numpy().reshape(n, 9))
        G = _product(turned, Q)  # F Q, so that C in the frame of the crystal is G^T G
        C = np.stack([G[i] * G[j] + G[3 + i] * G[3 + j] + G[6 + i] * G[6 + j] for i, j in PATH_ORDER.pairs], axis=1)
        new = np.array(start)
        S, status = self._laws[0].advance(C, new, time)
        for law in self._laws[1:]:
            lost = np.flatnonzero(status != SOLVED)
            if len(lost) > 0:
                part = start[lost]
                S[lost], status[lost] = law.advance(C[lost], part, time[lost])
                new[lost] = part
        a, b, c, d, e, f = np.ascontiguousarray(S.T)
        P = _product(_product(G, [a, d, f, d, b, e, f, e, c]), [Q[3 * (k % 3) + k // 3] for k in range(9)])
        stress = torch.from_numpy(np.stack(P, axis=1)).unflatten(1, (3, 3))
        return stress, torch.from_numpy(new), torch.from_numpy(status == SOLVED)

    def slip(self, state: Tensor) -> Tensor:
        return torch.from_numpy(self._laws[0].unpack(state[:, : self.width].numpy())["e"][:, 0])


def _rows(a: np.ndarray) -> list[np.ndarray]:
    """Return the columns of a table (n, k) as k rows (n,) without gaps."""
    return list(np.ascontiguousarray(a.T))


def _product(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    """Return the nine components of the products of 3 x 3 matrices, row by row."""
    return [a[i] * b[j] + a[i + 1] * b[j + 3] + a[i + 2] * b[j + 6] for i in (0, 3, 6) for j in range(3)]


class _Torch:
    """The same in PyTorch, on any device."""

    def __init__(self, parameters: CrystalParameters, substeps: int, device: str | torch.device) -> None:
        self._law = Crystal(parameters, substeps=substeps, device=device)
        self._others = Crystal(parameters, substeps=FINER * substeps, device=device), Crystal(parameters, device=device)
        self._shapes = [part.shape[1:] for part in self._law.initial_state(1)]
        self.width = 6 + sum(math.prod(shape) for shape in self._shapes)

    def initial_state(self, n: int) -> Tensor:
        crystals = self._pack(self._law.initial_state(n))
        return torch.cat([to_components(torch.eye(3).to(crystals)).expand(n, 6), crystals], dim=1)

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As that of `_Compiled`."""
        Q = state[:, self.width :].unflatten(1, (3, 3))
        G = matmul(F, Q)
        C0, C1, start = from_components(state[:, :6]), matmul(G.mT, G), self._unpack(state)
        new, status, _ = self._law.update(C0, C1, start, dt)
        for law in self._others:
            lost = torch.nonzero(status).flatten()
            if len(lost) > 0:
                again = law.update(C0[lost], C1[lost], start.rows(lost), dt[lost])
                for whole, part in zip((*new, status), (*again.state, again.status)):
                    whole[lost] = part
        P = matmul(matmul(G, self._law.second_piola(C1, new)), Q.mT)
        return P, torch.cat([to_components(C1), self._pack(new), state[:, self.width :]], dim=1), status == 0

    def slip(self, state: Tensor) -> Tensor:
        return self._unpack(state).e

    def _pack(self, crystals: CrystalState) -> Tensor:
        return torch.cat([part.reshape(len(part), -1) for part in crystals], dim=1)

    def _unpack(self, state: Tensor) -> CrystalState:
        parts = state[:, 6 : self.width].split([math.prod(shape) for shape in self._shapes], dim=1)
        return CrystalState(*[part.reshape(len(state), *shape) for part, shape in zip(parts, self._shapes)])


class CrystalPoints:
    """The single crystal as a point law; see `micro.spectral.point_law.PointLaw`.

    Args:
        parameters: Material parameters; magnesium by default.
        backend: "compiled" (on the CPU), "torch" (any device), or "auto": compiled where that is possible.
        substeps: Steps of the crystals per step of the cell.
        device: Torch device.

    Raises:
        ValueError: The backend is unknown, or does not run on the device.
    """

    def __init__(
        self,
        parameters: CrystalParameters | None = None,
        *,
        backend: str = "auto",
        substeps: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        on_cpu = torch.device(device).type == "cpu"
        if backend not in ("auto", "compiled", "torch") or (backend == "compiled" and not on_cpu):
            raise ValueError(f"backend must be 'auto', 'torch' or, on the CPU, 'compiled', got '{backend}', {device}.")
        parameters = load_material() if parameters is None else parameters
        self.backend = ("compiled" if on_cpu and available() else "torch") if backend == "auto" else backend
        self._grains: _Compiled | _Torch
        self._grains = (
            _Compiled(parameters, substeps) if self.backend == "compiled" else _Torch(parameters, substeps, device)
        )

    def initial_state(self, n: int) -> Tensor:
        """Return the state (n, k) of `n` virgin crystals whose axes are those of the sample."""
        crystals = self._grains.initial_state(n)
        return torch.cat([crystals, torch.eye(3).to(crystals).flatten().expand(n, ROTATION)], dim=1)

    def oriented(self, orientations: Tensor) -> Tensor:
        """Return the states (n, k) of virgin crystals with the `orientations` (n, 3, 3), crystal to sample frame."""
        state = self.initial_state(len(orientations))
        state[:, -ROTATION:] = orientations.to(state).flatten(1)
        return state

    def slip(self, state: Tensor) -> Tensor:
        """Return the accumulated slip (n, n_slip) of states (n, k)."""
        return self._grains.slip(state)

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first Piola-Kirchhoff stress (n, 3, 3), Pa, in the sample frame, and the new state.

        The stress of a crystal whose step fails is not a number.
        """
        P, new, ok = self._grains.update(F, state, dt)
        P[~(ok & (determinant(F) > 0))] = torch.nan
        return P, new


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
    backend: str = "auto",
    device: str | torch.device = "cpu",
    **options: object,
) -> SpectralCells:
    """Return a batch of periodic polycrystals.

    Args:
        grain: Grain numbers (b, N...), from 0.
        orientations: Orientation of each grain of each cell (b, g, 3, 3), crystal to sample frame.
        parameters: Material parameters; magnesium by default.
        backend: See `CrystalPoints`.
        device: Torch device.
        options: Further options of `SpectralCells`.

    Raises:
        ValueError: The shapes do not fit, or a grain has no orientation.
    """
    if orientations.dim() != 4 or orientations.shape[-2:] != (3, 3) or len(orientations) != len(grain):
        raise ValueError(f"orientations must have shape ({len(grain)}, g, 3, 3), got {tuple(orientations.shape)}.")
    if grain.min() < 0 or grain.max() >= orientations.shape[1]:
        raise ValueError(f"grain must number {orientations.shape[1]} grains from 0, got up to {grain.max()}.")
    law = CrystalPoints(parameters, backend=backend, device=device)
    flat = torch.from_numpy(np.ascontiguousarray(grain)).flatten(1)
    each = orientations[torch.arange(len(flat))[:, None], flat]  # (b, points, 3, 3)
    internal = law.oriented(each.flatten(0, 1)).unflatten(0, flat.shape)
    phase = torch.zeros(grain.shape, dtype=torch.long)
    return SpectralCells(phase, [law], internal=internal, device=device, **options)  # type: ignore[arg-type]
