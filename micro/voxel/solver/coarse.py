"""Coarser grids of voxels: trilinear transfer, and the Galerkin stiffness voxel by voxel.

Two voxels a side make one of the coarser grid; where a side is odd, its last voxel stays as it is. The Galerkin product
is local to the coarse voxel, K_E = sum P_c' K_c P_c over its children c, so voids, phases and sides of any length need
no special care.
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
    """Return the Galerkin stiffness on the grid of half as many voxels a side."""
    shape = operator.shape
    if isinstance(operator, VoxelOperator) and operator.rank <= 2 and all(n % 2 == 0 for n in shape):
        # eight times the basis, an eighth of the voxels: no matrix of each voxel has to be kept
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
