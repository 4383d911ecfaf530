"""Bodies: a partition of voxel cells into small connected pieces, with their rigid motions.

The grid is cut into blocks; a body is a set of voxels of a block that hang together by faces and are of a like
stiffness. So the only motions of a body that strain nothing are the six rigid ones, however loose the cell is: voxels
that meet in an edge or a corner only belong to different bodies.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from micro.voxel.bounds.stencil import NEIGHBOURS
from micro.voxel.solver.element import NODES
from micro.voxel.solver.operator import VoxelOperator

#: Voxels of a body are of one order: the stiffest of the cell to this part of it, and so on downwards.
ORDER = 1e-5


@dataclass(frozen=True)
class Bodies:
    """The bodies of a batch of cells; each lives on the nodes of a block, N = (m + 1)^3.

    Attributes:
        cell: Cell of each body (b,).
        size: Voxels m a side of the largest block (3,).
        coefficients: Of the local voxels, zero where they are not of the body (b, Q, m^3).
        nodes: Global number, over all cells, of each local node (b, N).
        weights: Part of the node that is the body's (b, N): zero off the body, one in all bodies together.
        around: Local voxels around each local node (N, 8), of which it is corner 0 to 7; m^3 where there is none.
        pairs: Local nodes that share a voxel: the two, and the first's number in the stencil (pairs, 3).
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
        """Number of bodies."""
        return len(self.cell)

    def restrict(self, r: Tensor) -> Tensor:
        """Return the bodies' parts (b, N, 3, loads) of nodal forces (cells, loads, 3, X, Y, Z)."""
        flat = r.permute(0, 3, 4, 5, 2, 1).reshape(-1, 3, r.shape[1])
        return flat[self.nodes] * self.weights[..., None, None]

    def resultants(self, r: Tensor) -> Tensor:
        """Return the resultants (b, 6, loads) of the bodies' parts of nodal forces (cells, loads, 3, X, Y, Z)."""
        return self.modes.flatten(0, 1).mT @ self.restrict(r).flatten(1, 2)

    def extend(self, q: Tensor, shape: torch.Size) -> Tensor:
        """Return displacements (cells, loads, 3, X, Y, Z), the transpose of `resultants`: bodies move rigidly by q."""
        local = (self.modes.flatten(0, 1) @ q).view(*self.nodes.shape, 3, -1) * self.weights[..., None, None]
        flat = q.new_zeros(shape[0] * shape[3] * shape[4] * shape[5], 3 * q.shape[-1])
        index = self.nodes.reshape(-1, 1).expand(-1, flat.shape[1])
        flat.scatter_add_(0, index, local.reshape(len(index), -1))
        return flat.view(shape[0], *shape[3:], 3, q.shape[-1]).permute(0, 5, 4, 1, 2, 3).contiguous()


