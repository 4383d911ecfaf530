"""Prescribed displacements of single nodes of a truss, in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.parallel import raise_together
from fem.truss.partition import Part

Value = float | Callable[[np.ndarray, float], np.ndarray]
Condition = tuple[Any, int, Value]
AGREE = 1e-12  # relative difference of two displacements that are meant to be the same


class NodeSupports:
    """All prescribed components of the nodes of one rank, and their values at one time; collective.

    Two conditions on one component of a node must give the same value at all times.

    Args:
        part: Nodes of this rank.
        conditions: The same on all ranks: (input ids of nodes, component, value). A number is reached in proportion to
            the pseudo-time: the displacement is value * t. A function of the node positions (3, n), zero where there is
            no third coordinate, and t gives the displacement itself, (n,), m.
        comm: Communicator.

    Attributes:
        rows: Prescribed components of the owned nodes, node * d + component, sorted, (p,).
        values: Their displacement, (p,), m.

    Raises:
        ValueError: On all ranks, if a condition does not fit.
    """

    def __init__(self, part: Part, conditions: Sequence[Condition], comm: MPI.Comm) -> None:
        self._comm, d = comm, part.x.shape[1]
        n = len(part.nodes)
        self._x = np.zeros((3, n))
        self._x[:d] = part.x[:n].T
        self._parts: list[tuple[Value, np.ndarray, np.ndarray]] = []
        found = []
        error: Exception | None = None
        try:
            for ids, component, value in conditions:
                wanted = _check(ids, component, value, part.total_nodes, d)
                nodes = np.flatnonzero(np.isin(part.nodes, wanted))
                found.append((value, nodes, d * nodes + component))
        except (TypeError, ValueError) as caught:
            error = ValueError(str(caught))
        raise_together(comm, error)
        self.rows = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(rows for _, _, rows in found)]))
        self._parts = [(value, nodes, np.searchsorted(self.rows, rows)) for value, nodes, rows in found]
        self._ids, self._d = part.nodes, d
        self.values = np.zeros(len(self.rows))
        self.set_time(1.0)  # conflicts show before the first step
        self.set_time(0.0)

    def set_time(self, t: float) -> None:
        """Evaluate `values` at pseudo-time t; collective.

        Raises:
            ValueError: On all ranks, if a function gives the wrong shape or a value that is not finite, or if two
                conditions contradict each other.
        """
        error: Exception | None = None
        values = np.full(len(self.rows), np.nan)
        try:
            for value, nodes, places in self._parts:
                new, old = _evaluate(value, self._x[:, nodes], t), values[places]
                clash = np.abs(new - old) > AGREE * np.maximum(np.abs(new), np.abs(old))
                if clash.any():
                    k = int(np.argmax(clash))
                    node, component = self._ids[nodes[k]], self.rows[places[k]] % self._d
                    raise ValueError(
                        f"Component {component} of node {node} is prescribed twice at time {t:g}: "
                        f"{old[k]:g} and {new[k]:g} m."
                    )
                values[places] = new
            self.values = values
        except Exception as caught:  # the user's function may fail in any way, on one rank alone
            error = caught
        raise_together(self._comm, error)


def _check(ids: Any, component: int, value: Value, n: int, d: int) -> np.ndarray:
    """The ids as integers, if the condition fits."""
    found = np.atleast_1d(np.asarray(ids))
    if found.ndim != 1 or len(found) == 0 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"Prescribed nodes must be integers of shape (n,), got {found.dtype} of shape {found.shape}.")
    if found.min() < 0 or found.max() >= n:
        wrong = found[(found < 0) | (found >= n)][0]
        raise ValueError(f"There is no node {wrong} to prescribe, the truss has {n}.")
    if component not in range(d):
        raise ValueError(f"A prescribed component must be 0 to {d - 1}, got {component}.")
    if not callable(value) and not np.isfinite(value):
        raise ValueError(f"A prescribed displacement must be finite, got {value}.")
    return found


def _evaluate(value: Value, x: np.ndarray, t: float) -> np.ndarray:
    if not callable(value):
        return np.full(x.shape[1], float(value) * t)
    values = np.asarray(value(x, t), dtype=float)
    if values.shape not in ((), (x.shape[1],)):
        raise ValueError(f"A prescribed displacement must have shape ({x.shape[1]},), got {values.shape}.")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"A prescribed displacement is not finite at time {t}.")
    return np.broadcast_to(values, (x.shape[1],))
