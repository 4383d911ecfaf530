"""Planes of symmetry, pressure on the deformed surface, and prescribed velocities, against closed forms."""

import dolfinx.mesh
import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem import Dirichlet, ImplicitSolver, SolverError
from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law
from fem.mesh import domain_from_mesh

ELASTIC, METAL = load_law("magnesium-neo-hookean"), load_law("magnesium-j2")
SPEED = np.sqrt((ELASTIC.bulk_modulus + 4.0 / 3.0 * ELASTIC.shear_modulus) / ELASTIC.density)  # laterally confined
LENGTH, SIDE = 5e-3, 1e-3


def column(box, cells=80, **options):
    """A column in a rigid sleeve."""
    options = {"viscosity": (0.0, 0.0), **options}
    solver = ExplicitSolver(box((SIDE, SIDE, LENGTH), (1, 1, cells)), ELASTIC, **options)
    for component, sides in enumerate(("side_x", "side_y")):
        solver.prescribe(sides, component)
    return solver


@pytest.mark.mpi
def test_a_sudden_pressure_on_a_confined_column(box):
    """Behind the front sigma = -p and v = p/(rho c); momentum p A t exactly, work p A times the way of the end."""
    p = 1e6
    solver = column(box)
    solver.external += solver.pressure("top", p)
    solver.run(0.6 * LENGTH / SPEED).finish()
    balance, comm = solver.energy_balance(), solver.comm
    assert balance.momentum[2] == pytest.approx(-p * SIDE**2 * solver.time, rel=1e-12)
    assert balance.external_impulse[2] == pytest.approx(balance.momentum[2], rel=1e-12)
    z = solver._x[: solver.n_nodes, 2]
    v = solver.velocity.x.array.reshape(-1, 3)[: solver.n_nodes, 2]
    behind = z > 0.6 * LENGTH
    mean = comm.allreduce(float(v[behind].sum())) / comm.allreduce(int(behind.sum()))
    assert mean == pytest.approx(-p / (ELASTIC.density * SPEED), rel=1e-2)
    assert balance.external_work == pytest.approx(p**2 * SIDE**2 * solver.time / (ELASTIC.density * SPEED), rel=2e-2)
    assert balance.energy_error < 1e-2


