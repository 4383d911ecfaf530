"""Arrays for the results of a law, used again once nobody holds them.

Large arrays come fresh from the system each time, and their first use costs as much as a seventh of a learned law.
"""

import sys

import numpy as np

MOST = 3  # arrays of one shape that are kept: the states before and after a step, and one that a caller still holds


class Buffers:
    """Arrays of float64 for one caller at a time."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of some shape with arbitrary content, that nobody else holds, nor a view of it."""
        for array in self._arrays:
            # The list, this variable and the argument hold it; a view, also one of torch, would hold it as well.
            if array.shape == shape and sys.getrefcount(array) <= 3:
                return array
        array = np.empty(shape)
        self._arrays = [old for old in self._arrays if old.shape == shape][-MOST + 1 :] + [array]
        return array
