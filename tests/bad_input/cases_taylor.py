"""Bad input at the Taylor anvil: absurd numbers, sizes that cannot fit, damaged checkpoints."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from bad_input import ROOT, Case
from loading import load_file
from mpi4py import MPI

from fem.io import checkpoint

DEMO = "demos/taylor_anvil.py"
SMALL = ["--law", "magnesium-j2", "--cells", "4", "--length", "1e-3", "--until", "1e-6", "--frames", "0"]
MEMORY = r"The mesh would have about \S+ cells and need about \S+ GB of memory"


@functools.cache
def written() -> bytes:
    """A checkpoint of the small bar."""
    demo = load_file(ROOT / DEMO)
    with tempfile.TemporaryDirectory() as folder:
        assert demo.main([*SMALL, "--until", "2e-7", "--output", folder], MPI.COMM_SELF) == 0
        return (Path(folder) / "checkpoint.h5").read_bytes()


def damaged(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Put a checkpoint whose content was changed, but is whole otherwise, into the folder."""

    def prepare(folder: Path) -> None:
        path = folder / "run.h5"
        path.write_bytes(written())
        with h5py.File(path, "r+") as file:
            change(file)
        checkpoint.stamp(path)

    return prepare


def put(name: str, value: Any) -> Callable[[Any], None]:
    """Replace a field."""

    def change(file: Any) -> None:
        del file[name]
        file[name] = value

    return change


def spoilt(change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    """Put a checkpoint whose bytes were changed into the folder."""

    def prepare(folder: Path) -> None:
        content = bytearray(written())
        change(content)
        (folder / "run.h5").write_bytes(content)

    return prepare


def overturn(content: bytearray) -> None:
    """Turn some bytes in the middle over."""
    middle = len(content) // 2
    content[middle : middle + 16] = bytes(255 - byte for byte in content[middle : middle + 16])


def cut(content: bytearray) -> None:
    """Leave out the end."""
    del content[-500:]


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (damaged(lambda file: file.pop("nodes/velocity")), "checkpoint run.h5 has no field velocity"),
    (damaged(lambda file: file.pop("cells/state")), "checkpoint run.h5 has no field state"),
    (damaged(lambda file: file.pop("scalars/steps")), "checkpoint run.h5 has no field steps"),
    (damaged(put("nodes/u", np.zeros((3, 3)))), r"run.h5 does not fit this mesh: u has shape \(3, 3\)"),
    (damaged(put("time", np.nan)), "time must be finite and not negative, got nan"),
    (damaged(put("time", -1.0)), "time must be finite and not negative, got -1.0"),
    (spoilt(overturn), "checkpoint run.h5 is damaged or truncated"),
    (spoilt(cut), "checkpoint run.h5 is damaged or truncated"),
    (spoilt(bytearray.clear), "run.h5 is not a checkpoint"),
]


def case(arguments: list[str], sentence: str, **options: Any) -> Case:
    """A case of the small bar."""
    return Case(DEMO, [*SMALL, "--output", "out", *arguments], sentence, **options)


CASES: list[Case] = [
    case(["--law-options", "grains"], "law-options must be name=value pairs separated by commas, got 'grains'"),
    case(["--law", "taylor-polycrystal", "--law-options", "crystals=4"], "does not take these options"),
    case(["--record", "-1"], "record must be at least 0, got -1"),
    case(["--record", "100000"], "points to record must be between 1 and the"),
    case(["--cells", "2000"], MEMORY),
    case(["--length", "1e308"], "length must lie between 1e-09 m and 1e.06 m, got 1e.308"),
    case(["--length", "1e-320"], "length must lie between"),
    case(["--diameter", "1e200"], "diameter must lie between"),
    case(["--diameter", "1e-320"], "diameter must lie between"),
    case(["--grading", "1e300"], "grading 1e.300 makes a layer of"),
    case(["--hourglass", "1e30"], r"would take about \S+ steps of \S+ s"),
    case(["--hourglass", "1e300"], r"would take about \S+ steps of \S+ s"),
    case(["--density", "1e-300"], "--density must lie between 0.001 and 1e.06 kg/m.3, got 1e-300"),
    case(["--density", "1e300"], "--density must lie between"),
    case(["--safety", "1e-300"], r"would take about \S+ steps of \S+ s"),
    case(["--until", "1e300"], r"would take about \S+ steps of \S+ s"),
    case(["--frames", "1000000000"], "--frames must be at most 100000, got 1000000000"),
    case(["--law", "hooke"], "There is no law or artifact file .hooke."),
    case(["--law", "hooke"], "There is no law or artifact file .hooke.", ranks=3),
    case(["--law", "magnesium-linear-elastic"], "is a law of small strain in 3 dimensions"),
    case(["--velocity", "fast"], "Argument --velocity: invalid float value: 'fast'"),
    *(case(["--restart", "run.h5"], sentence, prepare=prepare) for prepare, sentence in DAMAGE),
    *(case(["--restart", "run.h5"], sentence, prepare=prepare, ranks=3) for prepare, sentence in DAMAGE[::4]),
    case(["--restart", "run.h5", "--cells", "6"], "run.h5 does not fit this mesh", prepare=spoilt(lambda _: None)),
    case(
        ["--restart", "run.h5", "--law", "magnesium-neo-hookean"],
        'written with the law "j2", the solver has "neo-hookean"',
        prepare=spoilt(lambda _: None),
    ),
]
