# %% [markdown]
# # The Taylor anvil with the polycrystal itself as the law, and with all laws that stand for it
#
# **Why.** A learned law is to replace the polycrystal at every point of a structure. Here the structure is run with
# the polycrystal itself, which paper 1 calls concurrent multiscale and only estimates, and with the laws in its place:
# a few of its grains, the learned law, and Johnson-Cook. All run on the same mesh, to the same time, which is the
# rebound of the bar with the polycrystal.
#
# **What is compared** with the polycrystal of 128 grains, at the end of the run:
#
# - length of the bar and mean radius of the rim of its foot (relative difference);
# - displacement, relative difference in L2 over the nodes;
# - equivalent logarithmic strain sqrt(2/3) |dev log U| and first Piola-Kirchhoff stress, which at the end is the
#   residual stress: relative difference in L2 over the volume;
# - force on the wall: relative difference in L2 over time of its mean values in intervals of 0.2 us; the first of them
#   is left out, because the impulse of the layer of nodes that lands is the same with every law;
# - von Mises stress: the largest of a cell, and the median over the cells;
# - processor seconds in the law and in all steps, as table 2 of the paper: one series on one machine.
#
# 128 random grains have a small texture. `128-even` and `512-even` are evenly spread grains, which the learned law
# stands for: the differences from these are tables of their own. Those of the polycrystals are the effect of texture
# and of the number of grains.
#
# **Output** in results/anvil_laws: a folder per mesh and speed with NAME.npz and NAME.json of every law, table.md,
# summary.json, sections.png, histories.png and, with `--animation LAW`, impact.gif. Runs that are there are not made
# again, unless the file of a shipped law has changed; a run that was stopped goes on from its last state.
#
#     python3 demos/anvil/anvil_laws.py --speeds 100 200 300
#     python3 demos/anvil/anvil_laws.py --laws learned                  # this row again; the others are read
#     python3 demos/anvil/anvil_laws.py --cells 10                      # 3192 cells
#
# **Check.** The energies of every run are balanced to 3 % and its momentum to 1e-9.
#
# Reference: Liu et al. (2022), sections 4.1 and 4.3, table 2, doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anvil_pictures import animate, draw_histories, draw_sections
from anvil_series import Case, equivalent_strain, load_anvil, run_law
from mpi4py import MPI

from fem.command import Parser, Stop, finish, together, write_text
from fem.discretisation.strain_measures import cauchy_stress, von_mises
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from micro.data.cli import check_folder

REFERENCE, EVEN, MORE = "128-grains", "128-even", "512-even"
#: Each other law is compared with these, where they were run.
REFERENCES = (REFERENCE, EVEN, MORE)
#: Law, grains and texture of each row.
LAWS = {
    REFERENCE: ("taylor-polycrystal", 128, "random"),
    "32-grains": ("taylor-polycrystal", 32, "random"),
    "16-grains": ("taylor-polycrystal", 16, "random"),
    "8-grains": ("taylor-polycrystal", 8, "random"),
    EVEN: ("taylor-polycrystal", 128, "even"),
    MORE: ("taylor-polycrystal", 512, "even"),
    "learned": ("magnesium-recurrent", 0, ""),
    "johnson-cook": ("polycrystal-johnson-cook", 0, ""),
}
#: Target of the learned law for each relative difference from the polycrystal.
TARGETS = {"length": 0.005, "foot_radius": 0.01, "displacement": 0.01, "strain": 0.03, "stress": 0.15, "force": 0.02}
#: Table 2 of the paper: seconds of the Taylor anvil, of which the last is an estimate.
PAPER = {"johnson-cook": 50.0, "learned": 435.0, REFERENCE: 1.2e8}


# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="The anvil with all laws.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default = [name for name in LAWS if name != MORE]
    p.add_argument("--laws", nargs="+", choices=tuple(LAWS), default=default, help=f"to run beside {REFERENCE}")
    p.add_argument("--speeds", type=float, nargs="+", default=[200.0], help="impact speeds, m/s")
    p.add_argument("--cells", type=int, default=6, help="cells across the diameter; 6 are 800 cells, 10 are 3192")
    p.add_argument("--until", type=float, help="end time, s; none: the rebound of the bar with the polycrystal")
    p.add_argument("--interval", type=float, default=0.2e-6, help="time between two records, s")
    p.add_argument("--animation", choices=tuple(LAWS), help=f"make impact.gif of {REFERENCE} beside this law")
    p.add_argument("--output", default="results/anvil_laws", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("until", "interval"):
        value = getattr(o, name)
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"--{name} must be a positive finite time in s, got {value}.")
    if not all(0.0 < speed < math.inf for speed in o.speeds):
        raise ValueError(f"--speeds must be positive finite numbers, got {o.speeds}.")
    if o.cells < 4 or o.cells % 2:
        raise ValueError(f"--cells must be an even number of at least 4, got {o.cells}.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## Comparison


# %%
def relative(values: np.ndarray, truth: np.ndarray, weight: np.ndarray | float = 1.0) -> float:
    """Relative difference in L2 with a weight of each row."""
    root = np.sqrt(weight) * np.ones(len(truth))
    flat = [root[:, None] * array.reshape(len(truth), -1) for array in (values - truth, truth)]
    return float(np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]))


def wall_force(run: dict[str, np.ndarray]) -> np.ndarray:
    """Mean force on the wall between two records, N."""
    return np.asarray(np.diff(run["impulse"]) / np.diff(run["time"]))


