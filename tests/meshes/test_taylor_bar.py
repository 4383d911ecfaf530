"""Taylor bar: volume, Jacobians, groups, mirror symmetry, cell counts, bad input."""

import math
import re

import gmsh
import numpy as np
import pytest

from meshes.session import session
from meshes.taylor_bar import GROUPS, divisions, main, taylor_bar, write

H, D = 5e-3, 1e-3


@pytest.fixture(autouse=True)
def gmsh_session():
    with session():
        yield


def nodes():
    tags, x, _ = gmsh.model.mesh.getNodes()
    order = np.argsort(tags)
    assert np.array_equal(tags[order], np.arange(1, len(tags) + 1))
    return x.reshape(-1, 3)[order]


def hexahedra():
    types, tags, ends = gmsh.model.mesh.getElements(3)
    assert list(types) == [5], "only eight-node hexahedra"
    return tags[0], ends[0].reshape(-1, 8).astype(int) - 1


def volume():
    return gmsh.model.mesh.getElementQualities(hexahedra()[0], "volume").sum()


def test_volume_converges_with_order_two_to_the_cylinder():
    errors = []
    for cells in (8, 16, 32):
        taylor_bar(2e-3, D, cells)
        errors.append(1.0 - volume() / (math.pi / 4 * D**2 * 2e-3))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2.0) < 0.05), orders
    assert errors[-1] < 0.01


def test_volume_is_the_prism_over_the_rim_polygon():
    taylor_bar(H, D, 10, grading=2.5)
    sides = 8 * divisions(H, D, 10)[0]
    prism = sides / 2 * math.sin(2 * math.pi / sides) * (D / 2) ** 2 * H
    assert volume() == pytest.approx(prism, rel=1e-13)


@pytest.mark.parametrize("cells", [4, 6, 10, 14, 20])
@pytest.mark.parametrize("quarter", [False, True])
def test_jacobians_are_positive_and_cells_are_square(cells, quarter):
    taylor_bar(1.5e-3, D, cells, quarter=quarter)
    tags, _ = hexahedra()
    assert gmsh.model.mesh.getElementQualities(tags, "minDetJac").min() > 0.0
    # minSJ, the scaled Jacobian at the corners, is 1 for a box and below 0 for a tangled cell.
    assert gmsh.model.mesh.getElementQualities(tags, "minSJ").min() > 0.55


def test_quarter_has_a_quarter_of_the_volume_and_the_same_nodes():
    taylor_bar(H, D, 10)
    whole, x = volume(), nodes()
    taylor_bar(H, D, 10, quarter=True)
    assert volume() == pytest.approx(whole / 4, rel=1e-13)
    inside = x[(x[:, 0] >= 0.0) & (x[:, 1] >= 0.0)]
    y = nodes()
    assert len(inside) == len(y)
    near = np.abs(inside[:, None] - y[None]).max(axis=-1).min(axis=1)
    assert near.max() < 1e-14 * D


@pytest.mark.parametrize("quarter", [False, True])
def test_every_node_belongs_to_a_cell(quarter):
    taylor_bar(H, D, 8, quarter=quarter)
    assert np.array_equal(np.unique(hexahedra()[1]), np.arange(len(nodes())))


@pytest.mark.parametrize("quarter", [False, True])
def test_every_boundary_facet_is_tagged_exactly_once(quarter, facets, boundary):
    taylor_bar(H, D, 8, quarter=quarter)
    names = {gmsh.model.getPhysicalName(*group) for group in gmsh.model.getPhysicalGroups()}
    assert names == set(GROUPS if quarter else GROUPS[:4])
    tagged = np.sort(np.concatenate([facets(name) for name in names - {"body"}]), axis=1)
    order = np.lexsort(tagged.T[::-1])
    assert np.array_equal(tagged[order], boundary(hexahedra()[1]))


