"""Verification: samples of a set solved again at a tighter tolerance or by other code, and the differences."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from micro.data.dataset import read_arrays
from micro.data.manifest import first_difference
from micro.data.source import Block
from micro.tensors import ORDERS, Order, mandel_factors

#: Factor between the tolerance of a set and that of its verification.
FACTOR = 10.0


@dataclass(frozen=True)
class Difference:
    """Differences of one sample.

    Attributes:
        sample: sample id.
        full: relative difference by name of the array, in the norm over all its numbers (tensors: Frobenius).
        deviator: the same for the deviator of the stress; empty where there is no stress in three dimensions.
        reason: why it could not be solved again; empty where it was.
    """

    sample: int
    full: dict[str, float]
    deviator: dict[str, float]
    reason: str = ""


def check_same(begun: dict, asked: dict) -> None:
    """Check that a job describes the set that is to be verified; its size and code may differ.

    Raises:
        ValueError: one sentence names what differs.
    """
    asked = asked | {"code": begun["code"], "samples": begun["samples"]}
    difference = first_difference(begun, asked)
    if difference:
        raise ValueError(difference)


def choose(status: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of `count` good samples, spread evenly over a set; all where it has fewer."""
    good = np.flatnonzero(status == 0)
    return good[np.unique(np.linspace(0, len(good) - 1, min(count, len(good))).astype(int))]


def relative(stored: np.ndarray, again: np.ndarray) -> float:
    """Return the norm of a difference relative to that of the better solution; zero where both are zero."""
    size, difference = float(np.linalg.norm(again)), float(np.linalg.norm(again - stored))
    return difference / size if size > 0 else float(difference > 0)


def mandel(a: np.ndarray, order: Order) -> np.ndarray:
    """Return components (..., c) as Mandel vectors, whose norm is that of their tensor."""
    return a * np.array(mandel_factors(order))


def compare(sample: int, stored: dict[str, np.ndarray], again: dict[str, np.ndarray], reason: str) -> Difference:
    """Return the differences of a sample in every array that the solver made; inputs, which agree to the bit, are not.

    Args:
        sample: sample id.
        stored: arrays of the sample in the set.
        again: arrays of the sample as it was solved again.
        reason: why it could not be.
    """
    full: dict[str, float] = {}
    deviator: dict[str, float] = {}
    for name, new in again.items() if not reason else ():
        old = stored[name]
        if old.dtype.kind != "f" or (name != "stress" and np.array_equal(old, new)):
            continue
        order = {3: ORDERS[2], 6: ORDERS[3]}.get(old.shape[-1]) if name == "stress" else None
        if order is not None:
            old, new = mandel(old, order), mandel(new, order)
        full[name] = relative(old, new)
        if order is not None and order.dimension == 3:
            parts = [a - a[..., :3].mean(-1, keepdims=True) * np.array([1, 1, 1, 0, 0, 0]) for a in (old, new)]
            deviator[name] = relative(*parts)
    return Difference(sample, full, deviator, reason)


def verify(directory: Path, asked: dict, count: int, solve: Callable[[np.ndarray], Block]) -> list[Difference]:
    """Solve samples of a set again and compare; the set is only read.

    Args:
        directory: the set, finished or not.
        asked: manifest of the job that describes it.
        count: number of samples.
        solve: what makes the samples of ids (s,) better.

    Returns:
        The differences of each sample.

    Raises:
        ValueError: the set cannot be read, is another one, or has no good sample.
    """
    arrays, begun, _ = read_arrays(directory, allow_partial=True)
    check_same(begun, asked)
    rows = choose(arrays["status"], count)
    if not len(rows):
        raise ValueError(f"{directory} has no good sample to verify.")
    block = solve(arrays["sample"][rows])
    reason = list(block.reason) or [""] * len(rows)
    return [
        compare(
            int(arrays["sample"][row]),
            {name: arrays[name][row] for name in block.arrays},
            {name: np.asarray(array[k]) for name, array in block.arrays.items()},
            reason[k],
        )
        for k, row in enumerate(rows.tolist())
    ]


def report(differences: list[Difference], by: str) -> str:
    """Return the differences as a table: one line per sample, and their means.

    Args:
        differences: of `verify`.
        by: what the samples were solved with, in words.
    """
    solved = [d for d in differences if not d.reason]
    lines = [f"Relative difference of {len(solved)} samples to {by}:"]
    columns = list(dict.fromkeys(name for d in solved for name in d.full))
    heads = [f"{name}{' (full)' if any(name in d.deviator for d in solved) else ''}" for name in columns]
    heads += [f"{name} (deviator)" for name in dict.fromkeys(name for d in solved for name in d.deviator)]

    def row(label: str, values: list[float]) -> str:
        cells = (f"{value:.3e}".rjust(max(len(head), 9)) for value, head in zip(values, heads, strict=True))
        return "  ".join([label.ljust(12), *cells])

    lines.append("  ".join(["sample".ljust(12), *(head.rjust(max(len(head), 9)) for head in heads)]))
    table = [[*(d.full.get(name, 0.0) for name in columns), *d.deviator.values()] for d in solved]
    lines += [row(str(d.sample), values) for d, values in zip(solved, table, strict=True)]
    lines += [f"{d.sample:<12d}  not solved: {d.reason}" for d in differences if d.reason]
    if table:
        lines += [row("mean", np.mean(table, axis=0).tolist()), row("largest", np.max(table, axis=0).tolist())]
    return "\n".join(lines)
