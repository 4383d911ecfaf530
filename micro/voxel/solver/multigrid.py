"""Geometric multigrid on voxels: Galerkin stiffness on coarser grids, Chebyshev smoothing with the nodes' blocks.

The V-cycle is symmetric and works in single precision, because it only preconditions.

Two voxels per side make one voxel of the coarser grid, with trilinear transfer; where a side is odd, its last voxel
is kept. The Galerkin product is local to the coarse voxel, K_E = sum P_c' K_c P_c over its children c, so voids,
phases and sides of any length need no special treatment.
"""

import itertools

import torch
from torch import Tensor

from micro.voxel.solver.element import NODES
from micro.voxel.solver.operator import VoxelOperator, fold, pad

#: Interpolation to the two nodes of the first and second half of a coarse edge, and of an edge that stays.
HALVES = (((1.0, 0.0), (0.5, 0.5)), ((0.5, 0.5), (0.0, 1.0)), ((1.0, 0.0), (0.0, 1.0)))


def interpolation(kinds: tuple[int, ...]) -> Tensor:
    """Return the displacements of a child's nodes by those of its parent's (24, 24); see `HALVES`."""
    edges = [torch.tensor(HALVES[h], dtype=torch.float64) for h in kinds]
    nodes = torch.einsum("ad,be,cf->abcdef", *edges).reshape(8, 8)
    return torch.kron(nodes, torch.eye(3, dtype=torch.float64))


def halves(u: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return views of the even and of the odd nodes along an axis of the last three."""
    u = u.movedim(axis, -1)
    return u[..., ::2].movedim(-1, axis), u[..., 1::2].movedim(-1, axis)


def prolong(u: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the values (..., X, Y, Z) on the finer grid of `shape`, trilinear between those of the coarser one."""
    for axis, n in zip((-1, -2, -3), shape[::-1]):
        size = list(u.shape)
        size[axis] = n
        out = u.new_empty(size)
        halves(out, axis)[0].copy_(u)
        halves(out, axis)[1].copy_((u + torch.roll(u, -1, axis)).narrow(axis, 0, n // 2)).mul_(0.5)
        u = out
    return u


def restrict(r: Tensor) -> Tensor:
    """Return the transpose of `prolong`: forces on the coarser grid."""
    for axis in (-3, -2, -1):
        n = r.shape[axis]
        even, odd = halves(r, axis)
        half = 0.5 * odd
        r = even.clone()
        r.narrow(axis, 0, n // 2).add_(half)
        if n % 2 == 0:
            r.add_(torch.roll(half, 1, axis))  # the right neighbour of the last odd node is node 0
        else:
            r.narrow(axis, 1, n // 2).add_(half)
    return r


class ExplicitOperator:
    """Stiffness of a coarse grid whose voxels have a matrix each (cells, X, Y, Z, 24, 24)."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices
        self.cells = matrices.shape[0]
        self.shape = tuple(matrices.shape[1:4])

    def to(self, dtype: torch.dtype) -> "ExplicitOperator":
        """Return the operator in another precision."""
        return ExplicitOperator(self.matrices.to(dtype))

    def matrices_of(self, where: tuple[slice, ...], P: Tensor) -> Tensor:
        """Return P' K_e P for a range of voxels (cells, x, y, z, 24, 24)."""
        P = P.to(self.matrices)
        return (self.matrices[(slice(None), *where)] @ P).mT @ P

    def apply(self, u: Tensor) -> Tensor:
        """Return K u for u (cells, loads, 3, X, Y, Z)."""
        X, Y, Z = self.shape
        padded = pad(u).permute(0, 3, 4, 5, 2, 1)
        U = torch.stack([padded[:, i : i + X, j : j + Y, k : k + Z] for i, j, k in NODES], 4)
        F = (self.matrices.flatten(0, 3) @ U.reshape(-1, 24, u.shape[1])).view(U.shape)
        out = u.new_zeros(self.cells, u.shape[1], 3, X + 1, Y + 1, Z + 1)
        view = out.permute(0, 3, 4, 5, 2, 1)
        for a, (i, j, k) in enumerate(NODES):
            view[:, i : i + X, j : j + Y, k : k + Z] += F[..., a, :, :]
        return fold(out).contiguous()

    def diagonal(self) -> Tensor:
        """Return the blocks of the nodes on the diagonal (cells, X, Y, Z, 3, 3)."""
        X, Y, Z = self.shape
        out = self.matrices.new_zeros(self.cells, 9, X + 1, Y + 1, Z + 1)
        for a, (i, j, k) in enumerate(NODES):
            block = self.matrices[..., 3 * a : 3 * a + 3, 3 * a : 3 * a + 3].flatten(-2).permute(0, 4, 1, 2, 3)
            out[..., i : i + X, j : j + Y, k : k + Z] += block
        return fold(out).permute(0, 2, 3, 4, 1).unflatten(-1, (3, 3)).contiguous()

    def dense(self) -> Tensor:
        """Return the assembled matrices (cells, D, D), D = 3 X Y Z."""
        count = 3 * self.shape[0] * self.shape[1] * self.shape[2]
        columns = torch.eye(count).to(self.matrices).view(1, count, 3, *self.shape)
        return self.apply(columns.expand(self.cells, -1, -1, -1, -1, -1)).flatten(2)


def coarsen(operator: VoxelOperator | ExplicitOperator) -> VoxelOperator | ExplicitOperator:
    """Return the Galerkin stiffness on the grid of half as many voxels per side."""
    shape = operator.shape
    if isinstance(operator, VoxelOperator) and operator.rank <= 2 and all(n % 2 == 0 for n in shape):
        # eight times the basis, an eighth of the voxels: so no voxel needs a matrix of its own
        parts = [interpolation(kinds).to(operator.basis) for kinds in NODES]
        basis = torch.cat([P.mT @ operator.basis @ P for P in parts])
        return VoxelOperator(basis, torch.cat([operator.coefficients[:, :, i::2, j::2, k::2] for i, j, k in NODES], 1))
    out: Tensor | None = None
    for kinds in itertools.product((0, 1, 2), repeat=3):
        if any((kind == 2) > (n % 2) or (kind < 2 and n == 1) for n, kind in zip(shape, kinds)):
            continue
        # children of one kind, halves 0 and 1 of an edge or 2 an edge that stays, and their parents
        fine = [slice(k, 2 * (n // 2), 2) if k < 2 else slice(n - 1, n) for n, k in zip(shape, kinds)]
        coarse = [slice(0, n // 2) if k < 2 else slice(n // 2, None) for n, k in zip(shape, kinds)]
        product = operator.matrices_of(tuple(fine), interpolation(kinds))
        if out is None:
            out = product.new_zeros(operator.cells, *((n + 1) // 2 for n in shape), 24, 24)
        out[(slice(None), *coarse)] += product
    assert out is not None
    return ExplicitOperator(out)


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
        """Return an estimate of the largest eigenvalue of each cell's scaled stiffness (cells,), by power iteration."""
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
        ratio: The smoother damps the spectrum from the largest eigenvalue divided by this upwards.
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
        # Coarse stiffness is computed in full precision: the kernels of loose parts would be lost by rounding.
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
        """Return an approximation of K^-1 r for forces (cells, loads, 3, X, Y, Z)."""
        return self.cycle(r.to(self.dtype), 0).to(r.dtype)
