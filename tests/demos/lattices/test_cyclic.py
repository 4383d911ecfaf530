"""The cyclic demo, small: its path, what it writes, its checks, ranks, and a restart."""

import json
import sys
from pathlib import Path

import pytest
from mpi4py import MPI

DEMO = "lattices/cyclic.py"
SMALL = ["--n", "2", "--size", "5", "--degree", "1", "--threads", "1"]


def run(demo, law, folder, *arguments, comm=MPI.COMM_SELF):
    assert demo.main(["--law", law, *SMALL, "--output", str(folder), *arguments], comm) == 0
    comm.barrier()
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def small(demo, law, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, run(demo, law, folder, "--checkpoint")


def test_column_remembers_and_passes_its_checks(small):
    folder, s = small
    assert set(s["checks"]) >= {"return_law", "return_lattice", "work_law", "second_law_lattice", "release_law"}
    rows = json.loads((folder / "history.json").read_text())
    assert (
        [row["time"] for row in rows["law_rows"]]
        == [*map(float, range(1, 24))]
        == [row["time"] for row in rows["lattice_rows"]]
    )
    for body in ("law", "lattice"):
        assert s["values"][body]["dissipation"] > 0.0
        assert abs(s["values"][body]["displacement"][2]) > 1e-3
        assert s["values"][body]["psi"] < s["loaded"][body]["psi"]


def test_files_are_whole(small):
    names = {entry.name for entry in small[0].iterdir()}
    series = {"fields.bp", "history.csv", "checkpoint"}
    assert names == {"summary.json", "history.json", "history.png", "fields.png"} | series
    # BP4: a header, and one record of 64 bytes for the start and for each step.
    assert (small[0] / "fields.bp" / "md.idx").stat().st_size == 64 * (1 + 1 + 23)


def test_restart_within_the_path_ends_where_the_run_ended(demo, law, small, tmp_path, monkeypatch):
    """Stopped after the fifteenth step by a law that breaks, then gone on with."""
    whole = small[1]
    follow, stop = sys.modules["models"].follow, {"left": 15}

    def limited(body, times, **options):
        return follow(body, times[: stop["left"]], **options)

    monkeypatch.setattr(sys.modules["models"], "follow", limited)
    monkeypatch.setattr(demo, "checks", lambda *_: {})
    run(demo, law, tmp_path / "first", "--checkpoint")
    monkeypatch.undo()
    s = run(demo, law, tmp_path / "second", "--restart", str(tmp_path / "first"))
    for body in ("law", "lattice"):
        for key in ("psi", "dissipation"):
            assert s["values"][body][key] == pytest.approx(whole["values"][body][key], rel=1e-8)


@pytest.mark.mpi
def test_ranks_do_not_change_the_results(demo, law, tmp_path_factory):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("ranks"))))
    shared = run(demo, law, folder / "all", comm=comm)
    alone = run(demo, law, folder / f"{comm.rank}")
    for body in ("law", "lattice"):
        for key in ("displacement", "psi", "dissipation"):
            assert shared["values"][body][key] == pytest.approx(alone["values"][body][key], rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--panels", "x"], "--panels must be whole numbers from 1 to 23, separated by commas."),
        (["--panels", "24"], "--panels must be whole numbers from 1 to 23, separated by commas."),
        (["--steps", "0"], "--steps must be at least 1, got 0."),
        (["--variable", "Z_99"], "--variable must be one of psi, dissipation, Z_1, "),
    ],
)
def test_bad_input_is_one_sentence(demo, law, tmp_path, capsys, arguments, sentence):
    assert demo.main(["--law", law, *SMALL, "--output", str(tmp_path / "out"), *arguments], MPI.COMM_SELF) == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
