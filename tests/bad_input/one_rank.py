"""Programs in which what a user hands over fails on the last rank alone: all ranks must end together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dolfinx.mesh
import numpy as np
from mpi4py import MPI

from fem import ExplicitSolver, load_law, read_mesh
from fem.command import finish
from fem.parallel import abort_when_uncaught

COMM = MPI.COMM_WORLD
LAST = COMM.rank == COMM.size - 1


def solver(**options: Any) -> ExplicitSolver:
    """A block of eight cells."""
    block = dolfinx.mesh.create_box(
        COMM, [np.zeros(3), np.full(3, 1e-3)], [2, 2, 2], dolfinx.mesh.CellType.hexahedron
    )
    return ExplicitSolver(block, load_law("magnesium-j2"), **options)


def velocity() -> None:
    """The function of the initial velocity fails."""
    solver(initial_velocity=lambda x: 0.0 * x if not LAST else 1 // 0)


def value() -> None:
    """A prescribed displacement fails in the second step."""
    s = solver()
    s.prescribe(lambda x: x[2] < 1e-9, 2, lambda x, t: 1 // (not (LAST and t > 1.5 * s.next_step)) * 0.0 * t)
    s.run(20 * s.next_step).finish()


def where() -> None:
    """The function of the place fails."""
    solver().prescribe(lambda x: x[0] < 1 // (not LAST), 0)


def shape() -> None:
    """The function of the initial velocity gives another shape."""
    solver(initial_velocity=lambda x: x[:2] if LAST else x)


def restore() -> None:
    """The checkpoint is not there for one rank, as on a disk that not all machines share."""
    s = solver()
    s.save("run.h5")
    Path("run.h5").rename("moved.h5") if COMM.rank == 0 else None
    COMM.barrier()
    s.restore("none.h5" if LAST else "moved.h5")


def mesh() -> None:
    """A mesh file that rank 0 cannot read."""
    if COMM.rank == 0:
        Path("text.msh").write_text("hello")
    read_mesh("text.msh", COMM)


def law() -> None:
    """The law fails where the body moves."""
    s = solver()
    update = s.law.update

    def failing(F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        if LAST and s.steps > 0:
            raise KeyError("a word")
        return update(F, state, dt)

    object.__setattr__(s.law, "update", failing)
    s.run(20 * s.next_step).finish()


SCENES = {scene.__name__: scene for scene in (velocity, value, where, shape, restore, mesh, law)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a scene; returns the exit status."""
    name = (sys.argv[1:] if arguments is None else arguments)[0]
    np.seterr(all="ignore")
    return finish(COMM, SCENES[name])


if __name__ == "__main__":
    abort_when_uncaught(COMM)
    sys.exit(main())
