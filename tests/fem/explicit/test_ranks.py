"""The number of ranks does not matter: every run on all ranks against the same run on one."""

import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem import laws
from fem.explicit import ExplicitSolver, RigidPlane
from fem.parallel import owned_cores, plan_threads

pytestmark = pytest.mark.mpi
SIZE = (1e-3, 1e-3, 2e-3)


def compare(make, nodes, until=1e-6):
    """Run on all ranks and on one, and compare everything that a summary holds."""
    together, alone = make(MPI.COMM_WORLD), make(MPI.COMM_SELF)
    for solver in (together, alone):
        solver.run(until).finish()
    assert together.steps == alone.steps
    for a, b in zip(nodes(together), nodes(alone)):
        assert np.abs(a - b).max() < 1e-10 * np.abs(b).max()
    balance, expected = together.energy_balance().as_dict(), alone.energy_balance().as_dict()
    energy = max(expected["internal_energy"], 1e-30)
    for name in ("kinetic_energy", "internal_energy", "hourglass_energy", "contact_work", "external_work"):
        assert abs(balance[name] - expected[name]) < 1e-10 * energy
    assert balance["contact_nodes"] == expected["contact_nodes"]
    assert balance["contact_impulse_z"] == pytest.approx(expected["contact_impulse_z"], rel=1e-10, abs=1e-16)
    assert together.total_points() == alone.total_points()
    return together


@pytest.mark.parametrize("integration", ["one-point", "full"])
@pytest.mark.parametrize("law", laws.FINITE)
def test_impact(box, nodes, law, integration):
    def make(comm):
        return ExplicitSolver(
            box(SIZE, (3, 3, 6), distort=0.15, comm=comm), laws.load_law(law), contact=[RigidPlane()],
            initial_velocity=(0.0, 5.0, -150.0), integration=integration,
        )

    solver = compare(make, nodes)
    assert solver.last_contact > 0.0


def test_fixed_faces_and_forms(box, nodes):
    """Prescribed displacements on faces, damping, a body force and a foundation on one face."""

    def make(comm):
        domain = box(SIZE, (3, 2, 4), distort=0.1, comm=comm)
        ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)

        solver = ExplicitSolver(domain, laws.load_law("magnesium-j2"), initial_velocity=(1.0, 0.0, 0.0))
        load, v = ufl.as_vector([1e11 * solver.time_constant * 1e6, 0.0, -1e11]), solver.test_function
        solver.external += (ufl.inner(load, v) - 1e9 * ufl.inner(solver.velocity, v)) * ufl.dx
        solver.external -= 1e13 * ufl.inner(solver.u, v) * ds(domain.tag("foot"))
        solver.prescribe("side_x", 1)
        solver.prescribe("top", 2, lambda x, t: -20.0 * t)
        return solver

    balance = compare(make, nodes).energy_balance()
    assert balance.energy_error < 1e-2
    assert balance.momentum_error < 1e-9
    assert abs(balance.reaction_work) > 0.0


@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_ranks_without_cells(box, nodes, integration):
    """One cell, any number of ranks."""

    def make(comm):
        solver = ExplicitSolver(
            box((1e-3, 1e-3, 1e-3), (1, 1, 1), comm=comm), laws.load_law("magnesium-johnson-cook"),
            contact=[RigidPlane()],
            initial_velocity=(0.0, 0.0, -100.0), integration=integration,
        )
        solver.prescribe("side_x", 0)
        return solver

    compare(make, nodes, until=5e-7)


def test_rebound_is_seen_by_all(box):
    solver = ExplicitSolver(
        box(SIZE, (2, 2, 6)), laws.load_law("magnesium-neo-hookean"), contact=[RigidPlane()],
        initial_velocity=(0.0, 0.0, -20.0),
    )
    solver.run("rebound", limit=2e-5).finish()
    assert solver.rebounded()
    assert len(set(MPI.COMM_WORLD.allgather((solver.steps, solver.time)))) == 1
    assert solver.energy_balance().momentum[2] > 0.0


def test_bad_input_is_refused_on_all_ranks(box):
    """Also where only one rank can see it."""
    domain = box(SIZE, (2, 2, 4))
    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    velocity = (0.0, 0.0, float("nan") if rank == size - 1 else 1.0)
    with pytest.raises(ValueError, match="initial velocity must be finite"):
        ExplicitSolver(domain, laws.load_law("magnesium-j2"), initial_velocity=velocity)


def test_thread_plan():
    comm = MPI.COMM_WORLD
    cores = owned_cores(comm)
    assert cores >= 1
    plan = plan_threads(comm, 1)
    assert (plan.ranks, plan.threads) == (comm.size, 1)
    assert f"{comm.size} ranks" in str(plan)
    import torch
    from threadpoolctl import threadpool_info

    assert torch.get_num_threads() == 1
    assert all(pool["num_threads"] == 1 for pool in threadpool_info())
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        plan_threads(comm, 0)
