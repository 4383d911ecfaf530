"""Who owns which node and bar of a truss: recursive bisection of the coordinates.

Parts are cut across their longest side, so that few bars join two ranks; the cut halves the bars rather than the
nodes, since bars are the work. A bar whose ends two ranks own is evaluated by one of them only, so that its history
exists once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.discretisation.dirichlet import Nodes, Where, check_some, extent, nodes_inside
from fem.parallel import raise_together


@dataclass(frozen=True)
class Part:
    """What one rank holds; nodes are numbered so that those of rank 0 come first, then those of rank 1, ...

    Attributes:
        first: Number of the first owned node.
        nodes: Input ids of the owned nodes, in the order of their numbers, (n,).
        ghosts: Numbers of the nodes of other ranks that owned bars join, ascending, (g,).
        ghost_nodes: Their input ids, (g,).
        x: Positions of owned nodes, then of ghosts, (n + g, d), m.
        bars: Input ids of the owned bars, ascending, (b,).
        ends: Ends of the owned bars as rows of x, (b, 2).
        area: Their areas, (b,), m^2.
        total_nodes: Nodes of all ranks.
        total_bars: Bars of all ranks.
    """

    first: int
    nodes: np.ndarray
    ghosts: np.ndarray
    ghost_nodes: np.ndarray
    x: np.ndarray
    bars: np.ndarray
    ends: np.ndarray
    area: np.ndarray
    total_nodes: int
    total_bars: int


def bisect(x: np.ndarray, weight: np.ndarray, parts: int) -> np.ndarray:
    """Part of each node by recursive coordinate bisection.

    Args:
        x: Positions, (n, d), m.
        weight: Work at each node, (n,).
        parts: Number of parts, at most n.

    Returns:
        Part of each node, 0 to parts - 1, none of them empty, (n,).
    """
    owner = np.zeros(len(x), dtype=np.int64)
    tasks = [(np.arange(len(x)), 0, parts)]
    while tasks:
        ids, first, count = tasks.pop()
        if count == 1:
            owner[ids] = first
            continue
        axis = int(np.argmax(np.ptp(x[ids], axis=0)))
        # Along the longest side, ties by the other coordinates: a cut through a layer stays compact.
        order = ids[np.lexsort([*np.delete(x[ids], axis, axis=1).T, x[ids, axis]])]
        left = count // 2
        work = np.cumsum(weight[order])
        cut = int(np.searchsorted(work, work[-1] * left / count))
        cut = min(max(cut, left), len(ids) - (count - left))  # at least one node per part
        tasks += [(order[:cut], first, left), (order[cut:], first + left, count - left)]
    return owner


def divide(x: np.ndarray, bars: np.ndarray, area: np.ndarray, parts: int) -> list[Part]:
    """Divide a truss among ranks.

    Args:
        x: Positions of the nodes, (N, d), m.
        bars: Input ids of the ends, (B, 2).
        area: Areas, (B,), m^2.
        parts: Number of ranks.

    Returns:
        One part for each rank.

    Raises:
        ValueError: If there are fewer nodes than ranks.
    """
    if parts > len(x):
        raise ValueError(f"A truss of {len(x)} nodes cannot be divided among {parts} ranks.")
    degree = np.bincount(bars.ravel(), minlength=len(x))
    owner = bisect(x, degree.astype(float), parts)
    order = np.argsort(owner, kind="stable")  # the input order within a part
    number = np.empty(len(x), dtype=np.int64)
    number[order] = np.arange(len(x))
    start = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=parts))])
    bar_owner = owner[bars[np.arange(len(bars)), bars.sum(axis=1) % 2]]  # either end, in turn
    found = []
    for part in range(parts):
        mine = np.flatnonzero(bar_owner == part)
        ends = number[bars[mine]]
        first, last = int(start[part]), int(start[part + 1])
        away = (ends < first) | (ends >= last)
        ghosts = np.unique(ends[away])
        local = ends - first
        local[away] = last - first + np.searchsorted(ghosts, ends[away])
        nodes, ghost_nodes = order[first:last], order[ghosts]
        here = np.concatenate([x[nodes], x[ghost_nodes]])
        found.append(Part(first, nodes, ghosts, ghost_nodes, here, mine, local, area[mine], len(x), len(bars)))
    return found


def check_truss(x: Any, bars: Any, area: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (N, d), ends (B, 2) and areas (B,) of a truss as arrays.

    Raises:
        ValueError: If they make no truss.
    """
    nodes, ends = np.array(x, dtype=float), np.array(bars)
    if nodes.ndim != 2 or nodes.shape[1] not in (2, 3) or not np.isfinite(nodes).all():
        raise ValueError(f"nodes must be finite of shape (N, 2) or (N, 3), got shape {nodes.shape}.")
    if ends.ndim != 2 or ends.shape[1] != 2 or not len(ends) or not np.issubdtype(ends.dtype, np.integer):
        raise ValueError(f"bars must be integers of shape (B, 2), got {ends.dtype} of shape {ends.shape}.")
    if ends.min() < 0 or ends.max() >= len(nodes):
        raise ValueError(f"bars must name nodes 0 to {len(nodes) - 1}, got {ends.min()} to {ends.max()}.")
    ends = ends.astype(np.int64)
    areas = np.array(area, dtype=float)
    if areas.shape not in ((), (len(ends),)) or not (np.isfinite(areas) & (areas > 0.0)).all():
        raise ValueError(f"area must be positive, one number or ({len(ends)},), got shape {areas.shape}.")
    same = ends[:, 0] == ends[:, 1]
    if same.any():
        raise ValueError(f"Bar {np.argmax(same)} joins node {ends[np.argmax(same), 0]} to itself.")
    step = nodes[ends[:, 1]] - nodes[ends[:, 0]]
    if not np.all(np.einsum("bi,bi->b", step, step) > 0.0):
        raise ValueError(f"Bar {np.argmin(np.einsum('bi,bi->b', step, step))} has no length.")
    lonely = np.bincount(ends.ravel(), minlength=len(nodes)) == 0
    if lonely.any():
        raise ValueError(f"Node {np.argmax(lonely)} has no bar.")
    return nodes, ends, np.broadcast_to(areas, len(ends)).copy()


