# %% [markdown]
# # Which structure for a law in time? Equal data, equal minutes
#
# **Why.** The shipped law is viscoplastic elements in parallel with memory, read by a network. This study trains other
# structures beside it and asks what each gives for the same data and the same minutes of one core.
#
# **Structures** (equations: `surrogates/path/structures.py`)
#
# - `elements`: that of the shipped law, trained here like the others. The row `shipped` is the shipped file itself,
#   the same structure after an hour of the compiled training, which is some fifty times as many updates.
# - `potentials`: free energy and dissipation potential with internal variables.
# - `grains and elements`: a few grains of a reduced polycrystal, and a small network for the rest of the stress.
# - `frames`: a network of a single crystal, averaged over a few frames.
# - reduced polycrystals, which need no training.
#
# **Training.** PyTorch, single precision, one thread; windows of steps with carried states, the optimiser SOAP, the
# relative error of the deviator of each path as the loss, a learning rate that falls as a cosine of the minutes. The
# stress of the grains is computed beforehand and does not count.
#
# **Error** of a path: L2 norm over its instants of the deviator of the Kirchhoff stress, relative. `ringing` is the
# error in 200 elastic cycles after a ramp and a hold, `finer` the change of a law by four times as many steps, and
# `turned` its change on paths that are turned, which is zero for an isotropic law; both on the first set.
#
# **Cost** of a point-step, processor time relative to `elements`: networks in PyTorch, single precision, 1024 points;
# grains in C, against the compiled elements along the same paths. `grains and elements`: the learned part alone.
#
# **Check.** No trained structure may err by more than zero stress does, which is 1.

# %%
from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import law_study
import numpy as np
import torch

from micro.crystal.taylor import TaylorPolycrystal
from micro.crystal.texture import even_texture
from micro.data.cli import Parser, check_count, check_folder
from micro.data.files import write_whole
from micro.tensors import from_components, random_rotations, to_components
from surrogates.artifact import load_law
from surrogates.artifact.shipped import locate
from surrogates.path.compiled_windows import CompiledWindows
from surrogates.path.data import SHEAR, Samples, join, load_samples
from surrogates.path.errors import refined
from surrogates.path.overlay import Sizes
from surrogates.path.recurrent import LIMIT
from surrogates.path.structure_training import Budget, cost, follow, given, grain_stress, pieces, reduced, train
from surrogates.path.structures import Elements, Frames, Potentials, Structure, WithGrains, turns
from surrogates.path.windows import Rows, block, prepare

#: Times as many steps in `finer`.
FINER = 4


# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Structures of a law in time, trained on equal data in equal minutes.",
               formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
    p.add_argument("--train", nargs="+", required=True, metavar="DIR", help="data sets to train on")
    p.add_argument("--test", nargs="+", required=True, metavar="NAME=DIR", help="data sets to test on")
    p.add_argument("--paths", type=int, default=500, help="paths of each set to train on, at most")
    p.add_argument("--minutes", type=float, default=0.1, help="processor time of each training")
    p.add_argument("--batch", type=int, default=128, help="paths of a batch")
    p.add_argument("--window", type=int, default=20, help="pieces of steps of a window")
    p.add_argument("--base", type=int, default=6, help="grains beside the elements of `grains and elements`")
    p.add_argument("--frames", type=int, default=6, help="frames of `frames`")
    p.add_argument("--others", nargs="*", type=int, default=[8, 16, 32], help="grains of reduced polycrystals")
    p.add_argument("--grains", type=int, default=1024, help="evenly spread grains of the truth of the ringing")
    p.add_argument("--cycles", type=int, default=200, help="elastic cycles of the ringing, at most 200")
    p.add_argument("--law", default="magnesium-recurrent", help="the shipped law")
    p.add_argument("--only", nargs="*", default=[], metavar="NAME", help="structures to train (all)")
    p.add_argument("--output", type=Path, default=Path("results/law_structures"), help="folder for the results")
    p.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    o = p.parse_args(arguments)
    for name in ("paths", "batch", "window", "base", "frames", "grains", "cycles"):
        check_count(f"--{name}", getattr(o, name))
    if not o.minutes > 0:
        raise ValueError(f"--minutes must be positive, got {o.minutes}.")
    if not all("=" in word for word in o.test):
        raise ValueError(f"--test must be NAME=DIR, got {' '.join(o.test)}.")
    check_folder("--output", o.output)
    return o


