"""Rows of the stiffness of voxels as stencils: every node's 3 x 3 blocks with its 27 neighbours, itself among them.

A node has at most eight voxels, so that its row is linear in their coefficients: rows of any number of nodes are one
matrix product, coefficients of the voxels around (n, 8 Q) times a table (8 Q, 243), without duplicates to be summed.
"""

from torch import Tensor

from micro.voxel.solver.element import NODES

#: Place of a node's neighbours relative to it, in the order of the stencil.
NEIGHBOURS: list[tuple[int, int, int]] = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]


def stencil_table(basis: Tensor) -> Tensor:
    """Return what each voxel around a node adds to its row (8 Q, 27 * 9).

    Args:
        basis: Matrices K_q of a voxel (Q, 24, 24).
    """
    table = basis.new_zeros(8, len(basis), 27, 3, 3)
    blocks = basis.unflatten(2, (8, 3)).unflatten(1, (8, 3))  # (Q, 8, 3, 8, 3)
    for a, here in enumerate(NODES):
        for b, there in enumerate(NODES):
            offset = tuple(t - h for t, h in zip(there, here))
            table[a, :, NEIGHBOURS.index(offset)] = blocks[:, a, :, b]  # type: ignore[arg-type]
    return table.view(8 * len(basis), 27 * 9)


def stencil_rows(coefficients: Tensor, around: Tensor, table: Tensor) -> Tensor:
    """Return the rows of nodes (..., n, 27, 3, 3).

    Args:
        coefficients: Of the voxels (..., Q, v).
        around: The voxels of which the node is corner 0 to 7 (n, 8).
        table: See `stencil_table`.
    """
    near = coefficients[..., around].movedim(-3, -1)  # (..., n, 8, Q)
    return (near.flatten(-2) @ table).unflatten(-1, (27, 3, 3))
