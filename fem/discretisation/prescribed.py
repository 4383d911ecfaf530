"""Prescribed displacements: Dirichlet conditions on single components, in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dolfinx.fem
import numpy as np

from fem.mesh import Domain
from fem.parallel import raise_together

Group = str | Callable[[np.ndarray], np.ndarray] | None


@dataclass(frozen=True)
class Prescribed:
    """One displacement component prescribed on a group of nodes.

    Attributes:
        group: Name of a surface group; or a function of the node coordinates (3, n) that is true on the nodes (points
            and lines, for example a pinned corner); or None for all nodes.
        component: 0, 1, or 2 in three dimensions.
        value: m. A number is reached in proportion to the pseudo-time: the displacement is value * t. A function of the
            node coordinates (3, n) and t gives the displacement itself, (n,).
    """

    group: Group
    component: int
    value: float | Callable[[np.ndarray, float], np.ndarray] = 0.0

    def __post_init__(self) -> None:
        if self.component not in (0, 1, 2):
            raise ValueError(f"A prescribed component must be 0, 1 or 2, got {self.component}.")
        if not callable(self.value) and not np.isfinite(self.value):
            raise ValueError(f"A prescribed displacement must be finite, got {self.value}.")


def find_nodes(domain: Domain, V: Any, group: Group) -> np.ndarray:
    """Nodes (blocks of the space) of a group on this rank, ghosts included, sorted, (n,); collective.

    Raises:
        ValueError: If there is no such surface group, or no node of any rank is in it.
    """
    index_map = V.dofmap.index_map
    every = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    if group is None:
        return every
    if callable(group):
        inside = np.asarray(group(V.tabulate_dof_coordinates().T), dtype=bool)
        nodes = every[np.broadcast_to(inside, every.shape)]
    else:
        # remote=True also finds nodes whose tagged facet is on another rank.
        facet = domain.mesh.topology.dim - 1
        found = dolfinx.fem.locate_dofs_topological(V, facet, domain.facets(group), remote=True)
        nodes = np.unique(found).astype(np.int32)
    if domain.comm.allreduce(len(nodes)) == 0:
        raise ValueError(f"There is no node in the group {group!r}.")
    return nodes


class Supports:
    """All prescribed components of a space and their values at one time.

    Where two conditions meet on the same component of a node, the later one holds.

    Args:
        domain: The domain.
        V: Displacement space.
        conditions: The conditions.

    Attributes:
        dofs: Prescribed unknowns of this rank, ghosts included, sorted, (p,).
        values: Their displacement, (p,), m.
        owned: Number of them that this rank owns (they come first).
        bcs: Homogeneous DOLFINx conditions on the same unknowns, for the matrix.

    Raises:
        ValueError: On all ranks, if a condition does not fit.
    """

    def __init__(self, domain: Domain, V: Any, conditions: Sequence[Prescribed]) -> None:
        d = V.dofmap.index_map_bs
        for condition in conditions:
            if condition.component >= d:
                raise ValueError(f"A prescribed component must be below {d}, got {condition.component}.")
        self._comm, self._x = domain.comm, V.tabulate_dof_coordinates().T
        self._parts = [(c, find_nodes(domain, V, c.group)) for c in conditions]
        dofs = [d * nodes + condition.component for condition, nodes in self._parts]
        self.dofs = np.unique(np.concatenate([np.zeros(0, dtype=np.int32), *dofs])).astype(np.int32)
        self.values = np.zeros(len(self.dofs))
        self.owned = int(np.searchsorted(self.dofs, d * V.dofmap.index_map.size_local))
        self._places = [np.searchsorted(self.dofs, found) for found in dofs]
        self.bcs = [
            dolfinx.fem.dirichletbc(0.0, self.dofs[self.dofs % d == component], V.sub(component))
            for component in range(d)
        ]

    def set_time(self, t: float) -> None:
        """Evaluate `values` at pseudo-time t; collective.

        Raises:
            ValueError: On all ranks, if a function gives the wrong shape or a value that is not finite.
        """
        error: Exception | None = None
        try:
            for (condition, nodes), places in zip(self._parts, self._places):
                self.values[places] = _evaluate(condition, self._x[:, nodes], t)
        except Exception as caught:  # the user's function may fail in any way, on one rank alone
            error = caught
        raise_together(self._comm, error)


def _evaluate(condition: Prescribed, x: np.ndarray, t: float) -> np.ndarray:
    if not callable(condition.value):
        return np.full(x.shape[1], condition.value * t)
    values = np.asarray(condition.value(x, t), dtype=float)
    if values.shape not in ((), (x.shape[1],)):
        raise ValueError(f"A prescribed displacement must have shape ({x.shape[1]},), got {values.shape}.")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"A prescribed displacement is not finite at time {t}.")
    return np.broadcast_to(values, (x.shape[1],))
