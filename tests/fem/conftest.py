"""Shared pieces of the tests of fem: boxes, random rotations."""

from collections.abc import Callable
from types import SimpleNamespace

import dolfinx.mesh
import numpy as np
import pytest
from mpi4py import MPI

from fem.discretisation.dirichlet import Dirichlet
from fem.io.checkpoint import node_numbers
from fem.mesh import Domain, domain_from_mesh
from fem.parallel import plan_threads
from fem.truss.solver import TrussSolver
from micro.lattice.bars import KinematicBar
from micro.lattice.geometry import make_cell
from micro.lattice.tiling import tile


def _box(size, cells, *, distort=0.0, comm=MPI.COMM_WORLD, seed=0) -> Domain:
    """Box of hexahedra with the groups foot, top, side_x, side_y (both ends each) and side.

    Inner nodes are moved by up to `distort` cells, by a rule of their position: the same on any number of ranks.
    """
    mesh = dolfinx.mesh.create_box(comm, [np.zeros(3), np.array(size)], list(cells), dolfinx.mesh.CellType.hexahedron)
    x = mesh.geometry.x
    h = np.array(size) / np.array(cells)
    inner = np.all((x > 0.25 * h) & (x < np.array(size) - 0.25 * h), axis=1)
    k = np.round(x / h)
    phase = np.stack([np.sin(12.9 * k @ [1.0, 3.7, 5.1] + 78.2 * (i + 1) + seed) for i in range(3)], axis=1)
    x[inner] += distort * h * phase[inner]
    ends = {
        "foot": lambda p: np.isclose(p[2], 0.0),
        "top": lambda p: np.isclose(p[2], size[2]),
        "side_x": lambda p: np.isclose(p[0], 0.0) | np.isclose(p[0], size[0]),
        "side_y": lambda p: np.isclose(p[1], 0.0) | np.isclose(p[1], size[1]),
    }
    return domain_from_mesh(mesh, ends)


def _cells(cell, n, *, distort=0.0, comm=MPI.COMM_WORLD) -> Domain:
    """Unit square or cube of n cells of a kind along each edge, with the groups foot and top (last axis).

    Inner nodes are moved by up to `distort` of a cell, by a rule of their position: the same on any number of ranks.
    """
    kind = dolfinx.mesh.CellType[cell]
    if cell in ("triangle", "quadrilateral"):
        mesh = dolfinx.mesh.create_unit_square(comm, n, n, kind)
    else:
        mesh = dolfinx.mesh.create_unit_cube(comm, n, n, n, kind)
    d = mesh.geometry.dim
    x = mesh.geometry.x[:, :d]
    inner = np.all((x > 0.25 / n) & (x < 1.0 - 0.25 / n), axis=1)
    k = np.round(x * n)
    phase = np.stack([np.sin(12.9 * k @ [1.0, 3.7, 5.1][:d] + 78.2 * (i + 1)) for i in range(d)], axis=1)
    mesh.geometry.x[inner, :d] += distort / n * phase[inner]
    ends = {"foot": lambda p: np.isclose(p[d - 1], 0.0), "top": lambda p: np.isclose(p[d - 1], 1.0)}
    return domain_from_mesh(mesh, ends)


@pytest.fixture
def cells() -> Callable[..., Domain]:
    return _cells


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Threads of several ranks on few cores would only wait for each other."""
    plan_threads(MPI.COMM_WORLD, 1)


@pytest.fixture
def box() -> Callable[..., Domain]:
    return _box


def _nodes(solver) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference positions, displacements and velocities of all nodes, on all ranks, in the order of the input mesh."""
    n, comm = solver.n_nodes, solver.comm
    x = solver.points.V.tabulate_dof_coordinates()[:n]
    fields = [x] + [f.x.array.reshape(-1, 3)[:n] for f in (solver.u, solver.velocity)]
    parts = comm.allgather((node_numbers(solver.points.V)[:n], *fields))
    order = np.argsort(np.concatenate([part[0] for part in parts]))
    return tuple(np.concatenate([part[k] for part in parts])[order] for k in (1, 2, 3))


@pytest.fixture
def nodes() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return _nodes


@pytest.fixture
def rotations() -> Callable[[int], np.ndarray]:
    def make(n: int, seed: int = 3) -> np.ndarray:
        Q, R = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, 3, 3)))
        Q = Q * np.sign(np.einsum("nii->ni", R))[:, None, :]
        Q[np.linalg.det(Q) < 0.0, :, 0] *= -1.0
        return Q

    return make


def _lattice(n, cell="cube-1", perturbation=0.0):
    c = make_cell(cell, perturbation=perturbation, seed=3)
    return tile(c, (n,) * c.dimension, 10.0 / n)


def _faces(truss):
    """Nodes at the bottom and at the top."""
    height = truss.reference[:, -1]
    return np.flatnonzero(height < 1e-9), np.flatnonzero(height > 10.0 - 1e-9)


def _uniaxial(truss, value):
    """lcU: bottom and top prescribed along the last axis, sides free, three components pinned."""
    bottom, top = _faces(truss)
    d = truss.nodes.shape[1]
    at = lambda *p: np.flatnonzero(np.abs(truss.reference - np.array(p)).max(axis=1) < 1e-9)
    pins = [(at(*[0.0] * d), c, 0.0) for c in range(d - 1)]
    pins += [(at(10.0, 0.0, 0.0), 1, 0.0)] if d == 3 else []
    ends = [Dirichlet(bottom, d - 1), Dirichlet(top, d - 1, lambda x, t: value * t)]
    return [*ends, *(Dirichlet(*pin) for pin in pins)]


def _clamped(truss, value):
    """lcC: bottom fixed, top prescribed along the last axis."""
    bottom, top = _faces(truss)
    d = truss.nodes.shape[1]
    return [Dirichlet(bottom), Dirichlet(top, d - 1, lambda x, t: value * t)]


def _torsion(truss, degrees):
    """lcT: bottom fixed, top turned about the vertical axis through the centre, `degrees(t)`."""
    bottom, top = _faces(truss)

    def turn(row):
        def value(x, t):
            a = np.radians(degrees(t))
            R = np.array([[np.cos(a) - 1.0, -np.sin(a)], [np.sin(a), np.cos(a) - 1.0]])
            return R[row] @ (x[:2] - 5.0)

        return value

    return [Dirichlet(bottom), Dirichlet(top, 0, turn(0)), Dirichlet(top, 1, turn(1))]


def _make(truss, conditions, law=None, **options):
    return TrussSolver(truss.nodes, truss.bars, truss.area, law or KinematicBar(), prescribed=conditions, **options)


def _everywhere(comm, value):
    """What rank 0 has, on all ranks."""
    return comm.bcast(value, root=0)


@pytest.fixture
def trusses() -> SimpleNamespace:
    """Lattices of edge 10, the paper's loads on them, and their solver."""
    parts = (_lattice, _faces, _uniaxial, _clamped, _torsion, _make, _everywhere)
    return SimpleNamespace(**{part.__name__[1:]: part for part in parts})
