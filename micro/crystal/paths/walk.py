"""Random strain paths: smoothed random walks of the right stretch, and what all paths have in common.

References:
    Liu et al. (2022), section 3.2, doi:10.1016/j.jmps.2021.104668.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import PchipInterpolator

from micro.tensors import from_components

#: Draws of one path before its strain is considered too large for the margin (at strain 2 about 700 are needed).
DRAWS = 10_000


@dataclass(frozen=True)
class Paths:
    """Stretch paths.

    Attributes:
        time: Relative times (s, T), from 0 to 1, increasing.
        U: Right stretch (s, T, 6), order 11, 22, 33, 12, 23, 13; the identity at the start.
        duration: Duration of each path (s,), s.
        protocol: Number of the protocol of each path (s,) in `micro.crystal.paths.PROTOCOLS`; empty where there is one.
    """

    time: np.ndarray
    U: np.ndarray
    duration: np.ndarray
    protocol: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int16))


@dataclass(frozen=True)
class Curve:
    """A path as a function of a loading parameter x in [0, 1].

    Attributes:
        stretch: Right stretch (m, 6) at parameters (m,); the identity at x = 0.
        duration: Duration, s.
        clock: Relative time (m,) in [0, 1] at parameters (m,), increasing.
    """

    stretch: Callable[[np.ndarray], np.ndarray]
    duration: float
    clock: Callable[[np.ndarray], np.ndarray] = field(default=lambda x: x)


def stream(seed: int, sample: int, purpose: int = 0) -> np.random.Generator:
    """Return the random stream of a sample: Philox with the key `seed` and the counter (0, 0, purpose, sample).

    Each purpose has a stream of its own (0 the path, 1 insertions, 2 the choice of protocol, 3 the orientation), so
    that what is inserted into a path does not change the path.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, purpose, sample]))


def log_uniform(rng: np.random.Generator, limits: Sequence[float]) -> float:
    """Return a number drawn evenly in the logarithm between two limits."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def draw_walk(
    rng: np.random.Generator, strain: float, knots: int, intervals: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Draw a smoothed random walk, a function from x (m,) to the stretch (m, 6).

    U_ij(t_n) = U_ij(t_{n-1}) +- strain sqrt(t_n - t_{n-1}) with random signs at N = `knots` times, joined by a monotone
    cubic Hermite interpolant (section 3.2).

    Args:
        rng: Random stream.
        strain: U_max of the paper.
        knots: Number N of intervals.
        intervals: "random" (R of table 1: sorted uniform knots) or "fixed" (F: equal intervals).
    """
    if intervals == "random":
        inner = np.sort(rng.uniform(size=knots - 1))
        t = np.concatenate([[0.0], inner, [1.0]])
    else:
        t = np.linspace(0.0, 1.0, knots + 1)
    signs = rng.integers(0, 2, size=(knots, 6)) * 2 - 1
    steps = signs * strain * np.sqrt(np.diff(t))[:, None]
    start = np.array([1.0, 1, 1, 0, 0, 0])
    values = np.vstack([start, start + np.cumsum(steps, axis=0)])
    return PchipInterpolator(t, values, axis=0)  # monotone cubic Hermite


def smallest_stretch(U: np.ndarray) -> float:
    """Return the smallest principal value of stretches (m, 6); nan where one is not finite."""
    return float(np.linalg.eigvalsh(from_components(U)).min()) if np.isfinite(U).all() else np.nan


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
        rng = stream(seed, sample)
        amplitude = log_uniform(rng, strains)
        n = int(rng.integers(knot_range[0], knot_range[1] + 1))
        durations[row] = log_uniform(rng, duration)
        for _ in range(DRAWS):
            U[row] = draw_walk(rng, amplitude, n, intervals)(time)
            if smallest_stretch(U[row]) >= margin:
                break
        else:
            raise ValueError(f"strain {amplitude:.3g} is too large: no path of sample {sample} respects the margin.")
    return Paths(np.broadcast_to(time, (len(ids), steps + 1)).copy(), U, durations)
