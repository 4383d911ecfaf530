"""Several laws in one body, one for each group of cells, behind the protocol of one law.

The points of a solver are numbered cell by cell, so that the law of a point is that of its cell. A call takes the
points of each law together, in one batch. All points have a row of state of the same length, that of the law with the
longest state; what a law does not need stays zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from fem.laws.law import Law, check


@final
class Composite:
    """A law for each cell; the points are those of one solver on this rank, in the order of its cells.

    Args:
        laws: Name of the group -> its law, of the same kind of strain and dimension; the same on all ranks.
        cells: Number of the law of each owned cell of this rank in the order of `laws`, (cells,).
        layout: Numbers that are the same on all ranks and differ where the groups have other cells.

    Attributes:
        laws: Name of the group -> its law. layout: As given.
        bulk_modulus, shear_modulus: The largest of all laws, Pa. density: The smallest, kg/m^3. With them an estimate
            of the stable step is safe; `cell_constants` has those of each cell.
        state_size: The longest state of all laws.
        observed: All fields that a law observes; zero at the points of a law that does not.

    Raises:
        ValueError: If the laws do not go together, or a number is out of range.
    """

    def __init__(self, laws: Mapping[str, Law], cells: np.ndarray, layout: tuple[int, ...] = ()) -> None:
        self.laws, self.layout = dict(laws), tuple(layout)
        cells = np.asarray(cells, dtype=np.int64)
        # What differs from rank to rank stays in private containers, which no digest of the law takes in.
        self._here = {"cells": cells}
        if not self.laws:
            raise ValueError("A body needs at least one law.")
        if cells.ndim != 1 or not ((cells >= 0) & (cells < len(self.laws))).all():
            raise ValueError(f"cells must be numbers of the {len(self.laws)} laws, (cells,), got {cells}.")
        every = tuple(self.laws.values())
        self.strain, self.dimension = every[0].strain, every[0].dimension
        for law in every[1:]:
            if (law.strain, law.dimension) != (self.strain, self.dimension):
                raise ValueError(
                    f"The laws of a body must be of one kind, got {every[0].name} of {self.strain} strain in "
                    f"{self.dimension} dimensions and {law.name} of {law.strain} strain in {law.dimension}."
                )
        self.name = ", ".join(f"{law.name} in {group}" for group, law in self.laws.items())
        self.density = min(law.density for law in every)
        self.bulk_modulus = max(law.bulk_modulus for law in every)
        self.shear_modulus = max(law.shear_modulus for law in every)
        self.state_size = max(law.state_size for law in every)
        self.observed = tuple(dict.fromkeys(name for law in every for name in law.observed))
        self.observables = tuple(o for law in every for o in getattr(law, "observables", ()))
        self._parts: dict[int, list[tuple[Law, np.ndarray]]] = {}

    @property
    def cells(self) -> np.ndarray:
        """Number of the law of each owned cell of this rank in the order of `laws`, (cells,)."""
        return self._here["cells"]

    def at(self, points: np.ndarray | slice, n: int) -> Composite:
        """The law of some of the n points of this rank, for their F and state alone."""
        of_point = np.repeat(self.cells, n // max(len(self.cells), 1))
        return Composite(self.laws, of_point[points], self.layout)

    def parts(self, n: int) -> list[tuple[Law, np.ndarray]]:
        """The laws that have points on this rank, and their points among n, in the order of the groups.

        Raises:
            ValueError: If n is no multiple of the number of cells.
        """
        if n not in self._parts:
            count = len(self.cells)
            if (n % count if count else n) != 0:
                raise ValueError(f"The points must be those of the {count} cells of this rank, got {n}.")
            of_point = np.repeat(self.cells, n // max(count, 1))
            members = [(law, np.flatnonzero(of_point == k)) for k, law in enumerate(self.laws.values())]
            self._parts[n] = [(law, points) for law, points in members if len(points)]
        return self._parts[n]

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, k)."""
        state = np.zeros((n, self.state_size))
        for law, points in self.parts(n):
            state[points, : law.state_size] = law.initial_state(len(points))
        return state

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Stress (n, d, d), Pa, and the new state (n, k), for F (n, d, d) reached in dt (s)."""
        F, state = check(F, state, self.state_size, self.dimension)
        P, new = np.empty_like(F), np.zeros_like(state)
        for law, points in self.parts(len(F)):
            k = law.state_size
            P[points], new[points, :k] = law.update(F[points], np.ascontiguousarray(state[points, :k]), dt)
        return P, new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, d, d, d, d), Pa."""
        F, state = check(F, state, self.state_size, self.dimension)
        P, new = np.empty_like(F), np.zeros_like(state)
        dP_dF = np.empty((len(F),) + 4 * (self.dimension,))
        for law, points in self.parts(len(F)):
            k = law.state_size
            found = law.tangent(F[points], np.ascontiguousarray(state[points, :k]), dt)
            P[points], new[points, :k], dP_dF[points] = found
        return P, new, dP_dF

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Fields to plot, (n, m), in the order of `observed`; zero where the law of the point has no such field."""
        values = np.zeros((len(state), len(self.observed)))
        for law, points in self.parts(len(state)):
            if law.observed:
                columns = np.array([self.observed.index(name) for name in law.observed])
                found = law.observe(np.ascontiguousarray(state[points, : law.state_size]))
                values[np.ix_(points, columns)] = found
        return values

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray | None:
        """Stored energy (n,), J/m^3, or None if a law does not provide it."""
        return self._collect(len(F), lambda law, p: law.stored_energy(F[p], state[p, : law.state_size]))

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Energy dissipated so far (n,), J/m^3, or None if a law does not provide it."""
        return self._collect(len(state), lambda law, p: law.dissipation(state[p, : law.state_size]))

    def _collect(self, n: int, of: Any) -> np.ndarray | None:
        """A value of all points, (n,), from those of each law; None if one is None."""
        values = np.zeros(n)
        for law, points in self.parts(n):
            found = of(law, points)
            if found is None:
                return None
            values[points] = found
        return values


@dataclass(frozen=True)
class CellConstants:
    """What a solver needs to know of the law of each cell.

    Attributes:
        bulk_modulus: K, (cells,), Pa.
        shear_modulus: G, (cells,), Pa.
        density: Reference density, (cells,), kg/m^3.
        plastic: Whether the law has a state, so that it may flow, (cells,).
    """

    bulk_modulus: np.ndarray
    shear_modulus: np.ndarray
    density: np.ndarray
    plastic: np.ndarray


def cell_constants(law: Law, cells: int, density: float | None = None) -> CellConstants:
    """Constants of the law of each cell.

    Args:
        law: One law for all cells, or a `Composite`.
        cells: Number of cells of this rank.
        density: Reference density of all cells, kg/m^3; None takes that of their laws.
    """
    every = tuple(law.laws.values()) if isinstance(law, Composite) else (law,)
    of_cell = law.cells if isinstance(law, Composite) else np.zeros(cells, dtype=np.int64)
    value = lambda name: np.array([getattr(one, name) for one in every])[of_cell]
    return CellConstants(
        value("bulk_modulus").astype(float), value("shear_modulus").astype(float),
        value("density").astype(float) if density is None else np.full(cells, float(density)), value("state_size") > 0,
    )  # fmt: skip
