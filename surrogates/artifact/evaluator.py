"""A C library that evaluates a law at many points: it is built, its sizes are checked, and it is called."""

import ctypes
from functools import cache
from pathlib import Path

from micro.build import BuildError, build


class Evaluator:
    """The function `evaluate` of a C file, which takes a job: numbers, and the places of arrays.

    The library has `job_bytes`, the size of the job, and counts with `weights_size` and `state_size` the numbers of the
    weights and of the state of a point.

    Args:
        main: The C file.
        defines: Its macros.
        job: The structure that Python fills.
        weights: Numbers of the weights.
        state: Numbers of a state.

    Raises:
        BuildError: The library cannot be built or loaded here, or takes another job.
        ValueError: It needs other weights or another state.
    """

    def __init__(
        self, main: Path, defines: tuple[str, ...], job: type[ctypes.Structure], *, weights: int, state: int
    ) -> None:
        self._library = _library(main, defines)
        if self._library.job_bytes() != ctypes.sizeof(job):
            raise BuildError(f"the job of {main.name} has {self._library.job_bytes()} bytes, not {ctypes.sizeof(job)}")
        found = (self._library.weights_size(), self._library.state_size())
        if found != (weights, state):
            raise ValueError(f"The compiled law needs {found} weights and numbers, got {(weights, state)}.")

    def __call__(self, job: ctypes.Structure) -> None:
        """Do a job.

        Raises:
            MemoryError: There is no memory for the intermediate results.
        """
        if self._library.evaluate(ctypes.byref(job)):
            raise MemoryError("The compiled law has no memory for its intermediate results.")


@cache
def _library(main: Path, defines: tuple[str, ...]) -> ctypes.CDLL:
    library = build(main, defines)
    library.evaluate.argtypes, library.evaluate.restype = [ctypes.c_void_p], ctypes.c_int
    for name in ("weights_size", "job_bytes", "state_size"):
        getattr(library, name).restype = ctypes.c_long
    return library
