"""One run of the Taylor anvil with one law, recorded for the comparison of laws and for an animation.

`run_law` makes mesh and solver as `demos/taylor_anvil.py` does, runs to a time or to the rebound, and records at equal
intervals of time: length, foot, wall impulse, energies, and the axial section with its von Mises stress. At the end it
keeps displacement, F and P of all nodes and cells in the order of the mesh, so that runs on any number of ranks can be
compared. The solver stops exactly at each of these times, so the series of two laws need no interpolation.

A run that takes long is kept twice a minute or so, and the same call goes on where it was stopped.

Seconds are processor time, all ranks together: on a busy machine only that means anything. The first step, in which
code is compiled, is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.command import together, write_text
from fem.discretisation.strain_measures import cauchy_stress, von_mises
from fem.io.checkpoint import cell_numbers, node_numbers
from fem.io.files import write_arrays
from micro.crystal.texture import even_texture
from surrogates.artifact import shipped

KEEP = 60.0  # s between two states of a long run that are kept
LENGTH, DIAMETER = 5e-3, 1e-3  # m
COLUMNS = (
    "time", "length", "foot_radius", "impulse", "kinetic_energy", "internal_energy", "contact_loss", "energy_error",
    "twin_fraction_history",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        name: Name of the law in tables, and of its files.
        law: Law as `load_law` knows it.
        grains: Grains of a polycrystal; 0 of other laws.
        texture: "random", the default texture or grains chosen from it, or "even", evenly spread grains.
        cells: Cells across the diameter.
        speed: m/s.
        end: End time, s; None is the rebound.
        interval: Time between two records, s.
    """

    name: str
    law: str
    grains: int
    texture: str
    cells: int
    speed: float
    end: float | None
    interval: float

    def key(self) -> dict[str, Any]:
        """All that decides the result: the fields, and the numbers in the file of a shipped law."""
        found = next((entry for entry in shipped() if entry.name == self.law), None)
        if found is None:
            return {**vars(self), "content": ""}
        content = found.file.read_bytes()
        if found.file.suffix == ".json":
            content = json.dumps(json.loads(content)["parameters"]).encode()
        return {**vars(self), "content": hashlib.sha256(content).hexdigest()}


