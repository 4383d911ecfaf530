"""Bounds of what can be meshed, checked before the work."""

from __future__ import annotations

import math
import numbers
import os

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 1e-9, 1e6  # m; gmsh resolves points by absolute tolerances
THINNEST = 1e-6  # of the length: layers that are thinner are lost in the rounding of their positions
BYTES_PER_CELL = 1000  # of gmsh and the arrays around it, about


def check_positive(name: str, value: float) -> None:
    """Refuse what is no positive finite number.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be a positive finite number, got {value!r}.")


def check_length(name: str, value: float) -> None:
    """Refuse what is no length that can be meshed.

    Args:
        name: Its name, for the message.
        value: m.

    Raises:
        ValueError: If it is none.
    """
    check_positive(name, value)
    if not SHORTEST <= value <= LONGEST:
        raise ValueError(f"{name} must lie between {SHORTEST:g} m and {LONGEST:g} m, got {value!r}.")


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_cells(cells: float) -> None:
    """Refuse a mesh whose cells do not fit into the memory.

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
        ValueError: If the grading is not positive, or makes layers that are too thin to be told apart.
    """
    check_positive("grading", grading)
    thinnest = np.exp(-abs(math.log(grading)) * np.linspace(0.0, 1.0, count))
    if thinnest.min() / thinnest.sum() < THINNEST:
        share = thinnest.min() / thinnest.sum()
        raise ValueError(f"grading {grading:g} makes a layer of {share:.1e} of the length, the least is {THINNEST:g}.")
    heights: NDArray[np.float64] = np.power(grading, np.linspace(0.0, 1.0, count))
    return heights
