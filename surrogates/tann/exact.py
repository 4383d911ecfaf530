"""Lattice law: a lattice cell as a law, its node displacements eliminated: exact truth, and the concurrent scale.

The quadratic form of the condensed cell stands in a `TannLaw` as it is, nothing is learned. For a regular cell this is
the closed form, the sum over the bar directions of a play with hardening each.

    python3 -m surrogates.tann.exact --cell cube-1 --output FILE.pt
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micro.lattice.bars import LAWS, BarLaw, KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.condensation import condense
from micro.lattice.geometry import Cell, make_cell
from micro.lattice.parameters import lattice_of, lattice_parameters
from surrogates.artifact.export import Material, Origin, write_law
from surrogates.artifact.load import read_manifest
from surrogates.artifact.schema import Observable
from surrogates.tann.errors import cycle_errors
from surrogates.tann.law import TannLaw


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
    """What a manifest says of a lattice: isotropic moduli nearest to its stiffness (Voigt); its density is put as 1.

    Args:
        C: elastic stiffness (c, c) on Mandel vectors, Pa.
        strain_max: largest norm of the strain that the law is meant for.
        microstructure: cell and bars, as `micro.lattice.parameters.lattice_parameters` tells them.
    """
    d = 2 if len(C) == 3 else 3
    volume = np.zeros(len(C))
    volume[:d] = d**-0.5
    bulk = volume @ C @ volume / d
    shear = (np.trace(C) - volume @ C @ volume) / (2 * (len(C) - 1))
    limits = {"strain_max": strain_max, "rate_min": None, "rate_max": None, "jacobian_min": None, "jacobian_max": None}
    return Material("small", d, 1.0, (float(bulk), float(shear)), limits, microstructure)


def write_lattice_law(
    output: Path, told: dict[str, Any], *, name: str = "", strain_max: float = 3.0, command: str = ""
) -> dict[str, Any]:
    """Write the exact law of a cell as an artifact.

    Args:
        output: the `.pt` file; the manifest goes beside it.
        told: cell and bars, as `micro.lattice.parameters.lattice_parameters` tells them.
        name: of the law; empty for that of the file.
        strain_max: largest strain that is certified, in strains of yield.
        command: what made it.

    Returns:
        The manifest.

    Raises:
        ValueError: there is no such cell, or its bars are not of linear hardening.
    """
    cell, bar = lattice_of(told)
    law = lattice_law(cell, bar)
    return write_law(
        output, law, kind="lattice", name=name,
        material=lattice_material(
            condense(cell, bar).C, strain_max * told["bar"]["strength"] / told["bar"]["modulus"], told
        ),
        origin=Origin("0" * 64, "none", 0, 0, "none: the cell itself"),
        errors=cycle_errors(law, LatticeCell(cell, bar)),
        training={"command": command, "seed": 0, "epochs": 0},
    )  # fmt: skip


def exact_law(told: dict[str, Any], known: Path, output: Path) -> Path:
    """An artifact of the exact law of a cell: one of the folder `known` if it holds it, else `output`, written now.

    Args:
        told: cell and bars; see `write_lattice_law`.
        known: folder of artifacts.
        output: the `.pt` file to write.
    """
    for path in sorted(known.glob("lattice_*.pt")):
        manifest = read_manifest(path)
        structure = manifest.microstructure
        if manifest.kind == "lattice" and structure is not None and structure.parameters() == told:
            return path
    write_lattice_law(output, told, command="surrogates.tann.exact.exact_law")
    return output


def main(argv: Sequence[str] | None = None) -> int:
    """Write the law of a cell from the command line; 2 where the input is refused."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="surrogates.tann.exact", description="Write a lattice cell as a law.")
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help="artifact; its manifest goes beside")
    add("--name", default="", help="name of the law in its manifest (default: that of the file)")
    add("--cell", default="cube-1", metavar="NAME", help="square-k or cube-k, k units a side")
    add("--perturbation", default=0.0, type=float, metavar="X", help="standard deviation of the nodes, in units")
    add("--cell-seed", default=0, type=int, metavar="S", help="seed of the perturbation")
    add("--bar", default="kinematic", choices=tuple(LAWS), help="hardening of the bars")
    add("--modulus", default=KinematicBar.modulus, type=float, metavar="X", help="Young's modulus E, Pa")
    add("--hardening", default=KinematicBar.hardening, type=float, metavar="X", help="hardening modulus H, Pa")
    add("--strength", default=KinematicBar.strength, type=float, metavar="X", help="yield strength k, Pa")
    add("--strain-max", default=3.0, type=float, metavar="X", help="largest strain certified, in yield strains")
    given = parser.parse_args(words)
    try:
        cell = make_cell(given.cell, perturbation=given.perturbation, seed=given.cell_seed)
        bar = LAWS[given.bar](given.modulus, given.hardening, given.strength)
        manifest = write_lattice_law(
            given.output,
            lattice_parameters(cell, bar, perturbation=given.perturbation, seed=given.cell_seed),
            name=given.name,
            strain_max=given.strain_max,
            command=" ".join(["python3 -m surrogates.tann.exact", *words]),
        )
    except (ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps({key: manifest[key] for key in ("errors", "certificate")}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
