"""Ranks of a data job: MPI if it started the job, else one process."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Set by the launchers of Open MPI, and of MPICH and its derivatives.
WORLD_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")


@dataclass(frozen=True)
class Ranks:
    """The processes of a job.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local: number of this process on its machine, from 0.
        comm: the mpi4py communicator, None where the job is one process.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    comm: Any = None

    def wait(self, meanwhile: Callable[[], None] | None = None, pause: float = 0.02) -> None:
        """Wait asleep until every rank has arrived: a spinning barrier would take a core from a rank that works."""
        if self.comm is None:
            return
        request = self.comm.Ibarrier()
        while not request.Test():
            time.sleep(pause)
            if meanwhile is not None:
                meanwhile()

    def bcast(self, value: Any) -> Any:
        """Give all ranks the value of rank 0."""
        self.wait()
        return value if self.comm is None else self.comm.bcast(value, root=0)

    def allgather(self, value: Any) -> list[Any]:
        """Give all ranks the values of all ranks, in rank order."""
        self.wait()
        return [value] if self.comm is None else self.comm.allgather(value)

    def on_first(self, function: Callable[[], Any]) -> Any:
        """Call a function on rank 0 and return its value, or raise its error, on all ranks."""
        value, error = None, None
        if self.rank == 0:
            try:
                value = function()
            except (ValueError, OSError, RuntimeError, MemoryError) as caught:
                error = caught
        error = self.bcast(error)
        if error is not None:
            raise error
        return self.bcast(value)

    def together(self, function: Callable[[], Any]) -> Any:
        """Call a function on all ranks and return its value, or raise the error of the first that failed on all."""
        value, error = None, None
        try:
            value = function()
        except (ValueError, OSError, RuntimeError, MemoryError) as caught:
            error = caught
        for found in self.allgather(error):
            if found is not None:
                raise found
        return value


def world() -> Ranks:
    """Return the ranks this process was started with; mpi4py is loaded only here.

    Raises:
        ValueError: mpirun started several processes and mpi4py is missing.
    """
    try:
        from mpi4py import MPI
    except ImportError:
        started = max((int(os.environ.get(name, "1")) for name in WORLD_SIZES), default=1)
        if started > 1:
            text = f"mpi4py is needed to distribute the job among {started} processes, but it is not installed."
            raise ValueError(text) from None
        return Ranks()
    comm = MPI.COMM_WORLD
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    local = node.rank
    node.Free()
    return Ranks(comm.rank, comm.size, local, comm)
