"""Holds, rate jumps and elastic ringing, inserted into any path, and the placement of its stored points.

A path is a `Curve` U(x); insertions change how x follows time, and add ringing to U. Between two events x runs with the
path's own clock, divided by the factor of the last rate jump.

- **Hold**: x rests at a random place for a random time. Its points are spaced geometrically over three decades of time,
  because the stress relaxes fast at first.
- **Rate jump**: from a random place on the path runs faster or slower by a random factor.
- **Ringing**: U + a sin(2 pi t/p) N over a whole number of cycles, N a random deviator whose largest principal value is
  1, a the amplitude and p the period. Half of the trains ring at rest, the others during loading.

Stored points are even in x, or their distances vary at random (`spacing`); each event has points of its own.
"""

from dataclasses import dataclass

import numpy as np

from micro.crystal.paths.protocols import random_deviator
from micro.crystal.paths.walk import Curve, log_uniform
from micro.tensors import to_components

#: Stored points per cycle of ringing; a multiple of four, so that the crests are among them.
PER_CYCLE = 8
#: Decades of time over which the points of a hold are spread.
DECADES = 3.0
#: Standard deviation of the logarithm of random distances between stored points.
SPREAD = 0.6


@dataclass(frozen=True)
class Insertions:
    """What is inserted into a path; each range is drawn for each path or event.

    Attributes:
        holds: Range of the number of holds per path.
        hold_duration: Range of the duration of a hold, s, drawn evenly in the logarithm.
        jumps: Range of the number of rate jumps per path.
        jump_factor: Range of the factor of the rate after a jump, relative to the path's own, evenly in the logarithm.
        ringing: Range of the number of trains of elastic ringing per path.
        ringing_amplitude: Range of their amplitude of strain, evenly in the logarithm.
        ringing_period: Range of their period, s, evenly in the logarithm.
        ringing_cycles: Range of their number of cycles.
        spacing: "even" or "random" distances of the stored points.
    """

    holds: tuple[int, int] = (0, 0)
    hold_duration: tuple[float, float] = (1e-7, 2e-5)
    jumps: tuple[int, int] = (0, 0)
    jump_factor: tuple[float, float] = (0.1, 10.0)
    ringing: tuple[int, int] = (0, 0)
    ringing_amplitude: tuple[float, float] = (5e-4, 5e-3)
    ringing_period: tuple[float, float] = (1e-7, 2e-6)
    ringing_cycles: tuple[int, int] = (2, 5)
    spacing: str = "even"

    @property
    def any(self) -> bool:
        """Whether anything is inserted, or points are not even."""
        return max(self.holds[1], self.jumps[1], self.ringing[1]) > 0 or self.spacing == "random"

    def points(self, steps: int) -> int:
        """Return the stored steps that the events of a path with `steps` can need, and one step between them."""
        events = self.holds[1] * hold_steps(steps) + self.ringing[1] * self.ringing_cycles[1] * PER_CYCLE
        return events + self.holds[1] + self.jumps[1] + self.ringing[1] + 1


@dataclass(frozen=True)
class Segment:
    """A part of a path: x from `begin` to `end` in a time, with ringing or without.

    Attributes:
        begin: x at its start.
        end: x at its end; equal to `begin` in a hold.
        duration: Time it takes, s.
        kind: "load", "hold" or "ring".
        rate: Factor of the path's own rate.
        cycles: Cycles of ringing.
        ringing: Amplitude times direction (6,), zero without.
    """

    begin: float
    end: float
    duration: float
    kind: str = "load"
    rate: float = 1.0
    cycles: int = 0
    ringing: np.ndarray | float = 0.0


