"""Newton's method by PETSc SNES, with the linear solver that suits the size of the problem.

A problem provides two callbacks, `residual(x, b)` and `jacobian(x, A)`. Prescribed unknowns are rows of the system
like all others: the residual there is x - g, the Jacobian has a one on the diagonal and zeros elsewhere in the row and
the column, and the columns are moved to the right-hand side ("lifting"): b_free = r(x) + K_fp (g - x_p). The first
iteration then carries the new values into the body by the tangent, all later ones find g - x = 0, and a linear problem
takes exactly one iteration.

References:
    Dennis and Schnabel (1996), Numerical Methods for Unconstrained Optimization, 10.1137/1.9781611971200, chapter 6.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from fem.errors import ConvergenceError
from fem.statics.line_search import step_length
from fem.statics.linear_solver import AGAIN_NEVER, LinearSolver
from fem.statics.linear_solver import options as petsc_options

DIVERGED = 1e8  # growth of the residual over the first one (or over the forces) that counts as divergence
LOOSEST = 1e-2  # relative tolerance asked of the iterative solver where even less would do
_numbers = itertools.count()

_REASONS = {
    PETSc.SNES.ConvergedReason.DIVERGED_MAX_IT: "the largest number of iterations was reached",
    PETSc.SNES.ConvergedReason.DIVERGED_LINEAR_SOLVE: "the linear solver failed",
    PETSc.SNES.ConvergedReason.DIVERGED_FNORM_NAN: "the residual is not finite",
    PETSc.SNES.ConvergedReason.DIVERGED_LINE_SEARCH: "the line search failed",
    PETSc.SNES.ConvergedReason.DIVERGED_DTOL: "the residual grew",
}


LINE_SEARCHES = ("basic", "energy", "bt", "l2", "cp", "nleqerr")


def check_options(linear: str, line_search: str, maximum: int, **tolerances: float) -> None:
    """Check the options of `Newton`.

    Raises:
        ValueError: If one does not fit.
    """
    for name, value in tolerances.items():
        if not (np.isfinite(value) and value >= 0.0):
            raise ValueError(f"{name} must not be negative, got {value}.")
    if maximum < 1:
        raise ValueError(f"maximum must be at least 1, got {maximum}.")
    if linear not in ("direct", "iterative", "auto"):
        raise ValueError(f'linear must be "direct", "iterative" or "auto", got "{linear}".')
    if line_search not in LINE_SEARCHES:
        raise ValueError(f'line_search must be one of {", ".join(LINE_SEARCHES)}, got "{line_search}".')


@dataclass(frozen=True)
class Convergence:
    """How one solve went.

    Attributes:
        iterations: Newton iterations (linear systems solved).
        residuals: Norm of the residual before each iteration and at the end, (iterations + 1,), N; without the
            prescribed rows. The first one holds the change of the prescribed values, lifted.
        linear_iterations: Iterations of the linear solver, summed; `iterations` where it is direct.
    """

    iterations: int
    residuals: tuple[float, ...]
    linear_iterations: int


class Newton:
    """PETSc SNES ("newtonls") around two callbacks; all methods are collective.

    Args:
        vector: A vector of the layout of the unknowns; taken over as the residual.
        matrix: The Jacobian, created (preallocated), with its block size; taken over.
        residual: `residual(x, b)` fills b (owned entries, ghosts added in) and returns the magnitude of the forces in
            balance, N, or None. Raises `ConvergenceError`, on one rank or more, where the step cannot be evaluated;
            a rank that raises must have done all its collective calls.
        jacobian: `jacobian(x, A)` fills and assembles A; always called after `residual` at the same x.
        prescribed: Owned local rows of the prescribed unknowns, (p,); they do not count in norms.
        linear: "direct" (MUMPS), "iterative" (CG or GMRES with GAMG), or "auto": direct below `direct_below` unknowns.
        symmetric: Whether the Jacobian is symmetric (Cholesky-type, CG) or not (LU, GMRES); None tests each one by two
            products with random vectors, and stays with the general solver once one is not.
        near_nullspace: `PETSc.NullSpace` of the body without supports (rigid motions), for GAMG.
        direct_below: Unknowns up to which "auto" is direct.
        rtol: Converged below rtol times the larger of the first residual and the forces in balance.
        atol: Or below this, N.
        stol: Or where the last change is below stol times the unknowns; 0 switches it off.
        maximum: Iterations at most.
        line_search: "basic" (full steps), "energy" (`fem.statics.line_search`), or a line search of SNES such as "bt".
        linear_rtol: Smallest relative tolerance of the iterative solver; each solve uses what the goal requires.
        options: PETSc options of SNES and KSP, without prefix, that override all of this.

    Attributes:
        snes: The PETSc solver.
        vector: The vector of the residual.
        linear: How linear systems are solved (`fem.statics.linear_solver.LinearSolver`).

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        vector: PETSc.Vec,
        matrix: PETSc.Mat,
        residual: Callable[[PETSc.Vec, PETSc.Vec], float | None],
        jacobian: Callable[[PETSc.Vec, PETSc.Mat], None],
        *,
        prescribed: np.ndarray | None = None,
        linear: Literal["direct", "iterative", "auto"] = "auto",
        symmetric: bool | None = None,
        near_nullspace: PETSc.NullSpace | None = None,
        direct_below: int = 10_000,
        rtol: float = 1e-10,
        atol: float = 0.0,
        stol: float = 0.0,
        maximum: int = 20,
        line_search: str = "basic",
        linear_rtol: float = 1e-12,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_options(linear, line_search, maximum, rtol=rtol, atol=atol, stol=stol, linear_rtol=linear_rtol)
        self.comm: MPI.Comm = vector.comm.tompi4py()
        self.vector, self._residual, self._jacobian = vector, residual, jacobian
        self._prescribed = np.zeros(0, dtype=np.int64) if prescribed is None else np.asarray(prescribed, dtype=np.int64)
        self.rtol, self.atol, self.stol, self.linear_rtol = float(rtol), float(atol), float(stol), float(linear_rtol)
        self._failure: str | None = None
        self._forces = 0.0
        self._norms: list[float] = []
        if near_nullspace is not None:
            matrix.setNearNullSpace(near_nullspace)
        self.snes = PETSc.SNES().create(vector.comm)
        prefix = f"newton_{next(_numbers)}_"
        self.snes.setOptionsPrefix(prefix)
        self.snes.setType("newtonls")
        self.snes.setFunction(self._form_function, vector)
        self.snes.setJacobian(self._form_jacobian, matrix)
        self.snes.setTolerances(rtol=self.rtol, atol=self.atol, stol=self.stol, max_it=int(maximum))
        self.snes.setConvergenceTest(self._converged)
        self.linear = LinearSolver(self.snes.getKSP(), matrix, linear, symmetric, direct_below, prefix, options)
        self._searched: PETSc.Vec | None = None
        if line_search == "energy":
            self.snes.setLineSearchPreCheck(self._search)
            self._trial, self._x = vector.duplicate(), vector.duplicate()
            line_search = "basic"
        lag = AGAIN_NEVER if self.linear.kind == "iterative" else {}
        with petsc_options(prefix, {"snes_linesearch_type": line_search, **lag, **(options or {})}):
            self.snes.setFromOptions()

    def solve(self, x: PETSc.Vec) -> Convergence:
        """Solve from x, in place.

        Args:
            x: First guess, then the solution; of no use after an error.

        Raises:
            ConvergenceError: On all ranks, if it diverges, if a value is not finite, if the linear solver fails, or if
                a callback raised one.
        """
        self._failure, self._norms, self._forces, self._searched = None, [], 0.0, None
        with self.linear.setting_up():
            self.snes.solve(None, x)
        reason = self.snes.getConvergedReason()
        if reason < 0:
            failures = [text for text in self.comm.allgather(self._failure) if text is not None]
            text = f"Newton did not converge: {_REASONS.get(reason, f'SNES reason {reason}')}."
            raise ConvergenceError(failures[0] if failures else text)
        return Convergence(
            self.snes.getIterationNumber(), tuple(self._norms), self.snes.getLinearSolveIterations()
        )

    def _form_function(self, snes: PETSc.SNES, x: PETSc.Vec, b: PETSc.Vec) -> None:
        if self._searched is not None:
            self._searched.copy(b)  # what the search has evaluated last is where SNES goes
            self._searched = None
            return
        self._evaluate(x, b)

    def _evaluate(self, x: PETSc.Vec, b: PETSc.Vec) -> None:
        self._failure = None
        try:
            forces = self._residual(x, b)
            self._forces = self._forces if forces is None else max(self._forces, float(forces))
        except ConvergenceError as error:
            # An exception would leave SNES in an undefined state; a residual that is not finite ends it on all ranks.
            self._failure = str(error)
            b.array_w[:] = np.nan

    def _form_jacobian(self, snes: PETSc.SNES, x: PETSc.Vec, A: PETSc.Mat, P: PETSc.Mat) -> None:
        self._jacobian(x, A)
        # As many digits as the goal needs, were the problem linear: a few more products with A save an evaluation.
        norm = self._norms[-1]
        wanted = 0.05 * self._goal() / norm if norm > 0.0 else LOOSEST
        self.linear.prepare(A, min(max(wanted, self.linear_rtol), LOOSEST))

    def _search(self, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Shorten the step y (SNES goes to x - y) where that helps, unless it applies new prescribed values."""
        moved = float(np.abs(y.array_r[self._prescribed]).max(initial=0.0))
        first = self.snes.getFunction()[0].dot(y)
        if self.comm.allreduce(moved, op=MPI.MAX) > 0.0 or not first > 0.0:
            return

        def work(length: float) -> float:
            self._x.waxpy(-length, y, x)
            self._evaluate(self._x, self._trial)
            return 0.0 if self._norm(self._trial) <= self._goal() else self._trial.dot(y)

        y.scale(step_length(work, first))
        self._searched = self._trial

    def _norm(self, b: PETSc.Vec) -> float:
        free = b.array_r.copy()
        free[self._prescribed] = 0.0
        return float(np.sqrt(self.comm.allreduce(float(free @ free))))

    def _goal(self) -> float:
        return max(self.atol, self.rtol * max(self._norms[0], self._forces))

    def _converged(self, snes: PETSc.SNES, iteration: int, norms: tuple[float, float, float]) -> int | None:
        reasons = PETSc.SNES.ConvergedReason
        norm = self._norm(snes.getFunction()[0])
        self._norms.append(norm)
        if not np.isfinite(norm):
            return int(reasons.DIVERGED_FNORM_NAN)
        # The first residual may stem from stored stresses: the problem is evaluated at least once.
        if iteration == 0:
            return None
        if norm <= self._goal():
            return int(reasons.CONVERGED_FNORM_RELATIVE)
        if norms[1] < self.stol * norms[0]:
            return int(reasons.CONVERGED_SNORM_RELATIVE)
        return int(reasons.DIVERGED_DTOL) if norm > DIVERGED * max(self._norms[0], self._forces) else None
