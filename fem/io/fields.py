"""Fields and history of a run: one writer for all solvers.

    with solver.writer("results/impact", every=1e-7) as out:
        for step in solver.run(until=5e-7):
            out.update()

The folder gets `fields.bp` (ADIOS2; open it in ParaView with the ADIOS2VTXReader) or, where DOLFINx has no ADIOS2,
`fields.xdmf` and `fields.h5`, and `history.csv`. Each gets its name when it is whole.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import dolfinx
import numpy as np
from dolfinx.io import VTXWriter, XDMFFile

from fem.errors import ConvergenceError, SolverError
from fem.io.files import remove, write_text
from fem.io.progress import Progress
from fem.parallel import raise_together


class History:
    """Rows of numbers, all with the names of the first one.

    Attributes:
        rows: The rows so far.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; one of the same time as the last row takes its place.

        Raises:
            ValueError: If its names are not those of the first row.
        """
        if self.rows and list(row) != list(self.rows[0]):
            raise ValueError(f"A row of the history must have the columns {', '.join(self.rows[0])}.")
        if self.rows and "time" in row and row["time"] == self.rows[-1]["time"]:
            self.rows.pop()
        self.rows.append(dict(row))

    def text(self) -> str:
        """The rows as CSV."""
        sheet = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(sheet, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return sheet.getvalue()

    def write(self, path: str | PathLike[str]) -> None:
        """Write the rows to a CSV file, whole or not at all."""
        write_text(path, self.text())


class Series:
    """Functions of one mesh over time, as a series for ParaView; all methods are collective.

    Args:
        folder: Where `fields.bp` or `fields.xdmf` goes; it must exist.
        functions: Functions with distinct names, on one Lagrange element of the mesh's degree.
    """

    def __init__(self, folder: Path, functions: Sequence[Any]) -> None:
        mesh = functions[0].function_space.mesh
        self._comm, self._functions = mesh.comm, tuple(functions)
        self.path = folder / ("fields.bp" if dolfinx.has_adios2 else "fields.xdmf")
        self._part = self.path.with_name(f"fields.part{self.path.suffix}")
        if dolfinx.has_adios2:
            self._file: Any = VTXWriter(self._comm, self._part, list(functions), engine="BP4")
        else:
            self._file = XDMFFile(self._comm, self._part, "w")
            self._file.write_mesh(mesh)

    def write(self, time: float) -> None:
        """Append the functions as they are."""
        if isinstance(self._file, XDMFFile):
            for function in self._functions:
                self._file.write_function(function, time)
        else:
            self._file.write(time)

    def close(self, *, whole: bool) -> None:
        """Close the series; only a whole one gets its name."""
        self._file.close()
        self._comm.barrier()
        if self._comm.rank == 0:
            if not whole:
                for path in (self._part, self._part.with_suffix(".h5")):
                    remove(path)
            else:
                remove(self.path)
                if self.path.suffix == ".xdmf":  # the light file names its heavy one
                    os.replace(self._part.with_suffix(".h5"), self.path.with_suffix(".h5"))
                    self._part.write_text(self._part.read_text().replace("fields.part.h5", "fields.h5"))
                os.replace(self._part, self.path)
        self._comm.barrier()


class Writer:
    """Writes fields and history of a run; the constructor and all methods are collective.

    Solvers make it by `solver.writer(folder, every=...)`; it does not depend on any of them. Used in a `with`
    statement, it writes the start, a frame at each multiple of `every` that `update` finds passed, and the end. If the
    block ends with an error of the solver, nothing keeps its name.

    Args:
        folder: Where the files go; it is made if need be.
        functions: What is written, see `Series`.
        time: Returns the current time.
        refresh: Updates the functions that the solver does not update itself (projected fields), before a frame
            is written.
        row: Returns a row of the history, name -> number, beginning with "time".
        every: Time between two frames; None writes one at each `update`.

    Attributes:
        functions: Name -> Function.
        history: The rows so far.

    Raises:
        ValueError: On all ranks, if `every` is not positive.
        OSError: On all ranks, if the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        functions: Sequence[Any],
        *,
        time: Callable[[], float],
        refresh: Callable[[], object],
        row: Callable[[], Mapping[str, float]],
        every: float | None = None,
    ) -> None:
        if every is not None and not 0.0 < every < math.inf:
            raise ValueError(f"every must be a positive time, got {every}.")
        self.folder, self._comm = Path(folder), functions[0].function_space.mesh.comm
        self.functions = {function.name: function for function in functions}
        self.history = History()
        self._time, self._refresh, self._row, self._every = time, refresh, row, every
        error: Exception | None = None
        if self._comm.rank == 0:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                for path in (*self.folder.glob("fields.*"), self.folder / "history.csv"):
                    remove(path)  # files of an earlier run must not be taken for new ones
            except OSError as caught:
                error = caught
        raise_together(self._comm, error)
        self._series = Series(self.folder, functions)
        self._written = -math.inf
        self._next = 0
        self._progress: Progress | None = None

    def keep_progress(
        self, folder: str | PathLike[str], *, source: str | PathLike[str] | None = None, until: float | None = None
    ) -> None:
        """From now on keep what is written in a folder as well, so that a restart can go on with it.

        Args:
            folder: The folder.
            source: Folder of the run that is continued, whose frames and rows become the beginning of this one; it may
                be the same one. None begins anew.
            until: Time of the restart, after which frames and rows of the earlier run are dropped.

        Raises:
            ValueError: On all ranks, if a frame is damaged or of another mesh.
            OSError: On all ranks, if a file cannot be read or written.
        """
        self._progress = progress = Progress(folder, list(self.functions.values()))
        if source is not None:
            end = math.inf if until is None else until
            progress.copy_from(source)
            for time in progress.frames(end):
                self._series.write(time)
                self._written = time
            self.history.rows = progress.rows(end)

    def keep(self) -> None:
        """Bring the rows of the history in the folder of `keep_progress` up to date."""
        if self._progress is not None:
            self._progress.keep_rows(self.history.text())

    def __enter__(self) -> Writer:
        self.update()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            if self._time() > self._written:
                self.write()
            self.close(whole=True)
        elif self._comm.size == 1 or issubclass(kind, (SolverError, ConvergenceError)):
            self.close(whole=False)
        # Any other error may be that of one rank alone: to close is collective, and would wait for the others.

    def update(self) -> None:
        """Write a frame and a row if a multiple of `every` was reached since the last one."""
        time = self._time()
        if time <= self._written:
            return
        if self._every is None or self._written == -math.inf:
            self.write()
        elif time >= self._next * self._every * (1.0 - 1e-12):
            self.write()

    def write(self, **extra: float) -> None:
        """Write a frame and a row now; `extra` are more columns of the row."""
        self.write_fields()
        self.write_row(**extra)

    def write_fields(self) -> None:
        """Append the fields as they are now to the series; with `keep_progress`, a time that is there is left."""
        if self._progress is not None and self._time() <= self._written:
            return
        self._refresh()
        self._written = self._time()
        self._series.write(self._written)
        if self._progress is not None:
            self._progress.keep_frame(self._written)
        if self._every is not None:
            self._next = math.floor(self._written / self._every * (1.0 + 1e-12)) + 1

    def write_row(self, **extra: float) -> dict[str, float]:
        """Append a row to the history; returns it."""
        row = {**self._row(), **extra}
        self.history.add(row)
        return row

    def surface(self) -> dict[str, np.ndarray] | None:
        """Skin of the body with the functions as they are now, for figures, on rank 0: see `surface`."""
        self._refresh()
        return surface(self.functions)

    def draw(
        self, axes: Any, name: str, plane: str = "xz", *, length: float = 1.0, unit: float = 1.0, **options: Any
    ) -> Any:
        """Draw the deformed body as it is now, coloured by a function, in axes of Matplotlib; on all ranks.

        Args:
            axes: Where to draw (`matplotlib.axes.Axes`).
            name: The function; of a vector, its norm is shown.
            plane: Horizontal and vertical direction. What has the smallest third coordinate is in front.
            length: Unit of the axes, m.
            unit: Unit of the colours.
            **options: Of `axes.tripcolor`, for example vmin, vmax and cmap.

        Returns:
            What `tripcolor` returns, for a colour bar.

        Raises:
            ValueError: If there is no such function or plane, or no displacement.
        """
        if name not in self.functions:
            raise ValueError(f'There is no function "{name}" to draw; there are {", ".join(self.functions)}.')
        if len(plane) != 2 or len(set(plane)) != 2 or not set(plane) <= set("xyz"):
            raise ValueError(f'plane must be two of the letters x, y, z, got "{plane}".')
        skin = self._comm.bcast(self.surface())
        across, up = ("xyz".index(letter) for letter in plane)
        x = skin["x"] + skin["displacement"]
        order = np.argsort(-x[:, :, 3 - across - up].mean(axis=1), kind="stable")  # the nearest is drawn last
        x, values = x[order].reshape(-1, 3) / length, skin[name][order] / unit
        values = np.linalg.norm(values, axis=-1) if values.ndim == 3 else values
        corners = np.arange(len(x)).reshape(-1, 3)
        image = axes.tripcolor(
            x[:, across], x[:, up], values.ravel(), triangles=corners, shading="gouraud", rasterized=True, **options
        )
        axes.set_aspect("equal")
        return image

    def close(self, *, whole: bool = True) -> None:
        """Close the files; only whole ones get their names."""
        self._series.close(whole=whole)
        self.keep()
        error: Exception | None = None
        if whole and self._comm.rank == 0:
            try:
                self.history.write(self.folder / "history.csv")
            except OSError as caught:
                error = caught
        raise_together(self._comm, error)


