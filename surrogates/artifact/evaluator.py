"""A C library that evaluates a law at many points: it is built, its sizes are checked, and it is called."""

import ctypes
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from micro.build import BuildError, build


class Evaluator:
    """The function `evaluate` of a C file, which takes a `Job`: the number of points, places of arrays, numbers, flags.

    The library has `job_bytes`, the size of the job, and counts with `weights_size` and `state_size` the numbers of the
    weights and of the state of a point.

    Args:
        main: The C file.
        defines: Its macros.
        arrays: Names of the arrays of its job, in order.
        numbers: Names of the numbers, double precision.
        flags: Names of the flags, integers.
        weights: Numbers of the weights.
        state: Numbers of a state.

    Raises:
        BuildError: The library cannot be built or loaded here, or takes another job.
        ValueError: It needs other weights or another state.
    """

    def __init__(
        self, main: Path, defines: tuple[str, ...], *, arrays: tuple[str, ...], numbers: tuple[str, ...],
        flags: tuple[str, ...] = (), weights: int, state: int,
    ) -> None:  # fmt: skip
        self._library = _library(main, defines)
        kinds = ((("points",), ctypes.c_long), (arrays, ctypes.c_void_p), (numbers, ctypes.c_double))
        fields = [(name, kind) for names, kind in (*kinds, (flags, ctypes.c_long)) for name in names]
        self._job = type("Job", (ctypes.Structure,), {"_fields_": fields})
        if self._library.job_bytes() != ctypes.sizeof(self._job):
            size = ctypes.sizeof(self._job)
            raise BuildError(f"the job of {main.name} has {self._library.job_bytes()} bytes, not {size}")
        found = (self._library.weights_size(), self._library.state_size())
        if found != (weights, state):
            raise ValueError(f"The compiled law needs {found} weights and numbers, got {(weights, state)}.")

    def __call__(
        self, points: int, arrays: Iterable[Any], numbers: Iterable[float], flags: Iterable[int] = ()
    ) -> None:
        """Do a job with contiguous NumPy arrays; its parts are in the order of their names.

        Raises:
            MemoryError: There is no memory for the intermediate results.
        """
        job = self._job(points, *(array.ctypes.data for array in arrays), *numbers, *flags)
        if self._library.evaluate(ctypes.byref(job)):
            raise MemoryError("The compiled law has no memory for its intermediate results.")


@cache
def _library(main: Path, defines: tuple[str, ...]) -> ctypes.CDLL:
    library = build(main, defines)
    library.evaluate.argtypes, library.evaluate.restype = [ctypes.c_void_p], ctypes.c_int
    for name in ("weights_size", "job_bytes", "state_size"):
        getattr(library, name).restype = ctypes.c_long
    return library
