"""Threads of a rank, and errors that all ranks raise together."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mpi4py import MPI

# threadpoolctl undoes its limits when the object is collected: it must live as long as the process.
_limits: list[Any] = []


@dataclass(frozen=True)
class ThreadPlan:
    """Threads of each rank.

    Attributes:
        ranks: Ranks of the communicator.
        ranks_on_node: Ranks that share this node's memory.
        cores: Cores that this rank may run on, shared fairly with the ranks that have the same cores.
        threads: Threads of torch, BLAS and numba in this rank.
        pools: Thread pools found and limited, such as "openblas".
    """

    ranks: int
    ranks_on_node: int
    cores: int
    threads: int
    pools: tuple[str, ...]

    def __str__(self) -> str:
        pools = ", ".join(("torch", "numba") + self.pools)
        return f"{self.ranks} ranks, {self.ranks_on_node} on this node, {self.threads} threads a rank ({pools})"


def owned_cores(comm: MPI.Comm) -> int:
    """Cores of this rank: those it may run on, divided among the ranks bound to the same ones; collective."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        masks = node.allgather(tuple(sorted(mine)))
    finally:
        node.Free()
    # A rank bound to two cores that three ranks share owns no more than its part of them.
    share = sum(1.0 / sum(core in mask for mask in masks) for core in mine)
    return max(1, int(share + 1e-9))


def plan_threads(comm: MPI.Comm, threads: int | None = None) -> ThreadPlan:
    """Give each rank as many threads as it owns cores; call before the first tensor operation; collective.

    Args:
        comm: Communicator of the run.
        threads: Threads a rank; None takes the cores owned.

    Returns:
        The plan, to be logged.

    Raises:
        ValueError: If `threads` is not positive.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}.")
    import numba
    import torch
    from threadpoolctl import threadpool_info, threadpool_limits

    cores = owned_cores(comm)
    n = threads or cores
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    ranks_on_node = node.size
    node.Free()
    torch.set_num_threads(n)
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    _limits.append(threadpool_limits(limits=n))
    pools = tuple(sorted({str(pool["internal_api"]) for pool in threadpool_info()}))
    return ThreadPlan(comm.size, ranks_on_node, cores, n, pools)


def raise_together(comm: MPI.Comm, error: Exception | None) -> None:
    """Raise on every rank the error of the lowest rank that has one; collective.

    Args:
        comm: Communicator; every rank must call.
        error: This rank's error, or None.

    Raises:
        Exception: The same type and sentence on all ranks, if any rank has an error.
    """
    failed = comm.allreduce(comm.rank if error is not None else comm.size, op=MPI.MIN)
    if failed == comm.size:
        return
    mine = (_portable(error), str(error)) if error is not None else None
    kind, text = comm.bcast(mine, root=failed)
    if error is not None and comm.rank == failed:
        raise error
    raise kind(text)


def _portable(error: Exception) -> type[Exception]:
    """The type of an error if other ranks can make it from its sentence, else RuntimeError."""
    try:
        kind = type(error)
        copy = pickle.loads(pickle.dumps(kind))(str(error))
        return kind if str(copy) == str(error) else RuntimeError
    except Exception:  # a local class, or one with other arguments
        return RuntimeError


@contextlib.contextmanager
def fail_together(comm: MPI.Comm) -> Iterator[None]:
    """Run a block on every rank; if it fails on any, all ranks raise the error of the lowest one; collective.

    The block must not communicate: a rank that fails in it would leave the others waiting.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:  # a user's function or a damaged file may fail in any way
        error = caught
    raise_together(comm, error)


def abort_when_uncaught(comm: MPI.Comm) -> None:
    """End all ranks with exit code 1 when one rank ends with an uncaught error, instead of letting the others wait."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        previous(kind, value, trace)
        sys.stderr.flush()
        if comm.size > 1:
            comm.Abort(1)

    sys.excepthook = hook
