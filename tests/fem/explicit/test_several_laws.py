"""Several laws in one body: waves at an interface, state, checkpoints, and what is refused."""

import dolfinx.mesh
import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem import ImplicitSolver
from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law
from fem.laws.neo_hookean import NeoHookean
from fem.mesh import Domain
from fem.novelty import NoveltyMonitor

LENGTH, SIDE = 5e-3, 1e-3
SIZE = (1e-3, 1e-3, 2e-3)
J2, JOHNSON_COOK, ELASTIC = (load_law(f"magnesium-{name}") for name in ("j2", "johnson-cook", "neo-hookean"))


def halves(domain, middle):
    """The domain with the cells below and above a height as the groups "lower" and "upper"."""
    mesh = domain.mesh
    cells = mesh.topology.index_map(3)
    number = np.arange(cells.size_local + cells.num_ghosts, dtype=np.int32)
    midpoints = dolfinx.mesh.compute_midpoints(mesh, 3, number)
    tags = dolfinx.mesh.meshtags(mesh, 3, number, np.where(midpoints[:, 2] < middle, 1, 2).astype(np.int32))
    names = {**domain.names, "lower": (3, 1), "upper": (3, 2)}
    return Domain(mesh, tags, domain.facet_tags, names, domain.parts)


@pytest.mark.mpi
def test_a_pulse_at_an_interface_is_split_by_the_impedances(box):
    """Velocity transmitted 2 Z_1/(Z_1 + Z_2), reflected (Z_1 - Z_2)/(Z_1 + Z_2), Z = rho c, here of ratio two."""
    soft, hard = (NeoHookean(E / 2.0, E / 3.0, density=1e4) for E in (50e9, 200e9))  # Poisson's ratio 0
    c_1, V, width, start = np.sqrt(50e9 / 1e4), 0.1, 2e-4, 1.25e-3
    fine = np.linspace(0.0, LENGTH, 4001)
    pulse = V * np.exp(-0.5 * ((fine - start) / width) ** 2)
    shape = np.concatenate([[0.0], np.cumsum(0.5 * (pulse[1:] + pulse[:-1]) * np.diff(fine))])
    along_z = lambda value: lambda x: np.stack([0 * x[2], 0 * x[2], np.interp(x[2], fine, value)])
    solver = ExplicitSolver(
        halves(box((SIDE, SIDE, LENGTH), (1, 1, 240)), 0.5 * LENGTH), {"lower": soft, "upper": hard},
        initial_velocity=along_z(pulse), initial_displacement=along_z(-shape / c_1), viscosity=(0.0, 0.0),
    )  # fmt: skip
    assert float(solver.density.x.array.min()) == 1e4
    solver.run((0.5 * LENGTH - start) / c_1 + 0.3e-6).finish()
    z, v = solver._x[:, 2], solver.velocity.x.array.reshape(-1, 3)[:, 2]
    highest = lambda part: MPI.COMM_WORLD.allreduce(float(v[part].max(initial=-np.inf)), op=MPI.MAX)
    lowest = lambda part: MPI.COMM_WORLD.allreduce(float(v[part].min(initial=np.inf)), op=MPI.MIN)
    assert highest(z > 0.5 * LENGTH) == pytest.approx(V * 2.0 / 3.0, rel=5e-3)
    assert lowest(z < 0.5 * LENGTH) == pytest.approx(-V / 3.0, rel=1e-2)
    assert solver.energy_balance().energy_error < 1e-3


@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_one_law_given_twice_is_the_one_law(box, nodes, integration):
    """Bit for bit, with plastic flow, viscosity, hourglass forces and contact."""
    found = []
    for law in (JOHNSON_COOK, {"lower": JOHNSON_COOK, "upper": JOHNSON_COOK}):
        solver = ExplicitSolver(
            halves(box(SIZE, (3, 3, 6), distort=0.15), 1e-3), law, contact=[RigidPlane()],
            initial_velocity=(0.0, 5.0, -150.0), integration=integration,
        )  # fmt: skip
        solver.run(1e-6).finish()
        balance = np.array(list(solver.energy_balance().as_dict().values()))
        found.append([*nodes(solver), solver.state, solver.points.P, balance])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def two_laws(box, comm=MPI.COMM_WORLD, **options):
    domain = halves(box(SIZE, (3, 3, 6), distort=0.15, comm=comm), 1e-3)
    options = {"contact": [RigidPlane()], "initial_velocity": (0.0, 5.0, -150.0), **options}
    return ExplicitSolver(domain, (domain.cell_tags, {1: JOHNSON_COOK, 2: ELASTIC}), **options)


