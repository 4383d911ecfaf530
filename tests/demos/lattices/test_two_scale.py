"""Two scales: under a homogeneous strain the lattice told by the decoder is the periodic one, node by node."""

import dataclasses

import numpy as np
import pytest
import torch
from mpi4py import MPI
from two_scale import TwoScale, bars_at, relative

from fem import laws
from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.linear_elastic import LinearElastic
from fem.mesh import read_mesh
from meshes.box import box
from meshes.session import session
from micro.lattice.bars import KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.geometry import make_cell
from micro.lattice.parameters import lattice_parameters
from micro.lattice.tiling import tile
from surrogates.tann.exact import write_lattice_law

pytestmark = pytest.mark.mpi
# A displacement gradient with a rotation in it, beyond yield.
H = np.array([[0.3, 0.35, -0.1], [-0.25, -0.4, 0.2], [0.3, 0.1, -0.2]])
BAR = KinematicBar()


@pytest.fixture(scope="module", params=[("cube-1", 0.0), ("cube-2", 0.2)], ids=["regular", "perturbed"])
def strained(request, tmp_path_factory):
    """Cell, lattice of 2 x 2 x 4, the solver of a box in homogeneous strain, and the cell's own response."""
    comm, (name, perturbation) = MPI.COMM_WORLD, request.param
    cell = make_cell(name, perturbation=perturbation, seed=3)
    path = tmp_path_factory.mktemp("law") / "law.pt"
    write_lattice_law(path, lattice_parameters(cell, BAR, perturbation=perturbation, seed=3))
    law = laws.load_law(path)
    if comm.rank == 0:
        with session():
            domain = read_mesh(box((10.0, 10.0, 20.0), 5.0, kind="hexahedra"), comm)
    else:
        domain = read_mesh(None, comm)

    def surface(x):
        return np.any(np.isclose(x, 0.0) | np.isclose(x, [[10.0], [10.0], [20.0]]), axis=0)

    given = [Dirichlet(surface, i, lambda x, t, i=i: t * (H[i] @ x)) for i in range(3)]
    solver = ImplicitSolver(domain, law, prescribed=given)
    solver.run().finish()
    micro = LatticeCell(cell, BAR)
    E = torch.from_numpy(0.5 * (H + H.T))[None]
    return cell, tile(cell, (2, 2, 4), 5.0), solver, micro.step(E, micro.initial_state(1))


def test_bars_carry_what_they_carry_in_the_cell(strained):
    cell, lattice, solver, step = strained
    found = TwoScale(solver, cell, lattice if solver.comm.rank == 0 else None, 5.0).bar_stress()
    stress = step.force[0].numpy() / cell.area
    assert np.abs(stress).max() > BAR.strength
    assert np.allclose(found, stress[lattice.cell_bar], atol=1e-9)


def test_nodes_move_as_in_the_cell(strained):
    cell, lattice, solver, step = strained
    u = TwoScale(solver, cell, lattice if solver.comm.rank == 0 else None, 5.0).displacement()
    w = step.displacement[0].numpy() - cell.nodes @ (0.5 * (H + H.T))
    independent = np.unique(cell.master)
    w = (w - w[independent].mean(axis=0)) * 5.0 / cell.box[0]
    expected = lattice.nodes @ H.T
    expected[lattice.cell_nodes] += w
    assert np.allclose(u, expected, atol=1e-9)
    if cell.name == "cube-1":
        assert np.allclose(u, lattice.nodes @ H.T, atol=1e-10)
    else:
        assert np.abs(u - lattice.nodes @ H.T).max() > 0.1


def test_what_does_not_fit_is_refused(strained):
    cell, lattice, solver, _ = strained
    other = make_cell("cube-2" if cell.name == "cube-1" else "cube-1")
    with pytest.raises(ValueError, match="The law law .*of the cell|is of a cell with more than"):
        TwoScale(solver, other, lattice, 5.0)
    far = dataclasses.replace(lattice, reference=lattice.reference + 1.0)
    with pytest.raises(ValueError, match="is not in the mesh"):
        TwoScale(solver, cell, far, 5.0)
    plain = ImplicitSolver(solver.domain, LinearElastic(1.0, 2.0, density=1.0))
    with pytest.raises(ValueError, match="does not provide the"):
        TwoScale(plain, cell, lattice, 5.0)


def test_relative_difference():
    assert relative([3.0, 4.0], [0.0, 4.0]) == 0.75
    assert relative([1.0, 3.0], [1.0, 2.0], [1.0, 4.0]) == pytest.approx(2.0 / np.sqrt(17.0))
    assert relative([0.0], [0.0]) == 0.0
    assert relative([1.0], [0.0]) == np.inf


def test_bars_at_a_node():
    bars = np.array([[0, 1], [1, 2], [2, 0]])
    assert bars_at(bars, 2).tolist() == [1, 2]
