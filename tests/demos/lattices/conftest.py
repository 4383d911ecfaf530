"""What the tests of the lattice studies share."""

from pathlib import Path

import pytest
from mpi4py import MPI

from micro.lattice.bars import KinematicBar
from micro.lattice.data import lattice_parameters
from micro.lattice.geometry import make_cell
from surrogates.tann.exact import write_lattice_law


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """The exact law of the regular cube, as a file that all ranks see."""
    path = Path(MPI.COMM_WORLD.bcast(str(tmp_path_factory.mktemp("laws") / "exact.pt")))
    if MPI.COMM_WORLD.rank == 0:
        write_lattice_law(path, lattice_parameters(make_cell("cube-1"), KinematicBar(), perturbation=0.0, seed=0))
    MPI.COMM_WORLD.barrier()
    return str(path)
