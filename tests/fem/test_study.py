"""What the studies of impacts share: area of the meshed disc, mean force, a clear folder, and how a study ends."""

import json

import numpy as np
import pytest
from mpi4py import MPI

from fem import study


@pytest.mark.parametrize("cells", [4, 6, 10, 24])
def test_area_is_that_of_the_polygon(cells):
    angle = np.linspace(0.0, 2.0 * np.pi, 8 * -(-cells // 4), endpoint=False)
    x, y = 0.7 * np.cos(angle), 0.7 * np.sin(angle)
    shoelace = 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    assert study.o_grid_area(1.4, cells) == pytest.approx(shoelace, rel=1e-13)


def test_mean_forces_of_a_history_make_its_impulse():
    rng, rows, total = np.random.default_rng(2), [], 0.0
    times, impulses = np.cumsum(rng.uniform(0.1, 1.0, 9)), np.cumsum(rng.normal(size=9))
    for time, impulse in zip(times, impulses, strict=True):
        former = impulses[len(rows) - 1] if rows else 0.0
        force = study.mean_force(rows, "force", time, impulse, former)
        total += force * (time - rows[-1]["time"]) if rows else force
        rows.append({"time": time, "force": force})
    assert total == pytest.approx(impulses[-1] - impulses[0], rel=1e-12)
    assert study.mean_force(rows, "force", times[-1], impulses[-1], impulses[-1]) == rows[-1]["force"]


def test_a_study_clears_what_is_old_and_stops_for_a_check_that_is_not_passed(tmp_path, capsys):
    for name in ("summary.json", "mine.txt"):
        (tmp_path / name).write_text("old")
    study.prepare(tmp_path, ("summary.json",))
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt"}
    bad, good = {"passed": False, "found": 2.0}, {"passed": True, "found": 1.0}
    summary = {"checks": {"energy": bad, "mass": good}}
    assert study.failed(summary) == [f"energy: {bad}"]

    def work():
        study.end(MPI.COMM_SELF, tmp_path, summary, lambda: None, "Done.", study.failed(summary))

    assert study.main(MPI.COMM_SELF, work) == 1
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    said = capsys.readouterr()
    assert "Done. Results in" in said.out
    assert said.err.startswith("The run does not pass its check of energy")


def test_an_error_of_a_writer_is_one_sentence(tmp_path, capsys):
    def work():
        (tmp_path / "none" / "file").write_text("")

    assert study.main(MPI.COMM_SELF, work) == 1
    assert capsys.readouterr().err.startswith("No such file or directory:")
