"""The study of the polycrystal, small: its tables are there, its checks can fail, and bad input is one sentence."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("crystal_study", ROOT / "demos" / "crystal_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def result(study, tmp_path_factory):
    """Exit code and folder of a run with two walks of ten points."""
    folder = tmp_path_factory.mktemp("study")
    size = ["--walks", "2", "--grains", "3", "--points", "10", "--strain", "0.1", "--output", str(folder)]
    return study.main(size), folder


def test_tables_are_whole(study, result):
    code, folder = result
    assert code == 0
    assert (folder / "crystal_study.png").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["error_against_steps"]) == ["10", "20", "40"]
    assert summary["reference_steps"] == 160
    slips = [row["mean"] for row in summary["error_without_twins"].values()]
    assert slips == sorted(slips, reverse=True)
    for family in study.FAMILIES:
        row = summary["sensitivity_to_tau_0"][family]
        assert all(0.0 < row[factor]["min"] <= row[factor]["mean"] <= row[factor]["max"] for factor in ("0.5", "2.0"))
    assert list(summary["microseconds_per_grain_and_step"]) == ["10", "20", "40", "160"]
    half = summary["fifth_singular_value"]["fraction"].index(0.5)
    assert summary["fifth_singular_value"]["taken"][half] == pytest.approx(0.678, abs=5e-4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"observed_order": 0.3}, "Order of the scheme is 0.30, not about one."),
        ({"pressure_error": 1e-6}, "Pressure is off by 1.0e-06."),
        ({"twin_fractions_between": [0.0, 1.01]}, "Twin fractions reach from 0.0e\\+00 to 1.010000."),
        ({"failed_steps": 3}, "3 steps failed."),
    ],
)
def test_a_wrong_number_is_seen(study, result, change, sentence):
    summary = json.loads((result[1] / "summary.json").read_text())
    study.check(summary)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        study.check(summary | change)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--walks", "0"],
        ["--grains", "no"],
        ["--strain", "-1"],
        ["--duration", "0"],
        ["--output", "file"],
        ["--steps", "5"],
    ],
)
def test_bad_input_is_one_sentence_and_no_file(study, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert study.main(["--output", "out", *arguments]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.endswith(".\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
