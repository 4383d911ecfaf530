"""Plate: volume, Jacobians, groups, grading, mirror symmetry, cell counts, bad input, and that it distributes."""

import math

import gmsh
import numpy as np
import pytest
from dolfinx import default_scalar_type
from dolfinx.fem import assemble_scalar, form
from dolfinx.io import gmshio
from mpi4py import MPI
from ufl import Measure

from meshes.plate import GROUPS, divisions, main, plate, rings, write
from meshes.session import open_session

T, W = 1e-3, 20e-3


@pytest.fixture(autouse=True)
def gmsh_session():
    started = open_session()
    yield
    if started:
        gmsh.finalize()


def nodes():
    tags, x, _ = gmsh.model.mesh.getNodes()
    return x.reshape(-1, 3)[np.argsort(tags)]


def hexahedra():
    types, tags, ends = gmsh.model.mesh.getElements(3)
    assert list(types) == [5], "only eight-node hexahedra"
    return tags[0], ends[0].reshape(-1, 8).astype(int) - 1


def quality(name):
    return gmsh.model.mesh.getElementQualities(hexahedra()[0], name)


def area(shape, cells=24):
    """Of the plate in its plane: the square, or the regular polygon of 8 n sides."""
    sides = 8 * math.ceil(cells / 4)
    return W**2 if shape == "square" else sides / 8 * math.sin(2.0 * math.pi / sides) * W**2


def test_the_default_has_the_cells_of_the_paper():
    plate()
    assert len(hexahedra()[0]) == 11520


@pytest.mark.parametrize("shape", ["circular", "square"])
@pytest.mark.parametrize("quarter", [False, True])
def test_volume_is_the_prism_over_the_rim_and_jacobians_are_positive(shape, quarter):
    plate(T, W, shape=shape, quarter=quarter)
    part = 0.25 if quarter else 1.0
    assert quality("volume").sum() == pytest.approx(part * area(shape) * T, rel=1e-12)
    assert quality("minDetJac").min() > 0.0
    assert quality("minSJ").min() > 0.7  # 1 is a box, below 0 a tangled cell


@pytest.mark.parametrize("cells", [4, 6, 8, 14, 32])
def test_cells_are_square_where_the_mesh_is_fine(cells):
    plate(5e-4, W, cells=cells, growth=1.5)
    assert quality("minSJ").min() > 0.5
    cell_nodes = nodes()[hexahedra()[1]]
    middle = cell_nodes.mean(axis=1)
    fine = np.hypot(middle[:, 0], middle[:, 1]) < 1.2e-3
    width = np.sqrt(quality("volume") / (cell_nodes[:, :, 2].max(axis=1) - cell_nodes[:, :, 2].min(axis=1)))
    assert np.all(np.abs(np.log(width[fine] / (2.4e-3 / cells))) < np.log(2.0))


def test_rings_grow_up_to_the_rim_by_no_more_than_the_growth():
    plate(T, W, growth=1.3)
    x = nodes()
    radii = np.unique(x[(x[:, 1] == 0.0) & (x[:, 2] == 0.0) & (x[:, 0] >= 0.0), 0])
    assert radii[-1] == 0.5 * W
    fine = np.flatnonzero(np.isclose(radii, 1.2e-3, rtol=1e-12, atol=0.0))[0]
    widths = np.diff(radii)[fine - 1 :]  # the last of the fine rings and all beyond
    ratios = widths[1:] / widths[:-1]
    assert np.all(ratios < 1.3 * (1.0 + 1e-9))
    assert np.all(ratios > 1.0)
    np.testing.assert_allclose(ratios[1:], ratios[1], rtol=1e-9)
    assert len(rings(1.0, 11.0, 0.1, 1.3)) <= math.ceil(math.log(1.0 + 0.3 / 1.3 * 100.0) / math.log(1.3))


