"""Voxels from files and from surfaces: what is written is read, what is filled has its volume, the rest is refused."""

import itertools
import sys

import h5py
import numpy as np
import pytest

from micro.voxel.cells.files import read_voxels
from micro.voxel.cells.surface import fill, read_stl, read_triangles


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(0, 200, (3, 4, 5)).astype(np.uint16)


def test_files_give_what_was_written(voxels, tmp_path):
    np.save(tmp_path / "a.npy", voxels)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/cell"] = voxels
        file["other"] = np.arange(3)
    voxels.astype(">u2").tofile(tmp_path / "a.raw")
    read = [
        read_voxels(tmp_path / "a.npy"),
        read_voxels(tmp_path / "a.h5"),
        read_voxels(tmp_path / "a.h5", dataset="group/cell"),
        read_voxels(tmp_path / "a.raw", shape=(3, 4, 5), dtype=">u2"),
    ]
    for found in read:
        np.testing.assert_array_equal(found, voxels)
        assert found.dtype.isnative


def test_stack_of_images(voxels, tmp_path):
    """Layers in the order of their names; x to the right, y upwards."""
    image = pytest.importorskip("PIL.Image")
    for z in range(5):
        image.fromarray(voxels[:, ::-1, z].T.astype(np.uint8)).save(tmp_path / f"layer{z}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    np.testing.assert_array_equal(read_voxels(tmp_path), voxels)
    image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "layer9.png")
    with pytest.raises(ValueError, match=r"layer9.png must have \(4, 3\) pixels as those before, got \(2, 2\)."):
        read_voxels(tmp_path)


def test_layers_are_counted_as_people_do(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for z in (1, 2, 10, 11):
        image.fromarray(np.full((2, 2), z, np.uint8)).save(tmp_path / f"slice{z}.png")
    assert read_voxels(tmp_path)[0, 0].tolist() == [1, 2, 10, 11]
    (tmp_path / "slice2.png").write_bytes((tmp_path / "slice2.png").read_bytes()[:45])
    with pytest.raises(ValueError, match=r"slice2.png is not an image, or it is truncated\."):
        read_voxels(tmp_path)


@pytest.mark.parametrize("dtype", ["<u2", "u1", "<f4"])
def test_pages_of_a_tiff(voxels, tmp_path, dtype):
    """All the layers of a scan in one file, with all their bits."""
    image = pytest.importorskip("PIL.Image")
    values = (voxels * (300 if dtype == "<u2" else 1)).astype(dtype)
    first, *others = (image.fromarray(np.ascontiguousarray(values[:, ::-1, z].T)) for z in range(5))
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_voxels(tmp_path / "a.tif"), values)
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:150])
    with pytest.raises(ValueError, match="b.tif is not an image, or it is truncated"):
        read_voxels(tmp_path / "b.tif")


