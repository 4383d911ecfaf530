# %% [markdown]
# # What the effective stiffness of a voxel cell costs
#
# **Why.** Paper 3 compares its network with 243.86 s per cell, conjugate gradients of SciPy without a preconditioner.
# A network has to be compared with a good solver: this benchmark measures ours, and SciPy's in the same run.
#
# **Problem.** Periodic cells of n^3 voxels, E = 1, nu = 0.3, trilinear hexahedra with full integration, six unit
# strains, contrast 1e3, 1e9 and true voids. By default gyroid and primitive surface at level 0 (half solid), the grid
# of bars of radius 0.1 (9 %), the frames x and vintiles of radius 0.06 (7 and 8 %; the second has winding struts), and
# voxels that are solid at random (half of them: hinges, islands). A ratio depends on the cell, so SciPy runs on all
# five surfaces and nine frames (`--compare`).
#
# **Numbers.** Steps of conjugate gradients to 1e-4 of the tensor for the Fourier preconditioner, and for multigrid up
# to `--multigrid` voxels per side; seconds (wall time with the given threads, the median of several runs, from the
# densities to the tensor, set-up included); the gap of the certified bounds; seconds per cell in a batch; time and
# memory of one cell in a process of its own. SciPy's matrix is assembled as fast as we can in NumPy, and this time
# counts as our set-up does. Voids are 1e-9 as in the paper, or true ones, which leaves SciPy the solid alone. Its
# conjugate gradients are timed twice: until the energy of the iterate is as close to the exact one as we asked of
# ours, which can only be known from the exact energy, and until they end by themselves (rtol = 1e-5, its default), or
# after `LIMIT` steps per load.
#
# **Check.** The gyroid at n = 40 has C11 = 0.2620, C12 = 0.1027, C44 = 0.1029; SciPy and both preconditioners find one
# tensor, within the tolerance; the bounds enclose it.
#
# Reference: Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional
# neural network, doi:10.1007/s00371-024-03411-5; Table 4.

# %%
from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from micro.threads import asked_threads, check_threads, limit_threads, single, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np
import scipy.sparse
import torch
from mpi4py import MPI
from scipy.sparse.linalg import cg

from micro.data.cli import Parser, check_folder, check_memory
from micro.generate import keep_memory
from micro.voxel.bounds.lower_bound import bounds
from micro.voxel.cells.frames import FRAMES, make_frame
from micro.voxel.cells.tpms import SURFACES, make_tpms
from micro.voxel.solver.element import affine, element_stiffness, isotropic
from micro.voxel.solver.homogeniser import BYTES, Homogenised, Homogeniser, check_size
from surrogates.training.config import check_device

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COMPARED = (*SURFACES, *FRAMES, "random")
CELLS = (*COMPARED, "loose")
USUAL = ("gyroid", "primitive", "grid", "x", "vintiles", "random")
CONTRASTS = (1e3, 1e9, float("inf"))
PAPER_SECONDS = 243.86  # Table 4: numerical homogenization
PAPER_RATIO = 20  # the goal of this project
GYROID = (0.2620, 0.1027, 0.1029)  # C11, C12, C44 at level 0, n = 40
LIMIT = 3000  # steps of SciPy per load
SCIPY_BYTES = 20_000  # memory of SciPy per voxel: 576 numbers with their indices, twice
LEAST = 1e-10  # tolerance that rounding allows
COLOURS = {"fourier": "#219ebc", "multigrid": "#fb8500"}

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Cost of the homogeniser.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--n", nargs="+", type=int, default=[20, 40], help="voxels per side")
    p.add_argument("--cells", nargs="+", choices=CELLS, default=list(USUAL), help="cells")
    p.add_argument("--compare", nargs="+", choices=CELLS, default=list(COMPARED), help="cells that SciPy solves too")
    p.add_argument("--tolerance", type=float, default=1e-4, help="relative error of the tensor")
    p.add_argument("--runs", type=int, default=3, help="runs whose median counts")
    p.add_argument("--multigrid", type=int, default=20, help="most voxels per side for multigrid, 0 for none")
    p.add_argument("--scipy", nargs="*", type=int, default=[20], help="voxels per side at which SciPy runs as well")
    p.add_argument("--bounds", nargs="*", type=int, default=[20], help="voxels per side at which bounds are computed")
    p.add_argument("--batch", nargs=2, type=int, default=[16, 20], help="cells of a batch, and their voxels per side")
    p.add_argument("--once", type=int, default=0, help="voxels per side of one more gyroid, 0 for none")
    p.add_argument("--threads", type=int, default=asked_threads() or 1, help="threads of PyTorch")
    p.add_argument("--device", default="cpu", help="device of PyTorch")
    p.add_argument("--output", default="results/bench_homogeniser", help="folder for the results")
    o = p.parse_args(arguments)
    if min(o.n) < 4 or len(set(o.n)) < len(o.n):
        raise ValueError(f"--n must be different numbers of at least 4, got {o.n}.")
    if not LEAST <= o.tolerance < 0.1:
        raise ValueError(f"--tolerance must lie between {LEAST:g} and 0.1, got {o.tolerance}.")
    if o.runs < 1 or o.batch[0] < 1 or o.batch[1] < 4:
        raise ValueError("--runs and the cells of --batch must be positive, their voxels per side at least 4.")
    if min([*o.scipy, *o.bounds, o.once or 4]) < 4:
        raise ValueError("--scipy, --bounds and --once must be at least 4 voxels per side.")
    check_threads(o.threads, "--threads")
    check_device(o.device)
    for name, n in (("--n", max(o.n)), ("--once", o.once), ("--bounds", max(o.bounds, default=0))):
        check_size(name, (n,) * 3)
    n = max(o.scipy, default=0)
    check_memory(f"the matrices of {n}^3 voxels", SCIPY_BYTES * n**3, name="--scipy")
    check_memory(f"{o.batch[0]} cells of {o.batch[1]}^3 voxels", BYTES * o.batch[0] * o.batch[1] ** 3, name="--batch")
    check_folder("--output", o.output)
    return o


