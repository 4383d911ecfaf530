"""Errors that all ranks raise together."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Iterator
from types import TracebackType

from mpi4py import MPI


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