def structures(o: argparse.Namespace) -> dict[str, Structure]:
    """The structures with fresh weights."""
    sizes = Sizes(4, 6, width=64)
    made: dict[str, Structure] = {
        "elements": Elements(sizes, o.seed),
        "potentials": Potentials(sizes, seed=o.seed),
        "grains and elements": WithGrains(Sizes(2, 4, mixed=6, products=6, basis=6, width=32), o.seed),
        "frames": Frames(even_texture(o.frames).orientations, seed=o.seed),
    }
    unknown = [name for name in o.only if name not in made]
    if unknown:
        raise ValueError(f"--only must name structures among {', '.join(made)}, got {unknown[0]!r}.")
    return {name: law for name, law in made.items() if not o.only or name in o.only}


# %% [markdown]
# ## Paths: pieces of steps, with the stress of the few grains beside that of the polycrystal


# %%
@dataclass(frozen=True)
class Case:
    """Paths, their pieces (T, 23) and the stress of the polycrystal at their instants, each (steps, 5); see `rows`."""

    samples: Samples
    rows: list[Rows]
    truth: list[np.ndarray]
    skip: int = 0


def rows(samples: Samples, o: argparse.Namespace) -> list[Rows]:
    """Pieces (T, 23) of all paths, kept in the folder: those of `surrogates.path.windows`, and in the last five columns
    the stress of the few grains at their end."""
    content = (samples.U, samples.stress, samples.time, samples.duration, np.array([o.base]))
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in content)).hexdigest()[:16]
    kept = o.output / f"pieces-{digest}.npz"
    if not kept.is_file():
        made = pieces(samples, o.base, SHEAR)
        np.savez(kept, values=np.concatenate([path.values for path in made]), square=[path.square for path in made],
                 length=[len(path.values) for path in made])  # fmt: skip
    with np.load(kept) as stored:
        parts = np.split(stored["values"], np.cumsum(stored["length"])[:-1])
        return [Rows(part, float(square)) for part, square in zip(parts, stored["square"], strict=True)]


def case(samples: Samples, o: argparse.Namespace, skip: int = 0) -> Case:
    """Prepare paths to test on."""
    paths = rows(samples, o)
    return Case(samples, paths, given(paths), skip)


def turned(samples: Samples, rotations: np.ndarray) -> Samples:
    """Each path in turned axes, Q U Q^T, and its stress."""
    Q = rotations[:, None]
    U, stress = (to_components(Q @ from_components(x) @ np.swapaxes(Q, -1, -2)) for x in (samples.U, samples.stress))
    U[:, 0] = samples.U[:, 0]
    return replace(samples, U=U, stress=stress)


def ringing(o: argparse.Namespace, count: int = 6) -> tuple[Samples, int]:
    """Elastic cycles after a ramp and a hold, along random axes, and the number of instants before them."""
    F, seconds, places = law_study.cycles()
    end = places["held"] + 16 * o.cycles + 1
    F, seconds = F[:, :end], seconds[:, :end]
    Q = random_rotations(count, 7).numpy()[:, None]
    F, seconds = Q @ F @ np.swapaxes(Q, -1, -2), np.repeat(seconds, count, axis=0)
    stress = law_study.truth(TaylorPolycrystal(even_texture(o.grains)), F, seconds, o.output)
    duration = seconds[:, -1]
    U = to_components(F)
    U[:, 0] = (1, 1, 1, 0, 0, 0)
    return Samples(U, to_components(stress), duration, seconds / duration[:, None], np.arange(count)), places["held"]


def cases(o: argparse.Namespace) -> dict[str, Case]:
    """All cases; `finer` and `turned` are the first set in finer steps and in turned axes."""
    sets = {name: join(load_samples([folder])) for name, _, folder in (word.partition("=") for word in o.test)}
    found = {name: case(samples, o) for name, samples in sets.items()}
    samples, before = ringing(o)
    found["ringing"] = case(samples, o, before)
    first = next(iter(sets.values()))
    found["finer"] = case(refined(first, FINER), o)
    found["turned"] = case(turned(first, axes(len(first))), o)
    return found


def axes(count: int) -> np.ndarray:
    """Rotations (count, 3, 3) of `turned`."""
    return random_rotations(count, 8).numpy()


# %% [markdown]
# ## Errors and cost


# %%
def relative(found: list[np.ndarray], truth: list[np.ndarray], skip: int = 0) -> float:
    """Mean over the paths of the relative L2 difference."""
    pairs = zip(found, truth, strict=True)
    return float(np.mean([np.linalg.norm((a - b)[skip:]) / np.linalg.norm(b[skip:]) for a, b in pairs]))


