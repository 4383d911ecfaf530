"""The anvil at several speeds and aspect ratios, small."""

import json

import anvil_shapes
import pytest
from mpi4py import MPI

WORDS = ["--cells", "6", "--law", "magnesium-j2", "--until", "1.5e-6"]


@pytest.mark.parametrize(
    ("study", "values"), [("speeds", ["--speeds", "100", "200"]), ("ratios", ["--ratios", "5", "2.5"])]
)
def test_a_study_writes_its_picture_and_its_numbers(study, values, tmp_path):
    assert anvil_shapes.main([study, *WORDS, *values, "--output", str(tmp_path)], MPI.COMM_SELF) == 0
    assert (tmp_path / f"{study}.png").stat().st_size > 10_000
    bars = json.loads((tmp_path / f"{study}.json").read_text())["bars"]
    assert [bar["time"] for bar in bars] == pytest.approx([1.5e-6, 1.5e-6])
    shortening = [5e-3 - bar["final_length"] for bar in bars]
    if study == "speeds":  # until waves from the top return, the foot stands and the top flies on
        assert shortening == pytest.approx([0.15e-3, 0.30e-3], rel=0.02)
    else:
        assert [bar["diameter"] for bar in bars] == [1e-3, 2e-3]
        assert [bar["ratio"] for bar in bars] == [5.0, 2.5]
    for bar in bars:
        assert all(check["passed"] for check in bar["checks"].values())


def test_a_bad_ratio_is_one_sentence(tmp_path, capsys):
    words = ["ratios", "--ratios", "0", "--output", str(tmp_path)]
    assert anvil_shapes.main(words, MPI.COMM_SELF) == 2
    assert capsys.readouterr().err.strip() == "--ratios must be positive finite numbers, got [0.0]."
