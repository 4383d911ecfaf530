# %% [markdown]
# # How many internal variables does a lattice have?
#
# **Why.** A TANN finds its internal variables in the displacements and bar forces of the cell. How many it keeps is a
# choice; the paper kept 12 in two dimensions and 22 in three, whatever the cell. Here it is made by the error it costs.
#
# **Equations.** What the elastic response to the average strain leaves of the internal coordinates xi spans the space
# of the internal variables, xi = A E + B Z. Its singular values say how large it is; the error of a law with fewer
# variables says how much of it matters. Fewer are made by letting those that strain drives alike move as one, then the
# two trainings of the paper (Algorithms 1 and 2) go on from there. D >= 0 and the virgin state stay exact in all laws.
#
# **Parameters.** Cell and perturbation as in `micro.lattice.make_cell`; walks of random increments, each walk of a size
# of its own between `--increment`, in units of strain (the bars yield at 1/3); 20 % of the increments are zero.
#
# **Checks.** The rank is that of the lattice: as many variables as the cell has bars that can move apart, counted from
# the list of bars alone (regular cell: its bar directions). With all of them the error is rounding.
#
# Reference: Masi and Stefanou (2022), sections III and IV, doi:10.1016/j.cma.2022.115190.

# %%
from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from micro.data.cli import check_count, check_folder
from micro.threads import asked_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np
import torch

from micro.data.ranks import Ranks, world
from micro.lattice.bars import KinematicBar
from micro.lattice.condensation import condense
from micro.lattice.geometry import make_cell
from micro.lattice.source import LatticeSource
from surrogates.artifact import switch_fusion_off
from surrogates.tann.data import LatticePaths, paths_of
from surrogates.tann.errors import recall_errors
from surrogates.tann.internal_variables import elastic_decoder, rank, spectrum
from surrogates.tann.model import coordinates_of
from surrogates.tann.train import TannConfig, build, export, fit
from surrogates.training.split import split

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAMES = ("stress", "psi", "dissipation", "force", "displacement")

# %% [markdown]
# ## Parameters


# %%
class Parser(argparse.ArgumentParser):
    """Argument parser that raises, so that all ranks end alike."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[:1].upper()}{message[1:]}.")


def parse() -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Internal variables.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--cell", default="square-2", help="square-k or cube-k, k units per side")
    p.add_argument("--perturbation", type=float, default=0.2, help="standard deviation of the nodes, in units")
    p.add_argument("--variables", type=int, nargs="*", default=[4, 8, 12], help="numbers to try, beside all there are")
    p.add_argument("--samples", type=int, default=150, help="walks")
    p.add_argument("--steps", type=int, default=200, help="increments a walk")
    p.add_argument("--increment", type=float, nargs=2, default=[0.004, 0.4], help="range of the size of increments")
    p.add_argument("--held-out", type=int, default=20, help="walks to test on")
    p.add_argument("--epochs", type=int, default=10, help="epochs of each training; 0 for merged variables as they are")
    p.add_argument("--learning-rate", type=float, default=1e-3, help="first learning rate")
    p.add_argument("--seed", type=int, default=1, help="seed of the walks")
    p.add_argument("--threads", type=int, default=asked_threads() or 1, help="threads per rank, of PyTorch and BLAS")
    p.add_argument("--output", default="results/lattice_variables", help="folder for the results")
    o = p.parse_args()
    for name in ("samples", "steps", "threads"):
        check_count(f"--{name}", getattr(o, name))
    if any(n < 1 for n in o.variables):
        raise ValueError(f"--variables must be at least 1, got {min(o.variables)}.")
    if not 0 < o.increment[0] <= o.increment[1]:
        raise ValueError(f"--increment must be positive and increase, got {o.increment[0]:g} {o.increment[1]:g}.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## Solve
# The walks are made here, in seconds; every rank makes the same. The numbers to try are shared among the ranks.


# %%
def make_walks(o: argparse.Namespace) -> LatticePaths:
    """The walks of the cell."""
    source = LatticeSource(
        o.seed, cell=o.cell, perturbation=o.perturbation, cell_seed=0, bar=KinematicBar(), steps=o.steps,
        increment=tuple(o.increment), zero=0.2, device="cpu", threads=o.threads,
    )  # fmt: skip
    block = source.solve(np.arange(o.samples))
    failed = [reason for reason in block.reason if reason]
    if failed:
        raise ValueError(f"The lattice cell was not solved on {len(failed)} walks: {failed[0]}.")
    return paths_of(block.arrays, np.arange(o.samples), {"parameters": source.parameters})


def attempt(train: LatticePaths, held: LatticePaths, number: int, o: argparse.Namespace) -> dict[str, Any]:
    """Build, train and test a law with a number of variables (0: all)."""
    config = TannConfig(
        variables=number, epochs=o.epochs if number else 0, tuning=o.epochs if number else 0,
        learning_rate=o.learning_rate, final_rate=0.01 * o.learning_rate,
    )  # fmt: skip
    model = build(config, train)
    merged = recall_errors(torch.jit.script(export(model, train, config)), held)
    found = fit(model, train, held, config)
    errors = recall_errors(torch.jit.script(export(model, train, config)), held)
    keys = [name + kind for name in NAMES for kind in ("", "_tenth", "_double")]
    return {
        "variables": found["variables"],
        "merged": {name: merged[name] for name in NAMES},
        **{name: errors[name] for name in keys},
    }


def study(o: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Spectrum and errors against the number of variables (collective)."""
    switch_fusion_off()
    use_threads(o.threads)
    train, held = split(make_walks(o), o.held_out)
    xi, size = coordinates_of(train)
    xi = xi / size
    left = xi - train.strain @ elastic_decoder(train.strain, xi, train.dissipation).T
    values = spectrum(left.flatten(0, 1))[0]
    found = rank(values)
    numbers = sorted({n for n in o.variables if n < found}) + [0]
    mine = {n: attempt(train, held, n, o) for n in numbers[ranks.rank :: ranks.size]}
    rows = {n: row for part in ranks.allgather(mine) for n, row in part.items()}
    return {
        "cell": o.cell, "perturbation": o.perturbation, "ranks": ranks.size, "pairs": len(train) * o.steps,
        "internal_coordinates": xi.shape[-1], "rank": found, "singular_values": values[: found + 3].tolist(),
        "rows": [rows[n] for n in numbers],
    }  # fmt: skip


