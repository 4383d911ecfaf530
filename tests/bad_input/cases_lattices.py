"""Bad input at the studies of lattices and at the benchmark of the explicit solver."""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input import ROOT, Case
from loading import load_file
from mpi4py import MPI

FOLDER = "demos/lattices"
COMPRESSION, TORSION, CYCLIC = (f"{FOLDER}/{name}.py" for name in ("compression", "torsion", "cyclic"))
BENCH = "demos/benchmarks/bench_explicit.py"
SMALL = ["--law", "lattice-cube-1", "--n", "2", "--size", "5", "--steps", "1", "--threads", "1"]
RESTART = [*SMALL, "--case", "lcC1", "--restart", "{folder}/run", "--output", "{folder}/out"]
NEED = r"need about \S+ [MGTP]B of memory, but only \S+ [MGTP]B are available\."
THREADS = r"--threads must be at most \d+ on this machine, got 100000\."


@functools.cache
def written() -> dict[str, bytes]:
    """The checkpoints of a small run, name -> content."""
    study = load_file(ROOT / COMPRESSION)
    with tempfile.TemporaryDirectory() as folder:
        words = [*SMALL, "--case", "lcC1", "--checkpoint", "--output", folder]
        assert study.main(words, MPI.COMM_SELF) == 0
        return {path.name: path.read_bytes() for path in (Path(folder) / "checkpoint").iterdir()}


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Put the checkpoints of the small run into the folder, one of them changed."""

    def prepare(folder: Path) -> None:
        (folder / "run" / "checkpoint").mkdir(parents=True)
        for file, content in written().items():
            (folder / "run" / "checkpoint" / file).write_bytes(change(content) if file == name else content)

    return prepare


def row(**changes: Any) -> Callable[[bytes], bytes]:
    """Change the last row of those beside a checkpoint."""

    def change(content: bytes) -> bytes:
        rows = json.loads(content)
        return json.dumps([*rows[:-1], rows[-1] | changes]).encode()

    return change


def restart(name: str, change: Callable[[bytes], bytes], sentence: str, ranks: int = 1) -> Case:
    """A case of a run that goes on from damaged checkpoints."""
    return Case(COMPRESSION, RESTART, sentence, prepare=damaged(name, change), ranks=ranks)


ROWS, FIELDS = "lcC1-law.json", "lcC1-law.h5"
CASES: list[Case] = [
    # sizes that cannot fit or cannot end
    Case(COMPRESSION, ["--n", "2000"], rf"--n must be smaller: \S+ bars {NEED}"),
    Case(TORSION, ["--n", "2000"], rf"--n must be smaller: \S+ bars {NEED}"),
    Case(CYCLIC, ["--n", "2000"], rf"--n must be smaller: \S+ bars {NEED}"),
    Case(COMPRESSION, ["--size", "0.01"], rf"--size must be larger: \S+ finite elements {NEED}"),
    Case(TORSION, ["--size", "0.01"], rf"--size must be larger: \S+ finite elements {NEED}"),
    Case(CYCLIC, ["--size", "0.01"], rf"--size must be larger: \S+ finite elements {NEED}"),
    Case(COMPRESSION, ["--size", "0.01"], rf"--size must be larger: \S+ finite elements {NEED}", ranks=2),
    Case(COMPRESSION, ["--size", "1e-200"], "--size must be larger"),
    Case(COMPRESSION, ["--steps", "1000000000"], r"--steps must be at most 100000, got 1000000000\."),
    Case(COMPRESSION, ["--threads", "100000"], THREADS),
    # numbers that are finite but absurd
    Case(COMPRESSION, [*SMALL, "--grading", "1e300"], "grading 1e[+]?300 makes a layer of", ranks=2),
    Case(COMPRESSION, ["--size", "nan"], r"--size must be a positive finite number, got nan\."),
    # damaged checkpoints
    restart("options.json", lambda content: content[:-5], r"options\.json is damaged"),
    restart("options.json", lambda content: b"[1, 2]", r"options\.json is damaged: it must hold the options by name\."),
    restart(ROWS, lambda content: content[: len(content) // 2], r"lcC1-law\.json is damaged"),
    restart(ROWS, row(time=float("nan")), r"lcC1-law\.json is damaged: it must hold the rows of a run"),
    restart(ROWS, row(work=None), r"lcC1-law\.json is damaged: it must hold the rows of a run", ranks=2),
    restart(FIELDS, lambda content: content[: len(content) // 2], r"lcC1-law\.h5"),
    restart(FIELDS, lambda content: b"no checkpoint", r"lcC1-law\.h5", ranks=2),
    # the wrong thing in the right place
    Case(COMPRESSION, ["--law", "tann-square-2"], "--law must be an artifact of a lattice cell in three dimensions"),
    Case(COMPRESSION, ["--law", "magnesium-recurrent"], "--law must be an artifact of a lattice cell"),
    Case(BENCH, ["--laws", "tann-square-2"], "the explicit solver needs finite strain in 3 dimensions"),
    Case(BENCH, ["--laws", "hooke"], r'There is no law or artifact file "hooke"; shipped laws are'),
    Case(BENCH, ["--laws", "magnesium-j2", "--cells", "2000"], "memory", ranks=2),
    Case(BENCH, ["--laws", "magnesium-j2", "--threads", "100000"], THREADS),
]
