"""Linear elasticity with an anisotropic stiffness for each point, for graded and homogenised bodies."""

from __future__ import annotations

from typing import final

import numpy as np

from fem.laws.law import check, check_positive

# Row of the matrix for each pair of indices, in the order 11, 22, 33, 23, 13, 12.
ROW = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
SYMMETRY = 1e-8  # of the largest entry


@final
class PointStiffness:
    """sigma = C E with E = sym(F - I), C given for each point; no state, three dimensions.

    The points are those of one solver on this rank, in the order of `fem.discretisation.quadrature`: a call with
    another number of points is refused.

    Args:
        stiffness: C (n, 6, 6), Pa, in the order 11, 22, 33, 23, 13, 12 with engineering shear; symmetric, positive
            definite. Small differences across the diagonal are averaged away.
        density: Reference density, kg/m^3.

    Attributes:
        bulk_modulus: Of the stiffest point of this rank (Voigt average), Pa; shear_modulus likewise.

    Raises:
        ValueError: If the stiffness has the wrong shape or values.
    """

    name = "point-stiffness"
    strain = "small"
    dimension = 3
    state_size = 0
    observed: tuple[str, ...] = ()

    def __init__(self, stiffness: np.ndarray, *, density: float) -> None:
        C = np.asarray(stiffness, dtype=np.float64)
        if C.ndim != 3 or C.shape[1:] != (6, 6):
            raise ValueError(f"stiffness must have shape (n, 6, 6), got {C.shape}.")
        if not np.isfinite(C).all():
            raise ValueError("stiffness must be finite.")
        check_positive(density=density)
        transposed = np.swapaxes(C, 1, 2)
        if (abs(C - transposed) > SYMMETRY * abs(C).max(axis=(1, 2), initial=0.0)[:, None, None]).any():
            raise ValueError("stiffness must be symmetric at all points.")
        C = 0.5 * (C + transposed)
        least = np.linalg.eigvalsh(C)[:, 0]
        if not (least > 0.0).all():
            point = int(np.argmin(least))
            raise ValueError(f"stiffness must be positive definite, its least eigenvalue is {least[point]:.3g}.")
        self.density = float(density)
        bulk = C[:, :3, :3].sum(axis=(1, 2)) / 9.0
        diagonal = np.diagonal(C, axis1=1, axis2=2)
        shear = (diagonal[:, :3].sum(axis=1) - 3.0 * bulk + 2.0 * diagonal[:, 3:].sum(axis=1)) / 10.0
        self.bulk_modulus, self.shear_modulus = float(bulk.max(initial=0.0)), float(shear.max(initial=0.0))
        self._matrix = C
        self._tensor = C[:, ROW[:, :, None, None], ROW]

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, 0).

        Raises:
            ValueError: If n is not the number of points with a stiffness.
        """
        if n != len(self._matrix):
            raise ValueError(f"stiffness must be given at all {n} points of this rank, got {len(self._matrix)}.")
        return np.zeros((n, 0))

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Stress (n, 3, 3), Pa, and the new state, for F (n, 3, 3)."""
        F, state = check(F, state, 0)
        self.initial_state(len(F))
        sigma = np.einsum("nab,nb->na", self._matrix, strain(F))
        return sigma[:, ROW], state.copy()

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and the stiffness (n, 3, 3, 3, 3), Pa; not to be written to."""
        P, new = self.update(F, state, dt)
        return P, new, self._tensor

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Nothing to plot: (n, 0)."""
        return state

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """sigma : E / 2 at each point, (n,), J/m^3."""
        sigma, _ = self.update(F, state, 1.0)
        return 0.5 * np.einsum("nij,nij->n", sigma, F - np.eye(3))

    def dissipation(self, state: np.ndarray) -> np.ndarray:
        """Dissipated energy of an elastic law: zeros (n,)."""
        return np.zeros(len(state))


def strain(F: np.ndarray) -> np.ndarray:
    """Strain sym(F - I) of F (n, 3, 3) as (n, 6): 11, 22, 33, 23, 13, 12, engineering shear."""
    E = 0.5 * (F + np.swapaxes(F, 1, 2)) - np.eye(3)
    pairs = ((0, 0, 1.0), (1, 1, 1.0), (2, 2, 1.0), (1, 2, 2.0), (0, 2, 2.0), (0, 1, 2.0))
    return np.stack([factor * E[:, i, j] for i, j, factor in pairs], axis=1)
