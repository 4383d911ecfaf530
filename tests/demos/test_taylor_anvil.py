"""The Taylor anvil demo, small: what it writes, its invariances, and what it refuses."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

ROOT = Path(__file__).resolve().parents[2]
DEMO = "taylor_anvil.py"
SMALL = ["--law", "magnesium-neo-hookean", "--cells", "4", "--length", "1e-3"]
SMALL += ["--until", "1e-6", "--frames", "2", "--every", "5"]
KEYS = {
    "law", "ranks", "cells", "points", "steps", "dt", "time", "final_length", "final_radius", "kinetic_energy",
    "internal_energy", "hourglass_energy", "viscous_energy", "contact_loss", "energy_error", "momentum_error",
    "seconds", "points_per_second", "velocity", "density", "range", "fields",
}  # fmt: skip
# What must not depend on ranks or symmetry; energies apart, which a quarter has a quarter of.
SHAPE = ("steps", "dt", "time", "final_length", "final_radius")
ENERGY = ("kinetic_energy", "internal_energy", "hourglass_energy")


@pytest.fixture(scope="module")
def small(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("small")
    return folder, run(folder)


def test_summary_is_complete_and_strict_json(small):
    _, summary = small
    assert set(summary) >= KEYS
    assert set(summary["seconds"]) >= {"gather", "law", "assemble", "contact", "output"}
    assert summary["time"] == pytest.approx(1e-6, rel=1e-12)
    evaluated = summary["points"] * (summary["steps"] + 1)  # once at the start
    assert summary["points_per_second"] * summary["seconds"]["law"] == pytest.approx(evaluated, rel=1e-9)


def test_results_are_whole_files_and_nothing_else(small):
    folder, _ = small
    names = {entry.name for entry in folder.iterdir()}
    assert names == {"summary.json", "history.csv", "section.png", "fields.bp", "checkpoint.h5", "progress"}
    assert (folder / "section.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_history_ends_where_the_summary_ends(small):
    folder, summary = small
    with (folder / "history.csv").open() as sheet:
        rows = list(csv.DictReader(sheet))
    time = np.array([float(row["time"]) for row in rows])
    assert np.all(np.diff(time) > 0.0)
    for column, key in (("time", "time"), ("length", "final_length"), ("foot_radius", "final_radius")):
        assert float(rows[-1][column]) == summary[key]
    assert float(rows[0]["kinetic_energy"]) == pytest.approx(
        0.5 * 1e4 * 200.0**2 * 4 * math.sin(math.pi / 4) * 0.25e-6 * 1e-3, rel=1e-12
    )


def test_checks_hold_and_bound_the_front(small):
    checks = small[1]["checks"]
    assert set(checks) == {"elastic_front", "momentum", "energy"}
    assert all(entry["passed"] for entry in checks.values())


def test_paraview_series_has_every_frame_and_field(small):
    series = small[0] / "fields.bp"
    names = (series / "md.0").read_bytes()
    for name in ("displacement", "velocity", "von_mises", "e_d", "e_d_isochoric", "e_v"):
        assert name.encode() in names, name
    # BP4: a header and one record of 64 bytes each step; here start, middle and end.
    assert (series / "md.idx").stat().st_size == 64 * (1 + 3)


def test_failed_check_is_one_sentence_and_a_bad_exit(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "closed_form_volume", lambda o: 1.0)
    assert demo.main([*SMALL, "--output", str(tmp_path)], MPI.COMM_SELF) == 1
    assert "does not pass its check of momentum" in capsys.readouterr().err


@pytest.mark.parametrize("law", ["magnesium-neo-hookean", "magnesium-j2"])
@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_quarter_is_the_whole_bar_to_round_off(tmp_path, law, integration, run):
    extra = ["--law", law, "--integration", integration, "--frames", "0"]
    whole = run(tmp_path / "whole", *extra)
    quarter = run(tmp_path / "quarter", "--quarter", *extra)
    assert quarter["cells"] * 4 == whole["cells"]
    for key in SHAPE:
        assert quarter[key] == pytest.approx(whole[key], rel=1e-11), key
    for key in ENERGY[: 3 if integration == "one-point" else 2]:
        assert 4 * quarter[key] == pytest.approx(whole[key], rel=1e-9), key


def test_restart_ends_where_the_whole_run_ends(tmp_path, run):
    first = run(tmp_path / "first", "--until", "0.5e-6", "--frames", "0")
    again = ["--restart", str(tmp_path / "first" / "checkpoint.h5"), "--frames", "0"]
    second = run(tmp_path / "second", *again)
    whole = run(tmp_path / "whole", "--frames", "0", "--panels", "0.5e-6")
    assert first["time"] < second["time"]
    for key in (*SHAPE, *ENERGY):
        assert second[key] == pytest.approx(whole[key], rel=1e-11), key


def test_restart_goes_on_with_history_and_fields_and_no_row_twice(small, tmp_path, run):
    """From the last checkpoint but one of a run in the same folder: rows after it are made again, bit for bit."""
    run(tmp_path, "--checkpoint-every", "2e-7", "--record", "3")
    before = np.load(tmp_path / "paths.npz")
    panels = (tmp_path / "section.png").stat().st_size
    (tmp_path / "history.csv").unlink()
    again = ["--restart", str(tmp_path / "checkpoint-former.h5"), "--record", "3"]
    run(tmp_path, *again)
    assert (tmp_path / "history.csv").read_bytes() == (small[0] / "history.csv").read_bytes()
    assert (tmp_path / "fields.bp" / "md.idx").stat().st_size == 64 * (1 + 3)
    after = np.load(tmp_path / "paths.npz")
    for name in before.files:
        np.testing.assert_array_equal(before[name], after[name])
    assert (tmp_path / "section.png").stat().st_size == panels  # as many columns


def test_restart_after_its_end_is_refused(demo, small, tmp_path, capsys):
    late = ["--restart", str(small[0] / "checkpoint.h5"), "--output", str(tmp_path / "out")]
    assert demo.main([*SMALL, *late], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err == "--until must lie after the checkpoint, which stands at 1e-06 s, got 1e-06 s.\n"
    assert not (tmp_path / "out").exists()


def test_series_without_adios2_is_xdmf(tmp_path, monkeypatch, run):
    monkeypatch.setattr("dolfinx.has_adios2", False)
    run(tmp_path)
    names = {entry.name for entry in tmp_path.iterdir()}
    expected = {"summary.json", "history.csv", "section.png", "fields.xdmf", "fields.h5", "checkpoint.h5", "progress"}
    assert names == expected
    light = (tmp_path / "fields.xdmf").read_text()
    assert "fields.h5" in light
    assert "part" not in light


def test_softer_end_of_a_plastic_bar(tmp_path, run):
    """J2 keeps more of the shortening and loses more of the motion than an elastic bar that has rebounded."""
    extra = ["--until", "rebound", "--frames", "0"]
    elastic = run(tmp_path / "elastic", *extra)
    plastic = run(tmp_path / "plastic", *extra, "--law", "magnesium-j2")
    assert elastic["rebounded"]
    assert plastic["rebounded"]
    assert plastic["final_length"] < elastic["final_length"]
    assert plastic["final_radius"] > elastic["final_radius"]
    assert plastic["kinetic_energy"] < 0.5 * elastic["kinetic_energy"]


@pytest.mark.mpi
@pytest.mark.parametrize(
    "extra", [["--law", "magnesium-neo-hookean"], ["--law", "magnesium-j2"], ["--law", "magnesium-j2", "--quarter"]]
)
def test_ranks_do_not_change_the_summary(tmp_path_factory, extra, run):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("ranks"))))
    shared = run(folder / "all", *extra, comm=comm)
    alone = run(folder / f"rank-{comm.rank}", *extra)
    assert shared["ranks"] == comm.size
    assert alone["ranks"] == 1
    for key in ("cells", "points", *SHAPE, *ENERGY):
        assert shared[key] == pytest.approx(alone[key], rel=1e-10), key


@pytest.mark.mpi
def test_more_ranks_than_cells(tmp_path_factory, run):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("few"))))
    extra = ["--quarter", "--length", "0.3e-3", "--law", "magnesium-j2"]
    shared = run(folder / "all", *extra, comm=comm)
    assert shared["cells"] == 3
    alone = run(folder / f"rank-{comm.rank}", *extra)
    for key in (*SHAPE, *ENERGY):
        assert shared[key] == pytest.approx(alone[key], rel=1e-10), key


@pytest.mark.mpi
def test_bad_input_ends_all_ranks_with_one_sentence(demo, tmp_path_factory, capfd):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("bad"))))
    assert demo.main([*SMALL, "--output", str(folder / "out"), "--law", "no.pt"], comm) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == (1 if comm.rank == 0 else 0)
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_eight_ranks_on_any_machine_and_a_bad_word_from_one(tmp_path):
    """More ranks than cores, as a user starts it: same summary as alone; bad input ends in one sentence."""
    command = [sys.executable, str(ROOT / "demos" / "taylor_anvil.py"), *SMALL, "--output"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    summaries = []
    for start, folder in (([], "one"), (["mpirun", "-n", "8"], "eight")):
        subprocess.run([*start, *command, str(tmp_path / folder)], check=True, env=environment, timeout=300)
        summaries.append(json.loads((tmp_path / folder / "summary.json").read_text()))
    for key in (*SHAPE, *ENERGY):
        assert summaries[1][key] == pytest.approx(summaries[0][key], rel=1e-10), key
    bad = ["mpirun", "-n", "8", *command, str(tmp_path / "bad"), "--length", "-1"]
    done = subprocess.run(bad, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.count("--length must be a positive finite number, got -1.0.") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bad").exists()


POSITIVE = "must be a positive finite number, got"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--length", "-1"], f"--length {POSITIVE} -1.0."),
        (["--length", "nan"], f"--length {POSITIVE} nan."),
        (["--diameter", "0"], f"--diameter {POSITIVE} 0.0."),
        (["--velocity", "inf"], f"--velocity {POSITIVE} inf."),
        (["--velocity", "nan"], f"--velocity {POSITIVE} nan."),
        (["--velocity", "fast"], "Argument --velocity: invalid float value: 'fast'."),
        (["--density", "-1"], f"--density {POSITIVE} -1.0."),
        (["--grading", "0"], f"--grading {POSITIVE} 0.0."),
        (["--cells", "0"], "--cells must be an even number of at least 4, got 0."),
        (["--cells", "5"], "--cells must be an even number of at least 4, got 5."),
        (["--cells", "4.5"], "Argument --cells: invalid int value: '4.5'."),
        (["--hourglass", "-1"], "--hourglass must be a finite number of at least 0, got -1.0."),
        (["--frames", "-1"], "--frames must be at least 0, got -1."),
        (["--every", "0"], "--every must be at least 1, got 0."),
        (["--safety", "2"], "--safety must be in (0, 1], got 2.0."),
        (["--until=-1e-6"], "--until must be a positive finite time in seconds or 'rebound', got '-1e-6'."),
        (["--until", "soon"], "--until must be a positive finite time in seconds or 'rebound', got 'soon'."),
        (["--panels", "1e-6,x"], "--panels must be positive finite times in seconds, got '1e-6,x'."),
        (["--integration", "two"], "Argument --integration: invalid choice: 'two' .*"),
        (["--dtype", "float16"], "Argument --dtype: invalid choice: 'float16' .*"),
        (["--speed", "3"], "Unrecognized arguments: --speed 3."),
        (["--law", "hooke"], "There is no law or artifact file .hooke.; shipped laws are .*"),
        (["--law", "missing.pt"], "There is no law or artifact file .missing.pt.; shipped laws are .*"),
        (["--law", "empty.pt"], ".*empty.pt.*not a TorchScript archive.*"),
        (["--restart", "missing.h5"], "--restart names 'missing.h5', but there is no such file."),
        (["--restart", "empty.pt"], ".*empty.pt.*"),
        (["--output", "empty.pt"], "--output must name a folder, but 'empty.pt' is a file."),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(demo, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.pt").write_bytes(b"")
    assert demo.main([*SMALL, "--output", "out", *arguments], MPI.COMM_SELF) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if " cells, " not in line]
    assert len(lines) == 1, said.err
    sentence = sentence if ".*" in sentence else re.escape(sentence)
    assert re.fullmatch(sentence, lines[0]), lines[0]
    assert lines[0].endswith(".")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty.pt"]


def test_inverted_cell_stops_with_a_sentence_and_no_summary(demo, tmp_path, capsys):
    """At ten kilometres a second no cell of an elastic bar survives: det F <= 0 or a non-finite stress."""
    (tmp_path / "summary.json").write_text("{}")
    fast = [*SMALL, "--velocity", "1e4", "--until", "5e-6", "--output", str(tmp_path)]
    assert demo.main(fast, MPI.COMM_SELF) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"[Rr]ank 0.*cell \d+", last), last
    names = {entry.name for entry in tmp_path.iterdir()}
    assert not names & {"summary.json", "history.csv", "section.png", "fields.bp"}
    assert {"failure-checkpoint.h5", "failure-replay.npz"} <= names
