"""Several sets of strain paths, each with its own number of times, and errors of each kind of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surrogates.path.data import Samples, load_samples
from surrogates.training.split import joined_hash

DATA = "data set of strain paths, of micro.generate taylor; sets may have different numbers of steps"


@dataclass(frozen=True)
class Sets:
    """Several sets of paths, each with its own number of times.

    Attributes:
        parts: The sets.
    """

    parts: tuple[Samples, ...]
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", joined_hash([part.hash for part in self.parts]))

    def __len__(self) -> int:
        """Number of paths."""
        return sum(len(part) for part in self.parts)

    @property
    def meta(self) -> tuple[dict[str, Any], ...]:
        """The manifest of each data set."""
        return tuple(meta for part in self.parts for meta in part.meta)


def load_sets(paths: Sequence[str | Path], held_out: int | None, *, allow_partial: bool) -> tuple[Sets, Sets]:
    """Read data sets and split each; see `surrogates.path.data.load_samples`.

    A set that is given several times counts as often in the training, and once among the held-out paths.
    """
    pairs = {path: load_samples([path], held_out, allow_partial=allow_partial) for path in dict.fromkeys(paths)}
    return Sets(tuple(pairs[path][0] for path in paths)), Sets(tuple(held for _, held in pairs.values()))


def label(samples: Samples) -> str:
    """Name of a set in a table of errors: its protocol, or `mixture`."""
    paths = samples.meta[0].get("parameters", {}).get("paths", {}) if samples.meta else {}
    protocols = paths.get("protocols", ["walk"])
    return str(protocols[0]).replace("-", "_") if len(protocols) == 1 else "mixture"


def errors_of_kinds(sets: Sets, measure: Callable[[Samples], dict[str, float]]) -> dict[str, float]:
    """Errors over all paths, and of each kind of set.

    Args:
        sets: The held-out paths.
        measure: Errors of one set, by name, "full" and "deviatoric" among them.

    Returns:
        "full" and "deviatoric" over all paths, and every error of each kind, as "deviatoric_walk".
    """
    groups: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for part in sets.parts:
        groups.setdefault(label(part), []).append((len(part), measure(part)))
    whole = _mean([entry for entries in groups.values() for entry in entries])
    found = {name: whole[name] for name in ("full", "deviatoric")}
    for name, entries in groups.items():
        found |= {f"{key}_{name}": value for key, value in _mean(entries).items()}
    return found


def _mean(entries: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Means of errors of several sets, weighted with the numbers of their paths."""
    total = sum(count for count, _ in entries)
    return {name: sum(count * one[name] for count, one in entries) / total for name in entries[0][1]}
