"""The benchmark of the bounds, small: it measures every phase, holds the bounds against the tensor, and refuses."""

import itertools
import json
from types import SimpleNamespace

import pytest

DEMO = "benchmarks/bench_bounds.py"


def test_every_cell_accuracy_and_start(demo, tmp_path, monkeypatch):
    """By a clock that moves on by a second whenever it is read: a phase takes as many seconds as it has been begun."""
    ticks = itertools.count()
    monkeypatch.setattr(demo, "time", SimpleNamespace(process_time=lambda: float(next(ticks))))
    assert demo.main(["--n", "8", "--runs", "1", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert len(rows) == 3 * 2 * 2
    assert all(0 < row["gap"] <= row["accuracy"] for row in rows)
    assert all(row["bounds"] == int(row["bounds"]) >= 1 for row in rows)
    assert all(row["network"] == (row["start"] == "network") for row in rows)
    assert (tmp_path / "bench_bounds.png").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--n", "2"], "--n must be at least 4, got 2."),
        (["--n", "many"], "Argument --n: invalid int value: 'many'."),
        (["--accuracy", "1e-2", "nan"], "--accuracy must lie between 1e-07 and 1, got [0.01, nan]."),
        (["--output", "file"], "--output must name a folder, but 'file' is a file."),
        (["--network", "none"], "none does not exist."),
    ],
)
def test_bad_input_is_one_sentence(demo, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert demo.main(["--output", "out", *words]) == 2
    assert capsys.readouterr().err == f"{sentence}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
