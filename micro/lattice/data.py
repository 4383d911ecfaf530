"""Lattice set: the parameters of a set of ``micro.generate lattice``, and the reader of such a set."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from micro.data.dataset import good_samples, read_arrays
from micro.lattice.bars import LAWS, BarLaw
from micro.lattice.geometry import Cell, make_cell


def lattice_parameters(cell: Cell, bar: BarLaw, *, perturbation: float, seed: int) -> dict[str, Any]:
    """Parameters that identify a cell of `micro.lattice.geometry.make_cell` and its bars.

    Args:
        cell: The cell.
        bar: The law of its bars.
        perturbation: Of the nodes, as given to `make_cell`.
        seed: Of the perturbation, as given to `make_cell`.
    """
    return {
        "cell": {
            "name": cell.name,
            "perturbation": perturbation,
            "seed": seed,
            "nodes": cell.nodes.tolist(),
            "bars": cell.bars.tolist(),
            "box": cell.box.tolist(),
        },
        "bar": {"name": bar.name, **dataclasses.asdict(bar)},  # type: ignore[call-overload]
    }


def lattice_of(parameters: dict[str, Any]) -> tuple[Cell, BarLaw]:
    """Cell and bar law of parameters as `lattice_parameters` returns them.

    Raises:
        ValueError: There is no such cell or bar law.
    """
    told, bar = parameters["cell"], dict(parameters["bar"])
    kind = bar.pop("name")
    if kind not in LAWS:
        raise ValueError(f"bar must be one of {', '.join(LAWS)}, got {kind!r}.")
    # The numbers that were written, not the seed: a stream may change from one version of NumPy to the next.
    return dataclasses.replace(make_cell(told["name"]), nodes=np.array(told["nodes"])), LAWS[kind](**bar)


@dataclass(frozen=True, eq=False)
class LatticeSet:
    """Strain paths of a lattice cell, good samples alone, in the order of their ids.

    Attributes:
        strain: Average strain (n, T, c), order 11, 22, 12 or 11, 22, 33, 12, 23, 13; zero at first.
        stress: Average stress (n, T, c), Pa, same order.
        psi: Free energy per volume of the cell (n, T), J/m^3.
        dissipation: Dissipated since the time before per volume of the cell (n, T), J/m^3.
        displacement: Displacement of the nodes (n, T, m, d), m.
        force: Force of each whole bar (n, T, b), N.
        bar_state: State of the bars (n, T, b, k): the plastic strain, then what the law adds.
        cell: The cell.
        bar: The law of its bars.
        ids: Sample ids (n,).
        meta: The manifest, ``dataset.json``.
        hash: Content hash of all samples read, failed ones too.
        failed: Reason of each failed sample by id.
    """

    strain: np.ndarray
    stress: np.ndarray
    psi: np.ndarray
    dissipation: np.ndarray
    displacement: np.ndarray
    force: np.ndarray
    bar_state: np.ndarray
    cell: Cell
    bar: BarLaw
    ids: np.ndarray
    meta: dict
    hash: str
    failed: dict[int, str]


def read_lattice_set(path: str | Path, *, allow_partial: bool = False) -> LatticeSet:
    """Read a set of a lattice cell; failed samples are left out, counted and logged.

    Args:
        path: Directory of the set.
        allow_partial: Read the shards that are there of a set that is not finished.

    Raises:
        ValueError: The set is missing, unfinished, mixed, truncated, changed, of another source, or has no good sample.
    """
    arrays, manifest, digest = read_arrays(path, allow_partial=allow_partial)
    if manifest["source"] != "lattice":
        raise ValueError(f"{path} must be a set of the source lattice, got {manifest['source']}.")
    arrays, failed = good_samples(arrays, path)
    cell, bar = lattice_of(manifest["parameters"])
    displacement = arrays["displacement"]
    return LatticeSet(
        **{name: arrays[name] for name in ("strain", "stress", "psi", "dissipation", "force")},
        displacement=displacement.reshape(*displacement.shape[:2], *cell.nodes.shape),
        bar_state=np.stack([arrays[name] for name in ("alpha", "p")[: bar.state_size]], axis=-1),
        cell=cell,
        bar=bar,
        ids=arrays["sample"],
        meta=manifest,
        hash=digest,
        failed=failed,
    )
