"""What the state of an explicit run consists of, for a checkpoint.

The functions take an `ExplicitSolver`, which calls them: it imports this module, so this module does not import it.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from fem.explicit.energy_balance import SUMS
from fem.io import checkpoint
from fem.io.checkpoint import Block, cell_numbers, node_numbers

SCALARS = ("steps", "dt", "next_step", "last_contact", "in_contact")
INITIAL = ("kinetic", "speed", "momentum", "hourglass")


def save(solver: Any, path: str | PathLike[str]) -> None:
    """Write the state of a solver; collective; `ExplicitSolver.save` calls it."""
    sums = solver.comm.allreduce(solver._sums.pack())
    scalars: dict[str, Any] = {name: getattr(solver, name) for name in SCALARS}
    hourglass = solver.forces.hourglass
    scalars["hourglass_dissipated"] = solver.comm.allreduce(0.0 if hourglass is None else hourglass.dissipated)
    scalars |= {f"initial_{name}": solver._initial[name] for name in INITIAL} | {"sums": sums}
    scalars["obstacles"] = solver.contact.state
    blocks = _blocks(solver, solver.n_nodes)
    checkpoint.save(path, solver.comm, time=solver.time, blocks=blocks, scalars=scalars, identity=_identity(solver))


def restore(solver: Any, path: str | PathLike[str]) -> None:
    """Put a solver into the state of a file; collective; `ExplicitSolver.restore` calls it."""
    like: dict[str, Any] = {name: False if name == "in_contact" else 0.0 for name in SCALARS}
    like |= {"steps": 0, "sums": np.zeros(SUMS)}
    like["hourglass_dissipated"] = 0.0
    like["obstacles"] = solver.contact.state
    like |= {f"initial_{name}": np.zeros(3) if name == "momentum" else 0.0 for name in INITIAL}
    blocks = _blocks(solver, len(solver._x))
    found = checkpoint.restore(path, solver.comm, blocks=blocks, scalars=like, identity=_identity(solver))
    nodes, cells = found.arrays["nodes"], found.arrays["cells"]
    solver.u.x.array[:] = nodes["u"].reshape(-1)
    solver.velocity.x.array[:] = nodes["velocity"].reshape(-1)
    solver._internal_force, solver._external_force = nodes["internal_force"], nodes["external_force"]
    solver.points.P[:] = cells["P"].reshape(solver.points.P.shape)
    solver.points.viscous[:] = cells["viscous"].reshape(-1)
    hourglass = solver.forces.hourglass
    if hourglass is not None:
        hourglass.zeta[:] = cells["hourglass"]
        hourglass.dissipated = found.scalars["hourglass_dissipated"] * (solver.comm.rank == 0)
    solver.state = cells["state"].reshape(solver.points.n, solver.law.state_size)
    for name in SCALARS:
        setattr(solver, name, found.scalars[name])
    solver._initial = {name: found.scalars[f"initial_{name}"] for name in INITIAL}
    solver._sums.unpack(found.scalars["sums"] * (solver.comm.rank == 0))
    solver.contact.state = found.scalars["obstacles"]
    solver.time = found.time


def _identity(solver: Any) -> dict[str, str | int]:
    return {"solver": "explicit", "law": solver.law.name, "integration": solver.integration}


def _blocks(solver: Any, n: int) -> dict[str, Block]:
    """Rows of the first n nodes of this rank, and of its owned cells."""
    V, mesh, points = solver.points.V, solver.domain.mesh, solver.points
    cells = cell_numbers(mesh)
    fields = {"u": solver.u.x.array.reshape(-1, 3), "velocity": solver.velocity.x.array.reshape(-1, 3)}
    fields |= {"internal_force": solver._internal_force, "external_force": solver._external_force}
    P = points.P.reshape(len(cells), points.per_cell, 3, 3)
    state = np.asarray(solver.state).reshape(len(cells), points.per_cell, solver.law.state_size)
    arrays = {"P": P, "state": state, "viscous": points.viscous.reshape(len(cells), points.per_cell)}
    if solver.forces.hourglass is not None:
        arrays["hourglass"] = solver.forces.hourglass.zeta
    return {
        "nodes": Block(
            node_numbers(V)[:n], V.dofmap.index_map.size_global, {name: array[:n] for name, array in fields.items()}
        ),
        "cells": Block(cells, mesh.topology.index_map(3).size_global, arrays),
    }
