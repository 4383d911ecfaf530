"""Lattice cell: nodes and bars that repeat in a box, regular or perturbed.

References:
    Masi and Stefanou (2022), section IV and figures 4, 5 and 13, doi:10.1016/j.cma.2022.115190.
"""

import itertools
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from micro.data.cli import check_memory

#: Shortest bar, in edges of a unit.
SHORTEST = 0.3
#: Smallest signed volume of the edges that meet in a corner of a unit; 1 in a regular unit, less than this a sliver.
SLIVER = 0.1
#: Rounds of drawing again before the perturbation is considered too large.
ROUNDS = 10_000


@dataclass(frozen=True, eq=False)
class Cell:
    """A periodic cell of bars; nodes and bars on opposite faces are listed on both.

    Attributes:
        name: Name, for instance "square-6".
        nodes: Positions (m, d), m.
        bars: Nodes of each bar (b, 2), int.
        weight: Fraction of each bar that belongs to the cell (b,): 1 / the number of its periodic images in the list,
            so 1/2 in a face and 1/4 on an edge of a box; cells that are put side by side then add up.
        area: Cross-section of each whole bar (b,), m^2 (per thickness in two dimensions).
        box: Edges of the box (d,), m.
        master: The independent node that each node is a periodic image of (m,), int; its own number if independent.
        reference: Positions before a perturbation (m, d), m: here a node on a face of the box is on it.
    """

    name: str
    nodes: np.ndarray
    bars: np.ndarray
    weight: np.ndarray
    area: np.ndarray
    box: np.ndarray
    master: np.ndarray
    reference: np.ndarray

    @property
    def dimension(self) -> int:
        """Number of space dimensions d."""
        return self.nodes.shape[1]

    @property
    def volume(self) -> float:
        """Volume of the box, voids included."""
        return float(np.prod(self.box))

    @cached_property
    def vector(self) -> np.ndarray:
        """Vector from the first to the second node of each bar (b, d)."""
        return self.nodes[self.bars[:, 1]] - self.nodes[self.bars[:, 0]]

    @cached_property
    def length(self) -> np.ndarray:
        """Length of each bar (b,)."""
        return np.linalg.norm(self.vector, axis=1)

    @cached_property
    def direction(self) -> np.ndarray:
        """Unit vector of each bar (b, d)."""
        return self.vector / self.length[:, None]

    @cached_property
    def offset(self) -> np.ndarray:
        """How many boxes each node is away from its independent node (m, d), int."""
        return np.rint((self.reference - self.reference[self.master]) / self.box).astype(int)

    @cached_property
    def bar_class(self) -> np.ndarray:
        """Number of the set of periodic images that each bar belongs to (b,), counted in the order of the list."""
        return bar_images(self.bars, self.master, self.offset)[0]

    @cached_property
    def bar_offset(self) -> np.ndarray:
        """How many boxes each bar is away from the common place of its periodic images (b, d), int."""
        return bar_images(self.bars, self.master, self.offset)[1]


