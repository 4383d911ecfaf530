"""Stiffness of periodic voxel cells, matrix-free: gather the corners, one product with the voxel's matrix, scatter.

The stiffness of voxel e of a cell is a sum over few basis matrices, K_e = sum_q c_q(e) K_q: one for a material of
varying density, two for any number of isotropic phases, the rank of the phases' moduli in general. So the product with
all voxels, loads and cells is one matrix product, K_q times (24, N), whatever the cell looks like.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (19), (23) and (25).
"""

import torch
from torch import Tensor

from micro.voxel.solver.compact import CompactCells
from micro.voxel.solver.element import NODES

AXES = (-3, -2, -1)
#: Range of cells, of loads and of layers along the first axis.
Piece = tuple[int, int, int, int, int, int]
#: Numbers gathered at a time, so that they stay in the cache of a CPU; on a GPU what the memory allows.
CHUNK = {"cpu": 1 << 18, "cuda": 1 << 27}
#: Part of solid voxels up to which the product is taken of these alone.
SPARSE = 0.4


def pad(u: Tensor) -> Tensor:
    """Return nodal values (..., X, Y, Z) with their periodic images at the far faces, (..., X + 1, Y + 1, Z + 1)."""
    for axis in (-3, -2, -1):
        u = torch.cat([u, u.narrow(axis, 0, 1)], axis)
    return u


def fold(f: Tensor) -> Tensor:
    """Return padded nodal forces (..., X + 1, Y + 1, Z + 1) with the images added to their nodes; changes `f`."""
    for axis in (-3, -2, -1):
        n = f.shape[axis] - 1
        f.narrow(axis, 0, 1).add_(f.narrow(axis, n, 1))
        f = f.narrow(axis, 0, n)
    return f


