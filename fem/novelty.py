"""Trust in a learned law during a run: how far the states of its points are from those of its training, and where.

A law may observe its novelty, a distance from the training data that is 1 at the edge of these (the 99.9 % quantile;
see `surrogates.path.recurrent.RecurrentLaw.novelty`). The monitor keeps the largest value of every point.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.errors import SolverError

logger = logging.getLogger(__name__)

NAME = "novelty"


class NoveltyMonitor:
    """Watches the novelty of the points of a solver.

    Args:
        solver: A solver of bodies with `law`, `points`, `state`, `u`, `comm` and `time`.
        stop: Novelty beyond which `look` stops the run; None to go on.

    Raises:
        ValueError: If stop is not positive, or is given for a law that does not observe its novelty.
    """

    def __init__(self, solver: Any, stop: float | None = None) -> None:
        observed = tuple(getattr(solver.law, "observed", ()))
        self.active = NAME in observed
        if stop is not None and not stop > 0.0:
            raise ValueError(f"stop must be a positive novelty, got {stop}.")
        if stop is not None and not self.active:
            raise ValueError(f"stop needs a law that observes its novelty, and {solver.law.name} does not.")
        self._solver, self._comm, self._stop = solver, solver.comm, stop
        self._column = observed.index(NAME) if self.active else 0
        self.largest = np.zeros(solver.points.n)
        self._warned = False

    def look(self) -> None:
        """Compare the present states (collective).

        Raises:
            SolverError: On all ranks, if a point is beyond the limit; the sentence says which.
        """
        if not self.active:
            return
        values = self._solver.law.observe(self._solver.state)[:, self._column]
        self.largest = np.maximum(self.largest, np.nan_to_num(values, nan=np.inf))
        top = self._comm.allreduce(float(self.largest.max(initial=0.0)), MPI.MAX)
        if top > 1.0 and not self._warned:
            self._warned = True
            found = self.report()
            if self._comm.rank == 0:
                logger.warning(
                    "The law leaves its training data: novelty %.2f at %s m, %.2g %% of the points beyond 1, %.3g s.",
                    top, found["where"], 100 * found["fraction"], self._solver.time,
                )  # fmt: skip
        if self._stop is not None and top > self._stop:
            place = self.report()["where"]
            raise SolverError(
                f"The novelty must stay below {self._stop:g}, got {top:.3g} at {place} m, {self._solver.time:.4g} s."
            )

    def report(self) -> dict[str, Any]:
        """Fraction of the points ever beyond 1, largest novelty, its place in the reference, m (collective)."""
        if not self.active:
            return {}
        count = self._comm.allreduce(len(self.largest))
        beyond = self._comm.allreduce(int((self.largest > 1.0).sum()))
        own = float(self.largest.max(initial=0.0))
        top, rank = self._comm.allreduce((own, -self._comm.rank), MPI.MAX)
        place = self._comm.bcast(self._midpoint() if self._comm.rank == -rank else None, root=-rank)
        return {"fraction": beyond / max(count, 1), "largest": top, "where": place}

    def _midpoint(self) -> list[float]:
        """Midpoint of the cell of the point of the largest novelty, m, on this rank; empty without points."""
        if not len(self.largest):
            return []
        geometry = self._solver.u.function_space.mesh.geometry
        cell = int(np.argmax(self.largest)) // self._solver.points.per_cell
        return [float(f"{x:.4g}") for x in geometry.x[geometry.dofmap[cell]].mean(axis=0)]
