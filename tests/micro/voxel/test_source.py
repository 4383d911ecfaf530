"""The voxel source: families of cells through the data job, small."""

import logging

import numpy as np
import pytest

from micro import generate
from micro.data.dataset import read_arrays
from micro.voxel import sets
from micro.voxel.cells.frames import make_frame
from micro.voxel.cells.tpms import SURFACES, make_tpms
from micro.voxel.solver.homogeniser import Homogeniser
from micro.voxel.source import FAMILIES, VoxelSource, draw, pieces, whole


def make(path, **options):
    """A set of six small cells, and its exit code."""
    chosen = {"samples": 6, "seed": 3, "block": 4, "resolution": 8, "fraction": "0.1 0.95"} | options
    words = [word for name, value in chosen.items() for word in (f"--{name}", *str(value).split())]
    return generate.main(["voxels", "--output", str(path), *words])


def read(path):
    arrays, manifest, _ = read_arrays(path)
    return arrays, manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_sets(family, tmp_path):
    """Whole, reproducible cell by cell, and the tensor is that of the density."""
    assert make(tmp_path / "a", family=family, tolerance=1e-8) == 0
    arrays, manifest = read(tmp_path / "a")
    assert arrays["density"].shape == (6, 8, 8, 8) and manifest["parameters"]["family"] == family
    assert not arrays["status"].any()
    for k in (0, 5):
        cell = draw(family, 8, k, 3)
        np.testing.assert_array_equal(arrays["density"][k], cell.density)
        assert (arrays["kind"][k], arrays["parameter"][k], arrays["above"][k]) == (
            cell.kind,
            cell.parameter,
            cell.above,
        )
        exact = Homogeniser(cell.density).solve(tolerance=1e-10).tensor[0].numpy()
        np.testing.assert_allclose(arrays["tensor"][k], exact, atol=1e-7 * exact.max())
    assert len(np.unique(arrays["density"].reshape(6, -1), axis=0)) == 6
    if family in ("frame", "tpms"):
        assert arrays["kind"].tolist() == [k % (9 if family == "frame" else 5) for k in range(6)]
        assert set(np.unique(arrays["density"])) == {0.0, 1.0}
        assert all(whole(cell > 0) for cell in arrays["density"])


@pytest.mark.parametrize("family", ["frame", "tpms"])
def test_placed_at_random(family, tmp_path):
    """A placed cell is another one; moved by whole voxels it is the same one, moved."""
    assert make(tmp_path / "a", family=family, place="random", labels="none", resolution=16) == 0
    arrays, manifest = read(tmp_path / "a")
    assert manifest["parameters"]["place"] == "random"
    for k, density in enumerate(arrays["density"]):
        still = draw(family, 16, k, 3)
        moved = draw(family, 16, k, 3, place="random")
        np.testing.assert_array_equal(density, moved.density)
        assert (moved.density != still.density).any()
    make_cell, name = (make_frame, "star") if family == "frame" else (make_tpms, "gyroid")
    shift = np.array([3, 5, -7]) / 16
    turned = np.roll(make_cell(name, 16, 0.13), (3, 5, -7), (0, 1, 2))
    np.testing.assert_array_equal(make_cell(name, 16, 0.13, shift=shift), turned)


def test_kinds(tmp_path):
    assert make(tmp_path / "a", family="tpms", kinds="frd primitive", labels="none") == 0
    arrays, manifest = read(tmp_path / "a")
    assert manifest["parameters"]["kinds"] == ["frd", "primitive"]
    assert [SURFACES[int(k)] for k in arrays["kind"]] == ["frd", "primitive"] * 3


def test_labels(tmp_path):
    assert make(tmp_path / "a", labels="none", void=1e-9) == 0
    assert make(tmp_path / "b", labels="displacement", tolerance=1e-7, preconditioner="fourier") == 0
    plain, solved = read(tmp_path / "a")[0], read(tmp_path / "b")[0]
    assert "tensor" not in plain and plain["density"].min() == 1e-9
    np.testing.assert_array_equal(plain["density"] == 1, solved["density"] == 1)
    cell = Homogeniser(solved["density"])
    from_fields = cell.tensor(cell.load.new_tensor(solved["displacement"]))
    np.testing.assert_allclose(from_fields, solved["tensor"], atol=1e-12)


