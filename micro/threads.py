"""Threads of BLAS and OpenMP: they read their number from the environment, once, when they are loaded.

OpenBLAS as Linux distributions build it does not follow `torch.set_num_threads`. Left alone, every rank takes all
cores for the small products of a batch, and the ranks of a job then wait for each other most of the time.
"""

import argparse
import os
from collections.abc import MutableMapping, Sequence

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Threads that every machine allows: the content of a data set depends on them, and it may be continued elsewhere.
ALWAYS = 64


def most_threads() -> int:
    """Return the largest number of threads that may be asked for: the cores of the machine, or 64 where it has less."""
    return max(os.cpu_count() or 1, ALWAYS)


def check_threads(threads: int, name: str = "threads") -> int:
    """Return the number of threads if it can be had.

    Raises:
        ValueError: It is not positive, or beyond the bound of `most_threads`.
    """
    if threads < 1:
        raise ValueError(f"{name} must be at least 1, got {threads}.")
    if threads > most_threads():
        raise ValueError(f"{name} must be at most {most_threads()} on this machine, got {threads}.")
    return threads


def limit_threads(argv: Sequence[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the threads of BLAS and OpenMP; call it before NumPy and PyTorch are loaded.

    Args:
        argv: The words of a command line. Its ``--threads N`` is taken; without it, what the environment says stays,
            and where that says nothing it is one thread. A value that is no number is left to the command to refuse.
        environment: The environment to change.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--threads", nargs="?")
    given = parser.parse_known_args(list(argv))[0].threads
    for name in VARIABLES:
        if given is not None and given.isdecimal() and 0 < int(given) <= most_threads():
            environment[name] = given
        else:
            environment.setdefault(name, "1")
