"""A small impact with checkpoints, in which a rank may kill itself; the tests of restart start it with mpirun.

    mpirun -n 2 python3 killed_run.py FOLDER MODE

MODE: "none"; "step", the last rank dies between two checkpoints; "piece", it dies when it has written half a piece of
the second checkpoint; "name", rank 0 dies when the second checkpoint is whole but has no name yet. The run goes on from
FOLDER/run.h5 if that is there, and leaves FOLDER/end.h5.
"""

import os
import signal
import sys
from pathlib import Path

import dolfinx.mesh
import numpy as np
from mpi4py import MPI

from fem.explicit import ExplicitSolver, RigidPlane
from fem.explicit.checkpoints import Checkpoints
from fem.io import checkpoint, rows
from fem.laws import load_law

END, EVERY = 6e-7, 1.5e-7  # s


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, mode: str) -> None:
    comm, path = MPI.COMM_WORLD, folder / "run.h5"
    rows.PIECE = 2000  # bytes: several pieces for each rank
    mesh = dolfinx.mesh.create_box(
        comm, [np.zeros(3), np.array([1e-3, 1e-3, 2e-3])], [3, 3, 6], dolfinx.mesh.CellType.hexahedron
    )
    plane, law = RigidPlane(), load_law("magnesium-j2")
    solver = ExplicitSolver(mesh, law, contact=[plane], initial_velocity=(10.0, 0.0, -150.0))
    if path.is_file():
        solver.restore(path)
    checkpoints = Checkpoints(solver, path, every=EVERY)
    write, name, count = rows.write_piece, checkpoint.put_in_place, 0

    def write_piece(file: int, piece: np.ndarray, offset: int) -> None:
        nonlocal count
        count += checkpoints.written == 1
        if count == 4:
            write(file, piece[: len(piece) // 2].copy(), offset)
            die()
        write(file, piece, offset)

    def put_in_place(part: Path, path: Path, former: Path | None = None) -> None:
        if checkpoints.written == 1:
            die()
        name(part, path, former)

    if mode == "piece" and comm.rank == comm.size - 1:
        rows.write_piece = write_piece
    if mode == "name":
        checkpoint.put_in_place = put_in_place
    for _ in solver.run(END):
        checkpoints.look()
        if mode == "step" and checkpoints.written == 2 and comm.rank == comm.size - 1:
            die()
    solver.save(folder / "end.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
