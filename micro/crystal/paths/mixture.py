"""Paths of a data set: one protocol or a mixture of several, with insertions; each depends on seed and id alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from micro.crystal.paths import walk as walks
from micro.crystal.paths.impact import draw_impact
from micro.crystal.paths.insertions import Insertions, sample
from micro.crystal.paths.protocols import SIMPLE
from micro.crystal.paths.recorded import Recorded, read_recorded, recorded_curve
from micro.crystal.paths.walk import Curve, Paths, draw_walk, log_uniform, random_walk, smallest_stretch, stream
from micro.tensors import from_components, to_components

#: Names of the protocols; the number of one in a data set is its place here. New ones come last.
PROTOCOLS = ("walk", *SIMPLE, "impact", "recorded")


@dataclass(frozen=True)
class PathOptions:
    """What the paths of a data set are.

    Attributes:
        protocols: Names out of `PROTOCOLS`.
        fractions: Share of each protocol, positive; normalised to the sum 1. Empty: equal shares.
        strain: Range of the strain of a path, drawn evenly in the logarithm; each protocol says what it is.
        steps: Stored steps; T = steps + 1 points.
        knots: Range of the number of intervals of a walk.
        intervals: "random" or "fixed" intervals of a walk.
        duration: Range of durations, s, without holds, drawn evenly in the logarithm.
        margin: Smallest principal stretch allowed; a path that falls below it is drawn again.
        orientation: "fixed" axes of the sample, or "random": each path is turned by a random rotation, Q U Q^T.
        rates: Range of the strain rate of an impact path, 1/s.
        recorded: File of recorded histories; empty without them.
        insertions: Holds, rate jumps, ringing and the spacing of points.
    """

    protocols: tuple[str, ...] = ("walk",)
    fractions: tuple[float, ...] = ()
    strain: tuple[float, float] = (0.5, 0.5)
    steps: int = 200
    knots: tuple[int, int] = (10, 10)
    intervals: str = "random"
    duration: tuple[float, float] = (1e-6, 1e-6)
    margin: float = 0.2
    orientation: str = "fixed"
    rates: tuple[float, float] = (1e3, 1e6)
    recorded: str = ""
    insertions: Insertions = Insertions()

    def __post_init__(self) -> None:
        """Check what `random_walk` does not: ValueError names the field that does not fit."""
        for name in self.protocols:
            if name not in PROTOCOLS:
                raise ValueError(f"protocols must be among {', '.join(PROTOCOLS)}, got {name!r}.")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            given = " ".join(self.protocols) or "none"
            raise ValueError(f"protocols must be one name or several different ones, got {given}.")
        if self.fractions and (
            len(self.fractions) != len(self.protocols) or not all(0 < part < np.inf for part in self.fractions)
        ):
            raise ValueError(
                f"fractions must be one positive number for each of the {len(self.protocols)} protocols, "
                f"got {' '.join(f'{part:g}' for part in self.fractions)}."
            )
        if ("recorded" in self.protocols) != bool(self.recorded):
            raise ValueError(
                "recorded must be a file if, and only if, protocols has recorded, "
                f"got recorded {self.recorded!r} and protocols {' '.join(self.protocols)}."
            )
        if self.orientation not in ("fixed", "random"):
            raise ValueError(f"orientation must be 'fixed' or 'random', got {self.orientation!r}.")
        if self.insertions.spacing not in ("even", "random"):
            raise ValueError(f"spacing must be 'even' or 'random', got {self.insertions.spacing!r}.")
        least = self.insertions.points(self.steps)
        if least > self.steps:
            raise ValueError(f"steps must be at least {least} for these holds, jumps and ringing, got {self.steps}.")
        if "impact" in self.protocols and self.rates[1] < 4 * self.rates[0]:
            raise ValueError(f"rates must span a factor of at least 4, got {self.rates[0]:g} {self.rates[1]:g}.")
        options = ("strain", "steps", "knots", "intervals", "duration", "margin")
        random_walk([], 0, **{name: getattr(self, name) for name in options})


@cache
def _histories(path: str) -> Recorded:
    return read_recorded(Path(path))


def histories(options: PathOptions) -> Recorded | None:
    """Return the recorded histories of a set, None if it has none; ValueError if the file does not fit."""
    return _histories(options.recorded) if options.recorded else None


def choose(options: PathOptions, seed: int, number: int) -> str:
    """Return the protocol of a sample, drawn with the fractions."""
    if len(options.protocols) == 1:
        return options.protocols[0]
    parts = np.cumsum(options.fractions or (1.0,) * len(options.protocols))
    place = int(np.searchsorted(parts / parts[-1], stream(seed, number, 2).uniform(), side="right"))
    return options.protocols[min(place, len(options.protocols) - 1)]


def turn(U: np.ndarray, seed: int, number: int) -> np.ndarray:
    """Return the path U (T, 6) of a sample in the axes of a random rotation Q, Q U Q^T."""
    Q, R = np.linalg.qr(stream(seed, number, 3).standard_normal((3, 3)))
    Q = Q * np.sign(np.diag(R))  # uniform on the orthogonal matrices; a reflection does the same to U as a rotation
    turned = to_components(Q @ from_components(U) @ Q.T)
    turned[0] = U[0]  # the identity to the bit
    return np.asarray(turned)


def draw_path(options: PathOptions, seed: int, number: int, name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return relative times (T,), stretch (T, 6) and duration, s, of a sample.

    Raises:
        ValueError: No path of the sample respects the margin.
    """
    rng, inserted = stream(seed, number), stream(seed, number, 1)
    strain = log_uniform(rng, options.strain)
    knots = int(rng.integers(options.knots[0], options.knots[1] + 1))
    duration = log_uniform(rng, options.duration)
    recorded = histories(options)
    for _ in range(walks.DRAWS):
        if name == "walk":
            curve = Curve(draw_walk(rng, strain, knots, options.intervals), duration)
        elif name == "impact":
            curve = draw_impact(rng, strain, duration, options.rates, options.duration)
        elif name == "recorded":
            assert recorded is not None  # the options have been checked
            curve = recorded_curve(recorded, number)
        else:
            curve = Curve(SIMPLE[name](rng, strain), duration)
        time, U, total = sample(inserted, curve, options.insertions, options.steps)
        if smallest_stretch(U) >= options.margin:
            return time, (turn(U, seed, number) if options.orientation == "random" else U), total
        if name == "recorded":
            break
    kind = "" if name == "walk" else f" of {name}"
    raise ValueError(f"strain {strain:.3g} is too large: no path{kind} of sample {number} respects the margin.")


def draw_paths(ids: Sequence[int], seed: int, options: PathOptions) -> Paths:
    """Return the paths of the samples `ids`; the same id and seed give the same path in any company.

    Args:
        ids: Sample numbers.
        seed: Seed of the data set.
        options: What the paths are.

    Raises:
        ValueError: No path of a sample respects the margin, or the file of recorded histories does not fit.
    """
    names = [choose(options, seed, int(number)) for number in ids]
    T = options.steps + 1
    time, U, duration = np.empty((len(ids), T)), np.empty((len(ids), T, 6)), np.empty(len(ids))
    for row, (number, name) in enumerate(zip(ids, names)):
        time[row], U[row], duration[row] = draw_path(options, seed, int(number), name)
    return Paths(time, U, duration, np.array([PROTOCOLS.index(name) for name in names], dtype=np.int16))
