"""Active learning: the most novel histories of a run are solved and added to the data, and the training goes on.

    python3 -m surrogates.active LAW.pt --history paths.npz --data DIR --data DIR --store DIR --output NEW.pt

`paths.npz` holds the deformation of points of a run with the law (`demos/taylor_anvil.py --record 200`). The law is led
along all of them. Those with the largest novelty are solved with the polycrystal that made the first data set, and the
training continues from the weights of the law with all data. Other points of the run, drawn at random, are solved as
well and never trained on: the error on them before and after is printed. Repeat the run with the new law, and the
command with its history, for another round; `--data` then takes the sets of the former rounds, too.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micro.data.cli import Parser, check_count
from micro.threads import add_threads_option, check_threads, limit_threads, small_batches

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

import micro.generate
import surrogates.train
from micro.crystal.paths.recorded import read_arrays
from micro.data.dataset import read_manifest
from surrogates.artifact import Law, load_law
from surrogates.artifact.shipped import locate
from surrogates.path.data import load_samples, mandel
from surrogates.path.errors import follow, relative_errors
from surrogates.tensors import deviator

logger = logging.getLogger(__name__)

#: Parameters of the polycrystal of a data set that the new ones take over.
CRYSTAL = ("texture", "grains", "grain_seed", "symmetry", "fibre_spread", "slip", "backend")
#: Options of the old law that the new one keeps.
KEPT = ("elements", "memory", "width", "mixed", "products", "basis", "limit")
EVERY = 5  # steps between two looks at the novelty


@small_batches()
def novelty_along(law: Law, F: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Largest novelty (n,) of a law along histories.

    Args:
        law: A law that observes its novelty.
        F: (n, T, 3, 3), the identity at first.
        time: (T,), s.

    Raises:
        ValueError: The law does not observe its novelty.
    """
    names = [entry.name for entry in law.manifest.observables]
    if "novelty" not in names:
        raise ValueError(
            f"law must observe its novelty, and {law.manifest.name} observes {', '.join(names) or 'nothing'}."
        )
    column, steps = names.index("novelty"), np.diff(time)
    history = torch.from_numpy(np.ascontiguousarray(F))
    state, largest = law.module.initial_state(len(F)), torch.zeros(len(F), dtype=torch.float64)
    with torch.no_grad():
        for k, dt in enumerate(steps, start=1):
            _, state = law.module.forward(history[:, k], state, float(dt))
            if k % EVERY == 0 or k == len(steps):
                largest = torch.maximum(largest, law.module.observe(state)[:, column])
    return largest.numpy()


def solve(name: str, F: np.ndarray, time: np.ndarray, like: Path, store: Path, seed: int, steps: int) -> Path:
    """Solve histories with the polycrystal of another set; returns the new set.

    Raises:
        ValueError: The set `like` is none of the Taylor source with a texture that its manifest states.
    """
    manifest = read_manifest(like)
    parameters = manifest["parameters"]
    if manifest["source"] != "taylor" or parameters.get("texture") == "file":
        raise ValueError(f"data must begin with a Taylor set whose texture has a name, got {like}.")
    store.mkdir(parents=True, exist_ok=True)
    file = store / f"{name}.npz"
    np.savez(file, F=F, time=time)
    options = {key: parameters[key] for key in CRYSTAL if key in parameters}
    micro.generate.run(
        "taylor", output=store / name, samples=len(F), seed=seed, protocols=("recorded",), recorded=str(file),
        steps=steps, spacing="random", orientation="random", margin=0.01, **options,
    )  # fmt: skip
    return store / name


def error_on(law: Law, data: Path) -> float:
    """Mean relative error of the deviator along all good paths of a set."""
    parts = load_samples([data], 1)
    found = [
        relative_errors(deviator(follow(law.module, part)), deviator(mandel(part.stress)))
        for part in parts
        if len(part)
    ]
    return float(torch.cat(found).mean())


