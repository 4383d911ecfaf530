"""Trust in a learned law during a run: how far the states of its points are from those of its training, and where.

A law may observe its novelty, a distance from the training data that is 1 at the edge of these (the 99.9 % quantile;
see `surrogates.path.trust`). The monitor keeps the largest value of every point. A law may also observe the error that
its training leads one to expect; the report has its mean.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.failure import Problem

logger = logging.getLogger(__name__)

NAME, EXPECTED = "novelty", "expected_error"


class NoveltyMonitor:
    """Watches the novelty of the points of a solver.

    Args:
        solver: An explicit solver; an active monitor joins its `monitors`.
        stop: Novelty beyond which a step is undone and the run stops, which takes an observation of the law in every
            step; None to go on, and to observe when `look` is called.

    Raises:
        ValueError: If stop is not positive, or is given for a law that does not observe its novelty.
    """

    name = NAME

    def __init__(self, solver: Any, stop: float | None = None) -> None:
        observed = tuple(getattr(solver.law, "observed", ()))
        self.active = NAME in observed
        if stop is not None and not stop > 0.0:
            raise ValueError(f"stop must be a positive novelty, got {stop}.")
        if stop is not None and not self.active:
            raise ValueError(f"stop needs a law that observes its novelty, and {solver.law.name} does not.")
        self._solver, self._comm, self._stop = solver, solver.comm, stop
        self._column = observed.index(NAME) if self.active else 0
        self._expected = observed.index(EXPECTED) if EXPECTED in observed else None
        self.largest = np.zeros(solver.points.n)
        self._next, self._warned = self.largest, False
        if self.active:
            solver.monitors.append(self)

    def check(self, F_n: np.ndarray, F: np.ndarray, state: np.ndarray, dt: float) -> Problem | None:
        """Observe a step, if the run is to stop; a point beyond the limit is a problem."""
        self._next = self.largest
        if self._stop is None:
            return None
        self._next = self._larger(state)
        beyond = np.flatnonzero(self._next > self._stop)
        if not len(beyond):
            return None
        point = int(beyond[0])
        return Problem(point, f"has a novelty of {self._next[point]:.3g}, which must stay below {self._stop:g}")

    def accept(self) -> None:
        """Take what the last check has seen."""
        self.largest = self._next

    def rows(self) -> Mapping[str, np.ndarray]:
        """The largest value of every point, for a checkpoint; points beyond all numbers have the largest number."""
        return {"largest": np.nan_to_num(self.largest, posinf=np.finfo(float).max)}

    def adopt(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take the values of a checkpoint."""
        self.largest = rows["largest"].copy()

    def _larger(self, state: np.ndarray) -> np.ndarray:
        values = self._solver.law.observe(state)[:, self._column]
        return np.maximum(self.largest, np.nan_to_num(values, nan=np.inf))

    def look(self) -> None:
        """Observe the present states, and warn once when the first point is beyond 1 (collective)."""
        if not self.active:
            return
        self.largest = self._larger(self._solver.state)
        top = self._comm.allreduce(float(self.largest.max(initial=0.0)), MPI.MAX)
        if top > 1.0 and not self._warned:
            self._warned = True
            found = self.report()
            if self._comm.rank == 0:
                logger.warning(
                    "The law leaves its training data: novelty %.2f at %s m, %.2g %% of the points beyond 1, %.3g s.",
                    top, found["where"], 100 * found["fraction"], self._solver.time,
                )  # fmt: skip

    def report(self) -> dict[str, Any]:
        """Fraction of the points ever beyond 1, largest novelty, its place in the reference, m (collective).

        With it the mean of the expected error of the points as they are, for a law that observes it.
        """
        if not self.active:
            return {}
        count = self._comm.allreduce(len(self.largest))
        beyond = self._comm.allreduce(int((self.largest > 1.0).sum()))
        own = float(self.largest.max(initial=0.0))
        top, rank = self._comm.allreduce((own, -self._comm.rank), MPI.MAX)
        place = self._comm.bcast(self._midpoint() if self._comm.rank == -rank else None, root=-rank)
        found = {"fraction": beyond / max(count, 1), "largest": top, "where": place}
        if self._expected is not None:
            values = self._solver.law.observe(self._solver.state)[:, self._expected]
            found["expected_error"] = self._comm.allreduce(float(values.sum())) / max(count, 1)
        return found

    def _midpoint(self) -> list[float]:
        """Midpoint of the cell of the point of the largest novelty, m, on this rank; empty without points."""
        if not len(self.largest):
            return []
        geometry = self._solver.u.function_space.mesh.geometry
        cell = int(np.argmax(self.largest)) // self._solver.points.per_cell
        return [float(f"{x:.4g}") for x in geometry.x[geometry.dofmap[cell]].mean(axis=0)]
