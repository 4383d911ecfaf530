"""Descent of the energies to a goal: conjugate gradients in single precision, refined in double.

A pass solves for the correction of the fluctuations with the forces out of balance as the load, in the precision of the
preconditioner; then the forces are computed anew in double precision. The error of the energy is quadratic in that
of the fluctuations, so that one pass reaches 1e-8 of the tensor and two or three 1e-10; no result is single.

Loads and cells do not see each other: each ends by itself, and threads share them out.
"""

import math
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from micro.voxel.solver.batch import Part
from micro.voxel.solver.operator import VoxelOperator
from micro.voxel.solver.pcg import dot
from micro.voxel.solver.threads import spread

PRECONDITIONERS = ("auto", "fourier", "multigrid", "none")
#: Steps after which "auto" goes on with multigrid: hinges and winding struts hold up the Fourier preconditioner.
PATIENCE = 50
#: Voxels of the cells that are solved together: on a CPU what its cache holds.
TOGETHER = {"cpu": 1 << 14, "cuda": 1 << 24}
#: Voxels from which on threads are worth their start, and from which on each load is solved by itself.
THREADS, ALONE = 1 << 12, 1 << 15
#: Passes after which no more accuracy is to be had.
PASSES = 12
#: Parts kept.
KEPT = 4


@dataclass(frozen=True)
class Descended:
    """Where the descent ended.

    Attributes:
        u: Fluctuations (cells, loads, 3, X, Y, Z).
        residual: Their forces out of balance, of the same shape.
        left: Estimated errors of the energies (cells, loads).
        iterations: Steps of each cell, those of the load that took most (cells,).
        converged: Whether all loads of a cell came to the goal (cells,).
    """

    u: Tensor
    residual: Tensor
    left: Tensor
    iterations: Tensor
    converged: Tensor


