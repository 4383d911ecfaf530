"""The benchmark of the explicit solver, small: its table adds up, and it refuses what is not there."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_explicit", ROOT / "demos" / "benchmarks" / "bench_explicit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(bench, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["bench_explicit.py", *arguments])
    return bench.main()


def test_table_adds_up(bench, tmp_path, monkeypatch):
    laws = ["--laws", "magnesium-neo-hookean", "magnesium-johnson-cook"]
    size = ["--cells", "4", "--length", "1e-3", "--steps", "4", "--warm", "1"]
    assert call(bench, monkeypatch, *laws, *size, "--output", str(tmp_path)) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert [(row["law"], row["ranks"]) for row in rows] == [("magnesium-neo-hookean", 1), ("magnesium-johnson-cook", 1)]
    for row in rows:
        assert row["points"] == 4 * 36  # 12 cells in the disc, 3 layers
        assert 0.0 < sum(row["seconds"].values()) <= 1.5 * row["elapsed"]
    assert rows[1]["ratio_to_johnson_cook"] == {"law": 1.0, "step": 1.0}
    assert (tmp_path / "speed.png").is_file()


@pytest.mark.parametrize(
    "arguments", [["--laws", "hooke"], ["--steps", "0"], ["--cells", "3"], ["--output", "file"], ["--laws", "file"]]
)
def test_bad_input_is_one_sentence_and_no_file(bench, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert call(bench, monkeypatch, "--output", "out", "--laws", "magnesium-j2", *arguments) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.endswith(".\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
