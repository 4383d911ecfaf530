"""Random strain paths: smoothed random walks of the right stretch.

References:
    Liu et al. (2022), section 3.2, doi:10.1016/j.jmps.2021.104668.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from micro.tensors import from_components

#: Draws of one path before its strain is considered too large for the margin (at strain 2 about 700 are needed).
DRAWS = 10_000


@dataclass(frozen=True)
class Paths:
    """Stretch paths.

    Attributes:
        time: Relative times (s, T) in [0, 1], evenly spaced.
        U: Right stretch (s, T, 6), order 11, 22, 33, 12, 23, 13; the identity at the start.
        duration: Duration of each path (s,), s.
    """

    time: np.ndarray
    U: np.ndarray
    duration: np.ndarray


def _walk(rng: np.random.Generator, strain: float, knots: int, intervals: str, time: np.ndarray) -> np.ndarray:
    if intervals == "random":
        inner = np.sort(rng.uniform(size=knots - 1))
        t = np.concatenate([[0.0], inner, [1.0]])
    else:
        t = np.linspace(0.0, 1.0, knots + 1)
    signs = rng.integers(0, 2, size=(knots, 6)) * 2 - 1
    steps = signs * strain * np.sqrt(np.diff(t))[:, None]
    start = np.array([1.0, 1, 1, 0, 0, 0])
    values = np.vstack([start, start + np.cumsum(steps, axis=0)])
    return PchipInterpolator(t, values, axis=0)(time)  # monotone cubic Hermite


def random_walk(
    ids: Sequence[int],
    seed: int,
    *,
    strain: float | tuple[float, float] = 0.5,
    steps: int = 200,
    knots: int | tuple[int, int] = 10,
    intervals: str = "random",
    duration: tuple[float, float] = (1e-6, 1e-6),
    margin: float = 0.2,
) -> Paths:
    """Return the random stretch paths of the samples `ids`.

    In each of `knots` intervals of relative length dt_n every component of U changes by +-strain sqrt(dt_n), with
    random signs; a monotone cubic Hermite interpolant joins the knots. A path whose smallest principal stretch falls
    below `margin` is drawn again from the same stream. Each sample has a random stream of its own (Philox with the
    key `seed` and the counter `id`), so a path depends on its id and the seed alone.

    Args:
        ids: Sample numbers.
        seed: Seed of the data set.
        strain: U_max of the paper; a pair draws it log-uniformly from that range.
        steps: Stored steps; T = steps + 1 points.
        knots: Number N of intervals; a pair draws it uniformly from that range, both ends included.
        intervals: "random" (sorted uniform knots) or "fixed" (equal intervals).
        duration: Range (s) from which the duration is drawn log-uniformly.
        margin: Smallest principal stretch allowed.

    Raises:
        ValueError: An argument is out of its range, or the strain is too large for any path to respect the margin.
    """
    strains = strain if isinstance(strain, tuple) else (strain, strain)
    knot_range = knots if isinstance(knots, tuple) else (knots, knots)
    if not 0 < strains[0] <= strains[1]:
        raise ValueError(f"strain must be positive and increasing, got {strain}.")
    if not 0 < duration[0] <= duration[1]:
        raise ValueError(f"duration must be positive and increasing, got {duration}.")
    if not 1 <= knot_range[0] <= knot_range[1]:
        raise ValueError(f"knots must be at least 1 and increasing, got {knots}.")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    if intervals not in ("random", "fixed"):
        raise ValueError(f"intervals must be 'random' or 'fixed', got '{intervals}'.")
    if not 0 < margin < 1:
        raise ValueError(f"margin must lie between 0 and 1, got {margin}.")
    time = np.linspace(0.0, 1.0, steps + 1)
    U = np.empty((len(ids), steps + 1, 6))
    durations = np.empty(len(ids))
    for row, sample in enumerate(ids):
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, sample]))
        amplitude = np.exp(rng.uniform(*np.log(strains)))
        n = int(rng.integers(knot_range[0], knot_range[1] + 1))
        durations[row] = np.exp(rng.uniform(*np.log(duration)))
        for _ in range(DRAWS):
            U[row] = _walk(rng, amplitude, n, intervals, time)
            if np.linalg.eigvalsh(from_components(U[row])).min() >= margin:
                break
        else:
            raise ValueError(f"strain {amplitude:.3g} is too large: no path of sample {sample} respects the margin.")
    return Paths(np.broadcast_to(time, (len(ids), steps + 1)).copy(), U, durations)
