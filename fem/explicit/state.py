"""What the state of an explicit run consists of, for a checkpoint.

The functions take an `ExplicitSolver`, which calls them: it imports this module, so this module does not import it.
Beside the state, a checkpoint keeps what must not change: the mesh, as the coordinates of the nodes and the nodes of
the cells; the law, by its name and its digest (`fem.laws.digest`); density, integration, hourglass stiffness, bulk
viscosity and contact; and the initial velocity, by energy and momentum. Prescribed displacements and loads are
functions, and are not compared.
"""

from __future__ import annotations

import functools
from dataclasses import fields, is_dataclass
from os import PathLike
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.explicit.energy_balance import SUMS
from fem.io import checkpoint
from fem.io.checkpoint import Block, cell_numbers, node_numbers
from fem.laws.digest import law_digest

SCALARS = ("steps", "dt", "next_step", "last_contact", "in_contact")
INITIAL = ("kinetic", "speed", "momentum", "hourglass")
GIVEN = ("kinetic", "speed", "momentum")  # of the initial velocity
SAME = 1e-9  # relative difference of initial velocities that is rounding


def save(solver: Any, path: str | PathLike[str], former: str | PathLike[str] | None = None) -> None:
    """Write the state of a solver; collective; `ExplicitSolver.save` calls it."""
    scalars: dict[str, Any] = {name: getattr(solver, name) for name in SCALARS}
    scalars |= {f"initial_{name}": solver._initial[name] for name in INITIAL}
    scalars |= {f"given_{name}": solver._given[name] for name in GIVEN}
    scalars["obstacles"] = solver.contact.state
    blocks = _blocks(solver, solver.n_nodes) | {"ranks": _of_ranks(solver, solver.comm.size)}
    for monitor in solver.monitors:
        blocks[monitor.name] = _of_monitor(solver, monitor)
    checkpoint.save(
        path, solver.comm, time=solver.time, blocks=blocks, scalars=scalars, identity=identity(solver), former=former
    )


def restore(solver: Any, path: str | PathLike[str], *, same_law: bool = True) -> None:
    """Put a solver into the state of a file; collective; `ExplicitSolver.restore` calls it."""
    problem = identity(solver)
    if not same_law:
        problem.pop("law digest")
    like: dict[str, Any] = {name: False if name == "in_contact" else 0.0 for name in SCALARS} | {"steps": 0}
    like["obstacles"] = solver.contact.state
    like |= {f"initial_{name}": np.zeros(3) if name == "momentum" else 0.0 for name in INITIAL}
    like |= {f"given_{name}": np.zeros(3) if name == "momentum" else 0.0 for name in GIVEN}
    wanted: dict[str, checkpoint.Wanted] = dict(_blocks(solver, len(solver._x)))
    wanted["ranks"] = lambda total: _of_ranks(solver, total)
    for monitor in solver.monitors:
        wanted[monitor.name] = functools.partial(_read_monitor, solver, monitor)
    found = checkpoint.restore(path, solver.comm, blocks=wanted, scalars=like, identity=problem)
    _check_mesh(solver, path, found.arrays)
    _check_start(solver, path, found.scalars)
    _take(solver, found)
    for monitor in solver.monitors:
        if monitor.name in found.arrays:
            rows = found.arrays[monitor.name]
            monitor.adopt({name: values.reshape(-1, *values.shape[2:]) for name, values in rows.items()})
    F = solver.points.gather(solver.u)
    viscous = solver.points.viscous.copy()
    bound, bad, _ = solver.stable.bound(F, F, 1.0)
    solver.points.viscous[:] = viscous
    lowest = solver.comm.allreduce(bound if bad < 0 else 0.0, op=MPI.MIN)
    if lowest <= 0.0:
        raise ValueError(f"The checkpoint {path} is damaged: a cell is inverted.")
    solver.next_step = min(solver.next_step, solver.stable.allowed(float(lowest)))
    solver.time_constant.value = solver.time
    solver.prescribed.set_time(solver.time)


def _take(solver: Any, found: checkpoint.Content) -> None:
    """Put the rows of a checkpoint where they belong."""
    nodes, cells, ranks = (found.arrays[name] for name in ("nodes", "cells", "ranks"))
    solver.u.x.array[:] = nodes["u"].reshape(-1)
    solver.velocity.x.array[:] = nodes["velocity"].reshape(-1)
    solver._internal_force, solver._external_force = nodes["internal_force"], nodes["external_force"]
    solver.points.P[:] = cells["P"].reshape(solver.points.P.shape)
    solver.points.viscous[:] = cells["viscous"].reshape(-1)
    hourglass = solver.forces.hourglass
    if hourglass is not None:
        hourglass.zeta[:] = cells["hourglass"]
        hourglass.dissipated = float(ranks["hourglass_dissipated"].sum())
    solver.state = cells["state"].reshape(solver.points.n, solver.law.state_size)
    for name in SCALARS:
        setattr(solver, name, found.scalars[name])
    solver._initial = {name: found.scalars[f"initial_{name}"] for name in INITIAL}
    solver._sums.unpack(ranks["sums"].sum(axis=0))
    solver.contact.touching = int(ranks["touching"].sum())
    solver.contact.state = found.scalars["obstacles"]
    solver.time = found.time


