"""Half steps of the nodes: forces, supports and obstacles change their velocities, and these move them.

    v_half = v_n + dt/2 a_n          (obstacles: no node ends inside; prescribed displacements set)
    u_n+1  = u_n + dt v_half
    v_n+1  = v_half + dt/2 a_n+1     (obstacles: nodes in contact do not approach; prescribed components as in v_half)

Prescribed components are set before contact, since friction sees the motion of the supports, and again after an
obstacle has touched nodes.
"""

from __future__ import annotations

import numpy as np

from fem.explicit.contact import ContactSystem
from fem.explicit.energy_balance import Impulses
from fem.explicit.supports import Supports
from fem.laws.kernels import compiled


class Motion:
    """Motion of the owned nodes of a rank.

    Args:
        X: Reference positions, (n, 3), m.
        u: Displacements, (n, 3), m; changed in place, as v is.
        v: Velocities, (n, 3), m/s.
        mass: Nodal masses, (n,), kg.
        supports: Prescribed displacements and planes of symmetry.
        contact: The obstacles.
    """

    def __init__(
        self, X: np.ndarray, u: np.ndarray, v: np.ndarray, mass: np.ndarray, supports: Supports,
        contact: ContactSystem,
    ) -> None:  # fmt: skip
        self._X, self._u, self._v, self._mass = X, u, v, mass
        self._supports, self._contact = supports, contact
        self._rates = self._v_half = np.zeros(0)

    def first_half(
        self, internal: np.ndarray, external: np.ndarray, v_n: np.ndarray, time: float, dt: float
    ) -> Impulses:
        """First half of the step dt from a time, s, and the displacement of the step; collective.

        Args:
            internal: Internal force at its start, (n, 3), N; ghosts may follow.
            external: External force.
            v_n: What the velocities are at its start, kept until the step has ended, (n, 3), m/s.
            time: s.
            dt: s.
        """
        self._rates = self._supports.rates(self._u, time, dt)
        kick(self._v, self._mass, internal, external, 0.5 * dt)
        reaction = self._drive()
        shares = self._contact.first_half(self._X, self._u, self._v, time, dt)
        if shares:
            reaction = reaction + self._drive()
        drift(self._u, self._v, dt)
        self._v_half = self._v.copy()
        return Impulses(shares, self._supports.rows, reaction, v_n, self._v_half)

    def second_half(self, internal: np.ndarray, external: np.ndarray, dt: float) -> Impulses:
        """Second half of a step, with the forces at its end; the other arguments are those of `first_half`."""
        kick(self._v, self._mass, internal, external, 0.5 * dt)
        reaction = self._drive()
        shares = self._contact.second_half(self._X, self._u, self._v, dt)
        if shares:
            reaction = reaction + self._drive()
        return Impulses(shares, self._supports.rows, reaction, self._v_half, self._v)

    def _drive(self) -> np.ndarray:
        """Set prescribed components; returns the impulses of the supports on them, (p,), N s."""
        return self._supports.drive(self._v, self._rates, self._mass)


@compiled
def kick(v: np.ndarray, mass: np.ndarray, internal: np.ndarray, external: np.ndarray, half: float) -> None:
    """Change velocities (n, 3), m/s, by the forces on nodes of masses (n,), kg, in half a step, s; see `Motion`."""
    for i in range(v.shape[0]):
        factor = half / mass[i]
        for k in range(3):
            v[i, k] -= factor * (internal[i, k] - external[i, k])


@compiled
def drift(u: np.ndarray, v: np.ndarray, dt: float) -> None:
    """Move nodes by their velocities: displacements u (n, 3), m, velocities v (n, 3), m/s, step dt, s."""
    for i in range(v.shape[0]):
        for k in range(3):
            u[i, k] += dt * v[i, k]
