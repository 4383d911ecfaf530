"""The study of the internal variables, small: table, figure, checks that can fail, and bad input in one sentence."""

import copy
import json

import pytest

DEMO = "lattices/variables.py"


@pytest.fixture(scope="module")
def result(demo, tmp_path_factory):
    """Exit code and folder of a run on a small cell."""
    folder = tmp_path_factory.mktemp("study")
    size = ["--variables", "8", "--samples", "110", "--steps", "100", "--held-out", "8", "--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lattice_variables.py", *size, "--output", str(folder)])
        return demo.main(), folder


def test_the_table_is_whole(result):
    code, folder = result
    assert code == 0
    assert (folder / "lattice_variables.png").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rank"] == 16
    assert [row["variables"] for row in summary["rows"]] == [8, 16]
    assert all(0 < row["stress_tenth"] < 1 for row in summary["rows"])
    assert summary["singular_values"][15] > 1e3 * summary["singular_values"][16]


def test_checks_can_fail(demo, result):
    summary = json.loads((result[1] / "summary.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lattice_variables.py"])
        o = demo.parse()
    demo.check(summary, o)
    wrong = copy.deepcopy(summary)
    wrong["rank"] = 15
    with pytest.raises(AssertionError, match="15 variables were found"):
        demo.check(wrong, o)
    wrong = copy.deepcopy(summary)
    wrong["rows"][-1]["psi"] = 1e-3
    with pytest.raises(AssertionError, match="not rounding"):
        demo.check(wrong, o)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cell", "ring-3"], "square-k or cube-k"),
        (["--variables", "0"], "--variables must be at least 1"),
        (["--increment", "0.4", "0.1"], "--increment must be positive and increase"),
        (["--held-out", "150"], "held_out must lie between"),
        (["--samples", "3", "--held-out", "1"], "internal variables"),
        (["--steps", "many"], "invalid int value"),
    ],
)
def test_bad_input_is_one_sentence(demo, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.setattr("sys.argv", ["lattice_variables.py", "--output", str(tmp_path / "o"), *arguments])
    assert demo.main() == 1
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert "\n" not in said
