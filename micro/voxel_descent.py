"""Descent of the energies to a goal: conjugate gradients in single precision, refined in double.

A pass solves for the correction of the fluctuations with the forces out of balance as the load, in the precision of the
preconditioner; then the forces are computed anew in double precision. The error of the energy is quadratic in that
of the fluctuations, so that one pass or two reach 1e-10 of the tensor; nothing of the result is single.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from micro.voxel_cg import Solution, conjugate_gradients, dot
from micro.voxel_compact import CompactCells
from micro.voxel_fourier import FourierPreconditioner
from micro.voxel_multigrid import Multigrid
from micro.voxel_operator import VoxelOperator
from micro.voxel_threads import spread

PRECONDITIONERS = ("auto", "fourier", "multigrid", "none")
#: Steps after which "auto" goes on with multigrid: hinges and winding struts hold up the Fourier preconditioner.
PATIENCE = 50
#: Part of what a pass gains that rounding of single precision may spoil.
SINGLE = 1e-8
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


class Part:
    """Some cells of a batch, with what a pass needs.

    Args:
        operator: Stiffness of all cells.
        rows: The cells (r,).
        preconditioner: "fourier", "multigrid" or "none".
        precision: Of the pass.
        scale: Factor of the stiffness in the passes: moduli of 1e11 Pa times voxels of a micrometre would leave the
            range of single precision.
    """

    def __init__(
        self, operator: VoxelOperator, rows: Tensor, preconditioner: str, precision: torch.dtype, scale: float
    ) -> None:
        coefficients = operator.coefficients if len(rows) == operator.cells else operator.coefficients[rows]
        self.scale, self.precision = scale, precision
        self.exact = CompactCells(operator.basis, coefficients)
        self.rough = self.exact.scaled(scale).to(precision)
        self._precondition: FourierPreconditioner | Multigrid | None = None
        if preconditioner != "none":
            make = Multigrid if preconditioner == "multigrid" else FourierPreconditioner
            self._precondition = make(VoxelOperator(operator.basis * scale, coefficients), precision)

    def precondition(self, r: Tensor) -> Tensor:
        """Return displacements that about balance forces (r, loads, 3, X, Y, Z)."""
        if self._precondition is None:
            return r * self.scale
        return self._precondition.apply(r * self.scale)

    def balance(self, r: Tensor) -> Tensor:
        """Return the same of scaled nodal forces (loads, 3, r, nodes)."""
        if self._precondition is None:
            return r.clone()
        f = self.rough.spread(r)
        if isinstance(self._precondition, FourierPreconditioner):
            return self.rough.gather(self._precondition.solve(f))
        u = self._precondition.apply(f.permute(2, 0, 1, 3, 4, 5).contiguous())
        return self.rough.gather(u.permute(1, 2, 0, 3, 4, 5))

    def goal(self, tolerance: float, upper: Tensor, least: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what may be left (loads, cells) by what the pass has gained; scaled, and in its precision."""
        size, smallest = (upper * self.scale).to(self.precision), (least * self.scale).to(self.precision)
        spoiled = SINGLE if self.precision == torch.float32 else 0.0

        def goal(gained: Tensor) -> Tensor:
            return torch.maximum(tolerance * torch.maximum(size - gained, smallest), spoiled * gained)

        return goal

    def correct(self, residual: Tensor, goal: Callable[[Tensor], Tensor], limit: Tensor) -> Solution:
        """Return the correction of a pass; energies are scaled.

        Args:
            residual: Forces out of balance (loads, 3, r, nodes).
            goal: Energies that may be left, by what was gained.
            limit: Most steps (loads, r).
        """
        scaled = (residual * self.scale).to(self.precision)
        return conjugate_gradients(self.rough.multiplier(), self.balance, scaled, goal, limit)


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
                found = part.correct(r, goal, limit)
                u = found.u.to(f)
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
