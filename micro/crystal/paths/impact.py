"""Strain paths like those of an impact: fast at first and slow at the end, nearly isochoric, large in strain.

The logarithmic stretch H obeys dH/dt = rate(t) N(l), where l is the length of the strain path, with

    rate(t) = (r0 - r1) exp(-t/tau) + r1,     integral of rate over the duration T = strain.

r0 and r1 are drawn evenly in the logarithm from the range of rates, and tau follows from the strain. N is a deviator
with N : N = 3/2, mostly an axial compression in a random direction. U = J^(1/3) exp(H), where log J is a pulse that
rises and decays, at most 6 %. A path is of one of five kinds:

=========  ==================================================================================================
monotone   N is constant.
turn       N turns to another random deviator within a tenth of the strain.
unload     The last 0.2 to 5 % of strain go back.
reload     0.2 to 5 % of strain go back somewhere, and forward again.
hold       The strain rests during the last 20 to 60 % of the duration.
=========  ==================================================================================================

The numbers are those of the points of a Taylor anvil test: rates of 6.5e3 to 4.2e5 /s (5 to 95 %), lengths of the
strain path up to 11 with the ringing, J within a few per cent of 1. Ringing is inserted, see `insertions`.

References:
    Liu et al. (2022), section 4, doi:10.1016/j.jmps.2021.104668: the impact problems.
"""

import numpy as np
from scipy.optimize import brentq

from micro.crystal.paths.protocols import exponential, random_deviator
from micro.crystal.paths.walk import Curve, log_uniform
from micro.tensors import to_components

KINDS = ("monotone", "turn", "unload", "reload", "hold")
#: Largest volume change, J within 1/1.06 and 1.06.
VOLUME = 0.06
#: Strain that goes back in a path that unloads.
BACK = (0.002, 0.05)
#: Points of the fine grid on which a path is integrated.
FINE = 4001
#: Shares of strain, time and logarithm of time in the placement of the stored points.
SHARES = (0.6, 0.2, 0.2)


def fit(strain: float, duration: float, rates: tuple[float, float], durations: tuple[float, float]) -> tuple[float, float]:
    """Return strain and duration whose mean rate lies inside the range of rates: the duration yields first."""
    low, high = 1.5 * rates[0], 0.7 * rates[1]
    duration = float(np.clip(np.clip(duration, strain / high, strain / low), *durations))
    return float(np.clip(strain, low * duration, high * duration)), duration


def decay(rng: np.random.Generator, strain: float, duration: float, rates: tuple[float, float]) -> tuple:
    """Draw the rates r0 and r1 and return them with the time tau, s, of the decay."""
    mean = strain / duration
    r0 = log_uniform(rng, (min(1.4 * mean, rates[1]), rates[1]))
    r1 = log_uniform(rng, (rates[0], max(0.7 * mean, rates[0])))
    g = (mean - r1) / (r0 - r1)
    u = brentq(lambda u: -np.expm1(-u) / u - g, 1e-9, 1e9)
    return r0, r1, duration / u


def directions(rng: np.random.Generator, kind: str, strain: float, length: np.ndarray) -> np.ndarray:
    """Return the direction N (m, 3, 3) of straining at lengths (m,) of the strain path."""

    def direction() -> np.ndarray:
        axis = rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
        N = np.eye(3) / 2 - 1.5 * np.outer(axis, axis) + rng.uniform(0, 0.7) * random_deviator(rng)
        return N * np.sqrt(1.5 / np.sum(N * N))

    first, second = direction(), direction()
    back = min(log_uniform(rng, BACK), strain / 4)
    place = rng.uniform(0.2, 0.8)
    sign = np.ones_like(length)
    share = np.zeros_like(length)
    if kind == "unload":
        sign[length > strain - back] = -1.0
    elif kind == "reload":
        start = place * (strain - back)
        sign[(length > start) & (length <= start + back)] = -1.0
    elif kind == "turn":
        share = np.clip((length - place * strain) / (0.1 * strain), 0.0, 1.0)
    N = sign[:, None, None] * ((1 - share)[:, None, None] * first + share[:, None, None] * second)
    return N * np.sqrt(1.5 / np.maximum(np.sum(N * N, axis=(1, 2)), 1e-6))[:, None, None]


def draw_impact(
    rng: np.random.Generator,
    strain: float,
    duration: float,
    rates: tuple[float, float],
    durations: tuple[float, float],
) -> Curve:
    """Draw a path like those of an impact.

    The loading parameter x is a mean of the relative length of the strain path, the relative time and its logarithm,
    so that points which are even in x resolve the fast beginning as well as the slow end.

    Args:
        rng: Random stream.
        strain: Length of the strain path (equivalent logarithmic strain); changed where its rate would leave `rates`.
        duration: Duration, s; changed where the rate would leave `rates`.
        rates: Range of strain rates, 1/s.
        durations: Range of durations, s.
    """
    strain, duration = fit(strain, duration, rates, durations)
    kind = KINDS[int(rng.integers(len(KINDS)))]
    load = duration * (1 - rng.uniform(0.2, 0.6)) if kind == "hold" else duration
    load = max(load, strain / (0.75 * rates[1]))
    r0, r1, tau = decay(rng, strain, load, rates)
    t = np.union1d(np.linspace(0, duration, FINE), np.geomspace(duration * 1e-6, duration, FINE))
    loading = np.minimum(t, load)
    length = (r0 - r1) * tau * -np.expm1(-loading / tau) + r1 * loading
    middle = (length[1:] + length[:-1]) / 2
    N = directions(rng, kind, strain, middle)
    H = np.concatenate([np.zeros((1, 3, 3)), np.cumsum(N * np.diff(length)[:, None, None], axis=0)])
    log_J = volume(rng, t / duration)
    H = H + log_J[:, None, None] / 3 * np.eye(3)
    path = np.concatenate([[0.0], np.cumsum(np.sqrt(np.sum(np.diff(H, axis=0) ** 2, axis=(1, 2))))])
    late = np.log1p(1000 * t / duration) / np.log(1001.0)
    x = SHARES[0] * path / path[-1] + SHARES[1] * t / duration + SHARES[2] * late
    flat = H.reshape(-1, 9)

    def at(parameter: np.ndarray) -> np.ndarray:
        values = [np.interp(parameter, x, flat[:, k]) for k in range(9)]
        return np.asarray(to_components(exponential(np.stack(values, axis=-1).reshape(-1, 3, 3))))

    return Curve(at, duration, lambda parameter: np.interp(parameter, x, t / duration))


def volume(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """Return log J (m,) at relative times (m,): a pulse a (1 - exp(-t/t1)) exp(-t/t2), compression more often."""
    rise, fall = log_uniform(rng, (1e-3, 0.05)), log_uniform(rng, (0.05, 2.0))
    pulse = -np.expm1(-time / rise) * np.exp(-time / fall)
    amplitude = np.log1p(VOLUME) * rng.uniform(0, 1) * (-1.0 if rng.uniform() < 0.75 else 1.0)
    return amplitude * pulse / pulse.max()
