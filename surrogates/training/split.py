"""Split: which samples of a data set are held out of training, by one rule for all kinds of data.

The samples with the largest ids are held out. Every sample is drawn from a random stream of its own id, so the last
ones are as random as any, and the rule depends neither on a seed nor on the order of the samples in the files. Each
of several data sets is split in this way, so that the errors represent all of them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np


class SampleSet(Protocol):
    """Samples with ids, from which an index array selects a part."""

    @property
    def ids(self) -> np.ndarray:
        """Sample ids (s,)."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, rows: Any, /) -> Self:
        """The samples of an index array, a mask or a slice."""


S = TypeVar("S", bound=SampleSet)


def split(samples: S, held_out: int | None = None) -> tuple[S, S]:
    """Split a data set into training samples and held-out samples, both in the order of their ids.

    Args:
        samples: The data set.
        held_out: Number of samples to hold out; None for a tenth, at least one.

    Raises:
        ValueError: One of the two parts would be empty.
    """
    n = max(1, len(samples) // 10) if held_out is None else held_out
    if len(samples) < 2:
        raise ValueError(f"A data set must have at least 2 samples to hold one out, got {len(samples)}.")
    if not 0 < n < len(samples):
        raise ValueError(f"held_out must lie between 1 and {len(samples) - 1} for {len(samples)} samples, got {n}.")
    order = np.argsort(samples.ids, kind="stable")
    return samples[order[:-n]], samples[order[-n:]]


def split_each(parts: Sequence[S], held_out: int | None = None) -> tuple[list[S], list[S]]:
    """Split each of several data sets; returns the training parts and the held-out parts, see `split`."""
    pairs = [split(part, held_out) for part in parts]
    return [train for train, _ in pairs], [held for _, held in pairs]


def joined_hash(hashes: Sequence[str]) -> str:
    """Content hash of several data sets trained on together; that of the set itself if there is one."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def same_size(sizes: Sequence[Any], what: str = "number of times") -> None:
    """Check that data sets that are joined agree in a size.

    Raises:
        ValueError: They do not.
    """
    if len(set(sizes)) > 1:
        raise ValueError(f"Data sets trained on together must have the same {what}, got {list(sizes)}.")


def check_finite(arrays: Mapping[str, Any], ids: np.ndarray, path: str | Path) -> None:
    """Check that the arrays of a data set are finite.

    Args:
        arrays: NumPy arrays by name, samples first.
        ids: Sample ids (s,).
        path: The data set, for the sentence.

    Raises:
        ValueError: An array holds a value that is not; the sentence names the array and the first such sample.
    """
    for name, values in arrays.items():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            bad = int(ids[np.flatnonzero(~finite)[0]])
            raise ValueError(f"{path}: {name} must be finite, but that of sample {bad} holds nan or infinity.")
