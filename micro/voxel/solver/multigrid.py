"""Geometric multigrid on voxels: Galerkin stiffness on coarser grids, Chebyshev smoothing with the nodes' blocks.

The V-cycle is symmetric, and works in single precision: it only preconditions.
"""

import torch
from torch import Tensor

from micro.voxel.solver.coarse import ExplicitOperator, coarsen, prolong, restrict
from micro.voxel.solver.operator import VoxelOperator


def pseudo_inverse(K: Tensor, cut: float = 1e-11) -> Tensor:
    """Return the inverses of semi-definite matrices (n, D, D) on their ranges; rows of voids are left zero."""
    scale = K.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = torch.where(scale > 0, 1 / scale, 0)
    values, vectors = torch.linalg.eigh(scale[:, :, None] * K * scale[:, None])
    keep = values > cut * values[:, -1:]
    weighted = scale[:, :, None] * vectors * torch.where(keep, values, 1).rsqrt()[:, None] * keep[:, None]
    return weighted @ weighted.mT


def inverse_blocks(D: Tensor) -> Tensor:
    """Return the inverses (..., 3, 3) of the nodes' blocks, zero at nodes without solid."""
    trace = D.diagonal(dim1=-2, dim2=-1).sum(-1)
    solid = trace > 0
    eye = torch.eye(3).to(D)
    blocks = torch.where(solid[..., None, None], D, eye)
    return torch.linalg.inv(blocks.double()).to(D) * solid[..., None, None]


class Level:
    """One grid: its stiffness, and Chebyshev smoothing with the nodes' blocks."""

    def __init__(
        self, operator: VoxelOperator | ExplicitOperator, dtype: torch.dtype, degree: int, ratio: float
    ) -> None:
        self.operator, self.degree = operator.to(dtype), degree
        self.blocks = inverse_blocks(operator.diagonal()).to(dtype).permute(0, 4, 5, 1, 2, 3).contiguous()
        self.top = 1.05 * self.largest().clamp(min=1e-30)[:, None, None, None, None, None]
        self.ratio = ratio

    def scale(self, r: Tensor) -> Tensor:
        """Return the residual (cells, loads, 3, X, Y, Z) times the inverse blocks."""
        return (self.blocks[:, None] * r[:, :, None]).sum(3)

    def largest(self, steps: int = 12) -> Tensor:
        """Return about the largest eigenvalue of the scaled stiffness of each cell (cells,), by power iteration."""
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(1, 1, 3, *self.operator.shape, generator=generator, dtype=torch.float64)
        v = v.to(self.blocks).expand(self.operator.cells, -1, -1, -1, -1, -1)
        value = v.new_ones(self.operator.cells)
        for _ in range(steps):
            v = v / v.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None, None, None, None]
            v = self.scale(self.operator.apply(v))
            value = v.flatten(1).norm(dim=1)
        return value

    def smooth(self, r: Tensor, u: Tensor | None) -> Tensor:
        """Improve `u` (zero when None) by a Chebyshev polynomial of the scaled residual."""
        theta, delta = self.top * (1 + 1 / self.ratio) / 2, self.top * (1 - 1 / self.ratio) / 2
        sigma = (1 + 1 / self.ratio) / (1 - 1 / self.ratio)
        rho = 1 / sigma
        residual = r if u is None else r - self.operator.apply(u)
        d = self.scale(residual) / theta
        u = d.clone() if u is None else u + d
        for _ in range(self.degree - 1):
            residual = residual - self.operator.apply(d)
            rho_new = 1 / (2 * sigma - rho)
            d = rho_new * rho * d + (2 * rho_new / delta) * self.scale(residual)
            u = u + d
            rho = rho_new
        return u


class Multigrid:
    """A symmetric V-cycle.

    Args:
        operator: The stiffness to precondition.
        dtype: Precision of the cycle.
        degree: Degree of the Chebyshev smoother, before and after the correction of the coarser grid.
        ratio: Part of the spectrum that the smoother is to damp: from the largest eigenvalue over this upwards.
        coarsest: Largest side of the grid that is solved exactly.
    """

    def __init__(
        self,
        operator: VoxelOperator,
        dtype: torch.dtype = torch.float32,
        degree: int = 2,
        ratio: float = 8.0,
        coarsest: int = 4,
    ) -> None:
        self.dtype = dtype
        self.levels = []
        # Coarse stiffness is computed in full precision: rounded kernels of loose parts would not be found again.
        op: VoxelOperator | ExplicitOperator = operator
        while max(op.shape) > coarsest:
            self.levels.append(Level(op, dtype, degree, ratio))
            op = coarsen(op)
        everywhere = (slice(None),) * 3
        op = ExplicitOperator(op.matrices_of(everywhere, torch.eye(24, dtype=torch.float64)))
        self.inverse = pseudo_inverse(op.dense()).to(dtype)

    def cycle(self, r: Tensor, level: int) -> Tensor:
        """Return the correction to the residual `r` of a grid."""
        if level == len(self.levels):
            return (r.flatten(2) @ self.inverse).view(r.shape)
        grid = self.levels[level]
        u = grid.smooth(r, None)
        coarse = self.cycle(restrict(r - grid.operator.apply(u)), level + 1)
        u = u + prolong(coarse, r.shape[-3:])
        return grid.smooth(r, u)

    def apply(self, r: Tensor) -> Tensor:
        """Return about K^-1 r for forces (cells, loads, 3, X, Y, Z)."""
        return self.cycle(r.to(self.dtype), 0).to(r.dtype)
