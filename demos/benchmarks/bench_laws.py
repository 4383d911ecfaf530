# %% [markdown]
# # What a learned law costs: its tangent against its stress, and both against the cell that it was learned from
#
# **Why.** Newton's method asks for stress and tangent at every point and iteration. The tangent of a lattice law comes
# in closed form and must not cost more than three times the stress alone; and the law must be worth its training.
#
# **What is timed.** States of random walks, all laws on the same strains: `update` and `tangent` as a solver calls them
# (`fem.laws`), and one step of the auxiliary problem (`micro.lattice.cell_problem`) with its homogenised tangent,
# batched.
# Numbers are the fastest of several rounds in one process; only ratios of one run mean anything.
#
# **Check.** Stress and tangent of each law are those of its cell at the last step.

# %%
from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from micro.threads import asked_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import numpy as np
import torch

from fem.laws import load_law
from micro.data.cli import Parser, check_count, check_folder
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.data import lattice_of
from surrogates.artifact import shipped

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Cost of lattice laws.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--law", nargs="*", help="names or artifacts (default: all shipped laws of lattices)")
    p.add_argument("--points", type=int, default=4096, help="points evaluated at once")
    p.add_argument("--steps", type=int, default=20, help="steps of the walks before")
    p.add_argument("--increment", type=float, default=0.2, help="size of the random increments of strain")
    p.add_argument("--rounds", type=int, default=5, help="rounds, the fastest counts")
    p.add_argument("--threads", type=int, default=asked_threads() or 1, help="threads of PyTorch and BLAS")
    p.add_argument("--output", default="results/bench_laws", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("points", "steps", "rounds", "threads"):
        check_count(f"--{name}", getattr(o, name))
    if not 0.0 < o.increment < math.inf:
        raise ValueError(f"--increment must be a positive finite number, got {o.increment}.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## Measure


# %%
def fastest(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest of some rounds, after one that does not count."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def memory(law: Any, o: argparse.Namespace) -> int:
    """Bytes that the walks, the states and the tangents of law and cell take, roughly."""
    d, structure = law.dimension, law.microstructure
    unknowns = 2 * len(structure.cell.bars) + d * len(structure.cell.nodes)  # of the cell, and its matrix
    return 8 * o.points * (2 * (o.steps + 1) * d * d + 4 * d**4 + 8 * law.state_size + 2 * unknowns**2)


def available() -> int:
    """Bytes of memory that are free; as many as there are where the system does not say."""
    try:
        free = re.search(r"MemAvailable: *([0-9]+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        free = None
    return int(free[1]) * 1024 if free else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def lattice_law(name: str | Path, o: argparse.Namespace) -> Any:
    """A law, if it is of a lattice cell and its points fit into memory.

    Raises:
        ValueError: If it is none, or there is no such law, or the points do not fit.
    """
    law: Any = load_law(name)
    if getattr(law, "microstructure", None) is None:
        raise ValueError(f"--law must name laws of lattice cells, but {name} is none.")
    if (needed := memory(law, o)) > (free := available()):
        raise ValueError(
            f"--points {o.points} and --steps {o.steps} need about {needed / 1e9:.3g} GB for {law.name}, "
            f"{free / 1e9:.3g} GB are free."
        )
    return law


def measure(law: Any, o: argparse.Namespace) -> dict[str, Any]:
    """Cost and check of one law."""
    cell = LatticeCell(*lattice_of(law.microstructure.parameters()))
    d, rng = law.dimension, np.random.default_rng(0)
    H = rng.uniform(-o.increment, o.increment, (o.steps + 1, o.points, d, d))
    E = np.cumsum(0.5 * (H + H.swapaxes(2, 3)), axis=0)
    state, there = law.initial_state(o.points), cell.initial_state(o.points)
    for E_k in E[:-1]:
        _, state = law.update(np.eye(d) + E_k, state, 1.0)
        there = cell.step(torch.from_numpy(E_k), there).state
    F, last = np.eye(d) + E[-1], torch.from_numpy(E[-1])
    P, _, dP_dF = law.tangent(F, state, 1.0)
    step = cell.step(last, there)
    truth, tangent = step.stress.numpy(), cell.tangent(step).numpy()
    stress_s = fastest(lambda: law.update(F, state, 1.0), o.rounds)
    tangent_s = fastest(lambda: law.tangent(F, state, 1.0), o.rounds)
    cell_s = fastest(lambda: cell.tangent(cell.step(last, there)), o.rounds)
    return {
        "law": law.name,
        "variables": sum(entry.quantity == "internal_variable" for entry in law.observables),
        "stress_error": float(np.linalg.norm(P - truth) / np.linalg.norm(truth)),
        # Per point; the median, for a bar at its yield point may be on either side.
        "tangent_error": float(np.median(np.abs(dP_dF - tangent).reshape(o.points, -1).max(axis=1))),
        "tangent_over_stress": tangent_s / stress_s,
        "cell_over_law": cell_s / tangent_s,
        "microseconds_per_point": 1e6 * tangent_s / o.points,
    }


# %%
def run(o: argparse.Namespace) -> None:
    """Measure, write, check."""
    use_threads(o.threads)
    names = o.law or [entry.name for entry in shipped() if entry.kind in ("tann", "tann-network", "lattice")]
    laws = [lattice_law(name, o) for name in names]  # all, before the first is timed
    rows = [measure(law, o) for law in laws]
    folder = Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / ".summary.json.part"
    unfinished.write_text(json.dumps({"points": o.points, "rows": rows}, indent=1, allow_nan=False) + "\n")
    os.replace(unfinished, folder / "summary.json")
    sys.stdout.write(f"{'law':32s} variables  tangent / stress  cell / law  us a point\n")
    for row in rows:
        sys.stdout.write(
            f"{row['law']:32s} {row['variables']:9d}  {row['tangent_over_stress']:16.2f}  {row['cell_over_law']:10.1f}"
            f"  {row['microseconds_per_point']:10.2f}\n"
        )
    sys.stdout.flush()
    for row in rows:
        if row["law"].startswith("tann_network"):
            continue  # learns by training alone: its errors stand in its manifest
        for name, bound in (("stress_error", 1e-6), ("tangent_error", 1e-5)):
            assert row[name] < bound, f"{row['law']}: {name} is {row[name]:.1e}, above {bound:g}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 where a check does not hold, 2 for bad input."""
    try:
        run(parse(arguments))
    except AssertionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
