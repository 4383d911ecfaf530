"""Checkpoint of an implicit run: one file, cell by cell in the order of the input mesh, for any number of ranks."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from fem.io.checkpoint import check_shapes, gather_rows, read, write
from fem.parallel import raise_together

if TYPE_CHECKING:
    from fem.statics.implicit import ImplicitSolver

SCHEMA = "implicit-1"


def _shapes(solver: ImplicitSolver) -> dict[str, tuple[int, int]]:
    """Shape of each array of the file: a row a cell. Displacement by cell, since edges have no number in the input."""
    mesh, points = solver.domain.mesh, solver.points
    cells, d = mesh.topology.index_map(mesh.topology.dim).size_global, points.dimension
    return {
        "u": (cells, points.V.dofmap.list.shape[1] * d),
        "P": (cells, points.per_cell * d * d),
        "state": (cells, points.per_cell * solver.law.state_size),
    }


def _cells(solver: ImplicitSolver) -> np.ndarray:
    """Input number of the owned cells, (cells,)."""
    n = solver.points.n // solver.points.per_cell
    return np.asarray(solver.domain.mesh.topology.original_cell_index)[:n]


def save(solver: ImplicitSolver, path: str | PathLike[str]) -> None:
    """Write the last state committed; collective.

    Tangent and preconditioner are not in the file: the solver that goes on forgets them, as the one that restarts does
    not have them. So both take the same steps.

    Args:
        solver: The solver.
        path: The `.npz` file; its folder must exist.

    Raises:
        OSError: On all ranks, if it cannot be written.
    """
    comm, points, cells = solver.comm, solver.points, _cells(solver)
    solver.roll_back()
    solver.adopt(solver.state)
    u = solver.u.x.array.reshape(-1, points.dimension)[points.V.dofmap.list[: len(cells)]]
    values: dict[str, Any] = {}
    for (name, shape), array in zip(_shapes(solver).items(), (u, points.P, solver.state)):
        values[name] = gather_rows(comm, array.reshape(len(cells), shape[1]), cells)
    error: Exception | None = None
    if comm.rank == 0:
        values.update(schema=SCHEMA, law=solver.law.name, time=solver.time, points_evaluated=solver.points_evaluated)
        try:
            write(path, values)
        except OSError as caught:
            error = caught
    raise_together(comm, error)


def restore(solver: ImplicitSolver, path: str | PathLike[str]) -> None:
    """Put a solver into the state of a checkpoint; collective.

    Args:
        solver: A solver of the same mesh, law, degree and quadrature; its ranks may differ.
        path: The `.npz` file.

    Raises:
        ValueError: On all ranks, if the file is no checkpoint of such a solver.
        FileNotFoundError: On all ranks, if it is not there.
    """
    comm, points, V = solver.comm, solver.points, solver.points.V
    shapes = _shapes(solver)
    values: dict[str, Any] | None = None
    error: Exception | None = None
    if comm.rank == 0:
        try:
            values = read(path, SCHEMA, solver.law.name)
            check_shapes(path, values, shapes)
        except (OSError, ValueError) as caught:
            error = caught
    raise_together(comm, error)
    values = comm.bcast(values, root=0)
    assert values is not None
    cells, d = _cells(solver), points.dimension
    u = solver.u.x.array.reshape(-1, d)
    u[V.dofmap.list[: len(cells)]] = values["u"][cells].reshape(len(cells), -1, d)
    solver.u.x.scatter_forward()
    points.P[:] = values["P"][cells].reshape(points.P.shape)
    solver.set_time(float(values["time"]))
    solver.adopt(values["state"][cells].reshape(points.n, solver.law.state_size))
    solver.material.evaluated = int(values["points_evaluated"])
