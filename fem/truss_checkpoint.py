"""Checkpoint of a truss: one file, in the order of the input, for any number of ranks."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from fem.checkpoint import check_shapes, gather_rows, read, write
from fem.runtime import raise_together

if TYPE_CHECKING:
    from fem.truss import TrussSolver

SCHEMA = "truss-1"
NODES = ("u_n", "force_n", "released")
BARS = ("strain", "stress", "state", "dissipated")
SCALARS = ("time", "newton_iterations", "bar_calls", "external_work", "fades_from", "fades_until")


def save(solver: TrussSolver, path: str | PathLike[str]) -> None:
    """Write the last state committed; collective.

    The tangent is not in the file: the solver that goes on, as the one that restarts, asks the law for it again. So
    both take the same steps.

    Args:
        solver: The solver.
        path: The `.npz` file; its folder must exist.

    Raises:
        OSError: On all ranks, if it cannot be written.
    """
    comm, part = solver.comm, solver.part
    solver.roll_back()
    values: dict[str, Any] = {}
    for name in NODES:
        values[name] = gather_rows(comm, getattr(solver, name), part.nodes)
    for name in BARS:
        values[name] = gather_rows(comm, getattr(solver, name), part.bars)
    error: Exception | None = None
    if comm.rank == 0:
        values.update({name: getattr(solver, name) for name in SCALARS})
        values.update(schema=SCHEMA, law=solver.bar_law.name)
        try:
            write(path, values)
        except OSError as caught:
            error = caught
    raise_together(comm, error)


def load(solver: TrussSolver, path: str | PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint for a solver; collective.

    Args:
        solver: A solver of the same truss and law; its ranks may differ.
        path: The `.npz` file.

    Returns:
        The attributes of SCALARS, NODES and BARS, this rank's part, for the solver to take.

    Raises:
        ValueError: On all ranks, if the file is no checkpoint of such a solver.
        FileNotFoundError: On all ranks, if it is not there.
    """
    comm, part = solver.comm, solver.part
    arrays = {name: (part.total_nodes, getattr(solver, name), part.nodes) for name in NODES}
    arrays |= {name: (part.total_bars, getattr(solver, name), part.bars) for name in BARS}
    values: dict[str, Any] | None = None
    error: Exception | None = None
    if comm.rank == 0:
        try:
            values = read(path, SCHEMA, solver.bar_law.name)
            check_shapes(path, values, {name: (rows, *array.shape[1:]) for name, (rows, array, _) in arrays.items()})
        except (OSError, ValueError) as caught:
            error = caught
    raise_together(comm, error)
    values = comm.bcast(values, root=0)
    assert values is not None
    found: dict[str, Any] = {name: values[name].item() for name in SCALARS}
    return found | {name: values[name][ids] for name, (_, _, ids) in arrays.items()}
