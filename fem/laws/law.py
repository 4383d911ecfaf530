"""The law protocol: what a solver requires of a material law, checks of its arguments, and memory for its results."""

from __future__ import annotations

import sys
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Law(Protocol):
    """What a solver requires of a law. Arrays are float64, points first; n = 0 works; nothing is kept between calls.

    `strain` is "finite" or "small", `dimension` d is 2 or 3. Both kinds take F (n, d, d) = I + grad u; a law of small
    strain takes sym(F - I) from it and returns a symmetric stress as P.
    """

    name: str
    strain: str
    dimension: int
    density: float
    bulk_modulus: float
    shear_modulus: float
    state_size: int
    observed: tuple[str, ...]

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state, (n, k)."""

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """P (n, d, d) in Pa and the new state."""

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P, new state, and dP_dF (n, d, d, d, d)."""

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Fields to plot, (n, len(observed))."""

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray | None:
        """Stored energy (n,) in J/m^3, or None."""

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Energy dissipated so far (n,) in J/m^3, or None."""


def check_fit(law: Law, solver: str, strains: tuple[str, ...], dimension: int) -> None:
    """Check that a solver can use a law.

    Args:
        law: The law.
        solver: Name of the solver, for the message.
        strains: Kinds of strain that it takes, "finite" and "small".
        dimension: Dimensions of its mesh.

    Raises:
        ValueError: If the law does not fit.
    """
    if law.strain not in strains or law.dimension != dimension:
        raise ValueError(
            f"{law.name} is a law of {law.strain} strain in {law.dimension} dimensions; "
            f"the {solver} solver needs {' or '.join(strains)} strain in {dimension} dimensions."
        )


def drawable(law: Law) -> tuple[str, ...]:
    """Names of the observed fields worth a plot: all but the forces and displacements inside a lattice cell."""
    inside = {o.name for o in getattr(law, "observables", ()) if o.quantity in ("bar_force", "node_displacement")}
    return tuple(name for name in law.observed if name not in inside)


def check(F: np.ndarray, state: np.ndarray, size: int, dimension: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return F and state as contiguous float64 arrays, without a copy where they already are.

    Args:
        F: Deformation gradients, (n, d, d).
        state: State of the points, (n, size).
        size: Numbers in the state of one point.
        dimension: d.

    Raises:
        ValueError: If a shape does not fit.
    """
    d = dimension
    if F.ndim != 3 or F.shape[1:] != (d, d):
        raise ValueError(f"F must have shape (n, {d}, {d}), got {F.shape}.")
    if state.shape != (len(F), size):
        raise ValueError(f"state must have shape ({len(F)}, {size}), got {state.shape}.")
    return np.ascontiguousarray(F, dtype=np.float64), np.ascontiguousarray(state, dtype=np.float64)


def check_positive(**values: float) -> None:
    """Check that material constants are positive and finite; the message names the first that is not.

    Raises:
        ValueError: If a constant is no number, or not positive and finite.
    """
    for name, value in values.items():
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not (number and np.isfinite(float(value)) and value > 0.0):
            raise ValueError(f"{name} must be positive, got {value}.")


class Buffers:
    """Arrays of float64 for the results of a law, used again once nobody holds them.

    Large arrays come fresh from the system each time, and their first use costs a part of a learned law.
    """

    most = 3  # arrays that are kept: the states before and after a step, and one that a caller still holds

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of some shape with arbitrary content, that nobody else holds, nor a view of it."""
        for array in self._arrays:
            # The list, this variable and the argument hold it; a view, also one of torch, would hold it as well.
            if array.shape == shape and sys.getrefcount(array) <= 3:
                return array
        array = np.empty(shape)
        self._arrays = [old for old in self._arrays if old.shape == shape][-self.most + 1 :] + [array]
        return array
