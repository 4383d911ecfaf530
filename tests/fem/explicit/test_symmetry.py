"""Planes of symmetry in any direction: parts of a body that move as the whole does."""

import basix.ufl
import dolfinx.mesh
import numpy as np
import pytest
from mpi4py import MPI
from scipy.spatial.transform import Rotation

from fem.errors import SolverError
from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law

ELASTIC, METAL = load_law("magnesium-neo-hookean"), load_law("magnesium-j2")
SIDE = 1e-3
TURN = Rotation.from_rotvec([0.4, -0.9, 1.3]).as_matrix()


def turned_quarter(turn, speed=-200.0):
    """A quarter of a block that hits a wall, both turned in space; planes of symmetry and a held corner."""
    ends = [np.zeros(3), np.full(3, SIDE)]
    mesh = dolfinx.mesh.create_box(MPI.COMM_WORLD, ends, (3, 3, 3), dolfinx.mesh.CellType.hexahedron)
    mesh.geometry.x[:] = mesh.geometry.x @ turn.T
    wall = RigidPlane((0.0, 0.0, 0.0), tuple(turn[:, 2]))
    solver = ExplicitSolver(mesh, METAL, contact=wall, initial_velocity=tuple(speed * turn[:, 2]))
    for axis in (0, 1):
        solver.symmetry(lambda x, n=turn[:, axis]: np.abs(n @ x) < 1e-9)
    return solver


def nodal(solver, turn, values):
    """Values of the owned nodes of all ranks, turned back, in the order of their positions there."""
    x = np.round(solver._x[: solver.n_nodes] @ turn / SIDE, 6) + 0.0
    rows = np.concatenate(solver.comm.allgather(np.hstack([x, values @ turn])))
    return rows[np.lexsort(rows[:, :3].T), 3:]


@pytest.mark.mpi
def test_a_turned_quarter_moves_as_the_quarter():
    """Two oblique planes with their corner against two planes along the axes; the planes take the same impulses."""
    turns, found = (np.eye(3), TURN), []
    for turn in turns:
        solver = turned_quarter(turn)
        solver.run(4e-7).finish()
        balance = solver.energy_balance()
        assert balance.momentum_error < 1e-12
        impulse = np.array(balance.reaction_impulse) @ turn
        found.append((nodal(solver, turn, solver._u), nodal(solver, turn, solver._v), impulse, balance, solver))
    (u, v, impulse, balance, _), (u_turned, v_turned, impulse_turned, balance_turned, solver) = found
    np.testing.assert_allclose(u_turned, u, rtol=0.0, atol=1e-9 * np.abs(u).max())
    np.testing.assert_allclose(v_turned, v, rtol=0.0, atol=1e-9 * np.abs(v).max())
    np.testing.assert_allclose(impulse_turned, impulse, rtol=0.0, atol=1e-9 * np.abs(impulse).max())
    assert np.abs(impulse[:2]).min() > 1e-3 * np.abs(balance.contact_impulse).max()
    assert balance_turned.reaction_work == pytest.approx(0.0, abs=1e-12 * balance.kinetic_energy)
    for axis in (0, 1):
        n = TURN[:, axis]
        held = np.abs(solver._x[: solver.n_nodes] @ n) < 1e-9
        assert np.abs(solver._u[held] @ n).max(initial=0.0) < 1e-15 * SIDE