def identity(solver: Any) -> dict[str, str | int | float]:
    """What must be the same in the run that goes on, by name."""
    return {
        "solver": "explicit",
        "law": solver.law.name,
        "law digest": law_digest(solver.law),
        "density": solver.density if isinstance(solver.density, float) else "of the laws",
        "mass scaling": solver._mass_scaling,
        "integration": solver.integration,
        "hourglass stiffness": solver._hourglass if solver.integration == "one-point" else 0.0,
        "bulk viscosity": " and ".join(map(str, solver._viscosity)),
        "contact": "; ".join(map(_text, solver.contact.obstacles)) or "none",
    }


def _text(obstacle: Any) -> str:
    """An obstacle with its numbers; of anything else than numbers and texts the digest."""
    values = {item.name: getattr(obstacle, item.name) for item in fields(obstacle)} if is_dataclass(obstacle) else {}
    plain = all(isinstance(value, (bool, int, float, str, tuple, type(None))) for value in values.values())
    if not (values and plain):
        return f"{type(obstacle).__name__} {law_digest(obstacle)}"
    return f"{type(obstacle).__name__} " + ", ".join(f"{name} {value}" for name, value in values.items())


def _of_ranks(solver: Any, total: int) -> Block:
    """Sums of each rank: its own on as many ranks as wrote them, so that they go on bit for bit; else all on rank 0."""
    comm, hourglass = solver.comm, solver.forces.hourglass
    numbers = np.array([comm.rank]) if total == comm.size else np.arange(total if comm.rank == 0 else 0)
    n = len(numbers)
    dissipated = 0.0 if hourglass is None else hourglass.dissipated
    arrays = {
        "sums": np.broadcast_to(solver._sums.pack(), (n, SUMS)),
        "hourglass_dissipated": np.full((n, 1), dissipated),
        "touching": np.full((n, 1), solver.contact.touching, dtype=np.int64),
    }
    return Block(numbers, total, arrays)


def _of_monitor(solver: Any, monitor: Any) -> Block:
    """What a monitor has seen, by cell."""
    mesh, per_cell = solver.domain.mesh, solver.points.per_cell
    numbers = cell_numbers(mesh)
    rows = monitor.rows().items()
    arrays = {name: values.reshape(len(numbers), per_cell, *values.shape[1:]) for name, values in rows}
    return Block(numbers, mesh.topology.index_map(3).size_global, arrays)


def _read_monitor(solver: Any, monitor: Any, total: int) -> Block | None:
    """The block of a monitor, unless the checkpoint is of a run without it."""
    return _of_monitor(solver, monitor) if total else None


def _blocks(solver: Any, n: int) -> dict[str, Block]:
    """Rows of the first n nodes of this rank, and of its owned cells."""
    V, mesh, points = solver.points.V, solver.domain.mesh, solver.points
    cells, nodes = cell_numbers(mesh), node_numbers(V)
    fields = {"u": solver.u.x.array.reshape(-1, 3), "velocity": solver.velocity.x.array.reshape(-1, 3)}
    fields |= {"internal_force": solver._internal_force, "external_force": solver._external_force, "x": solver._x}
    P = points.P.reshape(len(cells), points.per_cell, 3, 3)
    state = np.asarray(solver.state).reshape(len(cells), points.per_cell, solver.law.state_size)
    arrays = {"P": P, "state": state, "viscous": points.viscous.reshape(len(cells), points.per_cell)}
    arrays["nodes"] = nodes[V.dofmap.list[: len(cells)]]
    if solver.forces.hourglass is not None:
        arrays["hourglass"] = solver.forces.hourglass.zeta
    return {
        "nodes": Block(nodes[:n], V.dofmap.index_map.size_global, {name: array[:n] for name, array in fields.items()}),
        "cells": Block(cells, mesh.topology.index_map(3).size_global, arrays),
    }


def _check_mesh(solver: Any, path: str | PathLike[str], arrays: dict[str, dict[str, np.ndarray]]) -> None:
    """Check that nodes and cells are those of the checkpoint; collective."""
    present = _blocks(solver, len(solver._x))
    for what, block, name, tolerance in (
        ("position of node", "nodes", "x", solver._tolerance), ("nodes of cell", "cells", "nodes", 0.0)
    ):  # fmt: skip
        here = present[block]
        checkpoint.check_same(solver.comm, path, what, here.numbers, arrays[block][name], here.arrays[name], tolerance)


def _check_start(solver: Any, path: str | PathLike[str], scalars: dict[str, Any]) -> None:
    """Check that the body had the same initial velocity, by its energy and momentum, which all ranks know.

    Raises:
        ValueError: On all ranks, if it differs.
    """
    for name, unit in zip(GIVEN, ("J", "N s", "N s"), strict=True):
        was, now = np.atleast_1d(scalars[f"given_{name}"]), np.atleast_1d(solver._given[name])
        scale = max(scalars["given_kinetic" if name == "kinetic" else "given_speed"], float(np.abs(now).max()))
        if np.abs(was - now).max() > SAME * scale:
            label = {"kinetic": "energy", "speed": "sum of mass times speed", "momentum": "momentum"}[name]
            texts = [", ".join(f"{float(value):.9g}" for value in values) for values in (was, now)]
            raise ValueError(
                f"{path} was written with an initial velocity of the {label} {texts[0]} {unit}, "
                f"the solver has {texts[1]} {unit}."
            )
