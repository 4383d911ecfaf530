# %% [markdown]
# # What the polycrystal can be trusted with: steps, assumed constants, sign conventions, cost
#
# **Why.** The learned laws are trained on the Taylor polycrystal of `micro`. Its own errors bound theirs, so this study
# measures them on the paths of paper 1: random walks of the stretch up to 50 % strain within 1 us, 128 grains.
#
# **Equations.** Grains share F = U(t); each follows the crystal law of `micro.crystal` (slip on 12 systems, 6 twins),
# integrated implicitly; the mean Cauchy stress is compared. F_in is isochoric, so the pressure is 2 lambda_e (J - 1)
# whatever the crystals do, and only the deviator s = dev sigma tells anything. Errors are relative in L2 over the path,
#
#     e = (sum_t |s - s_ref|^2 / sum_t |s_ref|^2)^(1/2).
#
# **Questions.**
#
# 1. How large is the error of 200, 400, 800 solver steps, against 3200? (The path is linear between its 200 stored
#    points, so that all see the same path.) And without twinning, against the extrapolation of 400 and 800 steps?
# 2. How much of the stress hangs on the viscous resistances tau_0, three of which the paper's table lost?
# 3. Do the twin variants that win depend on the step?
# 4. How isotropic are 128 grains?
# 5. Which sign of slip inside a twin keeps the crystal able to flow?
# 6. What does a grain cost?
#
# **Checks**, each against a number from outside the crystal law: the scheme is backward Euler, so the differences of
# successive refinements show an order of about one (without twinning: which variant wins is a jump, and where it
# depends on the step there is no order); the pressure is the closed form to 1e-9; twin fractions lie in [0, 1];
# a crystal has five independent slips, or it locks.
#
# Reference: Liu et al. (2022), sections 3 and appendix, doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from micro.threads import asked_threads, check_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.paths import random_walk
from micro.crystal.source import CRYSTAL_BYTES, POINT_BYTES
from micro.crystal.systems import slip_systems, twin_systems, twinned
from micro.crystal.taylor import TaylorPolycrystal
from micro.data.cli import Parser, check_between, check_count, check_memory
from micro.data.files import write_whole
from micro.data.ranks import Ranks, world
from micro.generate import keep_memory
from micro.tensors import determinant, deviator, from_components, matmul, random_rotations

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SUBSTEPS = (1, 2, 4)  # solver steps between two stored points
REFERENCE = 16
FAMILIES = ("basal", "prismatic", "pyramidal", "twin")
FACTORS = (0.5, 2.0)
WITHOUT_TWINS = load_material().with_tau_0(twin=1e6)

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None, size: int) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Trust in the polycrystal.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--walks", type=int, default=8, help="random walks, shared among the ranks")
    p.add_argument("--grains", type=int, default=128, help="grains of the polycrystal")
    p.add_argument("--points", type=int, default=200, help="stored steps of a walk, and solver steps at the coarsest")
    p.add_argument("--strain", type=float, default=0.5, help="largest strain U_max")
    p.add_argument("--duration", type=float, default=1e-6, help="duration of a walk, s")
    p.add_argument("--seed", type=int, default=0, help="seed of the walks")
    p.add_argument("--threads", type=int, default=asked_threads() or 1, help="threads per rank, of PyTorch and BLAS")
    p.add_argument("--output", default="results/crystal_study", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("walks", "grains", "points", "threads"):
        check_count(f"--{name}", getattr(o, name))
    check_threads(o.threads, "--threads")
    check_between("--strain", o.strain, 1e-9, 100.0)
    check_between("--duration", o.duration, 1e-12, 1e9)
    needed = -(-o.walks // size) * (o.grains * CRYSTAL_BYTES + o.points * POINT_BYTES)
    check_memory(f"{o.walks} walks of {o.points} points and {o.grains} grains", needed)
    if o.walks < size:
        raise ValueError(f"--walks must be at least the number of ranks, {size}, got {o.walks}.")
    if Path(o.output).exists() and not Path(o.output).is_dir():
        raise ValueError(f"--output must name a folder, but {o.output!r} is a file.")
    random_walk([], o.seed, strain=o.strain, duration=(o.duration, o.duration))  # refuses what makes no sense
    return o


# %% [markdown]
# ## Solve
# One run leads all walks of this rank through a given number of solver steps and keeps what the tables need.


# %%
def drive(U: Tensor, dt: Tensor, polycrystal: TaylorPolycrystal, substeps: int) -> dict[str, Any]:
    """Lead the polycrystals along the stretch U (s, T, 3, 3), stored every dt (s,), s, linear in between.

    Returns:
        "stress": mean Cauchy stress (s, T, 3, 3), Pa; "lam": final twin fractions (s, g, 6); "seconds": CPU time;
        "failed": steps of walks that did not converge.
    """
    state = polycrystal.initial_state(len(U))
    stress, failed, start = torch.zeros_like(U), 0, time.process_time()
    for k in range(1, U.shape[1]):
        for i in range(1, substeps + 1):
            F = U[:, k - 1] + (U[:, k] - U[:, k - 1]) * (i / substeps)
            stress[:, k], state, converged = polycrystal.update(F, state, dt / substeps)
            failed += int((~converged).sum())
    seconds = time.process_time() - start
    return {"stress": stress, "lam": state.lam.reshape(len(U), -1, 6), "seconds": seconds, "failed": failed}


def change(stress: Tensor, reference: Tensor) -> list[float]:
    """Relative L2 difference of the deviators over each path (s,)."""
    s, ref = deviator(stress).flatten(1), deviator(reference).flatten(1)
    return ((s - ref).norm(dim=1) / ref.norm(dim=1)).tolist()


def measure(o: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Everything that is measured on this rank's walks, in lists of one entry per walk."""
    mine = range(ranks.rank, o.walks, ranks.size)
    walk = random_walk(mine, o.seed, strain=o.strain, steps=o.points, duration=(o.duration, o.duration))
    U, dt = from_components(torch.from_numpy(walk.U)), torch.from_numpy(walk.duration) / o.points
    passes = 2 * sum(SUBSTEPS) + REFERENCE + len(FAMILIES) * len(FACTORS) + 1
    bar = tqdm(total=passes, disable=True if ranks.rank > 0 else None, unit="pass")

    def run(parameters: CrystalParameters, substeps: int = 1, path: Tensor = U) -> dict[str, Any]:
        result = drive(path, dt, TaylorPolycrystal(o.grains, parameters=parameters), substeps)
        bar.update(substeps)
        return result

    with torch.inference_mode():
        runs = {n: run(load_material(), n) for n in (*SUBSTEPS, REFERENCE)}
        base, exact = runs[SUBSTEPS[0]], runs[REFERENCE]
        slips = [run(WITHOUT_TWINS, n)["stress"] for n in SUBSTEPS]
        scaled = {f: {x: run(load_material().with_tau_0(**{f: x}))["stress"] for x in FACTORS} for f in FAMILIES}
        q = torch.stack([random_rotations(1, 1000 + sample)[0] for sample in mine])[:, None]
        turned = run(load_material(), path=matmul(matmul(q, U), q.mT))["stress"]
    bar.close()
    J = determinant(U)
    pressure = 2 * load_material().lambda_e * (J - 1)
    off = [(r["stress"].diagonal(dim1=-2, dim2=-1).mean(-1) - pressure).abs() for r in runs.values()]
    winner, fine = base["lam"].argmax(-1), exact["lam"].argmax(-1)
    twinned_grains = exact["lam"].sum(-1) > 0.01
    total = exact["lam"].sum(-1).clamp(min=1e-300)
    finer = list(pairwise(slips))
    limit = 2 * slips[-1] - slips[-2]  # Richardson
    return {
        "failed": sum(r["failed"] for r in runs.values()),
        "errors": {n * o.points: change(runs[n]["stress"], exact["stress"]) for n in SUBSTEPS},
        "errors_without_twins": {n * o.points: change(r, limit) for n, r in zip(SUBSTEPS, slips, strict=True)},
        "differences": [deviator(a - b).flatten(1).norm(dim=1).tolist() for a, b in finer],
        "sensitivity": {f: {x: change(scaled[f][x], base["stress"]) for x in FACTORS} for f in FAMILIES},
        "turned": change(matmul(matmul(q.mT, turned), q), base["stress"]),
        "pressure": float(torch.stack(off).max() / pressure.abs().max()),
        "lam_range": [float(x) for r in runs.values() for x in (r["lam"].min(), r["lam"].sum(-1).max())],
        "twins": {
            "fraction": total.mean(-1).tolist(),
            "largest": ((exact["lam"].max(-1).values / total)[twinned_grains]).tolist(),
            "other_winner": (winner != fine)[twinned_grains].double().tolist(),
        },
        "microseconds": {n * o.points: 1e6 * runs[n]["seconds"] for n in runs},
        "von_mises": [(1.5**0.5 * deviator(r["stress"])[:1].flatten(2).norm(dim=2)).tolist() for r in (base, exact)],
        "trace": {f: {x: (1.5**0.5 * deviator(s)[:1].flatten(2).norm(dim=2)).tolist() for x, s in scaled[f].items()}
                  for f in FAMILIES},
    }  # fmt: skip


# %% [markdown]
# ## Five slips inside a twin
# Slip systems of the parent and of a twin share their rates, by (A.10), so what counts is the mean of their Schmid
# tensors. The sign of a slip direction in the twin is a convention, and with the plain 180-degree turn of the twin this
# mean loses shears at one half. The smallest of the five singular values of the 12 symmetric Schmid tensors
# tells: at zero, there is a deviatoric strain that no slip can make, and the crystal locks.


# %%
def smallest_singular_values(fractions: np.ndarray) -> dict[str, list[float]]:
    """The fifth singular value against the twin fraction, the least over the variants, for both signs."""
    slip, twin = slip_systems(), twin_systems()
    q = 2 * twin.m[:, :, None] * twin.m[:, None, :] - torch.eye(3, dtype=torch.float64)
    plain = torch.einsum("bij,ajk,blk->abil", q, slip.schmid, q)
    table = {}
    for name, inside in (("plain", plain), ("taken", twinned(slip, twin))):
        mixed = [(1 - x) * slip.schmid[:, None] + x * inside for x in fractions]
        rows = [((m + m.mT) / 2).transpose(0, 1).flatten(2) for m in mixed]  # (6 twins, 12 slips, 9)
        table[name] = [float(torch.linalg.svdvals(r)[:, 4].min()) for r in rows]
    return table


# %% [markdown]
# ## Tables


# %%
def collect(parts: list[dict[str, Any]], o: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Join the ranks' measurements into the numbers of the summary."""

    def joined(*keys: Any) -> np.ndarray:
        values = []
        for part in parts:
            for key in keys:
                part = part[key]
            values += part
        return np.array(values)

    def spread(values: np.ndarray) -> dict[str, float]:
        return {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}

    steps = [n * o.points for n in SUBSTEPS]
    norms = [np.sqrt((joined("differences", i) ** 2).sum()) for i in range(len(SUBSTEPS) - 1)]
    fractions = np.linspace(0, 1, 21)
    twins = {key: joined("twins", key) for key in ("fraction", "largest", "other_winner")}
    lam = joined("lam_range")
    return {
        "parameters": {key: getattr(o, key) for key in ("walks", "grains", "points", "strain", "duration", "seed")},
        "error_against_steps": {n: spread(joined("errors", n)) for n in steps},
        "error_without_twins": {n: spread(joined("errors_without_twins", n)) for n in steps},
        "reference_steps": REFERENCE * o.points,
        "observed_order": float(np.log2(norms[0] / norms[1])),
        "sensitivity_to_tau_0": {
            f: {"tau_0": load_material().family(f).tau_0, "source": load_material().family(f).source}
            | {str(x): spread(joined("sensitivity", f, x)) for x in FACTORS}
            for f in FAMILIES
        },
        "anisotropy": spread(joined("turned")),
        "twins": {
            "mean_fraction": float(twins["fraction"].mean()),
            "twinned_grains": len(twins["largest"]) / (o.walks * o.grains),
            "share_of_largest_variant": float(twins["largest"].mean()) if len(twins["largest"]) else None,
            "another_winner_at_coarse_steps": float(twins["other_winner"].mean()) if len(twins["largest"]) else None,
        },
        "fifth_singular_value": {"fraction": fractions.tolist(), **smallest_singular_values(fractions)},
        "microseconds_per_grain_and_step": {
            n: sum(p["microseconds"][n] for p in parts) / (o.walks * o.grains * n)
            for n in [*steps, REFERENCE * o.points]
        },
        "cores": {"used": ranks.size * o.threads, "of": os.cpu_count()},
        "pressure_error": max(p["pressure"] for p in parts),
        "twin_fractions_between": [float(lam.min()), float(lam.max())],
        "failed_steps": sum(p["failed"] for p in parts),
    }


def check(summary: dict[str, Any]) -> None:
    """Compare the numbers with what is known without the crystal law.

    Raises:
        ValueError: naming the check that fails.
    """
    order, singular = summary["observed_order"], summary["fifth_singular_value"]
    half = len(singular["fraction"]) // 2
    low, high = summary["twin_fractions_between"]
    checks = {
        f"order of the scheme is {order:.2f}, not about one": 0.6 < order < 1.4,
        f"pressure is off by {summary['pressure_error']:.1e}": summary["pressure_error"] < 1e-9,
        f"twin fractions reach from {low:.1e} to {high:.6f}": low >= 0.0 and high <= 1.0 + 1e-9,
        f"{summary['failed_steps']} steps failed": summary["failed_steps"] == 0,
        "the plain turn does not lock": singular["plain"][half] < 1e-9,
        "the sign taken leaves fewer than five slips": min(singular["taken"]) > 0.5,
    }
    failed = [sentence for sentence, holds in checks.items() if not holds]
    if failed:
        raise ValueError(f"{failed[0][:1].upper()}{failed[0][1:]}.")


# %% [markdown]
# ## Figure


# %%
def draw(summary: dict[str, Any], first: dict[str, Any], path: Path) -> None:
    """Error against steps, sensitivity, one walk, and the fifth singular value."""
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    steps = np.array(list(summary["error_against_steps"]), dtype=float)
    table = [summary["error_against_steps"][n] for n in summary["error_against_steps"]]
    mean = np.array([100 * row["mean"] for row in table])
    spread = [[100 * (r["mean"] - r["min"]) for r in table], [100 * (r["max"] - r["mean"]) for r in table]]
    a.errorbar(steps, mean, spread, fmt="o-", color="#023047", capsize=3, label="mean and range of the walks")
    slip = np.array([100 * row["mean"] for row in summary["error_without_twins"].values()])
    a.plot(steps, slip, "s-", color="#8ecae6", label="without twinning")
    a.plot(steps, slip[0] * steps[0] / steps, "--", color="#adb5bd", label="order one")
    a.set(xscale="log", yscale="log", xlabel="solver steps a walk", ylabel="error of the deviator, %")
    a.set_xticks(steps, [f"{n:.0f}" for n in steps], minor=False)
    a.set_xticks([], minor=True)
    a.legend(frameon=False, fontsize=8)
    for k, (x, colour) in enumerate(zip(FACTORS, ("#8ecae6", "#fb8500"), strict=True)):
        rows = [summary["sensitivity_to_tau_0"][f][str(x)]["mean"] for f in FAMILIES]
        b.bar(np.arange(len(FAMILIES)) + 0.38 * (k - 0.5), [100 * r for r in rows], 0.36, color=colour,
              label=f"tau_0 x {x:g}")  # fmt: skip
    b.set_xticks(range(len(FAMILIES)), FAMILIES)
    b.set(ylabel="change of the deviator, %")
    b.legend(frameon=False, fontsize=8)
    coarse, fine = first["von_mises"]
    t = np.linspace(0, 1e6 * summary["parameters"]["duration"], len(fine[0]))
    band = 1e-6 * np.array([first["trace"][f][x][0] for f in FAMILIES for x in FACTORS])
    c.fill_between(t, band.min(0), band.max(0), color="#8ecae6", alpha=0.5, lw=0, label="any tau_0 halved or doubled")
    c.plot(t, 1e-6 * np.array(fine[0]), color="#023047", label=f"{summary['reference_steps']} steps")
    c.plot(t, 1e-6 * np.array(coarse[0]), "--", color="#fb8500", label=f"{steps[0]:.0f} steps")
    c.set(xlabel="time, us", ylabel="von Mises stress of the first walk, MPa", ylim=(0, None))
    c.legend(frameon=False, fontsize=8)
    singular = summary["fifth_singular_value"]
    d.plot(singular["fraction"], singular["plain"], color="#fb8500", label="plain turn: locks at one half")
    d.plot(singular["fraction"], singular["taken"], color="#023047", label="sign taken")
    d.set(xlabel="twin fraction of one variant", ylabel="fifth singular value of the slips", ylim=(0, None))
    d.legend(frameon=False, fontsize=8)
    for axis in (a, b, c, d):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# %% [markdown]
# ## Main


# %%
def run(o: argparse.Namespace, ranks: Ranks) -> None:
    """Measure, write table and figure, check (collective)."""
    use_threads(o.threads)
    keep_memory()
    try:
        mine: dict[str, Any] | ValueError = measure(o, ranks)
    except ValueError as error:  # one rank's; the others must hear of it
        mine = error
    parts = ranks.allgather(mine)
    for part in parts:
        if isinstance(part, ValueError):
            raise part
    summary = collect(parts, o, ranks)
    if ranks.rank == 0:
        folder = Path(o.output)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        draw(summary, parts[0], folder / "crystal_study.png")
        for n, row in summary["error_against_steps"].items():
            slip = summary["error_without_twins"][n]["mean"]
            sys.stdout.write(f"{n} steps: deviator {100 * row['mean']:.2f} %, without twinning {100 * slip:.2f} %\n")
        sys.stdout.write(f"observed order {summary['observed_order']:.2f}\n")
        for family, row in summary["sensitivity_to_tau_0"].items():
            changes = ", ".join(f"x {x:g}: {100 * row[str(x)]['mean']:.1f} %" for x in FACTORS)
            sys.stdout.write(f"tau_0 of {family}: {changes}\n")
        sys.stdout.flush()
    check(summary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code: 2 for bad input, 1 where a check fails."""
    ranks, code = world(), 2
    try:
        o = ranks.together(lambda: parse(arguments, ranks.size))
        code = 1
        run(o, ranks)
    except ValueError as error:  # raised on all ranks together
        if ranks.rank == 0:
            sys.stderr.write(f"{error}\n")
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
