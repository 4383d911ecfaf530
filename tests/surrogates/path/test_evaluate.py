"""The command that measures an exported law on a data set."""

import json
from pathlib import Path

import pytest

from surrogates import evaluate
from surrogates.artifact import load_law
from surrogates.evaluate import main
from surrogates.path.data import Samples, mandel
from surrogates.path.errors import follow, relative_errors
from surrogates.tensors import deviator

FOLDER = Path(__file__).resolve().parents[3] / "surrogates" / "pretrained"


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
    monkeypatch.setattr(evaluate, "load_samples", lambda data, count: (samples[slice(3, 6)], held_out))
    assert main([str(FOLDER / "recurrent.pt"), "--data", "set", "--held-out", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    stress = follow(load_law(FOLDER / "recurrent.pt").module, held_out)
    expected = relative_errors(deviator(stress), deviator(mandel(held_out.stress))).mean()
    assert found["held_out_paths"] == 3
    assert found["deviatoric"] == pytest.approx(float(expected))
    assert {"deviatoric_half", "deviatoric_quarter", "full"} <= set(found)
