"""A pass of conjugate gradients on some cells: their product, their preconditioner, and the layout of the fields.

Fields hold the nodes of the solid alone, see `micro.voxel.solver.compact`. Cells that are mostly one soft phase,
void of 1e-9
for instance, need not be multiplied in full either. With c_0 the coefficient of that phase and K_1 the stiffness of a
homogeneous cell of coefficient 1,

    K = c_0 K_1 + (K - c_0 K_1),

where the second part is of the other voxels alone. The Fourier preconditioner is the inverse of c K_1, c the mean of
the coefficients, so that K_1 z = r / c is known for z made of r, and by recursion for the direction p = z + beta p. The
iterates are the same but for rounding, which is why c_0 / c must be small (`SHARE`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from micro.voxel.solver.compact import CompactCells
from micro.voxel.solver.fourier import FourierPreconditioner
from micro.voxel.solver.multigrid import Multigrid
from micro.voxel.solver.operator import VoxelOperator
from micro.voxel.solver.pcg import Solution, conjugate_gradients

#: Part of what a pass gains that rounding of single precision may spoil.
SINGLE = 1e-8
#: Largest share of the softest phase's stiffness in the mean, and least part of the voxels, for which it is split off.
SHARE, MOSTLY = 0.03, 0.25


def split(coefficients: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the coefficients (cells, 1, X, Y, Z) without those of the soft phase, and its share of the mean (cells,).

    None where that does not pay: voids, which cost nothing, several basis matrices, no phase that is soft and common.
    """
    if coefficients.shape[1] > 1:
        return None
    flat = coefficients.flatten(1)
    least, mean = flat.amin(1), flat.mean(1)
    soft = flat == least[:, None]
    share = torch.where(mean > 0, least / mean, 0.0)
    share = torch.where((share <= SHARE) & (soft.double().mean(1) >= MOSTLY), share, 0.0)
    if not bool((share > 0).any()):
        return None
    rest = flat - torch.where(share > 0, least, 0.0)[:, None]
    return rest.view(coefficients.shape), share


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
        self.preconditioner: FourierPreconditioner | Multigrid | None = None
        self.share: Tensor | None = None
        if preconditioner != "none":
            make = Multigrid if preconditioner == "multigrid" else FourierPreconditioner
            self.preconditioner = make(VoxelOperator(operator.basis * scale, coefficients), precision)
        parts = split(coefficients) if preconditioner == "fourier" else None
        if parts is not None:
            self.rest = CompactCells(operator.basis * scale, parts[0]).to(precision)
            self.share = parts[1].to(precision)

    def precondition(self, r: Tensor) -> Tensor:
        """Return displacements that about balance forces (r, loads, 3, X, Y, Z)."""
        if self.preconditioner is None:
            return r * self.scale
        return self.preconditioner.apply(r * self.scale)

    def balance(self, r: Tensor) -> Tensor:
        """Return the same of scaled nodal forces (loads, 3, r, nodes)."""
        if self.preconditioner is None:
            return r.clone()
        f = self.rough.spread(r)
        if isinstance(self.preconditioner, FourierPreconditioner):
            return self.rough.gather(self.preconditioner.solve(f))
        u = self.preconditioner.apply(f.permute(2, 0, 1, 3, 4, 5).contiguous())
        return self.rough.gather(u.permute(1, 2, 0, 3, 4, 5))

    def goal(self, tolerance: float, upper: Tensor, least: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what may be left (loads, cells) by what the pass has gained; scaled, and in its precision."""
        size, smallest = (upper * self.scale).to(self.precision), (least * self.scale).to(self.precision)
        spoiled = SINGLE if self.precision == torch.float32 else 0.0

        def goal(gained: Tensor) -> Tensor:
            return torch.maximum(tolerance * torch.maximum(size - gained, smallest), spoiled * gained)

        return goal

    def correct(self, residual: Tensor, goal: Callable[[Tensor], Tensor], limit: Tensor) -> tuple[Tensor, Solution]:
        """Return the correction of a pass (loads, 3, r, nodes) in double precision, and what it says; energies scaled.

        Args:
            residual: Forces out of balance (loads, 3, r, nodes).
            goal: Energies that may be left, by what was gained.
            limit: Most steps (loads, r).
        """
        scaled = (residual * self.scale).to(self.precision)
        if self.share is None:
            found = conjugate_gradients(self.rough.multiplier(), self.balance, scaled, goal, limit)
            return found.u.to(residual), found
        assert isinstance(self.preconditioner, FourierPreconditioner)
        rest, solve, multiply = self.rest, self.preconditioner.solve, self.rest.multiplier()
        shape = self.rough.shape
        found = conjugate_gradients(  # on all nodes of the grid
            lambda p: rest.spread(multiply(rest.gather(p.unflatten(-1, shape)))).flatten(3),
            lambda r: solve(r.unflatten(-1, shape)).flatten(3),
            self.rough.spread(scaled).flatten(3),
            goal,
            limit,
            self.share,
        )
        return self.exact.gather(found.u.unflatten(-1, shape).to(residual)), found
