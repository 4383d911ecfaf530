# %% [markdown]
# # What a step of the crystal costs
#
# **Why.** The Taylor polycrystal makes the training data of the learned law, and it is the law of a concurrent run.
# Both are paid per grain and step. This benchmark measures the compiled update (`micro.crystal.compiled`) in both uses,
# beside the PyTorch one, together with its error.
#
# **Equations.** The single-crystal law of Liu et al. (2022), appendix, integrated by TR-BDF2 with a step
# for each grain.
#
# **Parameters.** Magnesium, grains of random orientation. Data: the paper's random walks (strain 0.5, 1 us, 200 stored
# steps, about 2.4e-2 of strain each), with and without twinning. Impact: points that have been strained along such
# walks, then steps of 5e-4 of strain in 10 ns.
#
# **Numbers.** Processor microseconds per grain and stored step, the least of several runs in one process; implicit
# stages, rejected steps, Newton iterations per stage, share of lanes that are busy; the error of the mean deviator
# against a tolerance a hundred times tighter; the load of the machine.
#
# **Check.** All paths are solved, and the error is at most 0.3 % without twinning and 0.5 % with it.

# %%
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from micro.threads import asked_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import numpy as np
import torch

from micro.crystal import constants
from micro.crystal.compiled import CompiledPolycrystal, Counts, Solution, available
from micro.crystal.materials import load_material
from micro.crystal.paths import random_walk
from micro.crystal.systems import crystal_systems
from micro.crystal.taylor import TaylorPolycrystal
from micro.data.cli import Parser, check_count, check_folder
from micro.tensors import from_components, random_rotations, to_components

#: Largest errors allowed, without and with twinning.
BOUNDS = {"data, no twins": 3e-3, "data": 5e-3}
#: Factor of the twins' resistance at which none forms.
NO_TWINS = 1e6


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Cost of the crystal.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--paths", type=int, default=8, help="random walks, and points of the impact")
    p.add_argument("--grains", type=int, default=128, help="grains of the polycrystal")
    p.add_argument("--steps", type=int, default=200, help="stored steps of a walk")
    p.add_argument("--impact", type=int, default=40, help="steps of the impact")
    p.add_argument("--torch", type=int, default=20, help="steps of one walk that PyTorch solves too, 0 for none")
    p.add_argument("--runs", type=int, default=3, help="runs of which the fastest counts")
    p.add_argument("--threads", type=int, default=asked_threads() or 1, help="threads of PyTorch and BLAS")
    p.add_argument("--output", type=Path, default=Path("results/bench_crystal"), help="folder for the results")
    o = p.parse_args(arguments)
    least_of = {"paths": 1, "grains": 1, "steps": 2, "impact": 1, "torch": 0, "runs": 1, "threads": 1}
    for name, low in least_of.items():
        check_count(f"--{name}", getattr(o, name), least=low)
    check_folder("--output", o.output)
    if not available():
        raise ValueError("The compiled crystal needs a C compiler; the log says what is missing.")
    return o


def polycrystal(grains: int, twins: bool = True, tolerance: float = constants.TOLERANCE) -> CompiledPolycrystal:
    """Return the polycrystal."""
    parameters = load_material()
    systems = crystal_systems(parameters if twins else parameters.with_tau_0(twin=NO_TWINS))
    return CompiledPolycrystal(systems, random_rotations(grains, 0).numpy(), np.full(grains, 1 / grains), tolerance)