class Descent:
    """The descent of a batch of cells.

    Args:
        operator: Stiffness of the cells.
        load: Forces of the unit strains (cells, loads, 3, X, Y, Z).
        preconditioner: One of `PRECONDITIONERS`.
        precision: Of the passes.
    """

    def __init__(self, operator: VoxelOperator, load: Tensor, preconditioner: str, precision: torch.dtype) -> None:
        self.operator, self.load = operator, load
        self.preconditioner, self.precision = preconditioner, precision
        self.scale = 1 / float((operator.coefficients.abs().amax() * operator.basis.abs().amax()).clamp(min=1e-300))
        self._parts: dict[tuple[str, torch.dtype, tuple[int, ...]], Part] = {}
        self._lock = Lock()

    def part(self, name: str, rows: Tensor, precision: torch.dtype | None = None) -> Part:
        """Return some cells with a preconditioner; the last ones asked for are kept."""
        precision = self.precision if precision is None else precision
        key = name, precision, tuple(rows.tolist())
        with self._lock:
            if key not in self._parts:
                if len(self._parts) >= KEPT:
                    self._parts.pop(next(iter(self._parts)))
                self._parts[key] = Part(self.operator, rows, name, precision, self.scale)
            return self._parts[key]

    def run(self, u: Tensor | None, tolerance: float, size: Tensor, floor: Tensor, iterations: int) -> Descended:
        """Lower the energies until the error of each is below the tolerance.

        Args:
            u: Fluctuations to begin with (cells, loads, 3, X, Y, Z); zero when None.
            tolerance: Error of the energies relative to themselves.
            size: Energies of u = 0 (cells, loads).
            floor: Energies below this count as this (cells, loads).
            iterations: Most steps.
        """
        shape, device = self.load.shape, self.load.device
        cpu, voxels = device.type == "cpu", math.prod(shape[3:])
        pieces = torch.arange(shape[0], device=device).split(max(1, TOGETHER["cpu" if cpu else "cuda"] // voxels))
        threaded = cpu and shape[0] * voxels >= THREADS
        groups = 1
        if cpu and voxels >= ALONE:
            groups = shape[1]
        elif threaded and len(pieces) < torch.get_num_threads():
            groups = min(shape[1], torch.get_num_threads())
        ends = [shape[1] * k // groups for k in range(groups + 1)]
        out = Descended(
            torch.empty_like(self.load) if u is None else u.to(self.load, copy=True),
            torch.empty_like(self.load),
            torch.empty_like(size),
            torch.empty(shape[:2], dtype=torch.long, device=device),
            torch.empty(shape[:2], dtype=torch.bool, device=device),
        )

        def work(item: tuple[Tensor, slice]) -> None:
            self._run(*item, u is not None, out, tolerance, size, floor, iterations)

        items = [(cells, slice(a, b)) for cells in pieces for a, b in zip(ends, ends[1:])]
        spread(work, items, torch.get_num_threads() if threaded else 1)
        return Descended(out.u, out.residual, out.left, out.iterations.amax(1), out.converged.all(1))

    def _run(
        self,
        cells: Tensor,
        loads: slice,
        begun: bool,
        out: Descended,
        tolerance: float,
        size: Tensor,
        floor: Tensor,
        iterations: int,
    ) -> None:
        """Do what `run` says for some cells and loads of the batch, and write it to `out`."""
        names = ("fourier", "multigrid") if self.preconditioner == "auto" else (self.preconditioner,)
        upper, least = size[cells, loads].mT.clone(), floor[cells, loads].mT
        steps = torch.zeros(upper.shape, dtype=torch.long, device=upper.device)
        left = upper.clone()
        converged = torch.zeros_like(steps, dtype=torch.bool)
        precision = self.precision
        if begun:
            first = self.part(names[0], cells)
            u, f = (first.exact.gather(some(field, cells, loads)) for field in (out.u, self.load))
            r = -(first.exact.multiplier()(u) + f)
            upper += dot(f - r, u)
            put(out.residual, cells, loads, first.exact.spread(r))
        for _ in range(PASSES):
            for name in names:
                open_ = ~converged & (steps < iterations)
                late = (steps >= PATIENCE).any(0)
                mine = open_.any(0) & (~late if name == "fourier" else late) if len(names) > 1 else open_.any(0)
                rows = torch.nonzero(mine).flatten()
                if not len(rows):
                    continue
                most = min(iterations, PATIENCE) if len(names) > 1 and name == "fourier" else iterations
                limit = torch.where(open_, most - steps, 0)[:, rows]
                part = self.part(name, cells[rows], precision)
                f = part.exact.gather(some(self.load, cells[rows], loads))
                r = part.exact.gather(some(out.residual, cells[rows], loads)) if begun else -f
                goal = part.goal(tolerance, upper[:, rows], least[:, rows])
                u, found = part.correct(r, goal, limit)
                if begun:
                    u += part.exact.gather(some(out.u, cells[rows], loads))
                r = -(part.exact.multiplier()(u) + f)
                put(out.u, cells[rows], loads, part.exact.spread(u))
                put(out.residual, cells[rows], loads, part.exact.spread(r))
                begun = True  # all of them: the first turn takes all
                tried, before = limit > 0, left[:, rows]
                steps[:, rows] += found.iterations
                left[:, rows] = torch.where(tried, found.left.to(left) / self.scale, before)
                upper[:, rows] -= found.gained.to(upper) / self.scale
                met = left[:, rows] <= tolerance * torch.maximum(upper, least)[:, rows]
                converged[:, rows] = torch.where(tried, met, converged[:, rows])
                if bool((tried & ~met & (found.iterations < limit) & ~(left[:, rows] < 0.1 * before)).any()):
                    precision = torch.float64  # rounding has broken the pass: multigrid of hinges in soft voids
            if not bool((~converged & (steps < iterations)).any()):
                break
        for whole, part_ in ((out.left, left), (out.iterations, steps), (out.converged, converged)):
            whole[cells, loads] = part_.mT


def some(field: Tensor, cells: Tensor, loads: slice) -> Tensor:
    """Return a part of a field (cells, loads, 3, X, Y, Z), laid out (loads, 3, cells, X, Y, Z)."""
    return torch.stack([field[cell, loads] for cell in cells.tolist()], 2)


def put(field: Tensor, cells: Tensor, loads: slice, values: Tensor) -> None:
    """Write what `some` returned."""
    for k, cell in enumerate(cells.tolist()):
        field[cell, loads] = values[:, :, k]
