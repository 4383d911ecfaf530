# %% [markdown]
# # The Taylor anvil with a polycrystal at every point: 128 grains against a few
#
# **Why.** A reduced polycrystal has few grains with positive weights, chosen so that its mean stress is that of all
# grains (`micro.crystal.reduced`). Its error along given paths says little about a structure, whose points choose
# their own paths. Here the whole test runs with the full polycrystal, which is the concurrent multiscale method, with
# reduced ones and with Johnson-Cook, on the same mesh and in the same process.
#
# **What is compared** at the same time: the length of the bar and the radius of its foot, the displacement (relative
# difference in L2 over the nodes), the mean von Mises stress over the volume, which is the
# residual stress after the impact, and the seconds in the law, as a ratio to those of Johnson-Cook.
#
# **Check.** The energy balance of every run holds to 3 %.

# %%
from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from mpi4py import MPI

from fem.command import Parser, Stop, finish, write_text
from fem.discretisation.strain_measures import cauchy_stress, von_mises
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from micro.data.cli import check_folder

ROOT = Path(__file__).resolve().parents[2]
CLASSICAL = "polycrystal-johnson-cook"

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="The anvil with polycrystals.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--grains", type=int, nargs="+", default=[128, 32, 16, 8], help="grains; the most are the reference")
    p.add_argument("--only-grains", action="store_true", help="leave Johnson-Cook out; former runs in the folder count")
    p.add_argument("--cells", type=int, default=6, help="cells across the diameter; 6 are 800 cells")
    p.add_argument("--until", type=float, default=16e-6, help="end time, s")
    p.add_argument("--output", default="results/reduced_anvil", help="folder for the results")
    o = p.parse_args(arguments)
    if min(o.grains) < 1 or len(set(o.grains)) < len(o.grains):
        raise ValueError(f"--grains must be different positive numbers, got {o.grains}.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## Solve
# `demos/taylor_anvil.py` makes mesh, law and solver. Before the clock runs the law is called once, so that nothing is
# compiled or loaded while it runs. Beside the clock of the solver, the processor time of the law is taken: on a busy
# machine only that means anything.


# %%
def anvil() -> Any:
    """The module of the anvil."""
    spec = importlib.util.spec_from_file_location("taylor_anvil", ROOT / "demos" / "taylor_anvil.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(comm: MPI.Comm, demo: Any, o: argparse.Namespace, law: str, options: str, name: str) -> None:
    """Run the anvil with one law; leaves numbers and a checkpoint in the folder (collective)."""
    given = ["--law", law, "--law-options", options, "--cells", str(o.cells), "--until", str(o.until)]
    given += ["--output", o.output]
    solver = demo.make_solver(comm, demo.parse(given))
    made, seconds = solver.law, [0.0]
    update = made.update
    update(np.tile(np.eye(3), (solver.points.n, 1, 1)), made.initial_state(solver.points.n), solver.next_step)

    def timed(*arguments: Any) -> Any:
        start = time.process_time()
        result = update(*arguments)
        seconds[0] += time.process_time() - start
        return result

    made.update = timed
    shape = demo.Shape(solver, 5e-3)
    before = solver.total_seconds().get("law", 0.0)
    solver.run(until=o.until).finish()
    x = shape.X + solver.u.x.array.reshape(-1, 3)[: shape.own]
    stress, volume = von_mises(cauchy_stress(solver.points.F, solver.points.P)), solver.points.volume
    row = {
        "name": name, "law": made.name, "steps": solver.steps, "ranks": comm.size, "cells": o.cells, "until": o.until,
        "length": shape.highest(x[:, 2]) + shape.highest(-x[:, 2]),
        "foot_radius": shape.highest(np.hypot(x[shape.foot, 0], x[shape.foot, 1])),
        "mean_von_mises": comm.allreduce(float(stress @ volume)) / comm.allreduce(float(volume.sum())),
        "law_seconds": solver.total_seconds()["law"] - before, "law_processor_seconds": comm.allreduce(seconds[0]),
        "points": comm.allreduce(solver.points.n), "energy_error": float(solver.energy_balance().energy_error),
    }  # fmt: skip
    solver.save(Path(o.output) / f"{name}.h5")
    if comm.rank == 0:
        write_text(Path(o.output) / f"{name}.json", json.dumps(row, indent=1) + "\n")
        sys.stdout.write(f"{name}: {row['steps']} steps, {row['law_processor_seconds']:.1f} s in the law\n")
        sys.stdout.flush()


def displacement(path: Path) -> np.ndarray:
    """Displacements in a checkpoint, in the order of the nodes of the mesh, m."""
    with h5py.File(path, "r") as file:
        return np.asarray(file["nodes/u"][()])


# %% [markdown]
# ## Main


# %%
def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Run all laws, compare with all runs in the folder, write (collective)."""
    plan_threads(comm)
    demo, folder = anvil(), Path(o.output)
    if comm.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
    comm.barrier()
    if not o.only_grains:
        measure(comm, demo, o, CLASSICAL, "", "johnson-cook")
    for grains in o.grains:
        measure(comm, demo, o, "taylor-polycrystal", f"grains={grains}", f"{grains}-grains")
    if comm.rank == 0:
        compare(folder)


def compare(folder: Path) -> None:
    """Compare the runs in a folder with that of the most grains, and those in the law with Johnson-Cook (rank 0)."""
    rows = [json.loads(path.read_text()) for path in folder.glob("*.json") if path.name != "summary.json"]
    rows.sort(key=lambda row: -count(row))
    reference = displacement(folder / f"{rows[0]['name']}.h5")
    base = next((row["law_processor_seconds"] for row in rows if count(row) == 0), np.nan)
    for row in rows:
        u, calls = displacement(folder / f"{row['name']}.h5"), row["points"] * row["steps"]
        row["displacement"] = float(np.linalg.norm(u - reference) / np.linalg.norm(reference))
        row["ratio_to_johnson_cook"] = row["law_processor_seconds"] / base
        if count(row):
            row["microseconds_per_grain_step"] = 1e6 * row["law_processor_seconds"] / (count(row) * calls)
    write_text(folder / "summary.json", json.dumps({"runs": rows}, indent=1) + "\n")
    sys.stdout.write(table(rows))
    if failed := [row["name"] for row in rows if not row["energy_error"] < 0.03]:
        raise Stop(f"The energy balance does not hold for {', '.join(failed)}.", code=1)


def count(row: dict[str, Any]) -> int:
    """Grains of a run; 0 of Johnson-Cook."""
    return int(row["name"].split("-")[0]) if row["name"].endswith("grains") else 0


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison as a table in Markdown."""
    head = "| law | displacement | mean von Mises, MPa | length, foot, mm | law over Johnson-Cook | us per grain-step |"
    lines = [head, "|---|---|---|---|---|---|"]
    for row in rows:
        each = row.get("microseconds_per_grain_step")
        lines.append(
            f"| {row['name']} | {100 * row['displacement']:.2f} % | {1e-6 * row['mean_von_mises']:.0f} "
            f"| {1e3 * row['length']:.3f}, {1e3 * row['foot_radius']:.3f} | {row['ratio_to_johnson_cook']:.1f} "
            f"| {'-' if each is None else f'{each:.2f}'} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the demo (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
