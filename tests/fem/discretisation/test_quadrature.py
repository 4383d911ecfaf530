"""Points and residual: mean gradients, patch tests, hourglass control, mass."""

import dolfinx.fem
import dolfinx.mesh
import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem import compat
from fem.discretisation.quadrature import MeanGradientPoints, QuadraturePoints, cell_average
from fem.explicit import ExplicitSolver
from fem.laws import load_law

NEO_HOOKEAN = load_law("magnesium-neo-hookean")

H = np.array([[0.05, 0.02, -0.03], [0.01, -0.04, 0.06], [-0.02, 0.03, 0.02]])  # an asymmetric displacement gradient
both = pytest.mark.parametrize("integration", ["one-point", "full"])


def space(domain):
    return dolfinx.fem.functionspace(domain.mesh, ("Lagrange", 1, (3,)))


def random_field(V, seed=0):
    u = dolfinx.fem.Function(V)
    u.x.array[:] = np.random.default_rng(seed).normal(size=len(u.x.array))
    return u


def test_mean_gradient_is_the_volume_average_of_the_gradient(box):
    V = space(box((1.0, 2.0, 3.0), (2, 3, 4), distort=0.3))
    u = random_field(V)
    points = MeanGradientPoints(V)
    # Reference: form assembled cell by cell with many more quadrature points than needed.
    W = dolfinx.fem.functionspace(V.mesh, ("DG", 0, (3, 3)))
    q = ufl.TestFunction(W)
    dx = ufl.dx(metadata={"quadrature_degree": 9})
    mean = dolfinx.fem.assemble_vector(dolfinx.fem.form(ufl.inner(ufl.grad(u), q) * dx)).array.reshape(-1, 3, 3)
    volume = dolfinx.fem.assemble_vector(dolfinx.fem.form(q[0, 0] * dx)).array.reshape(-1, 9)[:, 0]
    F = points.gather(u)
    np.testing.assert_allclose(points.volume, volume[: points.n], rtol=1e-13)
    expected = np.eye(3) + mean[: points.n] / volume[: points.n, None, None]
    np.testing.assert_allclose(F, expected, atol=1e-12 * np.abs(expected).max())


def test_full_points_average_to_the_mean_gradient(box):
    V = space(box((1.0, 1.0, 1.0), (2, 2, 3), distort=0.3))
    u = random_field(V)
    one, full = MeanGradientPoints(V), QuadraturePoints(V)
    np.testing.assert_allclose(cell_average(full, full.gather(u)), one.gather(u), atol=1e-11)
    np.testing.assert_allclose(full.volume.reshape(-1, 8).sum(axis=1), one.volume, rtol=1e-13)


def test_full_points_are_where_ufl_has_them(box):
    """The stress handed to UFL must sit at the points where the strain was taken."""
    V = space(box((1.0, 1.0, 1.0), (2, 2, 2), distort=0.3))
    u, points = random_field(V), QuadraturePoints(V)
    points.P[:] = points.gather(u)
    F = ufl.Identity(3) + ufl.grad(u)
    form = dolfinx.fem.form(ufl.inner(points.stress - F, points.stress - F) * points.dx)
    assert dolfinx.fem.assemble_scalar(form) < 1e-20 * np.sum(points.P**2)


@both
def test_linear_displacement_is_seen_exactly(box, integration):
    V = space(box((1.0, 1.0, 1.0), (3, 3, 3), distort=0.3))
    u = dolfinx.fem.Function(V)
    u.interpolate(lambda x: H @ x)
    points = MeanGradientPoints(V) if integration == "one-point" else QuadraturePoints(V)
    np.testing.assert_allclose(points.gather(u), np.tile(np.eye(3) + H, (points.n, 1, 1)), atol=1e-13)


@both
def test_patch(box, integration):
    """A linear displacement of a distorted mesh: no force on inner nodes, and boundary forces balance."""
    domain = box((1.0, 1.0, 1.0), (3, 4, 3), distort=0.3)
    solver = ExplicitSolver(domain, NEO_HOOKEAN, initial_displacement=lambda x: H @ x, integration=integration)
    x = solver.points.V.tabulate_dof_coordinates()
    inner = np.all((x > 1e-9) & (x < 1.0 - 1e-9), axis=1)
    assert inner.sum() == 12
    force = solver.internal_force
    scale = np.abs(force[~inner]).max()
    assert np.abs(force[inner]).max() < 1e-12 * scale
    assert np.abs(force.sum(axis=0)).max() < 1e-12 * scale
    assert solver.energy_balance().hourglass_energy < 1e-20


def test_hourglass_term_resists_what_the_mean_gradient_does_not_see(box):
    domain = box((1.0, 1.0, 1.0), (1, 1, 1))
    mode = lambda x: 1e-3 * np.stack([(2 * x[0] - 1) * (2 * x[1] - 1), 0 * x[0], 0 * x[0]])
    solver = ExplicitSolver(domain, NEO_HOOKEAN, initial_displacement=mode, hourglass=0.2)
    np.testing.assert_allclose(solver.points.F, np.eye(3)[None], atol=1e-14)
    # |grad|^2 of the mode integrates to 1e-6 * 4 * (1/3 + 1/3).
    expected = 0.5 * 0.2 * 25e9 * 1e-6 * 8.0 / 3.0
    assert solver.energy_balance().hourglass_energy == pytest.approx(expected, rel=1e-12)
    # Its force is the derivative of its energy: quadratic, so work = 2 energy.
    u = solver.u.x.array.reshape(-1, 3)
    assert np.sum(u * solver.internal_force) == pytest.approx(2.0 * expected, rel=1e-12)
    free = ExplicitSolver(domain, NEO_HOOKEAN, initial_displacement=mode, hourglass=0.0)
    assert np.abs(free.internal_force).max() < 1e-12 * np.abs(solver.internal_force).max()


