"""Options of the data jobs that more than one source has."""

import math


def as_range(name: str, values: list) -> tuple:
    """Return the pair (lo, hi) of an option that takes one number or two."""
    if len(values) > 2 or not all(math.isfinite(value) and value > 0 for value in values) or values[0] > values[-1]:
        given = " ".join(f"{value:g}" for value in values)
        raise ValueError(f"{name} must be one positive number or two that increase, got {given}.")
    return values[0], values[-1]
