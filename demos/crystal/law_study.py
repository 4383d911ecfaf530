# %% [markdown]
# # How true is a learned law on the paths of its use?
#
# **Why.** A held-out error on paths like those of the training says little about an impact: there the material flows,
# unloads, holds and rings. This study leads laws along such paths and compares their stress with that of the
# polycrystal that they stand for, 1024 evenly spread grains, whose deviator is within 1.2 % of isotropy.
#
# **Laws.** The shipped recurrent law, reduced polycrystals of 8, 16 and 32 grains (which need no training), and
# Johnson-Cook. Each is used through the interface of the solvers, F in and P out.
#
# **Error** of a path: L2 norm over time of the deviator of the Cauchy stress, relative.
#
# **What is measured**: random walks, impact-like paths, other protocols, ramps with holds, each held out of all
# training (own seeds); the same paths in finer and coarser steps; ramp, hold and unloading in numbers; 200 elastic
# cycles; points of a real impact, all of the run and per time window; positivity of the tangent along these; how the
# novelty of a state, and the error that the law expects there, go with the error.
#
# **Check.** The error of the recurrent law on the walks is the one in its manifest, to a third.

# %%
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np
import torch

from fem.laws import load_law
from micro.crystal.paths.mixture import draw_paths
from micro.crystal.source import TaylorConfig
from micro.crystal.taylor import TaylorPolycrystal
from micro.crystal.texture import even_texture
from micro.data.cli import Parser, check_count, check_folder
from micro.data.config import read_config
from micro.data.files import write_whole
from micro.tensors import from_components, to_components
from surrogates.artifact.tangent import smallest_eigenvalue
from surrogates.path.trust import observes_trust, rank_correlation, trust_of_paths

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SETS = Path(__file__).with_name("sets")
#: Sets whose options the held-out paths have, and the seeds of these.
SEEDS = {"walks": 93, "impact": 90, "protocols": 92, "holds": 91}
#: Windows of the impact, s: the bar flows, slows down, rests and rings.
WINDOWS = ((0.0, 6e-6), (6e-6, 10e-6), (10e-6, 1.0))
#: Ramps of isochoric compression: strain, duration in s.
RAMPS = ((0.05, 1e-6), (0.3, 1e-6), (0.3, 1e-5), (0.8, 5e-6))
Table = dict[str, dict[str, Any]]
Trusted = list[tuple[str, float, float, float]]


# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Errors of learned laws on paths of their use.",
               formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
    p.add_argument("--law", default="magnesium-recurrent", help="the learned law, a name or an artifact")
    p.add_argument(
        "--others", nargs="*", type=int, default=[8, 16, 32], help="grains of reduced polycrystals beside it"
    )
    p.add_argument("--grains", type=int, default=1024, help="evenly spread grains of the polycrystal")
    p.add_argument("--paths", type=int, default=48, help="paths of each kind")
    p.add_argument("--history", type=Path, help="paths.npz of an anvil (taylor_anvil.py --record N); none: left out")
    p.add_argument("--output", default="results/law_study", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("grains", "paths"):
        check_count(f"--{name}", getattr(o, name))
    if o.history is not None and not o.history.is_file():
        raise ValueError(f"--history must be a file, got {o.history}.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## Paths and truth
# A path is a history of C = F^T F at given times, linear in between, for the polycrystal and for the laws alike.


# %%
def held_out(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """F = U (s, T, 3, 3) and times (s, T), s, of paths with the options of a set and another seed."""
    content = read_config(SETS / f"{name}.toml")
    own = {key: value for key, value in content.items() if key not in ("source", "samples", "seed")}
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in own.items()}
    own |= {key: (value, value) for key, value in own.items() if key == "holds" and isinstance(value, int)}
    config = TaylorConfig(**(own | {"orientation": "random"}))
    drawn = draw_paths(range(count), SEEDS[name], config.path_options())
    return np.asarray(from_components(drawn.U)), drawn.time * drawn.duration[:, None]


def truth(polycrystal: TaylorPolycrystal, F: np.ndarray, time: np.ndarray, folder: Path) -> np.ndarray:
    """Mean Cauchy stress (s, T, 3, 3), Pa, of the polycrystal in the frame of F; kept in the folder."""
    content = (F, time, polycrystal.orientations.numpy())
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in content)).hexdigest()[:16]
    kept = folder / f"truth-{digest}.npy"
    if kept.is_file():
        return np.asarray(np.load(kept))
    values, axes = np.linalg.eigh(np.swapaxes(F, -1, -2) @ F)
    U = (axes * np.sqrt(values)[..., None, :]) @ np.swapaxes(axes, -1, -2)
    U[:, 0] = np.eye(3)
    found = []
    for row in range(len(F)):
        solved = polycrystal.solve(
            torch.from_numpy(to_components(U[row : row + 1])), torch.from_numpy(time[row : row + 1])
        )
        if not bool(solved.ok.all()):
            raise RuntimeError(f"The polycrystal could not be solved along a path: {solved.reason[0]}.")
        found.append(np.asarray(from_components(solved.stress[0].numpy())))
    R = F @ np.linalg.inv(U)
    stress = R @ np.stack(found) @ np.swapaxes(R, -1, -2)
    np.save(kept, stress)
    return stress


