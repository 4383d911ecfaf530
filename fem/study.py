"""What the studies of impacts share: their folder, the columns of their history, their checks, and their end."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from tqdm import tqdm

from fem.command import Stop, finish, remove, together, write_text


def prepare(folder: Path, patterns: Sequence[str]) -> None:
    """Make the folder, and clear away what a former run left, so that nothing old is taken for new (rank 0)."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in patterns:
        for path in folder.glob(pattern):
            remove(path)


def conclude(folder: Path, summary: Mapping[str, Any], picture: Callable[[], None], text: str) -> None:
    """Draw the picture, and write the summary last (rank 0)."""
    picture()
    write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    sys.stdout.write(f"{text} Results in {folder}/.\n")


def failed(summary: Mapping[str, Any]) -> list[str]:
    """The checks of a summary that are not passed."""
    return [f"{name}: {entry}" for name, entry in summary["checks"].items() if not entry["passed"]]


def announce(comm: MPI.Comm, law: Any, solver: Any, plan: object) -> int:
    """Say on rank 0 what is run; returns the number of cells of all ranks (collective)."""
    cells = int(comm.allreduce(solver.u.function_space.mesh.topology.index_map(3).size_local))
    if comm.rank == 0:
        tqdm.write(f"{law.name}, {cells} cells, {plan}", file=sys.stderr)
    return cells


def patience() -> float:
    """Seconds between two lines of a progress bar: fewer where it is kept in a file."""
    return 0.2 if sys.stderr.isatty() else 2.0


def highest(comm: MPI.Comm, values: np.ndarray) -> float:
    """Maximum over all ranks, of which some may hold no value (collective)."""
    return float(comm.allreduce(values.max() if len(values) else -math.inf, MPI.MAX))


def mean_force(rows: Sequence[Mapping[str, float]], name: str, time: float, impulse: float, former: float) -> float:
    """Mean force since the last row of a history, N; zero before the first.

    Args:
        rows: Of the history.
        name: Its column of the force, N, repeated where no time has passed.
        time: Now, s.
        impulse: Now, N s.
        former: That of the last row, N s.
    """
    if not rows:
        return 0.0
    step = time - rows[-1]["time"]
    return (impulse - former) / step if step > 0.0 else rows[-1][name]


def o_grid_area(diameter: float, cells: int) -> float:
    """Area of a disc as it is meshed, m^2: a regular polygon of 8 ceil(cells / 4) sides in the circle."""
    sides = 8 * math.ceil(cells / 4)
    return sides / 8 * math.sin(2 * math.pi / sides) * diameter**2


def main(comm: MPI.Comm, work: Callable[[], None]) -> int:
    """Run a study whose writers raise their errors on all ranks; returns the exit status, the same on every rank."""

    def guarded() -> None:
        try:
            work()
        except OSError as error:
            raise Stop(f"{error.strerror or error}: {error.filename}.", code=1) from error

    return finish(comm, guarded)


def end(
    comm: MPI.Comm, folder: Path, summary: Mapping[str, Any], picture: Callable[[], None], text: str,
    wrong: Sequence[str], noun: str = "run",
) -> None:  # fmt: skip
    """Write the results, then stop with exit code 1 if checks are not passed (collective).

    Raises:
        Stop: On all ranks, if there is anything wrong.
    """
    together(comm, lambda: conclude(folder, summary, picture, text), root=True)
    if wrong:
        raise Stop(f"The {noun} does not pass its check of {'; '.join(wrong)}.", code=1)
