"""Lattice parameters: a cell and the law of its bars as plain numbers for a manifest, and back."""

import dataclasses
from typing import Any

import numpy as np

from micro.lattice.bars import LAWS, BarLaw
from micro.lattice.geometry import Cell, make_cell


def lattice_parameters(cell: Cell, bar: BarLaw, *, perturbation: float, seed: int) -> dict[str, Any]:
    """What tells a cell of `micro.lattice.make_cell` and its bars apart from all others.

    Args:
        cell: The cell.
        bar: The law of its bars.
        perturbation: What it was made with.
        seed: What it was made with.
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
    """Cell and bar law that `lattice_parameters` told.

    Raises:
        ValueError: There is no such cell or bar law.
    """
    told, bar = parameters["cell"], dict(parameters["bar"])
    kind = bar.pop("name")
    if kind not in LAWS:
        raise ValueError(f"bar must be one of {', '.join(LAWS)}, got {kind!r}.")
    # The numbers that were written, not the seed: a stream may change from one version of NumPy to the next.
    return dataclasses.replace(make_cell(told["name"]), nodes=np.array(told["nodes"])), LAWS[kind](**bar)
