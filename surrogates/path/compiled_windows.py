"""Loss and gradient of windows of steps by the compiled form; see kernel/window.c."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from micro.build import build
from surrogates.artifact.compiled_recurrent import MAIN as EVALUATE
from surrogates.path.overlay import Sizes
from surrogates.path.windows import aligned

MAIN = Path(__file__).parent / "kernel" / "window.c"


class CompiledWindows:
    """The compiled form for laws of one size.

    Args:
        sizes: Sizes of the law.
        window: Largest number of steps of a window.
        double: Double precision, for tests.

    Raises:
        BuildError: It cannot be compiled here.
    """

    def __init__(self, sizes: Sizes, window: int, *, double: bool = False) -> None:
        self._library = _library(sizes, double)
        self.lanes = int(self._library.lanes())
        self.dtype: type = np.float64 if double else np.float32
        self._sizes = sizes
        self._memory = aligned((self._library.step_bytes() * window,), np.uint8)

    def initial_state(self) -> np.ndarray:
        """The state (k, lanes) of virgin points."""
        return aligned((self._sizes.state, self.lanes), self.dtype)

    def run(
        self, weights: np.ndarray, values: np.ndarray, state: np.ndarray, scale: np.ndarray, *,
        gradient: np.ndarray | None = None, stress: np.ndarray | None = None,
    ) -> float:  # fmt: skip
        """Advance the points of the lanes by a window and return its loss.

        Args:
            weights: (w,) in the order of `Sizes.shapes`.
            values: (T, 18, lanes), contiguous and aligned.
            state: (k, lanes), moved on in place.
            scale: (2, lanes); see `surrogates.path.windows`.
            gradient: (w,), float64, to which the derivative of the loss is added; None to leave it out.
            stress: (T, 5, lanes), filled with the stress over 2 G; None to leave it out.
        """
        loss = np.zeros(1)
        self._library.window(
            *(array.ctypes.data for array in (weights, values, state, scale)),
            len(values), int(gradient is not None), None if gradient is None else gradient.ctypes.data,
            loss.ctypes.data, None if stress is None else stress.ctypes.data, self._memory.ctypes.data,
        )  # fmt: skip
        return float(loss[0])


@cache
def _library(sizes: Sizes, double: bool) -> ctypes.CDLL:
    library = build(MAIN, (*sizes.defines(), *(("DOUBLE",) if double else ())), (EVALUATE.parent,))
    for name in ("weights_size", "step_bytes", "lanes"):
        getattr(library, name).restype = ctypes.c_long
    pointer = ctypes.c_void_p
    library.window.argtypes = [*[pointer] * 4, ctypes.c_long, ctypes.c_long, *[pointer] * 4]
    library.window.restype = None
    if library.weights_size() not in (sizes.parameters(), sizes.parameters() * (8 if double else 4)):
        raise RuntimeError(f"The compiled law must have {sizes.parameters()} weights, got {library.weights_size()}.")
    return library
