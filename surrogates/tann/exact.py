"""Exact law of a lattice cell: its node displacements are eliminated, and nothing is learned.

The quadratic form of the condensed cell gives the coefficients of a `TannLaw`. For a regular cell this is the closed
form, a sum of one play operator with hardening for each direction of the bars.

    python3 -m surrogates.train lattice-exact --cell cube-1 --output FILE.pt
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from micro.lattice.bars import LAWS, BarLaw, KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.condensation import condense
from micro.lattice.data import lattice_of, lattice_parameters
from micro.lattice.geometry import Cell, make_cell
from surrogates.artifact.export import Material, Origin, write_law
from surrogates.artifact.load import read_manifest
from surrogates.artifact.schema import Observable
from surrogates.tann.data import LatticePaths
from surrogates.tann.errors import cycle_errors
from surrogates.tann.law import TannLaw
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_seed, option
from surrogates.training.kind import Record


def internal_coordinates(cell: Cell) -> tuple[Observable, ...]:
    """The internal coordinates of a cell: force_1 .., then u_1x, u_1y ..: bars and nodes in its order."""
    axes = "xyz"[: cell.dimension]
    forces = (Observable(f"force_{i + 1}", "bar_force", i) for i in range(len(cell.bars)))
    places = ((i, axis) for i in range(len(cell.nodes)) for axis in range(len(axes)))
    return (*forces, *(Observable(f"u_{i + 1}{axes[axis]}", "node_displacement", i, axis) for i, axis in places))


def lattice_law(cell: Cell, bar: BarLaw) -> TannLaw:
    """The exact law of a cell; its variables are the plastic strains of its different bars."""
    form = condense(cell, bar)
    tensor = {name: torch.from_numpy(getattr(form, name)) for name in ("C", "G", "K", "k", "h")}
    return TannLaw(
        **tensor,
        decode_E=torch.from_numpy(np.vstack([form.force_E, form.displacement_E])),
        decode_Z=torch.from_numpy(np.vstack([form.force_alpha, form.displacement_alpha])),
        coordinates=internal_coordinates(cell),
    )


def lattice_material(C: np.ndarray, strain_max: float, microstructure: dict[str, Any]) -> Material:
    """The material of a lattice for the manifest: isotropic moduli nearest to its stiffness (Voigt), density 1.

    Args:
        C: elastic stiffness (c, c) on Mandel vectors, Pa.
        strain_max: largest norm of the strain that the law is meant for.
        microstructure: cell and bars, as `micro.lattice.data.lattice_parameters` gives them.
    """
    d = 2 if len(C) == 3 else 3
    volume = np.zeros(len(C))
    volume[:d] = d**-0.5
    bulk = volume @ C @ volume / d
    shear = (np.trace(C) - volume @ C @ volume) / (2 * (len(C) - 1))
    limits = {"strain_max": strain_max, "rate_min": None, "rate_max": None, "jacobian_min": None, "jacobian_max": None}
    return Material("small", d, 1.0, (float(bulk), float(shear)), limits, microstructure)


def trained_material(train: LatticePaths) -> Material:
    """The manifest's description of the lattice cell that a law was trained on."""
    strain_max = float(train.strain.norm(dim=-1).max())
    return lattice_material(condense(*lattice_of(train.lattice)).C, strain_max, train.lattice)


def write_lattice_law(
    output: Path, lattice: dict[str, Any], *, name: str = "", strain_max: float = 3.0, command: str = ""
) -> dict[str, Any]:
    """Write the exact law of a cell as an artifact.

    Args:
        output: the `.pt` file; the manifest goes beside it.
        lattice: cell and bars, as `micro.lattice.data.lattice_parameters` gives them.
        name: of the law; empty for that of the file.
        strain_max: largest strain that is certified, in yield strains.
        command: what made it.

    Returns:
        The manifest.

    Raises:
        ValueError: there is no such cell, or its bars are not of linear hardening.
    """
    cell, bar = lattice_of(lattice)
    law = lattice_law(cell, bar)
    training = {"command": command, "seed": 0, "epochs": 0}
    errors = cycle_errors(law, LatticeCell(cell, bar))
    return _write(output, law, lattice, strain_max, Record("lattice", name, 0, errors, training))


