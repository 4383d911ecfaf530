"""The Taylor source: real samples through the data job, small."""

import logging

import h5py
import numpy as np
import pytest

from micro import generate
from micro.crystal.paths import PROTOCOLS, Insertions, PathOptions, draw_paths, random_walk
from micro.data.cli import as_range
from micro.data.dataset import read_arrays, read_dataset

SMALL = ["--seed=5", "--strain=0.05", "--steps=20", "--grains=4", "--tolerance=0.04", "--duration", "1e-6", "1e-4"]
#: Moduli of the paper's table A.1, Pa.
G, LAMBDA_E = 25e9, 24e9


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """Five paths of 20 steps in shards of two."""
    path = tmp_path_factory.mktemp("taylor") / "set"
    assert generate.main(["taylor", f"--output={path}", "--samples=5", "--block=2", *SMALL]) == 0
    return read_dataset(path)


def test_set_is_whole(small_set):
    assert small_set.ids.tolist() == [0, 1, 2, 3, 4]
    assert small_set.U.shape == small_set.stress.shape == (5, 21, 6)
    np.testing.assert_array_equal(small_set.U[:, 0], np.tile([1.0, 1, 1, 0, 0, 0], (5, 1)))
    np.testing.assert_array_equal(small_set.stress[:, 0], 0.0)
    assert np.all((small_set.duration >= 1e-6) & (small_set.duration <= 1e-4))
    assert small_set.meta["parameters"]["crystal"]["G"] == G


def test_pressure_is_that_of_the_volume_change(small_set):
    """Slip and twinning keep the volume, so that the mean stress is 2 lambda_e (J - 1) whatever the history, (A.3)."""
    a, b, c, d, e, f = np.moveaxis(small_set.U, -1, 0)
    J = a * (b * c - e * e) - d * (d * c - e * f) + f * (d * e - b * f)
    mean = small_set.stress[..., :3].mean(axis=-1)
    exact = 2 * LAMBDA_E * (J - 1)
    np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-9 * np.abs(exact).max())


def test_flow_limits_the_deviator(small_set):
    """An elastic polycrystal would carry some GPa at these strains, a flowing one carries part of that."""
    deviator = small_set.stress.copy()
    deviator[..., :3] -= deviator[..., :3].mean(axis=-1, keepdims=True)
    elastic = 2 * G * np.abs(small_set.U[..., 3:]).max()
    assert 1e6 < np.abs(deviator[..., 3:]).max() < 0.8 * elastic


