"""The command that measures an exported law on a data set."""

from pathlib import Path

import pytest

from surrogates.evaluate import main

FOLDER = Path(__file__).resolve().parents[2] / "surrogates" / "pretrained"


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law = str(FOLDER / "recurrent.pt")
    for arguments in ([law, "--data", str(tmp_path / "none")], [str(tmp_path / "no.pt"), "--data", str(tmp_path)]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.endswith(".\n")
