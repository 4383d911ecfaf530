# %% [markdown]
# # The Taylor anvil with a polycrystal at every point: 128 grains against a few
#
# **Why.** A reduced polycrystal has few grains with positive weights, chosen so that its mean stress is that of all grains
# (`micro.crystal.reduced`). Its error along given paths says little about a structure, whose points choose their own paths.
# Here the whole test runs with the full polycrystal, which is the concurrent multiscale method, with reduced ones and with
# Johnson-Cook, on the same mesh and in the same process.
#
# **What is compared** at the same time: the length of the bar and the radius of its foot, the displacement (relative
# difference in L2 over the nodes, weighted with their mass), the mean von Mises stress over the volume, which is the
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

import numpy as np
from mpi4py import MPI

from fem.command import Parser, Stop, finish, write_text
from fem.discretisation.strain_measures import cauchy_stress, von_mises
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads

ROOT = Path(__file__).resolve().parents[2]
CLASSICAL = "polycrystal-johnson-cook"

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="The anvil with polycrystals.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--grains", type=int, nargs="+", default=[128, 32, 16, 8], help="numbers of grains; 128 is the reference")
    p.add_argument("--cells", type=int, default=6, help="cells across the diameter; 6 are 800 cells")
    p.add_argument("--until", type=float, default=18e-6, help="end time, s")
    p.add_argument("--output", default="results/reduced_anvil", help="folder for the results")
    o = p.parse_args(arguments)
    if min(o.grains) < 1 or len(set(o.grains)) < len(o.grains):
        raise ValueError(f"--grains must be different positive numbers, got {o.grains}.")
    if Path(o.output).exists() and not Path(o.output).is_dir():
        raise ValueError(f"--output must name a folder, but {o.output!r} is a file.")
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


def measure(comm: MPI.Comm, demo: Any, o: argparse.Namespace, law: str, options: str) -> dict[str, Any]:
    """Run the anvil with one law; what it leaves on this rank, and numbers of all ranks (collective)."""
    given = ["--law", law, "--law-options", options, "--cells", str(o.cells), "--until", str(o.until), "--output", o.output]
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
    balance = solver.energy_balance()
    return {
        "u": solver.u.x.array.reshape(-1, 3)[: shape.own].copy(), "mass": solver.mass.copy(), "comm": comm,
        "row": {
            "law": made.name, "steps": solver.steps,
            "length": shape.highest(x[:, 2]) + shape.highest(-x[:, 2]),
            "foot_radius": shape.highest(np.hypot(x[shape.foot, 0], x[shape.foot, 1])),
            "mean_von_mises": comm.allreduce(float(stress @ volume)) / comm.allreduce(float(volume.sum())),
            "law_seconds": solver.total_seconds()["law"] - before,
            "law_processor_seconds": comm.allreduce(seconds[0]),
            "points": comm.allreduce(solver.points.n), "energy_error": float(balance.energy_error),
        },
    }  # fmt: skip


def difference(run: dict[str, Any], reference: dict[str, Any]) -> float:
    """Relative difference of the displacements in L2, weighted with the mass of the nodes (collective)."""
    comm, mass = run["comm"], run["mass"][:, None]
    gap = comm.allreduce(float((mass * (run["u"] - reference["u"]) ** 2).sum()))
    return float(np.sqrt(gap / comm.allreduce(float((mass * reference["u"] ** 2).sum()))))


# %% [markdown]
# ## Main


# %%
def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Run all laws, compare, write (collective)."""
    plan_threads(comm)
    demo, folder = anvil(), Path(o.output)
    if comm.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
    runs = {"johnson-cook": measure(comm, demo, o, CLASSICAL, "")}
    for grains in o.grains:
        runs[f"{grains} grains"] = measure(comm, demo, o, "taylor-polycrystal", f"grains={grains}")
        if comm.rank == 0:
            sys.stdout.write(f"{grains} grains: {runs[f'{grains} grains']['row']['law_processor_seconds']:.1f} s\n")
            sys.stdout.flush()
    reference = runs[f"{max(o.grains)} grains"]
    base = runs["johnson-cook"]["row"]["law_processor_seconds"]
    rows = []
    for name, found in runs.items():
        row = {"name": name, **found["row"], "displacement": difference(found, reference)}
        row["ratio_to_johnson_cook"] = row["law_processor_seconds"] / base
        grains = int(name.split()[0]) if name != "johnson-cook" else 0
        calls = row["points"] * (row["steps"] + 1)
        row["microseconds_per_grain_step"] = 1e6 * row["law_processor_seconds"] / (grains * calls) if grains else None
        rows.append(row)
    if comm.rank == 0:
        write_text(folder / "summary.json", json.dumps({"cells": o.cells, "until": o.until, "runs": rows}, indent=1) + "\n")
        sys.stdout.write(table(rows))
    failed = [row["name"] for row in rows if not row["energy_error"] < 0.03]
    if failed:
        raise Stop(f"The energy balance does not hold for {', '.join(failed)}.", code=1)


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison as a table in Markdown."""
    head = "| law | displacement | mean von Mises, MPa | length, foot, mm | law seconds over Johnson-Cook's | us per grain-step |"
    lines = [head, "|---|---|---|---|---|---|"]
    for row in rows:
        each = row["microseconds_per_grain_step"]
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