@pytest.mark.parametrize("shape", ["circular", "square"])
def test_mirror_images_are_the_same_to_the_last_bit(shape):
    plate(T, W, cells=8, shape=shape)
    x = nodes()
    here = {tuple(row) for row in x}
    assert len(here) == len(x)
    for mirror in ([-1.0, 1.0, 1.0], [1.0, -1.0, 1.0]):
        assert {tuple(row) for row in x * mirror + 0.0} == here
    assert {tuple(row) for row in x[:, [1, 0, 2]]} == here
    plate(T, W, cells=8, shape=shape, quarter=True)
    assert {tuple(row) for row in nodes()} == {row for row in here if row[0] >= 0.0 and row[1] >= 0.0}


@pytest.mark.parametrize("quarter", [False, True])
def test_every_boundary_facet_is_tagged_exactly_once_and_lies_where_its_name_says(quarter, facets, boundary):
    plate(T, W, cells=8, layers=3, quarter=quarter)
    names = {gmsh.model.getPhysicalName(*group) for group in gmsh.model.getPhysicalGroups()}
    assert names == set(GROUPS if quarter else GROUPS[:4])
    tagged = np.sort(np.concatenate([facets(name) for name in names - {"body"}]), axis=1)
    assert np.array_equal(tagged[np.lexsort(tagged.T[::-1])], boundary(hexahedra()[1]))
    x = nodes()
    assert np.array_equal(np.unique(hexahedra()[1]), np.arange(len(x)))
    assert len(np.unique(x[:, 2])) == 4
    assert np.all(x[facets("bottom"), 2] == 0.0)
    assert np.all(x[facets("top"), 2] == T)
    rim = np.hypot(*x[facets("rim")][..., :2].reshape(-1, 2).T)
    np.testing.assert_allclose(rim, 0.5 * W, rtol=1e-12)
    if quarter:
        assert np.all(x[facets("symmetry_x"), 0] == 0.0)
        assert np.all(x[facets("symmetry_y"), 1] == 0.0)


def test_bad_arguments_get_one_sentence(tmp_path):
    for arguments, sentence in (
        ({"cells": 5}, "cells must be an even whole number of at least 4"),
        ({"fine": 30e-3}, "fine must be smaller than the width 0.02 m, got 0.03"),
        ({"growth": 1.0}, "growth must be above 1, got 1"),
        ({"growth": 1.0 + 1e-9, "fine": 1e-6}, "growth 1 needs more than 10000 rings up to the rim"),
        ({"thickness": 0.0}, "thickness must be a positive finite number, got 0.0"),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"shape": "oval"}, "shape must be one of circular, square, got 'oval'"),
        ({"thickness": 10.0}, "The mesh would have about .* cells"),
    ):
        with pytest.raises(ValueError, match=sentence):
            plate(**arguments)
    with pytest.raises(ValueError, match="must end in .msh"):
        write(tmp_path / "plate.txt")


def test_the_command_writes_the_mesh(tmp_path, capsys):
    path = tmp_path / "plate.msh"
    assert main(["--cells", "4", "--layers", "2", "--quarter", "--output", str(path)]) == 0
    gmsh.open(str(path))
    n, m, outer, layers = divisions(T, W, 2.4e-3, 4, 1.22, 2)
    assert len(hexahedra()[0]) == (n * n + 2 * n * (m + len(outer))) * layers
    assert main(["--cells", "3"]) == 2
    assert "cells must be an even whole number" in capsys.readouterr().err


@pytest.mark.mpi
def test_the_model_of_rank_zero_distributes():
    comm = MPI.COMM_WORLD
    if comm.rank == 0:
        plate(T, W, cells=8, quarter=True, shape="square")
    mesh, _, tags = gmshio.model_to_mesh(gmsh.model, comm, 0, gdim=3)
    n, m, outer, layers = divisions(T, W, 2.4e-3, 8, 1.22)
    assert mesh.topology.index_map(3).size_global == (n * n + 2 * n * (m + len(outer))) * layers
    ds = Measure("ds", domain=mesh, subdomain_data=tags)
    for tag, expected in zip(range(2, 7), (W**2 / 4, W**2 / 4, W * T, W * T / 2, W * T / 2), strict=True):
        found = comm.allreduce(assemble_scalar(form(default_scalar_type(1.0) * ds(tag))))
        assert found == pytest.approx(expected, rel=1e-12)
