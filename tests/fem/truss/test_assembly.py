"""Stiffness of a truss: the derivative of its forces."""

import numpy as np
import pytest

pytestmark = pytest.mark.mpi


def test_stiffness_is_the_derivative_of_the_forces(trusses):
    truss = trusses.lattice(2, "cube-2", 0.1)
    solver = trusses.make(truss, trusses.torsion(truss, lambda t: 60.0 * t))
    solver.run().finish()
    assembly, rng = solver.assembly, np.random.default_rng(5)
    u = trusses.everywhere(solver.comm, solver.displacement())[solver.part.nodes]
    du = rng.normal(size=truss.nodes.shape)[solver.part.nodes] * assembly.free[: assembly.n]
    h = 1e-7

    def forces(v):
        stress, _, tangent = solver.bar_law.update(assembly.strain(assembly.with_ghosts(v)), 0.9 * solver.bars.state)
        return assembly.forces(stress), tangent

    _, tangent = forces(u)
    assert 0.05 < solver.comm.allreduce(np.sum(tangent < 0.5)) / len(truss.bars) < 0.95
    assembly.stiffness(tangent, solver._A)
    x, y = solver._A.createVecs()
    x.array_w[:] = du.ravel()
    solver._A.mult(x, y)
    difference = (forces(u + h * du)[0] - forces(u - h * du)[0]) / (2.0 * h) * assembly.free[: assembly.n]
    np.testing.assert_allclose(y.array_r, difference.ravel(), atol=1e-6)
    assert solver._A.isSymmetric(1e-13) or solver.comm.size > 1