def hold_steps(steps: int) -> int:
    """Return the stored steps of a hold in a path of `steps`."""
    return max(6, steps // 20)


def draw_count(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    """Return a whole number drawn evenly from a range, both ends included."""
    return int(rng.integers(limits[0], limits[1] + 1))


def draw_segments(rng: np.random.Generator, curve: Curve, options: Insertions) -> list[Segment]:
    """Draw the events of a path and return it as segments in the order of time."""
    kinds = ["jump"] * draw_count(rng, options.jumps) + ["hold"] * draw_count(rng, options.holds)
    kinds += ["ring"] * draw_count(rng, options.ringing)
    places = np.sort(rng.uniform(0.05, 1.0, size=len(kinds)))
    segments: list[Segment] = []
    rate, x = 1.0, 0.0

    def load(to: float) -> Segment:
        lapse = np.diff(curve.clock(np.array([x, to])))[0] * curve.duration / rate
        return Segment(x, to, float(lapse), rate=rate)

    for place, kind in zip(places.tolist(), rng.permutation(kinds).tolist()):
        if place > x:
            segments.append(load(place))
            x = place
        if kind == "jump":
            rate = log_uniform(rng, options.jump_factor)
        elif kind == "hold":
            segments.append(Segment(x, x, log_uniform(rng, options.hold_duration), "hold"))
        else:
            later = places[places > x]
            segments.append(draw_ringing(rng, curve, options, x, float(later[0]) if len(later) else 1.0, rate))
            x = segments[-1].end
    if x < 1.0:
        segments.append(load(1.0))
    return segments


def draw_ringing(
    rng: np.random.Generator, curve: Curve, options: Insertions, x: float, limit: float, rate: float
) -> Segment:
    """Draw a train of ringing that begins at `x`; during loading it ends before `limit`, else it rings at rest."""
    amplitude, period = log_uniform(rng, options.ringing_amplitude), log_uniform(rng, options.ringing_period)
    cycles = draw_count(rng, options.ringing_cycles)
    N = random_deviator(rng)
    ringing = amplitude * to_components(N / np.abs(np.linalg.eigvalsh(N)).max())
    during = rng.uniform() < 0.5
    grid = np.linspace(x, limit, 1001)
    elapsed = (curve.clock(grid) - curve.clock(grid[:1])) * curve.duration / rate
    whole = min(cycles, int(0.9 * elapsed[-1] / period))
    if not during or whole < 1:
        return Segment(x, x, cycles * period, "ring", rate, cycles, ringing)
    end = float(np.interp(whole * period, elapsed, grid))
    return Segment(x, end, whole * period, "ring", rate, whole, ringing)


def shares(segments: list[Segment], steps: int) -> list[int]:
    """Return the stored steps of each segment, in all `steps`; loading shares what the events leave."""
    own = {"hold": hold_steps(steps), "load": 1}
    counts = [segment.cycles * PER_CYCLE if segment.kind == "ring" else own[segment.kind] for segment in segments]
    loads = [k for k, segment in enumerate(segments) if segment.kind == "load"]
    left = steps - sum(counts)  # not negative, `Insertions.points` has been compared with `steps`
    length = np.array([segments[k].end - segments[k].begin for k in loads])
    exact = left * length / length.sum()
    extra = np.floor(exact).astype(int)
    extra[np.argsort(extra - exact, kind="stable")[: left - extra.sum()]] += 1
    for k, more in zip(loads, extra.tolist()):
        counts[k] += more
    return counts


def sample(
    rng: np.random.Generator, curve: Curve, options: Insertions, steps: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw the insertions of a path and return its stored points.

    Args:
        rng: Random stream of the insertions.
        curve: The path.
        options: What is inserted.
        steps: Stored steps; T = steps + 1.

    Returns:
        Relative times (T,), stretch (T, 6) and duration, s.
    """
    if not options.any:
        x = np.linspace(0.0, 1.0, steps + 1)
        return curve.clock(x), curve.stretch(x), curve.duration
    segments = draw_segments(rng, curve, options)
    times, stretches, now = [np.zeros(1)], [curve.stretch(np.zeros(1))], 0.0
    for segment, n in zip(segments, shares(segments, steps), strict=True):
        gaps = np.exp(SPREAD * rng.standard_normal(n)) if options.spacing == "random" else np.ones(n)
        part = np.cumsum(gaps) / gaps.sum()
        part[-1] = 1.0
        x = segment.begin + (segment.end - segment.begin) * part
        if segment.kind == "load":
            begin = curve.clock(np.array([segment.begin]))
            elapsed = (curve.clock(x) - begin) * curve.duration / segment.rate
        elif segment.kind == "hold":
            elapsed = segment.duration * 10.0 ** (-DECADES * (1 - part))
        else:
            part = np.arange(1, n + 1) / n  # even, so that the crests are among the points
            elapsed = segment.duration * part
            if segment.end > segment.begin:
                grid = np.linspace(segment.begin, segment.end, 1001)
                clock = (curve.clock(grid) - curve.clock(grid[:1])) * curve.duration / segment.rate
                x = np.interp(elapsed, clock, grid)
        wave = np.sin(2 * np.pi * segment.cycles * part)[:, None] * segment.ringing
        times.append(now + elapsed)
        stretches.append(curve.stretch(x) + wave)
        now = float(times[-1][-1])
    time = np.concatenate(times)
    return time / now, np.concatenate(stretches), now
