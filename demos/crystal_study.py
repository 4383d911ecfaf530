# %% [markdown]
# # What the polycrystal can be trusted with: integration, slip in twins, assumed constants, isotropy, cost
#
# **Why.** The learned laws are trained on the Taylor polycrystal of `micro`. Its own errors bound theirs, so this study
# measures them on the paths of paper 1: random walks of the stretch up to 50 % strain within 1 us.
#
# **Equations.** Grains share F = U(t), and C = F^T F is linear in time between the 200 stored instants. Each grain
# follows the crystal law of `micro.crystal`; the mean Cauchy stress is compared. F_in is isochoric, so the pressure is
# 2 lambda_e (J - 1) whatever the crystals do, and only the deviator s = dev sigma tells anything. Errors are relative
# in L2 over the path,
#
#     e = (sum_t |s - s_ref|^2 / sum_t |s_ref|^2)^(1/2).
#
# **Questions.**
#
# 1. How large is the error of the adaptive integration at each tolerance, and how many implicit stages does it take?
#    The reference is other code and a method of another kind: `micro.crystal.reference`, SciPy's Radau method, in
#    which all twins slip from the first, without a threshold. It is computed once and kept on disk.
# 2. How far apart are the three models of slip in twins, and the choices of sign that one of them needs? What does it
#    change that a twin of the fast law slips only from a small fraction on?
# 3. How much of the stress hangs on the viscous resistances tau_0, three of which the paper's table lost?
# 4. How isotropic are g grains, with random orientations and with evenly spread ones (`even_texture`)?
# 5. What does a grain cost at the steps of the data and at those of an impact, compiled and in PyTorch?
#
# **Checks**, each against a number from outside the crystal law: the pressure is the closed form; the error falls with
# the tolerance; the anisotropy falls with the root of the number of grains; every path is solved.
#
# Reference: Liu et al. (2022), sections 3 and appendix, doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Sequence
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

