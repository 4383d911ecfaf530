"""Every kind that can be trained: tiny, from Python and from the command line, with the same result."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from micro import generate
from surrogates import train
from surrogates.artifact import load_law
from surrogates.cells.networks.file import load_network
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.kind import Kind

CRYSTAL = ["taylor", "--samples", "8", "--grains", "2", "--steps", "8", "--strain", "0.1"]
LATTICE = ["lattice", "--cell", "square-1", "--samples", "24", "--steps", "30", "--increment", "0.05", "0.4"]
# Of each kind: the data set, the ending of its file, and the configuration.
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "recurrent": ("crystal", {"elements": 1, "memory": 1, "width": 4, "epochs": 2, "batch": 4}),
    "pca-net": ("crystal", {"modes": 2, "width": 4, "depth": 1, "epochs": 2, "batch": 4}),
    "johnson-cook": ("crystal", {"paths": 4, "stride": 4, "epochs": 2}),
    "tann": ("lattice", {"epochs": 1, "tuning": 1}),
    "tann-network": ("lattice", {"width": 4, "units": 4, "epochs": 1, "tuning": 1, "rolling": 1, "window": 10}),
    "lattice-exact": ("", {"cell": "square-1", "strain_max": 2.0}),
    "voxels": ("cells", {"width": 1, "features": 2, "steps": 1, "epochs": 1, "batch": 2}),
}
ONE_RUN = ("command", "seconds", "name", "hash")  # what differs from one run of the same training to the next


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small data set of each source."""
    folder = tmp_path_factory.mktemp("sets")
    for name, words in (("crystal", CRYSTAL), ("lattice", LATTICE)):
        assert generate.main([*words, "--seed", "1", "--output", str(folder / name)]) == 0
    density = np.random.default_rng(0).uniform(size=(5, 4, 4, 4)).repeat(2, 1).repeat(2, 2).repeat(2, 3)
    np.save(folder / "cells.npy", (density > 0.3).astype(np.float32))
    return {"crystal": str(folder / "crystal"), "lattice": str(folder / "lattice"), "cells": str(folder / "cells.npy")}


def comparable(value: Any) -> Any:
    """A manifest without what differs from one run of the same training to the next."""
    if isinstance(value, dict):
        return {key: comparable(entry) for key, entry in value.items() if key not in ONE_RUN}
    return value


def content(kind: str, path: Path) -> dict[str, torch.Tensor]:
    """All numbers of the file of a kind."""
    if kind == "voxels":
        return dict(load_network(path).module.state_dict())
    if kind == "johnson-cook":
        return {name: torch.tensor(value) for name, value in json.loads(path.read_text())["parameters"].items()}
    return dict(load_law(path).module.state_dict())


@pytest.mark.parametrize("kind", train.KINDS)
def test_the_command_and_the_call_from_python_give_the_same_result(
    kind: str, sets: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, config = TINY[kind]
    suffix = train.load_kind(kind).SUFFIX
    data = {"data": sets[name], "held_out": 2} if name else {}
    result = train.run(kind, output=tmp_path / f"a{suffix}", **data, **config)
    words = [kind, "--output", str(tmp_path / f"b{suffix}")]
    if name:
        words += ["--data", sets[name], "--held-out", "2"]
    for field, value in config.items():
        words += [f"--{field.replace('_', '-')}", str(value)]
    capsys.readouterr()
    assert train.main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    other = json.loads((tmp_path / "b.json").read_text())
    assert result.path == tmp_path / f"a{suffix}"
    # Least squares and eigenvectors of the lattices depend on the alignment of memory in their last digits.
    close = {"rel": 1e-3, "abs": 1e-6} if name == "lattice" else {"rel": 1e-12, "abs": 0.0}
    assert comparable(result.manifest)["errors"] == pytest.approx(comparable(other)["errors"], **close)
    assert shown["errors"] == other["errors"]
    assert other["training"]["command"].startswith(f"python3 -m surrogates.train {kind} --output")
    assert result.manifest["training"]["command"] == f"surrogates.train.run({kind!r})"
    one, two = content(kind, result.path), content(kind, tmp_path / f"b{suffix}")
    assert one.keys() == two.keys()
    for key, value in one.items():
        if name == "lattice":
            torch.testing.assert_close(value, two[key], rtol=1e-3, atol=1e-6 * max(1.0, float(value.abs().max())))
        else:
            assert torch.equal(value, two[key]), key


@pytest.mark.parametrize("kind", train.KINDS)
def test_every_kind_has_what_the_protocol_asks_for(kind: str) -> None:
    module = train.load_kind(kind)
    for name in ("Config", "DATA", "SUFFIX"):
        assert hasattr(module, name)
    config = module.Config()
    assert config.epochs >= 0 and config.seed == 0
    for name in ("load", "build", "fit", "export", "errors", "write"):
        asked = [word for word in inspect.signature(getattr(Kind, name)).parameters if word != "self"]
        given = list(inspect.signature(getattr(module, name)).parameters)
        assert given == asked, name


def test_from_python_bad_arguments_raise_one_sentence(sets: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "law.pt"
    for change, sentence in (
        ({"kind": "forest"}, "kind must be one of recurrent, pca-net"),
        ({"depht": 3}, "depht is no field of the configuration of recurrent, which has elements, memory"),
        ({"epochs": 2.5}, "epochs must be an integer from 1 to 1000000, got 2.5."),
        ({"data": ()}, "data must be given for kind recurrent, got 0 data sets."),
        ({"kind": "lattice-exact"}, "data must be left out for kind lattice-exact, got 1 data sets."),
        ({"output": tmp_path / "law.txt"}, r"output must end in .pt, got"),
        ({"every": 0}, "every must be at least 1, got 0."),
    ):
        arguments: dict[str, Any] = {"kind": "recurrent", "data": sets["crystal"], "output": output} | change
        with pytest.raises(ValueError, match=sentence):
            train.run(**arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["johnson-cook", "recurrent", "pca-net"])
def test_a_training_that_was_stopped_goes_on_to_the_same_result(
    kind: str, sets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, config = train.load_kind(kind).SUFFIX, {**TINY[kind][1], "epochs": 4}

    class Stop(Exception):
        """The power fails."""

    save = Checkpoint.save

    def saving(self: Checkpoint, state: dict[str, Any]) -> None:
        save(self, state)
        if state["epoch"] == 2:
            raise Stop

    def run(name: str, **more: Any) -> dict[str, torch.Tensor]:
        path = tmp_path / f"{name}{suffix}"
        train.run(kind, data=sets["crystal"], held_out=2, output=path, **config, **more)
        return content(kind, path)

    whole = run("whole")
    kept = {"checkpoint": tmp_path / "c", "every": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", saving)
        with pytest.raises(Stop):
            run("stopped", **kept)
    resumed = run("resumed", **kept, resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert torch.load(tmp_path / "c", weights_only=True)["epoch"] == 4
