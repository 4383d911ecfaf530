"""The torsion demo, small: what it writes, its checks, ranks."""

import json
from pathlib import Path

import pytest
from mpi4py import MPI

DEMO = "lattices/torsion.py"
SMALL = ["--n", "3", "--size", "3.4", "--steps", "4", "--degree", "1", "--threads", "1"]


def run(demo, law, folder, *arguments, comm=MPI.COMM_SELF):
    assert demo.main(["--law", law, *SMALL, "--output", str(folder), *arguments], comm) == 0
    comm.barrier()
    return json.loads((folder / "summary.json").read_text())


def test_turned_column_passes_its_checks(demo, law, tmp_path):
    s = run(demo, law, tmp_path)
    assert (s["case"], s["cells"], s["n"], s["newton_iterations_max"] <= 5) == ("lcT2", 54, 3, True)
    assert set(s["checks"]) >= {"superposition_law", "superposition_lattice", "work_law", "work_lattice"}
    assert s["values"]["lattice"]["dissipation"] > 0.0
    assert {entry.name for entry in tmp_path.iterdir()} == {"summary.json", "deformed.png", "fields.bp", "history.csv"}


def test_study_and_restart(demo, law, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SWEEP", (1, 3))
    words = ["--case", "lcT1", "--study", "--kind", "tetrahedra"]
    s = run(demo, law, tmp_path / "first", *words, "--checkpoint")
    assert [(row["case"], row["n"]) for row in s["study"]] == [("lcT1", 1), ("lcT1", 3), ("lcT2", 1), ("lcT2", 3)]
    assert (tmp_path / "first" / "convergence.png").is_file()
    again = run(demo, law, tmp_path / "second", *words, "--restart", str(tmp_path / "first"))
    assert again["values"] == s["values"]


def test_superposition_sees_a_wrong_energy(demo):
    case = demo.CASES["lcT2"]
    rows = [{"time": t, "psi": t**2, "dissipation": 0.0} for t in (0.25, 0.5, 0.75)]
    assert demo.superposition(rows, case) > 1e-3
    rows[2]["dissipation"] = 1.0
    assert demo.superposition(rows, case) is None


@pytest.mark.mpi
def test_ranks_do_not_change_the_results(demo, law, tmp_path_factory):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("ranks"))))
    shared = run(demo, law, folder / "all", comm=comm)
    alone = run(demo, law, folder / f"{comm.rank}")
    for body in ("law", "lattice"):
        for key in ("displacement", "psi", "dissipation"):
            assert shared["values"][body][key] == pytest.approx(alone["values"][body][key], rel=1e-8, abs=1e-8)


def test_bad_input_is_one_sentence(demo, law, tmp_path, capsys):
    assert demo.main(["--case", "lcC1"], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err.startswith("Argument --case: invalid choice: 'lcC1'")
    assert demo.main(["--law", law, "--size", "-1"], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err == "--size must be a positive finite number, got -1.0.\n"