def sectors(count, layers=2):
    """Hexahedra of the first of six sectors of 60 degrees of a hexagonal bar, or of all of them."""
    k = np.arange(3)
    at = np.array([np.zeros(2), [1.0, 0.0], [0.5, 0.75**0.5]])
    at = np.vstack([at, 0.5 * (at[k] + at[(k + 1) % 3]), at.mean(axis=0)])  # corners, middles of edges, centre
    quads = np.array([[0, 3, 5, 6], [1, 4, 3, 6], [2, 5, 4, 6]])  # vertices in the order of tensor products
    planar = []
    for n in range(count):
        c, s = np.cos(n * np.pi / 3), np.sin(n * np.pi / 3)
        planar.append((at @ np.array([[c, s], [-s, c]]))[quads])
    corners = np.concatenate(planar)  # (quads, 4, 2)
    heights = np.arange(layers + 1) / layers
    low = [np.concatenate([corners, np.full((*corners.shape[:2], 1), z)], axis=2) for z in heights]
    hexes = np.concatenate([np.concatenate([low[k], low[k + 1]], axis=1) for k in range(layers)])
    x, inverse = np.unique(np.round(hexes.reshape(-1, 3), 12) + 0.0, axis=0, return_inverse=True)
    cells = inverse.reshape(-1, 8).astype(np.int64)
    if MPI.COMM_WORLD.rank:
        cells, x = np.zeros((0, 8), dtype=np.int64), np.zeros((0, 3))
    element = basix.ufl.element("Lagrange", "hexahedron", 1, shape=(3,))
    return dolfinx.mesh.create_mesh(MPI.COMM_WORLD, cells, SIDE * x, element)


@pytest.mark.mpi
@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_a_sixth_of_a_bar_moves_as_the_bar(integration):
    """One plane of symmetry along the axes, one at 60 degrees, and their corner, the axis of a bar that hits a wall."""
    found = []
    for count in (6, 1):
        solver = ExplicitSolver(
            sectors(count), METAL, contact=RigidPlane(), initial_velocity=(0.0, 0.0, -200.0), integration=integration,
            safety=0.5,  # below what the highest frequency of either body allows: the same steps
        )  # fmt: skip
        if count == 1:
            solver.symmetry(lambda x: np.isclose(x[1], 0.0))
            solver.symmetry(lambda x: np.isclose(x[1], 3**0.5 * x[0], atol=1e-9))
        solver.run(3e-7).finish()
        x, u = solver._x[: solver.n_nodes], solver._u
        inside = (x[:, 1] > -1e-9) & (x[:, 1] < 3**0.5 * x[:, 0] + 1e-9)
        rows = np.concatenate(solver.comm.allgather(np.hstack([np.round(x / SIDE, 6) + 0.0, u])[inside]))
        found.append(rows[np.lexsort(rows[:, :3].T)])
        assert solver.comm.allreduce(float(METAL.observe(solver.state).max(initial=0.0)), op=MPI.MAX) > 0.01
    assert found[0].shape == found[1].shape == (21, 6)
    np.testing.assert_allclose(found[1], found[0], rtol=0.0, atol=1e-9 * np.abs(found[0][:, 3:]).max())


@pytest.mark.mpi
def test_planes_meet_prescribed_components(box):
    """An oblique plane turns a prescribed motion along an axis into one in the plane; the third plane is no new one."""
    solver = ExplicitSolver(box((SIDE, SIDE, SIDE), (2, 2, 2)), ELASTIC, safety=0.1)
    diagonal = lambda x: np.isclose(x[0], x[1])
    corner = lambda x: np.isclose(x[0], 0.0) & np.isclose(x[1], 0.0)
    solver.symmetry(diagonal)
    solver.symmetry(lambda x: diagonal(x) & (x[2] < 0.6 * SIDE))  # a part of it: the same plane again
    solver.prescribe(corner, 0, lambda x, t: 5e7 * t**2)
    solver.run(2e-7).finish()
    held, driven = diagonal(solver._x[: solver.n_nodes].T), corner(solver._x[: solver.n_nodes].T)
    np.testing.assert_allclose(solver._u[held, 0], solver._u[held, 1], rtol=0.0, atol=1e-15 * SIDE)
    np.testing.assert_allclose(solver._u[driven, :2], 5e7 * solver.time**2, rtol=1e-9)
    balance = solver.energy_balance()
    assert balance.momentum_error < 1e-12
    assert balance.energy_error < 0.02  # of first order in the step: driven nodes keep the velocity of the half step
    assert balance.reaction_work > 0.0
    solver.prescribe(corner, 1, lambda x, t: 2e-6 + 2.0 * (t - 2e-7))
    with pytest.raises(SolverError, match="leads out of a plane of symmetry"):
        solver.run(3e-7).finish()
