"""The number of ranks does not matter: every run on all ranks against the same run on one."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import ufl
from mpi4py import MPI
from threadpoolctl import threadpool_info

from fem import laws
from fem.explicit import ExplicitSolver, RigidPlane
from fem.threads import most_threads, owned_cores, plan_threads, spread

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
    for name in ("kinetic_energy", "internal_energy", "hourglass_energy", "contact_loss", "external_work"):
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


@pytest.fixture
def unplanned(monkeypatch):
    """No wish of the user in the environment; afterwards one thread again."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    plan_threads(MPI.COMM_WORLD, 1)


def test_thread_plan(unplanned):
    comm = MPI.COMM_WORLD
    cores = owned_cores(comm)
    assert cores >= 1
    assert plan_threads(comm).threads == cores
    plan = plan_threads(comm, 1)
    assert (plan.ranks, plan.threads, plan.blas) == (comm.size, 1, 1)
    assert f"{comm.size} ranks" in str(plan)
    assert torch.get_num_threads() == 1
    assert all(pool["num_threads"] == 1 for pool in threadpool_info())


def test_more_threads_are_not_those_of_blas(unplanned):
    plan = plan_threads(MPI.COMM_WORLD, 2)
    assert (plan.threads, plan.blas, torch.get_num_threads()) == (2, 1, 2)
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} <= {1}


def test_the_user_is_asked_first(unplanned):
    comm = MPI.COMM_WORLD
    for name, value in (("OMP_NUM_THREADS", "3"), ("OPENBLAS_NUM_THREADS", "2")):
        unplanned.setenv(name, value)
    plan = plan_threads(comm)
    assert (plan.threads, plan.blas, torch.get_num_threads()) == (3, 2, 3)
    assert plan_threads(comm, 2).threads == 2
    unplanned.setenv("OMP_NUM_THREADS", "100000000")
    assert plan_threads(comm).threads == most_threads()


@pytest.mark.parametrize(("threads", "bound"), [(0, "least 1"), (-1, "least 1"), (100_000_000, "most")])
def test_threads_that_cannot_be_had(threads, bound):
    with pytest.raises(ValueError, match=f"threads must be at {bound}.*, got {threads}"):
        plan_threads(MPI.COMM_WORLD, threads)


def test_one_rank_that_refuses_threads_is_all(monkeypatch):
    """Nodes may have different numbers of cores."""
    comm = MPI.COMM_WORLD
    monkeypatch.setattr("fem.threads.most_threads", lambda: 2 if comm.rank == comm.size - 1 else 1000)
    with pytest.raises(ValueError, match="at most 2 on this machine, got 3"):
        plan_threads(comm, 3)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pieces_of_work_see_one_thread(unplanned, threads):
    """Of PyTorch and of BLAS, in every piece; afterwards both have what they had, and results are in order."""
    plan_threads(MPI.COMM_WORLD, threads)
    if threads > 1:
        together = threading.Barrier(2)  # broken if pieces come one after the other
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    def work(k):
        if threads > 1:
            together.wait(timeout=60)
        found = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return k, torch.get_num_threads(), set(found) <= {1}

    assert spread(work, [4, 1, 3, 2]) == [(k, 1, True) for k in (4, 1, 3, 2)]
    assert torch.get_num_threads() == threads
    assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == blas


def test_an_error_in_a_piece_is_raised(unplanned):
    plan_threads(MPI.COMM_WORLD, 2)
    with pytest.raises(ZeroDivisionError):
        spread(lambda k: 1 // k, [1, 0, 2])
    assert torch.get_num_threads() == 2


def test_threads_do_not_change_a_law(unplanned):
    """Stress, state and tangent of a shipped network, bit for bit, on one thread and on three."""
    law = laws.load_law("magnesium-recurrent")
    law.chunk = 16
    F = np.eye(3) + 0.02 * np.random.default_rng(5).normal(size=(100, 3, 3))
    found = []
    for threads in (1, 3):
        plan_threads(MPI.COMM_WORLD, threads)
        for _ in range(3):  # TorchScript compiles in its first calls
            answer = [*law.update(F, law.initial_state(100), 1e-8), *law.tangent(F, law.initial_state(100), 1e-8)]
        found.append(answer)
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
    ("modules", "wish", "expected"),
    [
        (["fem", "dolfinx", "torch"], {}, "passive"),
        (["fem.explicit"], {}, "passive"),
        (["fem"], {"OMP_WAIT_POLICY": "active"}, "active"),
        (["dolfinx", "fem.threads"], {}, "None"),  # PETSc has loaded OpenMP: too late
    ],
)
@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts processes of its own")
def test_importing_fem_lets_threads_sleep(modules, wish, expected):
    program = "import os, sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    program += "print(os.environ.get('OMP_WAIT_POLICY'))"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | wish
    answer = subprocess.run(
        [sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True, env=environment
    )
    assert answer.stdout.strip() == expected
