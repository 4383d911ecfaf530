"""Arguments of the meshes: command lines whose errors are one sentence, and bounds that are checked before the work."""

from __future__ import annotations

import argparse
import math
import numbers
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 1e-9, 1e6  # m; gmsh resolves points by absolute tolerances
THINNEST = 1e-6  # of the length: layers that are thinner are lost in the rounding of their positions
BYTES_PER_CELL = 1000  # of gmsh and the arrays around it, about


class Parser(argparse.ArgumentParser):
    """Argument parser that raises an error with one sentence instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError."""
        raise ValueError(f"{message[:1].upper()}{message[1:]}.")


def run(parser: Parser, arguments: Sequence[str] | None, work: Callable[[argparse.Namespace], object]) -> int:
    """Parse a command line and do the work; returns the exit status."""
    try:
        work(parser.parse_args(arguments))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def check_positive(name: str, value: float) -> None:
    """Check that an argument is a positive finite number.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be a positive finite number, got {value!r}.")


def check_length(name: str, value: float) -> None:
    """Check that an argument is a length that can be meshed.

    Args:
        name: Its name, for the message.
        value: m.

    Raises:
        ValueError: If it is not.
    """
    check_positive(name, value)
    if not SHORTEST <= value <= LONGEST:
        raise ValueError(f"{name} must lie between {SHORTEST:g} m and {LONGEST:g} m, got {value!r}.")


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_cells(cells: float) -> None:
    """Check that the cells of a mesh fit into the memory.

    Args:
        cells: Number of cells that the mesh would have.

    Raises:
        ValueError: If they do not fit.
    """
    needed, there = cells * BYTES_PER_CELL / 1e9, memory() / 1e9
    if needed > there:
        raise ValueError(
            f"The mesh would have about {cells:.1e} cells and need about {needed:.1e} GB of memory; "
            f"this machine has {there:.1f} GB."
        )


def layers(count: int, grading: float) -> NDArray[np.float64]:
    """Heights of layers in geometric progression, the first one first, up to a factor.

    Args:
        count: Number of layers.
        grading: Height of the last layer over that of the first one; above 1 the first layers are the thinner ones.

    Returns:
        Heights, (count,).

    Raises:
        ValueError: If the grading is not positive, or makes layers that are too thin to be distinguished.
    """
    check_positive("grading", grading)
    thinnest = np.exp(-abs(math.log(grading)) * np.linspace(0.0, 1.0, count))
    least = thinnest.min() / thinnest.sum()
    if least < THINNEST:
        raise ValueError(f"grading {grading:g} makes a layer of {least:.1e} of the length, the least is {THINNEST:g}.")
    heights: NDArray[np.float64] = np.power(grading, np.linspace(0.0, 1.0, count))
    return heights
