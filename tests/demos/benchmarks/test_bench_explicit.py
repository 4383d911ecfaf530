"""The benchmark of the explicit solver, small: its table adds up, and it refuses what is not there."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mpi4py import MPI

from fem import steps
from surrogates.artifact.shipped import law_names

ROOT = Path(__file__).resolve().parents[3]
DEMO = "benchmarks/bench_explicit.py"


def test_table_adds_up(demo, tmp_path, monkeypatch):
    """By a clock that moves on by a second whenever it is read: a phase takes as many seconds as it has been begun."""
    ticks = itertools.count()
    monkeypatch.setattr(steps, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(demo, "time", SimpleNamespace(perf_counter=steps.perf_counter))
    laws = ["--laws", "magnesium-neo-hookean", "magnesium-johnson-cook"]
    size = ["--cells", "4", "--length", "1e-3", "--steps", "4", "--warm", "1"]
    assert demo.main([*laws, *size, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert [(row["law"], row["ranks"]) for row in rows] == [("magnesium-neo-hookean", 1), ("magnesium-johnson-cook", 1)]
    for row in rows:
        assert row["points"] == 4 * 36  # 12 cells in the disc, 3 layers
        seconds = row["seconds"]
        assert seconds["law"] == seconds["gather"] == seconds["assemble"] == 4.0  # once a step
        assert sum(seconds.values()) < row["elapsed"]
        assert row["points_per_second"] == pytest.approx(row["points"] / row["elapsed"])
        assert row["share"] == pytest.approx({phase: value / row["elapsed"] for phase, value in seconds.items()})
    assert rows[1]["ratio_to_johnson_cook"] == {"law": 1.0, "step": 1.0}
    assert (tmp_path / "speed.png").is_file()


@pytest.mark.parametrize(
    "arguments", [["--laws", "hooke"], ["--steps", "0"], ["--cells", "3"], ["--output", "file"], ["--laws", "file"]]
)
def test_bad_input_is_one_sentence_and_no_file(demo, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert demo.main(["--output", "out", "--laws", "magnesium-j2", *arguments]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.endswith(".\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_shipped_laws_of_other_solvers_are_left_out_in_one_line(demo, capsys):
    """Of all that is shipped, those of finite strain in three dimensions are measured; the others are named once."""
    names = [name for name, _ in demo.load_laws(MPI.COMM_WORLD, demo.parse([]))]
    assert {"magnesium-j2", "magnesium-johnson-cook", "magnesium-recurrent", "magnesium-pca-net"} <= set(names)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    left_out = said.removesuffix(".\n").split(": ")[1].split(", ")
    assert set(left_out) == set(law_names()) - set(names)
    assert "tann-square-2" in left_out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--laws", "tann-square-2"], "the explicit solver needs finite strain in 3 dim"),
        (["--threads", "100000"], "threads must be at most"),
        (["--layouts", "--threads", "2"], "leave out mpirun and --threads."),
    ],
)
def test_what_does_not_fit_is_refused(demo, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert demo.main(["--output", "out", "--laws", "magnesium-j2", *arguments]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert sentence in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_artifact_ends_all_ranks(tmp_path):
    """No rank may wait for one that has failed: before, this never ended."""
    (tmp_path / "law.pt").write_text("no archive")
    command = ["mpirun", "-n", "3", sys.executable, str(ROOT / "demos" / "benchmarks" / "bench_explicit.py")]
    words = ["--laws", str(tmp_path / "law.pt"), "--output", str(tmp_path / "out")]
    left_out = ("OMPI_COMM", "PMIX_")  # of this process, if it has a rank
    environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    environment["PYTHONPATH"] = f"{ROOT}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2
    sentence = "is not a TorchScript archive, or it is truncated or damaged."
    assert done.stderr.splitlines()[0] == f"{tmp_path / 'law.pt'} {sentence}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("cores", "layouts"), [(1, [(1, 1)]), (2, [(1, 1), (1, 2), (2, 1)]), (4, [(1, 1), (1, 4), (2, 2), (4, 1)])]
)
def test_layouts_fill_the_cores(demo, cores, layouts):
    assert demo.layouts_of(cores) == layouts


def test_layouts_are_compared(demo, tmp_path, monkeypatch, capsys):
    """Each layout is a run of its own, with the ranks and threads that its row says; their numbers agree."""
    monkeypatch.setattr(demo, "layouts_of", lambda cores: [(1, 1), (1, 2), (2, 1)])
    size = ["--cells", "4", "--length", "1e-3", "--steps", "2", "--warm", "1"]
    law = ["--laws", "magnesium-recurrent"]
    assert demo.main(["--layouts", *law, *size, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["layouts"]
    assert [(row["ranks"], row["threads"]) for row in rows] == [(1, 1), (1, 2), (2, 1)]
    assert [row["plan"].split(" of BLAS")[0] for row in rows] == [
        "1 ranks, 1 on this node, 1 threads per rank, 1",
        "1 ranks, 1 on this node, 2 threads per rank, 1",
        "2 ranks, 2 on this node, 1 threads per rank, 1",
    ]
    assert rows[0]["ratio"] == 1.0
    assert rows[0]["kinetic_energy"] == rows[1]["kinetic_energy"]  # threads change nothing, ranks the rounding
    assert capsys.readouterr().out.count("\n| magnesium-recurrent | ") == 3
