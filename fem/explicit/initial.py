"""Checks of what a user gives: initial values of a vector field, numbers, and the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MOST_STEPS = 1e9  # of one run; more would not end in the life of a machine
Field = Sequence[float] | np.ndarray | Callable[[np.ndarray], np.ndarray] | None


def fill(function: Any, value: Field, x: np.ndarray, name: str) -> None:
    """Fill a P1 vector Function.

    Args:
        function: The Function.
        value: Three numbers, an array (nodes of this rank with ghosts, 3), a function of the node coordinates (3, n)
            that returns (3, n), or None, which leaves zeros.
        x: Node coordinates, (nodes, 3), m.
        name: Name of the field, for the message.

    Raises:
        ValueError: If the shape does not fit, or a value is not finite.
    """
    if value is None:
        return
    array = function.x.array.reshape(-1, 3)
    try:
        values = np.asarray(value(x.T), dtype=float).T if callable(value) else np.asarray(value, dtype=float)
    except Exception as error:  # a user's function may fail in any way
        reason = str(error) or type(error).__name__
        raise ValueError(f"The initial {name} cannot be evaluated: {reason}.") from error
    if values.shape not in ((3,), array.shape):
        raise ValueError(f"The initial {name} must have shape (3,) or {array.shape}, got {values.shape}.")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"The initial {name} must be finite.")
    array[:] = values


def check_numbers(
    density: float, hourglass: float, safety: float, viscosity: tuple[float, float], mass_scaling: float | None
) -> None:
    """Check density (kg/m^3), hourglass stiffness (over the shear modulus), safety, bulk viscosity, wanted step (s).

    Raises:
        ValueError: If one is.
    """
    if not 0.0 < safety <= 1.0:
        raise ValueError(f"safety must be in (0, 1], got {safety}.")
    if not (np.isfinite(density) and density > 0.0):
        raise ValueError(f"density must be positive, got {density}.")
    if not (np.isfinite(hourglass) and hourglass >= 0.0):
        raise ValueError(f"hourglass must not be negative, got {hourglass}.")
    if mass_scaling is not None and not (np.isfinite(mass_scaling) and mass_scaling > 0.0):
        raise ValueError(f"mass_scaling must be a positive step, got {mass_scaling}.")
    if len(viscosity) != 2 or not all(np.isfinite(b) and b >= 0.0 for b in viscosity):
        raise ValueError(f"viscosity must be two numbers of at least 0, linear and quadratic, got {viscosity}.")


def end_of_run(until: float | str, limit: float | None, time: float, transit: float | None) -> float:
    """The latest time of a run to `until`, s.

    Args:
        until: A time, s, or "rebound".
        limit: Latest time of a run to the rebound, s; None is 1000 transit times from now.
        time: Now, s.
        transit: Transit time of a wave through the body, s; None where there is no plane to rebound from.

    Raises:
        ValueError: If it is no time, or there can be no rebound.
    """
    if until == "rebound":
        if transit is None:
            raise ValueError("A rebound needs a rigid plane that does not move as the first obstacle.")
        return time + 1000.0 * transit if limit is None else float(limit)
    if isinstance(until, str):
        raise ValueError(f'until must be a time in s or "rebound", got "{until}".')
    return float(until)


def check_end(time: float, end: float, next_step: float) -> None:
    """Refuse a time (s) that a run which is at `time`, with steps of about `next_step`, cannot end at.

    Raises:
        ValueError: If it is in the past, not finite, or more than 1e9 steps away.
    """
    if not time <= end < np.inf:
        raise ValueError(f"The run cannot end at {end} s, it is at {time} s.")
    if not next_step * MOST_STEPS > end - time:
        steps = (end - time) / next_step if next_step > 0.0 else np.inf
        raise ValueError(f"The run to {end:g} s would take about {steps:.0e} steps of {next_step:.3g} s.")