def _write(output: Path, law: TannLaw, lattice: dict[str, Any], strain_max: float, record: Record) -> dict[str, Any]:
    cell, bar = lattice_of(lattice)
    return write_law(
        output, law, kind="lattice", name=record.name,
        material=lattice_material(
            condense(cell, bar).C, strain_max * lattice["bar"]["strength"] / lattice["bar"]["modulus"], lattice
        ),
        origin=Origin("0" * 64, "none", 0, 0, "none: the cell itself"),
        errors=record.errors, training=record.training,
    )  # fmt: skip


def exact_law(lattice: dict[str, Any], known: Path, output: Path) -> Path:
    """An artifact of the exact law of a cell: one of the folder `known` if it holds it, else `output`, written now.

    Args:
        lattice: cell and bars; see `write_lattice_law`.
        known: folder of artifacts.
        output: the `.pt` file to write.
    """
    for path in sorted(known.glob("lattice_*.pt")):
        manifest = read_manifest(path)
        structure = manifest.microstructure
        if manifest.kind == "lattice" and structure is not None and structure.parameters() == lattice:
            return path
    write_lattice_law(output, lattice, command="surrogates.tann.exact.exact_law")
    return output


@dataclass(frozen=True)
class ExactConfig:
    """The cell and its bars."""

    cell: str = option("cube-1", "square-k or cube-k, with k units per side")
    perturbation: float = option(0.0, "standard deviation of the nodes, in units")
    cell_seed: int = option(0, "seed of the perturbation")
    bar: Literal["kinematic", "isotropic"] = option("kinematic", "hardening of the bars")
    modulus: float = option(KinematicBar.modulus, "Young's modulus E, Pa")
    hardening: float = option(KinematicBar.hardening, "hardening modulus H, Pa")
    strength: float = option(KinematicBar.strength, "yield strength k, Pa")
    strain_max: float = option(3.0, "largest strain certified, in yield strains")
    epochs: Literal[0] = 0
    seed: Literal[0] = 0

    def __post_init__(self) -> None:
        """Check that there is such a cell."""
        check_seed(self.cell_seed)
        if not 0 < self.strain_max < math.inf:
            raise ValueError(f"strain_max must be positive and finite, got {self.strain_max}.")

    def lattice(self) -> dict[str, Any]:
        """Cell and bars as `micro.lattice.data.lattice_of` reads them.

        Raises:
            ValueError: there is no such cell or bar.
        """
        cell = make_cell(self.cell, perturbation=self.perturbation, seed=self.cell_seed)
        bar = LAWS[self.bar](self.modulus, self.hardening, self.strength)
        return lattice_parameters(cell, bar, perturbation=self.perturbation, seed=self.cell_seed)


def load(paths: list[str | Path], held_out: int | None = None, *, allow_partial: bool = False) -> tuple[None, None]:
    """No data: the cell itself is the reference."""
    return None, None


def build(config: ExactConfig, train: None) -> TannLaw:
    """The exact law."""
    return lattice_law(*lattice_of(config.lattice()))


def fit(
    model: TannLaw, train: None, held_out: None, config: ExactConfig, *, progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Nothing to train."""
    return {}


def export(model: TannLaw, train: None, config: ExactConfig) -> TannLaw:
    """The model, which is the law."""
    return model


def errors(model: TannLaw, law: TannLaw, held_out: None, config: ExactConfig) -> dict[str, float]:
    """Errors on cyclic loads against the cell itself, which are rounding."""
    return cycle_errors(law, LatticeCell(*lattice_of(config.lattice())))


def write(output: Path, law: TannLaw, train: None, config: ExactConfig, record: Record) -> dict[str, Any]:
    """Write the law as an artifact."""
    return _write(output, law, config.lattice(), config.strain_max, record)


DATA, SUFFIX, Config = "", ".pt", ExactConfig
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
