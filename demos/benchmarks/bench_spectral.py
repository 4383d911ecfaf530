# %% [markdown]
# # What a periodic polycrystal costs and how accurate it is: seconds, iterations, growth with the grid, errors
#
# **Problem.** The paper's 2DFFT: 16 grains, periodic Voronoi, two orthogonal slip systems, random walks of the mean
# stretch in the plane within one second. Second, the same cell on finer grids, and the time of one evaluation. Third,
# with `--tolerances`, the error of the mean stress by the tolerance of equilibrium and by the steps. Fourth, with
# `--coarse`, the error of coarser grids.
#
# **Check.** Every path ends. The errors are those against the same cells with the smallest tolerance of all and with
# four times the most steps of all: L2 norms over a path relative to the norm of the stress. Seconds are those of the
# machine, process time on one thread.
#
# Reference: Liu et al. (2022), section 3, doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micro.threads import limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import numpy as np
import torch

from micro.crystal.cell import polycrystal_cells, random_cell
from micro.crystal.cell_source import CellConfig, CellSource
from micro.crystal.materials import load_material
from micro.data.cli import Parser, check_between, check_count
from micro.data.files import write_whole
from micro.generate import keep_memory
from micro.tensors import PATH_ORDER, deviator, from_components

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Cost of spectral cells.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--paths", type=int, default=1, help="paths, each with a cell of its own")
    p.add_argument("--voxels", type=int, default=32, help="voxels per side; the paper's are 64")
    p.add_argument("--steps", type=int, default=50, help="steps of a path; the paper stores 200")
    p.add_argument("--strain", type=float, default=0.1, help="largest strain of a path")
    p.add_argument("--grids", type=int, nargs="*", default=[32, 64, 128], help="voxels per side of the second part")
    p.add_argument("--tolerances", type=float, nargs="*", default=[], help="tolerances of the third part")
    p.add_argument("--substeps", type=int, nargs="+", default=[1], help="steps per stored step of the third part")
    p.add_argument("--coarse", type=int, nargs="*", default=[], help="voxels per side, for errors against --voxels")
    p.add_argument("--output", default="results/bench_spectral", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("paths", "voxels", "steps"):
        check_count(f"--{name}", getattr(o, name))
    for n in (*o.grids, *o.coarse):
        check_count("--grids and --coarse", n)
    for n in o.substeps:
        check_count("--substeps", n)
    for tolerance in o.tolerances:
        check_between("--tolerances", tolerance, 1e-12, 1.0)
    check_between("--strain", o.strain, 1e-9, 2.0)
    return o


# %% [markdown]
# ## Paths


# %%
def config(o: argparse.Namespace, **changes: Any) -> CellConfig:
    """The options of the cells: the paper's 2DFFT at the strain, the voxels and the steps that were asked for."""
    return CellConfig(shape=(o.voxels, o.voxels), strain=(o.strain, o.strain), steps=o.steps, **changes)


def paths(o: argparse.Namespace) -> dict:
    """Seconds per path, evaluations of the law per step, and the failures."""
    source = CellSource(0, config(o))
    start = time.process_time()
    result = source.respond(np.arange(o.paths))
    seconds = time.process_time() - start
    calls = result.iterations[:, 1:].double()
    return {
        "seconds_per_path": seconds / o.paths,
        "evaluations_per_step": float(calls.mean()),
        "most_evaluations_of_a_step": int(calls.max()),
        "microseconds_per_voxel_and_evaluation": seconds * 1e6 / float(calls.sum()) / o.voxels**2,
        "failed": [reason for reason in result.reason if reason],
    }


# %% [markdown]
# ## Grids: one step of 0.4 % after five others


# %%
def grids(o: argparse.Namespace) -> list[dict]:
    """Seconds and evaluations of a step by the number of voxels."""
    rows = []
    for n in o.grids:
        grain, turns = random_cell(16, (n, n), 0, 0)
        cells = polycrystal_cells(grain[None], turns[None], load_material("two-slip-2d"))
        t = torch.linspace(0, 1, 7, dtype=torch.float64)
        U = torch.zeros(1, 7, len(PATH_ORDER.pairs), dtype=torch.float64)
        U[..., :3] = 1.0
        U[0, :, 0] += 0.024 * t
        U[0, :, 1] -= 0.024 * t
        start = time.process_time()
        result = cells.solve(U, 0.03 * t[None])
        seconds, calls = time.process_time() - start, int(result.iterations.sum())
        rows.append({"voxels": n, "seconds_per_step": seconds / 6, "evaluations_per_step": calls / 6})
        rows[-1]["nanoseconds_per_evaluation_over_N_log_N"] = seconds / calls / (n * n * math.log(n * n)) * 1e9
    return rows


# %% [markdown]
# ## Errors of the mean stress


# %%
def change(stress: torch.Tensor, best: torch.Tensor) -> list[float]:
    """Distances in L2 of paths of the stress (s, T, 3, 3) from the best ones, relative to the norms of these."""
    return ((stress - best).flatten(1).norm(dim=1) / best.flatten(1).norm(dim=1)).tolist()


def errors(o: argparse.Namespace) -> list[dict]:
    """Errors of the stress and of its deviator, per path, and the seconds, by the tolerance and the steps."""
    if not o.tolerances:
        return []

    def solve(tolerance: float, substeps: int) -> tuple[torch.Tensor, float, int]:
        start = time.process_time()
        result = CellSource(0, config(o, tolerance=tolerance, substeps=substeps)).respond(np.arange(o.paths))
        seconds = (time.process_time() - start) / o.paths
        return from_components(result.stress[:, ::substeps]), seconds, sum(bool(text) for text in result.reason)

    best, seconds, failed = solve(min(o.tolerances), 4 * max(o.substeps))
    rows: list[dict] = [{"reference_seconds_per_path": seconds, "failed": failed}]
    for tolerance, substeps in itertools.product(o.tolerances, o.substeps):
        stress, seconds, failed = solve(tolerance, substeps)
        rows.append({
            "tolerance": tolerance, "substeps": substeps, "seconds_per_path": seconds, "failed": failed,
            "error": change(stress, best), "error_of_deviator": change(deviator(stress), deviator(best)),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def resolution(o: argparse.Namespace) -> list[dict]:
    """Errors of the mean stress on coarser grids against the same cells with the voxels asked for, per path."""
    if not o.coarse:
        return []
    best, rows = CellSource(0, config(o)).respond(np.arange(o.paths)), []
    for n in o.coarse:
        start = time.process_time()
        result = CellSource(0, dataclasses.replace(config(o), shape=(n, n))).respond(np.arange(o.paths))
        found, exact = from_components(result.stress), from_components(best.stress)
        rows.append({
            "voxels": n, "seconds_per_path": (time.process_time() - start) / o.paths, "error": change(found, exact),
            "error_of_deviator": change(deviator(found), deviator(exact)),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


# %% [markdown]
# ## Report


# %%
def main(arguments: Sequence[str] | None = None) -> int:
    """Run and write the report."""
    o = parse(arguments)
    keep_memory()
    use_threads(1)
    summary: dict[str, Any] = {"options": vars(o), "paths": paths(o), "grids": grids(o), "errors": errors(o)}
    summary["resolution"] = resolution(o)
    folder = Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "summary.json", json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))
    return 1 if summary["paths"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
