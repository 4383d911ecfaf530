# %% [markdown]
# # What a law costs: points per second of the explicit solver
#
# **Why.** The paper's claim is about cost: a learned law at some ten times the price of an empirical one, and many
# orders below a concurrent polycrystal. So the bar of `taylor_anvil.py` is run for a fixed number of steps with every
# law on 1, 2, 4, ... ranks, as many as the job has (`mpirun -n 2 python3 demos/benchmarks/bench_explicit.py`), and
# timed by phase:
# gather (F from u), law, assemble (internal force), contact, step (stable step).
#
# **Numbers.** points per second = points * steps / seconds of the whole step; share of each phase; the cost ratio of a
# law to Johnson-Cook on the same ranks, for the law alone and for the whole step. The paper's ratios for the
# whole run are 8.7 (Taylor anvil) and 9.0 (plate), from its Table 2.
#
# Also: microseconds per element of each part of a step; the speed on n ranks over n times that on one (efficiency), by
# the clock on the wall and by processor time, which other jobs on the machine disturb less; memory per element.
#
# **Layouts.** Cores can be given to ranks or to the threads of a rank. `python3 demos/benchmarks/bench_explicit.py
# --layouts`
# (without mpirun) runs each law with one rank and one thread, and then with every layout of ranks x threads that fills
# the cores, one after the other, each a run of its own; its table has points per second and their ratio to the first.
#
# **Check.** A faster run must be the same run: for every law the kinetic energy after the last step agrees between all
# numbers of ranks (1e-10 relative with compiled laws, 1e-4 with float32 networks), and the phases add up to no more
# than the clock on the wall.
#
# Reference: Liu et al. (2022), section 4.3, doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import gmsh
import matplotlib
from mpi4py import MPI

import fem.laws
from fem import ExplicitSolver, RigidPlane, load_law, read_mesh
from fem.command import Parser, Stop, finish, together, write_text
from fem.parallel import abort_when_uncaught, raise_together
from fem.steps import Clock
from fem.threads import owned_cores, plan_threads
from meshes.taylor_bar import divisions, taylor_bar
from micro.data.cli import check_count, check_folder
from micro.threads import check_threads
from surrogates.artifact.shipped import law_names

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("gather", "law", "assemble", "contact", "step")

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Cost of laws.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--laws", nargs="+", help="laws or artifacts; none: all that fit the solver, those shipped included")
    p.add_argument("--cells", type=int, default=10, help="cells across the diameter, even, at least 4")
    p.add_argument("--length", type=float, default=5e-3, help="length of the bar, m")
    p.add_argument("--diameter", type=float, default=1e-3, help="diameter of the bar, m")
    p.add_argument("--steps", type=int, default=60, help="timed steps")
    p.add_argument("--warm", type=int, default=5, help="steps before the clock starts (compilation, caches)")
    p.add_argument("--threads", type=int, help="threads per rank; none: OMP_NUM_THREADS, or the cores of the rank")
    p.add_argument("--processor", action="store_true", help="processor time in place of the wall's: on a busy machine")
    p.add_argument("--whole", action="store_true", help="measure on all ranks only, not on 1, 2, 4, ...")
    p.add_argument("--layouts", action="store_true", help="compare layouts of ranks x threads; without mpirun")
    p.add_argument("--output", default="results/bench_explicit", help="folder for the results")
    o = p.parse_args(arguments)
    o.chosen = o.laws is not None
    o.laws = o.laws or [*fem.laws.FINITE, *law_names()]
    divisions(o.length, o.diameter, o.cells)  # refuses what cannot be meshed
    for name in ("steps", "warm"):
        check_count(f"--{name}", getattr(o, name))
    if o.layouts and (MPI.COMM_WORLD.size > 1 or o.threads is not None):
        raise ValueError("--layouts starts ranks and threads itself: leave out mpirun and --threads.")
    check_folder("--output", o.output)
    if o.threads is not None:
        check_threads(o.threads, "--threads")
    return o


