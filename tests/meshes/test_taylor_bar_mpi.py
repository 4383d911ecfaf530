"""The live model of rank 0 distributes over the ranks and can be made again."""

import math

import gmsh
import numpy as np
import pytest
from dolfinx import default_scalar_type
from dolfinx.fem import assemble_scalar, form
from dolfinx.io import gmshio
from mpi4py import MPI
from ufl import Measure

from meshes.session import open_session
from meshes.taylor_bar import divisions, taylor_bar

H, D = 1e-3, 1e-3


@pytest.mark.mpi
def test_model_of_rank_zero_distributes_twice():
    comm = MPI.COMM_WORLD
    started = comm.rank == 0 and open_session()
    try:
        for cells in (4, 8):
            if comm.rank == 0:
                taylor_bar(H, D, cells, quarter=True)
            mesh, _, facets = gmshio.model_to_mesh(gmsh.model, comm, 0, gdim=3)
            n, m, layers = divisions(H, D, cells)
            assert mesh.topology.index_map(3).size_global == (n * n + 2 * n * m) * layers
            ds = Measure("ds", domain=mesh, subdomain_data=facets)
            area = {
                tag: comm.allreduce(assemble_scalar(form(default_scalar_type(1.0) * ds(tag))))
                for tag in range(2, 7)  # "foot", "top", "side", "symmetry_x", "symmetry_y" in the order of creation
            }
            sides = 2 * n
            foot = sides * math.sin(math.pi / 2 / sides) * D**2 / 8
            rim = sides * math.sin(math.pi / 4 / sides) * D * H
            expected = [foot, foot, rim, H * D / 2, H * D / 2]
            assert np.allclose(list(area.values()), expected, rtol=1e-12)
    finally:
        if started:
            gmsh.finalize()
