"""Stiffness of periodic voxel cells, matrix-free: gather the corners, multiply by the voxel's matrix, scatter.

The stiffness of voxel e of a cell is a sum over few basis matrices, K_e = sum_q c_q(e) K_q: one for a material of
varying density, two for any number of isotropic phases, the rank of the phases' moduli in general. So the product with
all voxels, loads and cells is one matrix product, K_q times (24, N), for any cell.

There are two layouts. `VoxelOperator` takes all voxels by shifting the grid. `CompactCells` takes the solid voxels
alone, on their nodes alone, both found by index: where 60 % of the voxels are solid both take the same time; without
voids it takes a fourth longer.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (19), (23) and (25).
"""

import itertools
from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from micro.voxel.solver.element import NODES

AXES = (-3, -2, -1)
#: Range of cells, of loads and of layers along the first axis.
Piece = tuple[int, int, int, int, int, int]
#: Numbers gathered together, so that they fit into the cache of a CPU; on a GPU as many as the memory allows.
CHUNK = {"cpu": 1 << 18, "cuda": 1 << 27}
#: Fraction of solid voxels up to which the product is computed for these alone.
SPARSE = 0.4
#: Kinds of voxels up to which each has a matrix of its own; beyond, coefficients multiply the basis matrices.
KINDS = 8
#: Voxels or nodes processed together.
SOME = {"cpu": 1 << 13, "cuda": 1 << 24}


