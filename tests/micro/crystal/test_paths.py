"""Random strain paths: where they start, how they step, what they keep, what they depend on."""

import numpy as np
import pytest
from scipy import stats

from micro.crystal.paths import random_walk, walk as walks

START = np.array([1.0, 1, 1, 0, 0, 0])


def smallest_stretch(U: np.ndarray) -> np.ndarray:
    """Smallest principal stretch (s,) along each path, by the roots of a full tensor."""
    full = np.stack([U[..., [0, 3, 5]], U[..., [3, 1, 4]], U[..., [5, 4, 2]]], axis=-2)
    return np.linalg.eigvals(full).real.min(axis=(1, 2))


@pytest.mark.parametrize("intervals", ["fixed", "random"])
def test_paths_start_at_the_identity(intervals: str) -> None:
    walk = random_walk(range(5), 0, intervals=intervals, steps=50)
    assert walk.U.shape == (5, 51, 6)
    np.testing.assert_array_equal(walk.U[:, 0], np.tile(START, (5, 1)))
    np.testing.assert_allclose(walk.time, np.tile(np.linspace(0, 1, 51), (5, 1)), atol=1e-15)


def test_fixed_knots_step_by_the_root_of_the_interval() -> None:
    U = random_walk(range(40), 1, strain=0.3, intervals="fixed").U
    steps = np.diff(U[:, ::20], axis=1) / (0.3 * np.sqrt(0.1))
    np.testing.assert_allclose(np.abs(steps), 1.0, rtol=0, atol=1e-12)
    # 2400 signs, each component its own: no bias beyond four standard errors, no correlation of neighbours.
    signs = np.sign(steps)
    assert np.abs(signs.mean(axis=(0, 1))).max() < 4 / np.sqrt(400)
    correlation = np.corrcoef(signs.reshape(-1, 6), rowvar=False) - np.eye(6)
    assert np.abs(correlation).max() < 4 / np.sqrt(400)


def test_interpolant_is_monotone_between_knots() -> None:
    U = random_walk(range(20), 2, strain=0.3, intervals="fixed").U
    pieces = np.stack([U[:, 20 * k : 20 * k + 21] for k in range(10)], axis=1)
    ends = np.sign(pieces[:, :, -1] - pieces[:, :, 0])[:, :, None]
    assert (ends * np.diff(pieces, axis=2)).min() > -1e-14


def test_margin_is_kept_and_needed() -> None:
    strict, loose = (random_walk(range(60), 3, strain=0.5, margin=margin).U for margin in (0.6, 0.05))
    assert smallest_stretch(strict).min() >= 0.6 - 1e-12
    assert 0.05 - 1e-12 <= smallest_stretch(loose).min() < 0.6
    kept = smallest_stretch(loose) >= 0.6
    assert 0 < kept.sum() < 60
    np.testing.assert_array_equal(strict[kept], loose[kept])  # the first draw that respects the margin is taken


def test_a_path_depends_on_seed_and_id_alone() -> None:
    options = {"strain": (0.1, 0.5), "knots": (2, 10), "duration": (1e-6, 1e-4)}
    many, few = random_walk(range(12), 4, **options), random_walk([9, 2], 4, **options)
    np.testing.assert_array_equal(few.U, many.U[[9, 2]])
    np.testing.assert_array_equal(few.duration, many.duration[[9, 2]])
    assert len(np.unique(many.duration)) == 12
    assert not np.intersect1d(many.duration, random_walk(range(12), 5, **options).duration).size


def test_strain_duration_and_knots_are_spread_over_their_ranges() -> None:
    """With one knot the path ends at +-strain, which shows the strain drawn."""
    walk = random_walk(range(800), 6, strain=(0.01, 0.2), steps=1, knots=1, duration=(1e-6, 1e-4))
    for values, low, high in ((np.abs(walk.U[:, 1] - START)[:, 3], 0.01, 0.2), (walk.duration, 1e-6, 1e-4)):
        uniform = np.log(values / low) / np.log(high / low)
        assert stats.kstest(uniform, "uniform").pvalue > 0.01
    fixed = random_walk(range(60), 7, strain=0.05, steps=12, knots=(2, 4), intervals="fixed").U
    # N equal intervals show themselves by the size of all steps between their knots.
    drawn = [
        [n for n in (2, 3, 4) if np.allclose(np.abs(np.diff(path[:: 12 // n], axis=0)), 0.05 / np.sqrt(n), rtol=1e-9)]
        for path in fixed
    ]
    assert {tuple(found) for found in drawn} == {(2,), (3,), (4,)}


def test_a_strain_that_no_path_survives_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "DRAWS", 50)
    with pytest.raises(ValueError, match=r"^strain 50 is too large: no path of sample 3 respects the margin\.$"):
        random_walk([3], 0, strain=50.0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strain": 0.0}, "strain must be positive"),
        ({"strain": (0.5, 0.1)}, "strain must be positive and increasing"),
        ({"strain": float("nan")}, "strain must be positive"),
        ({"duration": (0.0, 1e-6)}, "duration must be positive"),
        ({"duration": (1e-4, 1e-6)}, "duration must be positive and increasing"),
        ({"knots": 0}, "knots must be at least 1"),
        ({"knots": (5, 2)}, "knots must be at least 1 and increasing"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"intervals": "odd"}, "intervals must be 'random' or 'fixed', got 'odd'"),
        ({"margin": 0.0}, "margin must lie between 0 and 1"),
        ({"margin": 1.0}, "margin must lie between 0 and 1"),
    ],
)
def test_bad_arguments_are_refused_even_without_samples(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        random_walk([], 0, **options)
