"""Product with the stiffness of the solid voxels of cells, on their nodes alone, both found by index.

Fields are laid out (loads, 3, cells, nodes): the nodes of the solid in the order of the grid, then one that is
nowhere. It stands for what is missing, the corners of voxels and the voxels around nodes; its values are zero. Cells of
a batch have as many nodes as the largest, the rest being nowhere, too. Without voids these are all nodes of the
grid, and the product is still faster than by shifting the grid: nothing is padded, and a load stays in the cache.
"""

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from micro.voxel_element import NODES

#: Voxels or nodes taken at a time.
SOME = {"cpu": 1 << 13, "cuda": 1 << 24}


def pick(values: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """Return columns of a matrix (rows, n); row by row, which in double precision is several times faster on a CPU."""
    out = values.new_empty(len(values), len(index)) if out is None else out
    for row, found in zip(values, out):
        torch.index_select(row, 0, index, out=found)
    return out


class Numbering:
    """Columns of what is marked on the grid, cell after cell, each with one more that is nowhere.

    Args:
        marked: (cells, X, Y, Z), bool.
    """

    def __init__(self, marked: Tensor) -> None:
        flat = marked.flatten(1)
        cells, count = len(flat), flat.sum(1)
        self.count = int(count.max()) + 1
        #: Column of each cell that is nowhere (cells, 1).
        self.last = last = torch.arange(1, cells + 1, device=flat.device)[:, None] * self.count - 1
        order = flat.cumsum(1) - 1 + (last - self.count + 1)
        #: Column of each place of the grid (cells, X, Y, Z).
        self.column = torch.where(flat, order, last).view(marked.shape)
        #: Place of each column, 0 if nowhere, and whether it is somewhere (cells * count,).
        self.place = torch.zeros(cells * self.count, dtype=torch.long, device=flat.device)
        self.place[order[flat]] = torch.nonzero(flat.flatten()).flatten()
        self.somewhere = torch.arange(self.count, device=flat.device) < count[:, None]

    def find(self, other: "Numbering", node: tuple[int, ...]) -> Tensor:
        """Return where the neighbours of this one's columns stand in the other (cells * count,).

        Args:
            other: Another numbering of the same cells.
            node: Steps to the neighbour.
        """
        found = other.column.roll([-i for i in node], (1, 2, 3)).flatten()[self.place]
        return torch.where(self.somewhere, found.view(-1, self.count), other.last).flatten()


class CompactCells:
    """The solid voxels of a batch of cells.

    Args:
        basis: Matrices K_q (Q, 24, 24).
        coefficients: c_q of each voxel (cells, Q, X, Y, Z).
    """

    def __init__(self, basis: Tensor, coefficients: Tensor) -> None:
        # rows by component, then corner: the order in which the corners of a field are found
        order = torch.arange(24, device=basis.device).view(8, 3).T.flatten()
        self.matrix = basis[:, order][:, :, order].permute(1, 0, 2).flatten(1)  # (24, 24 Q)
        self.cells, self.rank = coefficients.shape[:2]
        self.shape = tuple(coefficients.shape[2:])
        solid = (coefficients != 0).any(1)
        touched = solid.clone()
        for node in NODES[1:]:
            touched |= solid.roll(node, (1, 2, 3))
        voxels, nodes = Numbering(solid), Numbering(touched)
        self.nodes, self.voxels = nodes.count, voxels.count
        in_voxel = voxels.somewhere.flatten()
        corner = [voxels.find(nodes, node) for node in NODES]
        slot = [nodes.find(voxels, (-i, -j, -k)) + a * len(voxels.place) for a, (i, j, k) in enumerate(NODES)]
        some = SOME["cpu" if basis.device.type == "cpu" else "cuda"]
        self.corners = self._pieces(corner, some)
        self.slots = self._pieces(slot, some)
        #: Zero at what is nowhere (cells, nodes).
        self.inside = nodes.somewhere.to(coefficients)
        #: c_q of each column (Q, cells * voxels), None if all are one.
        self.weights: Tensor | None = coefficients.movedim(1, 0).flatten(1)[:, voxels.place] * in_voxel
        if self.rank == 1 and bool(in_voxel.any()):
            solid_ones = self.weights[0][in_voxel]
            if bool((solid_ones == solid_ones[0]).all()):
                self.weights, self.matrix = None, self.matrix * solid_ones[0]
        self.column, self.place = nodes.column.flatten(), nodes.place

    @staticmethod
    def _pieces(index: list[Tensor], some: int) -> list[tuple[int, int, Tensor]]:
        """Return the ranges of columns to take at a time, and their indices, corner after corner."""
        together = torch.stack(index).int() if 8 * len(index[0]) < 2**31 else torch.stack(index)
        count = len(index[0])
        ends = [*range(0, count, some), count]
        return [(a, b, together[:, a:b].flatten()) for a, b in zip(ends, ends[1:])]

    def to(self, dtype: torch.dtype) -> "CompactCells":
        """Return the cells in another precision; the indices are shared."""
        other = copy(self)
        other.matrix, other.inside = self.matrix.to(dtype), self.inside.to(dtype)
        other.weights = None if self.weights is None else self.weights.to(dtype)
        return other

    def scaled(self, factor: float) -> "CompactCells":
        """Return the cells with a multiple of their stiffness."""
        other = copy(self)
        other.matrix = self.matrix * factor
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
        size = max(b - a for a, b, _ in self.corners)
        count = max(b - a for a, b, _ in self.slots)
        at_corners = self.matrix.new_empty(24 * size)
        forces = self.matrix.new_empty(24, self.cells * self.voxels)
        around = self.matrix.new_empty(24 * count)

        def multiply(u: Tensor) -> Tensor:
            out = torch.empty_like(u)
            for values, total in zip(u.view(len(u), 3, -1), out.view(len(u), 3, -1)):
                for a, b, index in self.corners:
                    U = at_corners[: 24 * (b - a)].view(3, -1)
                    U = pick(values, index, U).view(24, -1)
                    if self.weights is not None:
                        U = U.mul_(self.weights[0, a:b]) if self.rank == 1 else U * self.weights[:, None, a:b]
                    torch.mm(self.matrix, U.view(24 * self.rank, -1), out=forces[:, a:b])
                for a, b, index in self.slots:
                    F = around[: 24 * (b - a)].view(3, -1)
                    torch.sum(pick(forces.view(3, -1), index, F).view(3, 8, -1), 1, out=total[:, a:b])
            return out

        return multiply
