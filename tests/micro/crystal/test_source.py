"""The Taylor source: real samples through the data job, small."""

import logging

import numpy as np
import pytest

from micro import generate
from micro.crystal.materials import CrystalParameters
from micro.data.cli import as_range
from micro.data.dataset import read_dataset

SMALL = ["--seed=5", "--strain=0.05", "--steps=20", "--grains=4", "--duration", "1e-6", "1e-4"]


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
    assert small_set.meta["parameters"]["crystal"]["G"] == CrystalParameters().G


def test_pressure_is_that_of_the_volume_change(small_set):
    """Slip and twinning keep the volume, so that the mean stress is 2 lambda_e (J - 1) whatever the history, (A.3)."""
    a, b, c, d, e, f = np.moveaxis(small_set.U, -1, 0)
    J = a * (b * c - e * e) - d * (d * c - e * f) + f * (d * e - b * f)
    mean = small_set.stress[..., :3].mean(axis=-1)
    exact = 2 * CrystalParameters().lambda_e * (J - 1)
    np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-9 * np.abs(exact).max())


def test_flow_limits_the_deviator(small_set):
    """An elastic polycrystal would carry some GPa at these strains, a flowing one carries part of that."""
    deviator = small_set.stress.copy()
    deviator[..., :3] -= deviator[..., :3].mean(axis=-1, keepdims=True)
    elastic = 2 * CrystalParameters().G * np.abs(small_set.U[..., 3:]).max()
    assert 1e6 < np.abs(deviator[..., 3:]).max() < 0.8 * elastic


def test_sample_does_not_depend_on_its_block(small_set, tmp_path):
    """A path is the same bit for bit, and its stress to round-off."""
    assert generate.main(["taylor", f"--output={tmp_path}/set", "--samples=5", "--block=5", *SMALL]) == 0
    other = read_dataset(tmp_path / "set")
    np.testing.assert_array_equal(other.U, small_set.U)
    np.testing.assert_array_equal(other.duration, small_set.duration)
    atol = 1e-9 * np.abs(small_set.stress).max()
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
