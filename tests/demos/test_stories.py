"""The short stories: each runs on one rank and on two, checks itself, and leaves numbers and a picture."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORIES = ["impact", "implicit", "own_law", "own_forms"]


def numbers(value):
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        return [n for entry in value.values() for n in numbers(entry)]
    if isinstance(value, list):
        return [n for entry in value for n in numbers(entry)]
    return [value] if isinstance(value, (int, float)) else []


def run(name, folder, *launcher):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [*launcher, sys.executable, "-W", "error::SyntaxWarning", str(ROOT / "demos" / f"{name}.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.strip().splitlines()) == 1, done.stdout
    results = folder / "results" / name
    assert {entry.name for entry in folder.iterdir()} == {"results"}
    found = numbers(json.loads((results / "summary.json").read_text()))
    assert found and all(math.isfinite(n) for n in found)
    pictures = list(results.glob("*.png"))
    assert pictures and all(picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for picture in pictures)
    assert any(results.glob("fields.*"))


@pytest.mark.parametrize("name", STORIES)
def test_a_story_runs_and_checks_itself(name, tmp_path):
    run(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_a_story_runs_on_two_ranks(name, tmp_path):
    run(name, tmp_path, "mpirun", "-n", "2")


@pytest.mark.parametrize("name", STORIES)
def test_a_story_is_short_and_nearly_half_of_it_is_text(name):
    text = code = 0
    lines = (ROOT / "demos" / f"{name}.py").read_text().splitlines()
    telling = False
    for line in lines:
        telling = "[markdown]" in line if line.startswith("# %%") else telling
        text += bool(line) and telling
        code += bool(line) and not telling
    assert len(lines) <= 150
    assert text >= 0.4 * (text + code), (text, code)
    assert "argparse" not in "\n".join(lines)
