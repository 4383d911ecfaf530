"""The commands behind the shipped files: those that they record, and those of `make`, are commands of today."""

import argparse
import importlib
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from loading import load_file

from surrogates.artifact import shipped

FOLDER = Path(__file__).resolve().parents[3] / "surrogates" / "pretrained"
# Words that a shipped file records, and the command that does the same today.
TODAY = {
    "surrogates.lattice_law": ["surrogates.train", "lattice-exact"],
    "surrogates.voxels": ["surrogates.train", "voxels"],
    "surrogates.johnson_cook": ["surrogates.train", "johnson-cook"],
}
# An option with one value of the former crystal, whose labels the shipped laws of magnesium learned; it has none today.
GONE = "--substeps"


class Parsed(BaseException):
    """The command line was accepted; no work is done. No command catches it."""


def recorded(content: object) -> list[str]:
    """All commands in the `.json` of a shipped file."""
    if isinstance(content, dict):
        return [command for value in content.values() for command in recorded(value)]
    if isinstance(content, list):
        return [command for value in content for command in recorded(value)]
    if isinstance(content, str) and content.startswith("python3 -m "):
        return content.split("; ")
    return []


COMMANDS = sorted({
    (entry.name, command)
    for entry in shipped()
    for command in recorded(json.loads(entry.file.with_suffix(".json").read_text()))
})  # fmt: skip


def accepts(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand a command line to its command, which must take it; it ends once its options are read."""
    python, flag, module, *words = shlex.split(command)
    if flag.endswith(".py"):
        python, flag, module, words = python, "-m", flag, [module, *words]
    assert (python, flag) == ("python3", "-m")
    if module == "micro.generate" and "--output" not in words:
        words += ["--output", "folder"]  # a data set does not record where it lies
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self, args=None, namespace=None):
        options = parse_args(self, args, namespace)
        if set(vars(options)) == {"kind"}:  # the kind of law, whose options come next
            return options
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    today, *kind = TODAY.get(module, [module])
    main = (load_file(FOLDER.parents[1] / today) if today.endswith(".py") else importlib.import_module(today)).main
    with pytest.raises(Parsed):
        main([*kind, *words])


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[f"{n}: {c[:40]}" for n, c in COMMANDS])
def test_recorded_command_is_one_of_today(name, command, monkeypatch):
    words = shlex.split(command)
    if words[2:4] == ["micro.generate", "taylor"] and GONE in words:
        place = words.index(GONE)
        del words[place : place + 2]
    accepts(shlex.join(words), monkeypatch)


def test_every_file_but_the_network_of_voxels_records_its_training():
    assert {name for name, _ in COMMANDS} == {entry.name for entry in shipped()}


@pytest.mark.parametrize("command", ["python3 -m surrogates.train tann --data x --output y --no-such-option",
                                     "python3 -m surrogates.train lattice-exact --cell cube-1"])  # fmt: skip
def test_a_wrong_command_is_seen(command, monkeypatch):
    with pytest.raises((SystemExit, pytest.fail.Exception)):
        accepts(command, monkeypatch)


def commands_of_make(folder: Path, *names: str) -> list[str]:
    """The commands that `make` would run: Python and mpirun are replaced by a script that notes what it is told."""
    log, stubs = folder / "log", folder / "stubs"
    stubs.mkdir()
    for name in ("python3", "mpirun"):
        (stubs / name).write_text(f"#!/bin/bash\n{{ printf '%q ' {name} \"$@\"; echo; }} >> {shlex.quote(str(log))}\n")
        (stubs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}", "DATA": str(folder / "data")}
    subprocess.run([FOLDER / "make", *names], check=True, env=environment)
    lines = log.read_text().splitlines()
    return [line.removeprefix("mpirun -n 2 ") for line in lines]


def test_make_makes_every_file_by_commands_of_today(tmp_path, monkeypatch):
    monkeypatch.delenv("RANKS", raising=False)
    commands = commands_of_make(tmp_path, "all", "models")
    for command in commands:
        with monkeypatch.context() as patch:
            accepts(command, patch)
    made = {Path(word).name for command in commands for word in command.split() if word.startswith("surrogates/pret")}
    assert {entry.file.name for entry in shipped()} <= made
    assert len(commands) == len(set(commands))  # laws that share a data set make it once


def test_make_refuses_an_unknown_name(tmp_path):
    done = subprocess.run([FOLDER / "make", "no-such-law"], capture_output=True, text=True,
                          env={**os.environ, "DATA": str(tmp_path)})  # fmt: skip
    assert done.returncode == 2 and "there is no file of the name no-such-law" in done.stderr
