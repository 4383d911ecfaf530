"""Descent of the energies to a goal: conjugate gradients in single precision, refined in double.

A pass solves for the correction of the fluctuations with the forces out of balance as the load, in the precision of the
preconditioner; then the forces are computed anew in double precision. The error of the energy is quadratic in that
of the fluctuations, so that one pass or two reach 1e-10 of the tensor; nothing of the result is single.
"""

import math
from dataclasses import fields

import torch
from torch import Tensor

from micro.voxel_cg import Solution, conjugate_gradients
from micro.voxel_fourier import FourierPreconditioner
from micro.voxel_multigrid import Multigrid
from micro.voxel_operator import VoxelOperator

PRECONDITIONERS = ("auto", "fourier", "multigrid", "none")
#: Steps after which "auto" goes on with multigrid: hinges and winding struts hold up the Fourier preconditioner.
PATIENCE = 30
#: Part of what a pass gains that rounding of single precision may spoil.
SINGLE = 1e-8
#: Voxels of the cells that are solved together: on a CPU what its cache holds.
TOGETHER = {"cpu": 1 << 14, "cuda": 1 << 24}
#: Passes after which no more accuracy is to be had.
PASSES = 12


class Part:
    """Some cells of a batch, with what a pass needs.

    Args:
        operator: Stiffness of all cells.
        rows: The cells (r,).
        preconditioner: "fourier", "multigrid" or "none".
        precision: Of the pass.
    """

    def __init__(self, operator: VoxelOperator, rows: Tensor, preconditioner: str, precision: torch.dtype) -> None:
        every = len(rows) == operator.cells
        self.rows = rows
        self.exact = operator if every else VoxelOperator(operator.basis, operator.coefficients[rows])
        self.operator = self.exact.to(precision)
        self._precondition: FourierPreconditioner | Multigrid | None = None
        if preconditioner != "none":
            make = Multigrid if preconditioner == "multigrid" else FourierPreconditioner
            self._precondition = make(self.exact, precision)

    def precondition(self, r: Tensor) -> Tensor:
        """Return displacements that about balance forces (r, loads, 3, X, Y, Z)."""
        return r.clone() if self._precondition is None else self._precondition.apply(r)


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
        # Passes are scaled: moduli of 1e11 Pa times voxels of a micrometre would leave the range of single precision.
        self.scale = 1 / float((operator.coefficients.abs().amax() * operator.basis.abs().amax()).clamp(min=1e-300))
        self._parts: dict[tuple[str, tuple[int, ...]], Part] = {}

    def part(self, name: str, rows: Tensor) -> Part:
        """Return some cells with a preconditioner; the last ones asked for are kept."""
        key = name, tuple(rows.tolist())
        if key not in self._parts:
            if len(self._parts) > 1:
                self._parts.pop(next(iter(self._parts)))
            self._parts[key] = Part(self.operator, rows, name, self.precision)
        return self._parts[key]

    def run(
        self, u: Tensor, residual: Tensor, tolerance: float, size: Tensor, floor: Tensor, iterations: int
    ) -> Solution:
        """Lower the energies until the error of each is below the tolerance.

        Args:
            u: Fluctuations to begin with (cells, loads, 3, X, Y, Z).
            residual: Their forces out of balance.
            tolerance: Error of the energies relative to themselves.
            size: Energies at `u` (cells, loads).
            floor: Energies below this count as this (cells, loads).
            iterations: Most steps.
        """
        some = max(1, TOGETHER["cpu" if u.device.type == "cpu" else "cuda"] // math.prod(self.operator.shape))
        found = [
            self._run(rows, u[rows], residual[rows], tolerance, size[rows], floor[rows], iterations)
            for rows in torch.arange(len(u), device=u.device).split(some)
        ]
        names = [field.name for field in fields(Solution)]
        return Solution(**{name: torch.cat([getattr(part, name) for part in found]) for name in names})

    def _run(
        self,
        cells: Tensor,
        u: Tensor,
        residual: Tensor,
        tolerance: float,
        upper: Tensor,
        floor: Tensor,
        iterations: int,
    ) -> Solution:
        """Do what `run` says for some cells of the batch; changes what it is given."""
        steps = torch.zeros(len(u), dtype=torch.long, device=u.device)
        left = torch.full_like(upper, torch.inf)
        converged = torch.zeros(len(u), dtype=torch.bool, device=u.device)
        for _ in range(PASSES):
            open_ = ~converged & (steps < iterations)
            names = ("fourier", "multigrid") if self.preconditioner == "auto" else (self.preconditioner,)
            for name in names:
                late = steps >= PATIENCE
                mine = open_ & (~late if name == "fourier" else late) if len(names) > 1 else open_
                rows = torch.nonzero(mine).flatten()
                if not len(rows):
                    continue
                limit = torch.full_like(steps[rows], iterations)
                if len(names) > 1 and name == "fourier":
                    limit.clamp_(max=PATIENCE)
                part = self.part(name, cells[rows])
                found = self._correct(part, residual[rows], tolerance, upper[rows], floor[rows], limit - steps[rows])
                u[rows] += found.u
                residual[rows] = -part.exact.apply(u[rows]) - self.load[cells[rows]]
                steps[rows] += found.iterations
                left[rows] = found.left
                upper[rows] = upper[rows] - found.gained
                goal = tolerance * torch.maximum(upper, floor)[rows]
                converged[rows] = (found.left <= goal).all(1)
                open_ = open_ & ~mine
            if not bool((~converged & (steps < iterations)).any()):
                break
        return Solution(u, residual, left, torch.zeros_like(left), steps, converged)

    def _correct(
        self, part: Part, residual: Tensor, tolerance: float, upper: Tensor, floor: Tensor, limit: Tensor
    ) -> Solution:
        """Return the correction of a pass, in the units and precision of the caller."""
        dtype, scale = residual.dtype, self.scale
        size, least = (upper * scale).to(self.precision), (floor * scale).to(self.precision)
        spoiled = SINGLE if self.precision == torch.float32 else 0.0

        def goal(gained: Tensor) -> Tensor:
            return torch.maximum(tolerance * torch.maximum(size - gained, least), spoiled * gained)

        r = (residual * scale).to(self.precision)
        found = conjugate_gradients(
            lambda p: part.operator.apply(p).mul_(scale),
            lambda f: part.precondition(f).mul_(1 / scale),
            torch.zeros_like(r),
            r,
            goal,
            limit,
        )
        return Solution(
            found.u.to(dtype),
            found.residual,
            found.left.to(dtype) / scale,
            found.gained.to(dtype) / scale,
            found.iterations,
            found.converged,
        )
