"""The anvil with the polycrystal and the laws in its place, small: measures, files, former runs, and going on."""

import json
from pathlib import Path

import anvil_laws
import anvil_pictures
import anvil_series
import numpy as np
import pytest
from mpi4py import MPI

WORDS = ["--cells", "4", "--until", "0.5e-6"]


def run(folder: Path, *words: str) -> dict:
    """Run the study; its summary."""
    assert anvil_laws.main([*WORDS, *words, "--output", str(folder)], MPI.COMM_SELF) == 0
    return json.loads((folder / "4-cells-200" / "summary.json").read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("anvil")
    words = ["--laws", "8-grains", "johnson-cook", "--animation", "johnson-cook"]
    return folder, run(folder, *words)


def test_equivalent_strain_of_a_turned_stretch_is_its_logarithm():
    stretch, angle = 1.3, 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    F = turn @ np.diag([stretch, stretch**-0.5, stretch**-0.5]) * 1.1  # the change of volume does not count
    assert anvil_series.equivalent_strain(F[None]) == pytest.approx([np.log(stretch)], rel=1e-12)


def test_differences_are_those_of_the_fields():
    rng = np.random.default_rng(0)
    time = np.arange(5.0)
    F = np.eye(3) + 0.1 * rng.standard_normal((6, 3, 3))
    truth = {
        "length": np.array([2.0]), "foot_radius": np.array([1.0]), "u": rng.standard_normal((7, 3)), "F": F,
        "P": rng.standard_normal((6, 3, 3)), "volume": np.array([1.0, 1, 1, 1, 1, 0]), "time": time,
        "impulse": time**2,
    }  # fmt: skip
    P = 1.2 * truth["P"]
    P[-1] = 100.0  # a cell without volume does not count
    other = truth | {"length": np.array([2.02]), "foot_radius": np.array([0.9]), "u": 1.1 * truth["u"], "P": P}
    other["impulse"] = np.array(
        [0.0, 50.0, 55.0, 65.0, 79.0]
    )  # the first interval does not count: 5, 10, 14 for 3, 5, 7
    found = anvil_laws.differences(other, truth)
    assert found == pytest.approx(
        {"length": 0.01, "foot_radius": -0.1, "displacement": 0.1, "strain": 0.0, "stress": 0.2,
         "force": np.sqrt((4 + 25 + 49) / 83)}
    )  # fmt: skip


def test_every_law_is_compared_at_the_same_time(study):
    folder, summary = study
    names = [row["name"] for row in summary["runs"]]
    assert names == ["128-grains", "8-grains", "johnson-cook"]
    first, few, classical = summary["runs"]
    assert first["differences"] == {}
    assert all(row["time"] == pytest.approx(0.5e-6, rel=1e-12) for row in summary["runs"])
    assert 0.0 < few["differences"]["128-grains"]["stress"] < classical["differences"]["128-grains"]["stress"]
    assert first["twin_fraction"] > 0.001 and classical["twin_fraction"] == 0.0
    assert first["law_seconds"] > few["law_seconds"] > 0.0
    assert "| *target* | 0.5% | 1% |" in (folder / "4-cells-200" / "table.md").read_text()
    pictures = {path.name for path in (folder / "4-cells-200").iterdir()} - {"table.md", "summary.json"}
    assert {"sections.png", "histories.png", "impact.gif"} == {n for n in pictures if n.endswith((".png", ".gif"))}


def test_runs_that_are_there_are_read_and_a_changed_law_is_run_again(study, monkeypatch):
    folder, summary = study
    monkeypatch.setattr(anvil_series, "make_solver", lambda *_: pytest.fail("a run was made again"))
    again = run(folder, "--laws", "8-grains")
    assert again["runs"] == summary["runs"]  # Johnson-Cook, too, from the call before
    key = anvil_series.Case.key
    monkeypatch.setattr(anvil_series.Case, "key", lambda case: key(case) | {"content": "another file"})
    with pytest.raises(pytest.fail.Exception, match="made again"):
        run(folder, "--laws", "8-grains")


def test_a_run_that_was_stopped_goes_on_to_the_same_fields(study, tmp_path, monkeypatch):
    monkeypatch.setattr(anvil_series, "KEEP", 0.0)
    record, seen = anvil_series.Series.record, []

    def stop(series):
        record(series)
        seen.append(series.solver.time)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(anvil_series.Series, "record", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "--laws", "128-grains")
    assert not (tmp_path / "4-cells-200" / "128-grains.npz").exists()
    run(tmp_path, "--laws", "128-grains")
    with np.load(tmp_path / "4-cells-200" / "128-grains.npz") as new:
        with np.load(study[0] / "4-cells-200" / "128-grains.npz") as old:
            assert set(new) == set(old)
            for name in new:
                assert new[name] == pytest.approx(old[name], rel=1e-9, abs=1e-12), name
    assert not list((tmp_path / "4-cells-200").glob("*.part.*"))


def test_the_contour_is_closed(study):
    with np.load(study[0] / "4-cells-200" / "128-grains.npz") as arrays:
        edges = anvil_pictures.outline(dict(arrays), 0)
    points, counts = np.unique(np.round(edges.reshape(-1, 2), 6), axis=0, return_counts=True)
    assert np.all(counts == 2)
    assert points.min(axis=0) == pytest.approx([-0.5, 0.0]) and points.max(axis=0) == pytest.approx([0.5, 5.0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--cells", "5"], "--cells must be an even number of at least 4, got 5."),
     (["--speeds", "200", "-1"], "--speeds must be positive finite numbers, got [200.0, -1.0]."),
     (["--interval", "0"], "--interval must be a positive finite time in s, got 0.0.")],
)  # fmt: skip
def test_bad_options_are_one_sentence(words, sentence, tmp_path, capsys):
    assert anvil_laws.main([*words, "--output", str(tmp_path)], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err.strip() == sentence
