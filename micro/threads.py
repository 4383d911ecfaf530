"""Threads of PyTorch and BLAS: their number, and how they wait.

One process holds two pools of threads: OpenMP's, which PyTorch, oneDNN and MUMPS use, and that of OpenBLAS, which
does not follow `torch.set_num_threads`. The threads of both spin when they have nothing to do, to be ready for the next
operation. The operations of a small batch take microseconds and call one pool after the other: while
the threads of the one spin, the other cannot have their cores, and each operation waits for the scheduler. On two
cores a batch is then 10 to 30 times slower than on one thread. Ranks on the same cores slow each other down in the same
way.

Two rules prevent this. Threads of OpenMP sleep while they wait (``OMP_WAIT_POLICY=passive``), and BLAS has one thread.
Then two threads are as fast as one for small batches, and faster for large ones. Both are read from the environment
when a library is loaded, so `sleep_when_idle` is called when this package is imported, and `limit_threads` by commands
before they import anything large. Where PyTorch was there first, as in a notebook, `small_batches` takes one thread.

The choice of the user has precedence: ``--threads``, then ``OMP_NUM_THREADS``; ``OPENBLAS_NUM_THREADS`` for BLAS.
"""

import argparse
import ctypes
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

#: Threads that every machine allows: the content of a data set depends on them, and it may be continued elsewhere.
ALWAYS = 64


def most_threads() -> int:
    """Return the largest number of threads that is accepted: the cores of the machine, or 64 where it has less."""
    return max(os.cpu_count() or 1, ALWAYS)


def check_threads(threads: int, name: str = "threads") -> int:
    """Check a number of threads and return it.

    Raises:
        ValueError: It is not positive, or beyond the bound of `most_threads`.
    """
    if threads < 1:
        raise ValueError(f"{name} must be at least 1, got {threads}.")
    if threads > most_threads():
        raise ValueError(f"{name} must be at most {most_threads()} on this machine, got {threads}.")
    return threads


def asked_threads(environment: MutableMapping[str, str] = os.environ) -> int | None:
    """Return the threads that ``OMP_NUM_THREADS`` asks for, at most `most_threads`; None if it is not set."""
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(first), most_threads()) if first.isdecimal() and int(first) > 0 else None


def openmp_is_loaded() -> bool:
    """Return whether this process has an OpenMP library, which has read its settings then."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            return any(name in line for line in maps for name in ("libgomp", "libomp", "libiomp"))
    except OSError:  # not Linux
        return "torch" in sys.modules


def sleep_when_idle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP sleep while they wait, unless the user has chosen otherwise or OpenMP is already loaded."""
    if not openmp_is_loaded():
        environment.setdefault("OMP_WAIT_POLICY", "passive")


def limit_threads(argv: Sequence[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the threads of OpenMP and BLAS; call it before NumPy and PyTorch are loaded.

    Args:
        argv: The words of a command line. Its ``--threads N`` is taken for OpenMP; without it the environment decides,
            and one thread is used if it sets none. A value that is no number, or too large, is left
            to the command to refuse. OpenBLAS has one thread unless the environment sets another number.
        environment: The environment to change.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--threads", nargs="?")
    given = parser.parse_known_args(list(argv))[0].threads
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    if given is not None and given.isdecimal() and 0 < int(given) <= most_threads():
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = given
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("MKL_NUM_THREADS", environment["OMP_NUM_THREADS"])  # PyTorch reads this one last


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option ``--threads``, whose value `use_threads` takes."""
    text = "threads of PyTorch (default: OMP_NUM_THREADS, or 1)"
    parser.add_argument("--threads", type=int, default=asked_threads() or 1, metavar="N", help=text)


def use_threads(threads: int) -> None:
    """Give PyTorch some threads, and OpenBLAS one unless the environment sets another number.

    Raises:
        ValueError: The number of threads is out of range.
    """
    import torch

    torch.set_num_threads(check_threads(threads))
    library = openblas()
    if library is not None and "OPENBLAS_NUM_THREADS" not in os.environ:
        library.openblas_set_num_threads(1)


@cache
def openblas() -> Any:
    """Return the OpenBLAS that PyTorch calls, None if it calls another BLAS."""
    import torch

    try:
        library = ctypes.CDLL(torch._C.__file__)
        library.openblas_get_num_threads, library.openblas_set_num_threads  # noqa: B018 - are they there?
    except (OSError, AttributeError):
        return None
    return library


@contextmanager
def _limited(pytorch: int | None, blas: int | None) -> Iterator[None]:
    """Let PyTorch and OpenBLAS use some threads within the block, None for no change."""
    import torch

    library, threads = openblas(), torch.get_num_threads()
    before = library.openblas_get_num_threads() if library is not None else 1
    if library is not None and blas is not None:
        library.openblas_set_num_threads(blas)
    if pytorch is not None:
        torch.set_num_threads(pytorch)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if library is not None:
            library.openblas_set_num_threads(before)


@contextmanager
def single() -> Iterator[None]:
    """Let BLAS and PyTorch use one thread for each call within the block."""
    with _limited(1, 1):
        yield


@contextmanager
def small_batches() -> Iterator[None]:
    """Run small batches without the threads that would slow them down; also a decorator.

    BLAS has one thread, and PyTorch too if its threads spin while they wait. Numbers that the user has set in the
    environment stay. The former numbers are restored afterwards.
    """
    spins = os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive" and asked_threads() is None
    if spins:
        _say_once()
    with _limited(1 if spins else None, None if "OPENBLAS_NUM_THREADS" in os.environ else 1):
        yield


@cache
def _say_once() -> None:
    """Log how the other threads can be used."""
    import torch

    if torch.get_num_threads() > 1:
        logger.warning(
            "An OpenMP library was loaded before this package, so small batches run on one thread of PyTorch; "
            "set OMP_WAIT_POLICY=passive before Python starts, or import micro or surrogates first, to use all."
        )
