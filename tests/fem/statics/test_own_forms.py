"""Forms of the user's own in the implicit solver: loads that depend on u, and the law's stress in another form."""

import dolfinx.fem
import dolfinx.la
import numpy as np
import pytest
import ufl

from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.j2 import J2
from fem.laws.linear_elastic import LinearElastic
from fem.laws.neo_hookean import NeoHookean

G, K = 1.0, 3.0
YOUNG = 9.0 * K * G / (3.0 * K + G)
pytestmark = pytest.mark.mpi


def symmetry(solver):
    for i in range(3):
        solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)


def order(residuals):
    """Observed order of the last three residuals above rounding."""
    r = [r for r in residuals if r > 1e-12 * max(residuals)][-3:]
    return np.log(r[2] / r[1]) / np.log(r[1] / r[0])


def test_uniform_damage_scales_the_force_of_uniaxial_tension(cells):
    """(1 - d)^2 P: the stretch sideways is that of the sound body, the force (1 - d)^2 times its."""
    d, top = 0.3, lambda x: np.isclose(x[2], 1.0)
    forces = []
    for damage in (0.0, d):
        solver = ImplicitSolver(cells("hexahedron", 2, distort=0.2), NeoHookean(G, K, density=1.0))
        symmetry(solver)
        solver.prescribe(top, 2, lambda x, t: 0.2 * t)
        if damage:
            solver.internal = ufl.inner((1.0 - damage) ** 2 * solver.P, ufl.grad(solver.test_function)) * solver.dx
        (step,) = solver.run(step=1.0)
        assert step.iterations <= 6 and order(step.convergence.residuals) > 1.7
        forces.append(solver.reaction(top)[2])
    assert forces[1] == pytest.approx((1.0 - d) ** 2 * forces[0], rel=1e-9)


def test_damage_in_place_and_of_the_strain_has_a_consistent_tangent(cells):
    """A damage field that follows the strain: the form depends on P and on u, and so does its tangent."""
    law = J2(0.01, 0.05, shear_modulus=G, bulk_modulus=K, density=1.0)
    solver = ImplicitSolver(cells("tetrahedron", 2), law, prescribed=[Dirichlet("foot")])
    solver.prescribe("top", None, lambda x, t: t * np.array([0.02, 0.0, 0.04]))
    x, u, v = ufl.SpatialCoordinate(solver.domain.mesh), solver.u, solver.test_function
    d = 0.3 * x[0] + 2.0 * ufl.inner(ufl.grad(u), ufl.grad(u))
    solver.internal = ufl.inner((1.0 - d) ** 2 * solver.P, ufl.grad(v)) * solver.dx
    solver.external -= 0.1 * ufl.inner(u, u) * ufl.inner(u, v) * ufl.dx
    (step,) = solver.run(step=1.0)
    assert solver.dissipation() > 0.0 and step.iterations <= 6
    check_tangent(solver, dt=0.1)


def check_tangent(solver, dt):
    """The Jacobian, and the lifting with it, against central differences of the forces, the law among them."""
    n, rng = solver.u_n.size, np.random.default_rng(2)
    nodes = solver.supports.nodes
    du = (rng.normal(size=(3, 4)) @ np.vstack([nodes.x, np.ones(nodes.x.shape[1])])).T[: nodes.owned].reshape(-1)
    du += 0.1 * np.sin(7.0 * nodes.x.T[: nodes.owned].reshape(-1))
    u = solver.u_n + 0.01 * np.cos(5.0 * nodes.x.T[: nodes.owned])

    def forces(h):
        solver._set(u + h * du.reshape(u.shape))
        solver.material.evaluate(solver.u, dt, 0.0)
        return solver.equilibrium.forces()

    h = 1e-6
    difference = (forces(h) - forces(-h)) / (2.0 * h)
    forces(0.0)
    A, _ = solver.newton.snes.getJacobian()[:2]
    solver.equilibrium.jacobian(A, ())
    y, z = A.createVecs()
    y.array_w[:] = du
    A.mult(y, z)
    scale = np.sqrt(solver.comm.allreduce(float(difference @ difference)))
    error = np.sqrt(solver.comm.allreduce(float(np.sum((z.array_r - difference) ** 2))))
    assert len(du) == n and error < 1e-7 * scale
    np.testing.assert_allclose(solver.equilibrium.lifted(du), z.array_r, atol=1e-12 * scale)


