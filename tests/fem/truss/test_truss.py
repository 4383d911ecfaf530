"""Finite trusses: closed forms, known totals, energy, paths, and the same on any number of ranks."""

import numpy as np
import pytest
from mpi4py import MPI
from scipy.optimize import brentq

from fem.errors import ConvergenceError
from micro.lattice.bars import IsotropicBar, KinematicBar

pytestmark = pytest.mark.mpi
BOTH = [KinematicBar(), IsotropicBar(hardening=0.2)]


@pytest.mark.parametrize("linear", ["direct", "iterative"])
@pytest.mark.parametrize("n", [1, 3, 6])
def test_elastic_uniaxial_compression_stores_the_same_for_every_n(trusses, n, linear):
    truss = trusses.lattice(n)
    solver = trusses.make(truss, trusses.uniaxial(truss, -3.0), linear=linear)
    (step,) = solver.run()
    assert step.convergence.iterations == 1
    assert solver.stored_energy() == pytest.approx(101.1617146683, abs=1e-8)
    assert solver.external_work == pytest.approx(101.1617146683, abs=1e-8)
    assert solver.dissipation() == 0.0
    bottom, top = trusses.faces(truss)
    force = 2.0 * 101.1617146683 / 3.0
    np.testing.assert_allclose(solver.reaction(top), [0.0, 0.0, -force], atol=1e-7)
    np.testing.assert_allclose(solver.reaction(bottom), [0.0, 0.0, force], atol=1e-7)


@pytest.mark.parametrize(("n", "psi"), [(1, 51.3483), (2, 48.6390), (4, 47.5585), (8, 47.1172)])
def test_clamped_compression_stores_the_known_energy(trusses, n, psi):
    truss = trusses.lattice(n)
    solver = trusses.make(truss, trusses.clamped(truss, -2.0))
    solver.run().finish()
    assert abs(solver.stored_energy() - psi) < 5.1e-5


def homogeneous(truss, law, axial):
    """Uniform strain with free sides, bar by bar: lateral strain, stored energy and dissipation of a monotonic load."""
    vector = truss.nodes[truss.bars[:, 1]] - truss.nodes[truss.bars[:, 0]]
    length = np.linalg.norm(vector, axis=1)
    square, volume = (vector / length[:, None]) ** 2, truss.area * length
    virgin = np.zeros((len(length), law.state_size))
    strain = lambda e: square @ np.array([e, e, axial])
    lateral = brentq(lambda e: volume * square[:, 0] @ law.update(strain(e), virgin)[0], -1.0, 1.0, xtol=1e-15)
    state = law.update(strain(lateral), virgin)[1]
    return lateral, volume @ law.energy(strain(lateral), state), volume @ law.dissipation(virgin, state)


@pytest.mark.parametrize("law", BOTH, ids=lambda law: law.name)
def test_plastic_uniaxial_compression_is_the_closed_form(trusses, law):
    truss = trusses.lattice(4)
    solver = trusses.make(truss, trusses.uniaxial(truss, -5.0), law)
    solver.run(times=[0.5, 1.0]).finish()
    lateral, psi, dissipation = homogeneous(truss, law, -0.5)
    assert dissipation > 1.0
    assert solver.stored_energy() == pytest.approx(psi, rel=1e-6)
    assert solver.dissipation() == pytest.approx(dissipation, rel=1e-6)
    expected = truss.nodes * np.array([lateral, lateral, -0.5])
    np.testing.assert_allclose(trusses.everywhere(solver.comm, solver.displacement()), expected, atol=1e-8)


@pytest.mark.parametrize("linear", ["direct", "iterative"])
@pytest.mark.parametrize("law", BOTH, ids=lambda law: law.name)
def test_the_number_of_ranks_does_not_matter(trusses, law, linear):
    truss = trusses.lattice(2, "cube-2", 0.1)
    together, alone = (
        trusses.make(truss, trusses.torsion(truss, lambda t: 60.0 * t), law, linear=linear, comm=comm, rtol=1e-12)
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF)
    )
    for solver in (together, alone):
        solver.run(times=[0.6, 1.0, 1.2]).finish()
    assert alone.dissipation() > 1.0
    for solver in (together, alone):  # the last digits depend on the partition, and with them the last iteration
        assert solver.bar_calls == len(truss.bars) * (1 + solver.newton_iterations)
    for name in ("stored_energy", "dissipation"):
        assert getattr(together, name)() == pytest.approx(getattr(alone, name)(), rel=1e-10)
    assert together.external_work == pytest.approx(alone.external_work, rel=1e-10)
    for name in ("displacement", "bar_stress", "bar_state"):
        expected = getattr(alone, name)()
        assert np.abs(trusses.everywhere(together.comm, getattr(together, name)()) - expected).max() < 1e-10


