"""Perturbation: random displacements of the nodes of a regular cell that keep it periodic and well formed."""

import itertools

import numpy as np

#: Shortest bar, in edges of a unit.
SHORTEST = 0.3
#: Smallest signed volume of the edges that meet in a corner of a unit; 1 in a regular unit, less than this a sliver.
SLIVER = 0.1
#: Rounds of drawing again before the perturbation counts as too large.
ROUNDS = 10_000


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
    from the same stream, until none is left. To draw all nodes again would take for ever in a large cell.

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
    if not deviation > 0:
        raise ValueError(f"perturbation must not be negative, got {deviation}.")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}.")
    if len(np.unique(master)) == 1:
        raise ValueError("perturbation of a cell of one independent node only shifts it; take 2 units a side.")
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