def test_pressure_follows_the_surface_and_its_area(box, rotations):
    """On a stretched and turned body: p times the deformed area along the deformed normal."""
    U, p = np.diag([1.2, 0.9, 1.1]), 1e7
    Q = rotations(1)[0]
    solver = ExplicitSolver(
        box((1.0, 1.0, 1.0), (2, 2, 2)), ELASTIC, initial_displacement=lambda x: (Q @ U - np.eye(3)) @ x
    )
    solver.external += solver.pressure("top", p)
    force = solver.external_force.sum(axis=0)
    np.testing.assert_allclose(force, -p * 1.2 * 0.9 * Q[:, 2], rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("cell", ["hexahedron", "tetrahedron"])
def test_pressure_all_around_has_neither_force_nor_moment(cells, cell):
    bend = lambda x: 0.1 * np.stack([np.sin(3.0 * x[1] * x[2]), x[0] * x[2], np.cos(2.0 * x[0])])
    solver = ExplicitSolver(cells(cell, 3, distort=0.1), ELASTIC, initial_displacement=bend)
    solver.external += solver.pressure(None, 1e7)
    force = solver.external_force
    assert np.abs(force.sum(axis=0)).max() < 1e-12 * np.abs(force).sum()
    assert np.abs(np.cross(solver.x, force).sum(axis=0)).max() < 1e-12 * np.abs(force).sum()


@pytest.mark.mpi
def test_a_pressure_in_time_on_two_tagged_faces(box):
    """Equal pressures on both ends: no momentum; impulse as the integral over time on one of them."""
    mesh = box((SIDE, SIDE, LENGTH), (1, 1, 8)).mesh
    ends = [dolfinx.mesh.locate_entities_boundary(mesh, 2, lambda x, z=z: np.isclose(x[2], z)) for z in (0.0, LENGTH)]
    facets = np.sort(np.concatenate(ends)).astype(np.int32)
    tags = dolfinx.mesh.meshtags(mesh, 2, facets, np.where(np.isin(facets, ends[0]), 7, 9).astype(np.int32))
    solver = ExplicitSolver(mesh, ELASTIC)
    pulse = 1e8 * solver.time_constant / 1e-6
    solver.external += solver.pressure((tags, 7), pulse) + solver.pressure((tags, 9), pulse)
    solver.run(1e-6).finish()
    assert solver.energy_balance().external_work > 0.0
    assert np.abs(solver.energy_balance().momentum).max() < 1e-12 * 1e8 * SIDE**2 * 1e-6


def test_the_implicit_solver_takes_a_pressure(box):
    """A block in a sleeve under pressure: K (J - 1) and the deviator in closed form."""
    p = 1e9
    solver = ImplicitSolver(box((1.0, 1.0, 1.0), (2, 2, 2)), ELASTIC)
    for component, place in enumerate(("side_x", "side_y", "foot")):
        solver.prescribe(place, component)
    solver.external += solver.pressure("top", p * solver.time_constant)
    solver.run(until=1.0, step=0.5).finish()
    F = solver.points.F
    P, _ = ELASTIC.update(F, np.zeros((len(F), 0)), 1.0)
    np.testing.assert_allclose(P[:, 2, 2], -p, rtol=1e-8)  # the area of the sleeve does not change


@pytest.mark.mpi
def test_a_quarter_with_planes_of_symmetry_is_the_whole(box):
    """Impact of a plastic block: the quarter moves as the whole does."""

    def run(cells, low):
        mesh = dolfinx.mesh.create_box(
            MPI.COMM_WORLD, [np.array([low, low, 0.0]), np.array([SIDE, SIDE, SIDE])], cells,
            dolfinx.mesh.CellType.hexahedron,
        )  # fmt: skip
        faces = {"x": lambda x: np.isclose(x[0], 0.0), "y": lambda x: np.isclose(x[1], 0.0)} if low == 0.0 else {}
        domain = domain_from_mesh(mesh, faces)
        solver = ExplicitSolver(domain, METAL, contact=[RigidPlane()], initial_velocity=(0.0, 0.0, -200.0))
        for name in faces:
            solver.symmetry(name)
        solver.run(5e-7).finish()
        return solver

    whole, quarter = run((4, 4, 3), -SIDE), run((2, 2, 3), 0.0)
    found = []
    for solver in (whole, quarter):
        x = solver.points.V.tabulate_dof_coordinates()[: solver.n_nodes]
        part = (x[:, :2] > -1e-9).all(axis=1)
        u = solver.u.x.array.reshape(-1, 3)[: solver.n_nodes]
        rows = np.concatenate(MPI.COMM_WORLD.allgather(np.hstack([np.round(x[part] / SIDE, 6) + 0.0, u[part]])))
        found.append(rows[np.lexsort(rows[:, :3].T)])
    assert found[1].shape == (36, 6)
    assert quarter.state.size == 0 or METAL.observe(quarter.state).max() > 0.01
    np.testing.assert_allclose(found[1][:, :3], found[0][:, :3], atol=1e-9)
    np.testing.assert_allclose(found[1][:, 3:], found[0][:, 3:], atol=1e-9 * np.abs(found[0][:, 3:]).max())


def test_a_plane_that_is_none_is_refused(box):
    solver = ExplicitSolver(box((1.0, 1.0, 1.0), (2, 2, 2)), ELASTIC)
    with pytest.raises(ValueError, match="must be flat, but a node of the group .side_x. lies 0.[0-9]* m beside"):
        solver.symmetry("side_x")
    with pytest.raises(ValueError, match="needs nodes that span a plane"):
        solver.symmetry(lambda x: np.isclose(x[0], 0.0) & np.isclose(x[1], 0.0))
    with pytest.raises(ValueError, match="There is no node"):
        solver.symmetry(lambda x: x[0] > 2.0)
    with pytest.raises(ValueError, match="no surface group|no group"):
        solver.pressure("wing", 1.0)
    with pytest.raises(ValueError, match="A pressure acts on a group"):
        solver.pressure(lambda x: x[0] > 0.0, 1.0)


@pytest.mark.mpi
@pytest.mark.parametrize("how", ["number", "function", "displacement"])
def test_a_driven_face_does_the_work_of_a_piston(box, how):
    """Stress rho c V behind the front; the three ways to prescribe the same motion agree."""
    V = 10.0
    solver = column(box, 40)
    if how == "displacement":
        solver.prescribe("foot", 2, lambda x, t: V * t)
    else:
        solver.prescribe("foot", 2, velocity=V if how == "number" else lambda x, t: V + 0.0 * x[2])
    solver.run(0.8 * LENGTH / SPEED).finish()
    balance = solver.energy_balance()
    expected = ELASTIC.density * SPEED * V**2 * SIDE**2 * solver.time
    assert balance.reaction_work == pytest.approx(expected, rel=3e-2)
    foot = solver.prescribed.nodes.find("foot")
    np.testing.assert_allclose(solver.u.x.array.reshape(-1, 3)[foot, 2], V * solver.time, rtol=1e-10)


def test_a_prescribed_velocity_is_that_of_the_middle_of_the_step(box):
    """So that a velocity linear in time gives its displacement exactly, whatever the steps are."""
    a = 1e9
    solver = ExplicitSolver(box((SIDE, SIDE, SIDE), (2, 2, 2)), ELASTIC)
    solver.prescribe(None, velocity=lambda x, t: np.array([a * t, 0.0, -2.0 * a * t]))
    solver.run(1e-6).finish()
    u = solver.u.x.array.reshape(-1, 3)
    np.testing.assert_allclose(u, np.tile([0.5 * a * 1e-12, 0.0, -a * 1e-12], (len(u), 1)), rtol=1e-9, atol=1e-20)


def test_a_velocity_cannot_meet_a_displacement(box):
    domain = box((SIDE, SIDE, SIDE), (2, 2, 2))
    solver = ExplicitSolver(domain, ELASTIC)
    solver.prescribe("foot", 2)
    with pytest.raises(ValueError, match="Displacement and velocity of one component are prescribed"):
        solver.prescribe("foot", 2, velocity=1.0)
    solver.step()  # the first condition stays
    with pytest.raises(ValueError, match="A velocity can be prescribed in explicit dynamics only"):
        ImplicitSolver(domain, ELASTIC, prescribed=[Dirichlet("foot", 2, 1.0, velocity=True)])


@pytest.mark.mpi
def test_a_function_that_fails_in_a_run_stops_all_ranks(box):
    """With the reduction of the step; the solver is back at its start."""
    solver = ExplicitSolver(box((SIDE, SIDE, SIDE), (2, 2, 2)), ELASTIC)
    solver.prescribe("foot", 2, lambda x, t: np.nan if t > 2e-7 else 0.0)
    with pytest.raises(SolverError, match="cannot follow what is prescribed.*not finite"):
        solver.run(1e-6).finish()
    assert 0.0 < solver.time <= 2e-7
    assert np.isfinite(solver.u.x.array).all()


def test_gravity_of_a_pressurised_column_is_in_balance(box):
    """Pressure p on the foot carries a column of weight p A: at rest but for waves, the momentum stays near zero."""
    g = 1e6
    p = ELASTIC.density * g * LENGTH
    solver = column(box, 10)
    solver.external += solver.pressure("foot", p)
    solver.external += solver.density * ufl.inner(ufl.as_vector((0.0, 0.0, -g)), solver.test_function) * ufl.dx
    solver.run(LENGTH / SPEED).finish()
    assert abs(solver.energy_balance().momentum[2]) < 1e-12 * p * SIDE**2 * solver.time
