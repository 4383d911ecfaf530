"""Command lines: what more than one data job or demo needs."""

import argparse
import math
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Argument parser that raises what it has to say: a bad argument is a ValueError, one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise in place of ending the process."""
        raise ValueError(f"{message[:1].upper()}{message[1:]}.")


def as_range(name: str, values: list) -> tuple:
    """Return the pair (lo, hi) of an option that takes one number or two."""
    if len(values) > 2 or not all(math.isfinite(value) and value > 0 for value in values) or values[0] > values[-1]:
        given = " ".join(f"{value:g}" for value in values)
        raise ValueError(f"{name} must be one positive number or two that increase, got {given}.")
    return values[0], values[-1]
