"""Checks of what the host hands to a law."""

from __future__ import annotations

import numpy as np


def check(F: np.ndarray, state: np.ndarray, size: int, dimension: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return F and state as contiguous float64 arrays, without a copy where they already are.

    Args:
        F: Deformation gradients, (n, d, d).
        state: State of the points, (n, size).
        size: Numbers in the state of one point.
        dimension: d.

    Raises:
        ValueError: If a shape does not fit.
    """
    d = dimension
    if F.ndim != 3 or F.shape[1:] != (d, d):
        raise ValueError(f"F must have shape (n, {d}, {d}), got {F.shape}.")
    if state.shape != (len(F), size):
        raise ValueError(f"state must have shape ({len(F)}, {size}), got {state.shape}.")
    return np.ascontiguousarray(F, dtype=np.float64), np.ascontiguousarray(state, dtype=np.float64)


def check_positive(**values: float) -> None:
    """Refuse material constants that are not positive and finite, naming the first."""
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0.0):
            raise ValueError(f"{name} must be positive, got {value}.")
