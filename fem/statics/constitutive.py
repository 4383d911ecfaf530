"""The law at all quadrature points of a body, with its committed state and its trial state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fem import failure
from fem.discretisation.quadrature import QuadraturePoints
from fem.errors import ConvergenceError
from fem.laws import Law
from fem.mesh import Domain
from fem.steps import Clock


class Material:
    """A law at the points, with the last committed state and the trial state of the present step.

    Args:
        domain: The domain.
        points: Quadrature points with a tangent; their P and dP_dF are filled here.
        law: The law.
        clock: Takes the seconds of "gather" and "law".

    Attributes:
        state: State at the last time committed, (n, k).
        P_n: Stress there, (n, d, d), Pa.
        state_before: State at the start of the step that ended there, (n, k): with it the law gives its tangent again.
        evaluated: Law evaluations of all ranks so far.
    """

    def __init__(self, domain: Domain, points: QuadraturePoints, law: Law, clock: Clock) -> None:
        self.domain, self.points, self.law, self.clock = domain, points, law, clock
        self.state = law.initial_state(points.n)
        self._trial, self.state_before, self.P_n = self.state, self.state, points.P.copy()
        self.evaluated, self._n_points = 0, int(domain.comm.allreduce(points.n))
        self._wrong: dict[str, Any] | None = None

    def evaluate(self, u: Any, dt: float, time: float) -> None:
        """Call the law at all points, then reduce once: a failure on any rank is one on all; collective.

        Args:
            u: Displacement Function.
            dt: Since the last time committed, s.
            time: Pseudo-time, for the message.

        Raises:
            ConvergenceError: On all ranks, if the law fails, a value is not finite, or (finite strain) a point is
                inverted.
        """
        problem: failure.Problem | None = None
        points = self.points
        with self.clock("gather"):
            F = points.gather(u)
        with self.clock("law"):
            try:
                P, self._trial, dP_dF = self.law.tangent(F, self.state, dt)
                points.P[:], points.dP_dF[:] = P, dP_dF
                problem = _check(F, points.P, points.dP_dF, self._trial, self.law.strain)
            except Exception as error:  # a law may fail in any way; the ranks must still decide together
                problem = failure.raised(self.law, self.law.tangent, F, self.state, dt, error)
        self.evaluated += self._n_points
        if self.domain.comm.allreduce(problem is not None, op=MPI.LOR):
            if problem is not None and problem.point >= 0:
                problem = failure.Problem(problem.point, problem.text, F[problem.point])
            text, first = failure.describe(self.domain, points.per_cell, time, problem)
            if problem is not None and self.domain.comm.rank == first:
                self._wrong = {"problem": problem, "F": F.copy(), "dt": dt, "time": time, "reason": text}
            raise ConvergenceError(text)

    def commit(self) -> None:
        """Take the trial state."""
        self.state_before, self.state = self.state, self._trial
        self.P_n[:] = self.points.P

    def roll_back(self, u: Any) -> None:
        """Return to the state committed, at the displacement u of that time."""
        self._trial = self.state
        self.points.P[:] = self.P_n
        self.points.gather(u)

    def restore(self, u: Any, P: np.ndarray, state: np.ndarray, before: np.ndarray, dt: float, evaluated: int) -> None:
        """Take the last step of an earlier run as committed, its tangent included; collective.

        Args:
            u: Displacement Function at its end.
            P: Stress there, (n, d, d), Pa.
            state: State there, (n, k).
            before: State at its start, (n, k).
            dt: Its length, s.
            evaluated: Law evaluations of the earlier run.

        Raises:
            ConvergenceError: On all ranks, if the law fails. All but the tangent is then restored.
        """
        self.state = before
        try:
            self.evaluate(u, dt, 0.0)
        finally:
            self.points.gather(u)
            self.points.P[:], self.P_n[:] = P, P
            self.state_before, self.state, self._trial, self.evaluated = before, state, state, evaluated

    def forget_failure(self) -> None:
        """Discard the record of an earlier failure."""
        self._wrong = None

    def write_replay(self, folder: Path) -> None:
        """Write what the law was given where it failed last, if it failed on this rank; after `roll_back`."""
        if self._wrong is not None:
            given: dict[str, Any] = {"F_n": self.points.F, "state": self.state, "law": self.law, "method": "tangent"}
            failure.write_replay(folder, **given, **self._wrong)

    def total(self, name: str, density: np.ndarray | None) -> float:
        """Integral of a density (n,) over the body; collective.

        Raises:
            ValueError: If the density is None: the law does not provide it.
        """
        if density is None:
            raise ValueError(f"The law {self.law.name} does not provide its {name}.")
        return float(self.domain.comm.allreduce(float(self.points.volume @ density)))


def _check(F: np.ndarray, P: np.ndarray, dP_dF: np.ndarray, state: np.ndarray, strain: str) -> failure.Problem | None:
    """First point that is inverted (finite strain), or whose stress, state or tangent is not finite."""
    if strain == "finite":
        J = np.linalg.det(F)
        if not np.all(J > 0.0):
            point = int(np.argmin(np.where(np.isfinite(J), J, -np.inf)))
            return failure.Problem(point, "is inverted")
    problem = failure.find(P, state)
    if problem is None and not np.isfinite(dP_dF.sum()):
        wrong = ~np.isfinite(dP_dF.reshape(len(dP_dF), -1)).all(axis=1)
        return failure.Problem(int(np.argmax(wrong)), "has a tangent that is not finite") if wrong.any() else None
    return problem
