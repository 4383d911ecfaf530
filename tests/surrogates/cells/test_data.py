"""One cell for the command line: every kind of file gives the same cell, surfaces are filled, the rest is refused."""

import h5py
import numpy as np
import pytest

from micro.voxel.cells.frames import make_frame
from surrogates.cells.data import read_cell
from surrogates.homogenise import make_parser


def read(*words):
    options = vars(make_parser().parse_args([str(word) for word in words]))
    names = ("threshold", "dataset", "sample", "shape", "dtype", "spacing", "resolution", "box")
    return read_cell(options["cell"], **{name: options[name] for name in names})


@pytest.fixture
def cell():
    return make_frame("star", (4, 5, 6), 0.2)


def write_stl(path, low, high):
    """A box as twelve triangles."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (np.subtract(high, low)) + low
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    lines = ["solid box"]
    for a, b, c, d in quads:
        for triangle in ((a, b, c), (a, c, d)):
            lines += ["facet normal 0 0 0", "outer loop"]
            lines += ["vertex " + " ".join(str(v) for v in corners[k]) for k in triangle]
            lines += ["endloop", "endfacet"]
    path.write_text("\n".join([*lines, "endsolid box"]))


def test_every_kind_of_file_gives_the_cell(tmp_path, cell):
    image = pytest.importorskip("PIL.Image")
    grey = 200 * cell.astype(np.uint8) + 20
    np.save(tmp_path / "a.npy", cell)
    np.save(tmp_path / "many.npy", np.stack([~cell, cell]))
    grey.tofile(tmp_path / "a.raw")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["density"], file["other"] = cell.astype(float), np.ones((2, 2, 2))
    (tmp_path / "layers").mkdir()
    for z in range(6):
        image.fromarray(grey[:, ::-1, z].T).save(tmp_path / "layers" / f"{z}.png")
    for words in (
        ["a.npy"],
        ["many.npy", "--sample", 1],
        ["a.raw", "--shape", 4, 5, 6, "--dtype", "u1", "--threshold", 100],
        ["a.h5", "--dataset", "density"],
        ["layers", "--threshold", 100],
    ):
        values, spacing = read(tmp_path / words[0], *words[1:])
        np.testing.assert_array_equal(values, cell)
        np.testing.assert_array_equal(spacing, 1.0)
    assert read(tmp_path / "a.npy", "--spacing", 1, 2, 3)[1].tolist() == [1, 2, 3]


def test_surfaces_are_filled(tmp_path):
    write_stl(tmp_path / "a.stl", (0, 0, 0), (1, 2, 4))
    values, spacing = read(tmp_path / "a.stl", "--resolution", 8)
    assert values.shape == (2, 4, 8) and values.all() and spacing == pytest.approx(0.5)
    values, spacing = read(tmp_path / "a.stl", "--resolution", 4, 4, 4, "--box", -1, 0, 0, 1, 4, 4)
    assert values.mean() == 0.25 and spacing == pytest.approx([0.5, 1, 1])


def test_what_does_not_fit_is_refused(tmp_path, cell):
    write_stl(tmp_path / "a.stl", (0, 0, 0), (1, 1, 1))
    np.save(tmp_path / "a.npy", cell)
    np.save(tmp_path / "many.npy", np.stack([cell] * 2))
    np.savez(tmp_path / "b.npz", cell)
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    np.save(tmp_path / "grey.npy", 255 * cell.astype(np.uint8))
    cell.astype("u1").tofile(tmp_path / "a.raw")
    for name in ("a.h5", "b.stl", "a.txt"):
        (tmp_path / name).write_text("nothing")
    for words, sentence in (
        (["no.npy"], "no.npy does not exist"),
        (["a.txt"], "must be a folder of images or end in"),
        (["a.h5"], "not an HDF5 file"),
        (["b.npy"], "is an archive"),
        (["b.stl", "--resolution", 4], "is not a whole STL file"),
        (["a.stl"], "resolution must be given for a surface"),
        (["a.stl", "--resolution", 4, 4], "resolution must be one positive number of voxels or three, got"),
        (["a.stl", "--resolution", 0], "resolution must be one positive number"),
        (["a.stl", "--resolution", 4, "--box", 0, 0, 0, 1, 1, 0], "box must be two finite corners"),
        (["many.npy"], "sample must be given, .* holds 2 cells"),
        (["many.npy", "--sample", 2], "sample must lie between 0 and 1, got 2"),
        (["a.npy", "--sample", 0], "sample must not be given"),
        (["grey.npy"], r"unless a threshold is given, must lie between 0 \(void\) and 1 \(solid\), got 0 to 255"),
        (["grey.npy", "--threshold", "nan"], "threshold must be finite"),
        (["a.raw"], "shape and dtype must be given"),
        (["a.raw", "--shape", 4, 5, 6, "--dtype", "q9"], "dtype must be a type of NumPy"),
        (["a.raw", "--shape", 4, 5, 7, "--dtype", "u1"], "must hold 140 numbers of u1, 140 bytes, it holds 120 bytes"),
        (["a.npy", "--resolution", 8], "resolution must not be given for .*a.npy, it belongs to .stl, .msh"),
        (["a.npy", "--dtype", "u1"], "dtype must not be given for .*a.npy, it belongs to .raw"),
        (["a.stl", "--resolution", 4, "--spacing", 1, 1, 1], "spacing must not be given for .*a.stl, it follows"),
        (["a.npy", "--spacing", 1, -1, 1], "spacing must be three positive numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read(tmp_path / words[0], *words[1:])
