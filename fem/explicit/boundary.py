"""Fixed components: Dirichlet conditions on single components of the velocity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dolfinx.fem
import numpy as np

from fem.mesh import Domain


@dataclass(frozen=True)
class Fixed:
    """One velocity component prescribed on a surface group (a symmetry plane, a clamped or a driven face).

    Attributes:
        group: Name of the surface group, or None for all nodes.
        component: 0, 1 or 2.
        velocity: m/s, constant in time.
    """

    group: str | None
    component: int
    velocity: float = 0.0

    def __post_init__(self) -> None:
        if self.component not in (0, 1, 2):
            raise ValueError(f"A fixed component must be 0, 1 or 2, got {self.component}.")
        if not np.isfinite(self.velocity):
            raise ValueError(f"A fixed velocity must be finite, got {self.velocity}.")


def fixed_nodes(domain: Domain, V: Any, conditions: Sequence[Fixed]) -> list[tuple[np.ndarray, int, float]]:
    """Owned nodes of each condition; collective.

    Args:
        domain: The domain.
        V: Displacement space.
        conditions: The conditions.

    Returns:
        A list of (owned nodes (n,), component, velocity).

    Raises:
        ValueError: If a group does not exist.
    """
    n_owned = V.dofmap.index_map.size_local
    found = []
    for condition in conditions:
        if condition.group is None:
            nodes = np.arange(n_owned)
        else:
            # remote=True also finds nodes whose tagged facet is on another rank.
            nodes = dolfinx.fem.locate_dofs_topological(V, 2, domain.facets(condition.group), remote=True)
            nodes = nodes[nodes < n_owned]
        found.append((np.asarray(nodes, dtype=np.int64), condition.component, condition.velocity))
    return found


def apply(fixed: Sequence[tuple[np.ndarray, int, float]], v: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Set the fixed components of v (n, 3) in place; returns the impulse of the supports, (n, 3), N s."""
    impulse = np.zeros_like(v)
    for nodes, component, velocity in fixed:
        impulse[nodes, component] += mass[nodes] * (velocity - v[nodes, component])
        v[nodes, component] = velocity
    return impulse
