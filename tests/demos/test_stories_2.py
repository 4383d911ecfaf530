"""The short demos lattice, graded and pipeline: each runs to its end, passes its own checks and leaves what it says."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMOS = Path(__file__).resolve().parents[2] / "demos"
STORIES = ("lattice", "graded", "pipeline")
SECONDS = 600  # a watchdog against hangs, far above what any of them needs
SHRUNKEN = {  # constants of the pipeline for a run of seconds; its law is hardly trained
    "GRAINS, SAMPLES, EPOCHS = 8, 256, 80": "GRAINS, SAMPLES, EPOCHS = 2, 24, 1",
    "BOUND = 0.4": "BOUND = 1.5",
    "END = 1e-3, 3e-3, 150.0, 1.5e-6": "END = 1e-3, 3e-3, 150.0, 5e-7",
}


def call(path, folder, ranks):
    """Run a demo in a folder."""
    left_out = ("OMPI_COMM", "PMIX_")  # of this process, if it has a rank
    environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    environment["PYTHONPATH"] = os.pathsep.join([str(DEMOS.parent), environment.get("PYTHONPATH", "")])
    command = ["mpirun", "-n", str(ranks), sys.executable, str(path)] if ranks > 1 else [sys.executable, str(path)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)


def check(name, folder, done):
    """Exit code, closing line, summary of finite numbers, picture and fields."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(".") and done.stdout.strip().count("\n") == 0
    results = folder / "results" / name
    summary = json.loads((results / "summary.json").read_text())
    assert all(math.isfinite(value) for value in numbers(summary))
    assert (results / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(results.rglob("fields.*"))
    return summary


def numbers(value):
    """All numbers of a summary."""
    if isinstance(value, dict | list):
        return [x for part in (value.values() if isinstance(value, dict) else value) for x in numbers(part)]
    return [] if isinstance(value, str) else [value]


def shrunken(folder, changes=SHRUNKEN):
    """The pipeline with constants for a run of seconds, as a file in the folder."""
    text = (DEMOS / "pipeline.py").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "pipeline.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", STORIES)
def test_is_short_and_mostly_told(name):
    lines = (DEMOS / f"{name}.py").read_text().splitlines()
    written = [line for line in lines if line.strip()]
    assert len(lines) <= 150
    assert sum(line.startswith("#") for line in written) >= 0.4 * len(written)
    assert "argparse" not in "\n".join(lines)


@pytest.mark.parametrize(("name", "ranks"), [("lattice", 1), ("graded", 2)])
def test_runs_and_passes_its_checks(name, ranks, tmp_path):
    check(name, tmp_path, call(DEMOS / f"{name}.py", tmp_path, ranks))


def test_pipeline_with_few_data(tmp_path):
    """Two grains and a law of one epoch: the pressure holds all the same, the deviator does not."""
    summary = check("pipeline", tmp_path, call(shrunken(tmp_path), tmp_path, 2))
    assert summary["pressure"] < 1e-6 < 0.4 < summary["deviator"]


def test_pipeline_refuses_a_law_that_is_hardly_trained(tmp_path):
    """The bound of the demo is one that a law without training does not meet."""
    changes = {old: new for old, new in SHRUNKEN.items() if "BOUND" not in old}
    done = call(shrunken(tmp_path, changes), tmp_path, 1)
    assert done.returncode != 0
    assert re.search(r"the deviatoric stress differs by \d+ %", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ranks"), [("pipeline", 2), ("lattice", 3), ("graded", 3)])
def test_full_size(name, ranks, tmp_path):
    check(name, tmp_path, call(DEMOS / f"{name}.py", tmp_path, ranks))