from micro.crystal import constants, reference
from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.paths import random_walk
from micro.crystal.source import CRYSTAL_BYTES, POINT_BYTES
from micro.crystal.systems import crystal_systems
from micro.crystal.taylor import TaylorPolycrystal
from micro.crystal.texture import even_texture, random_texture
from micro.data.cli import Parser, check_between, check_count, check_folder, check_memory
from micro.data.files import write_whole
from micro.data.ranks import Ranks, world
from micro.generate import keep_memory
from micro.tensors import determinant, deviator, from_components, matmul, random_rotations, to_components

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DEFAULT = constants.TOLERANCE
TOLERANCES = tuple(DEFAULT * factor for factor in (3.0, 1.0, 0.3, 0.1, 0.03))
FAMILIES = ("basal", "prismatic", "pyramidal", "twin")
FACTORS = (0.5, 2.0)
SIGNS = ("cooperating", "plain turn", "nearest direction")
TEXTURES = {"random": lambda grains: random_texture(grains, 1), "even": even_texture}
#: Targets of the mean error, and of the cost in seconds per path of 128 grains and in microseconds per grain-step.
TARGETS = {"without twins": 0.003, "with twins": 0.005, "seconds per path": 0.3, "data": 3.0, "impact": 1.0}
#: Relative tolerance of the reference. A hundred times tighter, it changes by some 1e-6.
REFERENCE_RTOL = 1e-5
#: Steps of an impact in one step of the data, and steps that are timed.
FINER, TIMED = 20, 20
MAGNESIUM = load_material("magnesium")
CASES = {"with twins": MAGNESIUM, "without twins": MAGNESIUM.with_tau_0(twin=1e6)}

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None, size: int) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Trust in the polycrystal.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--walks", type=int, default=8, help="random walks, shared among the ranks")
    p.add_argument("--grains", type=int, default=128, help="grains of the polycrystal")
    p.add_argument("--points", type=int, default=200, help="stored steps of a walk")
    p.add_argument("--strain", type=float, default=0.5, help="largest strain U_max")
    p.add_argument("--duration", type=float, default=1e-6, help="duration of a walk, s")
    p.add_argument("--seed", type=int, default=0, help="seed of the walks")
    p.add_argument("--reference-grains", type=int, default=32, help="grains of the comparison with the reference")
    p.add_argument("--sign-grains", type=int, default=8, help="grains of the comparison of signs, on two walks")
    p.add_argument("--most-grains", type=int, default=512, help="grains of the finest polycrystal for isotropy")
    p.add_argument("--cache", default="results/crystal_reference", help="folder in which the reference is kept")
    p.add_argument("--threads", type=int, default=asked_threads() or 1, help="threads per rank, of PyTorch and BLAS")
    p.add_argument("--output", default="results/crystal_study", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("walks", "grains", "points", "threads", "reference-grains", "sign-grains", "most-grains"):
        check_count(f"--{name}", getattr(o, name.replace("-", "_")))
    check_threads(o.threads, "--threads")
    check_between("--strain", o.strain, 1e-9, 100.0)
    check_between("--duration", o.duration, 1e-12, 1e9)
    grains = max(o.grains, o.most_grains, o.reference_grains)
    needed = -(-o.walks // size) * (grains * CRYSTAL_BYTES + o.points * POINT_BYTES)
    check_memory(f"{o.walks} walks of {o.points} points and {grains} grains", needed)
    if o.walks < size:
        raise ValueError(f"--walks must be at least the number of ranks, {size}, got {o.walks}.")
    for name in ("output", "cache"):
        check_folder(f"--{name}", getattr(o, name))
    random_walk([], o.seed, strain=o.strain, duration=(o.duration, o.duration))  # refuses what makes no sense
    return o


# %% [markdown]
# ## The reference
# A file per path, named by a hash of all that decides its content: another run finds it, and a change makes a new one.


# %%
def solved_before(
    o: argparse.Namespace, parameters: CrystalParameters, grains: int, U: np.ndarray, time: np.ndarray, **options: Any
) -> np.ndarray:
    """Return the reference's mean Cauchy stress (T, 6), Pa, along one path, from disk where it is there."""
    crystal = reference.reference_crystal(crystal_systems(parameters))
    orientations = random_rotations(grains, 0).numpy()
    options = {"rtol": REFERENCE_RTOL, "slip": "domains", "signs": None} | options
    digest = hashlib.sha256(inspect.getsource(reference).encode())
    for value in (*vars(crystal).values(), orientations, U, time, *options.values()):
        digest.update(repr(value).encode() if isinstance(value, (str, float, type(None))) else value.tobytes())
    path = Path(o.cache) / f"{digest.hexdigest()[:20]}.json"
    if path.is_file():
        return np.array(json.loads(path.read_text(encoding="utf-8")))
    stress = reference.solve_polycrystal(crystal, orientations, U, time, **options).stress
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(stress.tolist()) + "\n")
    return stress


def sign_choices() -> dict[str, np.ndarray]:
    """Return signs (1 + n_t, n) of the slip directions in the twins: three choices that are equally natural."""
    crystal = reference.reference_crystal(crystal_systems(MAGNESIUM))
    schmid = reference.domain_schmid(crystal)
    turns = 2 * np.einsum("bi,bj->bij", crystal.twin_m, crystal.twin_m) - np.eye(3)
    along = np.einsum("ai,bij,aj->ba", crystal.s, turns, crystal.s)
    nearest = np.concatenate([np.ones((1, len(crystal.s))), np.where(along < 0, -1.0, 1.0)])
    choices = (reference.cooperating_signs(schmid), np.ones_like(nearest), nearest)
    return dict(zip(SIGNS, choices, strict=True))


# %% [markdown]
# ## Solve


# %%
def deviators(stress: Tensor | np.ndarray) -> Tensor:
    """Return the deviators (s, T, 3, 3) of stresses (s, T, 6)."""
    return deviator(from_components(torch.as_tensor(stress)))


def change(s: Tensor, ref: Tensor) -> list[float]:
    """Relative L2 difference of deviators (s, T, 3, 3) over each path (s,)."""
    return ((s - ref).flatten(1).norm(dim=1) / ref.flatten(1).norm(dim=1)).tolist()


def level(s: Tensor, ref: Tensor) -> list[float]:
    """Mean von Mises stress over each path relative to another's (s,)."""
    return (s.flatten(2).norm(dim=2).mean(1) / ref.flatten(2).norm(dim=2).mean(1)).tolist()


def accuracy(o: argparse.Namespace, U: Tensor, t: Tensor, bar: tqdm) -> dict[str, Any]:
    """The error against the reference, with and without twins, and the solves at each tolerance."""
    found: dict[str, Any] = {"first": {}}
    for case, parameters in CASES.items():
        exact = []
        for path, instants in zip(U.numpy(), t.numpy(), strict=True):
            exact.append(solved_before(o, parameters, o.reference_grains, path, instants))
            bar.update()
        ref = deviators(np.array(exact))
        found[case] = {}
        for tolerance in TOLERANCES:
            result = TaylorPolycrystal(o.reference_grains, parameters=parameters, tolerance=tolerance).solve(U, t)
            s = deviators(result.stress)
            row = {"error": change(s, ref), "solves": result.solves.tolist(), "ok": result.ok.tolist()}
            found[case][tolerance] = row
            if case == "with twins" and tolerance == DEFAULT:
                found["first"]["law"] = s[0].flatten(1).norm(dim=1).mul(1.5**0.5).tolist()
        found["first"][case] = ref[0].flatten(1).norm(dim=1).mul(1.5**0.5).tolist()
    few = [
        deviators(solved_before(o, MAGNESIUM, min(2, o.reference_grains), U[0].numpy(), t[0].numpy(), rtol=rtol)[None])
        for rtol in (REFERENCE_RTOL, 0.01 * REFERENCE_RTOL)
    ]
    return found | {"reference": change(*few)}


def models(o: argparse.Namespace, U: Tensor, t: Tensor, mine: Sequence[int], bar: tqdm) -> dict[str, Any]:
    """The differences of the models of slip, of the signs in one of them, and of halved and doubled tau_0."""

    def run(**options: Any) -> Tensor:
        result = TaylorPolycrystal(o.grains, **({"parameters": MAGNESIUM} | options)).solve(U, t)
        solved.extend(result.ok.tolist())
        bar.update()
        return deviators(result.stress)

    solved: list[bool] = []
    base = run()
    slips = {name: run(slip=name) for name in ("common", "parent")}
    scaled = {f: {x: run(parameters=MAGNESIUM.with_tau_0(**{f: x})) for x in FACTORS} for f in FAMILIES}
    signs: dict[str, dict[str, list[float]]] = {name: {"change": [], "level": []} for name in (*SIGNS, "domains")}
    threshold: list[float] = []
    for row in [row for row, walk in enumerate(mine) if walk < 2]:
        cases: dict[str, dict[str, Any]] = {n: {"slip": "common", "signs": v} for n, v in sign_choices().items()}
        cases |= {"domains": {}, "late": {"threshold": constants.SLIPPING_FRACTION}}
        found = {}
        for name, options in cases.items():
            stress = solved_before(o, MAGNESIUM, o.sign_grains, U[row].numpy(), t[row].numpy(), **options)
            found[name] = deviators(stress[None])
            bar.update()
        for name, entry in signs.items():
            entry["change"] += change(found[name], found[SIGNS[0]])
            entry["level"] += level(found[name], found[SIGNS[0]])
        threshold += change(found["late"], found["domains"])
    return {
        "threshold": threshold,
        "slip": {name: {"change": change(s, base), "level": level(s, base)} for name, s in slips.items()},
        "signs": signs,
        "sensitivity": {f: {x: change(scaled[f][x], base) for x in FACTORS} for f in FAMILIES},
        "ok": solved,
    }


def isotropy(o: argparse.Namespace, U: Tensor, t: Tensor, mine: Sequence[int], bar: tqdm) -> dict[str, Any]:
    """How far the stress of the turned path is from the turned stress, and the error of the pressure."""
    q = torch.stack([random_rotations(1, 1000 + walk)[0] for walk in mine])[:, None]
    turned = to_components(matmul(matmul(q, from_components(U)), q.mT))
    found: dict[str, Any] = {name: {} for name in TEXTURES}
    off = []
    exact = 2 * MAGNESIUM.lambda_e * (determinant(from_components(U)) - 1)
    for name, texture in TEXTURES.items():
        for g in [g for g in (8, 16, 32, 64, 128, 256, 512, 1024) if g <= o.most_grains] or [o.most_grains]:
            polycrystal = TaylorPolycrystal(texture(g), parameters=MAGNESIUM)
            plain, other = (polycrystal.solve(path, t).stress for path in (U, turned))
            found[name][g] = change(matmul(matmul(q.mT, deviators(other)), q), deviators(plain))
            off.append(float((plain[..., :3].mean(-1) - exact).abs().max() / exact.abs().max()))
            bar.update()
    return {"difference": found, "pressure": max(off)}


# %% [markdown]
# ## Cost
# CPU time of one thread. A grain-step is one grain from one given instant to the next, whatever number of inner steps
# that takes. Points are led to the middle of their walks; there the next steps of the data are timed, and from
# the same states the steps of an impact, each a twentieth of them.


# %%
def cost(o: argparse.Namespace, U: Tensor, t: Tensor, bar: tqdm) -> dict[str, Any]:
    """Microseconds per grain-step, seconds per path, and the backend that was used."""
    found: dict[str, Any] = {}
    start = time.process_time()
    result = TaylorPolycrystal(o.grains, parameters=MAGNESIUM).solve(U, t)
    found["seconds per path"] = (time.process_time() - start) / len(U)
    found["solves"] = result.solves.tolist()
    bar.update()
    F, middle = from_components(U), o.points // 2
    last = min(o.points, middle + TIMED)
    leading = TaylorPolycrystal(o.grains, parameters=MAGNESIUM)
    state = leading.initial_state(len(U))
    for k in range(1, middle + 1):
        _, state, _ = leading.update(F[:, k], state, t[:, k] - t[:, k - 1])
    for backend in ("compiled", "torch"):
        try:
            polycrystal = TaylorPolycrystal(o.grains, parameters=MAGNESIUM, backend=backend)
        except ValueError:  # no compiler here
            continue
        at, start = state, time.process_time()
        for k in range(middle + 1, last + 1):
            _, at, _ = polycrystal.update(F[:, k], at, t[:, k] - t[:, k - 1])
        seconds = {"data": (time.process_time() - start) / (last - middle)}
        dt, at, start = (t[:, middle + 1] - t[:, middle]) / FINER, state, time.process_time()
        for i in range(1, FINER + 1):
            _, at, _ = polycrystal.update(torch.lerp(F[:, middle], F[:, middle + 1], i / FINER), at, dt)
        seconds["impact"] = (time.process_time() - start) / FINER
        found[backend] = {name: 1e6 * value / (len(U) * o.grains) for name, value in seconds.items()}
        bar.update()
    return found


def measure(o: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Everything that is measured on this rank's walks, in lists of one entry per walk."""
    mine = range(ranks.rank, o.walks, ranks.size)
    walk = random_walk(mine, o.seed, strain=o.strain, steps=o.points, duration=(o.duration, o.duration))
    U, t = torch.from_numpy(walk.U), torch.from_numpy(walk.time * walk.duration[:, None])
    total = 2 * len(mine) + 11 + 5 * sum(w < 2 for w in mine) + 14 + 3
    with tqdm(total=total, disable=True if ranks.rank > 0 else None, unit="solve") as bar, torch.inference_mode():
        return {
            "cost": cost(o, U, t, bar),
            "accuracy": accuracy(o, U, t, bar),
            "models": models(o, U, t, mine, bar),
            "isotropy": isotropy(o, U, t, mine, bar),
        }


# %% [markdown]
# ## Tables


# %%
def collect(parts: list[dict[str, Any]], o: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Join the ranks' measurements into the numbers of the summary."""

    def spread(*keys: Any) -> dict[str, float]:
        values: list[float] = []
        for part in parts:
            for key in keys:
                part = part[key]
            values += part
        return {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}

    def both(group: str, *names: str) -> dict[str, Any]:
        return {n: {k: spread("models", group, n, k) for k in ("change", "level")} for n in names}

    def slope(rows: dict[int, dict[str, float]]) -> float:
        return float(np.polyfit(np.log(list(rows)), np.log([row["mean"] for row in rows.values()]), 1)[0])

    error = {
        case: {tol: spread("accuracy", case, tol, "error") | {"solves": spread("accuracy", case, tol, "solves")["mean"]}
               for tol in TOLERANCES}
        for case in CASES
    }  # fmt: skip
    counts = list(parts[0]["isotropy"]["difference"]["random"])
    anisotropy = {name: {g: spread("isotropy", "difference", name, g) for g in counts} for name in TEXTURES}
    timed: dict[str, Any] = {
        backend: {name: float(np.mean([p["cost"][backend][name] for p in parts])) for name in ("data", "impact")}
        for backend in ("compiled", "torch") if all(backend in p["cost"] for p in parts)
    }  # fmt: skip
    if len(timed) == 2:
        timed["ratio"] = {name: timed["torch"][name] / timed["compiled"][name] for name in ("data", "impact")}
    timed["seconds per path"] = float(np.mean([p["cost"]["seconds per path"] for p in parts]))
    timed["solves per path"] = spread("cost", "solves")["mean"]
    fast = timed.get("compiled", timed["torch"])
    reached = {case: error[case][DEFAULT]["mean"] for case in CASES} | fast
    reached["seconds per path"] = timed["seconds per path"] * 128 / o.grains
    solved = [ok for p in parts for case in CASES for tol in TOLERANCES for ok in p["accuracy"][case][tol]["ok"]]
    solved += [ok for p in parts for ok in p["models"]["ok"]]
    return {
        "parameters": {key: value for key, value in vars(o).items() if key not in ("cache", "output", "threads")},
        "tolerance": DEFAULT,
        "error": error,
        "reference_change": max(max(p["accuracy"]["reference"]) for p in parts),
        "slip_models": both("slip", "common", "parent"),
        "signs_of_common": both("signs", *SIGNS, "domains"),
        "threshold_of_slip_in_twins": spread("models", "threshold"),
        "sensitivity_to_tau_0": {f: {x: spread("models", "sensitivity", f, x) for x in FACTORS} for f in FAMILIES},
        "anisotropy": anisotropy,
        "slope_of_anisotropy": {name: slope(rows) for name, rows in anisotropy.items() if len(counts) > 1},
        "microseconds_per_grain_step": timed,
        "targets": {n: {"target": v, "reached": reached[n], "passed": reached[n] <= v} for n, v in TARGETS.items()},
        "cores": {"used": ranks.size * o.threads, "of": os.cpu_count()},
        "pressure_error": max(p["isotropy"]["pressure"] for p in parts),
        "failed_paths": solved.count(False),
    }  # fmt: skip


def check(summary: dict[str, Any]) -> None:
    """Compare the numbers with what is known without the crystal law.

    Raises:
        ValueError: naming the check that fails.
    """
    checks = {
        f"pressure is off by {summary['pressure_error']:.1e}": summary["pressure_error"] < 1e-9,
        f"{summary['failed_paths']} paths failed": summary["failed_paths"] == 0,
        f"the reference changes by {summary['reference_change']:.1e}": summary["reference_change"] < 1e-3,
    }
    for case, rows in summary["error"].items():
        first, last = (list(rows.values())[k]["mean"] for k in (0, -1))
        checks[f"the error {case} grows from {first:.1e} to {last:.1e} at tighter tolerances"] = last < first
    failed = [sentence for sentence, holds in checks.items() if not holds]
    if failed:
        raise ValueError(f"{failed[0][:1].upper()}{failed[0][1:]}.")


# %% [markdown]
# ## Figures


# %%
def draw(summary: dict[str, Any], first: dict[str, Any], folder: Path) -> None:
    """Error against solves, one walk, the differences of models and constants, and isotropy."""
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for (case, rows), colour in zip(summary["error"].items(), ("#023047", "#fb8500"), strict=True):
        table = list(rows.values())
        mean = np.array([100 * row["mean"] for row in table])
        spread = [[100 * (r["mean"] - r["min"]) for r in table], [100 * (r["max"] - r["mean"]) for r in table]]
        a.errorbar([row["solves"] for row in table], mean, spread, fmt="o-", color=colour, capsize=3, label=case)
    a.set(xscale="log", yscale="log", xlabel="implicit stages per grain and walk", ylabel="error of the deviator, %")
    t = np.linspace(0, 1e6 * summary["parameters"]["duration"], len(first["law"]))
    b.plot(t, 1e-6 * np.array(first["with twins"]), color="#023047", label="reference")
    b.plot(t, 1e-6 * np.array(first["law"]), "--", color="#fb8500", label=f"law, tolerance {summary['tolerance']:g}")
    b.plot(t, 1e-6 * np.array(first["without twins"]), ":", color="#8ecae6", label="reference without twins")
    b.set(xlabel="time, us", ylabel="von Mises stress of the first walk, MPa", ylim=(0, None))
    bars = {f"slip: {name}": row["change"] for name, row in summary["slip_models"].items()}
    bars |= {f"signs: {name}": summary["signs_of_common"][name]["change"] for name in SIGNS[1:]}
    bars |= {f"{f} tau_0 x {x:g}": row for f, table in summary["sensitivity_to_tau_0"].items()
             for x, row in table.items()}  # fmt: skip
    c.barh(list(bars), [100 * row["mean"] for row in bars.values()], color="#8ecae6")
    c.invert_yaxis()
    c.set(xlabel="change of the deviator, %")
    c.tick_params(axis="y", labelsize=7)
    for (name, rows), colour in zip(summary["anisotropy"].items(), ("#023047", "#fb8500"), strict=True):
        grains, mean = np.array(list(rows), dtype=float), np.array([100 * row["mean"] for row in rows.values()])
        d.plot(grains, mean, "o-", color=colour, label=f"{name} orientations")
        d.plot(grains, mean[0] * (grains[0] / grains) ** 0.5, "--", color="#adb5bd")
    d.set(xscale="log", yscale="log", xlabel="grains", ylabel="anisotropy of the deviator, %")
    for axis in (a, b, d):
        axis.legend(frameon=False, fontsize=8)
    for axis in (a, b, c, d):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "crystal_study.png", dpi=110)
    plt.close(figure)


def table(summary: dict[str, Any]) -> str:
    """The numbers of the results page, one line each."""

    def percent(row: dict[str, float]) -> str:
        return f"{100 * row['mean']:.2f} % ({100 * row['min']:.2f} to {100 * row['max']:.2f})"

    lines = [f"tolerance {tol:g}, {case}: error {percent(row)}, {row['solves']:.0f} solves"
             for case, rows in summary["error"].items() for tol, row in rows.items()]  # fmt: skip
    lines.append(f"the reference itself: {summary['reference_change']:.1e}")
    for kind in ("slip_models", "signs_of_common"):
        for name, row in summary[kind].items():
            lines.append(f"{kind}, {name}: {percent(row['change'])}, level {row['level']['mean']:.3f}")
    lines.append(f"twins that slip from a fraction of {constants.SLIPPING_FRACTION:g} on, in the reference: "
                 + percent(summary["threshold_of_slip_in_twins"]))  # fmt: skip
    lines += [f"tau_0 of {f} x {x:g}: {percent(row)}" for f, rows in summary["sensitivity_to_tau_0"].items()
              for x, row in rows.items()]  # fmt: skip
    for name, rows in summary["anisotropy"].items():
        lines += [f"{g} {name} orientations: anisotropy {percent(row)}" for g, row in rows.items()]
    lines += [f"slope of the anisotropy, {name} orientations: {slope:.2f}"
              for name, slope in summary["slope_of_anisotropy"].items()]  # fmt: skip
    timed = summary["microseconds_per_grain_step"]
    lines += [f"{name}: {timed[name]['data']:.3g} at the data's steps, {timed[name]['impact']:.3g} at an impact's"
              for name in ("compiled", "torch", "ratio") if name in timed]  # fmt: skip
    for name, row in summary["targets"].items():
        lines.append(f"target {name}: {row['reached']:.3g} of {row['target']:g}{'' if row['passed'] else ', not met'}")
    return "\n".join(lines) + "\n"


# %% [markdown]
# ## Main


# %%
def run(o: argparse.Namespace, ranks: Ranks) -> None:
    """Measure, write table and figure, check (collective)."""
    use_threads(o.threads)
    keep_memory()
    try:
        parts = ranks.allgather(ranks.together(lambda: measure(o, ranks)))
    except RuntimeError as error:  # raised on all ranks together
        raise ValueError(str(error)) from error
    summary = collect(parts, o, ranks)
    if ranks.rank == 0:
        folder = Path(o.output)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        draw(summary, parts[0]["accuracy"]["first"], folder)
        sys.stdout.write(table(summary))
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
