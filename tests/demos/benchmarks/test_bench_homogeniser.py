"""The benchmark of the homogeniser, small: it counts, compares and refuses what it cannot do."""

import itertools
import json
from types import SimpleNamespace

import pytest

DEMO = "benchmarks/bench_homogeniser.py"


def call(demo, *arguments):
    return demo.main(["--threads", "1", *arguments])


def test_numbers_are_those_of_the_cells(demo, tmp_path, monkeypatch):
    options = [
        "--n",
        "8",
        "10",
        "--cells",
        "gyroid",
        "grid",
        "--compare",
        "gyroid",
        "grid",
        "--scipy",
        "8",
        "--bounds",
        "8",
        "--batch",
        "2",
        "8",
    ]
    ticks = itertools.count()  # a clock that moves on by a second whenever it is read
    monkeypatch.setattr(demo, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    assert call(demo, *options, "--runs", "1", "--once", "12", "--output", str(tmp_path)) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = summary["rows"]
    assert len(rows) == 2 * 2 * 3 * 2
    assert {row["contrast"] for row in rows} == {1e3, 1e9, "void"}
    assert all(1 < row["iterations"] < 40 and row["seconds"] == 1.0 for row in rows)
    for row in summary["scipy"]:
        assert all(0 < close <= end for close, end in zip(row["steps_as_close"], row["steps"]))
        assert row["assembly_seconds"] == row["ours"] == 1.0
        assert row["seconds"] == row["ratio"] == 1.0 + 6 * (1 + row["as_close"])  # six loads, read again when close
        assert row["seconds_as_close"] == row["ratio_as_close"] == 7.0
        contrast = 1e9 if row["void"] else "void"
        same = [r for r in rows if (r["cell"], r["n"], r["contrast"]) == (row["cell"], 8, contrast)]
        assert row["diagonal"] == pytest.approx([same[0]["tensor"][i][i] for i in range(6)], rel=3e-4)
    assert all(0 < row["accuracy"] < 1e-3 and row["gap_over_error"] > 1 for row in summary["bounds"])
    assert [row["n"] for row in summary["alone"]] == [10, 12]
    assert all(row["memory_MB"] >= row["before_MB"] > 0 for row in summary["alone"])
    assert all(row["ended"] for row in summary["scipy"])
    assert (tmp_path / "counts.png").is_file()


@pytest.mark.parametrize(
    "arguments",
    [["--n", "2"], ["--n", "8", "8"], ["--tolerance", "1"], ["--cells", "ball"], ["--runs", "0"], ["--output", "file"]],
)
def test_bad_input_is_one_sentence_and_no_file(demo, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert call(demo, "--output", "out", *arguments) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and said.err.endswith(".\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