def load_anvil() -> Any:
    """The module of `demos/taylor_anvil.py`."""
    spec = importlib.util.spec_from_file_location("taylor_anvil", Path(__file__).parents[1] / "taylor_anvil.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_solver(comm: MPI.Comm, anvil: Any, case: Case, folder: Path) -> Any:
    """The solver of a case (collective)."""
    words = ["--law", case.law, "--cells", str(case.cells), "--velocity", str(case.speed), "--output", str(folder)]
    options = anvil.parse(words)
    if case.grains and case.texture == "even":
        options.law_options = {"texture": even_texture(case.grains)}
    elif case.grains:
        options.law_options = {"grains": case.grains}
    return anvil.make_solver(comm, options)


class Series:
    """The record of a run.

    Attributes:
        rows: One row of numbers per record, in the order of `COLUMNS`.
        sections: Rank 0: corners of the section (m, 4, 2), m, of each record. stress: von Mises stress (m,), Pa.
        seconds: Processor seconds of this rank: in the law, and in all steps.
    """

    def __init__(self, anvil: Any, solver: Any) -> None:
        self.solver, self.comm = solver, solver.comm
        self.shape, self.section = anvil.Shape(solver, LENGTH), anvil.Section(solver, DIAMETER)
        self.rows: list[list[float]] = []
        self.sections: list[np.ndarray] = []
        self.stress: list[np.ndarray] = []
        self.seconds = {"law": 0.0, "run": 0.0}
        radius = np.hypot(self.shape.X[:, 0], self.shape.X[:, 1])
        self.rim = self.shape.foot & (radius > 0.5 * DIAMETER * (1.0 - 1e-6))

    def positions(self) -> np.ndarray:
        """Positions of the owned nodes, (n, 3), m."""
        return np.asarray(self.solver.x[: self.shape.own])

    def foot_radius(self) -> float:
        """Mean radius of the rim of the foot, m (collective): the section of a textured bar is no circle."""
        r = np.hypot(*self.positions()[self.rim, :2].T)
        return float(self.comm.allreduce(r.sum()) / self.comm.allreduce(len(r)))

    def observed(self, name: str) -> np.ndarray:
        """An observed field of the law at the points, (n,); zeros where it has none."""
        law = self.solver.law
        if name not in law.observed:
            return np.zeros(self.solver.points.n)
        return np.asarray(law.observe(self.solver.state))[:, law.observed.index(name)]

    def record(self) -> None:
        """Record the state now (collective)."""
        s, z, volume = self.solver, self.positions()[:, 2], self.solver.points.volume
        balance = s.energy_balance()
        twins = self.comm.allreduce(float(self.observed("twin_fraction") @ volume))
        length = self.shape.highest(z) + self.shape.highest(-z)
        self.rows.append([
            s.time, length, self.foot_radius(), float(balance.contact_impulse[2]), balance.kinetic_energy,
            balance.internal_energy, balance.contact_loss, balance.energy_error,
            twins / self.comm.allreduce(float(volume.sum())),
        ])  # fmt: skip
        inside = self.section.inside
        F, P = s.points.F[inside], s.points.P[inside]
        part = s.x[self.section.quads][..., [0, 2]], von_mises(cauchy_stress(F, P))
        parts = self.comm.gather(part, root=0)
        if parts is not None:
            self.sections.append(np.concatenate([p[0] for p in parts]).astype(np.float32))
            self.stress.append(np.concatenate([p[1] for p in parts]).astype(np.float32))

    def keep(self, path: Path) -> None:
        """Keep a run that is not finished (collective)."""
        self.solver.save(path.with_suffix(".part.h5"))
        seconds = {name: self.comm.allreduce(value) for name, value in self.seconds.items()}
        arrays = {"rows": self.rows, "sections": self.sections, "stress": self.stress, **seconds}
        together(self.comm, lambda: write_arrays(path.with_suffix(".part.npz"), arrays), root=True)

    def go_on(self, path: Path) -> None:
        """Go to the state of a run that was kept (collective)."""
        self.solver.restore(path.with_suffix(".part.h5"))
        if self.comm.rank == 0:
            with np.load(path.with_suffix(".part.npz")) as kept:
                self.rows = [list(row) for row in kept["rows"]]
                self.sections, self.stress = list(kept["sections"]), list(kept["stress"])
                self.seconds = {name: float(kept[name]) for name in self.seconds}
        self.rows = self.comm.bcast(self.rows)

    def final(self) -> dict[str, np.ndarray] | None:
        """All fields at the end in the order of the mesh, and the record, on rank 0 (collective)."""
        s, own, inside = self.solver, self.shape.own, self.section.inside
        mesh, points = s.u.function_space.mesh, s.points
        nodes, cells = node_numbers(s.u.function_space)[:own], cell_numbers(mesh)
        fields = {
            "u": self._ordered(self.positions() - self.shape.X, nodes), "F": self._ordered(points.F, cells),
            "P": self._ordered(points.P, cells), "volume": self._ordered(points.volume, cells),
            "twin_fraction": self._ordered(self.observed("twin_fraction"), cells),
        }  # fmt: skip
        reference = s.points.V.tabulate_dof_coordinates()[self.section.quads][..., [0, 2]]
        parts = self.comm.gather((cells[inside], reference), root=0)
        if parts is None:
            return None
        fields |= {"section_cells": np.concatenate([p[0] for p in parts])}
        fields |= {"section_reference": np.concatenate([p[1] for p in parts])}
        fields |= {"sections": np.stack(self.sections), "section_stress": np.stack(self.stress)}
        return fields | {name: column for name, column in zip(COLUMNS, np.array(self.rows).T, strict=True)}

    def _ordered(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Values of all ranks in the order of their numbers, on rank 0; an empty array elsewhere (collective)."""
        parts = self.comm.gather((numbers, np.array(values)), root=0)
        if parts is None:
            return np.zeros(0)
        return np.concatenate([p[1] for p in parts])[np.argsort(np.concatenate([p[0] for p in parts]))]


def equivalent_strain(F: np.ndarray) -> np.ndarray:
    """Equivalent logarithmic strain sqrt(2/3) |dev log U| (n,) of F (n, 3, 3)."""
    logarithms = 0.5 * np.log(np.linalg.eigvalsh(np.swapaxes(F, 1, 2) @ F))
    return np.asarray(np.sqrt(2.0 / 3.0) * np.linalg.norm(logarithms - logarithms.mean(1, keepdims=True), axis=1))


@contextlib.contextmanager
def clocked(law: Any, seconds: dict[str, float]) -> Iterator[None]:
    """Let a law add its processor seconds to `seconds` within a block; it is as before after it."""
    update = law.update

    def timed(*arguments: Any) -> Any:
        start = time.process_time()
        result = update(*arguments)
        seconds["law"] += time.process_time() - start
        return result

    law.update = timed
    try:
        yield
    finally:
        del law.update


def run_law(comm: MPI.Comm, anvil: Any, case: Case, folder: Path) -> dict[str, Any]:
    """Run a case, unless its files are there, and return its row of numbers (collective).

    Writes NAME.npz with the record and the fields at the end, and NAME.json with the row.
    """
    path = folder / f"{case.name}.npz"
    kept = together(comm, lambda: read_row(path, case), root=True)
    kept = comm.bcast(kept)
    if kept is not None:
        return dict(kept)
    solver = make_solver(comm, anvil, case, folder)
    series = Series(anvil, solver)
    going = path.with_suffix(".key.json")  # of which run the state is that was kept
    content = json.dumps(case.key())
    started = together(comm, lambda: going.is_file() and going.read_text() == content, root=True)
    if comm.bcast(started):
        series.go_on(path)
    elif case.end is None or solver.time < case.end:
        series.record()
    march(solver, series, case, path, going)
    energy, steps = solver.energy_balance(), solver.steps
    row = {
        "key": case.key(), "name": case.name, "law": solver.law.name, "cells": comm.allreduce(solver.points.n),
        "ranks": comm.size, "steps": steps, "time": solver.time, "rebounded": bool(solver.rebounded()),
        "energy_error": float(energy.energy_error), "momentum_error": float(energy.momentum_error),
        **{f"{name}_seconds": comm.allreduce(value) for name, value in series.seconds.items()},
    }  # fmt: skip
    arrays = series.final()

    def conclude() -> None:
        write_arrays(path, arrays or {})
        write_text(path.with_suffix(".json"), json.dumps(row, indent=1) + "\n")
        for name in (".part.h5", ".part.npz", ".key.json"):
            path.with_suffix(name).unlink(missing_ok=True)

    together(comm, conclude, root=True)
    return row


def march(solver: Any, series: Series, case: Case, path: Path, going: Path) -> None:
    """Step to the end of a case and record (collective)."""
    comm, last = solver.comm, time.monotonic()
    limit = case.end if case.end is not None else 1e-3
    done = False
    clock = time.process_time()
    while solver.time < limit * (1.0 - 1e-12) and not done:
        stop = min((round(solver.time / case.interval) + 1) * case.interval, limit)
        while solver.time < stop * (1.0 - 1e-12) and not done:
            if solver.steps == 0:  # in which numba compiles
                solver.step(limit=stop)
                clock = time.process_time()
            else:
                with clocked(solver.law, series.seconds):
                    solver.step(limit=stop)
            done = case.end is None and solver.rebounded()
        series.seconds["run"] += time.process_time() - clock
        series.record()
        if comm.bcast(time.monotonic() - last > KEEP) and not done:
            series.keep(path)
            together(comm, lambda: write_text(going, json.dumps(case.key())), root=True)
            last = time.monotonic()
        clock = time.process_time()


def read_row(path: Path, case: Case) -> dict[str, Any] | None:
    """The row of a run whose files are there, or None if it is another run (local)."""
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    row: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return row if row["key"] == json.loads(json.dumps(case.key())) else None
