"""The training command: from a data set to an artifact, and one sentence for what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest

from surrogates import train
from surrogates.artifact import load_law
from surrogates.path import data as samples_module
from surrogates.path.errors import follow, report
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.split import split

OPTIONS = ["--modes", "8", "--width", "16", "--depth", "2", "--epochs", "2"]


@pytest.fixture
def data(samples, monkeypatch):
    """The synthetic paths in the place of a data set on disk."""
    monkeypatch.setattr(samples_module, "read_dataset", lambda path, allow_partial: _Read(samples))
    return "set"


class _Read:
    def __init__(self, samples):
        self.U, self.stress, self.duration = samples.U, samples.stress, samples.duration
        self.time, self.ids, self.hash = samples.time, samples.ids, "1" * 64
        self.meta = {"seed": 3, "command": "made here", "code": {"version": "0.1.0"}, "parameters": {}}


def run(*words):
    return train.main([str(word) for word in words])


def test_command_writes_a_law_that_says_where_it_comes_from(data, samples, tmp_path, capsys):
    output = tmp_path / "law.pt"
    assert run("pca-net", "--data", data, "--output", output, *OPTIONS) == 0
    law = load_law(output)
    manifest = law.stored
    assert json.loads((tmp_path / "law.json").read_text()) == manifest
    assert manifest["data"] == {
        "hash": "1" * 64, "code_version": "0.1.0", "samples": 54, "seed": 3, "command": "made here",
    }  # fmt: skip
    assert manifest["training"]["command"].startswith("python3 -m surrogates.train pca-net --data set")
    assert manifest["training"]["config"]["modes"] == 8
    assert manifest["range"]["time_window"] == pytest.approx(1e-6)
    assert manifest["certificate"]["virgin_stress"] == 0.0
    assert manifest["certificate"]["tangent_difference"] < 1e-6
    held_out = split(samples)[1]
    assert report(follow(law.module, held_out), held_out)["deviatoric"] == pytest.approx(
        manifest["errors"]["deviatoric"], rel=1e-4
    )
    assert json.loads(capsys.readouterr().out)["errors"] == manifest["errors"]


def test_finished_run_exports_again_from_its_checkpoint(data, tmp_path, capsys):
    words = ["pca-net", "--data", data, *OPTIONS, "--checkpoint", tmp_path / "run.ckpt", "--resume"]
    assert run(*words, "--output", tmp_path / "a.pt") == 0
    assert run(*words, "--output", tmp_path / "b.pt") == 0
    a, b = load_law(tmp_path / "a.pt"), load_law(tmp_path / "b.pt")
    assert a.manifest.errors == b.manifest.errors
    assert all(np.array_equal(p, q) for p, q in zip(a.module.state_dict().values(), b.module.state_dict().values()))


def test_checkpoint_of_another_run_is_refused(data, tmp_path, capsys):
    words = ["pca-net", "--data", data, "--output", tmp_path / "law.pt"]
    words += ["--checkpoint", tmp_path / "run.ckpt", "--resume"]
    assert run(*words, *OPTIONS) == 0
    assert run(*words, *OPTIONS, "--seed", 5) == 2
    assert "belongs to a run with another configuration" in capsys.readouterr().err


def test_damaged_checkpoint_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run.ckpt", resume=True, fingerprint="a")
    assert checkpoint.load() is None
    checkpoint.save({"epoch": 3})
    assert checkpoint.load() == {"epoch": 3}
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a checkpoint, or it is truncated"):
        checkpoint.load()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--modes", "0"], "modes must be an integer from 1 to 1000000, got 0."),
        (["--modes", "42"], "modes must not exceed the 41 times"),
        (["--held-out", "60"], "held_out must lie between 1 and 59"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--resume"], "resume needs a checkpoint"),
    ],
)
def test_bad_input_gets_one_sentence_and_no_file(data, tmp_path, capsys, words, sentence):
    assert run("pca-net", "--data", data, "--output", tmp_path / "law.pt", *OPTIONS, *words) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_data_set_is_refused(tmp_path):
    command = [sys.executable, "-m", "surrogates.train", "pca-net", "--data", "nowhere", "--output", "x.pt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "nowhere is not a directory.\n"
