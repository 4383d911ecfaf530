"""Active learning: the most novel histories of a run are solved and added to the data, and the training goes on.

    python3 -m surrogates.active LAW --history paths.npz --data DIR --data DIR --store DIR --output NEW.pt
    python3 -m surrogates.active LAW --simulate "python3 anvil.py --law {law} --record 200 --output {folder}" \\
        --rounds 3 --data DIR --data DIR --store DIR --output NEW.pt

`paths.npz` holds the deformation of points of a run with the law (`demos/taylor_anvil.py --record 200`). The law is led
along all of them. Some of them, drawn at random, are held out: they are solved and never trained on. Of the others,
those with the largest novelty, or with the largest error that the law expects (`--choice uncertain`), are solved with
the polycrystal that made the first data set, and the training continues from the weights of the law with all data; the
new paths count several times, since they are few.

`--simulate` is the command of the run: `{law}` and `{folder}` in it are replaced by the law and by the folder into
which the command writes `paths.npz`. Then every round makes a run of its own with the law of the round before. The
errors are those on the held-out points of the first run, before and after each round, and those of each law on its own
run.
"""

import argparse
import json
import logging
import shlex
import subprocess
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
from surrogates.path.trust import EXPECTED, NOVELTY
from surrogates.tensors import deviator

logger = logging.getLogger(__name__)

#: Parameters of the polycrystal of a data set that the new ones take over.
CRYSTAL = ("texture", "grains", "grain_seed", "symmetry", "fibre_spread", "slip", "backend")
#: Options of the old law that the new one keeps.
KEPT = ("elements", "memory", "width", "mixed", "products", "basis", "limit")
EVERY = 5  # steps between two looks at the novelty
#: What the histories to add have the largest values of; "random" draws any.
CHOICES = {"novel": NOVELTY, "uncertain": EXPECTED, "random": ""}


@small_batches()
def largest_along(law: Law, F: np.ndarray, time: np.ndarray, *fields: str) -> np.ndarray:
    """Largest values (n, m) of some fields that a law observes along histories.

    Args:
        law: The law.
        F: (n, T, 3, 3), the identity at first.
        time: (T,), s.
        *fields: Their names.

    Raises:
        ValueError: The law does not observe a field.
    """
    names = [entry.name for entry in law.manifest.observables]
    for name in fields:
        if name not in names:
            seen = ", ".join(names) or "nothing"
            raise ValueError(f"law must observe {name}, and {law.manifest.name} observes {seen}.")
    columns, steps = [names.index(name) for name in fields], np.diff(time)
    history = torch.from_numpy(np.ascontiguousarray(F))
    state, largest = law.module.initial_state(len(F)), torch.zeros(len(F), len(fields), dtype=torch.float64)
    with torch.no_grad():
        for k, dt in enumerate(steps, start=1):
            _, state = law.module.forward(history[:, k], state, float(dt))
            if k % EVERY == 0 or k == len(steps):
                largest = torch.maximum(largest, law.module.observe(state)[:, columns])
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


