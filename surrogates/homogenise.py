"""Certified effective stiffness of voxel cells: a network's fields, a few steps of conjugate gradients, and two bounds.

    python3 -m surrogates.homogenise cell.npy --accuracy 1e-3 [--json FILE] [--picture FILE] [--solver-only]

The file holds a box of voxels (X, Y, Z), densities from 0 (void) to 1 (solid), or True and False: .npy, HDF5, raw, a
folder of images, or a closed surface to be filled (`surrogates.cells.file`). The network (`surrogates.cells.networks.multiscale`)
gives displacements, whose energy is an upper bound of the stiffness of the elements; conjugate gradients go on from
there, and a stress in equilibrium gives a lower bound (`micro.voxel.bounds.lower_bound`), until bounds are as near each other as
asked. With --solver-only the displacements to begin with are zero.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equation (25) for the upper bound.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from micro.threads import add_threads_option, check_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

import numpy as np
import torch
from torch import Tensor

from micro.voxel.bounds.lower_bound import Bounds, bounds
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import NEGLIGIBLE, Homogeniser
from surrogates.cells.data import check_density
from surrogates.cells.file import add_arguments, read_cell
from surrogates.cells.network import PRETRAINED, CellNetwork, load_network, predict
from surrogates.cells.stiffness import engineering_constants
from surrogates.cells.stiffness_picture import check_picture, write_picture
from surrogates.training.device import check_device
from surrogates.training.output_file import check_output, whole_file

ORDER = ("11", "22", "33", "23", "13", "12")
#: Conjugate gradients are asked for this part of what the bounds may differ, at first.
SHARE = 0.3
#: Edges of a voxel may differ by this part where a network's fields, of cubes, are to begin with.
CUBIC = 0.01
#: Times that they are asked for more, and how much more.
ROUNDS, SHARPER = 4, 0.2


@dataclass(frozen=True)
class Effective:
    """Effective stiffness of a batch of cells, between two bounds.

    Attributes:
        tensor: Upper bounds, the answers (cells, 6, 6), order 11, 22, 33, 23, 13, 12, engineering shear,
            of the unit of the modulus.
        lower: Lower bounds (cells, 6, 6), in the sense of quadratic forms like `upper`.
        upper: Upper bounds (cells, 6, 6).
        displacement: Fluctuations of the unit strains (cells, 6, 3, X, Y, Z), of the unit of the
            spacing.
        iterations: Steps of conjugate gradients (cells,).
        reached: Whether the bounds are as near as asked (cells,), bool.
        seconds: Time of each phase.
    """

    tensor: Tensor
    lower: Tensor
    upper: Tensor
    displacement: Tensor
    iterations: Tensor
    reached: Tensor
    seconds: dict[str, float]


class Clock:
    """Time of phases, in seconds, after what the device still does."""

    def __init__(self, device: torch.device, now: Callable[[], float]) -> None:
        self.device, self.now, self.seconds = device, now, dict[str, float]()

    def __call__(self, phase: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return work(*arguments, **options), and add its time to a phase."""
        began = self.now()
        found = work(*arguments, **options)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + self.now() - began
        return found


def effective(
    density: np.ndarray | Tensor,
    accuracy: float = 1e-3,
    *,
    network: CellNetwork | None = None,
    modulus: float = 1.0,
    poisson: float = 0.3,
    spacing: Sequence[float] | np.ndarray = (1.0, 1.0, 1.0),
    device: str = "cpu",
    iterations: int = 500,
    now: Callable[[], float] = time.perf_counter,
) -> Effective:
    """Return the effective stiffness of a batch of cells, certified.

    Args:
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 (void) to 1 (solid).
        accuracy: Largest difference of the bounds, relative to the upper one, on the diagonal of the tensor: of
            the energy of every unit strain.
        network: Whose fields to begin with, zero fields if None. It was trained with nu = 0.3 and on cubes: its fields
            are admissible with any nu, and so is the bound; they are left out where voxels are no cubes.
        modulus: Young's modulus of the solid.
        poisson: Its Poisson's ratio.
        spacing: Edges of a voxel (3,).
        device: Of PyTorch.
        iterations: Most steps of conjugate gradients in a round.
        now: Clock of the phases: wall time, or `time.process_time`.

    Raises:
        ValueError: Densities are none, accuracy is not positive, or the network gives no fields.
    """
    if not 0 < accuracy < math.inf:
        raise ValueError(f"accuracy must be positive and finite, got {accuracy}.")
    if not (math.isfinite(modulus) and modulus > 0 and -1 < poisson < 0.5):
        raise ValueError(
            f"modulus must be positive and poisson lie between -1 and 0.5, got {modulus:g} and {poisson:g}."
        )
    rho, edges = check_density(density).to(device), np.asarray(spacing, dtype=float)
    if bool((rho.amax((1, 2, 3)) == 0).any()):
        raise ValueError("density must hold some solid in every cell, got a void one.")
    clock = Clock(torch.device(device), now)
    u: Tensor | None = None
    cells = clock("solver", Homogeniser, rho.double(), isotropic(modulus, poisson), spacing=edges)
    if network is not None and are_cubes(edges):
        u = clock("network", predict, network.module, rho)[1]
        if u is None:
            raise ValueError("network must give displacements: one of kind tensor has none, and no bound.")
        u = u * float(edges.mean())
    tolerance, steps = SHARE * accuracy, torch.zeros(len(rho), dtype=torch.long)
    for _ in range(ROUNDS):
        start = None if u is None else u.double()
        solved = clock("solver", cells.solve, start, tolerance=tolerance, iterations=iterations)
        steps += solved.iterations.cpu()
        found: Bounds = clock("bounds", bounds, cells, solved.displacement)
        u, gap = found.displacement, (found.upper - found.lower).diagonal(dim1=1, dim2=2)
        voigt = cells.voigt.diagonal(dim1=1, dim2=2)
        scale = torch.maximum(found.upper.diagonal(dim1=1, dim2=2), NEGLIGIBLE * voigt)
        reached = (gap <= accuracy * scale).all(1)
        if bool(reached.all()):
            break
        tolerance *= SHARPER
    upper, lower = found.upper.cpu(), found.lower.cpu()
    return Effective(upper, lower, upper, found.displacement, steps, reached.cpu(), clock.seconds)


