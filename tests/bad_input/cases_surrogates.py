"""Bad input at the commands that train and evaluate laws."""

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_input import Case

from micro import generate
from surrogates import train

PRETRAINED = Path(__file__).resolve().parents[2] / "surrogates" / "pretrained"
TINY = ["--elements", "1", "--memory", "1", "--width", "4", "--epochs", "2", "--held-out", "2"]
SETS = {
    "crystal": ["taylor", "--samples", "6", "--grains", "2", "--steps", "8", "--strain", "0.1"],
    "square": ["lattice", "--cell", "square-1", "--samples", "4", "--steps", "5"],
    "cube": ["lattice", "--cell", "cube-1", "--samples", "4", "--steps", "5"],
}


@functools.cache
def made(name: str) -> Path:
    """A small data set, made once; or a checkpoint of a training of it."""
    folder = Path(tempfile.mkdtemp(prefix="anvilx-bad-input-"))
    if name == "checkpoint":
        words = ["recurrent", "--data", str(made("crystal")), "--output", str(folder / "law.pt"), *TINY]
        assert train.main([*words, "--checkpoint", str(folder / "checkpoint")]) == 0
        return folder / "checkpoint"
    assert generate.main([*SETS[name], "--seed", "1", "--output", str(folder / name)]) == 0
    return folder / name


def given(*names: str) -> Callable[[Path], None]:
    """Puts small data sets into the folder."""

    def prepare(folder: Path) -> None:
        for name in names:
            shutil.copytree(made(name), folder / name)

    return prepare


def cells(**change: Any) -> Callable[[Path], None]:
    """Puts a set of voxel cells into the folder; `change` may set one value or the shape."""

    def prepare(folder: Path) -> None:
        values = np.ones(change.get("shape", (4, 4, 4, 4)), dtype=np.float32)
        values.reshape(-1)[0] = change.get("value", 1.0)
        np.save(folder / "cells.npy", values)

    return prepare