def test_sample_does_not_depend_on_its_block(small_set, tmp_path):
    """A path is the same bit for bit; its stress to the tolerance of Newton."""
    assert generate.main(["taylor", f"--output={tmp_path}/set", "--samples=5", "--block=5", *SMALL]) == 0
    other = read_dataset(tmp_path / "set")
    np.testing.assert_array_equal(other.U, small_set.U)
    np.testing.assert_array_equal(other.duration, small_set.duration)
    atol = 1e-6 * np.abs(small_set.stress).max()
    np.testing.assert_allclose(other.stress, small_set.stress, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--strain", "-0.5"], "strain must be one positive number or two that increase, got -0.5"),
        (["--strain", "nan"], "strain must be one positive number or two that increase, got nan"),
        (["--duration", "1e-4", "1e-6"], "duration must be one positive number or two that increase, got 0.0001 1e-06"),
        (["--knots", "5", "10", "20"], "knots must be one positive number or two that increase, got 5 10 20"),
        (["--grains", "0"], "grains must be at least 1, got 0"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--intervals", "odd"], "Argument --intervals: invalid choice: 'odd'"),
        (["--margin", "1.5"], "margin must lie between 0 and 1, got 1.5"),
        (["--protocols", "walk", "walk"], "protocols must be one name or several different ones, got walk walk"),
        (["--protocols"], "protocols must be one name or several different ones, got none"),
        (["--protocols", "wander"], "Argument --protocols: invalid choice: 'wander'"),
        (["--fractions", "1", "2"], "fractions must be one positive number for each of the 1 protocols, got 1 2"),
        (["--fractions", "-1"], "fractions must be one positive number for each of the 1 protocols, got -1"),
        (["--holds", "2", "1"], "holds must be one whole number from 0 to 1000000 or two that increase, got 2 1"),
        (["--holds", "30"], "steps must be at least 331 for these holds, jumps and ringing, got 200"),
        (["--protocols", "recorded"], "recorded must be a file if, and only if, protocols has recorded"),
        (["--recorded", "a.h5"], "recorded must be a file if, and only if, protocols has recorded"),
        (["--protocols", "recorded", "--recorded", "a.h5"], "a.h5 does not exist"),
        (["--protocols", "impact", "--rates", "1e4", "2e4"], "rates must span a factor of at least 4, got 10000 20000"),
        (["--grain-seed", "-1"], "grain-seed must lie between 0 and 2**63 - 1, got -1"),
    ],
)
def test_bad_options(tmp_path, caplog, options, sentence):
    with caplog.at_level(logging.ERROR):
        assert generate.main(["taylor", f"--output={tmp_path}/set", "--samples=5", *options]) == 2
    assert sentence in caplog.text
    assert caplog.text.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_range_of_one_number():
    assert as_range("strain", [0.5]) == (0.5, 0.5)
    assert as_range("strain", [0.1, 0.5]) == (0.1, 0.5)


def test_walks_of_a_set_are_those_of_the_paper(small_set):
    walk = random_walk(range(5), 5, strain=0.05, steps=20, duration=(1e-6, 1e-4))
    np.testing.assert_array_equal(small_set.U, walk.U)
    np.testing.assert_array_equal(small_set.time, walk.time)


def test_a_mixture_names_its_protocols(tmp_path):
    words = "--protocols walk cavity --fractions 1 3 --holds 1 --spacing random".split()
    output = tmp_path / "set"
    assert generate.main(["taylor", f"--output={output}", "--samples=4", "--grains=1", *SMALL[:3], *words]) == 0
    arrays, manifest, _ = read_arrays(output)
    assert manifest["arrays"]["protocol"]["names"] == list(PROTOCOLS)
    assert arrays["protocol"].dtype == np.int16
    options = PathOptions(
        protocols=("walk", "cavity"), fractions=(1.0, 3.0), strain=(0.05, 0.05), steps=20, duration=(1e-6, 1e-4),
        insertions=Insertions(holds=(1, 1), spacing="random"),
    )  # fmt: skip
    paths = draw_paths(range(4), 5, options)
    np.testing.assert_array_equal(arrays["protocol"], paths.protocol)
    np.testing.assert_array_equal(arrays["time"], paths.time)
    assert np.ptp(np.diff(arrays["time"], axis=1)) > 0
    with h5py.File(output / "shard-0000.h5") as shard:
        assert list(shard["protocol"].attrs["names"]) == list(PROTOCOLS)


def test_histories_are_those_of_the_state(tmp_path):
    """Slip only accumulates, twin fractions only grow, from zero."""
    words = ["taylor", f"--output={tmp_path}/set", "--samples=2", *SMALL, "--outputs", "twin_fraction", "slip"]
    assert generate.main(words) == 0
    arrays, manifest, _ = read_arrays(tmp_path / "set")
    names = [name for name in manifest["arrays"] if name.startswith(("twin_fraction", "slip_"))]
    assert {"twin_fraction", "slip_basal", "slip_prismatic", "slip_pyramidal"} <= set(names)
    for name in names:
        assert arrays[name].shape == (2, 21)
        np.testing.assert_array_equal(arrays[name][:, 0], 0.0)
        assert np.diff(arrays[name], axis=1).min() >= -1e-15
    assert arrays["slip_basal"].max() > 1e-3
