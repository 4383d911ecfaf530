"""The effective stiffness as a differentiable function of the densities, for optimisation and for networks.

The energy is stationary in the displacements: the derivative of the tensor by a density is the mutual energy of the
unit strains in that voxel, so no second problem has to be solved.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.voxel.solver.homogeniser import Homogeniser


class _EffectiveTensor(torch.autograd.Function):
    """Forward: solve; backward: energies of the voxels."""

    @staticmethod
    def forward(ctx: Any, density: Tensor, stiffness: np.ndarray | None, tolerance: float, options: dict) -> Tensor:
        """Solve, and store the derivatives if they are needed."""
        cell = Homogeniser(density.detach(), stiffness, **options)
        result = cell.solve(tolerance=tolerance)
        if not bool(result.converged.all()):
            raise ValueError(f"tolerance {tolerance} was not reached in {int(result.iterations.max())} iterations.")
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(cell.gradient(result.displacement))
        return result.tensor.to(density.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the product of the derivatives with the incoming gradient."""
        (gradient,) = ctx.saved_tensors
        return torch.einsum("cij,cijxyz->cxyz", grads[0].to(gradient), gradient).to(grads[0].dtype), None, None, None


def effective_tensor(
    density: Tensor, stiffness: np.ndarray | None = None, *, tolerance: float = 1e-6, **options: Any
) -> Tensor:
    """Return the effective stiffness (cells, 6, 6), differentiable once by the densities.

    Args:
        density: Densities (cells, X, Y, Z), at least 0.
        stiffness: Moduli of the solid (6, 6), or of the phases; E = 1, nu = 0.3 when None.
        tolerance: Error of the tensor; the error of the derivatives is about its square root.
        options: Further options of `Homogeniser`.

    Raises:
        ValueError: An argument does not fit, or the solver does not converge.
    """
    if density.ndim != 4:
        raise ValueError(f"density must have shape (cells, X, Y, Z), got {tuple(density.shape)}.")
    return _EffectiveTensor.apply(density, stiffness, tolerance, options)
