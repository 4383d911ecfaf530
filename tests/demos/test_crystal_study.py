"""The study of the polycrystal, small: its tables are there, its checks can fail, and bad input is one sentence."""

import json

import pytest

DEMO = "crystal_study.py"


@pytest.fixture(scope="module")
def result(demo, tmp_path_factory):
    """Exit code and folder of a run with two walks of four points."""
    folder = tmp_path_factory.mktemp("study")
    size = ["--walks", "2", "--grains", "2", "--points", "4", "--strain", "0.05", "--reference-grains", "2"]
    size += ["--sign-grains", "1", "--most-grains", "16", "--cache", str(folder / "cache"), "--output", str(folder)]
    return demo.main(size), folder


def test_tables_are_whole(demo, result):
    code, folder = result
    assert code == 0
    assert (folder / "crystal_study.png").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    for case in ("with twins", "without twins"):
        rows = list(summary["error"][case].values())
        assert len(rows) == len(demo.TOLERANCES)
        assert rows[-1]["mean"] < rows[0]["mean"]
        assert rows[-1]["solves"] > rows[0]["solves"]
    for family in demo.FAMILIES:
        row = summary["sensitivity_to_tau_0"][family]
        assert all(0.0 < row[factor]["min"] <= row[factor]["mean"] <= row[factor]["max"] for factor in ("0.5", "2.0"))
    assert summary["signs_of_common"]["cooperating"]["change"]["max"] == 0.0
    assert 0.0 <= summary["threshold_of_slip_in_twins"]["max"] < 0.1
    assert list(summary["anisotropy"]) == ["random", "even"]
    assert list(summary["anisotropy"]["even"]) == ["8", "16"]
    assert set(summary["targets"]) == set(demo.TARGETS)


def test_the_reference_is_solved_once(demo, result, monkeypatch):
    """Every path is found on disk by a second run; a path that differs is not."""
    folder = result[1]
    options = demo.parse(["--cache", str(folder / "cache")], 1)
    walk = demo.random_walk([0], 0, strain=0.05, steps=4)
    path = walk.U[0], walk.time[0] * walk.duration[0]

    def refuse(*_args, **_options):
        raise RuntimeError("solved again")

    monkeypatch.setattr(demo.reference, "solve_polycrystal", refuse)
    assert demo.solved_before(options, demo.MAGNESIUM, 2, *path).shape == (5, 6)
    with pytest.raises(RuntimeError, match="solved again"):
        demo.solved_before(options, demo.MAGNESIUM, 2, 1.0 + 0.5 * (path[0] - 1.0), path[1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pressure_error": 1e-6}, "Pressure is off by 1.0e-06."),
        ({"failed_paths": 3}, "3 paths failed."),
        ({"reference_change": 0.01}, "The reference changes by 1.0e-02."),
    ],
)
def test_a_wrong_number_is_seen(demo, result, change, sentence):
    summary = json.loads((result[1] / "summary.json").read_text())
    demo.check(summary)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        demo.check(summary | change)


def test_an_error_that_does_not_fall_is_seen(demo, result):
    summary = json.loads((result[1] / "summary.json").read_text())
    rows = summary["error"]["with twins"]
    rows[list(rows)[-1]]["mean"] = 1.0
    with pytest.raises(ValueError, match="^The error with twins grows from"):
        demo.check(summary)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--walks", "0"],
        ["--grains", "no"],
        ["--strain", "-1"],
        ["--duration", "0"],
        ["--output", "file"],
        ["--cache", "file"],
        ["--steps", "5"],
    ],
)
def test_bad_input_is_one_sentence_and_no_file(demo, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert demo.main(["--output", "out", *arguments]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.endswith(".\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
