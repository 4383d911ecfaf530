"""Bad input at the commands that make and read data sets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input import ROOT, Case

BEFORE = ROOT / "tests" / "micro" / "data" / "before_the_move"
OUTPUT = ("--output", "{folder}/set")
TAYLOR, LATTICE = ("taylor", *OUTPUT, "--samples", "4"), ("lattice", *OUTPUT, "--samples", "4")
SET = ("{folder}/set",)


def copy(folder: Path) -> Path:
    """Put a finished set of two samples into the folder."""
    return Path(shutil.copytree(BEFORE, folder / "set"))


def edited(**changes: Any) -> Callable[[Path], None]:
    """Return what puts a set there whose manifest has other entries."""

    def prepare(folder: Path) -> None:
        path = copy(folder) / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return prepare


def overturned(position: int) -> Callable[[Path], None]:
    """Return what puts a set there, a byte of whose second shard is overturned."""

    def prepare(folder: Path) -> None:
        path = copy(folder) / "shard-0001.h5"
        content = bytearray(path.read_bytes())
        content[position] ^= 0xFF
        path.write_bytes(content)

    return prepare


def truncated(folder: Path) -> None:
    """Put a set there whose second shard ends early."""
    path = copy(folder) / "shard-0001.h5"
    path.write_bytes(path.read_bytes()[:3000])


def begun(folder: Path) -> None:
    """Put an unfinished set of very many samples there, one shard of which is empty."""
    edited(complete=False, samples=10**15)(folder)
    (folder / "set" / "shard-0001.h5").write_bytes(b"")


NEED = r"need about [\d.e+]+ [TP]B"

CASES = [
    # Sizes that cannot fit or cannot end.
    Case("micro.generate", ("taylor", *OUTPUT, "--samples", "1e12"), "Argument --samples: invalid int value: '1e12'"),
    Case(
        "micro.generate",
        ("taylor", *OUTPUT, "--samples", "1000000000000"),
        "in blocks of 16 make 62500000000 shards, more than 1000000; take a larger block",
    ),
    Case("micro.generate", ("taylor", *OUTPUT, "--samples", "9" * 30), "samples must be below"),
    Case("micro.generate", (*TAYLOR, "--grains", "1000000000"), f"1000000000 grains and 200 steps {NEED} of memory"),
    Case("micro.generate", (*TAYLOR, "--grains", "1e9"), "Argument --grains: invalid int value"),
    Case("micro.generate", (*TAYLOR, "--grains", "9" * 400), "grains must be at most"),
    Case("micro.generate", (*TAYLOR, "--knots", "1000000000000"), f"{NEED} of memory"),
    Case("micro.generate", (*TAYLOR, "--steps", "100000000"), "steps must be at most 10000000"),
    Case("micro.generate", (*TAYLOR, "--threads", "100000"), r"threads must be at most \d+ on this machine, got 1000"),
    Case("micro.generate", (*LATTICE, "--cell", "cube-60"), f"cells of 226981 nodes such as cube-60 {NEED} of memory"),
    Case("micro.generate", (*LATTICE, "--steps", "10000000000"), f"10000000000 steps {NEED} of memory"),
    # Numbers that are finite but absurd, or no numbers.
    Case("micro.generate", (*TAYLOR, "--strain", "1e308"), r"strain must lie between 1e-09 and 100, got 1e\+308"),
    Case("micro.generate", (*TAYLOR, "--strain", "nan"), "strain must be one positive number or two"),
    Case("micro.generate", (*TAYLOR, "--duration", "1e-320"), "duration must lie between 1e-12"),
    Case("micro.generate", (*TAYLOR, "--margin", "nan"), "margin must lie between 0 and 1, got nan"),
    Case("micro.generate", (*TAYLOR, "--grain-seed", "9" * 30), "grain-seed must lie between"),
    Case("micro.generate", (*LATTICE, "--increment", "nan"), "increment must be one positive number or two"),
    Case("micro.generate", (*LATTICE, "--increment", "1e300"), "increment must lie between"),
    Case("micro.generate", (*LATTICE, "--zero", "nan"), "zero must lie between 0 and 1, got nan"),
    Case("micro.generate", (*LATTICE, "--perturbation", "nan"), "perturbation must be finite, got nan"),
    Case("micro.generate", (*LATTICE, "--perturbation", "1e300"), "perturbation must lie between 0 and 1"),
    Case("micro.generate", (*LATTICE, "--modulus", "1e308"), "modulus must lie between"),
    Case("micro.generate", (*LATTICE, "--strength", "inf"), "strength must lie between"),
    Case("micro.generate", (*LATTICE, "--cell", "cube-0"), "name must be square-k or cube-k"),
    # The wrong thing in the right place.
    Case("micro.generate", (), "The following arguments are required: SOURCE"),
    Case("micro.generate", ("taylr", *OUTPUT), "invalid choice: 'taylr'"),
    Case("micro.generate", (*TAYLOR, "--device", "tpu"), "device must be cpu or cuda, got 'tpu'"),
    Case("micro.generate", ("taylor", "--output", "/dev/full", "--samples", "4"), "output must be a directory"),
    Case("micro.generate", ("taylor", "--output", "/proc/set", "--samples", "4"), "cannot be read or written", code=1),
    Case("micro.generate", (*TAYLOR, "--grains", "0"), "grains must be at least 1, got 0", ranks=3),
    Case("demos/crystal_study.py", ("--grains", "1000000000"), f"1000000000 grains {NEED} of memory"),
    Case("demos/crystal_study.py", ("--threads", "100000"), "--threads must be at most"),
    Case("demos/crystal_study.py", ("--duration", "nan"), "--duration must lie between 1e-12 and 1e[+]09, got nan"),
    Case("demos/crystal_study.py", ("--walks", "0"), "--walks must be at least 1, got 0"),
    Case("demos/benchmarks/bench_lattice.py", ("--n", "20000"), f"20000 x 20000 x 20000 cells {NEED} of memory"),
    Case("demos/benchmarks/bench_lattice.py", ("--n", "0"), "--n must be different positive integers"),
    Case("demos/benchmarks/bench_lattice.py", ("--cell", "cube-60"), f"such as cube-60 {NEED} of memory"),
    # Damaged sets.
    Case("micro.data.dataset", SET, "is not a directory"),
    Case("micro.data.dataset", (), "arguments are required: DIR"),
    Case("micro.data.dataset", SET, "shard-0001.h5 is damaged", truncated),
    *(Case("micro.data.dataset", SET, r"shard-0001\.h5 (is damaged|must hold)", overturned(k)) for k in (726, 913)),
    Case("micro.data.dataset", SET, r"shard-0001\.h5 is damaged", overturned(1947)),
    Case("micro.data.dataset", SET, "shards in .* must be a list, got None", edited(shards=None)),
    Case("micro.data.dataset", SET, r"shards\[0\] in .* must be an object, got 1", edited(shards=[1, 2])),
    Case("micro.data.dataset", SET, "must list the 1000000000000000 shards", edited(samples=10**15)),
    Case(
        "micro.data.dataset",
        (*SET, "--allow-partial"),
        "shard-0001.h5 is damaged, truncated",
        begun,
    ),
    Case("micro.data.dataset", SET, r"code\.version is missing", edited(code={"hash": "", "modules": {}})),
    Case("micro.generate", ("taylor", *OUTPUT, "--samples", "2"), "shards in .* must be a list", edited(shards=None)),
    Case(
        "micro.generate",
        ("taylor", *OUTPUT, *"--samples 2 --seed 5 --block 1 --grains 1 --steps 2 --knots 2".split()),
        "code of .* is not the code the set was begun with",
        copy,
    ),
]
