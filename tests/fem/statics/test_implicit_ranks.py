"""The number of ranks does not matter, nor a stop on the way, nor where a probe lies."""

import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws import load_law
from fem.laws.j2 import J2

pytestmark = pytest.mark.mpi
POINTS = np.random.default_rng(4).uniform(0.0, 1.0, (40, 3))


def plastic(cells, comm, linear="direct", cell="tetrahedron", n=3, **options):
    """Compression and shear of a plastic cube on springs, under a body force."""
    domain = cells(cell, n, distort=0.15, comm=comm)
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)

    top = [Dirichlet("top", None, lambda x, t: t * np.array([0.03, 0.0, -0.06]))]
    law = J2(0.01, 0.05, shear_modulus=1.0, bulk_modulus=3.0, density=1.0)
    solver = ImplicitSolver(domain, law, prescribed=top, linear=linear, **options)
    u, v, t = solver.u, solver.test_function, solver.time_constant
    solver.external += 0.01 * t * v[1] * ufl.dx - ufl.inner(u, v) * ds(domain.tag("foot"))
    return solver


def numbers(solver):
    """What a run ends in, the same on all ranks."""
    values = [solver.probe(POINTS).ravel(), solver.reaction("top"), [solver.stored_energy(), solver.dissipation()]]
    return np.concatenate(values)


@pytest.mark.parametrize(("linear", "cell", "n"), [("direct", "hexahedron", 2), ("iterative", "tetrahedron", 4)])
def test_ranks(cells, linear, cell, n):
    results = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        solver = plastic(cells, comm, linear, cell, n)
        solver.run(step=0.25).finish()
        results.append(numbers(solver))
    assert solver.dissipation() > 0.0
    np.testing.assert_allclose(results[0], results[1], rtol=1e-8, atol=1e-10)


def test_more_ranks_than_cells(cells):
    solver = ImplicitSolver(
        cells("quadrilateral", 1), load_law("magnesium-linear-elastic", dimension=2),
        prescribed=[*(Dirichlet("foot", i) for i in range(2)), Dirichlet("top", 1, lambda x, t: 0.1 * t)],
    )
    solver.run().finish()
    np.testing.assert_allclose(solver.probe([[0.5, 1.0]])[0, 1], 0.1)


@pytest.mark.parametrize(("linear", "degree"), [("direct", 1), ("iterative", 1), ("direct", 2)])
def test_a_restart_goes_on_where_the_run_was(cells, tmp_path, linear, degree):
    """To rounding, on the same ranks and on one alone; bit for bit in serial (a parallel MUMPS is not deterministic).

    Multigrid takes random numbers that depend on what ran before: there it is to Newton's tolerance.
    """
    tolerance = {"direct": 1e-12, "iterative": 1e-9}[linear]
    path = MPI.COMM_WORLD.bcast(tmp_path, root=0) / "half.h5"
    whole = plastic(cells, MPI.COMM_WORLD, linear, n=2, degree=degree)
    whole.run(0.5, step=0.125).finish()
    whole.save(path)
    whole.run(1.0, step=0.125).finish()
    expected = numbers(whole)
    same = plastic(cells, MPI.COMM_WORLD, linear, n=2, degree=degree)
    same.restore(path)
    assert same.time == 0.5
    same.run(1.0, step=0.125).finish()
    np.testing.assert_allclose(numbers(same), expected, rtol=tolerance, atol=tolerance)
    if linear == "direct" and whole.comm.size == 1:
        np.testing.assert_array_equal(numbers(same), expected)
    alone = plastic(cells, MPI.COMM_SELF, linear, n=2, degree=degree)
    alone.restore(path)
    alone.run(1.0, step=0.125).finish()
    np.testing.assert_allclose(numbers(alone), expected, rtol=tolerance, atol=tolerance)
    MPI.COMM_WORLD.barrier()


def test_a_checkpoint_of_another_solver_is_refused(cells, tmp_path):
    path = MPI.COMM_WORLD.bcast(tmp_path, root=0) / "a.h5"
    plastic(cells, MPI.COMM_WORLD, n=2).save(path)
    with pytest.raises(ValueError, match="does not fit this mesh"):
        plastic(cells, MPI.COMM_WORLD, n=3).restore(path)
    with pytest.raises(ValueError, match="does not fit this mesh"):
        plastic(cells, MPI.COMM_WORLD, n=2, degree=2).restore(path)
    with pytest.raises(ValueError, match='with the law "j2"'):
        ImplicitSolver(cells("tetrahedron", 2), load_law("magnesium-linear-elastic")).restore(path)
    with pytest.raises(FileNotFoundError):
        plastic(cells, MPI.COMM_WORLD, n=2).restore(path.with_name("absent.h5"))
    MPI.COMM_WORLD.barrier()


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
def test_a_probe_reads_the_field(cells, cell):
    """A quadratic field is in the space: any point must read it, those on the border of cells and of the body too."""
    domain = cells(cell, 3, distort=0.2)
    d = domain.mesh.geometry.dim
    solver = ImplicitSolver(domain, load_law("magnesium-linear-elastic", dimension=d), degree=2)

    def field(x):
        return np.stack([x[0] * x[1] + (i + 1) * x[d - 1] ** 2 - x[0] for i in range(d)])

    def exact(points):
        return field(points.T).T

    solver.u.interpolate(field)
    corners = np.stack(np.meshgrid(*(np.linspace(0.0, 1.0, 4),) * d), axis=-1).reshape(-1, d)
    points = np.concatenate([POINTS[:, :d], corners])
    if cell in ("triangle", "tetrahedron"):
        np.testing.assert_allclose(solver.probe(points), exact(points), atol=1e-12)
    else:  # in cells that are no parallelepipeds the field is in the space at the nodes only
        nodes = np.concatenate(domain.comm.allgather(solver.points.V.tabulate_dof_coordinates()[:, :d]))
        np.testing.assert_allclose(solver.probe(nodes), exact(nodes), atol=1e-12)
        assert np.abs(solver.probe(points) - exact(points)).max() < 0.02
    assert solver.probe(np.zeros((0, d))).shape == (0, d)
    with pytest.raises(ValueError, match="is not in the mesh"):
        solver.probe(np.vstack([points, np.full(d, 1.001)]))
    with pytest.raises(ValueError, match="points must have shape"):
        solver.probe(np.zeros((2, 5)))
