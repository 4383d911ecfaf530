"""The command that measures exported laws on data sets: errors of crystals and of lattices, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from surrogates import evaluate
from surrogates.artifact import load_law
from surrogates.evaluate import main
from surrogates.path.data import Samples, mandel
from surrogates.path.errors import follow, relative_errors
from surrogates.tann.errors import recall_errors
from surrogates.tensors import deviator

FOLDER = Path(__file__).resolve().parents[2] / "surrogates" / "pretrained"


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law = str(FOLDER / "recurrent.pt")
    for arguments in ([law, "--data", str(tmp_path / "none")], [str(tmp_path / "no.pt"), "--data", str(tmp_path)]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.endswith(".\n")


def test_prints_the_errors_of_the_law_on_the_held_out_paths(
    samples: Samples, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = samples[slice(0, 3)]
    monkeypatch.setattr(evaluate, "load_samples", lambda data, count, **_: (samples[slice(3, 6)], held_out))
    assert main([str(FOLDER / "recurrent.pt"), "--data", "set", "--held-out", "3"]) == 0
    found = json.loads(capsys.readouterr().out)["recurrent"]["set"]
    stress = follow(load_law(FOLDER / "recurrent.pt").module, held_out)
    expected = relative_errors(deviator(stress), deviator(mandel(held_out.stress))).mean()
    assert found["samples"] == 3
    assert found["deviatoric"] == pytest.approx(float(expected))
    assert {"deviatoric_half", "deviatoric_quarter", "full"} <= set(found)
    assert main([str(FOLDER / "recurrent.pt"), "--data", "set", "--all"]) == 0
    every = json.loads(capsys.readouterr().out)["recurrent"]["set"]
    assert every["samples"] == 6 and every["deviatoric"] != found["deviatoric"]


def test_laws_of_lattices_are_measured_on_their_cell_and_on_no_other(
    make_walks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = make_walks("square-1", samples=3, steps=12, perturbation=0.0)
    monkeypatch.setattr(evaluate, "load_paths", lambda data, count, **_: (paths[slice(0, 2)], paths[slice(2, 3)]))
    found = evaluate.run(FOLDER / "lattice_square_1.pt", data="set")["lattice_square_1"]["set"]
    law = load_law(FOLDER / "lattice_square_1.pt").module
    expected = recall_errors(law, paths[slice(2, 3)])
    assert found == pytest.approx({**expected, "samples": 1}, rel=1e-6, abs=1e-12)
    for name, sentence in (
        ("lattice_cube_1", "lattice_cube_1.pt is a law of 3 dimensions, but set has paths of 2."),
        ("tann_square_2", "tann_square_2.pt is a law of another cell than that of set"),
    ):
        assert main([str(FOLDER / f"{name}.pt"), "--data", "set"]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1


def test_laws_and_networks_do_not_share_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(FOLDER / "recurrent.pt"), str(FOLDER / "voxels_multiscale.pt")]
    assert main([*files, "--data", "set"]) == 2
    assert "laws alone or voxel networks alone" in capsys.readouterr().err


def test_threads_are_those_asked_for(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_samples", lambda data, count, **_: (samples[slice(3, 6)], samples[slice(0, 2)]))
    before = torch.get_num_threads()
    try:
        evaluate.run(FOLDER / "recurrent.pt", data="set", threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
