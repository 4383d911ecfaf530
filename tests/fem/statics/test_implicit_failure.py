"""Steps that fail: cut and recovered, or given up with everything as it was."""

import numpy as np
import pytest
from mpi4py import MPI

from fem import failure
from fem.errors import ConvergenceError
from fem.implicit import Dirichlet, ImplicitSolver, SolverError
from fem.laws import load_law
from fem.laws.j2 import J2
from fem.laws.neo_hookean import NeoHookean

NEO_HOOKEAN = load_law("magnesium-neo-hookean")
pytestmark = pytest.mark.mpi


class Moody(J2):
    """J2 that fails, in a way of choice, where the compression exceeds a limit."""

    name = "moody"
    limit, mood = 1.0, "raises"

    def tangent(self, F, state, dt):
        P, new, dP_dF = super().tangent(F, state, dt)
        bad = F[:, 2, 2] < 1.0 - self.limit
        if np.any(bad):
            if self.mood == "raises":
                raise RuntimeError("no such strain in my range")
            {"stress": P, "state": new, "tangent": dP_dF}[self.mood][bad] = np.nan
        return P, new, dP_dF


def press(depth=0.1):
    ends = [Dirichlet("top", 2, lambda x, t: -depth * t), Dirichlet("top", 0, lambda x, t: 0.02 * t)]
    return [Dirichlet("foot"), *ends]


def moody(cells, mood="raises", limit=0.055, **options):
    law = Moody(0.02, 0.1, shear_modulus=1.0, bulk_modulus=3.0, density=1.0)
    law.mood, law.limit = mood, limit
    return ImplicitSolver(cells("tetrahedron", 3), law, prescribed=press(), **options)


def test_a_step_too_large_is_cut_and_the_end_is_the_same(cells):
    """Elastic torsion by 170 degrees: the first guess turns cells inside out, smaller steps do not."""
    def turn(i):
        def value(x, t):
            angle, r = np.radians(170.0) * t, x[:2] - 0.5
            c, s = np.cos(angle), np.sin(angle)
            return (np.array([[c, -s], [s, c]]) @ r - r)[i]

        return value

    ends = [*(Dirichlet("foot", i) for i in range(3)), *(Dirichlet("top", i, turn(i)) for i in range(2))]
    domain, law = cells("hexahedron", 3), NeoHookean(1.0, 3.0, density=1.0)
    solver = ImplicitSolver(domain, law, prescribed=ends)
    steps = list(solver.run(progress=True))
    assert steps[0].attempts > 1 and solver.time == 1.0
    careful = ImplicitSolver(domain, law, prescribed=ends)
    assert all(step.attempts == 1 for step in careful.run(step=0.05))
    assert solver.stored_energy() == pytest.approx(careful.stored_energy(), rel=1e-9)
    assert solver.points_evaluated < careful.points_evaluated


@pytest.mark.parametrize("mood", ["raises", "stress", "state", "tangent"])
def test_a_law_that_fails_leaves_the_state_untouched(cells, mood):
    solver = moody(cells, mood)
    solver.run(0.25, step=0.125).finish()
    before = {"u": solver.u.x.array, "P": solver.points.P, "state": solver.state, "F": solver.points.F}
    before = {name: array.copy() for name, array in before.items()}
    force, energy = solver.reaction("top"), solver.stored_energy()
    assert before["state"][:, 6].max(initial=0.0) > 0.0 or solver.comm.size > 1
    solver.set_time(1.0)
    with pytest.raises(ConvergenceError, match="moody" if mood == "raises" else mood):
        solver.solve()
    solver.roll_back()
    after = {"u": solver.u.x.array, "P": solver.points.P, "state": solver.state, "F": solver.points.F}
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert solver.time == 0.25 and np.array_equal(solver.reaction("top"), force)
    assert solver.stored_energy() == energy and solver.last is None
    solver.run(0.28).finish()
    assert solver.time == 0.28


def test_an_uncommitted_solution_is_forgotten(cells):
    solver = moody(cells, limit=1.0)
    solver.run(0.5, step=0.25).finish()
    state, force = solver.state.copy(), solver.reaction("top")
    solver.set_time(1.0)
    solver.solve()
    assert not np.allclose(solver.reaction("top"), force, rtol=1e-3)
    np.testing.assert_array_equal(solver.state, state)
    solver.roll_back()
    np.testing.assert_array_equal(solver.reaction("top"), force)


def test_no_step_left_ends_with_a_checkpoint_and_a_replay(cells, tmp_path):
    path = MPI.COMM_WORLD.bcast(tmp_path, root=0)
    solver = moody(cells, "stress", output=path)
    with pytest.raises(SolverError, match="the step cannot be cut any further.*stress that is not finite"):
        solver.run(step=0.2, smallest=0.02).finish()
    assert 0.2 < solver.time < 1.0
    MPI.COMM_WORLD.barrier()
    with np.load(path / failure.REPLAY) as replay:
        # Handed to the law again, the point fails again.
        P, _, _ = solver.law.tangent(replay["F"], replay["state"], float(replay["dt"]))
        assert replay["F"].shape == (1, 3, 3) and not np.all(np.isfinite(P))
        P, _, _ = solver.law.tangent(replay["F_n"], replay["state"], float(replay["dt"]))
        assert np.all(np.isfinite(P)) and "cell" in str(replay["reason"])
    again = moody(cells, limit=1.0)
    with pytest.raises(ValueError, match="with the law digest"):
        again.restore(path / failure.CHECKPOINT)
    again.restore(path / failure.CHECKPOINT, same_law=False)  # the law is repaired
    assert again.time == solver.time
    np.testing.assert_allclose(again.stored_energy(), solver.stored_energy(), rtol=1e-13)
    again.run(step=0.2).finish()
    assert again.time == 1.0


def test_an_inverted_cell_is_named(cells):
    solver = ImplicitSolver(cells("hexahedron", 1), NEO_HOOKEAN, prescribed=[*press(1.5), Dirichlet("top", 1)])
    solver.set_time(1.0)
    with pytest.raises(ConvergenceError, match=r"cell 0, point \d is inverted \(det F = -0\.5, \|F - I\| = 1\.5\)"):
        solver.solve()
