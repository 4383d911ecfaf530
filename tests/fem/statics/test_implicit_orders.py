"""Order of convergence against manufactured solutions."""

import dolfinx.fem
import numpy as np
import pytest
import ufl

from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.linear_elastic import LinearElastic
from fem.laws.neo_hookean import NeoHookean
from fem.laws.plane_strain import PlaneStrain

G, LAME = 1.0, 1.5


def small(H, d):
    E = ufl.sym(H)
    return (2.0 * LAME - 2.0 / 3.0 * G) * ufl.tr(E) * ufl.Identity(d) + 2.0 * G * E


def finite(H, d):
    """First Piola-Kirchhoff stress of the neo-Hookean law in plane strain, written anew."""
    F = ufl.Identity(2) + H
    J, inverse = ufl.det(F), ufl.inv(F).T
    return G * J ** (-2.0 / 3.0) * (F - (ufl.inner(F, F) + 1.0) / 3.0 * inverse) + 2.0 * LAME * (J - 1.0) * J * inverse


def error(domain, law, stress, degree):
    """L2 error of the displacement, with the body force that makes u the solution and u on the boundary."""
    mesh = domain.mesh
    d = mesh.geometry.dim

    def exact(x, sin, cos):
        wave = [sin(2.0 * x[0]) * cos(1.5 * x[1]), cos(2.5 * x[0] + x[1]), sin(x[0] * x[1])]
        return [0.1 * (c if d == 2 else c * cos(1.2 * x[2])) for c in wave[:d]]

    x = ufl.SpatialCoordinate(mesh)
    u_exact = ufl.as_vector(exact(x, ufl.sin, ufl.cos))
    dx = ufl.dx(metadata={"quadrature_degree": 2 * degree + 2})

    def boundary(x):
        return np.any(np.isclose(x[:d], 0.0) | np.isclose(x[:d], 1.0), axis=0)

    prescribed = [Dirichlet(boundary, i, lambda x, t, i=i: exact(x, np.sin, np.cos)[i]) for i in range(d)]
    solver = ImplicitSolver(domain, law, prescribed=prescribed, degree=degree)
    solver.external -= ufl.inner(ufl.div(stress(ufl.grad(u_exact), d)), solver.test_function) * dx
    solver.run().finish()
    difference = solver.u - u_exact
    square = dolfinx.fem.assemble_scalar(dolfinx.fem.form(ufl.inner(difference, difference) * dx))
    return np.sqrt(mesh.comm.allreduce(square))


CASES = {
    "small, triangle": ("triangle", LinearElastic(G, 2.0 * LAME, dimension=2, density=1.0), small, (10, 20)),
    "finite, triangle": ("triangle", PlaneStrain(NeoHookean(G, 2.0 * LAME, density=1.0)), finite, (10, 20)),
    "small, tetrahedron": ("tetrahedron", LinearElastic(G, 2.0 * LAME, density=1.0), small, (4, 8)),
}


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_displacement_converges_by_degree_plus_one(cells, case, degree):
    cell, law, stress, sizes = case
    errors = [error(cells(cell, n, distort=0.15), law, stress, degree) for n in sizes]
    order = np.log2(errors[0] / errors[1])
    assert degree + 1 - 0.2 < order < degree + 1 + 0.4
    assert errors[1] < 2e-3
