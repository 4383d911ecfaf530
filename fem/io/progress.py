"""What a run has written so far, kept in a form with which a restart goes on: its frames and the rows of its history.

A series for ParaView is whole only when it is closed, and no one can append to it on another number of ranks. So each
frame is also kept as a small file of its own, in the order of the input (`fem.io.checkpoint`), and a restart writes its
series from these anew. Frames and rows after the time of the restart are dropped: the run will make them again.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fem.io.checkpoint import Block, node_numbers, restore, save
from fem.io.files import write_text
from fem.parallel import fail_together

HISTORY = "history.csv"
LATER = 1e-12  # by which factor a time may exceed that of the restart


class Progress:
    """Frames and rows in a folder; all methods are collective.

    Args:
        folder: The folder; it is made if need be.
        functions: P1 Functions of one mesh.
    """

    def __init__(self, folder: str | PathLike[str], functions: Sequence[Any]) -> None:
        self.folder, self._functions = Path(folder), tuple(functions)
        self._comm = functions[0].function_space.mesh.comm
        with fail_together(self._comm):
            if self._comm.rank == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
        self._count = 0

    def copy_from(self, folder: str | PathLike[str]) -> None:
        """Take the files of another folder, in place of those that are there; none, if it does not exist."""
        other = Path(folder)
        with fail_together(self._comm):
            if self._comm.rank == 0 and other.resolve() != self.folder.resolve():
                shutil.rmtree(self.folder)
                if other.is_dir():
                    shutil.copytree(other, self.folder)
                else:
                    self.folder.mkdir()

    def _blocks(self, *, ghosts: bool) -> dict[str, Block]:
        found: dict[str, Block] = {}
        for function in self._functions:
            V = function.function_space
            owned, width = V.dofmap.index_map.size_local, V.dofmap.index_map_bs
            rows = slice(None if ghosts else owned)
            values = function.x.array.reshape(-1, width)[rows]
            found[function.name] = Block(node_numbers(V)[rows], V.dofmap.index_map.size_global, {"values": values})
        return found

    def keep_frame(self, time: float) -> None:
        """Keep the functions as they are."""
        path = self.folder / f"frame-{self._count:06d}.h5"
        save(path, self._comm, time=time, blocks=self._blocks(ghosts=False), scalars={}, identity={"content": "frame"})
        self._count += 1

    def keep_rows(self, text: str) -> None:
        """Keep the history, as CSV."""
        with fail_together(self._comm):
            if self._comm.rank == 0:
                write_text(self.folder / HISTORY, text)

    def frames(self, until: float) -> Iterator[float]:
        """Times of the frames up to a time, each while the functions hold it; later ones are deleted.

        When all have been taken, the functions are again as they were.

        Raises:
            ValueError: On all ranks, if a frame is damaged or of another mesh.
        """
        before = [function.x.array.copy() for function in self._functions]
        paths = self._comm.bcast(sorted(self.folder.glob("frame-*.h5")) if self._comm.rank == 0 else None)
        self._count = 0
        for path in paths:
            found = restore(
                path, self._comm, blocks=self._blocks(ghosts=True), scalars={}, identity={"content": "frame"}
            )
            if found.time > until * (1.0 + LATER):
                break
            for function in self._functions:
                function.x.array[:] = found.arrays[function.name]["values"].reshape(-1)
            self._count += 1
            yield found.time
        for function, values in zip(self._functions, before, strict=True):
            function.x.array[:] = values
        with fail_together(self._comm):
            for path in paths[self._count :] if self._comm.rank == 0 else ():
                path.unlink()

    def rows(self, until: float) -> list[dict[str, float]]:
        """Rows of the history up to a time."""
        rows: list[dict[str, float]] = []
        with fail_together(self._comm):
            path = self.folder / HISTORY
            if self._comm.rank == 0 and path.is_file():
                with path.open(encoding="utf-8", newline="") as sheet:
                    rows = [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(sheet)]
        return [row for row in self._comm.bcast(rows) if row["time"] <= until * (1.0 + LATER)]


def _number(text: str) -> float:
    """The number that was written; a whole number stays one, so that it is written again in the same way."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def flat(tree: Mapping[Any, Any], path: str = "") -> dict[str, np.ndarray]:
    """Arrays of nested dictionaries by their path, "a/b/c", for a file of arrays."""
    found: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        inside = isinstance(value, Mapping)
        found |= flat(value, f"{path}{name}/") if inside else {f"{path}{name}": np.asarray(value)}
    return found


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flat`; names that were numbers are texts, in the same order."""
    tree: dict[str, Any] = {}
    for path in arrays:
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = arrays[path]
    return tree
