"""Subdomains: a partition of voxel cells into small connected pieces, with their rigid motions and stencils.

The grid is cut into blocks; a subdomain is a set of voxels of a block that are connected by faces and of similar
stiffness. So the only motions of a subdomain without strain are the six rigid ones, however loosely the cell is
connected: voxels with only an edge or a corner in common belong to different subdomains.

Rows of the stiffness are stored as stencils: the 3 x 3 blocks of a node with its 27 neighbours, itself among them. A
node has at most eight voxels, so its row is linear in their coefficients: rows of any number of nodes are one matrix
product, coefficients of the surrounding voxels (n, 8 Q) times a table (8 Q, 243), without duplicates to be summed.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from micro.voxel.solver.element import NODES
from micro.voxel.solver.operator import VoxelOperator

#: Voxels of a subdomain are of one order: the stiffest of the cell to this part of it, and so on downwards.
ORDER = 1e-5
#: Place of a node's neighbours relative to it, in the order of the stencil.
NEIGHBOURS: list[tuple[int, int, int]] = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]


def stencil_table(basis: Tensor) -> Tensor:
    """Return the contribution of each voxel around a node to its row (8 Q, 27 * 9).

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


@dataclass(frozen=True)
class Subdomains:
    """The b subdomains of a batch of cells; each is stored on the nodes of a block, N = (m + 1)^3.

    Attributes:
        cell: Cell of each subdomain (b,).
        size: Voxels m per side of the largest block (3,).
        coefficients: Of the local voxels, zero where they do not belong to the subdomain (b, Q, m^3).
        nodes: Global number, over all cells, of each local node (b, N).
        weights: Weight of the subdomain at each node (b, N): zero outside it; the weights of all subdomains at a node
            add up to one.
        around: Local voxels around each local node (N, 8), of which it is corner 0 to 7; m^3 where there is none.
        pairs: Pairs of local nodes of one voxel: the two nodes, and the stencil number of the first (pairs, 3).
        modes: Six rigid motions of the local nodes (N, 3, 6).
    """

    cell: Tensor
    size: tuple[int, ...]
    coefficients: Tensor
    nodes: Tensor
    weights: Tensor
    around: Tensor
    pairs: Tensor
    modes: Tensor

    def __len__(self) -> int:
        """Number of subdomains."""
        return len(self.cell)

    def restrict(self, r: Tensor) -> Tensor:
        """Return the subdomains' parts (b, N, 3, loads) of nodal forces (cells, loads, 3, X, Y, Z)."""
        flat = r.permute(0, 3, 4, 5, 2, 1).reshape(-1, 3, r.shape[1])
        return flat[self.nodes] * self.weights[..., None, None]

    def resultants(self, r: Tensor) -> Tensor:
        """Return the resultants (b, 6, loads) of the subdomains' parts of nodal forces (cells, loads, 3, X, Y, Z)."""
        return self.modes.flatten(0, 1).mT @ self.restrict(r).flatten(1, 2)

    def extend(self, q: Tensor, shape: torch.Size) -> Tensor:
        """Return displacements (cells, loads, 3, X, Y, Z) of rigid motions q, the transpose of `resultants`."""
        local = (self.modes.flatten(0, 1) @ q).view(*self.nodes.shape, 3, -1) * self.weights[..., None, None]
        flat = q.new_zeros(shape[0] * shape[3] * shape[4] * shape[5], 3 * q.shape[-1])
        index = self.nodes.reshape(-1, 1).expand(-1, flat.shape[1])
        flat.scatter_add_(0, index, local.reshape(len(index), -1))
        return flat.view(shape[0], *shape[3:], 3, q.shape[-1]).permute(0, 5, 4, 1, 2, 3).contiguous()


def cut(n: int, size: int) -> np.ndarray:
    """Return where to cut an edge of n voxels into blocks of at most `size` voxels, as equal as possible."""
    count = -(-n // size)
    return np.arange(count + 1) * n // count


def neighbourhood(m: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return `Subdomains.around` and `Subdomains.pairs` of a block of m voxels per side."""
    at = np.stack(np.meshgrid(*(np.arange(k + 1) for k in m), indexing="ij"), -1).reshape(-1, 1, 3)
    place = at - np.array(NODES)  # (N, 8, 3)
    there = ((place >= 0) & (place < m)).all(-1)
    around = np.where(there, (place[..., 0] * m[1] + place[..., 1]) * m[2] + place[..., 2], math.prod(m))
    other = at + np.array(NEIGHBOURS)  # (N, 27, 3)
    node, number = np.nonzero(((other >= 0) & (other <= m)).all(-1))
    x, y, z = other[node, number].T
    return around, np.stack([node, (x * (m[1] + 1) + y) * (m[2] + 1) + z, number], 1)


def label(solid: np.ndarray, kind: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of subdomains, and the subdomain of each solid voxel in C order.

    Args:
        solid: Solid voxels (cells, X, Y, Z), bool.
        kind: Voxels of different kinds belong to different subdomains; of the same shape.
    """
    number = np.full(solid.shape, -1)
    number[solid] = np.arange(solid.sum())
    pairs = []
    for axis in (1, 2, 3):
        here, there = (np.take(number, range(a, number.shape[axis] - 1 + a), axis) for a in (0, 1))
        same = np.take(kind, range(kind.shape[axis] - 1), axis) == np.take(kind, range(1, kind.shape[axis]), axis)
        joined = (here >= 0) & (there >= 0) & same
        pairs.append(np.stack([here[joined], there[joined]]))
    i, j = np.concatenate(pairs, axis=1)
    count = int(solid.sum())
    return connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(count, count)), directed=False)


