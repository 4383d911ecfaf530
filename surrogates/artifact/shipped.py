"""The laws that this repository ships, by name: the folder `surrogates/pretrained` and its index.

The index gives every file a name and one line; everything else is read from the `.json` beside each file. Nothing
but the standard library is needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "pretrained"
INDEX = "index.json"


@dataclass(frozen=True)
class Shipped:
    """A shipped file.

    Attributes:
        name: its name.
        file: the `.pt` or `.json` file.
        kind: "recurrent", "tann", "lattice", ...; "voxel network" and "parameters" are no learned laws.
        dimension: 2 or 3.
        strain: "finite" or "small".
        about: what it is, in one line.
        error: name of the main held-out error, and its value; None where nothing was learned.
    """

    name: str
    file: Path
    kind: str
    dimension: int
    strain: str
    about: str
    error: tuple[str, float] | None

    @property
    def is_law(self) -> bool:
        """Whether it is a law artifact."""
        return self.file.suffix == ".pt" and self.kind != "voxel network"


def shipped(folder: Path = FOLDER) -> tuple[Shipped, ...]:
    """All shipped files, in the order of the index.

    Raises:
        ValueError: the index or a file beside is not there or not readable.
    """
    return tuple(_read(entry, folder) for entry in _json(folder / INDEX)["files"])


def law_names() -> tuple[str, ...]:
    """Names of the shipped laws."""
    return tuple(entry.name for entry in shipped() if entry.is_law)


def find(name: str) -> Shipped | None:
    """The shipped file of a name; the file's own name, with or without its ending, is accepted as well."""
    for entry in shipped():
        if name in (entry.name, entry.file.stem, entry.file.name):
            return entry
    return None


def locate(name: str | Path) -> Path:
    """Path of a law: that of a shipped name, else the name itself as a path (which need not be there)."""
    path = Path(name)
    entry = None if path.is_file() else find(str(name))
    return path if entry is None else entry.file


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def _read(entry: Mapping[str, Any], folder: Path) -> Shipped:
    file = folder / str(entry["file"])
    beside = _json(file.with_suffix(".json"))
    key, errors = entry.get("error"), beside.get("errors", {})
    return Shipped(
        name=str(entry["name"]),
        file=file,
        kind=str(beside.get("kind") or entry["kind"]),
        dimension=int(beside.get("dimension") or entry["dimension"]),
        strain=str(beside.get("strain") or entry["strain"]),
        about=str(entry["about"]),
        error=None if key is None else (str(key), float(errors[key])),
    )
