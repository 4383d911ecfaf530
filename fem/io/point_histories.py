"""Histories of the deformation gradient at some material points of a run, for studies of the material alone."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fem.io.files import write_arrays
from fem.parallel import fail_together, raise_together


class PointHistories:
    """Records F at points that are spread evenly over the cells of the mesh; the same ones on any number of ranks.

    The file is an `.npz` with `F` (n, T, 3, 3), `time` (T,), s, `cell` (n,), the number of each point's cell in the
    mesh that was read, and `X` (n, 3), the midpoint of that cell in the reference configuration, m.

    Args:
        solver: A solver of bodies with `points`, `u`, `comm` and `time`.
        count: Number of points; at most one per cell.

    Raises:
        ValueError: If there are no points, or fewer cells than points; on all ranks together.
    """

    def __init__(self, solver: Any, count: int) -> None:
        self._solver, self._comm = solver, solver.comm
        mesh = solver.u.function_space.mesh
        cells = mesh.topology.index_map(mesh.topology.dim)
        if not 1 <= count <= cells.size_global:
            raise ValueError(f"The points to record must be between 1 and the {cells.size_global} cells, got {count}.")
        wanted = (np.arange(count) * cells.size_global + cells.size_global // 2) // count
        own = np.asarray(mesh.topology.original_cell_index)[: cells.size_local]
        self._local = np.flatnonzero(np.isin(own, wanted))
        self._cell = own[self._local]
        corners = mesh.geometry.x[mesh.geometry.dofmap[self._local]]
        self._X = corners.mean(axis=1).reshape(-1, 3)
        self._time: list[float] = []
        self._F: list[np.ndarray] = []

    def look(self) -> None:
        """Append the first point of every chosen cell as it is now; a time that is there already is left (local)."""
        if not self._time or self._solver.time > self._time[-1]:
            points = self._solver.points
            self._time.append(self._solver.time)
            self._F.append(np.array(points.F.reshape(-1, points.per_cell, 3, 3)[self._local, 0]))

    def read(self, path: str | PathLike[str], until: float) -> None:
        """Go on with the points of an earlier run up to a time, s, if its file is there (collective).

        Raises:
            ValueError: On all ranks, if the file is of other points.
        """
        with fail_together(self._comm):
            if Path(path).is_file():
                with np.load(path) as found:
                    place = np.searchsorted(found["cell"], self._cell)
                    if not np.array_equal(found["cell"][np.minimum(place, len(found["cell"]) - 1)], self._cell):
                        raise ValueError(f"{path} must hold the points that are recorded, and it holds others.")
                    kept = found["time"] <= until * (1.0 + 1e-12)
                    self._time = [float(time) for time in found["time"][kept]]
                    self._F = list(np.moveaxis(found["F"][place][:, kept], 1, 0))

    def write(self, path: str | PathLike[str]) -> None:
        """Write what was recorded, points in the order of their cells (rank 0 writes; collective).

        Raises:
            OSError: On all ranks, if the file cannot be written.
        """
        F = np.stack(self._F, axis=1) if self._F else np.empty((len(self._local), 0, 3, 3))
        parts = self._comm.gather((self._cell, self._X, F), root=0)
        error: OSError | None = None
        if parts is not None:
            cell, X, F = (np.concatenate(part) for part in zip(*parts, strict=True))
            order = np.argsort(cell)
            values = {"F": F[order], "time": np.array(self._time), "cell": cell[order], "X": X[order]}
            try:
                write_arrays(path, values)
            except OSError as caught:
                error = caught
        raise_together(self._comm, error)
