"""The implicit solver: patch tests, Newton's order, loads that users write, reactions, energies."""

import dolfinx.fem
import dolfinx.mesh
import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem import laws
from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.j2 import J2
from fem.laws.linear_elastic import LinearElastic
from fem.laws.neo_hookean import NeoHookean
from fem.laws.plane_strain import PlaneStrain
from fem.mesh import domain_from_mesh

H = np.array([[0.05, 0.02, -0.03], [0.01, -0.04, 0.06], [-0.02, 0.03, 0.02]])  # an asymmetric displacement gradient
G, K = 1.0, 3.0


def neo_hookean(dimension=3):
    law = NeoHookean(G, K, density=1.0)
    return law if dimension == 3 else PlaneStrain(law)


def linear(dimension=3):
    return LinearElastic(G, K, dimension=dimension, density=1.0)


def affine(d, A=H):
    """The displacement A x t on the whole boundary; one condition for each component."""
    def boundary(x):
        return np.any(np.isclose(x[:d], 0.0) | np.isclose(x[:d], 1.0), axis=0)

    return [Dirichlet(boundary, i, lambda x, t, i=i: t * (A[i, :d] @ x[:d])) for i in range(d)]


def clamped(d=3, top=-0.1):
    """Foot fixed, top pressed down, both without sliding."""
    ends = [Dirichlet("foot", i) for i in range(d)] + [Dirichlet("top", i) for i in range(d - 1)]
    return [*ends, Dirichlet("top", d - 1, lambda x, t: top * t)]


def order(residuals):
    """Observed order of the last three residuals above rounding."""
    r = [r for r in residuals if r > 1e-12 * max(residuals)][-3:]
    return np.log(r[2] / r[1]) / np.log(r[1] / r[0])


@pytest.mark.parametrize("make", [linear, neo_hookean], ids=["small", "finite"])
@pytest.mark.parametrize(
    ("cell", "degree"),
    [("triangle", 1), ("quadrilateral", 1), ("tetrahedron", 1), ("hexahedron", 1), ("triangle", 2), ("tetrahedron", 2)],
)
def test_patch(cells, cell, degree, make):
    """A linear displacement of the boundary of a distorted mesh is the exact solution inside."""
    domain = cells(cell, 3, distort=0.2)
    d = domain.mesh.geometry.dim
    law = make(d)
    solver = ImplicitSolver(domain, law, prescribed=affine(d), degree=degree)
    steps = list(solver.run())
    V = solver.points.V
    x = V.tabulate_dof_coordinates()[:, :d]
    np.testing.assert_allclose(solver.u.x.array.reshape(-1, d), x @ H[:d, :d].T, atol=1e-10)
    F = np.eye(d) + H[:d, :d]
    P, _ = law.update(F[None], law.initial_state(1), 1.0)
    np.testing.assert_allclose(solver.points.P, np.broadcast_to(P, solver.points.P.shape), atol=1e-9)
    energy = law.stored_energy(F[None], law.initial_state(1))[0]
    assert solver.stored_energy() == pytest.approx(energy, rel=1e-9)  # the unit cube
    if law.strain == "small":
        assert [step.convergence.iterations for step in steps] == [1]


@pytest.mark.parametrize("solve", ["direct", "iterative"])
def test_a_linear_law_takes_one_iteration_a_step(cells, solve):
    solver = ImplicitSolver(cells("tetrahedron", 4), linear(), prescribed=clamped(), linear=solve)
    steps = list(solver.run(step=0.25))
    assert [step.convergence.iterations for step in steps] == [1, 1, 1, 1]
    assert solver.newton.linear.kind == solve and solver.newton.linear.symmetric
    # One call for the virgin stiffness, one an iteration.
    assert solver.points_evaluated == 5 * solver.comm.allreduce(solver.points.n)
    assert solver.last.iterations == 1 and len(solver.history) == 4


def test_newton_is_quadratic_at_finite_strain(cells):
    solver = ImplicitSolver(cells("hexahedron", 4), neo_hookean(), prescribed=clamped(top=-0.3))
    (step,) = solver.run(step=1.0)
    assert step.convergence.iterations <= 6
    assert order(step.convergence.residuals[:-1]) > 1.8