def surface(functions: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Skin of a body as triangles, for figures, gathered on rank 0 (None elsewhere); collective.

    Args:
        functions: Name -> P1 Function, scalar or vector, all of one mesh in three dimensions: those of a writer.

    Returns:
        "x", positions of the corners of the triangles, (t, 3, 3), m, and the values of each function at the corners,
        (t, 3) or (t, 3, components).
    """
    mesh = next(iter(functions.values())).function_space.mesh
    d = mesh.topology.dim
    mesh.topology.create_connectivity(d - 1, d)
    mesh.topology.create_connectivity(d - 1, 0)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    nodes = dolfinx.mesh.entities_to_geometry(mesh, d - 1, facets)
    if nodes.shape[1] == 4:  # in tensor-product order
        nodes = np.concatenate([nodes[:, [0, 1, 2]], nodes[:, [1, 3, 2]]])
    part = {"x": mesh.geometry.x[nodes]} | {name: _at_nodes(f)[nodes] for name, f in functions.items()}
    parts = mesh.comm.gather(part, root=0)
    if parts is None:
        return None
    return {name: np.concatenate([p[name] for p in parts]) for name in part}


def _at_nodes(function: Any) -> np.ndarray:
    """Values of a P1 Function in the numbering of the nodes of the mesh, (nodes,) or (nodes, components)."""
    V, geometry = function.function_space, function.function_space.mesh.geometry
    values = function.x.array.reshape(-1, V.dofmap.index_map_bs)
    found = np.zeros((len(geometry.x), values.shape[1]))
    found[geometry.dofmap] = values[V.dofmap.list]
    return found if values.shape[1] > 1 else found[:, 0]
