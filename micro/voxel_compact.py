"""Product with the stiffness of a cell that is mostly void: of its solid voxels alone, found by index."""

from copy import copy

import torch
from torch import Tensor

from micro.voxel_element import NODES

#: Part of solid voxels up to which the product by index is faster than that of all voxels.
SPARSE = 0.25
#: Voxels taken at a time.
SOME = {"cpu": 1 << 12, "cuda": 1 << 22}


class CompactCell:
    """The solid voxels of one cell.

    Args:
        basis: Matrices K_q (Q, 24, 24).
        coefficients: c_q of each voxel (Q, X, Y, Z).
    """

    def __init__(self, basis: Tensor, coefficients: Tensor) -> None:
        # rows by component, then corner: the order in which the corners of a field are found
        order = torch.arange(24, device=basis.device).view(8, 3).T.flatten()
        self.basis = basis[:, order][:, :, order].flatten(0, 1)
        self.rank = len(basis)
        shape = coefficients.shape[1:]
        number = torch.arange(shape.numel(), device=basis.device).view(shape)
        voxels = torch.nonzero((coefficients != 0).any(0).flatten()).flatten()
        corners = [number.roll([-i for i in node], (0, 1, 2)).flatten()[voxels] for node in NODES]
        at_once = SOME["cpu" if basis.device.type == "cpu" else "cuda"]
        self.pieces: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for start in range(0, len(voxels), at_once):
            part = slice(start, start + at_once)
            corner = torch.stack([nodes[part] for nodes in corners])  # (8, n)
            nodes, slot = corner.flatten().unique(return_inverse=True)
            # for each node, where its corners stand; absent ones point at a column of zeros
            turn = torch.argsort(slot, stable=True)
            count = torch.bincount(slot, minlength=len(nodes))
            first = count.cumsum(0) - count
            rank = torch.arange(len(slot), device=slot.device) - first[slot[turn]]
            where = torch.full((8, len(nodes)), corner.numel(), device=slot.device)
            where[rank, slot[turn]] = turn
            c = coefficients.flatten(1)[:, voxels[part]]
            self.pieces.append((corner.flatten(), nodes, where.flatten(), c.contiguous()))

    def to(self, dtype: torch.dtype) -> "CompactCell":
        """Return the cell in another precision."""
        other = copy(self)
        other.basis = self.basis.to(dtype)
        other.pieces = [(corner, nodes, where, c.to(dtype)) for corner, nodes, where, c in self.pieces]
        return other

    def apply(self, u: Tensor, out: Tensor) -> None:
        """Add the nodal forces K u to `out`, both (loads, 3, X, Y, Z) and contiguous."""
        flat, total = u.view(-1, u[0, 0].numel()), out.view(-1, u[0, 0].numel())
        loads = len(u)
        for corner, nodes, where, c in self.pieces:
            n = c.shape[1]
            U = flat.index_select(1, corner).view(loads, 24, n)
            F = self.basis @ U  # (loads, 24 Q, n)
            F = F.mul_(c[0]) if self.rank == 1 else torch.einsum("lqan,qn->lan", F.view(loads, self.rank, 24, n), c)
            F = torch.nn.functional.pad(F.reshape(3 * loads, 8 * n), (0, 1))
            total.index_add_(1, nodes, F.index_select(1, where).view(3 * loads, 8, -1).sum(1))
