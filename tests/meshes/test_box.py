"""The box: volumes, sizes, groups that lie where they say, and what is refused."""

import gmsh
import numpy as np
import pytest

from meshes.box import GROUPS, box, divisions, main, write
from meshes.session import session
from meshes.taylor_bar import _heights

LENGTHS = (3.0, 2.0, 5.0)


def read():
    """Nodes (N, 3) by tag, cells (n, k) of tags, and the groups: name -> (dimension, tag)."""
    tags, flat, _ = gmsh.model.mesh.getNodes()
    x = np.zeros((int(tags.max()) + 1, 3))
    x[tags.astype(int)] = flat.reshape(-1, 3)
    (kind,) = gmsh.model.mesh.getElementTypes(3)
    size = gmsh.model.mesh.getElementProperties(kind)[3]
    cells = gmsh.model.mesh.getElementsByType(kind)[1].reshape(-1, size).astype(int)
    return x, cells, len(tags), {gmsh.model.getPhysicalName(*key): key for key in gmsh.model.getPhysicalGroups()}


def volume(x, cells):
    """Signed volume of each cell, exact for tetrahedra and parallelepipeds."""
    corner = x[cells]
    edges = corner[:, [1, 2, 3] if cells.shape[1] == 4 else [1, 3, 4]] - corner[:, :1]
    return np.linalg.det(edges) / (6.0 if cells.shape[1] == 4 else 1.0)


@pytest.mark.parametrize(("kind", "a_cube"), [("tetrahedra", 6), ("hexahedra", 1)])
@pytest.mark.parametrize("size", [0.5, 0.9, 7.0])
def test_cells_are_equal_and_fill_the_box(kind, a_cube, size):
    with session():
        box(LENGTHS, size, kind=kind)
        x, cells, nodes, _ = read()
    counts = divisions(LENGTHS, size)
    assert nodes == np.prod(np.array(counts) + 1)
    assert len(cells) == a_cube * np.prod(counts)
    signed = volume(x, cells)
    assert np.allclose(signed, 30.0 / len(cells), rtol=1e-9)
    edge = np.array(LENGTHS) / counts
    assert np.allclose(x / edge, np.rint(x / edge), atol=1e-9)


@pytest.mark.parametrize("kind", ["tetrahedra", "hexahedra"])
def test_groups_lie_where_they_say_and_cover_the_surface(kind):
    with session():
        box(LENGTHS, 1.0, kind=kind)
        _, _, _, names = read()
        assert set(names) == set(GROUPS)
        at = {name: gmsh.model.mesh.getNodesForPhysicalGroup(*names[name])[1].reshape(-1, 3) for name in GROUPS[1:]}
    assert np.all(at["bottom"][:, 2] == 0.0)
    assert np.all(at["top"][:, 2] == 5.0)
    assert len(at["bottom"]) == len(at["top"]) == 4 * 3
    x, y = at["side"][:, 0], at["side"][:, 1]
    assert np.all((x == 0.0) | (x == 3.0) | (y == 0.0) | (y == 2.0))
    assert len(at["side"]) == (2 * 3 + 2 * 2) * 6


@pytest.mark.parametrize("kind", ["tetrahedra", "hexahedra"])
def test_graded_box_is_fine_where_it_is_asked_to_be_and_as_full(kind):
    with session():
        box((3.0, 4.0, 6.0), 1.0, kind=kind, grading=4.0, rim=0.5)
        x, cells, _, names = read()
        top = gmsh.model.mesh.getNodesForPhysicalGroup(*names["top"])[1].reshape(-1, 3)
    assert np.all(top[:, 2] == 6.0)
    signed = volume(x, cells)
    assert np.all(signed > 0.0)
    assert signed.sum() == pytest.approx(72.0, rel=1e-12)
    z = np.unique(x[cells, 2])
    assert len(z) == 7 and np.diff(z)[-1] / np.diff(z)[0] == pytest.approx(4.0)
    assert np.allclose(np.diff(np.diff(np.log(np.diff(z)))), 0.0, atol=1e-9)
    for i, inside in ((0, 1), (1, 2)):
        widths = np.diff(np.unique(x[cells, i]))
        assert np.allclose(widths, widths[1] * np.array([0.5, *[1.0] * inside, 0.5]), rtol=1e-12)
    with session():
        box((3.0, 2.0, 4.0), 2.0, kind=kind, rim=0.5)  # two cells across and one: nothing inside
        x, cells, *_ = read()
    assert np.unique(x[cells, 0]).tolist() == [0.0, 1.5, 3.0]
    assert np.unique(x[cells, 1]).tolist() == [0.0, 2.0]


def test_grading_means_the_same_as_for_the_bar():
    """Above 1 the layers where the load comes in, foot or bottom, are the thinner ones, in the same progression."""
    with session():
        box((1e-3, 1e-3, 5e-3), 1e-3, kind="hexahedra", grading=3.0)
        x, cells, *_ = read()
    assert np.allclose(np.unique(x[cells, 2]), 5e-3 * np.concatenate([[0.0], _heights(5, 3.0)]), rtol=1e-12)


def test_divisions_are_the_nearest_that_fit():
    assert divisions((10.0, 10.0, 20.0), 0.5) == (20, 20, 40)
    assert divisions((1.0, 1.4, 1.6), 1.0) == (1, 1, 2)
    assert divisions((1.0, 1.0, 1.0), 100.0) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (((1.0, 1.0), 1.0), {}, "lengths must be three numbers, got 2."),
        (((1.0, -1.0, 1.0), 1.0), {}, "a length must be a positive finite number, got -1.0."),
        (((1.0, 1.0, 1.0), 0.0), {}, "size must be a positive finite number, got 0.0."),
        (((1.0, 1.0, 1.0), float("nan")), {}, "size must be a positive finite number, got nan."),
        (((1.0, 1.0, 1.0), 1.0), {"grading": 0.0}, "grading must be a positive finite number, got 0.0."),
        (((1.0, 1.0, 1.0), 1.0), {"rim": -1.0}, "rim must be a positive finite number, got -1.0."),
        (((1.0, 1.0, 1.0), 1.0), {"kind": "wedges"}, "kind must be one of tetrahedra, hexahedra, got 'wedges'."),
    ],
)
def test_bad_input_is_one_sentence_and_no_session(arguments, options, sentence):
    with pytest.raises(ValueError) as caught:
        box(*arguments, **options)
    assert str(caught.value) == sentence
    assert not gmsh.isInitialized()


def test_file_is_written_whole(tmp_path, capsys):
    path = write(tmp_path / "box.msh", LENGTHS, 2.0, kind="hexahedra")
    assert [entry.name for entry in tmp_path.iterdir()] == ["box.msh"]
    with session():
        gmsh.merge(str(path))
        assert set(read()[3]) == set(GROUPS)
    assert main(["--output", str(tmp_path / "box.txt")]) == 2
    assert capsys.readouterr().err == "The mesh file must end in .msh, got 'box.txt'.\n"
