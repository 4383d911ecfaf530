"""Trust in a learned law during a run: whether its points stay in the range of its training, and how many have left.

The manifest of a law states its range in measures of the paths that it was trained on, and the monitor takes the same
ones, over the increment of each step:

    strain   |E|,  E = (C_bar - I)(C_bar + I)^-1,  C_bar = det(F)^(-2/3) F^T F, which is tanh of the logarithmic strain
    rate     |E_n+1 - E_n| / dt, 1/s
    length   of the path of E, the sum of |E_n+1 - E_n|
    volume   J = det F

with the Frobenius norm. It keeps the extremes of every point, from which all else follows; a checkpoint holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.failure import Problem
from fem.laws.kernels import compiled, determinant, invert

# What is kept of each point: column, name in the manifest, whether it is a lower bound, words for the message.
MEASURES = {
    "strain": ("strain_max", False, "strain"),
    "rate": ("rate_max", False, "strain rate (1/s)"),
    "jacobian_low": ("jacobian_min", True, "ratio of volumes det F"),
    "jacobian_high": ("jacobian_max", False, "ratio of volumes det F"),
    "length": ("length_max", False, "length of the strain path"),
}
REST = np.array([0.0, 0.0, 1.0, 1.0, 0.0])  # of a point where nothing has happened


class RangeMonitor:
    """Watches the points of an explicit solver in every step; inactive for a law that states no range.

    Args:
        solver: The solver; an active monitor joins its `monitors`.
        stop: Whether a point that leaves the range stops the run.

    Attributes:
        limits: Name in the manifest -> limit, of those that are stated.
        seen: Extremes of each point, (n, 5), in the order of `MEASURES`.
    """

    name = "range"

    def __init__(self, solver: Any, *, stop: bool = False) -> None:
        stated = getattr(getattr(solver.law, "manifest", None), "range", None)
        names = [*(name for name, *_ in MEASURES.values()), "time_window"]
        found = {name: getattr(stated, name, None) for name in names}
        self.limits = {name: float(limit) for name, limit in found.items() if limit is not None}
        self._solver, self._comm, self._stop = solver, solver.comm, stop
        self.seen = np.tile(REST, (solver.points.n, 1))
        self._next = self.seen.copy()
        self._E: np.ndarray | None = None
        self._E_next = np.zeros((solver.points.n, 3, 3))
        if self.limits:
            solver.monitors.append(self)

    def check(self, F_n: np.ndarray, F: np.ndarray, state: np.ndarray, dt: float) -> Problem | None:
        """Measure a step; a point outside the range is a problem if the run is to stop."""
        if self._E is None:  # the first step, also after a restart
            self._E = np.zeros_like(self._E_next)
            measure(F_n, self._E, 1.0, self.seen, self._E, self._next)
        measure(F, self._E, dt, self.seen, self._E_next, self._next)
        return self._outside(F, dt) if self._stop else None

    def _outside(self, F: np.ndarray, dt: float) -> Problem | None:
        for column, (name, least, words) in enumerate(MEASURES.values()):
            if name not in self.limits:
                continue
            limit, values = self.limits[name], self._next[:, column]
            beyond = np.flatnonzero(values < limit if least else values > limit)
            if len(beyond):
                point = int(beyond[0])
                bound = "least" if least else "most"
                text = f"leaves the trained range: the {words} is {values[point]:.4g}, at {bound} {limit:.4g} is known"
                return Problem(point, text)
        window = self.limits.get("time_window")
        if window is not None and len(F) and self._solver.time + dt > window:
            return Problem(0, f"leaves the trained range: the time is {self._solver.time + dt:.4g} s of {window:.4g} s")
        return None

    def accept(self) -> None:
        """Take what the last check has seen."""
        self.seen, self._next = self._next, self.seen
        if self._E is not None:
            self._E, self._E_next = self._E_next, self._E

    def rows(self) -> Mapping[str, np.ndarray]:
        """The extremes, for a checkpoint."""
        return {"seen": self.seen}

    def adopt(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take the extremes of a checkpoint."""
        self.seen, self._E = rows["seen"].copy(), None

    def report(self) -> dict[str, Any]:
        """Extremes met, limits, and the fraction of points beyond each (collective)."""
        points = max(self._comm.allreduce(len(self.seen)), 1)
        out: dict[str, Any] = {"points": points, "limits": self.limits, "met": {}, "fraction_outside_range": {}}
        for column, (key, (name, least, _)) in enumerate(MEASURES.items()):
            values = self.seen[:, column]
            ends = values.min(initial=np.inf) if least else values.max(initial=-np.inf)
            out["met"][key] = self._comm.allreduce(float(ends), MPI.MIN if least else MPI.MAX)
            if name in self.limits:
                limit = self.limits[name]
                beyond = int(np.count_nonzero(values < limit if least else values > limit))
                out["fraction_outside_range"][name] = self._comm.allreduce(beyond) / points
        if "time_window" in self.limits:
            out["fraction_outside_range"]["time_window"] = float(self._solver.time > self.limits["time_window"])
        return out


@compiled
def measure(
    F: np.ndarray, E_n: np.ndarray, dt: float, seen: np.ndarray, E: np.ndarray, after: np.ndarray
) -> None:
    """Strain E (n, 3, 3) at F, and the extremes `after` (n, 5) of those `seen` before and of the step from E_n."""
    inverse, plus = np.empty((3, 3)), np.empty((3, 3))
    for n in range(F.shape[0]):
        J = determinant(F[n])
        scale = J ** (-2.0 / 3.0)
        for i in range(3):
            for j in range(3):
                total = 0.0
                for k in range(3):
                    total += F[n, k, i] * F[n, k, j]
                plus[i, j] = scale * total + (1.0 if i == j else 0.0)
        invert(plus, inverse)
        size, change = 0.0, 0.0
        for i in range(3):
            for j in range(3):  # (C - I)(C + I)^-1 = I - 2 (C + I)^-1
                value = (1.0 if i == j else 0.0) - 2.0 * inverse[i, j]
                size += value * value
                change += (value - E_n[n, i, j]) ** 2
                E[n, i, j] = value
        size, change = np.sqrt(size), np.sqrt(change)
        after[n, 0] = max(seen[n, 0], size)
        after[n, 1] = max(seen[n, 1], change / dt)
        after[n, 2] = min(seen[n, 2], J)
        after[n, 3] = max(seen[n, 3], J)
        after[n, 4] = seen[n, 4] + change
