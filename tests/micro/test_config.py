"""Options from a file: the same set as by the command line, and one sentence for each thing that does not fit."""

import json
import logging
from pathlib import Path

import pytest

from micro import generate
from micro.data.config import file_threads

SMALL = """
source = "lattice"
samples = 4
seed = 3
steps = 4
block = 2
increment = [0.01, 0.1]
"""


def write(folder: Path, text: str) -> str:
    """Write a configuration file and return its path."""
    path = folder / "set.toml"
    path.write_text(text)
    return str(path)


def manifest(path: Path) -> dict:
    """Manifest of a set, less what says nothing of its content."""
    content = json.loads((path / "dataset.json").read_text())
    del content["environment"], content["code"]["version"]
    return content


def test_a_file_makes_what_the_options_make(tmp_path: Path) -> None:
    text = SMALL.replace("increment = [0.01, 0.1]", "[lattice]\nincrement = [0.01, 0.1]\ncell-seed = 1")
    assert generate.main([write(tmp_path, text), f"--output={tmp_path}/file"]) == 0
    words = "lattice --samples 4 --seed 3 --steps 4 --block 2 --increment 0.01 0.1 --cell-seed 1".split()
    assert generate.main([*words, f"--output={tmp_path}/options"]) == 0
    assert manifest(tmp_path / "file") == manifest(tmp_path / "options")


def test_options_override_the_file(tmp_path: Path) -> None:
    text = SMALL + f'output = "{tmp_path}/file"\n'
    words = ["--samples=2", "--increment", "0.05", f"--output={tmp_path}/other"]
    assert generate.main([write(tmp_path, text), *words]) == 0
    found = manifest(tmp_path / "other")
    assert found["samples"] == 2 and found["seed"] == 3
    assert found["parameters"]["increment"] == [0.05, 0.05]
    assert not (tmp_path / "file").exists()


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("samples = 4", "source in {file} must be the name of a source, got None."),
        ('source = "latice"', "source in {file} must be one of taylor, cell, lattice, voxels"),
        (SMALL + "stepz = 4", "stepz in {file} is not an option of lattice; steps is one."),
        (SMALL + "colour = 4", "colour in {file} is not an option of lattice."),
        (SMALL + 'zero = "few"', "zero in {file} must be a number, got 'few'."),
        (SMALL + "zero = true", "zero in {file} must be a number, got True."),
        (SMALL + "zero = [0.1, 0.2]", "zero in {file} must be a number, got [0.1, 0.2]."),
        (SMALL + "cell_seed = 1.5", "cell_seed in {file} must be a whole number, got 1.5."),
        (SMALL + "bar = 3", "bar in {file} must be a text, got 3."),
        (SMALL + 'bar = "soft"', "Argument --bar: invalid choice: 'soft'"),
        (SMALL + "zero = 1.5", "zero must lie between 0 and 1, got 1.5."),
        (SMALL + "zero = nan", "zero must lie between 0 and 1, got nan."),
        (SMALL.replace("[0.01, 0.1]", "[]"), "increment in {file} must be a number, or a list of such, got []."),
        (SMALL.replace("[0.01, 0.1]", "[1, true]"), "increment in {file} must be a number, or a list of such, got"),
        (SMALL.replace("samples = 4", "samples = 0"), "samples must be at least 1, got 0."),
        (SMALL + "[lattice]\nsteps = 5", "steps in {file} must be given once, got it twice."),
        (SMALL + "[lattice.colours]\nred = 5", "colours in {file} is not an option of lattice."),
        (SMALL + "lattice = 5", "lattice in {file} must be a table of options, got 5."),
        ("source = ", "{file} is not a valid TOML file"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    with caplog.at_level(logging.ERROR):
        assert generate.main([path, f"--output={tmp_path}/set"]) == 2
    from micro.data.ranks import world

    if world().rank == 0:
        assert sentence.format(file=path) in caplog.text
        assert caplog.text.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_a_file_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert generate.main([f"{tmp_path}/none.toml"]) == 2
    assert "none.toml cannot be read: No such file or directory." in caplog.text


def test_threads_of_a_file_are_known_before_libraries_are_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL + "threads = 2\n")
    assert file_threads([path, "--samples", "4"]) == ["--threads=2"]
    assert file_threads([f"{tmp_path}/none.toml"]) == file_threads(["taylor"]) == file_threads([]) == []


def test_help_has_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from micro.crystal.source import TaylorConfig

    with pytest.raises(SystemExit):
        generate.main(["taylor", "--help"])
    text = " ".join(capsys.readouterr().out.split()).split(" options: ")[1]
    for field in fields(TaylorConfig):
        begin = text.index(f"--{field.name.replace('_', '-')} ")
        entry = text[begin : text.index("(default:", begin) + 60]
        assert entry.count("(default:") >= 1
        assert field.metadata["unit"] in entry