def test_sample_does_not_depend_on_its_block(tmp_path):
    for name, block in (("a", 2), ("b", 6)):
        assert make(tmp_path / name, family="tpms", block=block) == 0
    a, b = read(tmp_path / "a")[0], read(tmp_path / "b")[0]
    np.testing.assert_array_equal(a["density"], b["density"])
    np.testing.assert_allclose(a["tensor"], b["tensor"], atol=1e-6)


def test_cell_that_does_not_converge_is_told(monkeypatch):
    words = ["voxels", "--output=x", "--samples=2", "--resolution=8", "--tolerance=1e-9"]
    source = VoxelSource.from_arguments(generate.make_parser([VoxelSource]).parse_args(words))
    solve = Homogeniser.solve
    monkeypatch.setattr(Homogeniser, "solve", lambda self, **options: solve(self, iterations=1, **options))
    assert source.solve(np.arange(2)).reason == ["conjugate gradients did not converge in 1 steps"] * 2


def test_all_sets_of_the_paper(tmp_path):
    """By one command; given again, it keeps what is there."""
    words = [f"--output={tmp_path}", "--part=0.0005", "--resolution=6", "--labels=none", "--radius", "0.1", "0.2"]
    assert sets.main(words) == 0
    sizes = {family: len(read(tmp_path / family)[0]["sample"]) for family in FAMILIES}
    assert sizes == {"frame": 1, "tpms": 1, "lhs": 4, "p-lhs": 4}
    stamp = (tmp_path / "lhs" / "shard-0000.h5").stat().st_mtime_ns
    assert sets.main(words) == 0
    assert (tmp_path / "lhs" / "shard-0000.h5").stat().st_mtime_ns == stamp
    assert sets.main([*words, "--void=2"]) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--part=nan"], "part must be above 0 and at most 1, got nan."),
        (["--part=0"], "part must be above 0 and at most 1, got 0.0."),
        (["--part=2"], "part must be above 0 and at most 1, got 2.0."),
        (["--family=lhs"], "--family must not be given, it differs from set to set."),
        (["--samples", "3"], "--samples must not be given, it differs from set to set."),
    ],
)
def test_options_that_are_none_for_all_sets_are_refused(tmp_path, capsys, words, sentence):
    assert sets.main([f"--output={tmp_path / 'sets'}", *words]) == 2
    assert capsys.readouterr().err == sentence + "\n"
    assert not (tmp_path / "sets").exists()


def test_pieces_of_periodic_solids():
    solid = np.zeros((5, 5, 5), dtype=bool)
    assert pieces(solid) == 0
    solid[0, 2, 2] = solid[4, 2, 2] = True
    assert pieces(solid) == 1 and not whole(solid)
    solid[2, 2, 2] = True
    assert pieces(solid) == 2
    assert whole(make_tpms("gyroid", 10)) and whole(make_frame("grid", 10, 0.12))
    assert not whole(make_tpms("primitive", 10, 1.5))  # balls that do not meet
    bars = make_frame("grid", 10, 0.12)
    bars[:, 5, 5] = True  # a bar on its own
    assert not whole(bars)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"family": "foam"}, "Argument --family: invalid choice: 'foam'"),
        ({"resolution": 1}, "resolution must be at least 2, got 1"),
        ({"void": 1}, "void must be at least 0 and below 1, got 1.0"),
        ({"fraction": "0.2 1.5"}, "fraction must be at most 1, got 1.5"),
        ({"tolerance": 0}, "tolerance must lie between 0 and 1, got 0.0"),
        ({"radius": "0.2 0.1"}, "radius must be one positive number or two that increase, got 0.2 0.1"),
        ({"family": "tpms", "kinds": "foam"}, "kinds of tpms must be among primitive, gyroid, diamond, iwp, frd, got"),
        ({"family": "lhs", "kinds": "grid"}, "kinds of lhs must be among none, got 'grid'"),
        ({"family": "lhs", "design": 5}, "samples must be at most design, 5, got 6"),
        ({"poisson": 0.5}, "E must be positive and nu lie between -1 and 0.5, got 1.0 and 0.5"),
    ],
)
def test_bad_options(tmp_path, caplog, options, sentence):
    with caplog.at_level(logging.ERROR):
        assert make(tmp_path / "set", **options) == 2
    assert sentence in caplog.text


def test_cells_that_cannot_be_are_told(monkeypatch):
    monkeypatch.setattr("micro.voxel.source.TRIES", 3)
    sentence = "grid with 8 voxels per side is never one connected piece with .* and a radius in"
    with pytest.raises(ValueError, match=sentence):
        draw("frame", 8, 0, 0, radius=(0.01, 0.02))