def damaged(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """Puts a data set and the damaged checkpoint of its training into the folder."""

    def prepare(folder: Path) -> None:
        given("crystal")(folder)
        shutil.copy(made("checkpoint"), folder / "c")
        change(folder / "c")

    return prepare


def field(name: str, value: Any) -> Callable[[Path], None]:
    """Changes one field of a checkpoint, None to take it away."""

    def change(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        state[name] = value(state[name]) if callable(value) else value
        if state[name] is None:
            del state[name]
        torch.save(state, path)

    return change


def poisoned(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of which one is not a number."""
    first = next(iter(weights))
    return weights | {first: torch.full_like(weights[first], float("nan"))}


def shortened(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of which one has another length."""
    first = next(iter(weights))
    return weights | {first: torch.zeros(99)}


def overturned(path: Path) -> None:
    """Turns some bytes in the middle of a file."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 16] = bytes(255 - byte for byte in content[middle : middle + 16])
    path.write_bytes(content)


def halved(path: Path) -> None:
    """Cuts a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(name: str) -> Callable[[Path], None]:
    """Puts a text file into the folder, and a data set."""

    def prepare(folder: Path) -> None:
        given("crystal")(folder)
        (folder / name).write_text("no law at all")

    return prepare


def cut_law(folder: Path) -> None:
    """Puts half of a shipped law into the folder, and a data set."""
    given("crystal")(folder)
    shutil.copy(PRETRAINED / "recurrent.pt", folder / "law.pt")
    halved(folder / "law.pt")


def training(sentence: str, *words: str, kind: str = "recurrent", data: str = "crystal") -> Case:
    """A training with options that are refused."""
    prepare = cells() if data == "cells.npy" else given(data)
    return Case("surrogates.train", [kind, "--data", data, "--output", "law.pt", *words], sentence, prepare)


def resuming(sentence: str, change: Callable[[Path], None]) -> Case:
    """A training that goes on from a damaged checkpoint."""
    words = ["recurrent", "--data", "crystal", "--output", "law.pt", *TINY, "--checkpoint", "c", "--resume"]
    return Case("surrogates.train", words, sentence, damaged(change))


def evaluating(sentence: str, law: str, data: str, *words: str, prepare: Callable[[Path], None] | None = None) -> Case:
    """An evaluation that is refused; `law` without ending is a shipped one."""
    file = law if law.endswith(".pt") else str(PRETRAINED / f"{law}.pt")
    return Case("surrogates.evaluate", [file, "--data", data, *words], sentence, prepare or given(data))


CASES: list[Case] = [
    Case("surrogates.train", [], "kind"),
    Case("surrogates.train", ["forest"], "invalid choice: 'forest'"),
    Case("surrogates.train", ["recurrent"], "The following arguments are required: --output, --data"),
    training("invalid int value: '1e12'", "--epochs", "1e12"),
    training("epochs must be an integer from 1 to 1000000, got 1000000000000", "--epochs", "1000000000000"),
    training("batch must be an integer from 1 to 1000000, got 0", "--batch", "0"),
    training("width must be an integer from 1", "--width", "-3"),
    training("must be smaller: the .* parameters in training need about .* [GT]B", "--width", "1000000"),
    training("The network must be smaller", "--width", "1000000", "--modes", "2", kind="pca-net"),
    training("The network must be smaller", "--width", "1000000", "--window", "5", kind="tann-network", data="square"),
    training("learning_rate must be positive and finite, got nan", "--learning-rate", "nan"),
    training("learning_rate must be positive and finite, got inf", "--learning-rate", "inf"),
    training("final_rate must lie between 0 and learning_rate", "--final-rate", "1"),
    training("seed must be an integer from 0 to", "--seed", "-1"),
    training("seed must be an integer from 0 to", "--seed", str(2**70)),
    training("held_out must lie between 1 and 5 for 6 samples, got 1000000000000", "--held-out", "1000000000000"),
    training("held_out must lie between 1 and 5 for 6 samples, got 0", "--held-out", "0"),
    training("threads must be at", "--threads", "100000"),
    training("threads must be at least 1", "--threads", "0"),
    training("device cuda:99 is not available", "--device", "cuda:99"),
    training("device must be cpu, cuda or cuda:N, got tpu", "--device", "tpu"),
    training("every must be at least 1, got 0", "--every", "0"),
    training("resume needs a checkpoint to continue from", "--resume"),
    training("there is no such law file", "--initial", "nowhere.pt"),
    training("must be an artifact with the same sizes", "--initial", str(PRETRAINED / "recurrent.pt"), "--width", "4"),
    training("(?i)argument --network: invalid choice", "--network", "oracle", kind="voxels", data="cells.npy"),
    training("stride must divide the 8 steps of a path, got 3", "--stride", "3", "--output", "jc.json",
             kind="johnson-cook"),
    training("output must end in .json, got law.pt", kind="johnson-cook"),
    training("window must be at most the 5 steps of a path, got 100", "--window", "100", kind="tann-network",
             data="square"),
    training("The network must be smaller", "--width", "100000", kind="voxels", data="cells.npy"),
    training("modes must not exceed the 9 times of a path, got 100", kind="pca-net"),
    training("window must be finite and not negative, got inf", "--window", "inf", kind="pca-net"),
    # The wrong thing in the right place.
    training("U is missing in square: it is not a set of strain paths", data="square"),
    training("crystal must be a set of the source lattice, got taylor", kind="tann"),
    training("crystal holds .* but no density", kind="voxels"),
    training("cells.npy is not a directory", data="cells.npy"),
    Case("surrogates.train", ["recurrent", "--data", "nowhere", "--output", "law.pt"], "nowhere is not a directory"),
    Case("surrogates.train", ["recurrent", "--data", "crystal", "--output", "law.txt"], "output must end in .pt",
         given("crystal")),
    Case("surrogates.train", ["voxels", "--data", "cells.npy", "--output", "n.pt"], "must be finite, got nan",
         cells(value=float("nan"))),
    Case("surrogates.train", ["voxels", "--data", "cells.npy", "--output", "n.pt"], "at least 2 samples to hold one",
         cells(shape=(1, 4, 4, 4))),
    Case("surrogates.train", ["tann", "--data", "square", "--data", "cube", "--output", "law.pt"],
         "must be of the same cell and bars", given("square", "cube")),
    Case("surrogates.train", ["lattice-exact", "--cell", "hexagon", "--output", "law.pt"], "hexagon"),
    Case("surrogates.train", ["lattice-exact", "--strain-max", "nan", "--output", "law.pt"], "strain_max must be"),
    Case("surrogates.train", ["lattice-exact", "--modulus", "nan", "--output", "law.pt"], "modulus"),
    Case("surrogates.train", ["lattice-exact", "--cell-seed", "-1", "--output", "law.pt"], "seed must be an integer"),
    Case("surrogates.train", ["lattice-exact", "--data", "x", "--output", "law.pt"], "(?i)unrecognized argument"),
    # Damaged checkpoints.
    resuming("not a checkpoint, or it is truncated or damaged", halved),
    resuming("not a checkpoint, or it is truncated or damaged", overturned),
    resuming("not a checkpoint, or it is truncated or damaged", lambda path: path.write_text("x") and None),
    resuming("belongs to a run with another configuration", field("fingerprint", "0")),
    resuming("c is damaged: it holds no model", field("model", None)),
    resuming("c is damaged: it holds no optimiser", field("optimiser", None)),
    resuming("c is damaged: its epoch must be a number of at least 0, got None", field("epoch", None)),
    resuming("c is damaged: its epoch must be a number of at least 0, got -3", field("epoch", -3)),
    resuming("c is damaged: its loss must be a number of at least 0, got nan", field("loss", float("nan"))),
    resuming("c is damaged: state.model.* holds nan", field("model", poisoned)),
    resuming("c is damaged: its model does not fit", field("model", shortened)),
    resuming("c is damaged: its schedule does not fit", field("schedule", 5)),
    # Evaluation.
    evaluating("lattice_square_1.pt is a law of 2 dimensions, but cube has paths of 3", "lattice_square_1", "cube"),
    evaluating("lattice_cube_1.pt is a law of 3 dimensions, but square has paths of 2", "lattice_cube_1", "square"),
    evaluating("tann_square_2.pt is a law of another cell than that of square", "tann_square_2", "square"),
    evaluating("U is missing in square: it is not a set of strain paths", "recurrent", "square"),
    evaluating("crystal must be a set of the source lattice", "tann_cube_1", "crystal"),
    evaluating("crystal holds .* but no density", "voxels_multiscale", "crystal"),
    evaluating("held_out must lie between 1 and 5", "recurrent", "crystal", "--held-out", "0"),
    evaluating("threads must be at", "recurrent", "crystal", "--threads", "100000"),
    evaluating("device cuda:99 is not available", "recurrent", "crystal", "--device", "cuda:99"),
    evaluating("json must be a file in a folder that exists", "recurrent", "crystal", "--json", "no/where.json"),
    evaluating("x.pt is neither a law nor a voxel network", "x.pt", "crystal", prepare=text("x.pt")),
    evaluating("law.pt is neither a law nor a voxel network", "law.pt", "crystal", prepare=cut_law),
    evaluating("no.pt does not exist", "no.pt", "crystal"),
    Case("surrogates.evaluate", [str(PRETRAINED / "recurrent.pt")], "required: --data"),
]
