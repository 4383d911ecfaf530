"""Command lines of parallel programs: messages from rank 0, and errors that all ranks raise together."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from mpi4py import MPI

from fem.errors import Interrupted, SolverError
from fem.io.files import remove, write_text
from fem.parallel import raise_together

TERMINATED = 143  # exit code of a program that SIGTERM has ended

__all__ = ["Parser", "Stop", "finish", "name_value_pairs", "positive_numbers", "remove", "together", "write_text"]


class Stop(Exception):
    """The run is impossible, for a reason that all ranks know.

    Args:
        sentence: The reason, one sentence.
        code: Exit code of the program: 2 for bad input, 1 for a failure.
    """

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


class Parser(argparse.ArgumentParser):
    """Argument parser that prints on rank 0 only; a bad argument raises a ValueError with one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise an error instead of ending this rank alone."""
        raise ValueError(f"{message[:1].upper()}{message[1:]}.")

    def print_help(self, file: Any = None) -> None:
        """Print on rank 0."""
        if MPI.COMM_WORLD.rank == 0:
            super().print_help(file)


def name_value_pairs(option: str, text: str) -> dict[str, Any]:
    """Values from name=value,name=value: numbers, true and false as such, all else as text.

    Raises:
        ValueError: If a part is no such pair; the option is for the message.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"{option} must be name=value pairs separated by commas, got {part!r}.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def positive_numbers(option: str, text: str) -> list[float]:
    """Positive finite numbers from a list with commas, each once, in order.

    Raises:
        ValueError: If a part is no such number; the option is for the message.
    """
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = [math.nan]
    if any(not 0.0 < value < math.inf for value in values):
        raise ValueError(f"{option} must be positive finite numbers separated by commas, got {text!r}.")
    return sorted(set(values))


def together(comm: MPI.Comm, work: Callable[[], Any], *, root: bool = False) -> Any:
    """Do local work on every rank (or on rank 0 only); if it fails anywhere, all ranks raise the same; collective.

    Args:
        comm: Communicator.
        work: What to do; it must not communicate.
        root: On rank 0 only; the others return None.

    Raises:
        Stop: On all ranks, for a ValueError, RuntimeError or OSError of any.
    """
    result, error = None, None
    if comm.rank == 0 or not root:
        try:
            result = work()
        except OSError as caught:
            error = ValueError(f"{caught.strerror or caught}: {caught.filename}.")
        except (ValueError, RuntimeError) as caught:
            error = ValueError(str(caught))
    try:
        raise_together(comm, error)
    except ValueError as shared:
        raise Stop(str(shared)) from error
    return result


def finish(comm: MPI.Comm, work: Callable[[], None]) -> int:
    """Run a program to its exit status, the same on every rank; collective.

    0 if it is done, 2 and a sentence for bad input, 1 and a sentence for a failure, 143 and a sentence if it was
    told to terminate.

    Args:
        comm: Communicator.
        work: The program; it raises Stop, ValueError or SolverError on all ranks together. Any other error is one of
            the program, which `abort_when_uncaught` ends on all ranks.
    """
    try:
        work()
    except (Stop, ValueError, SolverError, Interrupted) as error:
        if comm.rank == 0:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
        comm.barrier()  # mpirun ends the others as soon as one rank has left with an error: print it first
        if isinstance(error, Stop):
            return error.code
        return TERMINATED if isinstance(error, Interrupted) else 1 if isinstance(error, SolverError) else 2
    return 0