# %% [markdown]
# ## Checks and figure


# %%
def check(summary: dict[str, Any], o: argparse.Namespace) -> None:
    """The rank against the list of bars, and the errors with all variables against rounding."""
    cell = make_cell(o.cell, perturbation=o.perturbation, seed=0)
    bars = condense(cell, KinematicBar()).G.shape[1]
    assert summary["rank"] == bars, f"{summary['rank']} variables were found, the cell has {bars}."
    worst = max(summary["rows"][-1][name] for name in NAMES)
    assert worst < 1e-6, f"with all variables the error is {worst:.1e}, not rounding."
    errors = [row["stress"] for row in summary["rows"]]
    assert errors == sorted(errors, reverse=True), "more variables must not be worse."


def draw(summary: dict[str, Any], path: Path) -> None:
    """Singular values, and errors against the number of variables."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    values = np.maximum(summary["singular_values"], 1e-17)
    left.semilogy(np.arange(1, len(values) + 1), values, "o-")
    left.axvline(summary["rank"] + 0.5, color="k", lw=0.8, ls="--")
    left.set(xlabel="internal variable", ylabel="singular value, relative")
    left.set_title("What strain leaves of the coordinates")
    number = [row["variables"] for row in summary["rows"]]
    for name, colour in zip(("stress", "psi", "dissipation"), ("C0", "C1", "C2"), strict=True):
        right.semilogy(number, [row[name] for row in summary["rows"]], "o-", color=colour, label=name)
        right.semilogy(number[:-1], [row["merged"][name] for row in summary["rows"][:-1]], ":", color=colour)
    right.axhline(0.005, color="k", lw=0.8, ls="--")
    right.set(xlabel="internal variables kept", ylabel="relative error on held-out walks")
    right.set_title("Trained (dotted: before training)")
    right.legend()
    figure.suptitle(f"{summary['cell']}, perturbation {summary['perturbation']:g}")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


# %%
def run(o: argparse.Namespace, ranks: Ranks) -> None:
    """Study, write, check (collective)."""
    summary = study(o, ranks)
    if ranks.rank == 0:
        folder = Path(o.output)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / ".summary.json.part"
        unfinished.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
        os.replace(unfinished, folder / "summary.json")
        draw(summary, folder / "lattice_variables.png")
        sys.stdout.write("variables  stress     psi        dissipation   (before training: stress)\n")
        for row in summary["rows"]:
            errors = "   ".join(f"{row[name]:.1e}" for name in ("stress", "psi", "dissipation"))
            sys.stdout.write(f"{row['variables']:9d}  {errors}       {row['merged']['stress']:.1e}\n")
        sys.stdout.flush()
    check(summary, o)


def main() -> int:
    """Run the study; returns the exit status."""
    ranks = world()
    try:
        run(parse(), ranks)
    except ValueError as error:  # the same on all ranks
        if ranks.rank == 0:
            sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
