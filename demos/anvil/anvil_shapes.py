# %% [markdown]
# # The Taylor anvil at several speeds, and with several aspect ratios
#
# **Why.** Figure 5 of paper 1: (a) the anvil at several impact speeds, (b) with several diameters at the same length,
# each as the axial section with the von Mises stress at 1 us. The elastic front moves equally fast at every speed and
# carries more stress the higher it is; the release waves from the side reach the axis of a thick bar later. Beside
# the paper's instant stands the bar at rebound.
#
#     python3 demos/anvil/anvil_shapes.py speeds
#     python3 demos/anvil/anvil_shapes.py ratios
#
# A quarter of the bar with two planes of symmetry is run; the picture shows the whole section. Cells are of one size in
# all bars, but there are at least six across the diameter.
#
# **Checks**, for every bar, as in `demos/taylor_anvil.py`: the elastic front at 1 us is not ahead of the confined
# wave, the wall's impulse is the change of momentum, and the energies are balanced. How far the front lags behind is a
# result: magnesium flows at any stress, so that the elastic precursor decays, the faster the thinner the bar.
#
# Reference: Liu et al. (2022), section 4.1, figure 5, doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from anvil_pictures import MEGA, MICRO, MILLI, cells_of, save, wall
from anvil_series import DIAMETER, LENGTH, load_anvil
from matplotlib import pyplot as plt
from mpi4py import MPI

from fem.command import Parser, Stop, finish, together, write_text
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from micro.data.cli import check_folder

SPEED, SHOWN = 200.0, 1e-6  # m/s; s, the time of the paper's figure


# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Speeds and shapes.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("study", choices=("speeds", "ratios"), help="what is varied")
    p.add_argument("--speeds", type=float, nargs="+", default=[100.0, 150.0, 200.0, 250.0, 300.0], help="m/s")
    p.add_argument("--ratios", type=float, nargs="+", default=[10.0, 5.0, 2.5], help="length over diameter")
    p.add_argument("--law", default="magnesium-recurrent", help="law")
    p.add_argument("--cells", type=int, default=8, help="cells across a diameter of 1 mm")
    p.add_argument("--until", default="rebound", help="end time, s, or 'rebound'")
    p.add_argument("--output", default="results/anvil_shapes", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("speeds", "ratios"):
        if not all(0.0 < value < math.inf for value in getattr(o, name)):
            raise ValueError(f"--{name} must be positive finite numbers, got {getattr(o, name)}.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## One bar


# %%
def run_bar(comm: MPI.Comm, anvil: Any, o: argparse.Namespace, speed: float, diameter: float) -> dict[str, Any]:
    """Run a bar; its numbers and, on rank 0, its sections at 1 us and at the end (collective)."""
    folder = Path(o.output) / f"{o.study}-{speed:g}-{1e3 * diameter:g}"
    cells = max(6, 2 * round(0.5 * o.cells * diameter / DIAMETER))
    words = ["--law", o.law, "--cells", str(cells), "--velocity", str(speed), "--diameter", str(diameter)]
    words += ["--panels", str(SHOWN), "--until", o.until, "--frames", "0", "--quarter", "--output", str(folder)]
    options = anvil.parse(words)
    solver = anvil.make_solver(comm, options)
    law = solver.law
    together(comm, lambda: anvil.prepare(folder, going_on=False), root=True)
    K, G = law.bulk_modulus, law.shear_modulus
    limit = 40.0 * LENGTH / math.sqrt(9 * K * G / (3 * K + G) / solver.density)
    out = solver.writer(folder)
    out.keep_progress(folder / anvil.PROGRESS, source=None, until=solver.time)
    end = limit if options.until == "rebound" else options.until
    shape, panels, front = anvil.solve(solver, options, end, min(SHOWN, end), out)
    out.close()
    last = out.history.rows[-1]
    found = {
        "speed": speed, "diameter": diameter, "ratio": LENGTH / diameter, "density": solver.density,
        "cells": comm.allreduce(solver.points.n), "steps": solver.steps, "time": solver.time,
        "final_length": last["length"], "foot_radius": last["foot_radius"], "energy_error": last["energy_error"],
        "front": {"time": min(SHOWN, end), "height": front},
    }  # fmt: skip
    checks = anvil.checks(found, law, options, shape, last)
    checks["elastic_front"]["passed"] = bool(front <= checks["elastic_front"]["high"])
    return {**found, "checks": checks, "panels": panels}


# %% [markdown]
# ## Picture


# %%
def draw(o: argparse.Namespace, bars: list[dict[str, Any]], path: Path) -> None:
    """The sections of all bars with their von Mises stress: above at 1 us, below at the end."""
    widths = [0.3e-3 + max(np.abs(panel["x"][..., 0]).max() for panel in bar["panels"]) for bar in bars]
    figure, axes = plt.subplots(
        2, len(bars), figsize=(2.0 * len(bars) + 1.0, 7.5), squeeze=False, layout="constrained",
        gridspec_kw={"width_ratios": widths},
    )  # fmt: skip
    for row, place in zip(axes, (0, -1), strict=True):
        stress = [MEGA * bar["panels"][place]["cell"]["von_mises"] for bar in bars]
        norm = plt.Normalize(0.0, float(np.percentile(np.concatenate(stress), 99.0)))
        for axis, bar, value in zip(row, bars, stress, strict=True):
            x = MILLI * bar["panels"][place]["x"]
            x, value = np.concatenate([x, x * [-1, 1]]), np.concatenate([value, value])
            image = cells_of(axis, x, value, norm, "inferno")
            wall(axis, 1.1 * np.abs(x[..., 0]).max(), 1.03 * MILLI * LENGTH)
            axis.set_xticks([0.0, float(f"{0.9 * np.abs(x[..., 0]).max():.1g}")])  # narrow bars have room for two
            name = f"{bar['speed']:g} m/s" if o.study == "speeds" else f"H/D = {bar['ratio']:g}"
            axis.set_title(f"{name}\n{MICRO * bar['panels'][place]['time']:.3g} us", fontsize=9)
        row[0].set_ylabel("z (mm)", fontsize=8)
        scale = figure.colorbar(image, ax=list(row), pad=0.01, aspect=25, extend="max")
        scale.set_label("von Mises stress (MPa)", fontsize=8)
        scale.ax.tick_params(labelsize=7)
    save(figure, path)


# %% [markdown]
# ## Main


# %%
def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """All bars of a study (collective)."""
    plan_threads(comm)
    anvil, bars = load_anvil(), []
    cases = [(speed, DIAMETER) for speed in o.speeds]
    if o.study == "ratios":
        cases = [(SPEED, LENGTH / ratio) for ratio in o.ratios]
    for speed, diameter in cases:
        bars.append(run_bar(comm, anvil, o, speed, diameter))
        if comm.rank == 0:
            sys.stdout.write(
                f"{speed:g} m/s, H/D {LENGTH / diameter:g}: {bars[-1]['cells']} cells, {bars[-1]['steps']} steps to "
                f"{MICRO * bars[-1]['time']:.1f} us; length {MILLI * bars[-1]['final_length']:.3f} mm, foot radius "
                f"{MILLI * bars[-1]['foot_radius']:.3f} mm, front at {MILLI * bars[-1]['front']['height']:.2f} mm\n"
            )
            sys.stdout.flush()
    together(comm, lambda: conclude(o, bars), root=True)
    failed = [f"{name} at {bar['speed']:g} m/s and H/D {bar['ratio']:g}" for bar in bars
              for name, entry in bar["checks"].items() if not entry["passed"]]  # fmt: skip
    if failed:
        raise Stop(f"These checks are not passed: {', '.join(failed)}.", code=1)


def conclude(o: argparse.Namespace, bars: list[dict[str, Any]]) -> None:
    """Write picture and summary (rank 0)."""
    folder = Path(o.output)
    draw(o, bars, folder / f"{o.study}.png")
    rows = [{key: value for key, value in bar.items() if key != "panels"} for bar in bars]
    summary = json.dumps({"law": o.law, "bars": rows}, indent=1, allow_nan=False)
    write_text(folder / f"{o.study}.json", summary + "\n")


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the study (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