def make_cell(name: str, n: int, contrast: float) -> np.ndarray:
    """Densities of a cell (n, n, n)."""
    if name in SURFACES:
        solid = make_tpms(name, n)
    elif name in ("random", "loose"):  # few paths, and many hinges, lead through a loose one
        solid = np.random.default_rng(0).uniform(size=(n, n, n)) < (0.5 if name == "random" else 0.3)
    else:
        solid = make_frame(name, n, 0.1 if name == "grid" else 0.06)
    return np.where(solid, 1.0, 1 / contrast)


# %% [markdown]
# ## Ours


# %%
def seconds(work: Callable[[], Any], device: str) -> tuple[Any, float]:
    """The result of a piece of work, and the seconds that it took."""
    start = time.perf_counter()
    out = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return out, time.perf_counter() - start


def solve(density: np.ndarray, preconditioner: str, o: argparse.Namespace) -> tuple[Homogenised, float]:
    """Solve from the densities to the tensor; the median of some runs counts."""
    found = [
        seconds(
            lambda: Homogeniser(density, preconditioner=preconditioner, device=o.device).solve(tolerance=o.tolerance),
            o.device,
        )
        for _ in range(o.runs)
    ]
    return found[0][0], float(np.median([taken for _, taken in found]))


def measure(name: str, n: int, contrast: float, o: argparse.Namespace) -> list[dict[str, Any]]:
    """Solve one cell with each preconditioner."""
    density = make_cell(name, n, contrast)
    rows = []
    for preconditioner in [key for key in COLOURS if key == "fourier" or n <= o.multigrid]:
        result, taken = solve(density, preconditioner, o)
        C = result.tensor[0].cpu().numpy()
        assert bool(result.converged.all()), f"{preconditioner} must converge on {name}"
        rows.append({
            "cell": name, "n": n, "contrast": contrast if np.isfinite(contrast) else "void",
            "fraction": float((density == 1).mean()), "preconditioner": preconditioner,
            "iterations": int(result.iterations[0]), "seconds": taken, "tensor": C.tolist(),
        })  # fmt: skip
    a, b = (np.array(row["tensor"]) for row in (rows[0], rows[-1]))
    assert abs(a - b).max() <= 3 * o.tolerance * abs(a).max(), "the preconditioners must find one tensor"
    if name == "gyroid" and n == 40 and not np.isfinite(contrast):
        assert max(abs(a[i, i2] - c) for (i, i2), c in zip(((0, 0), (0, 1), (3, 3)), GYROID)) < 1e-4
    return rows


ALONE = """
import json, sys, time
import torch
from micro.generate import keep_memory
from micro.voxel.solver.homogeniser import Homogeniser
from micro.voxel.cells.tpms import make_tpms

n, threads, tolerance, device = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
torch.set_num_threads(threads)
keep_memory()
density = make_tpms("gyroid", n).astype(float)
before = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
start = time.perf_counter()
result = Homogeniser(density, device=device).solve(tolerance=tolerance)
iterations = int(result.iterations[0])
taken = time.perf_counter() - start
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
out = {"n": n, "seconds": taken, "iterations": iterations}
print(json.dumps({**out, "memory_MB": int(peak) / 1024, "before_MB": int(before) / 1024}))
"""


