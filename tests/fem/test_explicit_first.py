"""First end-to-end check of the explicit solver."""

import dolfinx.mesh
import pytest
from mpi4py import MPI

from fem import laws
from fem.contact import PlaneWall
from fem.explicit import ExplicitSolver
from fem.mesh import domain_from_mesh


@pytest.mark.parametrize("name", laws.KNOWN)
def test_books_of_an_impact_balance(name):
    mesh = dolfinx.mesh.create_box(
        MPI.COMM_WORLD, [[0.0, 0.0, 0.0], [1e-3, 1e-3, 2e-3]], [6, 6, 12], dolfinx.mesh.CellType.hexahedron
    )
    solver = ExplicitSolver(domain_from_mesh(mesh), laws.load(name), walls=[PlaneWall()], velocity=(0.0, 0.0, -100.0))
    solver.run(1e-6)
    books = solver.ledger()
    assert books.contact_impulse[2] > 0.0
    assert books.energy_error < (3e-2 if name == "neo-hookean" else 1e-2)  # undamped ringing behind the elastic front
    assert books.momentum_error < 1e-9
