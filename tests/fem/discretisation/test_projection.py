"""Nodal fields: what is linear comes out as it is, and no amount is lost."""

import numpy as np
import pytest
import ufl
from dolfinx.fem import Function, assemble_scalar, form, functionspace
from mpi4py import MPI

from fem.discretisation.projection import NodalFields
from fem.discretisation.quadrature import QuadraturePoints

pytestmark = pytest.mark.mpi


def places(points):
    """Positions of the quadrature points, (n, 3): the gradient of x . x / 2 in the displacement's place."""
    V = points.V
    squares = functionspace(V.mesh, ("Lagrange", 2, (3,)))
    u = Function(squares)
    u.interpolate(lambda x: 0.5 * x**2)
    fine = QuadraturePoints(squares, int(points.dx.metadata()["quadrature_degree"]))
    return np.einsum("nii->ni", fine.gather(u)) - 1.0


@pytest.mark.parametrize(("cell", "degree"), [("hexahedron", 1), ("tetrahedron", 2)])
def test_linear_fields_are_kept(cells, cell, degree):
    domain = cells(cell, 3)
    points = QuadraturePoints(functionspace(domain.mesh, ("Lagrange", degree, (3,))))
    nodal = NodalFields(points)
    x = nodal.W.tabulate_dof_coordinates()
    gradient = np.array([1.0, -2.0, 0.5])
    found = nodal.project(3.0 + places(points) @ gradient)
    assert np.allclose(found, 3.0 + x @ gradient, atol=1e-10)


@pytest.mark.parametrize("cell", ["tetrahedron", "hexahedron"])
def test_amounts_are_kept(cells, cell):
    """The integral of the field is the sum over the points, also where there is one point a cell."""
    domain = cells(cell, 3, distort=0.2)
    points = QuadraturePoints(functionspace(domain.mesh, ("Lagrange", 1, (3,))))
    nodal = NodalFields(points)
    values = np.cos(points.volume * 1e3)
    out = Function(nodal.W)
    nodal.project(values, out)
    total = domain.comm.allreduce(assemble_scalar(form(out * ufl.dx)))
    assert total == pytest.approx(domain.comm.allreduce(points.volume @ values), rel=1e-9, abs=1e-9)
    assert np.allclose(nodal.project(np.full(points.n, 2.5)), 2.5, rtol=1e-10)


def test_a_rank_without_points_takes_part(cells):
    domain = cells("hexahedron", 1)
    points = QuadraturePoints(functionspace(domain.mesh, ("Lagrange", 1, (3,))))
    assert np.allclose(NodalFields(points).project(np.full(points.n, -1.0)), -1.0)
    assert MPI.COMM_WORLD.allreduce(points.n) == 8
