"""The short stories: each runs on one rank and on two, checks itself, and leaves numbers, a picture and its fields."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORIES = ["impact", "implicit", "own_law", "own_forms", "lattice", "graded", "polycrystal"]
SHRUNKEN = {  # constants of the pipeline for a run of seconds; its law is hardly trained
    "GRAINS, SAMPLES, EPOCHS = 64, 256, 80": "GRAINS, SAMPLES, EPOCHS = 2, 24, 1",
    "BOUND = 0.2": "BOUND = 1.5",
    "END = 1e-3, 3e-3, 150.0, 1.5e-6": "END = 1e-3, 3e-3, 150.0, 5e-7",
}


def numbers(value):
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        return [n for entry in value.values() for n in numbers(entry)]
    if isinstance(value, list):
        return [n for entry in value for n in numbers(entry)]
    return [value] if isinstance(value, (int, float)) else []


def call(path, folder, ranks=1):
    """Run a demo in a folder."""
    left_out = ("OMPI_COMM", "PMIX_")  # of this process, if it has a rank
    environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, "-W", "error::SyntaxWarning", str(path)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def check(name, folder, done):
    """Exit code, closing line, summary of finite numbers, picture and fields; returns the summary."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.strip().splitlines()) == 1, done.stdout
    results = folder / "results" / name
    summary = json.loads((results / "summary.json").read_text())
    found = numbers(summary)
    assert found and all(math.isfinite(n) for n in found)
    pictures = list(results.glob("*.png"))
    assert pictures and all(picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for picture in pictures)
    assert any(results.rglob("texture_*.txt" if name == "polycrystal" else "fields.*"))
    return summary


def story(name):
    """The file of a story."""
    return ROOT / "demos" / f"{name}.py"


def shrunken(folder, changes):
    """The pipeline with constants for a run of seconds, as a file in the folder."""
    text = story("pipeline").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "pipeline.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", STORIES)
def test_a_story_runs_and_checks_itself(name, tmp_path):
    check(name, tmp_path, call(story(name), tmp_path))
    assert {entry.name for entry in tmp_path.iterdir()} == {"results"}


def test_the_pipeline_with_few_data(tmp_path):
    """Two grains and a law of one epoch: the pressure is exact all the same, the deviator is not."""
    summary = check("pipeline", tmp_path, call(shrunken(tmp_path, SHRUNKEN), tmp_path, 2))
    assert summary["pressure"] < 1e-6 < 0.4 < summary["deviator"]


def test_the_pipeline_refuses_a_law_that_is_hardly_trained(tmp_path):
    """The bound of the demo is one that a law without training does not meet."""
    changes = {old: new for old, new in SHRUNKEN.items() if "BOUND" not in old}
    done = call(shrunken(tmp_path, changes), tmp_path)
    assert done.returncode != 0
    assert re.search(r"the deviatoric stress differs by \d+ %", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", [*STORIES, "pipeline"])
def test_a_story_runs_on_several_ranks(name, ranks, tmp_path):
    check(name, tmp_path, call(story(name), tmp_path, ranks))


@pytest.mark.parametrize("name", [*STORIES, "pipeline"])
def test_a_story_is_short_and_nearly_half_of_it_is_text(name):
    lines = story(name).read_text().splitlines()
    written = [line for line in lines if line.strip()]
    assert len(lines) <= 150
    assert sum(line.startswith("#") for line in written) >= 0.4 * len(written)
    assert "argparse" not in "\n".join(lines)