def test_newton_is_quadratic_in_plastic_steps(cells):
    """J2 under a load that turns: the consistent tangent keeps the order, and the energy balance closes."""
    law = J2(0.01, 0.05, shear_modulus=G, bulk_modulus=K, density=1.0)
    top = [Dirichlet("top", 2, lambda x, t: -0.06 * min(t, 2.0 - t)), Dirichlet("top", 0, lambda x, t: 0.02 * t)]
    conditions = [*(Dirichlet("foot", i) for i in range(3)), Dirichlet("top", 1), *top]
    solver = ImplicitSolver(cells("hexahedron", 3), law, prescribed=conditions)
    work, force, t_n, steps = 0.0, np.zeros(3), 0.0, []
    for step in solver.run(2.0, step=0.1):
        force_n, force, t = force, solver.reaction("top"), solver.time
        du = np.array([0.02 * (t - t_n), 0.0, -0.06 * (min(t, 2.0 - t) - min(t_n, 2.0 - t_n))])
        work, t_n = work + 0.5 * (force + force_n) @ du, t
        steps.append(step)
    plastic = [step for step in steps if step.convergence.iterations >= 3]
    assert len(plastic) > 8 and max(step.convergence.iterations for step in steps) <= 6
    assert np.median([order(step.convergence.residuals) for step in plastic]) > 1.7
    assert solver.law.observe(solver.state).max() > 0.02
    assert work == pytest.approx(solver.stored_energy() + solver.dissipation(), rel=0.02)


def test_reactions_balance_a_body_force(cells):
    b = np.array([0.01, -0.02, 0.03])

    solver = ImplicitSolver(cells("tetrahedron", 3), neo_hookean())
    solver.prescribe("foot")
    solver.external += ufl.inner(solver.time_constant * ufl.as_vector(b), solver.test_function) * ufl.dx
    solver.run(2.0, step=1.0).finish()
    np.testing.assert_allclose(solver.reaction("foot"), -2.0 * b, atol=1e-10)
    np.testing.assert_allclose(solver.reaction("top"), 0.0, atol=1e-10)


def test_a_bar_on_springs(cells):
    """Robin springs below, a dead load above: a bar in series with a spring, no displacement prescribed along it."""
    k, p = 0.5, 0.01
    domain = cells("hexahedron", 2)
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)

    solver = ImplicitSolver(domain, linear())
    for i in (0, 1):
        solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
    u, v, t = solver.u, solver.test_function, solver.time_constant
    solver.external += t * p * v[2] * ds(domain.tag("top"))
    solver.external -= k * u[2] * v[2] * ds(domain.tag("foot"))
    (step,) = solver.run()
    young = 9.0 * K * G / (3.0 * K + G)
    assert step.convergence.iterations == 1
    np.testing.assert_allclose(solver.probe([[0.0, 0.0, 0.0], [0.5, 0.5, 1.0]])[:, 2], [p / k, p / k + p / young])


def test_a_follower_pressure(cells):
    """Pressure on the deformed surface of a cube: J = 1 - p / K exactly, and its tangent keeps Newton quadratic."""
    p = 0.3
    domain = cells("hexahedron", 2, distort=0.2)

    solver = ImplicitSolver(domain, neo_hookean())
    for i in range(3):
        solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
    F, N = ufl.Identity(3) + ufl.grad(solver.u), ufl.FacetNormal(domain.mesh)
    area = ufl.det(F) * ufl.inv(F).T * N
    solver.external -= solver.time_constant * p * ufl.inner(area, solver.test_function) * ufl.ds
    (step,) = solver.run(step=1.0)
    np.testing.assert_allclose(np.linalg.det(solver.points.F), 1.0 - p / K, rtol=1e-9)
    np.testing.assert_allclose(solver.probe([[1.0, 1.0, 1.0]]), (1.0 - p / K) ** (1.0 / 3.0) - 1.0, rtol=1e-8)
    assert order(step.convergence.residuals) > 1.7


def test_an_unsymmetric_load_is_solved_as_such(cells):
    domain = cells("tetrahedron", 3)
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)

    solver = ImplicitSolver(domain, neo_hookean(), prescribed=[Dirichlet("foot")])
    F, N, t = ufl.Identity(3) + ufl.grad(solver.u), ufl.FacetNormal(domain.mesh), solver.time_constant
    area = ufl.det(F) * ufl.inv(F).T * N
    solver.external -= 0.1 * t * ufl.inner(area, solver.test_function) * ds(domain.tag("top"))
    (step,) = solver.run(step=1.0)
    assert not solver.newton.linear.symmetric
    assert order(step.convergence.residuals) > 1.7