# %% [markdown]
# ## Laws
# Of the shipped ones, those of other solvers are left out; one that was asked for must fit.


# %%
def load_laws(comm: MPI.Comm, o: argparse.Namespace) -> list[tuple[str, fem.laws.Law]]:
    """Names and laws to measure (collective).

    Raises:
        ValueError: On all ranks, if a law that was asked for cannot be loaded on one of them, or does not fit.
    """
    found, left_out = [], []
    for name in o.laws:
        law, error = None, None
        try:
            law = load_law(name)
            fem.laws.check_fit(law, "explicit", ("finite",), 3)
        except (ValueError, RuntimeError, OSError) as caught:
            error = ValueError(" ".join(str(caught).split()))
        if o.chosen:
            raise_together(comm, error)
        if not comm.allreduce(error is None, op=MPI.LAND):
            left_out.append(name)
        elif law is not None:
            found.append((name, law))
    if left_out and comm.rank == 0:
        sys.stdout.write(f"Left out, for they are no laws of finite strain in 3-D: {', '.join(left_out)}.\n")
        sys.stdout.flush()
    return found


# %% [markdown]
# ## Solve
# The first `ranks` ranks make their own communicator and run; the others wait.


# %%
def measure(comm: MPI.Comm, law: fem.laws.Law, o: argparse.Namespace) -> dict[str, Any]:
    """Time `o.steps` steps of the bar with one law on the ranks of `comm` (collective there)."""
    model = together(comm, lambda: taylor_bar(o.length, o.diameter, o.cells), root=True)
    memory = [resident(comm)]
    domain = read_mesh(model, comm)
    if comm.rank == 0:
        gmsh.finalize()
    memory.append(resident(comm))
    wall = RigidPlane((0.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    solver = ExplicitSolver(domain, law, contact=(wall,), initial_velocity=(0.0, 0.0, -200.0))
    if o.processor:
        solver.clock = Clock(now=process_time)
    for _ in range(o.warm):
        solver.step()
    memory.append(resident(comm))
    before, points = solver.total_seconds(), solver.total_points()
    comm.barrier()
    now = process_time if o.processor else time.perf_counter
    start, processor = now(), process_time()
    for _ in range(o.steps):
        solver.step()
    comm.barrier()
    elapsed = comm.allreduce(now() - start, MPI.MAX)
    processor = comm.allreduce(process_time() - processor)
    after = solver.total_seconds()
    seconds = {phase: after.get(phase, 0.0) - before.get(phase, 0.0) for phase in PHASES}
    points = solver.total_points() - points
    scale, cells = 1e6 * comm.size / points, comm.allreduce(solver.points.n)  # core time of one point and step
    manifest = getattr(law, "manifest", None)
    return {
        "network": "" if manifest is None else manifest.dtype,
        "ranks": comm.size, "points": points,
        "elapsed": elapsed, "points_per_second": points / elapsed, "seconds": seconds,
        "share": {phase: value / elapsed for phase, value in seconds.items()},
        "microseconds_per_point": {"law": scale * seconds["law"], "step": scale * elapsed},
        "microseconds_of_parts": {phase: scale * spent for phase, spent in seconds.items()},
        "processor_microseconds_per_point": 1e6 * processor / points, "cells": cells,
        "bytes_per_cell": {"mesh": (memory[1] - memory[0]) / cells, "solver": (memory[2] - memory[1]) / cells},
        "kinetic_energy": solver.energy_balance().kinetic_energy,
    }  # fmt: skip


def resident(comm: MPI.Comm) -> float:
    """Memory that all ranks have in use, bytes; 0 where the system does not say (collective)."""
    file = Path("/proc/self/statm")
    pages = int(file.read_text().split()[1]) if file.exists() else 0
    return float(comm.allreduce(pages * os.sysconf("SC_PAGE_SIZE")))


def efficiencies(rows: list[dict[str, Any]]) -> None:
    """Add to each row its speed per rank over that of the same law on one rank, if that was run."""
    for row in rows:
        one = next((other for other in rows if other["law"] == row["law"] and other["ranks"] == 1), None)
        if one is not None:
            row["efficiency"] = row["points_per_second"] / row["ranks"] / one["points_per_second"]
            names = [r["processor_microseconds_per_point"] for r in (one, row)]
            row["processor_efficiency"] = names[0] / names[1] if names[1] > 0.0 else 1.0


def table(rows: list[dict[str, Any]]) -> str:
    """Microseconds per element of each part of a step, and efficiency and memory."""
    names = ("gather", "law", "forces", "contact", "stable step", "whole step")
    text = f"| law | ranks | cells | {' | '.join(names)} | efficiency | by processor time | bytes per cell |\n"
    text += "|---" * (len(names) + 6) + "|\n"
    for row in rows:
        parts = [*(row["microseconds_of_parts"][phase] for phase in PHASES), row["microseconds_per_point"]["step"]]
        times = " | ".join(f"{part:.3g}" for part in parts)
        memory = row["bytes_per_cell"]
        ratios = f"{row.get('efficiency', 1.0):.2f} | {row.get('processor_efficiency', 1.0):.2f}"
        text += f"| {row['law']} | {row['ranks']} | {row['cells']} | {times} | {ratios} "
        text += f"| {memory['mesh']:.0f} + {memory['solver']:.0f} |\n"
    return text


def check(rows: list[dict[str, Any]]) -> None:
    """The same run on any number of ranks; phases within the wall clock.

    Raises:
        ValueError: naming the law that fails.
    """
    for row in rows:
        first = next(other for other in rows if other["law"] == row["law"])
        allowed = 1e-4 if row["network"] == "float32" else 1e-10
        error = abs(row["kinetic_energy"] / first["kinetic_energy"] - 1.0)
        if not error <= allowed:
            raise ValueError(f"{row['law']}: kinetic energy on {row['ranks']} ranks differs by {error:.1e}.")
        # Each phase is the slowest rank's, so that with several ranks their sum may pass the clock a little.
        if not sum(row["seconds"].values()) <= 1.5 * row["elapsed"]:
            raise ValueError(f"{row['law']}: the phases take longer than the clock on the wall.")


# %% [markdown]
# ## Figure


# %%
def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Microseconds per point and step of every law, stacked by phase; and speed against ranks."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    single = [row for row in rows if row["ranks"] == 1]
    base = [0.0] * len(single)
    for phase, colour in zip(PHASES, ("#8ecae6", "#fb8500", "#219ebc", "#023047", "#adb5bd"), strict=True):
        width = [1e6 * row["seconds"][phase] / row["points"] for row in single]
        left.barh([row["law"] for row in single], width, left=base, color=colour, label=phase)
        base = [a + b for a, b in zip(base, width, strict=True)]
    left.invert_yaxis()
    left.set(xlabel="microseconds per point and step, one rank")
    left.legend(fontsize=8, frameon=False)
    for name in dict.fromkeys(row["law"] for row in rows):
        some = [row for row in rows if row["law"] == name]
        right.plot([r["ranks"] for r in some], [r["points_per_second"] for r in some], "o-", label=name)
    ranks = sorted({row["ranks"] for row in rows})
    right.set_xticks(ranks, [str(n) for n in ranks])
    right.set(xlabel="ranks", ylabel="points per second")
    right.set_ylim(bottom=0.0)
    right.legend(fontsize=8, frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# %% [markdown]
# ## Main


# %%
def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Measure every law on 1, 2, 4, ... and all ranks; write table, figure and summary."""
    plan = plan_threads(comm, o.threads)
    counts = [comm.size] if o.whole else sorted({2**k for k in range(int(math.log2(comm.size)) + 1)} | {comm.size})
    rows = []
    for name, law in load_laws(comm, o):
        for count in counts:
            part = comm.Split(0 if comm.rank < count else MPI.UNDEFINED)
            row, error = None, None
            if part != MPI.COMM_NULL:
                try:
                    row = {**measure(part, law, o), "law": Path(name).stem}
                except (Stop, ValueError, RuntimeError) as caught:  # raised on all ranks of this part together
                    error = ValueError(str(caught))
                part.Free()
            raise_together(comm, error)
            rows.append(comm.bcast(row, root=0))
            if comm.rank == 0:
                last = rows[-1]
                share = ", ".join(f"{phase} {100 * value:.0f} %" for phase, value in last["share"].items())
                sys.stdout.write(f"{last['law']}, {count} ranks: {last['points_per_second']:.3g} points/s ({share})\n")
                sys.stdout.flush()
    for row in rows:
        same = [r for r in rows if r["law"].endswith("johnson-cook") and r["ranks"] == row["ranks"]]
        row["ratio_to_johnson_cook"] = (
            {k: row["microseconds_per_point"][k] / same[0]["microseconds_per_point"][k] for k in ("law", "step")}
            if same
            else None
        )
    check(rows)
    efficiencies(rows)
    if comm.rank == 0:
        sys.stdout.write(table(rows))
        folder = Path(o.output)
        folder.mkdir(parents=True, exist_ok=True)
        draw(rows, folder / "speed.png")
        write(folder, {"plan": str(plan), "steps": o.steps, "rows": rows})


def write(folder: Path, summary: dict[str, Any]) -> None:
    """Write the summary whole or not at all."""
    write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")


# %% [markdown]
# ## Layouts
# Each is a program of its own, for threads are planned once. What this process inherited from its own start under MPI
# is not for its children.


# %%
def layouts_of(cores: int) -> list[tuple[int, int]]:
    """One rank with one thread, and every (ranks, threads) whose product is the number of cores."""
    fill = [(ranks, cores // ranks) for ranks in range(1, cores + 1) if cores % ranks == 0]
    return list(dict.fromkeys([(1, 1), *fill]))


def run_layout(name: str, ranks: int, threads: int, o: argparse.Namespace) -> dict[str, Any]:
    """Run one law with one layout and return its row.

    Raises:
        ValueError: The run failed; says what it said.
    """
    inherited = ("OMPI_COMM", "OMPI_UNIVERSE", "PMIX_", "PMI_", "PRTE_LAUNCHED", "OMP_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(inherited)}
    paths = [str(ROOT), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    with tempfile.TemporaryDirectory() as folder:
        size = [f"--{key}={getattr(o, key)}" for key in ("cells", "length", "diameter", "steps", "warm")]
        words = ["--laws", name, f"--threads={threads}", "--whole", f"--output={folder}", *size]
        # Without binding a rank could not give its threads cores of their own.
        command = ["mpirun", "-n", str(ranks), "--bind-to", "none", sys.executable, __file__, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ValueError(f"{name} on {ranks} ranks with {threads} threads: {said[0]}")
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return {"threads": threads, "plan": summary["plan"], **summary["rows"][0]}


def compare_layouts(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Run every law with every layout, print the table and write it."""
    rows: list[dict[str, Any]] = []
    folder = Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write("| law | ranks x threads | points per second | ratio to 1 x 1 |\n|---|---|---|---|\n")
    for name, _ in load_laws(comm, o):
        first = len(rows)
        for ranks, threads in layouts_of(owned_cores(comm)):
            row = run_layout(name, ranks, threads, o)
            row["ratio"] = row["points_per_second"] / (rows[first] if len(rows) > first else row)["points_per_second"]
            rows.append(row)
            speed, ratio = row["points_per_second"], row["ratio"]
            sys.stdout.write(f"| {row['law']} | {ranks} x {threads} | {speed:.3g} | {ratio:.2f} |\n")
            sys.stdout.flush()
    check(rows)
    write(folder, {"steps": o.steps, "layouts": rows})


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the benchmark; returns the exit status, the same on every rank."""

    def work() -> None:
        o = together(comm, lambda: parse(arguments))
        (compare_layouts if o.layouts else run)(comm, o)

    return finish(comm, work)


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
