"""Rigid-body modes, and what they are to multigrid."""

import numpy as np
import pytest
from petsc4py import PETSc

from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.linear_elastic import LinearElastic
from fem.statics.linear_solver import rigid_body_modes


@pytest.mark.parametrize("d", [2, 3])
def test_modes_change_no_distance(d):
    x = np.random.default_rng(0).normal(size=(12, d))
    modes = rigid_body_modes(x)
    assert modes.shape == (d * (d + 1) // 2, 12, d)
    assert np.linalg.matrix_rank(modes.reshape(len(modes), -1)) == len(modes)
    for mode in modes:
        # First-order change of the squared distances.
        change = np.einsum("abi,abi->ab", x[:, None] - x, mode[:, None] - mode)
        np.testing.assert_allclose(change, 0.0, atol=1e-12)


@pytest.mark.parametrize("cell", ["triangle", "hexahedron"])
@pytest.mark.parametrize("degree", [1, 2])
def test_a_free_body_has_them_as_null_space(cells, cell, degree):
    domain = cells(cell, 3, distort=0.2)
    law = LinearElastic(1.0, 2.0, dimension=domain.mesh.geometry.dim, density=1.0)
    solver = ImplicitSolver(domain, law, degree=degree)
    solver.material.evaluate(solver.u, 0.0, 0.0)
    A = solver.newton.snes.getJacobian()[0]
    solver.equilibrium.jacobian(A, ())
    assert len(A.getNearNullSpace().getVecs()) == (3 if cell == "triangle" else 6)
    for mode in A.getNearNullSpace().getVecs():
        assert (A * mode).norm() < 1e-11 * A.norm(PETSc.NormType.FROBENIUS)


def test_multigrid_needs_them(cells):
    """A beam, ten times as long as thick: bending is what translations alone cannot describe on coarse grids."""
    ends = [*(Dirichlet("foot", i) for i in range(3)), Dirichlet("top", 0, lambda x, t: 0.1 * t)]
    iterations = []
    for modes in (True, False):
        domain = cells("hexahedron", 8)
        domain.mesh.geometry.x[:, :2] *= 0.1
        solver = ImplicitSolver(domain, LinearElastic(1.0, 2.0, density=1.0), prescribed=ends, linear="iterative")
        if not modes:
            A = solver.newton.snes.getJacobian()[0]
            A.setNearNullSpace(PETSc.NullSpace().create(vectors=A.getNearNullSpace().getVecs()[:3]))
        solver.run().finish()
        iterations.append(solver.last.linear_iterations)
    assert 1.2 * iterations[0] < iterations[1]
