"""Verification of samples, and the progress of a job."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from micro import generate
from micro.data import job
from micro.data.verify import choose, compare, relative, report

WORDS = "taylor --samples 3 --seed 1 --strain 0.05 --steps 10 --grains 1 --tolerance 0.04 --duration 1e-5".split()


def test_differences_are_those_that_were_made() -> None:
    """One per mille of a shear stress shows in the deviator, a pressure does not."""
    rng = np.random.default_rng(0)
    again = rng.standard_normal((5, 6))
    pressure = np.array([1.0, 1, 1, 0, 0, 0])
    found = compare(3, {"stress": again + 0.1 * pressure}, {"stress": again}, "")
    weights = np.array([1, 1, 1, 2, 2, 2])
    norm = np.sqrt(np.sum(weights * again**2))
    assert found.full["stress"] == pytest.approx(0.1 * np.sqrt(15) / norm, rel=1e-12)
    assert found.deviator["stress"] == pytest.approx(0.0, abs=1e-14)
    found = compare(3, {"stress": 1.001 * again}, {"stress": again}, "")
    assert found.full["stress"] == pytest.approx(1e-3, rel=1e-9)
    assert found.deviator["stress"] == pytest.approx(1e-3, rel=1e-9)
    assert relative(np.zeros(3), np.zeros(3)) == 0
    text = report([found, compare(4, {}, {}, "it failed")], "something better")
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("mean")] == [["1.000e-03"] * 2]
    assert "not solved: it failed" in text and "Relative difference of 1 samples" in text


def test_good_samples_are_taken_all_over_the_set() -> None:
    status = np.zeros(20, dtype=int)
    status[[0, 7]] = 1
    np.testing.assert_array_equal(choose(status, 3), [1, 10, 19])
    assert len(choose(status, 100)) == 18


def content(folder: Path) -> dict[str, str]:
    """Hash of every file of a folder."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_samples_are_solved_better_and_the_set_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    output = f"--output={tmp_path}/set"
    assert generate.main([*WORDS, output]) == 0
    before = content(tmp_path / "set")
    assert generate.main([*WORDS, output, "--verify", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Relative difference of 2 samples to a tolerance 10 times tighter:" in lines
    rows = {line.split()[0]: [float(word) for word in line.split()[1:]] for line in lines[-4:]}
    assert list(rows) == ["0", "2", "mean", "largest"]
    for full, deviator in rows.values():
        assert 1e-8 < deviator < 0.3 and 1e-8 < full < 0.3
    np.testing.assert_allclose(rows["mean"], (np.array(rows["0"]) + rows["2"]) / 2, rtol=1e-3)
    assert content(tmp_path / "set") == before
    assert generate.main([*WORDS, output, "--verify", "--seed=2"]) == 2
    assert "seed is 2, but the set was begun with 1" in caplog.text
    assert content(tmp_path / "set") == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--verify=-1"], "verify must be at least 1, got -1"),
        (["--verify"], "is not a directory"),
        (["--verify-by", "luck"], "Argument --verify-by: invalid choice: 'luck'"),
    ],
)
def test_bad_verifications(tmp_path: Path, caplog: pytest.LogCaptureFixture, words: list[str], sentence: str) -> None:
    assert generate.main([*WORDS, f"--output={tmp_path}/set", *words]) == 2
    assert sentence in caplog.text
    assert not (tmp_path / "set").exists()


def test_a_source_without_tolerance_cannot_be_verified(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["lattice", "--samples=2", "--steps=2", f"--output={tmp_path}/set"]
    assert generate.main(words) == 0
    assert generate.main([*words, "--verify"]) == 2
    assert "verify needs a source with the option tolerance, lattice has none" in caplog.text
    assert generate.main([*words, "--verify", "--verify-by", "reference"]) == 2
    assert "the source lattice has no independent reference" in caplog.text


def test_progress_counts_the_shards_of_all_ranks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of ten blocks of four samples appear in 12 s, whoever made them: 2 samples/s, 0.5 in each of 4 processes."""
    now = 100.0
    monkeypatch.setattr(job.time, "monotonic", lambda: now)
    monkeypatch.setattr(job.sys.stderr, "isatty", lambda: False, raising=False)
    progress = job.Progress(tmp_path, 10, 10, 4, 4)
    for number in range(6):
        (tmp_path / f"shard-000{number}.h5").touch()
    now = 112.0
    with caplog.at_level("INFO"):
        progress.update(last=True)
    assert "6 of 10 blocks, 2 samples/s, 0.5 samples/s per process, 0.1 min left" in caplog.text
