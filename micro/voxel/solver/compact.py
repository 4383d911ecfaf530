"""Product with the stiffness of the solid voxels of cells, on their nodes alone, both found by index.

Fields are laid out (loads, 3, cells, nodes): the nodes of the solid in the order of the grid, then one that is
nowhere. It stands for what is missing, the corners of voxels and the voxels around nodes; its values are zero. Cells of
a batch have as many nodes as the largest, the rest being nowhere, too. Where 60 % of the voxels are solid the product
takes as long as that of all voxels by shifting the grid (`micro.voxel.solver.operator`), and a fourth longer without
voids.
"""

import itertools
from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from micro.voxel.solver.element import NODES

AXES = (-3, -2, -1)
#: Kinds of voxels up to which each has a matrix of its own; beyond, coefficients multiply the basis matrices.
KINDS = 8
#: Voxels or nodes taken at a time.
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
        """Give the nodes (cells, X, Y, Z) their columns: cell after cell, each with one more that is nowhere."""
        flat = touched.flatten(1)
        count = flat.sum(1)
        self.nodes = int(count.max()) + 1
        last = torch.arange(1, self.cells + 1, device=flat.device)[:, None] * self.nodes - 1
        order = flat.cumsum(1) + (last - self.nodes)
        #: Column of each place of the grid (cells X Y Z,), place of each column, 0 if it is nowhere.
        self.column = torch.where(flat, order, last).flatten()
        self.place = torch.zeros(self.cells * self.nodes, dtype=torch.long, device=flat.device)
        self.place[order[flat]] = torch.nonzero(flat.flatten()).flatten()
        #: One, zero at what is nowhere (cells, nodes).
        self.inside = (torch.arange(self.nodes, device=flat.device) < count[:, None]).to(dtype)

    def _ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges of columns to take at a time."""
        ends = [*range(first, last, SOME["cpu" if self.column.device.type == "cpu" else "cuda"]), last]
        return list(itertools.pairwise(ends))

    def to(self, dtype: torch.dtype) -> "CompactCells":
        """Return the cells in another precision; the indices are shared."""
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
        """Return the function u -> K u of (loads, 3, cells, nodes), contiguous, that keeps its own work space."""
        at_corners = self.inside.new_empty(24 * max((b - a for a, b, *_ in self.corners), default=0))
        forces = self.inside.new_zeros(24, self.voxels + 1)  # the last one, nowhere, stays zero
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
