"""The compression demo, small: closed forms, what it writes, ranks, restart, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
from mpi4py import MPI

from micro.lattice.bars import KinematicBar
from micro.lattice.data import lattice_parameters
from micro.lattice.geometry import make_cell
from surrogates.artifact import replace_manifest
from surrogates.artifact.load import read_json
from surrogates.tann.exact import write_lattice_law

DEMO = "lattices/compression.py"
SMALL = ["--n", "2", "--size", "5", "--steps", "2", "--threads", "1"]
KEYS = {
    "law", "ranks", "cells", "n", "newton_iterations_max", "newton_residuals", "cost_ratio_calls", "cost_ratio_seconds",
    "values", "seconds", "calls",
    *(f"{name}_error{suffix}" for name in ("displacement", "energy", "dissipation", "bar_stress")
      for suffix in ("", "_exact", "_learned")),
}  # fmt: skip
ENDS = ("displacement", "psi", "dissipation")
EXACT = lattice_parameters(make_cell("cube-1"), KinematicBar(), perturbation=0.0, seed=0)
SOFT = lattice_parameters(make_cell("cube-1"), KinematicBar(modulus=0.98), perturbation=0.0, seed=0)


@pytest.fixture(scope="module")
def laws(tmp_path_factory):
    """The exact law, and one of softer bars that says it is learned from the stiffer ones."""
    folder = Path(MPI.COMM_WORLD.bcast(str(tmp_path_factory.mktemp("laws"))))
    if MPI.COMM_WORLD.rank == 0:
        write_lattice_law(folder / "exact.pt", EXACT)
        write_lattice_law(folder / "soft.pt", SOFT)
        manifest = {**read_json(folder / "soft.pt"), "kind": "tann", "microstructure": EXACT}
        replace_manifest(folder / "soft.pt", manifest)
    MPI.COMM_WORLD.barrier()
    return folder


def run(demo, laws, folder, *arguments, comm=MPI.COMM_SELF):
    assert demo.main(["--law", str(laws / "exact.pt"), *SMALL, "--output", str(folder), *arguments], comm) == 0
    comm.barrier()
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    ("case", "psi", "dissipation"), [("lcU1", 101.1617146683, 0.0), ("lcU2", 217.8734498361, 50.50505050505)]
)
@pytest.mark.parametrize("kind", ["tetrahedra", "hexahedra"])
def test_uniform_compression_is_the_closed_form(demo, laws, tmp_path, case, psi, dissipation, kind):
    s = run(demo, laws, tmp_path, "--case", case, "--kind", kind)
    for body in ("law", "exact", "lattice"):
        assert s["values"][body]["psi"] == pytest.approx(psi, rel=1e-10)
        assert s["values"][body]["dissipation"] == pytest.approx(dissipation, rel=1e-10)
    assert {name for name, entry in s["checks"].items() if entry["holds"]} >= {"psi_lattice", "psi_exact", "work_law"}
    assert max(s[f"{name}_error"] for name in ("displacement", "energy", "dissipation", "bar_stress")) < 1e-9


@pytest.fixture(scope="module")
def small(demo, laws, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, run(demo, laws, folder, "--case", "lcC2", "--checkpoint")


def test_summary_is_complete_and_files_are_whole(small):
    folder, s = small
    assert set(s) >= KEYS
    assert (s["n"], s["ranks"], s["cells"], s["case"]) == (2, 1, 8, "lcC2")
    names = {entry.name for entry in folder.iterdir()}
    assert names == {"summary.json", "bars.png", "fields.bp", "history.csv", "checkpoint"}
    assert (folder / "bars.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for name in ("displacement", "psi", "dissipation", "Z_1"):
        assert name.encode() in (folder / "fields.bp" / "md.0").read_bytes()


def test_calls_are_counted_as_the_paper_does(small):
    """158 bars of 2 x 2 x 2 cells, 8 points in each of 8 cells; each a whole number of times."""
    calls = small[1]["calls"]
    assert calls["lattice"] % 158 == 0 and calls["fem"] % 64 == 0
    assert small[1]["cost_ratio_calls"] == calls["lattice"] / calls["fem"]
    assert small[1]["newton_iterations_max"] <= 5


def test_restart_ends_where_the_run_ended(demo, laws, small, tmp_path):
    s = run(demo, laws, tmp_path, "--case", "lcC2", "--restart", str(small[0]))
    for body in ("law", "lattice"):
        assert s["values"][body]["psi"] == pytest.approx(small[1]["values"][body]["psi"], rel=1e-12)
    assert s["calls"] == small[1]["calls"]


def test_restart_with_other_options_is_refused(demo, laws, small, tmp_path, capsys):
    words = ["--law", str(laws / "exact.pt"), *SMALL, "--restart", str(small[0]), "--degree", "2"]
    assert demo.main([*words, "--output", str(tmp_path / "out")], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err == "--restart goes on with --degree 1, but got 2.\n"


def test_what_a_law_errs_shows_as_learned_and_fails(demo, laws, tmp_path, capsys):
    words = ["--law", str(laws / "soft.pt"), *SMALL, "--case", "lcC1", "--output", str(tmp_path)]
    assert demo.main(words, MPI.COMM_SELF) == 1
    assert "does not pass its check of lcC1_2 energy_learned" in capsys.readouterr().err
    s = json.loads((tmp_path / "summary.json").read_text())
    assert s["energy_error_learned"] == pytest.approx(0.02, rel=1e-6)  # elastic: proportional to the modulus
    assert s["displacement_error_learned"] < 1e-9
    assert s["values"]["exact"]["psi"] == pytest.approx(s["values"]["law"]["psi"] / 0.98)
    assert s["bar_stress_error_learned"] == pytest.approx(0.02, rel=1e-6)


@pytest.mark.parametrize("wrong", ["closed_form", "ENERGY_C1"])
def test_a_failed_check_is_one_sentence_and_a_bad_exit(demo, laws, tmp_path, monkeypatch, capsys, wrong):
    case = "lcU1" if wrong == "closed_form" else "lcC1"
    monkeypatch.setattr(demo, wrong, (lambda top, bar: (101.0, 0.0)) if case == "lcU1" else {2: 48.6})
    words = ["--law", str(laws / "exact.pt"), *SMALL, "--case", case, "--output", str(tmp_path)]
    assert demo.main(words, MPI.COMM_SELF) == 1
    assert f"does not pass its check of {case}_2 psi_lattice" in capsys.readouterr().err


def test_study_draws_both_loads(demo, laws, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SWEEP", (1, 2))
    s = run(demo, laws, tmp_path, "--case", "lcC1", "--study", "--degree", "2", "--kind", "tetrahedra")
    assert [(row["case"], row["n"]) for row in s["study"]] == [("lcC1", 1), ("lcC1", 2), ("lcC2", 1), ("lcC2", 2)]
    assert [row["values"]["lattice"]["psi"] for row in s["study"][:2]] == pytest.approx([51.3483, 48.6390], abs=6e-5)
    assert (tmp_path / "convergence.png").is_file()


@pytest.mark.mpi
def test_ranks_do_not_change_the_results(demo, laws, tmp_path_factory):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("ranks"))))
    words = ["--case", "lcC2", "--law", str(laws / "soft.pt"), "--kind", "tetrahedra"]
    assert demo.main([*SMALL, *words, "--output", str(folder / "all")], comm) == 1  # the soft law fails its check
    shared = json.loads((folder / "all" / "summary.json").read_text())
    assert demo.main([*SMALL, *words, "--output", str(folder / f"{comm.rank}")], MPI.COMM_SELF) == 1
    alone = json.loads((folder / f"{comm.rank}" / "summary.json").read_text())
    assert (shared["ranks"], alone["ranks"]) == (comm.size, 1)
    for body in ("law", "exact", "lattice"):
        for key in ENDS:
            assert shared["values"][body][key] == pytest.approx(alone["values"][body][key], rel=1e-8, abs=1e-8)
    assert shared["bar_stress_error"] == pytest.approx(alone["bar_stress_error"], rel=1e-6)


@pytest.mark.mpi
def test_bad_input_ends_all_ranks_with_one_sentence(demo, laws, tmp_path_factory, capfd):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("bad"))))
    assert demo.main([*SMALL, "--output", str(folder / "out"), "--law", "no.pt"], comm) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == (1 if comm.rank == 0 else 0)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--n", "0"], "--n must be at least 1, got 0."),
        (["--steps", "0"], "--steps must be at least 1, got 0."),
        (["--threads", "0"], "--threads must be at least 1, got 0."),
        (["--size", "nan"], "--size must be a positive finite number, got nan."),
        (["--degree", "3"], "Argument --degree: invalid choice: .?3.? .*"),
        (["--case", "lcT1"], "Argument --case: invalid choice: 'lcT1' .*"),
        (["--law", "missing.pt"], "There is no law or artifact file .missing.pt.; shipped laws are .*"),
        (["--law", "magnesium-j2"], "--law must be an artifact of a lattice cell in three .*, got magnesium-j2."),
        (["--law", "empty.pt"], ".*empty.pt.*not a TorchScript archive.*"),
        (["--restart", "nowhere"], "--restart names 'nowhere', but there is no checkpoint in it."),
        (["--output", "empty.pt"], "--output must name a folder, but 'empty.pt' is a file."),
    ],
)
def test_bad_input_is_one_sentence(demo, laws, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.pt").write_bytes(b"")
    assert demo.main(["--law", str(laws / "exact.pt"), *SMALL, "--output", "out", *arguments], MPI.COMM_SELF) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert not Path("out").exists()
    assert re.fullmatch(sentence if ".*" in sentence else re.escape(sentence), lines[0]), lines[0]
