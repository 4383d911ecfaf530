"""Threads of a rank: how many there are, and how they divide the work.

One process holds two pools of threads: OpenMP's, which PyTorch, oneDNN and MUMPS use, and that of OpenBLAS. The
threads of both spin when they have nothing to do. The operations of a learned law on some hundred points take
microseconds and call one pool after the other: while the threads of the one spin, the other cannot have their cores,
and each operation waits for the scheduler. On two cores a law was 10 to 30 times slower than on one thread.

Therefore no operation is divided among threads here. BLAS has one thread, and the threads of a rank take whole pieces
of the points (`spread`), each with one thread of PyTorch: that needs no waiting within a piece, and the numbers do not
depend on how many threads there are. This does not depend on what was loaded before; OpenMP threads of other libraries
sleep while they wait (``OMP_WAIT_POLICY=passive``) if `fem` is imported before PETSc and PyTorch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from mpi4py import MPI

from fem.parallel import raise_together

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Threads that every machine allows, whatever the number of its cores.
ALWAYS = 64

# threadpoolctl undoes its limits when the object is collected: it must live as long as the process.
_limits: list[Any] = []
_plans: list[ThreadPlan] = []


@dataclass(frozen=True)
class ThreadPlan:
    """Threads of each rank.

    Attributes:
        ranks: Ranks of the communicator.
        ranks_on_node: Ranks that share this node's memory.
        cores: Cores that this rank may run on, divided equally among the ranks that have the same cores.
        threads: Threads of this rank, of torch and numba.
        blas: Threads of BLAS in this rank.
        pools: Thread pools found and limited, such as "openblas".
    """

    ranks: int
    ranks_on_node: int
    cores: int
    threads: int
    blas: int
    pools: tuple[str, ...]

    def __str__(self) -> str:
        pools = ", ".join(("torch", "numba") + self.pools)
        return (
            f"{self.ranks} ranks, {self.ranks_on_node} on this node, {self.threads} threads per rank, "
            f"{self.blas} of BLAS ({pools})"
        )


def most_threads() -> int:
    """The largest number of threads per rank that is accepted: the cores of the machine, or 64 if it has fewer."""
    return max(os.cpu_count() or 1, ALWAYS)


def _asked(*names: str) -> int | None:
    """Threads that the first of these environment variables asks for, at most `most_threads`; None without any."""
    for name in names:
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return min(int(first), most_threads())
    return None


def owned_cores(comm: MPI.Comm) -> int:
    """Cores of this rank: those it may run on, divided among the ranks bound to the same ones; collective."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        masks = node.allgather(tuple(sorted(mine)))
    finally:
        node.Free()
    # A rank bound to two cores that three ranks share owns no more than its fraction of them.
    owned = sum(1.0 / sum(core in mask for mask in masks) for core in mine)
    return max(1, int(owned + 1e-9))


def _refusal(threads: int | None) -> ValueError | None:
    """What is wrong with a number of threads on this rank's machine, if anything."""
    if threads is not None and threads < 1:
        return ValueError(f"threads must be at least 1, got {threads}.")
    if threads is not None and threads > most_threads():
        return ValueError(f"threads must be at most {most_threads()} on this machine, got {threads}.")
    return None


def plan_threads(comm: MPI.Comm, threads: int | None = None) -> ThreadPlan:
    """Give each rank as many threads as it owns cores; call before the first tensor operation; collective.

    Args:
        comm: Communicator of the run.
        threads: Threads per rank; None takes OMP_NUM_THREADS, and without it the cores owned. BLAS has one thread, or
            as many as OPENBLAS_NUM_THREADS or MKL_NUM_THREADS asks for.

    Returns:
        The plan, to be logged.

    Raises:
        ValueError: On all ranks, if `threads` is not positive or more than `most_threads` of any rank.
    """
    raise_together(comm, _refusal(threads))
    import numba
    import torch
    from threadpoolctl import threadpool_info, threadpool_limits

    cores = owned_cores(comm)
    n = threads or _asked("OMP_NUM_THREADS") or cores
    blas = _asked("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") or 1
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    ranks_on_node = node.size
    node.Free()
    torch.set_num_threads(n)
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    _limits.append(threadpool_limits(limits={"openmp": n, "blas": blas}))
    pools = tuple(sorted({str(pool["internal_api"]) for pool in threadpool_info()}))
    _plans[:] = [ThreadPlan(comm.size, ranks_on_node, cores, n, blas, pools)]
    return _plans[0]


@cache
def _blas() -> tuple[Any, ...]:
    """The BLAS libraries of this process, as threadpoolctl controls them."""
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextlib.contextmanager
def single() -> Iterator[None]:
    """Let BLAS and PyTorch use one thread for each call within the block."""
    import torch

    threads, before = torch.get_num_threads(), [library.get_num_threads() for library in _blas()]
    if threads != 1:
        torch.set_num_threads(1)
    for library in _blas():
        library.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for library, had in zip(_blas(), before, strict=True):
            library.set_num_threads(had)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for pieces of work, asleep; PyTorch has one thread in each."""
    import torch

    return ThreadPoolExecutor(threads, "points", torch.set_num_threads, (1,))


def spread(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What `work` makes of each item, on the threads of the plan, one without a plan; it must not communicate.

    Gradient and inference modes belong to a thread: `work` must set its own.
    """
    threads = _plans[0].threads if _plans else 1
    with single():
        if min(threads, len(items)) < 2:
            return [work(item) for item in items]
        return list(_pool(threads).map(work, items))
