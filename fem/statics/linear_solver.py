"""Linear systems inside Newton: a direct solver for small ones, else conjugate gradients with multigrid.

Algebraic multigrid receives the rigid-body modes, the motions of a body without supports that cause no stress, as the
near null space that its coarse spaces must contain.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from petsc4py import PETSc

ASYMMETRY = 1e-8  # of a Jacobian that is still taken as symmetric; float32 laws err by less in the assembled matrix
DIRECT: dict[str, Any] = {
    "ksp_type": "preonly",
    "pc_factor_mat_solver_type": "mumps",
    "mat_mumps_icntl_14": 80,  # per cent of memory beyond the estimate, which pivoting may need
}
AGAIN_NEVER: dict[str, Any] = {"snes_lag_preconditioner": -2}  # set up once
MULTIGRID: dict[str, Any] = {
    "ksp_max_it": 500,
    "ksp_gmres_restart": 100,
    "pc_type": "gamg",
    "pc_gamg_agg_nsmooths": 1,
    "pc_gamg_threshold": 0.01,
    "mg_levels_ksp_type": "chebyshev",
    "mg_levels_pc_type": "jacobi",
    "mg_levels_esteig_ksp_type": "cg",
}


@contextlib.contextmanager
def options(prefix: str, values: Mapping[str, Any]) -> Iterator[None]:
    """Put options into PETSc's database for a block only, since PETSc reports those left unused at its end."""
    base = PETSc.Options()
    for key, value in values.items():
        base.setValue(prefix + key, value)
    try:
        yield
    finally:
        for key in values:
            base.delValue(prefix + key)


class LinearSolver:
    """The KSP of a Newton solver, configured for its matrix; collective.

    Args:
        ksp: The KSP.
        matrix: The matrix it will solve with.
        kind: "direct", "iterative" or "auto".
        symmetric: Whether the matrix is; None tests it.
        direct_below: Unknowns up to which "auto" is direct.
        prefix: Options prefix of the KSP.
        overrides: PETSc options that override.

    Attributes:
        kind: "direct" or "iterative".
        symmetric: Whether symmetric solvers are in use.
    """

    def __init__(
        self,
        ksp: PETSc.KSP,
        matrix: PETSc.Mat,
        kind: Literal["direct", "iterative", "auto"],
        symmetric: bool | None,
        direct_below: int,
        prefix: str,
        overrides: Mapping[str, Any] | None,
    ) -> None:
        small = matrix.getSize()[0] <= direct_below
        self.kind = ("direct" if small else "iterative") if kind == "auto" else kind
        self._test, self.symmetric = symmetric is None, symmetric is not False
        self._ksp, self._prefix, self._options = ksp, prefix, dict(overrides or {})
        self._x, self._b = matrix.createVecs()
        self._y = self._x.duplicate()
        random = np.random.default_rng(matrix.comm.rank)
        for vector in (self._x, self._y):
            vector.array_w[:] = random.normal(size=vector.getLocalSize())
        self._kept, self._pace = False, np.inf  # of the preconditioner: whether kept, and iterations per digit when new
        self._pending: contextlib.ExitStack | None = None
        self._configure()

    def _configure(self) -> None:
        if self.kind == "direct":
            chosen = {**DIRECT, "pc_type": "cholesky" if self.symmetric else "lu"}
        else:
            chosen = {**MULTIGRID, "ksp_type": "cg" if self.symmetric else "gmres"}
        self._chosen = {**chosen, **self._options}
        with options(self._prefix, self._chosen):
            self._ksp.setFromOptions()
        if self._pending is not None:
            self._pending.enter_context(options(self._prefix, self._chosen))

    def symmetric_before(self, symmetric: bool) -> None:
        """Take the symmetry of the matrix as an earlier run found it, if it is to be tested at all."""
        if self._test and self.symmetric and not symmetric:
            self.symmetric = False
            self._configure()

    @contextlib.contextmanager
    def setting_up(self) -> Iterator[None]:
        """Within a block, provide the options that PETSc reads when the solver is set up (multigrid levels, MUMPS)."""
        with contextlib.ExitStack() as self._pending:
            self._pending.enter_context(options(self._prefix, self._chosen))
            try:
                yield
            finally:
                self._pending = None

    def prepare(self, A: PETSc.Mat, rtol: float) -> None:
        """Choose for the matrix as assembled, and the relative tolerance of the next solve.

        A multigrid hierarchy is kept while it is effective, since its coarse matrices cost several times a solve. It is
        rebuilt once the iterations per digit exceed those of a new hierarchy by half.
        """
        if self._test and self.symmetric and self.asymmetry(A) > ASYMMETRY:
            self.symmetric = False
            self._ksp.getPC().reset()
            self._kept = False
            self._configure()
        if self.kind == "iterative" and not self._serves():
            self._ksp.getPC().reset()  # SNES is configured never to set up again (`AGAIN_NEVER`) what is set up
        self._ksp.setTolerances(rtol=rtol)

    def _serves(self) -> bool:
        """Whether the preconditioner is still good, judged by the last solve."""
        iterations = self._ksp.getIterationNumber()
        if self._ksp.getConvergedReason() <= 0:
            self._kept = False
            return False
        pace = iterations / max(1.0, -np.log10(self._ksp.getTolerances()[0]))
        if not self._kept:
            self._pace = pace
        self._kept = pace <= 1.5 * self._pace + 0.2
        return self._kept

    def asymmetry(self, A: PETSc.Mat) -> float:
        """|y . A x - x . A y| sqrt(n) / (|A x| |y|) for two random vectors: of the order of |A - A^T| / |A|."""
        A.mult(self._x, self._b)
        size = self._b.norm() * self._y.norm()
        forward = self._y.dot(self._b)
        A.mult(self._y, self._b)
        difference = abs(forward - self._x.dot(self._b))
        return float(difference * np.sqrt(A.getSize()[0]) / size) if size > 0.0 else 0.0


def rigid_body_modes(x: np.ndarray) -> np.ndarray:
    """Translations and infinitesimal rotations about the centre of some points.

    Args:
        x: Positions, (n, d), d = 2 or 3, m.

    Returns:
        Modes, (3 or 6, n, d).
    """
    n, d = x.shape
    pairs = [(0, 1)] if d == 2 else [(0, 1), (1, 2), (2, 0)]
    modes = np.zeros((d + len(pairs), n, d))
    for i in range(d):
        modes[i, :, i] = 1.0
    for mode, (i, j) in zip(modes[d:], pairs):
        mode[:, i], mode[:, j] = -x[:, j], x[:, i]
    return modes


def near_nullspace(vector: PETSc.Vec, x: np.ndarray) -> PETSc.NullSpace:
    """Rigid-body modes as orthonormal vectors; collective.

    Args:
        vector: A vector of the layout of the unknowns, blocks of d.
        x: Positions of the owned nodes, (n, d), m.
    """
    comm: Any = vector.comm.tompi4py()
    centre = comm.allreduce(x.sum(axis=0)) / max(comm.allreduce(len(x)), 1)
    basis: list[PETSc.Vec] = []
    for mode in rigid_body_modes(x - centre):
        new = vector.duplicate()
        new.array_w[:] = mode.reshape(-1)
        for _ in range(2):  # Gram and Schmidt, twice is enough
            for old in basis:
                new.axpy(-new.dot(old), old)
        new.normalize()
        basis.append(new)
    return PETSc.NullSpace().create(vectors=basis, comm=vector.comm)
