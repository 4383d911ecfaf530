"""Mass scaling: the step it reaches, the mass it adds, and that the heavier body is a body like any other."""

import numpy as np
import pytest
from mpi4py import MPI

from fem.explicit import ExplicitSolver, RigidPlane
from fem.explicit.stability import largest_stable_step
from fem.laws import load_law

LAW = load_law("magnesium-j2")
SIZE = (1e-3, 1e-3, 2e-3)


def thin_layer(box):
    """A box whose lowest layer of cells is four times thinner than the others."""
    domain = box(SIZE, (3, 3, 8))
    z = domain.mesh.geometry.x[:, 2]
    h = SIZE[2] / 8
    z[np.isclose(z, h)] = 0.25 * h
    return domain


@pytest.mark.mpi
@pytest.mark.parametrize("viscosity", [(0.0, 0.0), (0.06, 1.2)])
def test_the_step_is_reached_by_the_mass_reported(box, viscosity):
    options = {"viscosity": viscosity, "initial_velocity": (0.0, 0.0, -50.0), "contact": [RigidPlane()]}
    plain = ExplicitSolver(thin_layer(box), LAW, **options)
    wanted = 2.0 * plain.next_step
    scaled = ExplicitSolver(thin_layer(box), LAW, mass_scaling=wanted, **options)
    assert scaled.next_step == pytest.approx(wanted, rel=1e-5)
    assert scaled.next_step < largest_stable_step(scaled)
    sums = [MPI.COMM_WORLD.allreduce(float(solver.mass.sum())) for solver in (plain, scaled)]
    added = scaled.stable.added
    assert added.mass == pytest.approx(sums[1] - sums[0], rel=1e-9)
    assert added.fraction == pytest.approx(added.mass / sums[0], rel=1e-9)
    assert added.cells == 9  # the thin layer alone
    assert plain.stable.added.mass == 0.0
    assert plain.energy_balance().added_mass == 0.0
    scaled.run(1e-6).finish()
    balance = scaled.energy_balance()
    assert balance.added_mass == added.fraction
    assert balance.contact_impulse[2] > 0.0
    assert balance.momentum_error < 1e-12
    assert balance.energy_error < 1e-2


def test_scaling_of_all_cells_is_another_density(box):
    """Twice the step everywhere is four times the density."""
    domain = box((1e-3, 1e-3, 1e-3), (3, 3, 3))
    plain = ExplicitSolver(domain, LAW)
    scaled = ExplicitSolver(domain, LAW, mass_scaling=2.0 * plain.next_step)
    assert scaled.stable.added.fraction == pytest.approx(3.0, rel=1e-5)
    assert scaled.stable.added.largest == pytest.approx(4.0, rel=1e-5)
    np.testing.assert_allclose(scaled.mass, 4.0 * plain.mass, rtol=1e-5)
    assert scaled.density == LAW.density  # loads by weight are those of the body itself


def test_a_step_that_is_there_adds_nothing(box):
    domain = box(SIZE, (2, 2, 4))
    plain = ExplicitSolver(domain, LAW)
    scaled = ExplicitSolver(domain, LAW, mass_scaling=0.9 * plain.next_step)
    assert scaled.stable.added.mass == 0.0
    np.testing.assert_array_equal(scaled.mass, plain.mass)


@pytest.mark.parametrize("wanted", [0.0, -1e-9, float("nan")])
def test_a_step_that_is_none_is_refused(box, wanted):
    with pytest.raises(ValueError, match="mass_scaling must be a positive step"):
        ExplicitSolver(box(SIZE, (1, 1, 1)), LAW, mass_scaling=wanted)