class VoxelOperator:
    """The stiffness of a batch of periodic cells.

    Args:
        basis: Matrices K_q (Q, 24, 24), symmetric.
        coefficients: c_q of each voxel (cells, Q, X, Y, Z).
    """

    def __init__(self, basis: Tensor, coefficients: Tensor) -> None:
        self.basis = basis.to(coefficients)
        self.coefficients = coefficients
        self.cells, self.rank = coefficients.shape[:2]
        self.shape = tuple(coefficients.shape[2:])
        self._compact: CompactCells | None = None
        self._sparse: bool | None = None

    @property
    def sparse(self) -> bool:
        """Whether the product is taken by index: the cells are mostly void."""
        if self._sparse is None:
            self._sparse = float((self.coefficients != 0).any(1).double().mean()) < SPARSE
        return self._sparse

    @property
    def compact(self) -> CompactCells:
        """The solid voxels of the cells, made when first wanted."""
        if self._compact is None:
            self._compact = CompactCells(self.basis, self.coefficients)
        return self._compact

    def to(self, dtype: torch.dtype) -> "VoxelOperator":
        """Return the operator in another precision."""
        if dtype == self.coefficients.dtype:
            return self
        other = VoxelOperator(self.basis.to(dtype), self.coefficients.to(dtype))
        if self.sparse:
            other._compact = self.compact.to(dtype)
        return other

    def chunks(self, loads: int) -> list[Piece]:
        """Return the pieces to take at a time: ranges of cells, of loads and of layers along the first axis."""
        X, Y, Z = self.shape
        fits = CHUNK["cpu" if self.coefficients.device.type == "cpu" else "cuda"] // (24 * max(1, self.rank // 2))
        layers = max(1, min(X, fits // (Y * Z)))
        some = max(1, min(loads, fits // (layers * Y * Z)))
        many = max(1, min(self.cells, fits // (layers * Y * Z * loads))) if layers == X and some == loads else 1
        return [
            (c, min(c + many, self.cells), k, min(k + some, loads), x, min(x + layers, X))
            for c in range(0, self.cells, many)
            for k in range(0, loads, some)
            for x in range(0, X, layers)
        ]

    def gather(self, padded: Tensor, piece: Piece) -> Tensor:
        """Return the corner displacements of a piece of voxels (24, cells, loads, layers, Y, Z)."""
        c, c_, k, k_, x, x_ = piece
        _, Y, Z = self.shape
        part = padded[c:c_, k:k_].permute(2, 0, 1, 3, 4, 5)  # (3, cells, loads, X + 1, Y + 1, Z + 1)
        U = padded.new_empty(8, 3, c_ - c, k_ - k, x_ - x, Y, Z)
        for a, (i, j, l) in enumerate(NODES):
            U[a] = part[..., x + i : x_ + i, j : j + Y, l : l + Z]
        return U.flatten(0, 1)

    def scatter(self, F: Tensor, out: Tensor, piece: Piece) -> None:
        """Add corner forces (Q, 24, cells, loads, layers, Y, Z), times the coefficients, to the padded nodal ones."""
        c, c_, k, k_, x, x_ = piece
        _, Y, Z = self.shape
        part = out[c:c_, k:k_].permute(2, 0, 1, 3, 4, 5)
        weights = self.coefficients[c:c_, :, None, x:x_].transpose(0, 1)  # (Q, cells, 1, layers, Y, Z)
        F = F.unflatten(1, (8, 3))
        if self.rank > 1:
            F = (F * weights[:, None, None]).sum(0)
        for a, (i, j, l) in enumerate(NODES):
            view = part[..., x + i : x_ + i, j : j + Y, l : l + Z]
            if self.rank > 1:
                view.add_(F[a])
            else:
                view.addcmul_(F[0, a], weights[0])

    def apply(self, u: Tensor) -> Tensor:
        """Return the nodal forces K u.

        Args:
            u: Nodal displacements (cells, loads, 3, X, Y, Z).
        """
        if self.sparse:
            cells = self.compact
            f = cells.spread(cells.multiplier()(cells.gather(u.permute(1, 2, 0, 3, 4, 5))))
            return f.permute(2, 0, 1, 3, 4, 5).contiguous()
        padded, out = pad(u), u.new_zeros(*u.shape[:3], *(n + 1 for n in self.shape))
        K = self.basis.flatten(0, 1)
        for piece in self.chunks(u.shape[1]):
            U = self.gather(padded, piece)
            F = (K @ U.flatten(1)).view(self.rank, *U.shape)
            self.scatter(F, out, piece)
        return fold(out).contiguous()

    def force(self, A: Tensor) -> Tensor:
        """Return the nodal forces of displacements that are the same in all voxels.

        Args:
            A: Nodal displacements of a voxel by load (24, loads).

        Returns:
            Forces (cells, loads, 3, X, Y, Z).
        """
        loads = A.shape[1]
        F = (self.basis @ A.to(self.basis)).view(self.rank, 8, 3, loads).permute(0, 3, 2, 1).flatten(1, 2)
        out = self.coefficients.new_zeros(self.cells, 3 * loads, self.coefficients[0, 0].numel())
        for q in range(self.rank):
            around = [self.coefficients[:, q].roll(node, AXES) for node in NODES]
            out += F[q] @ torch.stack(around, 1).flatten(2)
        return out.view(self.cells, loads, 3, *self.shape)

    def energies(self, u: Tensor, A: Tensor) -> Tensor:
        """Return, for every voxel and basis matrix, the mutual energies of the loads.

        Args:
            u: Fluctuations (cells, loads, 3, X, Y, Z).
            A: Affine part, nodal displacements of a voxel by load (24, loads).

        Returns:
            (u_k + A_k).K_q (u_l + A_l) of each voxel, (cells, Q, loads, loads, X, Y, Z).
        """
        loads = u.shape[1]
        padded = pad(u)
        out = u.new_empty(self.cells, self.rank, loads, loads, *self.shape)
        fits = max(1, CHUNK["cpu"] // (24 * loads * self.shape[1] * self.shape[2]))
        for c in range(self.cells):
            for x in range(0, self.shape[0], fits):
                piece = (c, c + 1, 0, loads, x, min(x + fits, self.shape[0]))
                U = self.gather(padded, piece)[:, 0] + A.to(u)[:, :, None, None, None]  # (24, loads, layers, Y, Z)
                for q in range(self.rank):
                    F = (self.basis[q] @ U.flatten(1)).view(U.shape)
                    for k in range(loads):
                        out[c, q, k, :, x : piece[5]] = (F[:, k, None] * U).sum(0)
        return out

    def project(self, M: Tensor, u: Tensor, A: Tensor) -> Tensor:
        """Return M (u + A) of each voxel, for instance its strains.

        Args:
            M: Matrix (m, 24).
            u: Fluctuations (cells, loads, 3, X, Y, Z).
            A: Affine part, nodal displacements of a voxel by load (24, loads).

        Returns:
            Values (cells, loads, m, X, Y, Z).
        """
        padded = pad(u)
        out = u.new_empty(*u.shape[:2], len(M), *self.shape)
        for piece in self.chunks(u.shape[1]):
            c, c_, k, k_, x, x_ = piece
            U = self.gather(padded, piece) + A.to(u)[:, None, k:k_, None, None, None]
            out[c:c_, k:k_, :, x:x_] = (M @ U.flatten(1)).view(len(M), *U.shape[1:]).permute(1, 2, 0, 3, 4, 5)
        return out

    def matrices_of(self, where: tuple[slice, ...], P: Tensor) -> Tensor:
        """Return P' K_e P for a range of voxels (cells, x, y, z, 24, 24)."""
        P = P.to(self.basis)
        table = (P.mT @ self.basis @ P).flatten(1)
        product = torch.einsum("cqxyz,qm->cxyzm", self.coefficients[(slice(None), slice(None), *where)], table)
        return product.unflatten(-1, (24, 24))

    def diagonal(self) -> Tensor:
        """Return the 3 x 3 blocks of the nodes on the diagonal (cells, X, Y, Z, 3, 3)."""
        blocks = torch.stack([self.basis[:, 3 * a : 3 * a + 3, 3 * a : 3 * a + 3] for a in range(8)])  # (8, Q, 3, 3)
        out = self.coefficients.new_zeros(self.cells, 9, *(n + 1 for n in self.shape))
        _, Y, Z = self.shape
        X = self.shape[0]
        for a, (i, j, l) in enumerate(NODES):
            part = torch.einsum("qm,cqxyz->cmxyz", blocks[a].flatten(1), self.coefficients)
            out[..., i : i + X, j : j + Y, l : l + Z] += part
        return fold(out).permute(0, 2, 3, 4, 1).unflatten(-1, (3, 3)).contiguous()