def pick(values: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """Return columns of a matrix (rows, n); row by row, which in double precision is several times faster on a CPU."""
    out = values.new_empty(len(values), len(index)) if out is None else out
    for row, found in zip(values, out):
        torch.index_select(row, 0, index, out=found)
    return out


def classes(c: Tensor) -> tuple[Tensor, list[int]] | None:
    """Return an order in which equal columns of c (Q, n) stand together, and how many there are of each kind.

    None if there are more than `KINDS` kinds.
    """
    rest = torch.arange(c.shape[1], device=c.device)
    found: list[Tensor] = []
    while len(rest) and len(found) < KINDS:
        equal = (c[:, rest] == c[:, rest[:1]]).all(0)
        found.append(rest[equal])
        rest = rest[~equal]
    if len(rest):
        return None
    return torch.cat(found) if found else rest, [len(kind) for kind in found]


class CompactCells:
    """The solid voxels of a batch of cells.

    Fields are laid out (loads, 3, cells, nodes): the nodes of the solid in the order of the grid, then one empty
    node. It takes the place of missing corners of voxels and of missing voxels around nodes; its values are zero.
    Cells of a batch have as many nodes as the largest; the remaining ones are empty as well.

    Args:
        basis: Matrices K_q (Q, 24, 24).
        coefficients: c_q of each voxel (cells, Q, X, Y, Z).
    """

    def __init__(self, basis: Tensor, coefficients: Tensor) -> None:
        self.cells, self.rank = coefficients.shape[:2]
        self.shape = tuple(coefficients.shape[2:])
        # rows by component, then corner: the order in which the corners of a field are found
        order = torch.arange(24, device=basis.device).view(8, 3).T.flatten()
        basis = basis[:, order][:, :, order]
        self.weights: Tensor | None = None
        solid = (coefficients != 0).any(1)
        voxels = torch.nonzero(solid.flatten()).flatten()
        c = coefficients.movedim(1, 0).flatten(1)[:, voxels]
        kinds = classes(c)
        if kinds is not None:  # a matrix for each kind
            voxels, c = voxels[kinds[0]], c[:, kinds[0]]
            ends = [0, *itertools.accumulate(kinds[1])]
            #: Matrices (24, 24) of the kinds of voxels, or one of all of them (24, 24 Q).
            self.matrices = [torch.einsum("q,qab->ab", c[:, a], basis) for a in ends[:-1]]
        else:
            ends, self.weights = [0, len(voxels)], c
            self.matrices = [basis.permute(1, 0, 2).flatten(1)]
        touched = solid.clone()
        for node in NODES[1:]:
            touched |= solid.roll(node, AXES)
        self._number_nodes(touched, coefficients.dtype)
        self.voxels = len(voxels)
        number = torch.full((solid.numel(),), self.voxels, device=solid.device)
        number[voxels] = torch.arange(self.voxels, device=solid.device)
        column, number = self.column.view(solid.shape), number.view(solid.shape)
        corners = torch.stack([column.roll((-i, -j, -k), AXES).flatten()[voxels] for i, j, k in NODES])
        somewhere = self.inside.flatten() > 0
        slots = torch.stack([number.roll(node, AXES).flatten()[self.place] for node in NODES])
        slots = torch.where(somewhere, slots, self.voxels)
        slots += (self.voxels + 1) * torch.arange(8, device=solid.device)[:, None]
        #: Ranges of voxels with the columns of their corners and their kind, ranges of nodes with those of their slots.
        self.corners = [
            (a, b, corners[:, a:b].flatten().int(), kind)
            for kind, (first, last) in enumerate(itertools.pairwise(ends))
            for a, b in self._ranges(first, last)
        ]
        self.slots = [(a, b, slots[:, a:b].flatten().int()) for a, b in self._ranges(0, slots.shape[1])]

    def _number_nodes(self, touched: Tensor, dtype: torch.dtype) -> None:
        """Give the nodes (cells, X, Y, Z) their columns: cell after cell, each with one more that is empty."""
        flat = touched.flatten(1)
        count = flat.sum(1)
        self.nodes = int(count.max()) + 1
        last = torch.arange(1, self.cells + 1, device=flat.device)[:, None] * self.nodes - 1
        order = flat.cumsum(1) + (last - self.nodes)
        #: Column of each place of the grid (cells X Y Z,), place of each column, 0 if it is empty.
        self.column = torch.where(flat, order, last).flatten()
        self.place = torch.zeros(self.cells * self.nodes, dtype=torch.long, device=flat.device)
        self.place[order[flat]] = torch.nonzero(flat.flatten()).flatten()
        #: One, zero at empty nodes (cells, nodes).
        self.inside = (torch.arange(self.nodes, device=flat.device) < count[:, None]).to(dtype)

    def _ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges of columns to process together."""
        ends = [*range(first, last, SOME["cpu" if self.column.device.type == "cpu" else "cuda"]), last]
        return list(itertools.pairwise(ends))

    def to(self, dtype: torch.dtype) -> "CompactCells":
        """Return the cells in another precision; the indices are the same arrays."""
        other = copy(self)
        other.matrices, other.inside = [matrix.to(dtype) for matrix in self.matrices], self.inside.to(dtype)
        other.weights = None if self.weights is None else self.weights.to(dtype)
        return other

    def scaled(self, factor: float) -> "CompactCells":
        """Return the cells with a multiple of their stiffness."""
        other = copy(self)
        other.matrices = [matrix * factor for matrix in self.matrices]
        return other

    def gather(self, grid: Tensor) -> Tensor:
        """Return the values (loads, 3, cells, nodes) of the nodes, of a field (loads, 3, cells, X, Y, Z)."""
        loads = len(grid)
        columns = pick(grid.reshape(3 * loads, -1), self.place)
        return columns.view(loads, 3, self.cells, self.nodes).mul_(self.inside)

    def spread(self, u: Tensor) -> Tensor:
        """Return the field (loads, 3, cells, X, Y, Z) of nodal values (loads, 3, cells, nodes), zero in voids."""
        columns = pick(u.reshape(3 * len(u), -1), self.column)
        return columns.view(len(u), 3, self.cells, *self.shape)

    def multiplier(self) -> Callable[[Tensor], Tensor]:
        """Return the function u -> K u of (loads, 3, cells, nodes), contiguous, with its own work space."""
        at_corners = self.inside.new_empty(24 * max((b - a for a, b, *_ in self.corners), default=0))
        forces = self.inside.new_zeros(24, self.voxels + 1)  # the last one, which is empty, stays zero
        around = self.inside.new_empty(24 * max(b - a for a, b, _ in self.slots))

        def multiply(u: Tensor) -> Tensor:
            out = torch.empty_like(u)
            for values, total in zip(u.view(len(u), 3, -1), out.view(len(u), 3, -1)):
                for a, b, index, which in self.corners:
                    U = pick(values, index, at_corners[: 24 * (b - a)].view(3, -1)).view(24, -1)
                    if self.weights is not None:
                        U = U.mul_(self.weights[0, a:b]) if self.rank == 1 else U * self.weights[:, None, a:b]
                    torch.mm(self.matrices[which], U.view(-1, b - a), out=forces[:, a:b])
                for a, b, index in self.slots:
                    F = pick(forces.view(3, -1), index, around[: 24 * (b - a)].view(3, -1))
                    torch.sum(F.view(3, 8, -1), 1, out=total[:, a:b])
            return out

        return multiply


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
        """The solid voxels of the cells, made when first needed."""
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
        """Return the pieces to process together: ranges of cells, of loads and of layers along the first axis."""
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
