"""Export: a law with its manifest and certificate, as an artifact and the `.json` beside it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from surrogates.artifact.load import save_law, write_beside
from surrogates.artifact.schema import SCHEMA, UNITS
from surrogates.certificate import certify, settings


@dataclass(frozen=True)
class Material:
    """What a manifest says of the material, whatever the law is.

    Attributes:
        strain: "finite" or "small".
        dimension: 2 or 3.
        density: kg/m^3.
        moduli: bulk and shear modulus, Pa.
        range: the entries of the manifest's group.
    """

    strain: str
    dimension: int
    density: float
    moduli: tuple[float, float]
    range: dict[str, float | None]


@dataclass(frozen=True)
class Origin:
    """Where the data of a law come from: the manifest's group `data`; see there."""

    hash: str
    code_version: str
    samples: int
    seed: int
    command: str


def write_law(
    output: Path, law: torch.nn.Module, *, kind: str, name: str, material: Material, origin: Origin,
    errors: dict[str, Any], training: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Certify a law and write it.

    Args:
        output: the `.pt` file; the manifest goes beside it as `.json`.
        law: the law, with a plain Python method `describe` (`surrogates.train` says of what).
        kind: kind of the law.
        name: its name; empty for that of the file.
        material: what it is of.
        origin: the data it comes from.
        errors: held-out errors.
        training: how it was made; command, seed and epochs among it.

    Returns:
        The manifest as written.

    Raises:
        ValueError: a field does not fit, or the law cannot be certified.
    """
    described = law.describe()  # type: ignore[operator]
    bulk, shear = material.moduli
    manifest = {
        "schema": SCHEMA,
        "kind": kind,
        "name": name or output.stem,
        "strain": material.strain,
        "dimension": material.dimension,
        "units": UNITS,
        "density": material.density,
        "moduli": {"bulk": bulk, "shear": shear},
        "state": described["state"],
        "observe": described["observe"],
        "range": {**material.range, "time_window": described["time_window"]},
        "dtype": str(next(law.parameters()).dtype).removeprefix("torch."),
        "data": asdict(origin),
        "errors": errors,
        "certificate": {},
        "training": training,
    }
    manifest["certificate"] = certify(law.cpu(), **settings(manifest))
    output.parent.mkdir(parents=True, exist_ok=True)
    manifest = save_law(output, law, manifest)
    write_beside(output, manifest)
    return manifest