def follow(law: Any, F: np.ndarray, time: np.ndarray, states: list[np.ndarray] | None = None) -> np.ndarray:
    """Cauchy stress (s, T, 3, 3), Pa, of a law along the paths; their states are appended to a list."""
    sigma = np.zeros(F.shape)
    for row in range(len(F)):
        state = law.initial_state(1)
        for k in range(1, F.shape[1]):
            F_k = np.ascontiguousarray(F[row, k : k + 1])
            P, state = law.update(F_k, state, float(time[row, k] - time[row, k - 1]))
            sigma[row, k] = P[0] @ F_k[0].T / np.linalg.det(F_k[0])
            if states is not None:
                states.append(state)
    return sigma


def cut(F: np.ndarray, time: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Every step cut into `factor` equal ones, C linear in between (the rotation does not matter)."""
    C = np.swapaxes(F, -1, -2) @ F
    at = np.arange(factor * (F.shape[1] - 1) + 1) / factor
    low = np.minimum(at.astype(int), F.shape[1] - 2)
    part = (at - low)[None, :, None, None]
    fine = np.linalg.cholesky((1 - part) * C[:, low] + part * C[:, low + 1])
    return np.swapaxes(fine, -1, -2), (1 - part[..., 0, 0]) * time[:, low] + part[..., 0, 0] * time[:, low + 1]


def follow_finer(law: Any, F: np.ndarray, time: np.ndarray, factor: int) -> np.ndarray:
    """Cauchy stress (s, T, 3, 3), Pa, at the given instants in `factor` times as many steps, in the frame of F."""
    G, fine = cut(F, time, factor)
    R = F @ np.linalg.inv(G[:, ::factor])
    return np.asarray(R @ follow(law, G, fine)[:, ::factor] @ np.swapaxes(R, -1, -2))


def deviator(sigma: np.ndarray) -> np.ndarray:
    """Deviator of (..., 3, 3)."""
    return sigma - np.trace(sigma, axis1=-2, axis2=-1)[..., None, None] / 3 * np.eye(3)


def errors(sigma: np.ndarray, true: np.ndarray, time: np.ndarray | None = None) -> np.ndarray:
    """Relative error (s,) of the deviator over a path; weighted with the time steps where times are given."""
    w = np.ones(sigma.shape[:2]) if time is None else np.gradient(time, axis=1)
    a, b = (((deviator(x)) ** 2).sum((-2, -1)) for x in (sigma - true, true))
    return np.sqrt((w * a).sum(1) / np.maximum((w * b).sum(1), 1e-300))


def von_mises(sigma: np.ndarray) -> np.ndarray:
    """Von Mises stress (...,), Pa."""
    return np.sqrt(1.5 * (deviator(sigma) ** 2).sum((-2, -1)))


def full_error(sigma: np.ndarray, true: np.ndarray) -> float:
    """Mean relative error of the whole stress."""
    return float(np.mean(np.sqrt(((sigma - true) ** 2).sum((1, 2, 3)) / (true**2).sum((1, 2, 3)))))


# %% [markdown]
# ## Held-out paths of every kind, and their steps


# %%
def kinds(
    laws: dict[str, Any], polycrystal: TaylorPolycrystal, count: int, folder: Path
) -> tuple[Table, Trusted]:
    """Errors of all laws on paths of all kinds, and how far the first law was to be trusted; see `trusted`."""
    table: Table = {}
    pairs: Trusted = []
    for kind in SEEDS:
        F, time = held_out(kind, count)
        true = truth(polycrystal, F, time, folder)
        for name, law in laws.items():
            states: list[np.ndarray] | None = [] if name == "learned" else None
            sigma = follow(law, F, time, states)
            found = errors(sigma, true)
            row = {
                "mean": found.mean(),
                "median": np.median(found),
                "largest": found.max(),
                "full": full_error(sigma, true),
            }
            table.setdefault(kind, {})[name] = row
            if states is not None:
                pairs += trusted(law, kind, states, found)
        if getattr(laws["learned"], "compiled", None) is not None:  # another law would take hours
            table[kind]["steps"] = steps(laws["learned"], F, time, true)
    return table, pairs


def trusted(
    law: Any, kind: str, states: list[np.ndarray], found: np.ndarray, time: np.ndarray | None = None
) -> Trusted:
    """Kind, largest novelty, expected error and error of each path, if the law observes the first two.

    The expected error of a path is the root mean square over its instants; over time, where times are given.
    """
    if not observes_trust(law.observed):
        return []
    values = law.observe(np.concatenate(states)).reshape(len(found), -1, len(law.observed))
    novelty, expected = trust_of_paths(values, law.observed, None if time is None else np.diff(time, axis=1))
    rows = zip(novelty, expected, found, strict=True)
    return [(kind, float(far), float(forecast), float(error)) for far, forecast, error in rows]


def steps(law: Any, F: np.ndarray, time: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Error in 2 to 16 times finer and in coarser steps, and the change of the law against itself."""
    whole = follow(law, F, time)
    found: dict[str, float] = {}
    for factor in (2, 8, 16):
        sigma = follow_finer(law, F, time, factor)
        found[f"finer {factor}"] = float(errors(sigma, true).mean())
        found[f"itself {factor}"] = float(errors(sigma, whole).mean())
    for stride in (2, 4, 8):
        keep = np.arange(0, F.shape[1], stride)
        found[f"coarser {stride}"] = float(errors(follow(law, F[:, keep], time[:, keep]), true[:, keep]).mean())
    return found


# %% [markdown]
# ## Ramp, hold and unloading; elastic cycles


# %%
def compression(strain: float) -> np.ndarray:
    """F of isochoric compression along 3."""
    return np.diag([np.exp(strain / 2), np.exp(strain / 2), np.exp(-strain)])


def ramp(strain: float, duration: float) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Compression in 200 steps, a hold of 16 us, 2 % of unloading in 1 us; F, times, and some instants."""
    up, hold = (
        np.linspace(0, duration, 201),
        duration + np.concatenate([np.geomspace(1e-9, 0.34e-6, 40), np.geomspace(0.4e-6, 16e-6, 40)]),
    )
    down = hold[-1] + np.linspace(0, 1e-6, 51)[1:]
    e = np.concatenate([strain * up / duration, np.full(80, strain), strain - 0.02 * (down - hold[-1]) / 1e-6])
    places = {"ramp": 200, "0.34 us": 240, "16 us": 280, "unloaded": len(e) - 1}
    return np.stack([compression(x) for x in e])[None], np.concatenate([up, hold, down])[None], places


def cycles() -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """20 % at 1e6 1/s, a hold of 1 us, 200 cycles of +- 0.1 % with a period of 0.2 us."""
    up = np.linspace(0, 2e-7, 201)
    hold = up[-1] + np.geomspace(1e-9, 1e-6, 60)
    t = hold[-1] + np.arange(1, 200 * 16 + 1) * (0.2e-6 / 16)
    e = np.concatenate([0.2 * up / up[-1], np.full(60, 0.2), 0.2 + 1e-3 * np.sin(2 * np.pi * (t - hold[-1]) / 0.2e-6)])
    return (
        np.stack([compression(x) for x in e])[None],
        np.concatenate([up, hold, t])[None],
        {"held": 260, "cycled": len(e) - 1},
    )


def numbers(laws: dict[str, Any], polycrystal: TaylorPolycrystal, folder: Path) -> tuple[Table, dict[str, Any]]:
    """Von Mises stress, MPa, at some instants of ramps and cycles, and the curves of the last ramp and the cycles."""
    cases = {f"{100 * s:.0f} % in {1e6 * d:.0f} us": ramp(s, d) for s, d in RAMPS} | {"cycles": cycles()}
    table: Table = {}
    curves: dict[str, Any] = {}
    for case, (F, time, places) in cases.items():
        stresses = {"polycrystal": truth(polycrystal, F, time, folder)} | {
            name: follow(law, F, time) for name, law in laws.items()
        }
        mises = {name: von_mises(sigma[0]) / 1e6 for name, sigma in stresses.items()}
        table[case] = {name: {at: float(m[k]) for at, k in places.items()} for name, m in mises.items()}
        start = places.get("ramp", places.get("held", 0))
        for name in laws:
            part = slice(start, None)
            table[case][name]["error after"] = float(
                errors(stresses[name][:, part], stresses["polycrystal"][:, part])[0]
            )
        curves[case] = (time[0], mises)
    return table, curves


# %% [markdown]
# ## Points of an impact


# %%
def impact(
    laws: dict[str, Any], polycrystal: TaylorPolycrystal, file: Path, folder: Path
) -> tuple[Table, Trusted]:
    """Errors along recorded points: all of the run, and per window relative to the stress of the point in it."""
    with np.load(file) as stored:
        F, time = stored["F"], np.tile(stored["time"] - stored["time"][0], (len(stored["F"]), 1))
    true = truth(polycrystal, F, time, folder)
    table: Table = {}
    pairs: Trusted = []
    for name, law in laws.items():
        states: list[np.ndarray] | None = [] if name == "learned" else None
        sigma = follow(law, F, time, states)
        found = errors(sigma, true, time)
        table[name] = {"mean": found.mean(), "median": np.median(found), "largest": found.max()}
        for low, high in WINDOWS:
            part = (time[0] >= low) & (time[0] < high)
            if part.sum() > 2:
                within = errors(sigma[:, part], true[:, part], time[:, part])
                table[name][f"{1e6 * low:.0f} us"] = float(np.median(within))
        if states is not None:
            pairs = trusted(law, "points of an impact", states, found, time)
            table[name]["negative eigenvalues"] = negative_share(law, F, time, np.concatenate(states))
            for factor in (2, 8) if getattr(law, "compiled", None) is not None else ():
                again = follow_finer(law, F, time, factor)
                table[name][f"itself {factor}"] = float(errors(again, sigma, time).mean())
    return table, pairs


def negative_share(law: Any, F: np.ndarray, time: np.ndarray, states: np.ndarray, most: int = 400) -> float:
    """Share of states along the paths whose tangent has a negative eigenvalue."""
    states = states.reshape(len(F), -1, states.shape[-1])
    rng = np.random.default_rng(0)
    rows, steps_ = rng.integers(len(F), size=most), rng.integers(1, F.shape[1] - 1, size=most)
    found = []
    for row, k in zip(rows, steps_, strict=True):
        F_k = np.ascontiguousarray(F[row, k + 1 : k + 2])
        _, _, dP_dF = law.tangent(F_k, states[row, k - 1 : k], float(time[row, k + 1] - time[row, k]))
        found.append(float(smallest_eigenvalue(torch.from_numpy(dP_dF), torch.from_numpy(F_k), finite=True)))
    return float(np.mean(np.array(found) < 0))


# %% [markdown]
# ## Results


# %%
def draw(path: Path, curves: dict[str, Any], kinds_: Table, points: Table) -> None:
    """Stress in a hold, in the cycles, and the errors of all kinds of paths."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for ax, case in zip(axes, ("30 % in 1 us", "cycles"), strict=False):
        time, mises = curves[case]
        for name, m in mises.items():
            ax.plot(
                1e6 * time, m, "k" if name == "polycrystal" else "-", label=name, lw=2 if name == "polycrystal" else 1
            )
        ax.set(xlabel="time, us", ylabel="von Mises stress, MPa", title=case, xscale="symlog")
        ax.legend(fontsize=7)
    names = list(kinds_) + (["points of an impact"] if points else [])
    laws = [name for name in next(iter(kinds_.values())) if name != "steps"]
    for i, law in enumerate(laws):
        values = [100 * kinds_[kind][law]["mean"] for kind in kinds_] + ([100 * points[law]["mean"]] if points else [])
        axes[2].bar(np.arange(len(names)) + 0.8 * i / len(laws), values, 0.8 / len(laws), label=law)
    axes[2].set(yscale="log", ylabel="error of the deviator, %", title="mean over the paths")
    axes[2].set_xticks(np.arange(len(names)) + 0.3, names, rotation=20)
    axes[2].legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.1), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def trust(rows: Trusted) -> dict[str, Any]:
    """Rank correlations (Spearman) of novelty and expected error with the error; means of the last two per kind."""
    values = np.array([row[1:] for row in rows])
    novelty, expected = (rank_correlation(values[:, k], values[:, 2]) for k in (0, 1))
    kinds_ = {row[0]: values[[k for k, other in enumerate(rows) if other[0] == row[0]]] for row in rows}
    means = {kind: {"expected": v[:, 1].mean(), "found": v[:, 2].mean()} for kind, v in kinds_.items()}
    within = np.mean((values[:, 2] < 2 * values[:, 1]) & (values[:, 2] > 0.5 * values[:, 1]))
    return {
        "paths": len(rows), "correlation of novelty": novelty, "correlation of expected error": expected,
        "within a factor of two": float(within), "kinds": means,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; 0 done, 1 the check failed, 2 bad input."""
    try:
        o = parse(arguments)
        laws = {"learned": load_law(o.law)}
        laws |= {f"{n} grains": load_law("taylor-polycrystal", grains=n) for n in o.others}
        laws["Johnson-Cook"] = load_law("polycrystal-johnson-cook")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    polycrystal, folder = TaylorPolycrystal(even_texture(o.grains)), Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    found, pairs = kinds(laws, polycrystal, o.paths, folder)
    table, curves = numbers(laws, polycrystal, folder)
    points, more = impact(laws, polycrystal, o.history, folder) if o.history else ({}, [])
    summary: dict[str, Any] = {"law": o.law, "kinds": found, "holds": table, "impact": points}
    if pairs:
        summary["trust"] = trust(pairs + more)
    text = json.dumps(summary, indent=1, default=float)
    write_whole(folder / "summary.json", text + "\n")
    draw(folder / "law_study.png", curves, found, points)
    sys.stdout.write(text + "\n")
    stated = getattr(getattr(laws["learned"], "manifest", None), "errors", {}).get("deviatoric_walk")
    if stated is not None and not abs(found["walks"]["learned"]["mean"] / stated - 1) < 1 / 3:
        sys.stderr.write(
            f"The error on walks is {found['walks']['learned']['mean']:.3f}, the manifest says {stated:.3f}.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
