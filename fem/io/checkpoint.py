"""Checkpoint of an explicit run: one file, in the order of the input mesh, readable by any number of ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

from fem.parallel import raise_together

if TYPE_CHECKING:
    from fem.explicit.solver import ExplicitSolver

SCHEMA = 1
NODES = ("u", "velocity", "internal_force", "user_force")
SCALARS = ("time", "steps", "dt", "next_step", "last_contact", "in_contact")


def write(path: str | PathLike[str], values: Mapping[str, Any]) -> None:
    """Write arrays to an `.npz` file as a whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        np.savez(file, **values)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def node_numbers(V: Any) -> np.ndarray:
    """Input number of the node of each local block of a P1 space, ghosts included, (nodes,)."""
    geometry = V.mesh.geometry
    numbers = np.full(V.dofmap.index_map.size_local + V.dofmap.index_map.num_ghosts, -1, dtype=np.int64)
    numbers[V.dofmap.list] = np.asarray(geometry.input_global_indices)[geometry.dofmap]
    return numbers


def gather_rows(comm: MPI.Comm, values: np.ndarray, numbers: np.ndarray) -> np.ndarray | None:
    """Rows of all ranks in the order of their numbers, on rank 0."""
    parts = comm.gather((numbers, values), root=0)
    if parts is None:
        return None
    order = np.argsort(np.concatenate([part[0] for part in parts]))
    return np.concatenate([part[1] for part in parts])[order]


def _node_arrays(solver: ExplicitSolver) -> tuple[np.ndarray, ...]:
    """Views of the fields of NODES, ghosts included, (nodes, 3)."""
    u, v = (f.x.array.reshape(-1, 3) for f in (solver.u, solver.velocity))
    return u, v, solver.internal_force, solver.user_force


def save(solver: ExplicitSolver, path: str | PathLike[str]) -> None:
    """Write a checkpoint; collective.

    Args:
        solver: The solver.
        path: The `.npz` file; its folder must exist.

    Raises:
        OSError: On all ranks, if it cannot be written.
    """
    comm, n, per_cell = solver.comm, solver.n_nodes, solver.points.per_cell
    nodes = node_numbers(solver.points.V)[:n]
    cells = np.asarray(solver.domain.mesh.topology.original_cell_index)[: solver.points.n // per_cell]
    values: dict[str, Any] = {}
    for name, array in zip(NODES, _node_arrays(solver)):
        values[name] = gather_rows(comm, array[:n].copy(), nodes)
    for name, array in (("P", solver.P), ("state", solver.state)):
        width = array[0].size if len(array) else int(np.prod(array.shape[1:]))
        values[name] = gather_rows(comm, array.reshape(len(cells), per_cell * width), cells)
    books = comm.reduce(solver.books.pack(), root=0)
    error: Exception | None = None
    if comm.rank == 0:
        values["books"] = books
        values.update({f"opening_{key}": value for key, value in solver.opening.items()})
        values.update({name: getattr(solver, name) for name in SCALARS})
        values.update(schema=SCHEMA, law=solver.law.name, per_cell=per_cell)
        try:
            write(path, values)
        except OSError as caught:
            error = caught
    raise_together(comm, error)


def restore(solver: ExplicitSolver, path: str | PathLike[str]) -> None:
    """Put a solver into the state of a checkpoint; collective.

    Args:
        solver: A solver of the same mesh, law and integration; its ranks may differ.
        path: The `.npz` file.

    Raises:
        ValueError: On all ranks, if the file is no checkpoint of such a solver.
        FileNotFoundError: On all ranks, if it is not there.
    """
    comm, V = solver.comm, solver.points.V
    n_nodes, n_cells = V.dofmap.index_map.size_global, solver.domain.mesh.topology.index_map(3).size_global
    values: dict[str, Any] | None = None
    error: Exception | None = None
    if comm.rank == 0:
        try:
            values = _read(path, solver.law.name, solver.points.per_cell, solver.law.state_size, n_nodes, n_cells)
        except (OSError, ValueError) as caught:
            error = caught
    raise_together(comm, error)
    values = comm.bcast(values, root=0)
    assert values is not None
    nodes, per_cell = node_numbers(V), solver.points.per_cell
    cells = np.asarray(solver.domain.mesh.topology.original_cell_index)[: solver.points.n // per_cell]
    for name, array in zip(NODES, _node_arrays(solver)):
        array[:] = values[name][nodes]
    solver.P[:] = values["P"][cells].reshape(-1, 3, 3)
    solver.state = values["state"][cells].reshape(solver.points.n, solver.law.state_size)
    books = values["books"]
    solver.books.unpack(books if comm.rank == 0 else np.zeros_like(books))
    solver.opening = {key: values[f"opening_{key}"] for key in solver.opening}
    for name in SCALARS:
        setattr(solver, name, values[name].item())
    solver.t.value = solver.time
    solver.points.gather(solver.u)


def _read(path: str | PathLike[str], law: str, per_cell: int, k: int, n_nodes: int, n_cells: int) -> dict[str, Any]:
    values = read(path, SCHEMA, law)
    check_shapes(path, values, {"u": (n_nodes, 3), "P": (n_cells, 9 * per_cell), "state": (n_cells, k * per_cell)})
    return values


def read(path: str | PathLike[str], schema: int | str, law: str) -> dict[str, Any]:
    """Arrays of a checkpoint.

    Args:
        path: The `.npz` file.
        schema: What its field "schema" must be.
        law: Name that its field "law" must have.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no such checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint {path} does not exist.")
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
    except Exception as error:  # a truncated archive fails in several ways
        raise ValueError(f"{path} is not a checkpoint, or it is truncated.") from error
    if "schema" not in values or str(values["schema"]) != str(schema):
        raise ValueError(f"{path} is not a checkpoint of schema {schema}.")
    if str(values["law"]) != law:
        raise ValueError(f'{path} was written with the law "{values["law"]}", the solver has "{law}".')
    return values


def check_shapes(path: str | PathLike[str], values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint of another mesh.

    Raises:
        ValueError: If an array has another shape than it must have.
    """
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise ValueError(f"{path} does not fit this mesh: {name} has shape {values[name].shape}, not {shape}.")
