"""Checkpoint of a truss: one file, in the order of the input, for any number of ranks."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from fem.io.checkpoint import check_shapes, gather_rows, read, write
from fem.parallel import raise_together

if TYPE_CHECKING:
    from fem.truss.solver import TrussSolver

SCHEMA = "truss-1"
NODES = ("u_n", "force_n", "released")
BARS = ("strain", "stress", "state", "dissipated")
SCALARS = ("time", "newton_iterations", "external_work", "fades_from", "fades_until")


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
        values[name] = gather_rows(comm, getattr(solver.bars, name), part.bars)
    error: Exception | None = None
    if comm.rank == 0:
        values.update({name: getattr(solver, name) for name in SCALARS})
        values.update(schema=SCHEMA, law=solver.bar_law.name, bar_calls=solver.bar_calls)
        try:
            write(path, values)
        except OSError as caught:
            error = caught
    raise_together(comm, error)


def restore(solver: TrussSolver, path: str | PathLike[str]) -> None:
    """Put a solver into the state of a checkpoint; collective; `TrussSolver.restore` calls it.

    Args:
        solver: A solver of the same truss and law; its ranks may differ.
        path: The `.npz` file.

    Raises:
        ValueError: On all ranks, if the file is no checkpoint of such a solver.
        FileNotFoundError: On all ranks, if it is not there.
    """
    comm, part = solver.comm, solver.part
    shapes = {name: (part.total_nodes, *getattr(solver, name).shape[1:]) for name in NODES}
    shapes |= {name: (part.total_bars, *getattr(solver.bars, name).shape[1:]) for name in BARS}
    values: dict[str, Any] | None = None
    error: Exception | None = None
    if comm.rank == 0:
        try:
            values = read(path, SCHEMA, solver.bar_law.name)
            check_shapes(path, values, shapes)
        except (OSError, ValueError) as caught:
            error = caught
    raise_together(comm, error)
    values = comm.bcast(values, root=0)
    assert values is not None
    for name in SCALARS:
        setattr(solver, name, values[name].item())
    for name in NODES:
        setattr(solver, name, values[name][part.nodes])
    for name in BARS:
        setattr(solver.bars, name, values[name][part.bars])
    solver.bars.calls = int(values["bar_calls"])