def test_groups_lie_where_their_names_say(facets):
    taylor_bar(H, D, 8, quarter=True)
    x = nodes()
    assert np.all(x[facets("foot"), 2] == 0.0)
    assert np.all(x[facets("top"), 2] == H)
    assert np.all(x[facets("symmetry_x"), 0] == 0.0)
    assert np.all(x[facets("symmetry_y"), 1] == 0.0)
    radius = np.hypot(*x[facets("side"), :2].reshape(-1, 2).T)
    assert np.allclose(radius, D / 2, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("mirror", [(-1, 1, 1), (1, -1, 1)])
def test_nodes_are_mirror_images_to_the_last_bit(mirror):
    taylor_bar(H, D, 10, grading=3.0)
    x = nodes()
    there = {tuple(row) for row in x}
    assert len(there) == len(x)
    assert {tuple(row + 0.0) for row in x * mirror} == there


def test_paper_case_has_the_papers_number_of_cells():
    taylor_bar(H, D, 10)
    cells = hexahedra()[1]
    assert len(cells) == 3192
    assert abs(len(cells) / 3167 - 1) < 0.01


@pytest.mark.parametrize(("length", "cells"), [(1e-3, 4), (5e-3, 6), (2e-4, 12), (7.0, 8)])
def test_number_of_cells_is_the_formula(length, cells):
    taylor_bar(length, length / 3, cells)
    n, m, layers = divisions(length, length / 3, cells)
    assert 2 * (n + m) == cells
    assert len(hexahedra()[0]) == 4 * (n * n + 2 * n * m) * layers


def test_grading_is_the_ratio_of_top_to_foot_layer():
    taylor_bar(H, D, 8, grading=4.0)
    steps = np.diff(np.unique(nodes()[:, 2]))
    assert steps[-1] / steps[0] == pytest.approx(4.0, rel=1e-10)
    assert np.all(np.diff(steps) > 0.0)


def test_written_file_holds_the_same_mesh_bit_for_bit(tmp_path):
    path = write(tmp_path / "bar.msh", H, D, 8, quarter=True)
    taylor_bar(H, D, 8, quarter=True)
    x, cells = nodes(), hexahedra()[1]
    gmsh.open(str(path))
    assert np.array_equal(nodes(), x)
    assert np.array_equal(hexahedra()[1], cells)
    assert {gmsh.model.getPhysicalName(*group) for group in gmsh.model.getPhysicalGroups()} == set(GROUPS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bar.msh"]


def test_repeated_use_leaves_one_model():
    before = len(gmsh.model.list())
    for cells in (4, 6):
        taylor_bar(H, D, cells)
    assert len(gmsh.model.list()) == before + 1
    assert gmsh.model.getCurrent() == "taylor_bar"


@pytest.mark.parametrize(
    ("argument", "value", "sentence"),
    [
        ("length", -1.0, "length must be a positive finite number, got -1.0."),
        ("length", math.nan, "length must be a positive finite number, got nan."),
        ("diameter", 0.0, "diameter must be a positive finite number, got 0.0."),
        ("diameter", math.inf, "diameter must be a positive finite number, got inf."),
        ("cells", 0, "cells must be an even whole number of at least 4 (cells across the diameter), got 0."),
        ("cells", 7, "cells must be an even whole number of at least 4 (cells across the diameter), got 7."),
        ("cells", 8.0, "cells must be an even whole number of at least 4 (cells across the diameter), got 8.0."),
        ("grading", -2.0, "grading must be a positive finite number, got -2.0."),
    ],
)
def test_bad_argument_is_one_sentence(argument, value, sentence):
    arguments = {"length": H, "diameter": D, "cells": 8, "grading": 1.0} | {argument: value}
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        taylor_bar(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [["--cells", "0"], ["--length", "-1"], ["--output", "bar.vtk"], ["--output", "missing/bar.msh"]],
)
def test_command_line_refuses_with_one_sentence_and_writes_nothing(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.endswith(".\n")
    assert list(tmp_path.iterdir()) == []


def test_command_line_writes_the_file(tmp_path):
    path = tmp_path / "bar.msh"
    assert main(["--cells", "4", "--length", "1e-3", "--output", str(path)]) == 0
    assert path.is_file()


@pytest.mark.parametrize("cells", [4, 6, 10])
def test_the_estimate_of_the_size_is_the_number_of_cells(monkeypatch, cells):
    """What is refused as too large is refused by the number of cells that the mesh would have."""
    estimates = []
    monkeypatch.setattr("meshes.taylor_bar.check_cells", estimates.append)
    taylor_bar(H, D, cells)
    tags = gmsh.model.mesh.getElements(3)[1]
    assert estimates == [sum(len(group) for group in tags)]