@pytest.mark.parametrize("law", BOTH, ids=lambda law: law.name)
def test_work_of_the_supports_is_stored_or_dissipated(trusses, law):
    """Where bars start to yield the trapezoid rule counts their work short, by less the smaller the steps."""
    truss = trusses.lattice(2, "cube-2", 0.1)
    missing = []
    for steps in (4, 8, 16, 32):
        solver = trusses.make(truss, trusses.torsion(truss, lambda t: 60.0 * t), law)
        solver.run(times=np.linspace(0.0, 1.0, steps + 1)[1:]).finish()
        assert solver.dissipation() > 0.05 * solver.stored_energy()
        missing.append(solver.stored_energy() + solver.dissipation() - solver.external_work)
    assert all(0.0 < fine < 0.6 * coarse for coarse, fine in zip(missing, missing[1:]))
    assert missing[-1] < 1e-2 * solver.external_work


def test_state_follows_the_bar_law_on_a_cyclic_path(trusses):
    """Each bar, driven by hand along its strains at the ends of the steps, comes to the same stress and state."""
    truss = trusses.lattice(2, "cube-2", 0.1)
    angle = lambda t: np.interp(t, [0, 1, 2, 3, 4], [0.0, 50.0, -50.0, 60.0, 0.0])
    for law in BOTH:
        solver = trusses.make(truss, trusses.torsion(truss, angle), law)
        history, dissipated, stored, steps = [], [], [], []
        for step in solver.run(times=np.linspace(0.0, 4.0, 17)[1:]):
            steps.append(step)
            history.append(solver.bars.strain.copy())
            dissipated.append(solver.dissipation())
            stored.append(solver.stored_energy())
        assert max(step.convergence.iterations for step in steps) <= 6
        state = np.zeros_like(solver.bars.state)
        for strain in history:
            stress, state, _ = law.update(strain, state)
        np.testing.assert_array_equal(solver.bars.state, state)
        np.testing.assert_array_equal(solver.bars.stress, stress)
        assert np.all(np.diff(dissipated) >= 0.0)
        assert dissipated[-1] > dissipated[3] > 0.0
        assert 0.0 < stored[-1] < max(stored)


def test_a_step_in_which_whole_newton_steps_cycle_converges_uncut(trusses):
    truss = trusses.lattice(4, "cube-2", 0.2)
    load = trusses.torsion(truss, lambda t: 150.0 * t)
    whole = trusses.make(truss, load, line_search="basic")
    whole.set_time(1.0)
    with pytest.raises(ConvergenceError, match="largest number of iterations was reached"):
        whole.solve()
    solver = trusses.make(truss, load)
    (step,) = solver.run()
    assert step.attempts == 1
    assert np.mean(trusses.everywhere(solver.comm, solver.bar_state())[:, 0] != 0.0) > 0.1


def test_an_elastic_cycle_returns_to_zero(trusses):
    truss = trusses.lattice(3)
    solver = trusses.make(truss, trusses.torsion(truss, lambda t: 30.0 * np.sin(np.pi * t)))
    solver.run(times=[0.25, 0.5, 1.0]).finish()
    assert solver.dissipation() == 0.0
    assert abs(solver.external_work) < 1e-10
    assert solver.stored_energy() < 1e-18
    assert np.abs(trusses.everywhere(solver.comm, solver.displacement())).max() < 1e-9


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("law", BOTH, ids=lambda law: law.name)
def test_released_supports_push_no_more_and_leave_a_permanent_twist(trusses, law, steps, tmp_path):
    truss = trusses.lattice(3)
    solver = trusses.make(truss, trusses.torsion(truss, lambda t: 60.0 * t), law)
    solver.run(times=[0.5, 1.0]).finish()
    stored, work = solver.stored_energy(), solver.external_work
    top = trusses.faces(truss)[1]
    pushed = solver.reaction(top[:3])
    assert np.abs(pushed).max() > 1e-2
    solver.release(top, over=1.0)
    solver.run(times=np.linspace(1.0, 2.0, steps + 1)[1:-1]).finish()
    if steps > 1:  # a checkpoint on the way knows what still pushes
        np.testing.assert_allclose(solver.reaction(top[:3]), pushed / steps, atol=1e-8)
        path = trusses.everywhere(solver.comm, tmp_path) / "run.h5"
        solver.save(path)
        solver.comm.barrier()
        solver = trusses.make(truss, trusses.torsion(truss, lambda t: 60.0 * t), law)
        solver.restore(path)
    solver.run(2.0).finish()
    assert np.abs(solver.reaction(top[:3])).max() < 1e-8
    assert solver.stored_energy() < 0.2 * stored
    assert solver.external_work < work
    assert np.abs(trusses.everywhere(solver.comm, solver.displacement())[top]).max() > 0.1


def test_plane_lattice_by_both_solvers(trusses):
    truss = trusses.lattice(4, "square-2", 0.1)
    load = trusses.clamped(truss, -4.0)
    first, second = (trusses.make(truss, load, linear=linear) for linear in ("direct", "iterative"))
    for solver in (first, second):
        solver.run(times=[0.5, 1.0]).finish()
    assert first.dissipation() > 0.1
    assert second.stored_energy() == pytest.approx(first.stored_energy(), rel=1e-9)
    u = first.displacement()
    assert u.shape == truss.nodes.shape if first.comm.rank == 0 else u is None
    np.testing.assert_allclose(first.reaction(np.arange(len(truss.nodes))), 0.0, atol=1e-8)
