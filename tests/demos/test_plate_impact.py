"""The plate impact demo, small: what it writes, its studies and invariances, and what it refuses."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

ROOT = Path(__file__).resolve().parents[2]
DEMO = "plate_impact.py"
SMALL = ["--law", "magnesium-j2", "--cells", "8", "--growth", "1.5", "--width", "8e-3", "--until", "4e-7"]
SMALL += ["--frames", "2"]
SHAPE = ("steps", "dt", "time", "deflection_bottom", "deflection_top", "punch_travel")
ENERGY = ("kinetic_energy", "internal_energy", "contact_loss", "friction_loss", "obstacle_work")


@pytest.fixture(scope="module")
def small(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("plate")
    return folder, run(folder, "--friction", "0.2", "--record", "5")


def test_results_are_whole_files_and_nothing_else(small):
    folder, summary = small
    names = {entry.name for entry in folder.iterdir()}
    assert names == {"summary.json", "history.csv", "section.png", "fields.bp", "paths.npz"}
    assert (folder / "section.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with (folder / "history.csv").open() as sheet:
        rows = list(csv.DictReader(sheet))
    for name in SHAPE[2:]:
        assert float(rows[-1][name]) == summary[name]
    paths = np.load(folder / "paths.npz")
    assert paths["F"].shape == (5, len(paths["time"]), 3, 3)
    assert paths["time"][-1] == summary["time"]


def test_checks_are_passed_and_the_punch_keeps_its_speed(small):
    _, summary = small
    assert set(summary["checks"]) == {"elastic_front", "radial_front", "mass", "momentum", "energy", "punch"}
    assert all(entry["passed"] for entry in summary["checks"].values())
    assert summary["punch_travel"] == pytest.approx(200.0 * 4e-7, rel=1e-12)
    assert summary["friction_loss"] > 0.0
    assert summary["contact_nodes"] > 0


def test_a_quarter_is_the_whole_plate_to_round_off(tmp_path, run):
    """With a step that the frequencies of a free quarter do not lower."""
    extra = ["--friction", "0.2", "--frames", "0", "--safety", "0.5"]
    whole = run(tmp_path / "whole", *extra)
    quarter = run(tmp_path / "quarter", "--quarter", *extra)
    assert quarter["cells"] * 4 == whole["cells"]
    for key in SHAPE:
        assert quarter[key] == pytest.approx(whole[key], rel=1e-9), key
    for key in ENERGY:
        assert 4 * quarter[key] == pytest.approx(whole[key], rel=1e-8), key


def test_a_light_punch_is_slowed_down_and_shares_its_energy(tmp_path, run):
    mass, speed = 1e-4, 200.0
    summary = run(tmp_path, "--mass", str(mass), "--quarter", "--frames", "0")
    start = 0.25 * 0.5 * mass * speed**2
    assert summary["obstacle_energy"] < start
    assert summary["punch_travel"] < speed * summary["time"]
    kept = sum(summary[key] for key in (*ENERGY[:4], "hourglass_energy", "viscous_energy", "obstacle_energy"))
    assert kept == pytest.approx(start, rel=5e-3)


@pytest.mark.parametrize(("study", "values"), [("velocities", "100,200"), ("thicknesses", "5e-4,1e-3")])
def test_a_study_is_one_command_and_one_picture(demo, tmp_path, study, values):
    extra = ["--study", study, "--values", values, "--quarter", "--output", str(tmp_path)]
    assert demo.main([*SMALL, *extra], MPI.COMM_SELF) == 0
    folder = tmp_path / study
    assert (folder / "study.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["values"] == [float(value) for value in values.split(",")]
    first, second = summary["cases"]
    name = {"velocities": "velocity", "thicknesses": "thickness"}[study]
    assert [first[name], second[name]] == summary["values"]
    assert all(entry["passed"] for case in summary["cases"] for entry in case["checks"].values())
    if study == "velocities":  # the momentum given to the plate and its strain grow with the speed
        assert second["obstacle_work"] > 2.0 * first["obstacle_work"]
        assert second["fields"]["e_d"]["max"] > first["fields"]["e_d"]["max"]
    else:  # the thinner plate bends away: its lower face is farther at the same time
        assert first["deflection_bottom"] > second["deflection_bottom"]


def test_a_failed_check_is_one_sentence_and_a_bad_exit(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "closed_form_volume", lambda o: 1.0)
    assert demo.main([*SMALL, "--output", str(tmp_path)], MPI.COMM_SELF) == 1
    assert "does not pass its check of mass" in capsys.readouterr().err


@pytest.mark.mpi
def test_ranks_do_not_change_the_summary(tmp_path_factory, run):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("ranks"))))
    extra = ["--friction", "0.2", "--frames", "0", "--quarter"]
    shared = run(folder / "all", *extra, comm=comm)
    alone = run(folder / f"rank-{comm.rank}", *extra)
    for key in ("cells", *SHAPE, *ENERGY):
        assert shared[key] == pytest.approx(alone[key], rel=1e-9), key
    assert math.isclose(shared["front"]["radius"], alone["front"]["radius"], rel_tol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--velocity", "-1"], "--velocity must be a positive finite number, got -1.0."),
        (["--mass", "0"], "--mass must be a positive finite number, got 0.0."),
        (["--width", "2e-3"], "--width must be above 1.2 diameters of the punch, 0.0024 m, got 0.002."),
        (["--edge", "5e-3"], "The edge of a rigid cylinder must be in [0, 0.001] m, got 0.005."),
        (["--friction", "-1"], "The friction of a rigid cylinder must be a finite number of at least 0, got -1.0."),
        (["--cells", "5"], "cells must be an even whole number of at least 4 (cells across the fine region), got 5."),
        (["--growth", "0.9"], "growth must be above 1, got 0.9."),
        (["--panels", "1e-6,x"], "--panels must be positive finite numbers separated by commas, got '1e-6,x'."),
        (["--values", "1,2"], "--values are those of a --study."),
        (["--law-options", "grains"], "--law-options must be name=value pairs separated by commas, got 'grains'."),
        (["--record", "99999"], "The points to record must be between 1 and the .* cells, got 99999."),
        (["--study", "sizes"], "Argument --study: invalid choice: 'sizes' .*"),
        (["--output", "a.txt"], "--output must name a folder, but 'a.txt' is a file."),
    ],
)
def test_bad_input_is_one_sentence(demo, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"")
    assert demo.main([*SMALL, "--output", "out", *arguments], MPI.COMM_SELF) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if " cells, " not in line or "between" in line]
    assert len(lines) == 1, lines
    assert re.fullmatch(sentence if ".*" in sentence else re.escape(sentence), lines[0]), lines[0]