def test_hourglass_energy_does_not_see_rotations(box, rotations):
    Q = rotations(1)[0]
    field = lambda x: 0.05 * np.stack([x[0] * x[1], x[1] * x[2] * x[0], x[2] * x[0]])
    energies = []
    for turn in (np.eye(3), Q):
        solver = ExplicitSolver(
            box((1.0, 1.0, 1.0), (3, 3, 3), distort=0.3), NEO_HOOKEAN,
            initial_displacement=lambda x: turn @ (x + field(x)) - x,
        )
        energies.append(solver.energy_balance().hourglass_energy)
    assert energies[0] > 0.0
    assert energies[1] == pytest.approx(energies[0], rel=1e-11)


@both
def test_internal_force_is_the_derivative_of_the_stored_energy(box, integration):
    """Neo-Hookean: sum of stored energy and hourglass energy is a potential of the internal force."""
    domain, law = box((1.0, 1.0, 1.0), (2, 2, 2), distort=0.2), NEO_HOOKEAN
    base = lambda x: 0.1 * np.stack([np.sin(x[1]), x[2] * x[0], np.cos(x[0]) * x[2]])
    push = lambda x: np.stack([x[0] * x[1], np.sin(3 * x[2]), x[0] * x[2] ** 2])

    def energy(h):
        solver = ExplicitSolver(
            domain, law,
            initial_displacement=lambda x: base(x) + h * push(x), integration=integration,
        )
        stored = float(np.sum(law.stored_energy(solver.points.F, solver.state) * solver.points.volume))
        return stored + solver.forces.hourglass_energy(), solver

    h = 1e-5
    slope = (energy(h)[0] - energy(-h)[0]) / (2.0 * h)
    solver = energy(0.0)[1]
    direction = push(solver.points.V.tabulate_dof_coordinates().T).T
    assert np.sum(solver.internal_force * direction) == pytest.approx(slope, rel=1e-8)


def test_mass_is_volume_times_density(box):
    solver = ExplicitSolver(box((1.0, 2.0, 3.0), (3, 3, 3), distort=0.3), NEO_HOOKEAN, density=7.0)
    assert solver.mass.sum() == pytest.approx(42.0, rel=1e-13)
    assert solver.mass.min() > 0.0


def test_views_are_views(box):
    points = MeanGradientPoints(space(box((1.0, 1.0, 1.0), (2, 2, 2))))
    points.P[:] = np.arange(72.0).reshape(8, 3, 3)
    points.transfer()
    np.testing.assert_array_equal(points.stress.x.array[: 8 * 9], np.arange(72.0))
    assert points.F.base is not None
    assert np.shares_memory(points.F, points.mean.x.array)


def test_other_cells_are_refused():
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 1, 1, 1, dolfinx.mesh.CellType.prism)
    with pytest.raises(ValueError, match="must be of linear hexahedra or tetrahedra, got prism of degree 1"):
        MeanGradientPoints(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,))))


def test_version_differences_are_hidden():
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 1, 1, 1, dolfinx.mesh.CellType.hexahedron)
    V = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    assert compat.interpolation_points(V.element).shape == (8, 3)
    assert compat.version().startswith("0.")


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
def test_points_of_any_cell_and_degree(cells, cell, degree):
    """Volumes fill the body, gradients are exact, and stress and tangent sit where UFL integrates them."""
    domain = cells(cell, 2, distort=0.2)
    d = domain.mesh.geometry.dim
    V = dolfinx.fem.functionspace(domain.mesh, ("Lagrange", degree, (d,)))
    points = QuadraturePoints(V, tangent=True)
    n_expected = {"triangle": (1, 3), "tetrahedron": (1, 4)}.get(cell, (2**d, 3**d))[degree - 1]
    assert points.per_cell == n_expected
    assert domain.comm.allreduce(points.volume.sum()) == pytest.approx(1.0, rel=1e-13)
    u = dolfinx.fem.Function(V)
    u.interpolate(lambda x: H[:d, :d] @ x[:d])
    np.testing.assert_allclose(points.gather(u), np.broadcast_to(np.eye(d) + H[:d, :d], points.F.shape), atol=1e-13)
    random = np.random.default_rng(1)
    points.P[:], points.dP_dF[:] = random.normal(size=points.P.shape), random.normal(size=points.dP_dF.shape)
    contracted = points.stiffness[0, 1, 1, 0] * points.stress[1, 0]
    value = dolfinx.fem.assemble_scalar(dolfinx.fem.form(contracted * points.dx))
    assert value == pytest.approx(float(points.volume @ (points.dP_dF[:, 0, 1, 1, 0] * points.P[:, 1, 0])), rel=1e-10)


def test_spaces_that_do_not_fit_are_refused(cells):
    mesh = cells("triangle", 1).mesh
    with pytest.raises(ValueError, match="must have 2 components, got 3"):
        QuadraturePoints(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,))))
    with pytest.raises(ValueError, match='must be "one-point" for tetrahedra, got "full"'):
        ExplicitSolver(cells("tetrahedron", 1), NEO_HOOKEAN, integration="full")
