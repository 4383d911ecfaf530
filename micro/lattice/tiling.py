"""Tiling: the finite lattice that a cell makes, repeated along the axes.

References:
    Masi and Stefanou (2022), section V and figure 13, doi:10.1016/j.cma.2022.115190.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from micro.lattice.geometry import Cell


@dataclass(frozen=True, eq=False)
class Truss:
    """A finite lattice; cells are numbered with the last axis fastest.

    Attributes:
        nodes: Positions (N, d), m.
        bars: Nodes of each bar (B, 2), int.
        area: Cross-section of each bar (B,), m^2: a bar that several cells have in common has the sum of their
            fractions, so that those on the outside have a half or a quarter.
        cell: Number of the first cell that has the bar (B,), int.
        cell_bar: Number of the bar in that cell (B,), int.
        cell_nodes: Node of the lattice for each cell and node of the cell (C, m), int.
        cell_bars: Bar of the lattice for each cell and bar of the cell (C, b), int.
        reference: Positions before the cell was perturbed (N, d), m: the nodes of a face of the lattice are on it.
        origin: Corner of each cell (C, d), m.
    """

    nodes: np.ndarray
    bars: np.ndarray
    area: np.ndarray
    cell: np.ndarray
    cell_bar: np.ndarray
    cell_nodes: np.ndarray
    cell_bars: np.ndarray
    reference: np.ndarray
    origin: np.ndarray


def _merge(kind: np.ndarray, offset: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the nodes or the bars of a lattice from the lists of its cells.

    Args:
        kind: Periodic set that each node or bar of a cell belongs to (m,).
        offset: Its box relative to the set's (m, d).
        places: Integer positions of the cells (C, d).

    Returns:
        Number in the lattice for each cell and entry (C, m); first (cell, entry) of each number, as a flat index.
    """
    low = offset.min(axis=0)
    span = places.max(axis=0) + offset.max(axis=0) - low + 1
    key = np.zeros((len(places), len(kind)), dtype=np.int64)
    for i, size in enumerate(span):
        key = key * size + (places[:, i, None] + (offset[:, i] - low[i]))
    key = key * (int(kind.max()) + 1) + kind
    first = np.full(int(np.prod(span)) * (int(kind.max()) + 1), -1, dtype=np.int64)
    flat = key.reshape(-1)
    first[flat[::-1]] = np.arange(len(flat) - 1, -1, -1)  # of entries that repeat the last is kept, here the first
    used = first >= 0
    number = np.cumsum(used) - 1
    return number[key], first[used]


def tile(cell: Cell, counts: Sequence[int], size: float) -> Truss:
    """Put cells side by side, from the origin on.

    Lengths of the cell are scaled by s = `size` / its first edge, cross-sections by s^(d-1), which keeps the density.

    Args:
        cell: The cell.
        counts: Number of cells along each axis (d,).
        size: First edge of a cell in the lattice, m.

    Returns:
        The finite lattice.

    Raises:
        ValueError: `counts` or `size` does not fit.
    """
    d = cell.dimension
    numbers = np.array(counts)
    if numbers.shape != (d,) or not np.issubdtype(numbers.dtype, np.integer) or not (numbers >= 1).all():
        raise ValueError(f"counts must be {d} integers of at least 1, got {list(counts)}.")
    if not 0 < size < float("inf"):
        raise ValueError(f"size must be positive, got {size}.")
    places = np.stack(np.meshgrid(*map(np.arange, numbers), indexing="ij"), axis=-1).reshape(-1, d)
    cell_nodes, first_node = _merge(cell.master, cell.offset, places)
    cell_bars, first_bar = _merge(cell.bar_class, cell.bar_offset, places)
    scale = size / cell.box[0]
    place, node = np.divmod(first_node, len(cell.nodes))
    corner = (places[place] + cell.offset[node]) * cell.box
    owner, bar = np.divmod(first_bar, len(cell.bars))
    weight = np.broadcast_to(cell.weight * cell.area, cell_bars.shape)
    return Truss(
        nodes=scale * (corner + cell.nodes[cell.master[node]]),
        bars=cell_nodes[owner[:, None], cell.bars[bar]],
        area=scale ** (d - 1) * np.bincount(cell_bars.reshape(-1), weights=weight.reshape(-1)),
        cell=owner,
        cell_bar=bar,
        cell_nodes=cell_nodes,
        cell_bars=cell_bars,
        reference=scale * (corner + cell.reference[cell.master[node]]),
        origin=scale * places * cell.box,
    )
