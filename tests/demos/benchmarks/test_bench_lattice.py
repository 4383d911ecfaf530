"""The benchmark of finite lattices, small: what it counts is right, and it refuses what it cannot do."""

import json

import pytest

DEMO = "benchmarks/bench_lattice.py"


def call(demo, *arguments):
    return demo.main(arguments)


@pytest.mark.parametrize("case", ["lcU", "lcC", "lcT"])
def test_counts_are_those_of_the_lattice(demo, tmp_path, case):
    options = ["--n", "2", "3", "--steps", "2", "--direct-to", "2", "--case", case]
    assert call(demo, *options, "--output", str(tmp_path)) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = summary["rows"]
    assert [(row["n"], row["linear"]) for row in rows] == [(2, "iterative"), (2, "direct"), (3, "iterative")]
    for row in rows:
        n = row["n"]
        assert row["unknowns"] == 3 * (n + 1) ** 3
        assert row["bars"] == 3 * n * (n + 1) ** 2 + 6 * n**2 * (n + 1) + 4 * n**3
        assert row["bar_calls"] == row["bars"] * (1 + sum(row["newton_iterations"]))
        assert row["dissipation"] > 0.0
    assert summary["elastic_energy"]["3"] == pytest.approx(101.1617146683, abs=1e-8)
    assert list(summary["direct_over_iterative_seconds"]) == ["2"]
    assert (tmp_path / "cost.png").is_file()


@pytest.mark.parametrize(
    "arguments",
    [["--n", "0"], ["--n", "2", "2"], ["--steps", "0"], ["--case", "lcX"], ["--cell", "ball"], ["--output", "file"]],
)
def test_bad_input_is_one_sentence_and_no_file(demo, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert call(demo, "--output", "out", *arguments) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.endswith(".\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