def test_what_is_no_voxels_is_refused(voxels, tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((3, 3)))
    np.save(tmp_path / "nan.npy", np.full((2, 2, 2), np.nan))
    voxels.tofile(tmp_path / "a.raw")
    (tmp_path / "empty").mkdir()
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"] = file["b"] = voxels
    (tmp_path / "half.h5").write_bytes((tmp_path / "two.h5").read_bytes()[:100])
    for name, options, sentence in (
        ("missing.npy", {}, "does not exist"),
        ("flat.npy", {}, r"must hold \(X, Y, Z\) or \(cells, X, Y, Z\) numbers, got \(3, 3\) float64"),
        ("nan.npy", {}, "must hold finite numbers"),
        ("a.raw", {}, "shape and dtype must be given for a raw file"),
        ("a.raw", {"shape": (3, 4, 6), "dtype": "<u2"}, "must hold 72 numbers of <u2, 144 bytes, it holds 120 bytes"),
        ("two.h5", {}, "dataset must be named, .* has these of three or four axes: a, b"),
        ("two.h5", {"dataset": "c"}, "has no data set c"),
        ("empty", {}, "it holds none"),
        ("half.h5", {}, "is not an HDF5 file, or it is truncated"),
        ("a.raw", {"shape": (3, 4), "dtype": "<u2"}, "shape must be one positive number of voxels or three, got"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_voxels(tmp_path / name, **options)


def test_missing_package_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(
        ValueError, match="Reading images needs the Python package Pillow, which is not installed here."
    ):
        read_voxels(tmp_path)


def octahedron(centre=0.5, size=0.4):
    """Triangles of an octahedron, outwards."""
    tips = centre + size * np.concatenate([np.eye(3), -np.eye(3)])
    faces = [(i, j, k) for i, j, k in itertools.product((0, 3), (1, 4), (2, 5))]
    return tips[np.array(faces)]


def test_filled_octahedron():
    n = 32
    solid = fill(octahedron(), n, box=((0, 0, 0), (1, 1, 1)))
    x = (np.arange(n) + 0.5) / n - 0.5
    X, Y, Z = np.meshgrid(x, x, x, indexing="ij")
    distance = abs(X) + abs(Y) + abs(Z) - 0.4
    off = abs(distance) > 1e-3
    np.testing.assert_array_equal(solid[off], distance[off] < 0)


def test_filled_box_and_hollow():
    """Surfaces along the voxels' faces, and one inside the other; the box is that of the surface."""
    outer, inner = octahedron(0.5, 0.5), octahedron(0.5, 0.25)
    hollow = fill(np.concatenate([outer, inner]), 40)
    assert hollow.mean() == pytest.approx(1 / 6 - 1 / 48, rel=0.02)
    assert not hollow[20, 20, 20] and hollow[20, 20, 35]
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    quads = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
    cube = np.concatenate([corners[[[a, b, c], [a, c, d]]] for a, b, c, d in quads])
    assert fill(cube, (3, 4, 5)).all()
    assert fill(cube, 8, box=((-1, -1, -1), (1, 1, 1))).sum() == 64


@pytest.mark.parametrize(("suffix", "package"), [(".msh", "gmsh"), (".ply", "pyvista"), (".vtp", "pyvista")])
def test_a_file_that_is_no_surface_is_refused(tmp_path, suffix, package):
    pytest.importorskip(package)
    (tmp_path / f"a{suffix}").write_text("nothing")
    with pytest.raises(ValueError, match=f"a{suffix} (is not a mesh that gmsh reads|holds no triangles)"):
        fill(read_triangles(tmp_path / f"a{suffix}"), 4)


def test_open_surface_is_refused():
    with pytest.raises(ValueError, match="triangles must form a closed surface"):
        fill(octahedron()[1:], 16)


def test_stl_files(tmp_path):
    triangles = octahedron()
    record = np.zeros(len(triangles), np.dtype([("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")]))
    record["c"] = triangles
    (tmp_path / "a.stl").write_bytes(b"solid or so".ljust(80) + len(record).to_bytes(4, "little") + record.tobytes())
    lines = ["solid octahedron"]
    for corners in triangles:
        lines += [
            "facet normal 0 0 0",
            "outer loop",
            *(f"vertex {x} {y} {z}" for x, y, z in corners),
            "endloop",
            "endfacet",
        ]
    (tmp_path / "b.stl").write_text("\n".join([*lines, "endsolid octahedron"]))
    np.testing.assert_allclose(read_stl(tmp_path / "a.stl"), triangles, atol=1e-7)
    np.testing.assert_allclose(read_stl(tmp_path / "b.stl"), triangles, rtol=1e-15)
    solids = [fill(read_triangles(tmp_path / name), 20, ((0, 0, 0), (1, 1, 1))) for name in ("a.stl", "b.stl")]
    np.testing.assert_array_equal(solids[0], solids[1])
    (tmp_path / "c.stl").write_text("solid nothing\nvertex 1 2\n")
    with pytest.raises(ValueError, match="is not a whole STL file"):
        fill(read_triangles(tmp_path / "c.stl"), 8)


@pytest.mark.parametrize("suffix", [".ply", ".msh"])
def test_other_surfaces(suffix, tmp_path):
    """A cube through pyvista, a ball through gmsh."""
    if suffix == ".ply":
        pyvista = pytest.importorskip("pyvista")
        pyvista.Cube().save(tmp_path / "a.ply")
        assert fill(read_triangles(tmp_path / "a.ply"), 5).all()
    else:
        gmsh = pytest.importorskip("gmsh")
        gmsh.initialize(interruptible=False)
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.model.occ.addSphere(0, 0, 0, 1)
        gmsh.model.occ.synchronize()
        gmsh.model.mesh.generate(2)
        gmsh.write(str(tmp_path / "a.msh"))
        gmsh.finalize()
        assert fill(read_triangles(tmp_path / "a.msh"), 24).mean() == pytest.approx(np.pi / 6, rel=0.05)