def bar_images(bars: np.ndarray, master: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the bars that are periodic images of one another.

    Args:
        bars: Nodes of each bar (b, 2).
        master: Independent node of each node (m,).
        offset: Boxes between a node and its independent node (m, d).

    Returns:
        Number of the set of images of each bar (b,), in the order of first appearance; box of each bar (b, d), such
        that images differ by the difference of their boxes.
    """
    head, tail = bars[:, 0], bars[:, 1]
    step = offset[tail] - offset[head]
    first = np.array([next((x for x in row if x), 0) for row in step])  # sign of a bar from a node to its own image
    turned = np.where(master[head] == master[tail], first < 0, master[head] > master[tail])
    head, tail = np.where(turned, tail, head), np.where(turned, head, tail)
    key = np.column_stack([master[head], master[tail], offset[tail] - offset[head]])
    _, index, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    order = np.empty(len(index), dtype=int)
    order[np.argsort(index)] = np.arange(len(index))
    return order[inverse.reshape(-1)], offset[head]


def check_size(name: str, nodes: int, d: int) -> None:
    """Check that the memory is sufficient to find the periodic images among the nodes of a cell.

    Raises:
        ValueError: it is not; the sentence gives the estimate.
    """
    check_memory(f"cells of {nodes} nodes such as {name}", 30.0 * d * float(nodes) ** 2)


def find_masters(nodes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return for each node the first node of which it is a periodic image, itself if there is none before it (m,).

    Raises:
        ValueError: Two nodes coincide.
    """
    difference = (nodes[:, None] - nodes[None]) / box
    whole = np.rint(difference)
    close = (np.abs(difference - whole) < 1e-9).all(-1)
    same = np.argwhere(np.triu(close & (whole == 0).all(-1), 1))
    if len(same):
        raise ValueError(f"nodes must be distinct, {same[0, 0]} and {same[0, 1]} coincide.")
    return close.argmax(axis=1)


def custom_cell(
    nodes: ArrayLike, bars: ArrayLike, box: ArrayLike, area: ArrayLike = 1.0, *, name: str = "custom"
) -> Cell:
    """Make a cell of any list of struts; periodic images and weights are found.

    Args:
        nodes: Positions (m, d), d = 2 or 3, m; images of a node differ by whole edges of the box.
        bars: Nodes of each bar (b, 2), int; of the images of a bar one or more may be listed.
        box: Edges of the box (d,), m.
        area: Cross-section of all bars or of each (b,), m^2.
        name: Name of the cell.

    Returns:
        The cell.

    Raises:
        ValueError: The list is no cell; the sentence gives the reason.
    """
    nodes, box = np.array(nodes, dtype=float), np.array(box, dtype=float)
    bars = np.array(bars)
    if nodes.ndim != 2 or nodes.shape[1] not in (2, 3) or not np.isfinite(nodes).all():
        raise ValueError(f"nodes must be finite of shape (m, 2) or (m, 3), got shape {nodes.shape}.")
    if box.shape != nodes.shape[1:] or not (np.isfinite(box) & (box > 0)).all():
        raise ValueError(f"box must hold {nodes.shape[1]} positive edges, got {box.tolist()}.")
    if bars.ndim != 2 or bars.shape[1] != 2 or not len(bars) or not np.issubdtype(bars.dtype, np.integer):
        raise ValueError(f"bars must be integers of shape (b, 2), got {bars.dtype} of shape {bars.shape}.")
    if bars.min() < 0 or bars.max() >= len(nodes):
        raise ValueError(f"bars must name nodes 0 to {len(nodes) - 1}, got {bars.min()} to {bars.max()}.")
    areas = np.array(area, dtype=float)
    if areas.shape not in ((), (len(bars),)) or not (np.isfinite(areas) & (areas > 0)).all():
        raise ValueError(f"area must be positive, one number or {len(bars)}, got shape {areas.shape}.")
    if (bars[:, 0] == bars[:, 1]).any():
        raise ValueError(f"bars must join two nodes, bar {np.argmax(bars[:, 0] == bars[:, 1])} joins one to itself.")
    if len(np.unique(np.sort(bars, axis=1), axis=0)) < len(bars):
        raise ValueError("bars must be listed once each, one pair of nodes comes twice.")
    check_size(name, *nodes.shape)
    master = find_masters(nodes, box)
    lonely = np.setdiff1d(master, master[bars])
    if len(lonely):
        raise ValueError(f"nodes must have bars, node {lonely[0]} has none.")
    offset = np.rint((nodes - nodes[master]) / box).astype(int)
    images, _ = bar_images(bars, master, offset)
    weight = 1 / np.bincount(images)[images]
    return Cell(name, nodes, bars, weight, np.broadcast_to(areas, len(bars)).copy(), box, master, nodes.copy())


def corners(grid: np.ndarray) -> np.ndarray:
    """Return the corners of the units of a grid of nodes.

    Args:
        grid: Integer positions of the nodes (m, d), last index fastest, from 0 to k.

    Returns:
        Corners (c, 1 + d): a node and its d neighbours along the edges of one unit, in an order such that their
        vectors have a positive determinant.
    """
    d, k = grid.shape[1], int(grid.max())
    stride = (k + 1) ** np.arange(d - 1, -1, -1)
    rows = []
    for sign in itertools.product((1, -1), repeat=d):
        inside = ((grid + sign >= 0) & (grid + sign <= k)).all(axis=1)
        node = grid[inside] @ stride
        near = [node + sign[i] * stride[i] for i in range(d)]
        if np.prod(sign) < 0:
            near[0], near[1] = near[1], near[0]
        rows.append(np.column_stack([node, *near]))
    return np.concatenate(rows)


def perturb(reference: np.ndarray, bars: np.ndarray, master: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Displace the independent nodes of a regular cell at random, their images alike.

    The displacements are normal. A bar shorter than 0.3 edges of a unit, or a corner of a unit that is turned inside
    out or nearly flat (signed volume of its edges below 0.1), is not kept: the nodes that make it are drawn again,
    from the same stream, until none is left. Drawing all nodes again would never end in a large cell.

    Args:
        reference: Regular positions (m, d), integers, last index fastest.
        bars: Nodes of each bar (b, 2).
        master: Independent node of each node (m,).
        deviation: Standard deviation of each component of a displacement, in edges of a unit.
        seed: Seed of the one stream.

    Returns:
        Positions (m, d).

    Raises:
        ValueError: There is one independent node only, or the deviation is out of range.
    """
    if not 0 < deviation <= 1:
        raise ValueError(f"perturbation must lie between 0 and 1, in edges of a unit, got {deviation}.")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}.")
    if len(np.unique(master)) == 1:
        raise ValueError("perturbation of a cell of one independent node only shifts it; take 2 units per side.")
    rng = np.random.Generator(np.random.Philox(key=seed))
    units = corners(np.rint(reference).astype(int))
    displacement = deviation * rng.standard_normal(reference.shape)
    for _ in range(ROUNDS):
        nodes = reference + displacement[master]
        short = np.linalg.norm(nodes[bars[:, 1]] - nodes[bars[:, 0]], axis=1) < SHORTEST
        sliver = np.linalg.det(nodes[units[:, 1:]] - nodes[units[:, :1]]) < SLIVER
        bad = np.unique(master[np.concatenate([bars[short].ravel(), units[sliver].ravel()])])
        if not len(bad):
            return nodes
        displacement[bad] = deviation * rng.standard_normal((len(bad), reference.shape[1]))
    raise ValueError(f"perturbation must be smaller, {deviation} leaves slivers after {ROUNDS} draws.")


def make_cell(name: str, *, perturbation: float = 0.0, seed: int = 0) -> Cell:
    """Make a cell of the paper: k units of edge 1 per side; each node is joined to all neighbours in its units.

    In two dimensions a unit has 4 edges and 2 diagonals that cross without touching, in three 12 edges, 12 face
    diagonals and 4 body diagonals; bars common to several units are listed once. All cross-sections are 1.

    Args:
        name: "square-k" or "cube-k": "square-6", "cube-1".
        perturbation: Standard deviation of the normal displacements of the independent nodes, in edges of a unit; see
            `perturb`.
        seed: Seed of the displacements.

    Returns:
        The cell.

    Raises:
        ValueError: The name is unknown, or the cell cannot be perturbed so.
    """
    match = re.fullmatch(r"(square|cube)-([1-9]\d?)", name)
    if not match:
        raise ValueError(f"name must be square-k or cube-k, for instance square-6, got {name!r}.")
    d, k = 2 if match[1] == "square" else 3, int(match[2])
    check_size(name, (k + 1) ** d, d)
    grid = np.stack(np.meshgrid(*[np.arange(k + 1)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    stride = (k + 1) ** np.arange(d - 1, -1, -1)
    bars = []
    for number in (1, 2, 3)[:d]:  # edges first, then diagonals of faces, then of the body
        for step in itertools.product((1, 0, -1), repeat=d):
            if np.count_nonzero(step) == number and step > tuple(-x for x in step):
                inside = ((grid + step >= 0) & (grid + step <= k)).all(axis=1)
                head = grid[inside] @ stride
                bars.append(np.column_stack([head, head + np.array(step) @ stride]))
    cell = custom_cell(grid, np.concatenate(bars), np.full(d, float(k)), name=name)
    if perturbation == 0:
        return cell
    nodes = perturb(cell.reference, cell.bars, cell.master, perturbation, seed)
    return Cell(name, nodes, cell.bars, cell.weight, cell.area, cell.box, cell.master, cell.reference)