def run(
    law: str | Path, *, history: str | Path, data: Sequence[str | Path], store: str | Path, output: str | Path,
    paths: int = 32, held_out: int = 16, epochs: int = 20, learning_rate: float = 3e-4, steps: int = 600, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """One round; the same as the command, from Python.

    Args:
        law: The artifact.
        history: File with F (n, T, 3, 3) and time (T,), s, of points of a run.
        data: The data sets of the law; the first says which polycrystal solves the new paths.
        store: Folder for the new sets.
        output: The new artifact.
        paths: Number of the most novel histories that are added.
        held_out: Number of other histories on which the error is measured.
        epochs: Passes over all data.
        learning_rate: First learning rate.
        steps: Stored steps of a new path.
        seed: Seed of the choice, of the axes of the new paths and of the training.

    Returns:
        Largest novelty of the chosen and of all histories, error on the held-out histories before and after, and the
        folders of the new sets.

    Raises:
        ValueError: An argument does not fit.
    """
    for name, value in (("paths", paths), ("held_out", held_out), ("epochs", epochs), ("steps", steps)):
        check_count(name, value)
    arrays = read_arrays(Path(history))
    if not {"F", "time"} <= set(arrays) or arrays["time"].ndim != 1:
        raise ValueError(f"history must hold F (n, T, 3, 3) and time (T,), and {history} does not.")
    F, time = arrays["F"], arrays["time"] - arrays["time"][0]
    if paths + held_out > len(F):
        raise ValueError(f"paths and held_out must be at most the {len(F)} histories, got {paths} and {held_out}.")
    old, folder = load_law(locate(law)), Path(store)
    novelty = novelty_along(old, F, time)
    order = np.argsort(-novelty, kind="stable")
    others = np.random.default_rng(seed).permutation(order[paths:])[:held_out]
    new = solve("new", F[order[:paths]], time, Path(data[0]), folder, seed, steps)
    held = solve("held-out", F[others], time, Path(data[0]), folder, seed + 1, steps)
    before = error_on(old, held)
    config = old.manifest.training.details.get("config", {})
    surrogates.train.run(
        "recurrent", data=[*data, new], output=output, name=old.manifest.name, initial=str(locate(law)), epochs=epochs,
        learning_rate=learning_rate, seed=seed, command=f"surrogates.active.run({str(law)!r})",
        **{name: config[name] for name in KEPT if name in config},
    )  # fmt: skip
    after = error_on(load_law(output), held)
    return {
        "novelty_chosen": float(novelty[order[:paths]].max()), "novelty_median": float(np.median(novelty)),
        "error_before": before, "error_after": after, "new": str(new), "held_out": str(held),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 done, 2 bad input, 1 failure."""
    parser = Parser(prog="surrogates.active", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("law", type=Path, metavar="LAW", help="the artifact of a recurrent law")
    add("--history", type=Path, required=True, metavar="FILE", help="histories of points of a run (.npz, HDF5)")
    add("--data", type=Path, action="append", required=True, metavar="DIR", help="data set of the law; may be repeated")
    add("--store", type=Path, required=True, metavar="DIR", help="folder for the new data sets")
    add("--output", type=Path, required=True, metavar="FILE", help="the new artifact")
    add("--paths", type=int, default=32, metavar="N", help="most novel histories to add (default: 32)")
    add("--held-out", type=int, default=16, metavar="N", help="other histories to measure the error on (default: 16)")
    add("--epochs", type=int, default=20, metavar="N", help="passes over all data (default: 20)")
    add("--learning-rate", type=float, default=3e-4, metavar="X", help="first learning rate (default: 3e-4)")
    add("--steps", type=int, default=600, metavar="N", help="stored steps of a new path (default: 600)")
    add("--seed", type=int, default=0, metavar="S", help="seed (default: 0)")
    add_threads_option(parser)
    try:
        o = parser.parse_args(arguments)
        check_threads(o.threads)
        options = {key: value for key, value in vars(o).items() if key not in ("law", "threads")}
        result = run(o.law, **options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (RuntimeError, MemoryError) as error:
        sys.stderr.write(f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}\n")
        return 1
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
