"""Files of reduced polycrystals: a few orientations with weights, what they stand for, and their measured errors.

A file is JSON of a few kilobytes, one grain per line. `micro.reduce` writes it; the shipped ones lie beside this
module.

    {
     "schema": 1,
     "material": "magnesium",
     "texture": {"kind": "random", "grains": 128, "seed": 0},
     "grains": [
      {"index": 3, "weight": 0.0731, "euler": [phi_1, Phi, phi_2]},
      ...
     ],
     "errors": {"walks": {"training": ..., "held_out": ...}, "impact": {...}},
     "made_by": {...}
    }
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micro.crystal.texture import Texture, from_euler
from micro.data.files import write_whole

SCHEMA = 1
FOLDER = Path(__file__).with_name("reduced_textures")
COMMAND = "python3 -m micro.reduce"


@dataclass(frozen=True)
class ReducedTexture:
    """A few grains that stand for a texture.

    Attributes:
        material: Name or path of the material on whose stresses the grains were chosen.
        source: The full texture: "kind", "grains" and "seed", or its file.
        index: Numbers of the grains in the full texture (k,).
        euler: Bunge's Euler angles of their orientations (k, 3), degrees.
        weights: Their weights (k,), positive, with sum one.
        errors: Relative errors of the deviator by kind of path, "training" and "held_out".
        made_by: Command, paths and code.
    """

    material: str
    source: Mapping[str, Any]
    index: np.ndarray
    euler: np.ndarray
    weights: np.ndarray
    errors: Mapping[str, Any]
    made_by: Mapping[str, Any]

    def __post_init__(self) -> None:
        k = len(self.weights)
        if self.weights.shape != (k,) or k < 1 or self.euler.shape != (k, 3) or self.index.shape != (k,):
            raise ValueError("A reduced texture needs as many indices and Euler angles as weights, and at least one.")
        if not (np.isfinite(self.weights).all() and (self.weights > 0).all() and abs(self.weights.sum() - 1) < 1e-9):
            given = self.weights.tolist()
            raise ValueError(f"The weights of a reduced texture must be positive with sum 1, got {given}.")
        if not np.isfinite(self.euler).all():
            raise ValueError("The Euler angles of a reduced texture must be finite.")

    @property
    def texture(self) -> Texture:
        """Orientations, crystal frame to sample frame, and weights."""
        return Texture(from_euler(torch.from_numpy(self.euler)), torch.from_numpy(self.weights))

    def describe(self) -> str:
        """One line: what it stands for and its errors on paths that were held out."""
        held = ", ".join(f"{100 * value['held_out']:.2g} % on {kind}" for kind, value in self.errors.items())
        return f"{len(self.weights)} grains for {self.source['grains']} of {self.material}; held-out error {held}"


def write_reduced(path: Path, reduced: ReducedTexture) -> None:
    """Write a reduced texture, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    grains = [
        json.dumps({"index": int(i), "weight": float(w), "euler": [float(c) for c in q]})
        for i, w, q in zip(reduced.index, reduced.weights, reduced.euler, strict=True)
    ]
    head = {"schema": SCHEMA, "material": reduced.material, "texture": dict(reduced.source)}
    tail = {"errors": dict(reduced.errors), "made_by": dict(reduced.made_by)}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    lines.append(' "grains": [\n  ' + ",\n  ".join(grains) + "\n ]")
    lines += [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in tail.items()]
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_reduced(path: Path) -> ReducedTexture:
    """Read a reduced texture.

    Raises:
        ValueError: There is no such file, or it is damaged.
    """
    if not path.is_file():
        raise ValueError(f"There is no reduced texture {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, got {content['schema']!r}")
        grains = content["grains"]
        return ReducedTexture(
            material=str(content["material"]),
            source=dict(content["texture"]),
            index=np.array([grain["index"] for grain in grains], dtype=np.int64),
            euler=np.array([grain["euler"] for grain in grains], dtype=np.float64).reshape(-1, 3),
            weights=np.array([grain["weight"] for grain in grains], dtype=np.float64),
            errors=dict(content["errors"]),
            made_by=dict(content["made_by"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        lacks = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no reduced texture: {lacks}") from error


def shipped_name(material: str, grains: int) -> str:
    """File name of a shipped reduced texture of random orientations."""
    return f"{material}-{grains}.json"


def find_reduced(grains: int, material: str, seed: int) -> ReducedTexture:
    """Find the shipped reduced texture of a number of grains.

    Raises:
        ValueError: There is none; the sentence names those that are there and how to make another.
    """
    path = FOLDER / shipped_name(str(material), grains)
    if seed == 0 and path.is_file():
        return read_reduced(path)
    sets = [name.stem.rpartition("-") for name in FOLDER.glob("*.json")]
    known = sorted((name, int(number)) for name, _, number in sets)
    listed = ", ".join(f"{number} of {name}" for name, number in known)
    raise ValueError(
        f"There is no reduced set of {grains} grains of {material} with the seed {seed}; shipped are {listed} "
        f"(seed 0). Make one by {COMMAND} and give its file as reduced, or draw random grains with reduced=False."
    )