def cut(n: int, size: int) -> np.ndarray:
    """Return where to cut an edge of n voxels into blocks of at most a size, as equal as can be."""
    count = -(-n // size)
    return np.arange(count + 1) * n // count


def neighbourhood(m: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return `Bodies.around` and `Bodies.pairs` of a block of m voxels a side."""
    at = np.stack(np.meshgrid(*(np.arange(k + 1) for k in m), indexing="ij"), -1).reshape(-1, 1, 3)
    place = at - np.array(NODES)  # (N, 8, 3)
    there = ((place >= 0) & (place < m)).all(-1)
    around = np.where(there, (place[..., 0] * m[1] + place[..., 1]) * m[2] + place[..., 2], math.prod(m))
    other = at + np.array(NEIGHBOURS)  # (N, 27, 3)
    node, number = np.nonzero(((other >= 0) & (other <= m)).all(-1))
    x, y, z = other[node, number].T
    return around, np.stack([node, (x * (m[1] + 1) + y) * (m[2] + 1) + z, number], 1)


def label(solid: np.ndarray, kind: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of bodies, and the body of each solid voxel in C order.

    Args:
        solid: Solid voxels (cells, X, Y, Z), bool.
        kind: Voxels of different kinds are of different bodies, of the same shape.
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


def make_bodies(operator: VoxelOperator, spacing: np.ndarray, size: int) -> Bodies:
    """Return the bodies of the cells of an operator.

    Args:
        operator: Stiffness of the cells.
        spacing: Edges of a voxel (3,).
        size: About the voxels a side of a block.
    """
    c = operator.coefficients
    trace = torch.einsum("cqxyz,q->cxyz", c, operator.basis.diagonal(dim1=1, dim2=2).sum(1))
    stiff = trace.cpu().numpy()
    solid = stiff > 0
    largest = stiff.max(axis=(1, 2, 3), keepdims=True)
    part = np.divide(stiff, largest, out=np.ones_like(stiff), where=solid & (largest > 0))
    order = np.floor(np.log(np.maximum(part, 1e-300)) / math.log(ORDER) * (1 - 1e-12)).astype(int)  # 0 to 60
    cuts = [cut(n, size) for n in operator.shape]
    m = tuple(int(np.diff(edges).max()) for edges in cuts)
    where = [np.searchsorted(edges, np.arange(n), side="right") - 1 for edges, n in zip(cuts, operator.shape)]
    I, J, K = np.meshgrid(*where, indexing="ij")
    block_id = (I * (len(cuts[1]) - 1) + J) * (len(cuts[2]) - 1) + K
    count, body = label(solid, 64 * block_id + order)
    cell, x, y, z = np.nonzero(solid)
    first = np.zeros(count, dtype=int)  # a voxel of each body
    first[body] = np.arange(len(body))
    of_cell = cell[first]
    block = np.stack([I, J, K], -1)[x[first], y[first], z[first]].reshape(count, 3)
    corner = np.stack([edges[block[:, a]] for a, edges in enumerate(cuts)], 1)  # (b, 3)
    local = np.stack([x, y, z], 1) - corner[body]
    voxel = (local[:, 0] * m[1] + local[:, 1]) * m[2] + local[:, 2]
    device = c.device
    coefficients = c.new_zeros(count, operator.rank, m[0] * m[1] * m[2])
    values = c.permute(0, 2, 3, 4, 1)[torch.tensor(solid, device=device)]
    coefficients[torch.tensor(body, device=device), :, torch.tensor(voxel, device=device)] = values

    grid = np.stack(np.meshgrid(*(np.arange(k + 1) for k in m), indexing="ij"), -1).reshape(-1, 3)
    at = (corner[:, None] + grid) % np.array(operator.shape)
    X, Y, Z = operator.shape
    nodes = ((of_cell[:, None] * X + at[..., 0]) * Y + at[..., 1]) * Z + at[..., 2]
    voxels = np.stack(np.meshgrid(*(np.arange(k) for k in m), indexing="ij"), -1).reshape(-1, 1, 3) + np.array(NODES)
    local_nodes = (voxels[..., 0] * (m[1] + 1) + voxels[..., 1]) * (m[2] + 1) + voxels[..., 2]  # (m^3, 8)

    parts = operator.basis.diagonal(dim1=1, dim2=2).unflatten(1, (8, 3)).sum(2)  # (Q, 8)
    share = c.new_zeros(count, len(grid))
    for a in range(8):
        column = torch.tensor(local_nodes[:, a], device=device)
        share.index_add_(1, column, torch.einsum("bqv,q->bv", coefficients, parts[:, a]))
    index = torch.tensor(nodes, device=device)
    whole = c.new_zeros(operator.cells * X * Y * Z).scatter_add_(0, index.flatten(), share.flatten())
    weights = torch.where(share > 0, share / whole.clamp(min=torch.finfo(c.dtype).tiny)[index], 0.0)

    place = torch.tensor((grid - grid.mean(0)) * spacing / (spacing.max() * max(m)), dtype=c.dtype, device=device)
    modes = c.new_zeros(len(grid), 3, 6)
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):
        modes[:, i, i] = 1.0
        modes[:, k, 3 + i], modes[:, j, 3 + i] = place[:, j], -place[:, k]
    around, pairs = (torch.tensor(index, device=device) for index in neighbourhood(m))
    cells = torch.tensor(of_cell, device=device)
    return Bodies(cells, m, coefficients, index, weights, around, pairs, modes)