def differences(run: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Differences of a run from that with the polycrystal, relative, of all that `TARGETS` names."""
    volume = truth["volume"]
    return {
        "length": float(run["length"][-1] / truth["length"][-1] - 1.0),
        "foot_radius": float(run["foot_radius"][-1] / truth["foot_radius"][-1] - 1.0),
        "displacement": relative(run["u"], truth["u"]),
        "strain": relative(equivalent_strain(run["F"]), equivalent_strain(truth["F"]), volume),
        "stress": relative(run["P"], truth["P"], volume),
        "force": relative(wall_force(run)[1:], wall_force(truth)[1:]),
    }


def describe(row: dict[str, Any], runs: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """The row of a run, with its shape, residual stress and differences from the polycrystals that were run."""
    run = runs[row["name"]]
    others = [name for name in REFERENCES if name in runs and name != row["name"]]
    stress = von_mises(cauchy_stress(run["F"], run["P"]))
    return row | {
        "length": float(run["length"][-1]), "foot_radius": float(run["foot_radius"][-1]),
        "von_mises_max": float(stress.max()), "von_mises_median": float(np.median(stress)),
        "strain_max": float(equivalent_strain(run["F"]).max()),
        "twin_fraction": float(run["twin_fraction_history"][-1]),
        "differences": {name: differences(run, runs[name]) for name in others},
    }  # fmt: skip


def shapes_table(rows: list[dict[str, Any]], reference: str) -> list[str]:
    """Shape, stress and differences from a reference as the lines of a table in Markdown."""
    lines = ["| law | length, mm | foot, mm | displacement | strain | residual stress | wall force | von Mises, MPa |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows:
        d, size = row["differences"].get(reference), f"{1e3 * row['length']:.3f} | {1e3 * row['foot_radius']:.3f}"
        stress = f"{1e-6 * row['von_mises_max']:.0f}, {1e-6 * row['von_mises_median']:.0f}"
        if d is None:
            lines.append(f"| {row['name']} | {size} | - | - | - | - | {stress} |")
            continue
        size = (
            f"{1e3 * row['length']:.3f} ({d['length']:+.1%}) | {1e3 * row['foot_radius']:.3f} ({d['foot_radius']:+.1%})"
        )
        four = " | ".join(f"{d[name]:.1%}" for name in ("displacement", "strain", "stress", "force"))
        lines.append(f"| {row['name']} | {size} | {four} | {stress} |")
    t = TARGETS
    lines.append(
        f"| *target* | {t['length']:.1%} | {t['foot_radius']:.0%} | {t['displacement']:.0%} | {t['strain']:.0%} "
        f"| {t['stress']:.0%} | {t['force']:.0%} | |"
    )
    return lines


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison as tables in Markdown: differences from each polycrystal that was run, and cost."""
    lines = []
    for reference in REFERENCES:
        if any(row["name"] == reference for row in rows):
            lines += [f"Differences from {reference}:", "", *shapes_table(rows, reference), ""]
    lines += [
        "| law | steps | s in the law | s in all steps | law / J-C | all / J-C | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    base = next((row for row in rows if row["name"] == "johnson-cook"), None)
    for row in rows:
        ratios = "- | -"
        if base is not None:
            ratios = " | ".join(f"{row[key] / base[key]:.3g}" for key in ("law_seconds", "run_seconds"))
        paper = f"{PAPER[row['name']] / PAPER['johnson-cook']:.3g}" if row["name"] in PAPER else "-"
        cost = f"{row['law_seconds']:.3g} | {row['run_seconds']:.3g}"
        lines.append(f"| {row['name']} | {row['steps']} | {cost} | {ratios} | {paper} |")
    return "\n".join(lines) + "\n"


# %% [markdown]
# ## Main


# %%
def run_speed(comm: MPI.Comm, o: argparse.Namespace, speed: float) -> list[dict[str, Any]]:
    """All laws at one speed; their rows on rank 0, an empty list elsewhere (collective)."""
    anvil, folder = load_anvil(), Path(o.output) / f"{o.cells}-cells-{speed:g}"
    together(comm, lambda: folder.mkdir(parents=True, exist_ok=True), root=True)
    end, rows = o.until, []
    for name in [REFERENCE, *(name for name in LAWS if name in o.laws and name != REFERENCE)]:
        row = run_law(comm, anvil, Case(name, *LAWS[name], o.cells, speed, end, o.interval), folder)
        end = row["time"] if end is None else end
        rows.append(row)
        if comm.rank == 0:
            sys.stdout.write(f"{speed:g} m/s, {name}: {row['steps']} steps, {row['law_seconds']:.1f} s in the law\n")
            sys.stdout.flush()
    return together(comm, lambda: conclude(o, folder, speed, rows), root=True) or []


def conclude(o: argparse.Namespace, folder: Path, speed: float, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the runs of a folder, former ones of other laws included; write tables and pictures (rank 0)."""
    ended = rows[0]["time"]
    named = {row["name"]: row for row in rows}
    for name in LAWS:  # runs of a former call, to the same time
        file = folder / f"{name}.json"
        if name not in named and file.is_file():
            row = json.loads(file.read_text())
            if row["key"]["interval"] == o.interval and math.isclose(row["time"], ended, rel_tol=1e-9):
                named[name] = row
    rows = [named[name] for name in LAWS if name in named]
    runs = {}
    for row in rows:
        with np.load(folder / f"{row['name']}.npz") as arrays:
            runs[row["name"]] = dict(arrays)
    rows = [describe(row, runs) for row in rows]
    text = table(rows)
    write_text(folder / "table.md", text)
    summary = {"speed": speed, "cells": o.cells, "targets": TARGETS, "runs": rows}
    write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    title = f"Taylor anvil, {rows[0]['cells']} cells, {speed:g} m/s"
    draw_sections(runs, REFERENCE, title, folder / "sections.png")
    draw_histories(runs, REFERENCE, title, folder / "histories.png")
    if o.animation and o.animation in runs:
        animate(runs[REFERENCE], runs[o.animation], (REFERENCE, o.animation), title, folder / "impact.gif")
    sys.stdout.write(f"\n{title}\n\n{text}\n")
    return rows


def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """All speeds (collective)."""
    plan_threads(comm)
    failed = []
    for speed in o.speeds:
        rows = run_speed(comm, o, speed)
        failed += [f"{row['name']} at {speed:g} m/s" for row in rows
                   if not (row["energy_error"] < 0.03 and row["momentum_error"] < 1e-9)]  # fmt: skip
    failed = comm.bcast(failed)
    if failed:
        raise Stop(f"Energy or momentum are not balanced in {', '.join(failed)}.", code=1)


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the study (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