def test_an_elastic_foundation_under_a_column(cells):
    """A column on a bed of springs k, pressed by p: it sinks by p / k and shortens by p / E."""
    k, p = 0.5, 0.01
    domain = cells("hexahedron", 2)
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)
    solver = ImplicitSolver(domain, LinearElastic(G, K, density=1.0))
    for i in (0, 1):
        solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
    solver.external -= solver.time_constant * p * solver.test_function[2] * ds(domain.tag("top"))
    solver.external -= k * solver.u[2] * solver.test_function[2] * ds(domain.tag("foot"))
    (step,) = solver.run()
    assert step.iterations == 1
    np.testing.assert_allclose(solver.probe([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])[:, 2], [-p / k, -p / k - p / YOUNG])


def test_a_thermal_strain_stretches_a_free_body(cells):
    """sigma = C : (eps - alpha T I): the load 3 K alpha T div(v) makes a free body grow by alpha T."""
    stretch = 0.01
    solver = ImplicitSolver(cells("tetrahedron", 2), LinearElastic(G, K, density=1.0))
    symmetry(solver)
    solver.external += 3.0 * K * stretch * solver.time_constant * ufl.div(solver.test_function) * ufl.dx
    solver.run().finish()
    np.testing.assert_allclose(solver.probe([[1.0, 1.0, 1.0]]), stretch, rtol=1e-9)


def test_forms_may_change_between_steps(cells):
    """A load that is added later counts from the next step on, and may be taken off again."""
    domain = cells("hexahedron", 1)
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)
    solver = ImplicitSolver(domain, LinearElastic(G, K, density=1.0))
    symmetry(solver)
    load = 0.01 * solver.test_function[2] * ds(domain.tag("top"))
    ends = []
    for form in (load, 2.0 * load, None):
        solver.external = form
        solver.run(solver.time + 1.0).finish()
        ends.append(solver.probe([[1.0, 1.0, 1.0]])[0, 2])
    np.testing.assert_allclose(ends, [0.01 / YOUNG, 0.02 / YOUNG, 0.0], atol=1e-12)


WRONG = [
    ("external", lambda s: 1.0, "external must be a UFL form, an integral over dx or ds, got float"),
    ("external", lambda s: ufl.inner(s.u, s.u) * ufl.dx, "external must be linear in solver.test_function"),
    ("external", lambda s: ufl.inner(s.u, ufl.TestFunction(other(s))) * ufl.dx, "linear in solver.test_function"),
    ("internal", lambda s: None, "internal must not be empty"),
]


def other(solver):
    return dolfinx.fem.functionspace(solver.domain.mesh, ("DG", 0, (3,)))


@pytest.mark.parametrize(("name", "form", "sentence"), WRONG)
def test_forms_that_do_not_fit_are_refused_at_once(cells, name, form, sentence):
    solver = ImplicitSolver(cells("hexahedron", 1), LinearElastic(G, K, density=1.0))
    with pytest.raises(ValueError, match=sentence):
        setattr(solver, name, form(solver))


def test_a_stress_on_facets_is_refused_in_one_sentence(cells):
    """The stress has values at the quadrature points of cells only."""
    solver = ImplicitSolver(cells("hexahedron", 1), LinearElastic(G, K, density=1.0))
    normal = ufl.FacetNormal(solver.domain.mesh)
    solver.external += ufl.inner(solver.P * normal, solver.test_function) * ufl.ds
    with pytest.raises(ValueError, match=r"cannot be compiled \(the stress P exists inside of cells only\)"):
        solver.run().finish()
