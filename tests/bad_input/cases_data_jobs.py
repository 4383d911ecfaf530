"""Bad input at configuration files, inspection and merging of data sets."""

import shutil
from collections.abc import Callable
from pathlib import Path

from bad_input import ROOT, Case

BEFORE = ROOT / "tests" / "micro" / "data" / "before_the_move"
SET = "{folder}/set"


def copy(folder: Path) -> None:
    """Put a finished set of two samples into the folder."""
    shutil.copytree(BEFORE, folder / "set")


def damaged(folder: Path) -> None:
    """Put a set there whose second shard ends early."""
    copy(folder)
    path = folder / "set" / "shard-0001.h5"
    path.write_bytes(path.read_bytes()[:3000])


def file(text: str) -> Callable[[Path], None]:
    """Return what puts a configuration file there."""

    def prepare(folder: Path) -> None:
        (folder / "set.toml").write_text(text)

    return prepare


def config(text: str, sentence: str, ranks: int = 1) -> Case:
    """A case of a configuration file."""
    return Case("micro.generate", ("set.toml", "--output", SET), sentence, file(text), ranks=ranks)


TAYLOR = 'source = "taylor"\nsamples = 4\n'

CASES = [
    config("", "source in set.toml must be the name of a source, got None"),
    config("\x00", "set.toml is not a valid TOML file"),
    config('source = "taylr"', "source in set.toml must be one of taylor, .*, got 'taylr'"),
    config(TAYLOR + "grain = 4", "grain in set.toml is not an option of taylor; grains is one"),
    config(TAYLOR + "substeps = 2", "substeps in set.toml is not an option of taylor"),
    config(TAYLOR + 'grains = "many"', "grains in set.toml must be a whole number, got 'many'", ranks=3),
    config(TAYLOR + "grains = 2.0", "grains in set.toml must be a whole number, got 2.0"),
    config(TAYLOR + "grains = -1", "grains must be at least 1, got -1"),
    config(TAYLOR + "strain = [1e308]", r"strain must lie between 1e-09 and 100, got 1e\+308"),
    config(TAYLOR + "duration = inf", "duration must be one positive number or two that increase, got inf"),
    config(TAYLOR + "strain = [0.1, 0.2, 0.3]", "strain must be one positive number or two that increase, got 0.1 0.2"),
    config(TAYLOR + 'protocols = "wander"', "Argument --protocols: invalid choice: 'wander'"),
    config(TAYLOR + "holds = 1000000000", "holds must be one whole number from 0 to 1000000"),
    config(TAYLOR + "holds = 1000000", "steps must be at least .* for these holds, jumps and ringing, got 200"),
    config(TAYLOR + "ringing = 1\nringing_cycles = 1000000000000", "steps must be at least .* got 200"),
    config(TAYLOR + 'material = "unobtainium"', "material must be .*, got 'unobtainium'"),
    config(TAYLOR + 'texture = "nowhere.txt"', "texture"),
    config(TAYLOR + "verify = true", "verify in set.toml must be a whole number, got True"),
    config(TAYLOR + "[paths]\nstrain = 0.1", "paths in set.toml is not an option of taylor"),
    Case("micro.generate", ("none.toml",), "none.toml cannot be read: No such file or directory"),
    Case("micro.inspect", (), "arguments are required: DATA"),
    Case("micro.inspect", (SET,), "is not a directory"),
    Case("micro.inspect", (SET,), "shard-0001.h5 is damaged", damaged),
    Case("micro.inspect", (SET, "--samples", "0"), "samples must be at least 1, got 0", copy),
    Case("micro.inspect", (SET, "--samples", "1000"), "samples must be at most 20, got 1000", copy),
    Case("micro.inspect", (SET, "--output", "/dev/full"), "output must be a folder, /dev/full is a file", copy),
    Case("micro.merge", (), "arguments are required: DATA, --output"),
    Case("micro.merge", (SET, "--output", "{folder}/new"), "merge needs at least two sets, got 1", copy),
    Case("micro.merge", (SET, SET, "--output", "{folder}/new"), "they hold the same samples", copy),
    Case("micro.merge", (SET, SET, "--output", SET), "output must be a new or empty directory", copy),
    Case("micro.merge", (SET, "{folder}", "--output", "{folder}/new"), "is not a data set", copy),
    Case("demos/crystal/make_sets.py", (), "arguments are required: --output"),
    Case("demos/crystal/make_sets.py", ("--output", "out", "--samples", "0"), "--samples must be at least 1, got 0"),
    Case("demos/crystal/make_sets.py", ("--output", "out", "--only", "wlks"), "--only must name sets among .*'wlks'"),
    Case("demos/crystal/make_sets.py", ("--output", "out", "--seed", "4"), "--seed must not be given"),
]
