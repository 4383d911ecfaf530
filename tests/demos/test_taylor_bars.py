"""The study of two Taylor bars, small: what it writes, and what it refuses; slow: the copper bar of other codes."""

import json

import pytest
from mpi4py import MPI

DEMO = "taylor_bars.py"


def run(demo, folder, *arguments):
    assert demo.main([*arguments, "--output", str(folder)], MPI.COMM_SELF) == 0
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("case", ["copper", "steel"])
def test_a_short_run_writes_its_table_and_picture(demo, tmp_path, capsys, case):
    summary = run(demo, tmp_path, "--case", case, "--cells", "4", "--until", "10e-6")
    assert "foot radius" in capsys.readouterr().out
    assert (tmp_path / f"{case}.png").stat().st_size > 10_000
    (only,) = summary["runs"]
    last = only["history"][-1]
    assert last["time"] == pytest.approx(10.0)
    assert 3.2 < last["radius"] < 5.5
    assert 29.0 < last["length"] < 31.0
    assert only["of_kinetic_energy"]["contact_loss"] > 0.0
    assert only["of_kinetic_energy"]["viscous_energy"] > 0.0
    if case == "steel":
        assert 293.15 + 100.0 < last["temperature"] < 1813.15
    else:
        assert abs(only["deviations"]["length"]["10"]) < 0.01


def test_bad_options_are_one_sentence(demo, tmp_path, capsys):
    assert demo.main(["--cells", "5", "--output", str(tmp_path)], MPI.COMM_SELF) == 2
    assert "--cells must be even numbers of at least 4, got [5]." in capsys.readouterr().err


@pytest.mark.slow
def test_the_copper_bar_of_other_codes(demo, tmp_path):
    """The whole history within 2 % in radius and 0.5 % in length with five cells per radius."""
    summary = run(demo, tmp_path, "--case", "copper", "--cells", "10", "--viscosity", "0", "0")
    found = summary["runs"][0]["deviations"]
    assert max(abs(value) for value in found["radius"].values()) < 0.02
    assert max(abs(value) for value in found["length"].values()) < 0.005
