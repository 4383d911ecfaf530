"""Independent pieces of work, one a thread: loads and cells do not see each other.

The operations of a load are too small to be shared among threads, and OpenBLAS and OpenMP, each with threads of its
own, wait for each other's. So each thread of PyTorch's takes whole pieces, and BLAS works with one thread meanwhile;
also before and after, because the threads of OpenBLAS keep a core busy for a while when they have nothing left to do.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from micro.threads import openblas, single

__all__ = ["openblas", "single", "spread"]

Item = TypeVar("Item")
Result = TypeVar("Result")


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
