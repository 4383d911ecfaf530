"""Trusses whose bar law fails, and checkpoints."""

import numpy as np
import pytest
from mpi4py import MPI

from fem.errors import SolverError
from fem.failure import CHECKPOINT
from micro.lattice.bars import IsotropicBar, KinematicBar

pytestmark = pytest.mark.mpi
BOTH = [KinematicBar(), IsotropicBar(hardening=0.2)]


class Brittle(KinematicBar):
    """Fails where a strain grows by more than 0.05 in a step, on the ranks that have such a bar."""

    def update(self, strain, state):
        if not hasattr(self, "seen"):
            object.__setattr__(self, "seen", {})
        start = self.seen.setdefault(len(state), strain * 0.0)
        if np.abs(strain - start).max(initial=0.0) > 0.05:
            raise ArithmeticError("too large a step")
        return super().update(strain, state)


def test_a_failing_step_is_cut_and_the_end_is_the_same(trusses):
    truss = trusses.lattice(2)
    law = Brittle()

    load = trusses.uniaxial(truss, -5.0)
    careful, plain = trusses.make(truss, load, law), trusses.make(truss, load)
    steps = []
    for step in careful.run():
        law.seen[len(careful.bars.state)] = careful.bars.strain.copy()
        steps.append(step)
    plain.run().finish()
    assert len(steps) >= 10 and max(step.attempts for step in steps) > 1
    assert careful.stored_energy() == pytest.approx(plain.stored_energy(), rel=1e-9)
    assert careful.dissipation() == pytest.approx(plain.dissipation(), rel=1e-9)


@pytest.mark.parametrize("kind", ["raises", "nan"])
def test_a_law_that_always_fails_ends_the_run_where_it_was(trusses, kind, tmp_path):
    class Broken(KinematicBar):
        def update(self, strain, state):
            stress, new, tangent = super().update(strain, state)
            if np.abs(strain).max(initial=0.0) > 0.25:
                if kind == "raises":
                    raise ArithmeticError("no")
                stress = stress * np.nan
            return stress, new, tangent

    folder = trusses.everywhere(MPI.COMM_WORLD, tmp_path) / "run"
    truss = trusses.lattice(2)
    solver = trusses.make(truss, trusses.uniaxial(truss, -5.0), Broken(), output=folder)
    with pytest.raises(SolverError, match="the step cannot be cut any further.*bar law kinematic"):
        solver.run(times=[0.25, 1.0], smallest=0.1).finish()
    assert 0.25 <= solver.time <= 0.5
    other = trusses.make(truss, trusses.uniaxial(truss, -5.0))
    with pytest.raises(ValueError, match="with the law digest"):
        other.restore(folder / CHECKPOINT)
    other.restore(folder / CHECKPOINT, same_law=False)
    assert other.time == solver.time
    assert other.stored_energy() == pytest.approx(101.1617146683 * (solver.time * 5.0 / 3.0) ** 2, rel=1e-9)


@pytest.mark.parametrize("law", BOTH, ids=lambda law: law.name)
def test_a_restored_run_goes_on_as_the_first_on_any_ranks(trusses, law, tmp_path):
    path = trusses.everywhere(MPI.COMM_WORLD, tmp_path) / "run.h5"
    truss = trusses.lattice(2, "cube-2", 0.1)
    load = lambda: trusses.torsion(truss, lambda t: 60.0 * np.sin(3.0 * t))
    first = trusses.make(truss, load(), law)
    first.run(times=[0.25, 0.5, 0.75]).finish()
    first.save(path)
    stored = first.bar_calls
    first.comm.barrier()
    second, alone = trusses.make(truss, load(), law), trusses.make(truss, load(), law, comm=MPI.COMM_SELF)
    for solver in (second, alone):
        solver.restore(path)
        assert (solver.time, solver.bar_calls) == (first.time, first.bar_calls)
        assert solver.newton_iterations == first.newton_iterations > 0
    for solver in (first, second, alone):
        solver.run(times=[1.0, 1.5]).finish()
    for name in ("displacement", "bar_stress", "bar_state"):
        a, b = (trusses.everywhere(s.comm, getattr(s, name)()) for s in (first, second))
        np.testing.assert_allclose(a, b, atol=1e-13)
        np.testing.assert_allclose(getattr(alone, name)(), b, atol=1e-9)
    for solver in (second, alone):
        assert solver.external_work == pytest.approx(first.external_work, rel=1e-10)
        assert solver.dissipation() == pytest.approx(first.dissipation(), rel=1e-10)
        # Counted on, all bars each time; the last iteration of a step is up to rounding.
        assert solver.bar_calls > stored and (solver.bar_calls - stored) % len(truss.bars) == 0


def test_checkpoints_that_do_not_fit_are_refused(trusses, tmp_path):
    path = trusses.everywhere(MPI.COMM_WORLD, tmp_path) / "run.h5"
    truss, larger = trusses.lattice(2), trusses.lattice(3)
    trusses.make(truss, trusses.uniaxial(truss, -1.0)).save(path)
    with pytest.raises(ValueError, match='with the law "kinematic", the solver has "isotropic"'):
        trusses.make(truss, trusses.uniaxial(truss, -1.0), IsotropicBar()).restore(path)
    with pytest.raises(ValueError, match="does not fit this mesh: u has shape"):
        trusses.make(larger, trusses.uniaxial(larger, -1.0)).restore(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        trusses.make(truss, trusses.uniaxial(truss, -1.0)).restore(path.with_name("absent.h5"))
