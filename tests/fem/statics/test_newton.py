"""Newton on small systems whose solution is known: order, linear problems, failures."""

import numpy as np
import pytest
from mpi4py import MPI
from petsc4py import PETSc

from fem.errors import ConvergenceError
from fem.statics.newton import Newton

pytestmark = pytest.mark.mpi
N = 60


def chain(cubic=0.0, skew=0.0, kink=0.0, fail=None, **options):
    """Springs in a row, k (u_i+1 - u_i) and cubic and kinked ones to the ground; end values prescribed: 0 and 1."""
    comm = MPI.COMM_WORLD
    A = PETSc.Mat().createAIJ((N, N), nnz=3, comm=comm)
    b, x = A.createVecs()
    first, last = A.getOwnershipRange()
    rows = np.arange(first, last)
    fixed = np.flatnonzero((rows == 0) | (rows == N - 1))
    calls = []

    def gather(v):
        return np.concatenate(comm.allgather(v.array_r.copy()))

    def residual(v, out):
        u = gather(v)
        calls.append(u)
        if fail is not None:
            fail(len(calls))
        du = np.array([0.0 - u[0], 1.0 - u[-1]])
        full = np.zeros(N)
        full[1:-1] = (2.0 + skew) * u[1:-1] - (1.0 + skew) * u[:-2] - u[2:] + cubic * u[1:-1] ** 3
        full[1:-1] += kink * np.maximum(np.abs(u[1:-1]) - 0.1, 0.0) * np.sign(u[1:-1])
        full[1] += -(1.0 + skew) * du[0]  # lifted
        full[-2] += -du[1]
        full[[0, -1]] = -du
        out.array_w[:] = full[first:last]
        return 1.0

    def jacobian(v, M):
        u = gather(v)
        M.zeroEntries()
        for i in rows:
            if i in (0, N - 1):
                M[i, i] = 1.0
                continue
            M[i, i] = 2.0 + skew + 3.0 * cubic * u[i] ** 2 + kink * (abs(u[i]) > 0.1)
            if i > 1:
                M[i, i - 1] = -(1.0 + skew)
            if i < N - 2:
                M[i, i + 1] = -1.0
        M.assemble()

    return Newton(b, A, residual, jacobian, prescribed=fixed, **options), x, gather, calls


@pytest.mark.parametrize("linear", ["direct", "iterative"])
def test_a_linear_problem_takes_one_iteration_and_two_evaluations(linear):
    newton, x, gather, calls = chain(linear=linear, linear_rtol=1e-13)
    done = newton.solve(x)
    assert done.iterations == 1 and len(done.residuals) == 2 and len(calls) == 2
    assert newton.linear.kind == linear and newton.linear.symmetric
    np.testing.assert_allclose(gather(x), np.linspace(0.0, 1.0, N), atol=1e-9)


def test_convergence_is_quadratic_and_the_solution_solves():
    newton, x, gather, _ = chain(cubic=0.5)
    done = newton.solve(x)
    u = gather(x)
    r = 2.0 * u[1:-1] - u[:-2] - u[2:] + 0.5 * u[1:-1] ** 3
    assert np.abs(r).max() < 1e-9
    history = [r for r in done.residuals if 1e-13 < r < 1e-1]
    orders = np.diff(np.log(history))[1:] / np.diff(np.log(history))[:-1]
    assert len(orders) and orders[-1] > 1.7


@pytest.mark.parametrize("linear", ["direct", "iterative"])
def test_an_unsymmetric_jacobian_is_noticed(linear):
    newton, x, gather, _ = chain(skew=0.3, linear=linear, linear_rtol=1e-12)
    newton.solve(x)
    assert not newton.linear.symmetric
    ratio = 1.3 ** np.arange(N)  # u_i+1 - u_i grows by 1 + skew from bar to bar
    expected = np.concatenate([[0.0], np.cumsum(ratio[: N - 1])])
    np.testing.assert_allclose(gather(x), expected / expected[-1], atol=1e-9)


def test_it_is_direct_below_a_size_only():
    assert chain(direct_below=N)[0].linear.kind == "direct"
    assert chain(direct_below=N - 1)[0].linear.kind == "iterative"


def test_a_failing_callback_on_one_rank_fails_on_all_and_the_solver_works_again():
    broken = [True]

    def fail(call):
        if broken[0] and call == 2 and MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
            raise ConvergenceError("The law has had enough.")

    newton, x, gather, calls = chain(cubic=0.5, fail=fail)
    with pytest.raises(ConvergenceError, match="had enough"):
        newton.solve(x)
    assert len(calls) == 2
    broken[0] = False
    x.set(0.0)
    newton.solve(x)
    assert np.all(np.isfinite(gather(x)))


def test_an_overshooting_newton_is_tamed():
    """Springs that harden at once to a hundredfold: full steps swing to and fro, searched ones arrive."""

    def kink(**options):
        newton, x, gather, calls = chain(kink=100.0, **options)
        return newton.solve(x), gather(x), len(calls)

    done, u, calls = kink(line_search="energy")
    r = 2.0 * u[1:-1] - u[:-2] - u[2:] + 100.0 * np.maximum(np.abs(u[1:-1]) - 0.1, 0.0) * np.sign(u[1:-1])
    assert np.abs(r).max() < 1e-9 and calls < 2 * done.iterations + 2
    newton, x, _, calls = chain(line_search="energy")
    assert newton.solve(x).iterations == 1 and len(calls) == 2


def test_too_many_iterations_and_values_that_are_not_finite():
    newton, x, _, _ = chain(cubic=0.5, maximum=2)
    with pytest.raises(ConvergenceError, match="largest number of iterations was reached"):
        newton.solve(x)
    newton, x, _, _ = chain(cubic=np.nan)
    with pytest.raises(ConvergenceError, match="not finite"):
        newton.solve(x)


def test_options_of_petsc_override():
    newton, x, gather, _ = chain(options={"pc_type": "jacobi", "ksp_type": "cg", "ksp_max_it": 1000})
    newton.solve(x)
    assert newton.snes.getKSP().getPC().getType() == "jacobi"
    np.testing.assert_allclose(gather(x), np.linspace(0.0, 1.0, N), atol=1e-8)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"linear": "magic"}, 'linear must be "direct", "iterative" or "auto", got "magic".'),
        ({"rtol": -1.0}, "rtol must not be negative, got -1.0."),
        ({"maximum": 0}, "maximum must be at least 1, got 0."),
    ],
)
def test_wrong_arguments_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        chain(**wrong)