def walks(paths: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the stretch (s, T, 6), C (s, T, 6) and the times (s, T), s, of random walks."""
    drawn = random_walk(range(paths), 0, steps=steps)
    U = from_components(drawn.U)
    return drawn.U, to_components(U @ U), drawn.time * drawn.duration[:, None]


def least(runs: int, work: Callable[[], Solution]) -> tuple[float, Solution]:
    """Return the least processor seconds of several runs, and the last result."""
    seconds, result = [], None
    for _ in range(runs):
        begin = time.process_time()
        result = work()
        seconds.append(time.process_time() - begin)
    assert result is not None
    return min(seconds), result


def deviator(S: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Return the deviator of the Kirchhoff stress (..., 3, 3), Pa, in the frame of U = C^(1/2)."""
    values, vectors = np.linalg.eigh(from_components(C))
    U = (vectors * np.sqrt(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    tau = U @ from_components(S) @ U
    return tau - np.trace(tau, axis1=-2, axis2=-1)[..., None, None] / 3 * np.eye(3)


def row_of(name: str, seconds: float, result: Solution, exact: Solution, C: np.ndarray, grains: int) -> dict:
    """Return a row of the table."""
    assert result.ok.all() and exact.ok.all(), f"{name}: not all paths were solved"
    found, right = deviator(result.S[:, 1:], C[:, 1:]), deviator(exact.S[:, 1:], C[:, 1:])
    error = np.sqrt(np.square(found - right).sum((1, 2, 3)) / np.square(right).sum((1, 2, 3)))
    count, stages = (C.shape[1] - 1) * len(C) * grains, int(result.solves.sum())
    return {
        "case": name,
        "microseconds": round(seconds / count * 1e6, 3),
        "seconds per path": round(seconds / len(C), 4),
        "stages": round(stages / count, 2),
        "rejected": round(result.counts.rejected / result.counts.steps, 3),
        "iterations per stage": round(result.counts.iterations / stages, 2),
        "busy lanes": round(result.counts.iterations / result.counts.places, 3),
        "mean error": float(f"{error.mean():.2e}"),
        "largest error": float(f"{error.max():.2e}"),
        "load": round(os.getloadavg()[0], 1),
    }


# %% [markdown]
# ## The two uses


# %%
def impact(o: argparse.Namespace) -> dict:
    """Measure steps of an impact: each is one call, as a time step of a run is."""
    _, C, times = walks(o.paths, o.steps)
    crystal, half = polycrystal(o.grains), o.steps // 2
    start = crystal.solve(C[:, : half + 1], times[:, : half + 1]).state
    direction = np.random.default_rng(0).normal(size=(o.paths, 3, 3))
    direction -= np.trace(direction, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    direction /= np.linalg.norm(direction, axis=(1, 2))[:, None, None]
    values, vectors = np.linalg.eigh(from_components(C[:, half]))
    U = (vectors * np.sqrt(values)[:, None, :]) @ np.swapaxes(vectors, -1, -2)
    F = [(np.eye(3) + 5e-4 * k * direction) @ U for k in range(o.impact + 1)]
    path = np.stack([to_components(np.swapaxes(f, 1, 2) @ f) for f in F], 1)
    path[:, 0] = start[:, :6]

    def run(crystal: CompiledPolycrystal) -> Solution:
        parts, state = [], start
        for f in F[1:]:
            parts.append(crystal.update(f, state, 1e-8))
            state = parts[-1].state
        S = np.stack([np.full((o.paths, 6), np.nan), *(part.S for part in parts)], 1)
        ok, solves = np.all([p.ok for p in parts], 0), np.sum([p.solves for p in parts], 0)
        counts = Counts(*np.sum([p.counts for p in parts], 0).tolist())
        return Solution(S, state, ok, np.full(o.paths, len(F)), parts[-1].status, solves, counts, None)

    seconds, result = least(o.runs, lambda: run(crystal))
    tight = polycrystal(o.grains, tolerance=constants.TOLERANCE / 100)
    return row_of("impact", seconds, result, run(tight), path, o.grains)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, check, and write the table: 0 done, 2 bad input."""
    try:
        o = parse(arguments)
        use_threads(o.threads)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    o.output.mkdir(parents=True, exist_ok=True)
    U, C, times = walks(o.paths, o.steps)
    rows = []
    for name in BOUNDS:
        crystal, tight = (polycrystal(o.grains, name == "data", constants.TOLERANCE / f) for f in (1, 100))
        seconds, result = least(o.runs, lambda: crystal.solve(C, times))  # noqa: B023
        rows.append(row_of(name, seconds, result, tight.solve(C, times), C, o.grains))
        print(json.dumps(rows[-1]), flush=True)
        assert rows[-1]["largest error"] <= BOUNDS[name], f"{name}: the error is too large"
    rows.append(impact(o))
    print(json.dumps(rows[-1]), flush=True)
    if o.torch:
        begin, interpreted = time.process_time(), TaylorPolycrystal(o.grains, backend="torch")
        part = slice(0, o.torch + 1)
        interpreted.solve(torch.from_numpy(U[:1, part]), torch.from_numpy(times[:1, part]))
        slow = time.process_time() - begin
        fast, _ = least(o.runs, lambda: polycrystal(o.grains).solve(C[:1, part], times[:1, part]))
        micro = [round(seconds / (o.torch * o.grains) * 1e6, 2) for seconds in (slow, fast)]
        rows.append({"case": f"one walk, {o.torch} steps", "PyTorch": micro[0], "compiled": micro[1]})
        print(json.dumps(rows[-1]), flush=True)
    (o.output / "summary.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
