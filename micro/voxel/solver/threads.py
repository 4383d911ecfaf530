"""Independent pieces of work, one a thread: loads and cells do not see each other.

The operations of a load are too small to be shared among threads, and OpenBLAS and OpenMP, each with threads of its
own, wait for each other's. So each thread of PyTorch's takes whole pieces, and BLAS works with one thread meanwhile;
also before and after, because the threads of OpenBLAS keep a core busy for a while when they have nothing left to do.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def openblas() -> Any:
    """Return the OpenBLAS that PyTorch calls, None if it calls another BLAS."""
    try:
        library = ctypes.CDLL(torch._C.__file__)
        library.openblas_get_num_threads, library.openblas_set_num_threads  # noqa: B018 - are they there?
    except (OSError, AttributeError):
        return None
    return library


@contextmanager
def single() -> Iterator[None]:
    """Let BLAS and PyTorch use one thread for each call; afterwards they have what they had."""
    library, threads = openblas(), torch.get_num_threads()
    before = library.openblas_get_num_threads() if library is not None else 1
    if library is not None:
        library.openblas_set_num_threads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if library is not None:
            library.openblas_set_num_threads(before)


def spread(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """Return what `work` makes of each item, on some threads; gradients are not recorded."""

    def alone(item: Item) -> Result:
        with torch.no_grad():
            return work(item)

    threads = min(threads, len(items))
    if threads < 2:
        with single():
            return [alone(item) for item in items]
    with single(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(alone, items))