def errors(results: dict[str, list[np.ndarray]], tests: dict[str, Case]) -> dict[str, float]:
    """Errors on all cases, and the change of the law against itself in finer steps and turned axes."""
    found = {name: relative(results[name], one.truth, one.skip) for name, one in tests.items()}
    first = results[next(iter(tests))]
    found["finer"] = relative([x[FINER - 1 :: FINER] for x in results["finer"]], first)
    Q = turns(torch.from_numpy(axes(len(first)))).numpy()
    found["turned"] = relative([x @ q for x, q in zip(results["turned"], Q, strict=True)], first)
    return found


def grain_cost(one: Case, sizes: Sizes, weights: np.ndarray, grains: Sequence[int]) -> dict[int, float]:
    """Processor time of reduced polycrystals along paths, relative to that of the compiled elements along the same."""
    compiled = CompiledWindows(sizes, 80)
    blocks = [block([Rows(p.values[:, :18], p.square) for p in one.rows[i : i + compiled.lanes]], compiled.lanes, 80)
              for i in range(0, len(one.rows), compiled.lanes)]  # fmt: skip
    start, lanes = time.process_time(), 0
    for b in blocks:
        state = compiled.initial_state()
        lanes += b.values.shape[0] * compiled.lanes
        for k in range(0, len(b.values), 80):
            compiled.run(weights, b.values[k : k + 80], state, b.scale)
    filled = sum(len(path.values) for path in one.rows) / lanes
    base = (time.process_time() - start) * filled  # lanes that are empty do not count
    found = {}
    for count in grains:
        start = time.process_time()
        grain_stress(one.samples, count)
        found[count] = (time.process_time() - start) / base
    return found


def shipped(name: str) -> tuple[Elements, Sizes]:
    """The shipped law as a structure."""
    weights = load_law(locate(name)).module.overlay.state_dict()
    sizes = Sizes.of(weights)
    law = Elements(sizes)
    law.overlay.load_state_dict(weights)
    return law, sizes


def study(o: argparse.Namespace) -> dict[str, Any]:
    """The rows of the table; those that the folder holds for the same options are kept."""
    laws, (best, sizes) = structures(o), shipped(o.law)
    sets = [load_samples([folder])[0][: o.paths] for folder in o.train]
    o.output.mkdir(parents=True, exist_ok=True)
    tests, options = cases(o), {k: str(v) for k, v in vars(o).items() if k not in ("only", "output", "others")}
    kept, table = o.output / "summary.json", {}
    if kept.is_file() and (content := json.loads(kept.read_text(encoding="utf-8")))["options"] == options:
        table = content["laws"]

    def add(name: str, row: dict[str, Any]) -> None:
        table[name] = row
        write_whole(kept, json.dumps({"options": options, "laws": table}, indent=1) + "\n")

    paths = [path for part in sets for path in rows(part, o)]
    unit, budget = cost(Elements(Sizes(4, 6, width=64))), Budget(60 * o.minutes, o.batch, o.window, seed=o.seed)
    for name, law in {**laws, "shipped": best}.items():
        if name in table:
            continue
        row: dict[str, Any] = {} if name == "shipped" else train(law, paths, budget)
        stresses = iter(follow(law, [path for one in tests.values() for path in one.rows]))
        row |= {"errors": errors({kind: [next(stresses) for _ in one.rows] for kind, one in tests.items()}, tests)}
        row |= {"cost": cost(law) / unit, "parameters": sum(p.numel() for p in law.parameters()), "state": law.state}
        add(name, row)
    flat = torch.cat([getattr(best.overlay, name).detach().flatten() for name in sizes.shapes()]).numpy()
    longest = max(tests.values(), key=lambda one: one.samples.U.shape[1] * (one.skip == 0))
    counts = [count for count in [o.base, *o.others] if f"{count} grains" not in table]
    for count, ratio in grain_cost(longest, sizes, flat, counts).items():
        results = {kind: given(prepare(grain_stress(one.samples, count), SHEAR, LIMIT)) for kind, one in tests.items()}
        state = reduced(count).initial_state(1).shape[1]
        add(f"{count} grains", {"errors": errors(results, tests), "cost": ratio, "state": state})
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; 0 done, 1 the check failed, 2 bad input."""
    try:
        table = study(parse(arguments))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for name, row in table.items():
        text = " | ".join(f"{kind} {100 * value:.2g} %" for kind, value in row["errors"].items())
        rest = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "errors")
        sys.stdout.write(f"{name}: {text} | {rest}\n")
    bad = [name for name, row in table.items() if not max(row["errors"].values()) < 1]
    if bad:
        sys.stderr.write(f"The structure {bad[0]} errs by more than zero stress does.\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