def are_cubes(spacing: np.ndarray) -> bool:
    """Return whether voxels are cubes, so that a network's fields are of use."""
    return bool(np.ptp(spacing) <= CUBIC * spacing.max())


def report(options: argparse.Namespace, cell: np.ndarray, spacing: np.ndarray, found: Effective) -> dict[str, Any]:
    """Return what the JSON file holds."""
    tensor = found.tensor[0].numpy()
    return {
        "cell": options.cell.name,
        "voxels": list(cell.shape),
        "spacing": [float(h) for h in spacing],
        "fraction": float(cell.mean()),
        "modulus": options.modulus,
        "poisson": options.poisson,
        "order": list(ORDER),
        "tensor": tensor.tolist(),
        "lower": found.lower[0].tolist(),
        "upper": found.upper[0].tolist(),
        "accuracy": options.accuracy,
        "reached": bool(found.reached[0]),
        "iterations": int(found.iterations[0]),
        "network": options.network.name if "network" in found.seconds else "",
        "seconds": found.seconds,
        "constants": engineering_constants(tensor),
    }


def as_text(said: dict[str, Any]) -> str:
    """Return a report for people."""
    box = " x ".join(str(n) for n in said["voxels"])
    lines = [f"{said['cell']}: {box} voxels, solid {said['fraction']:.4g}"]
    for name in ("tensor", "lower", "upper"):
        lines.append(f"{name}, order {', '.join(ORDER)}, E = {said['modulus']:g}, nu = {said['poisson']:g}:")
        lines += ["  " + " ".join(f"{value:12.6g}" for value in row) for row in said[name]]
    constants = (f"{k} {'-' if v is None else format(v, '.5g')}" for k, v in said["constants"].items())
    lines.append("constants: " + ", ".join(constants))
    lines.append(f"iterations: {said['iterations']}")
    lines.append("seconds: " + ", ".join(f"{phase} {value:.3g}" for phase, value in said["seconds"].items()))
    if not said["reached"]:
        lines.append(f"The bounds are further apart than {said['accuracy']:g}: what they are is above.")
    return "\n".join(lines) + "\n"


def make_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(prog="surrogates.homogenise", description="Certified stiffness of a voxel cell.")
    add_arguments(parser)
    parser.add_argument("--modulus", type=float, default=1.0, metavar="E", help="Young's modulus of the solid (1)")
    parser.add_argument("--poisson", type=float, default=0.3, metavar="NU", help="Poisson's ratio of the solid (0.3)")
    parser.add_argument("--accuracy", type=float, default=1e-3, metavar="X", help="relative gap of the bounds (1e-3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write tensor, bounds, iterations and seconds")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="directional stiffness (CELL_stiffness.png)")
    parser.add_argument("--network", type=Path, default=PRETRAINED, metavar="FILE", help="network to begin with")
    parser.add_argument("--solver-only", action="store_true", help="begin with zero displacements")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_threads_option(parser)
    return parser


def check_outputs(options: argparse.Namespace, picture: Path) -> None:
    """Refuse, before anything is solved or written, what could not be written; ValueError says why."""
    read = [options.cell, *([] if options.solver_only else [options.network])]
    check_output("picture", picture, read)
    if options.json is not None:
        check_output("json", options.json, [*read, picture])
    check_picture(picture)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 2 where the input is refused, 1 where the accuracy was not reached."""
    options = make_parser().parse_args(argv)
    picture = options.picture or Path(f"{options.cell.stem}_stiffness.png")
    try:
        check_threads(options.threads)
        check_device(options.device)
        check_outputs(options, picture)
        use_threads(options.threads)
        cell, spacing = read_cell(options)
        network = None if options.solver_only else load_network(options.network, options.device)
        material = {"modulus": options.modulus, "poisson": options.poisson}
        found = effective(
            cell[None], options.accuracy, network=network, spacing=spacing, device=options.device, **material
        )
        said = report(options, cell, spacing, found)
        with whole_file(picture) as part:
            write_picture(part, found.tensor[0].numpy() / options.modulus, options.cell.name)
        if options.json is not None:
            with whole_file(options.json) as part:
                part.write_text(json.dumps(said, indent=1) + "\n")
    except (ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(as_text(said) + f"picture: {picture}\n")
    return 0 if said["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