def distribute(comm: MPI.Comm, nodes: Any, bars: Any, area: Any) -> Part:
    """This rank's part of the truss that rank 0 has; collective.

    Raises:
        ValueError: On all ranks, if the arrays make no truss.
    """
    parts: list[Part] | None = None
    error: Exception | None = None
    if comm.rank == 0:
        try:
            parts = divide(*check_truss(nodes, bars, area), comm.size)
        except (TypeError, ValueError) as caught:
            error = ValueError(str(caught))
    raise_together(comm, error)
    return comm.scatter(parts, root=0)


def truss_nodes(part: Part, comm: MPI.Comm) -> Nodes:
    """The owned nodes of a truss, for Dirichlet conditions: given by their input numbers or a function; collective."""
    n, d = len(part.nodes), part.x.shape[1]
    x = np.zeros((3, n))
    x[:d] = part.x[:n].T

    def find(where: Where) -> np.ndarray:
        if where is None or callable(where):
            return nodes_inside(comm, x, where)
        numbers, error = np.zeros(0, dtype=np.int64), None
        try:
            numbers = _numbers(where, part.total_nodes)
        except ValueError as caught:
            error = caught
        raise_together(comm, error)
        nodes = np.flatnonzero(np.isin(part.nodes, numbers)).astype(np.int32)
        check_some(comm, nodes, where)
        return nodes

    return Nodes(comm, d, x, n, extent(comm, x), find)


def _numbers(where: Any, total: int) -> np.ndarray:
    """Input numbers of nodes as integers."""
    if isinstance(where, (str, tuple)) and not all(isinstance(k, (int, np.integer)) for k in where):
        raise ValueError(f"The nodes of a truss are given by their numbers or a function, got {where!r}.")
    found = np.atleast_1d(np.asarray(where))
    if found.ndim != 1 or len(found) == 0 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"Prescribed nodes must be integers of shape (n,), got {found.dtype} of shape {found.shape}.")
    if found.min() < 0 or found.max() >= total:
        wrong = found[(found < 0) | (found >= total)][0]
        raise ValueError(f"There is no node {wrong} to prescribe, the truss has {total}.")
    return found