def measure_alone(n: int, o: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of the first solve of a process of its own: a gyroid with true voids."""
    words = [sys.executable, "-c", ALONE, str(n), str(o.threads), str(o.tolerance), o.device]
    folders = [str(Path(__file__).resolve().parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folder for folder in folders if folder)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def measure_bounds(name: str, n: int, o: argparse.Namespace) -> dict[str, Any]:
    """Certified bounds after the solve."""
    cell = Homogeniser(make_cell(name, n, float("inf")), device=o.device)
    result = cell.solve(tolerance=o.tolerance)
    found, taken = seconds(lambda: bounds(cell, result.displacement), o.device)
    exact = cell.solve(result.displacement, tolerance=1e-9).tensor[0].cpu().numpy()
    lower, upper = found.lower[0].cpu().numpy(), found.upper[0].cpu().numpy()
    size = np.linalg.eigvalsh(exact)[-1]
    assert np.linalg.eigvalsh(exact - lower)[0] > -1e-8 * size and np.linalg.eigvalsh(upper - exact)[0] > -1e-8 * size
    return {
        "cell": name, "n": n, "seconds": taken, "accuracy": float(found.accuracy[0]),
        "gap_over_error": float(np.trace(upper - lower) / np.trace(upper - exact)),
    }  # fmt: skip


# %% [markdown]
# ## SciPy's conjugate gradients, as in the paper: assembled, without a preconditioner, one unit strain after the other


# %%
def solve_scipy(density: np.ndarray, exact: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Seconds and steps of SciPy until the diagonal of the tensor is as close as asked, and until it ends."""
    n = len(density)
    h = np.full(3, 1 / n)
    start = time.perf_counter()
    number = np.arange(n**3).reshape(n, n, n)
    corners = [np.roll(number, (-i, -j, -k), (0, 1, 2)).ravel() for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    solid = density.ravel() > 0
    dofs = (3 * np.stack(corners, 1)[solid][:, :, None] + np.arange(3)).reshape(-1, 24).astype(np.int32)
    K_e, A = element_stiffness(isotropic(), h), affine(h)
    rho = density.ravel()[solid]
    values = (rho[:, None, None] * K_e).ravel()
    K = scipy.sparse.csr_array((values, (np.repeat(dofs, 24, axis=1).ravel(), np.tile(dofs, (1, 24)).ravel())))
    f = np.zeros((K.shape[0], 6))
    np.add.at(f, dofs, rho[:, None, None] * (K_e @ A))
    assembled = time.perf_counter()
    voigt = rho.sum() * np.diag(A.T @ K_e @ A)
    close_steps, close_seconds, steps, spent, tensor, ended, met = [], 0.0, [], 0.0, [], True, True
    for k in range(6):
        state = {"steps": 0, "close": 0, "seconds": 0.0, "tensor": voigt[k]}
        begin = time.perf_counter()

        def watch(u: np.ndarray, k: int = k, state: dict = state, begin: float = begin) -> None:
            state["steps"] += 1
            state["tensor"] = voigt[k] + f[:, k] @ u  # u K u = -f u at the iterates of conjugate gradients from zero
            if not state["close"] and state["tensor"] - exact[k] <= tolerance * exact[k]:
                state["close"], state["seconds"] = state["steps"], time.perf_counter() - begin

        _, failed = cg(K, -f[:, k], rtol=1e-5, maxiter=LIMIT, callback=watch)
        taken = time.perf_counter() - begin
        spent += taken
        ended, met = ended and not failed, met and state["close"] > 0
        close_seconds += state["seconds"] if state["close"] else taken
        close_steps.append(state["close"] or state["steps"])
        steps.append(state["steps"])
        tensor.append(state["tensor"])
    assembly = assembled - start
    return {
        "n": n, "assembly_seconds": assembly, "seconds_as_close": assembly + close_seconds,
        "steps_as_close": close_steps, "seconds": assembly + spent, "steps": steps, "as_close": met, "ended": ended,
        "diagonal": tensor,
    }  # fmt: skip


# %%
def compare(name: str, n: int, contrast: float, o: argparse.Namespace) -> dict[str, Any]:
    """SciPy's seconds and ours on one cell."""
    density = make_cell(name, n, contrast)
    exact = np.diag(Homogeniser(density).solve(tolerance=1e-9).tensor[0].numpy())
    with single():  # threads of BLAS do not help its products of vectors, and disturb it where cores are shared
        row = solve_scipy(density, exact, o.tolerance)
    if row["ended"]:
        assert (abs(np.array(row["diagonal"]) - exact) <= 0.01 * exact.max()).all(), "SciPy must agree"
    found, ours = solve(density, "auto", o)
    errors = found.tensor[0].diagonal().cpu().numpy() - exact
    estimate = float((found.left[0].cpu().numpy() / errors.clip(min=1e-9 * exact.max())).min())
    ratios = {"ratio_as_close": row["seconds_as_close"] / ours, "ratio": row["seconds"] / ours}
    say(
        f"{name}, n = {n}, void {1 / contrast:g}: SciPy assembles in {row['assembly_seconds']:.2f} s, "
        f"{'is as close' if row['as_close'] else 'is never as close,'} after {row['steps_as_close']} steps, "
        f"{row['seconds_as_close']:.2f} s in all, {'ends' if row['ended'] else 'is stopped'} after {row['steps']}, "
        f"{row['seconds']:.2f} s; ours {ours:.3f} s, "
        f"{ratios['ratio_as_close']:.1f} and {ratios['ratio']:.1f} times less"
    )
    ratios |= {"error": float((errors / exact).max()), "estimate_over_error": estimate}
    return {"cell": name, "void": 1 / contrast, **row, "ours": ours, **ratios}


# %% [markdown]
# ## Batches, one large cell, picture


# %%
def measure_batch(o: argparse.Namespace) -> dict[str, Any]:
    """Seconds per cell of different gyroids, alone and together."""
    cells, n = o.batch
    density = np.stack([make_tpms("gyroid", n, level) for level in np.linspace(-0.8, 0.8, cells)]).astype(float)
    _, alone = seconds(lambda: [solve(one, "fourier", o) for one in density], o.device)
    _, together = solve(density, "fourier", o)
    return {"cells": cells, "n": n, "alone": alone / (o.runs * cells), "together": together / cells}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Steps against n: a panel per cell, a line per preconditioner and contrast."""
    names = list(dict.fromkeys(row["cell"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 3.2), layout="constrained", squeeze=False)
    styles = {1e3: "o:", 1e9: "s--", "void": "^-"}
    for axis, name in zip(axes[0], names):
        for preconditioner, colour in COLOURS.items():
            for contrast, style in styles.items():
                some = [
                    r
                    for r in rows
                    if (r["cell"], r["preconditioner"], r["contrast"]) == (name, preconditioner, contrast)
                ]
                label = f"{preconditioner}, {contrast if contrast == 'void' else format(contrast, '.0e')}"
                axis.plot(
                    [r["n"] for r in some], [r["iterations"] for r in some], style, color=colour, label=label, ms=4
                )
        axis.set_xscale("log", base=2)
        ticks = sorted({row["n"] for row in rows})
        axis.set_xticks(ticks, [str(k) for k in ticks])
        axis.minorticks_off()
        axis.set(title=name, xlabel="voxels per side", ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("steps of conjugate gradients")
    axes[0, 0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# %% [markdown]
# ## Main


# %%
def say(text: str) -> None:
    """Show a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def counts_table(rows: list[dict[str, Any]]) -> str:
    """Steps by cell, preconditioner and n, for each contrast: a table for the documentation."""
    sides = sorted({row["n"] for row in rows})
    lines = [
        f"| cell | {' | '.join(f'{n}^3' for n in sides)} | s at {sides[-1]}^3, void |",
        "|---" * (len(sides) + 2) + "|",
    ]
    for name in dict.fromkeys(row["cell"] for row in rows):
        words = []
        for n in sides:
            some = [row for row in rows if (row["cell"], row["n"]) == (name, n)]
            parts = [
                ", ".join(str(row["iterations"]) for row in some if row["preconditioner"] == key) for key in COLOURS
            ]
            words.append(parts[0] + (f" ({parts[1]})" if parts[1] else ""))
        last = [
            r
            for r in rows
            if (r["cell"], r["n"], r["contrast"], r["preconditioner"]) == (name, sides[-1], "void", "fourier")
        ]
        lines.append(f"| {name} | {' | '.join(words)} | {last[0]['seconds']:.2g} |")
    return "\n".join(lines)


def ratio_table(baseline: list[dict[str, Any]]) -> str:
    """Seconds and ratios by cell, for both kinds of voids: a table for the documentation."""
    columns = "SciPy as close", "at its end", "steps", "ours", "ratios"
    lines = [f"| cell, voids of 1e-9 | {' | '.join(columns)} | true voids: {' | '.join(columns)} |", "|---" * 11 + "|"]
    for name, n in dict.fromkeys((row["cell"], row["n"]) for row in baseline):
        words = [name if len({row["n"] for row in baseline}) == 1 else f"{name}, {n}^3"]
        for row in [row for row in baseline if (row["cell"], row["n"]) == (name, n)]:
            words += [
                f"{row['seconds_as_close']:.2f}" if row["as_close"] else "never",
                f"{row['seconds']:.2f}" if row["ended"] else f"> {row['seconds']:.0f}",
                f"{max(row['steps_as_close'])}, {max(row['steps'])}",
                f"{row['ours']:.3f}",
                f"{row['ratio_as_close']:.0f}, {row['ratio']:.0f}",
            ]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def measure_all(o: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every cell at every resolution and contrast, and say so."""
    rows: list[dict[str, Any]] = []
    for n in sorted(o.n):
        for name in o.cells:
            for contrast in CONTRASTS:
                found = measure(name, n, contrast, o)
                rows += found
                parts = [f"{row['preconditioner']} {row['iterations']} steps, {row['seconds']:.2f} s" for row in found]
                say(f"{name}, n = {n}, contrast {found[0]['contrast']}: {'; '.join(parts)}")
    return rows


def certify_all(o: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the bounds of every cell, and say so."""
    certified = []
    for n in sorted(set(o.bounds)):
        for name in o.cells:
            row = measure_bounds(name, n, o)
            certified.append(row)
            say(
                f"{name}, n = {n}: bounds in {row['seconds']:.2f} s, +-{row['accuracy']:.1e}, "
                f"{row['gap_over_error']:.2f} times the error"
            )
    return certified


def say_ratios(baseline: list[dict[str, Any]], tolerance: float) -> None:
    """Say how our solver compares with SciPy's."""
    if not baseline:
        return
    say(f"Seconds, from the densities to the tensors of six unit strains:\n\n{ratio_table(baseline)}\n")
    worst = max((row["error"], row["cell"]) for row in baseline)
    least = min((row["estimate_over_error"], row["cell"]) for row in baseline)
    say(
        f"Our error: {tolerance:g} asked for, {worst[0]:.1e} at worst ({worst[1]}); the estimate of it is at least "
        f"{least[0]:.2f} times the error ({least[1]})"
    )
    for void in dict.fromkeys(row["void"] for row in baseline):
        for key, words in (("ratio_as_close", "to the same error"), ("ratio", "until it ends by itself")):
            some = sorted((row[key], row["cell"]) for row in baseline if row["void"] == void)
            say(
                f"void {void:g}, {words}: ours takes {some[0][0]:.1f} ({some[0][1]}) to {some[-1][0]:.1f} "
                f"({some[-1][1]}) times less than SciPy; the goal was {PAPER_RATIO}"
            )


def run(o: argparse.Namespace) -> None:
    """Measure, check, write figure and summary."""
    use_threads(o.threads)
    keep_memory()
    rows = measure_all(o)
    certified = certify_all(o)
    batch = measure_batch(o)
    say(
        f"{batch['cells']} cells, n = {batch['n']}: {batch['alone']:.3f} s each alone, "
        f"{batch['together']:.3f} s together"
    )
    alone = [measure_alone(n, o) for n in sorted({max(o.n), 40 if 40 in o.n else max(o.n), o.once or max(o.n)})]
    for row in alone:
        say(
            f"gyroid, n = {row['n']}, a process of its own: {row['iterations']} steps, {row['seconds']:.2f} s, "
            f"{row['memory_MB']:.0f} MB, {row['before_MB']:.0f} of them before"
        )
    asked = itertools.product(sorted(set(o.scipy)), o.compare, CONTRASTS[1:])
    baseline = [compare(name, n, contrast, o) for n, name, contrast in asked]
    say(f"Steps, contrast 1e3, 1e9, void (multigrid):\n\n{counts_table(rows)}\n")
    say_ratios(baseline, o.tolerance)
    folder = Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    draw(rows, folder / "counts.png")
    summary = {
        "threads": o.threads, "device": o.device, "tolerance": o.tolerance, "paper_seconds": PAPER_SECONDS,
        "rows": rows, "bounds": certified, "batch": batch, "alone": alone, "scipy": baseline,
    }  # fmt: skip
    part = folder / ".summary.json.part"
    part.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    os.replace(part, folder / "summary.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark on the first rank: 0 done, 2 bad input."""
    if MPI.COMM_WORLD.rank:
        return 0
    try:
        run(parse(arguments))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