def orders_of_stiffness(operator: VoxelOperator) -> tuple[np.ndarray, np.ndarray]:
    """Return which voxels are solid (cells, X, Y, Z), bool, and the order of their stiffness, from 0 to 60."""
    trace = torch.einsum("cqxyz,q->cxyz", operator.coefficients, operator.basis.diagonal(dim1=1, dim2=2).sum(1))
    stiff = trace.cpu().numpy()
    solid = stiff > 0
    largest = stiff.max(axis=(1, 2, 3), keepdims=True)
    part = np.divide(stiff, largest, out=np.ones_like(stiff), where=solid & (largest > 0))
    return solid, np.floor(np.log(np.maximum(part, 1e-300)) / math.log(ORDER) * (1 - 1e-12)).astype(int)


def grid_of(m: tuple[int, ...]) -> np.ndarray:
    """Return the points (m_1 m_2 m_3, 3) of a grid, numbered in C order."""
    return np.stack(np.meshgrid(*(np.arange(k) for k in m), indexing="ij"), -1).reshape(-1, 3)


def node_weights(operator: VoxelOperator, m: tuple[int, ...], coefficients: Tensor, nodes: Tensor) -> Tensor:
    """Return `Subdomains.weights`: the stiffness of the subdomain at a node over that of all subdomains there.

    Args:
        operator: Stiffness of the cells.
        m: Voxels per side of a block.
        coefficients: See `Subdomains`.
        nodes: See `Subdomains`.
    """
    voxels = grid_of(m)[:, None] + np.array(NODES)
    local_nodes = (voxels[..., 0] * (m[1] + 1) + voxels[..., 1]) * (m[2] + 1) + voxels[..., 2]  # (m^3, 8)
    parts = operator.basis.diagonal(dim1=1, dim2=2).unflatten(1, (8, 3)).sum(2)  # (Q, 8)
    own = coefficients.new_zeros(nodes.shape)
    for a in range(8):
        column = torch.tensor(local_nodes[:, a], device=nodes.device)
        own.index_add_(1, column, torch.einsum("bqv,q->bv", coefficients, parts[:, a]))
    whole = own.new_zeros(operator.cells * math.prod(operator.shape)).scatter_add_(0, nodes.flatten(), own.flatten())
    return torch.where(own > 0, own / whole.clamp(min=torch.finfo(own.dtype).tiny)[nodes], 0.0)


def rigid_motions(m: tuple[int, ...], spacing: np.ndarray, like: Tensor) -> Tensor:
    """Return `Subdomains.modes` of a block of m voxels per side, in the type and on the device of `like`."""
    grid = grid_of(tuple(k + 1 for k in m))
    place = torch.tensor((grid - grid.mean(0)) * spacing / (spacing.max() * max(m))).to(like)
    modes = like.new_zeros(len(grid), 3, 6)
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):
        modes[:, i, i] = 1.0
        modes[:, k, 3 + i], modes[:, j, 3 + i] = place[:, j], -place[:, k]
    return modes


def make_subdomains(operator: VoxelOperator, spacing: np.ndarray, size: int) -> Subdomains:
    """Return the subdomains of the cells of an operator.

    Args:
        operator: Stiffness of the cells.
        spacing: Edges of a voxel (3,).
        size: About the number of voxels per side of a block.
    """
    c = operator.coefficients
    solid, order = orders_of_stiffness(operator)
    cuts = [cut(n, size) for n in operator.shape]
    m = tuple(int(np.diff(edges).max()) for edges in cuts)
    where = [np.searchsorted(edges, np.arange(n), side="right") - 1 for edges, n in zip(cuts, operator.shape)]
    I, J, K = np.meshgrid(*where, indexing="ij")
    block_id = (I * (len(cuts[1]) - 1) + J) * (len(cuts[2]) - 1) + K
    count, subdomain = label(solid, 64 * block_id + order)
    cell, x, y, z = np.nonzero(solid)
    first = np.zeros(count, dtype=int)  # a voxel of each subdomain
    first[subdomain] = np.arange(len(subdomain))
    of_cell = cell[first]
    block = np.stack([I, J, K], -1)[x[first], y[first], z[first]].reshape(count, 3)
    corner = np.stack([edges[block[:, a]] for a, edges in enumerate(cuts)], 1)  # (b, 3)
    local = np.stack([x, y, z], 1) - corner[subdomain]
    voxel = (local[:, 0] * m[1] + local[:, 1]) * m[2] + local[:, 2]
    device = c.device
    coefficients = c.new_zeros(count, operator.rank, math.prod(m))
    values = c.permute(0, 2, 3, 4, 1)[torch.tensor(solid, device=device)]
    coefficients[torch.tensor(subdomain, device=device), :, torch.tensor(voxel, device=device)] = values

    at = (corner[:, None] + grid_of(tuple(k + 1 for k in m))) % np.array(operator.shape)
    X, Y, Z = operator.shape
    nodes = torch.tensor(((of_cell[:, None] * X + at[..., 0]) * Y + at[..., 1]) * Z + at[..., 2], device=device)
    weights = node_weights(operator, m, coefficients, nodes)
    around, pairs = (torch.tensor(index, device=device) for index in neighbourhood(m))
    cells = torch.tensor(of_cell, device=device)
    return Subdomains(cells, m, coefficients, nodes, weights, around, pairs, rigid_motions(m, spacing, c))