def test_points_have_the_law_of_their_cell(box):
    solver = two_laws(box)
    solver.run(5e-7).finish()
    upper = np.asarray(solver.law.cells) == 1
    F, state = solver.points.F.copy(), solver.state
    P, _ = ELASTIC.update(F[upper], np.zeros((int(upper.sum()), 0)), 1.0)
    np.testing.assert_array_equal(solver.points.P[upper], P)
    assert not state[upper].any()
    strain = solver.law.observe(state)[:, 0]
    assert strain[~upper].max() > 0.0
    assert not strain[upper].any()
    stored = solver.law.stored_energy(F, state)
    np.testing.assert_array_equal(stored[upper], ELASTIC.stored_energy(F[upper], np.zeros((int(upper.sum()), 0))))
    assert (np.linalg.norm(solver.forces.hourglass.zeta[upper], axis=(1, 2)) == 0.0).all()  # what cannot flow
    assert NoveltyMonitor(solver).report() == {}
    counts = [solver.comm.allreduce(int((~upper).sum())), solver.comm.allreduce(int(upper.sum()))]
    assert list(solver.law.layout[::2]) == counts
    some = slice(3, 7)
    np.testing.assert_array_equal(solver.law.at(some, len(F)).update(F[some], state[some], 1e-9)[0],
                                  solver.law.update(F, state, 1e-9)[0][some])  # fmt: skip
    solver.project()
    solver.law.tangent(F, state, 1e-9)


def test_the_state_of_several_laws_survives_a_checkpoint(box, nodes, tmp_path):
    through, first, second = (two_laws(box) for _ in range(3))
    for solver in (through, first):
        for _ in range(20):
            solver.step()
    first.save(tmp_path / "run.h5")
    second.restore(tmp_path / "run.h5")
    for solver in (through, second):
        for _ in range(20):
            solver.step()
    for one, two in zip(nodes(through), nodes(second), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(through.state, second.state)


@pytest.mark.mpi
def test_several_laws_on_ranks(box, nodes):
    together, alone = two_laws(box), two_laws(box, MPI.COMM_SELF)
    for solver in (together, alone):
        solver.run(1e-6).finish()
    for a, b in zip(nodes(together), nodes(alone), strict=True):
        assert np.abs(a - b).max() < 1e-10 * np.abs(b).max()


def test_a_body_of_two_densities_falls_as_one(box):
    heavy = NeoHookean(ELASTIC.shear_modulus, ELASTIC.bulk_modulus, density=3.0 * ELASTIC.density)
    solver = ExplicitSolver(halves(box(SIZE, (2, 2, 4)), 1e-3), {"lower": heavy, "upper": ELASTIC})
    assert solver.mass.sum() == pytest.approx(2.0 * ELASTIC.density * np.prod(SIZE), rel=1e-12)
    solver.external += solver.density * ufl.inner(ufl.as_vector((0.0, 0.0, -1e7)), solver.test_function) * ufl.dx
    solver.run(1e-6).finish()
    np.testing.assert_allclose(solver.u.x.array.reshape(-1, 3)[:, 2], -0.5 * 1e7 * solver.time**2, rtol=1e-9)


def test_the_implicit_solver_takes_several_laws(box):
    """Two layers in series under tension: equal stress, strains as the compliances (Poisson's ratio 0)."""
    soft, hard = (NeoHookean(E / 2.0, E / 3.0, density=1e4) for E in (50e9, 200e9))
    solver = ImplicitSolver(halves(box(SIZE, (1, 1, 4)), 1e-3), {"lower": soft, "upper": hard})
    solver.prescribe("foot")
    solver.prescribe("side_x", 0)
    solver.prescribe("side_y", 1)
    solver.prescribe("top", 2, lambda x, t: 1e-7 * t)
    solver.run(until=1.0).finish()
    strain = solver.points.F[:, 2, 2] - 1.0
    lower, upper = strain[: len(strain) // 2].mean(), strain[len(strain) // 2 :].mean()
    assert max(lower, upper) / min(lower, upper) == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize(
    ("laws", "sentence"),
    [
        ({"lower": J2}, "Every cell needs a law, got none for 27 cells"),
        ({"lower": J2, "upper": J2, "body": J2}, "A cell must have one law"),
        ({"lower": J2, "wing": J2}, 'no group of cells "wing"'),
        ({}, "Every cell needs a law|at least one law"),
        ({"lower": J2, "upper": "no-such-law"}, "There is no law"),
        ({"lower": J2, "upper": load_law("magnesium-linear-elastic")}, "must be of one kind"),
    ],
)
@pytest.mark.mpi
def test_laws_that_do_not_cover_the_body_are_refused(box, laws, sentence):
    domain = halves(box(SIZE, (3, 3, 6)), 1e-3)
    domain.names["body"] = (3, 2)
    with pytest.raises(ValueError, match=sentence):
        ExplicitSolver(domain, laws)