def test_conditions_that_contradict_each_other_are_refused_and_those_before_hold(cells):
    solver = ImplicitSolver(cells("triangle", 2), linear(2), prescribed=[Dirichlet("foot")])
    solver.prescribe("top", 1, lambda x, t: 0.5 * t)
    with pytest.raises(ValueError, match="prescribed twice at time 0: 0 m by the condition on the group"):
        solver.prescribe(None, 0, 1.0)
    solver.prescribe(None, 0, lambda x, t: t * x[1])  # the same on the foot
    solver.run(0.1, step=0.1).finish()
    values = solver.probe([[0.5, 0.0], [0.5, 1.0]])
    np.testing.assert_allclose(values, [[0.0, 0.0], [0.1, 0.05]], atol=1e-12)


def test_two_dimensions_are_plane_strain(cells):
    """A slice of the three-dimensional body between planes that do not move gives the same forces a metre."""
    flat = ImplicitSolver(cells("quadrilateral", 4), neo_hookean(2), prescribed=clamped(2))
    flat.run(step=0.5).finish()
    mesh = dolfinx.mesh.create_box(
        MPI.COMM_WORLD, [np.zeros(3), np.array([1.0, 0.25, 1.0])], [4, 1, 4], dolfinx.mesh.CellType.hexahedron
    )
    ends = {"foot": lambda x: np.isclose(x[2], 0.0), "top": lambda x: np.isclose(x[2], 1.0)}
    solid = ImplicitSolver(
        domain_from_mesh(mesh, ends), neo_hookean(), prescribed=[Dirichlet(None, 1), *clamped(3)], quadrature_degree=3
    )
    solid.run(step=0.5).finish()
    assert flat.reaction("top")[1] == pytest.approx(4.0 * solid.reaction("top")[2], rel=1e-8)
    assert flat.stored_energy() == pytest.approx(4.0 * solid.stored_energy(), rel=1e-8)


def test_the_choice_of_the_linear_solver(cells):
    def kind(n, **options):
        return ImplicitSolver(cells("tetrahedron", n), linear(), prescribed=clamped(), **options).newton.linear.kind

    assert kind(4) == "direct" and kind(13) == "iterative" and kind(13, linear="direct") == "direct"


def test_multigrid_does_not_mind_the_mesh(cells):
    iterations = []
    for n in (7, 10, 15):
        solver = ImplicitSolver(cells("tetrahedron", n), linear(), prescribed=clamped(), linear="iterative")
        solver.run().finish()
        iterations.append(solver.last.linear_iterations)
    assert max(iterations) < 1.35 * min(iterations) and max(iterations) < 30


WRONG = [
    ({"law": linear(2)}, "the implicit solver needs small or finite strain in 3"),
    ({"prescribed": [Dirichlet("lid", 0)]}, 'no surface group "lid"'),
    ({"prescribed": [Dirichlet(lambda x: x[0] > 7.0, 0)]}, "There is no node"),
    ({"degree": 3}, "degree must be 1 or 2"),
    ({"dt": 0.0}, "dt must be positive"),
    ({"linear": "magic"}, "linear must be"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_wrong_arguments_are_refused(cells, wrong, sentence):
    arguments = {"law": linear(), **wrong}
    with pytest.raises(ValueError, match=sentence):
        ImplicitSolver(cells("tetrahedron", 1), arguments.pop("law"), **arguments)


def test_wrong_conditions_are_refused(cells):
    with pytest.raises(ValueError, match="must be below 2, got 2"):
        ImplicitSolver(cells("triangle", 1), linear(2), prescribed=[Dirichlet("top", 2)])
    solver = ImplicitSolver(cells("triangle", 3), linear(2))
    for value, sentence in ((lambda x, t: np.zeros(2), "must have shape"), (lambda x, t: np.nan, "not finite")):
        with pytest.raises(ValueError, match=sentence):
            solver.prescribe("top", 0, value)
    solver.prescribe("top", 0, lambda x, t: np.nan if t > 0.5 else t)
    with pytest.raises(ValueError, match="not finite at time 1"):
        solver.run().finish()


def test_a_law_without_a_dissipation_says_so(cells):
    solver = ImplicitSolver(cells("hexahedron", 1), laws.load_law("magnesium-johnson-cook"))
    with pytest.raises(ValueError, match="johnson-cook does not provide its dissipation"):
        solver.dissipation()