def read_history(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """F (n, T, 3, 3) and time (T,), s, from zero, of the points of a run.

    Raises:
        ValueError: The file holds no such arrays.
    """
    arrays = read_arrays(path)
    if not {"F", "time"} <= set(arrays) or arrays["time"].ndim != 1:
        raise ValueError(f"history must hold F (n, T, 3, 3) and time (T,), and {path} does not.")
    return arrays["F"], arrays["time"] - arrays["time"][0]


def simulate(command: str, law: Path, folder: Path) -> Path:
    """Make a run with a law; returns the file with the histories of its points.

    Args:
        command: Its command, with `{law}` and `{folder}` for the artifact and for the folder of its results.
        law: The artifact.
        folder: The folder.

    Raises:
        RuntimeError: The command failed, or wrote no `paths.npz`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [word.replace("{law}", str(law)).replace("{folder}", str(folder)) for word in shlex.split(command)]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"simulate failed with exit code {done.returncode}: {last}")
    if not (folder / "paths.npz").is_file():
        raise RuntimeError(f"simulate must write {folder / 'paths.npz'}, and did not.")
    return folder / "paths.npz"


def chosen(
    values: np.ndarray | None, count: int, paths: int, held_out: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the histories to add, and of those to hold out, which are drawn first.

    Args:
        values: (count,); those with the largest values are added; None for any.
        count: Number of histories.
        paths: Number to add.
        held_out: Number to hold out.
        seed: Seed of the draw.

    Raises:
        ValueError: There are fewer histories.
    """
    if paths + held_out > count:
        raise ValueError(f"paths and held_out must be at most the {count} histories, got {paths} and {held_out}.")
    order = np.random.default_rng(seed).permutation(count)
    held, rest = order[:held_out], order[held_out:]
    if values is not None:
        rest = rest[np.argsort(-values[rest], kind="stable")]
    return rest[:paths], held


def solved(
    law: Law, history: Path, like: Path, place: Path, paths: int, held_out: int, choice: str, seed: int, axes: int,
    steps: int,
) -> tuple[np.ndarray, np.ndarray, Path, Path]:  # fmt: skip
    """Choose histories of a run and solve them; returns all novelties, the rows added, and the two new sets.

    Args:
        law: The law of the run.
        history: Its file.
        like: Data set whose polycrystal solves them.
        place: Folder for the new sets.
        paths, held_out, seed: See `chosen`.
        choice: One of `CHOICES`.
        axes: Seed of the axes of the new paths.
        steps: Their stored steps.
    """
    F, time = read_history(history)
    field = CHOICES[choice]
    novelty, values = largest_along(law, F, time, NOVELTY, field or NOVELTY).T
    rows, others = chosen(values if field else None, len(F), paths, held_out, seed)
    new = solve("new", F[rows], time, like, place, axes, steps)
    held = solve("held-out", F[others], time, like, place, axes + 1, steps)
    return novelty, rows, new, held


def recurrent(path: Path) -> Law:
    """The law of an artifact that can be trained on.

    Raises:
        ValueError: It is no recurrent law.
    """
    law = load_law(path)
    if law.manifest.kind != "recurrent":
        raise ValueError(f"law must be a recurrent law, and {law.manifest.name} is of the kind {law.manifest.kind}.")
    return law


def continued(law: Law, data: Sequence[Path], output: Path, **options: Any) -> Law:
    """Train a law on from its weights, of the same sizes and under the same name; returns the new one."""
    config = law.manifest.training.details.get("config", {})
    kept = {name: config[name] for name in KEPT if name in config}
    surrogates.train.run(
        "recurrent", data=list(data), output=output, name=law.manifest.name, initial=str(law.path),
        command=f"surrogates.active.run({str(law.path)!r})", **kept, **options,
    )  # fmt: skip
    return load_law(output)


def check(counts: dict[str, int], choice: str, history: str | Path | None, simulation: str) -> None:
    """Check the options of `run`.

    Raises:
        ValueError: One does not fit.
    """
    for name, value in counts.items():
        check_count(name, value)
    if choice not in CHOICES:
        raise ValueError(f"choice must be one of {', '.join(CHOICES)}, got {choice}.")
    if (history is None) == (not simulation) or (counts["rounds"] > 1 and not simulation):
        raise ValueError("Either history or simulation must be given, and a simulation for more than one round.")


def run(
    law: str | Path, *, data: Sequence[str | Path], store: str | Path, output: str | Path,
    history: str | Path | None = None, simulation: str = "", rounds: int = 1, paths: int = 32, held_out: int = 16,
    choice: str = "novel", copies: int = 8, epochs: int = 20, learning_rate: float = 3e-4, steps: int = 600,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Some rounds; the same as the command, from Python.

    Args:
        law: The artifact.
        data: The data sets of the law; the first says which polycrystal solves the new paths.
        store: Folder for the new sets, and for the runs and the laws of the rounds.
        output: The new artifact.
        history: File with F (n, T, 3, 3) and time (T,), s, of points of a run; for one round.
        simulation: Command of a run instead, see `simulate`.
        rounds: Number of rounds; more than one need a simulation.
        paths: Number of histories that are added in a round.
        held_out: Number of other histories on which the error is measured.
        choice: "novel", "uncertain" (those with the largest expected error) or "random" (any, to compare).
        copies: How often the new paths count in the training.
        epochs: Passes over all data.
        learning_rate: First learning rate.
        steps: Stored steps of a new path.
        seed: Seed of the choice, of the axes of the new paths and of the training.

    Returns:
        errors: Error on the held-out histories of the first run, before and after each round.
        rounds: For each round the largest novelty of the added histories, the median of all and the fraction beyond
            one, the error on the held-out histories of its own run before and after, and the folders of the new sets.

    Raises:
        ValueError: An argument does not fit.
        RuntimeError: The simulation failed.
    """
    counts = {"paths": paths, "held_out": held_out, "epochs": epochs, "steps": steps, "rounds": rounds}
    check(counts | {"copies": copies}, choice, history, simulation)
    now, added = recurrent(Path(locate(law))), [Path(each) for each in data]
    errors: list[float] = []
    entries: list[dict[str, Any]] = []
    for k in range(rounds):
        place = Path(store) / f"round-{k + 1}"
        file = simulate(simulation, now.path, place / "run") if simulation else Path(history or "")
        novelty, rows, new, held = solved(
            now, file, added[0], place, paths, held_out, choice, seed, seed + 2 * k, steps
        )
        before = error_on(now, held)
        added += copies * [new]
        target = Path(output) if k == rounds - 1 else place / "law.pt"
        now = continued(now, added, target, epochs=epochs, learning_rate=learning_rate, seed=seed + k)
        after = error_on(now, held)
        errors += [before, after] if k == 0 else [error_on(now, Path(entries[0]["held_out"]))]
        entries.append({
            "novelty_added": float(novelty[rows].max()), "novelty_median": float(np.median(novelty)),
            "beyond_one": float((novelty > 1).mean()), "error_before": before, "error_after": after,
            "new": str(new), "held_out": str(held),
        })  # fmt: skip
        logger.info("round %d: error %.3f before, %.3f after", k + 1, before, after)
    return {"errors": errors, "rounds": entries}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 done, 2 bad input, 1 failure."""
    parser = Parser(prog="surrogates.active", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("law", type=Path, metavar="LAW", help="the artifact of a recurrent law")
    add("--history", type=Path, metavar="FILE", help="histories of points of a run (.npz, HDF5)")
    add(
        "--simulate", dest="simulation", default="", metavar="COMMAND", help="command of a run, with {law} and {folder}"
    )
    add("--rounds", type=int, default=1, metavar="N", help="rounds, each with a run of its own (default: 1)")
    add("--data", type=Path, action="append", required=True, metavar="DIR", help="data set of the law; may be repeated")
    add("--store", type=Path, required=True, metavar="DIR", help="folder for the new data sets")
    add("--output", type=Path, required=True, metavar="FILE", help="the new artifact")
    add("--paths", type=int, default=32, metavar="N", help="histories to add (default: 32)")
    add("--held-out", type=int, default=16, metavar="N", help="other histories to measure the error on (default: 16)")
    add("--choice", default="novel", choices=CHOICES, help="which histories are added (default: novel)")
    add("--copies", type=int, default=8, metavar="N", help="how often new paths count in the training (default: 8)")
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
