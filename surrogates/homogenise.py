"""Certified effective stiffness of voxel cells: a network's fields, a few steps of conjugate gradients, and two bounds.

    python3 -m surrogates.homogenise cell.npy --accuracy 1e-3 [--json FILE] [--picture FILE] [--solver-only]

The file holds a box of voxels (X, Y, Z), densities from 0 (void) to 1 (solid), or True and False: .npy, HDF5, raw, a
folder of images, or a closed surface to be filled. The network (`surrogates.cells.networks.multiscale`) predicts
displacements, whose energy is an upper bound of the stiffness of the elements. Conjugate gradients continue from there,
and a stress in equilibrium gives a lower bound (`micro.voxel.bounds.lower_bound`), until the bounds are as close as
requested. With --solver-only the initial displacements are zero. `run` does the same from Python:

    answer = surrogates.homogenise.run("cell.npy", 1e-3)
    answer["tensor"], answer["constants"]["E_1"]

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

from micro.data.cli import Parser
from micro.threads import add_threads_option, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

import numpy as np
import torch
from torch import Tensor

from micro.data.files import whole_file
from micro.tensors import ENGINEERING_ORDER
from micro.voxel.bounds.lower_bound import Bounds, bounds
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import NEGLIGIBLE, Homogeniser
from surrogates.cells.data import check_density, check_spacing, read_cell
from surrogates.cells.evaluate import predict
from surrogates.cells.networks.file import PRETRAINED, CellNetwork, load_network
from surrogates.cells.stiffness import check_picture, engineering_constants, write_picture
from surrogates.training.config import check_device, check_output

ORDER = tuple(ENGINEERING_ORDER.names.split())
#: Tolerance of the first round of conjugate gradients as a part of the accuracy of the bounds.
FIRST = 0.3
#: Number of rounds, and factor on the tolerance from one to the next.
ROUNDS, SHARPER = 4, 0.2
#: Relative difference of the edges of a voxel up to which a network, trained on cubes, predicts the initial fields.
CUBIC = 0.01
#: Least modulus, and its inverse the largest: products of moduli and volumes stay finite.
SMALLEST = 1e-100


@dataclass(frozen=True)
class Effective:
    """Effective stiffness of a batch of cells, between two bounds.

    Attributes:
        tensor: Upper bounds, the answers (cells, 6, 6), order 11, 22, 33, 23, 13, 12, engineering shear,
            in the unit of the modulus.
        lower: Lower bounds (cells, 6, 6), in the sense of quadratic forms like `upper`.
        upper: Upper bounds (cells, 6, 6).
        displacement: Fluctuations of the unit strains (cells, 6, 3, X, Y, Z), in the unit of the spacing.
        iterations: Steps of conjugate gradients (cells,).
        reached: Whether the bounds are as close as requested (cells,), bool.
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
    """Seconds per phase; waits for the device at the end of each."""

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


def check_numbers(accuracy: float, modulus: float, poisson: float) -> None:
    """Check accuracy and material; ValueError names what is out of its range."""
    if not 0 < accuracy < math.inf:
        raise ValueError(f"accuracy must be positive and finite, got {accuracy}.")
    if not (SMALLEST <= modulus <= 1 / SMALLEST and -1 < poisson < 0.5):
        raise ValueError(
            f"modulus must be positive, from {SMALLEST:g} to {1 / SMALLEST:g}, and poisson lie between -1 and 0.5, "
            f"got {modulus:g} and {poisson:g}."
        )


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
        accuracy: Largest difference of the bounds, relative to the upper one, of the energy of every unit strain: on
            the diagonal of the tensor.
        network: Network that predicts the initial fields, zero fields if None. It was trained with nu = 0.3 and on
            cubes: its fields are admissible with any nu, and so is the bound; it is not used where voxels are no cubes.
        modulus: Young's modulus of the solid.
        poisson: Its Poisson's ratio.
        spacing: Edges of a voxel (3,).
        device: Of PyTorch.
        iterations: Largest number of steps of conjugate gradients in a round.
        now: Clock of the phases: wall time, or `time.process_time`.

    Raises:
        ValueError: Densities or material are out of their range, accuracy is not positive, or the network predicts no
            displacements.
    """
    check_numbers(accuracy, modulus, poisson)
    rho, edges = check_density(density).to(device), np.asarray(spacing, dtype=float)
    if bool((rho.amax((1, 2, 3)) == 0).any()):
        raise ValueError("density must hold some solid in every cell, got a void one.")
    clock = Clock(torch.device(device), now)
    u: Tensor | None = None
    cells = clock("solver", Homogeniser, rho.double(), isotropic(modulus, poisson), spacing=edges)
    if network is not None and are_cubes(edges):
        u = clock("network", predict, network.module, rho)[1]
        if u is None:
            raise ValueError("network must predict displacements: a network of kind tensor has none, and no bound.")
        u = u * float(edges.mean())
    tolerance, steps = FIRST * accuracy, torch.zeros(len(rho), dtype=torch.long)
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
    """Return whether voxels are cubes, so that a network applies."""
    return bool(np.ptp(spacing) <= CUBIC * spacing.max())


def report(name: str, cell: np.ndarray, spacing: np.ndarray, found: Effective, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the JSON file.

    Args:
        name: Of the cell.
        cell: Its densities (X, Y, Z).
        spacing: Edges of a voxel (3,).
        found: The answer.
        asked: Accuracy, modulus, Poisson's ratio and name of the network.
    """
    tensor = found.tensor[0].numpy()
    return {
        "cell": name,
        "voxels": list(cell.shape),
        "spacing": [float(h) for h in spacing],
        "fraction": float(cell.mean()),
        "modulus": asked["modulus"],
        "poisson": asked["poisson"],
        "order": list(ORDER),
        "tensor": tensor.tolist(),
        "lower": found.lower[0].tolist(),
        "upper": found.upper[0].tolist(),
        "accuracy": asked["accuracy"],
        "reached": bool(found.reached[0]),
        "iterations": int(found.iterations[0]),
        "network": asked["network"] if "network" in found.seconds else "",
        "seconds": found.seconds,
        "constants": engineering_constants(tensor),
    }


def as_text(answer: dict[str, Any]) -> str:
    """Return a readable report."""
    box = " x ".join(str(n) for n in answer["voxels"])
    lines = [f"{answer['cell']}: {box} voxels, volume fraction of the solid {answer['fraction']:.4g}"]
    for name in ("tensor", "lower", "upper"):
        lines.append(f"{name}, order {', '.join(ORDER)}, E = {answer['modulus']:g}, nu = {answer['poisson']:g}:")
        lines += ["  " + " ".join(f"{value:12.6g}" for value in row) for row in answer[name]]
    constants = (f"{k} {'-' if v is None else format(v, '.5g')}" for k, v in answer["constants"].items())
    lines.append("constants: " + ", ".join(constants))
    lines.append(f"iterations: {answer['iterations']}")
    lines.append("seconds: " + ", ".join(f"{phase} {value:.3g}" for phase, value in answer["seconds"].items()))
    if not answer["reached"]:
        lines.append(f"The accuracy {answer['accuracy']:g} was not reached; the bounds above are valid nevertheless.")
    return "\n".join(lines) + "\n"


def check_outputs(read: Sequence[Path], picture: Path | None, json_file: Path | None) -> None:
    """Check, before the work, that files can be written and replace no others; the ValueError names the option."""
    if picture is not None:
        check_output("picture", picture, read)
        check_picture(picture)
    if json_file is not None:
        check_output("json", json_file, [*read, *([] if picture is None else [picture])])


def run(
    cell: str | Path | np.ndarray, accuracy: float = 1e-3, *, modulus: float = 1.0, poisson: float = 0.3,
    network: str | Path | None = PRETRAINED, device: str = "cpu", threads: int | None = None,
    json_file: str | Path | None = None, picture: str | Path | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Homogenise one cell; the same as the command, from Python.

    Args:
        cell: File, folder or surface, see `surrogates.cells.data.read_cell`; or densities (X, Y, Z).
        accuracy: Largest relative difference of the bounds, see `effective`.
        modulus: Young's modulus of the solid.
        poisson: Its Poisson's ratio.
        network: File of the network that predicts the initial fields; None for zero fields.
        device: Of PyTorch.
        threads: Threads of PyTorch; None leaves them as they are.
        json_file: File to write the answer to; None for no file.
        picture: File to draw the directional stiffness in; None for no picture.
        options: Further arguments of `surrogates.cells.data.read_cell`; `spacing` alone for an array.

    Returns:
        The content of the JSON file: `tensor`, `lower` and `upper` (6, 6), `constants`, `reached`, `iterations`,
        `seconds`, and the arguments.

    Raises:
        ValueError: An argument or a file does not fit; nothing is written.
    """
    check_numbers(accuracy, modulus, poisson)
    check_device(device)
    read = [Path(path) for path in (cell, network) if isinstance(path, str | Path)]
    picture, json_file = (None if path is None else Path(path) for path in (picture, json_file))
    check_outputs(read, picture, json_file)
    if threads is not None:
        use_threads(threads)
    if isinstance(cell, np.ndarray):
        name, density, spacing = "array", cell, check_spacing(options.pop("spacing", (1.0, 1.0, 1.0)))
        if options:
            raise ValueError(f"{next(iter(options))} must not be given for an array.")
    else:
        name, (density, spacing) = Path(cell).name, read_cell(cell, **options)
    module = None if network is None else load_network(network, device)
    found = effective(
        density[None], accuracy, network=module, modulus=modulus, poisson=poisson, spacing=spacing, device=device
    )
    asked = {"accuracy": accuracy, "modulus": modulus, "poisson": poisson}
    answer = report(name, density, spacing, found, asked | {"network": "" if network is None else Path(network).name})
    if picture is not None:
        with whole_file(picture) as part:
            write_picture(part, found.tensor[0].numpy() / modulus, name)
    if json_file is not None:
        with whole_file(json_file) as part:
            part.write_text(json.dumps(answer, indent=1) + "\n")
    return answer


def make_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = Parser(prog="surrogates.homogenise", description="Certified effective stiffness of a voxel cell.")
    add = parser.add_argument
    add("cell", type=Path, help=".npy, .h5, .raw, .tif, a folder of images, or a closed surface (.stl, .msh, ...)")
    add("--threshold", type=float, metavar="X", help="voxels above this are solid, the others void")
    add("--dataset", metavar="NAME", help="data set of an HDF5 file, if it has several")
    add("--sample", type=int, metavar="I", help="which cell, where the file holds (cells, X, Y, Z)")
    add("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels of a .raw file; z runs fastest")
    add("--dtype", metavar="TYPE", help="type of the numbers of a .raw file, for instance <u2")
    add("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), help="edges of a voxel (default: cubes)")
    add("--resolution", type=int, nargs="+", metavar="N", help="voxels of a surface: along its longest edge, or X Y Z")
    text = "lowest and highest corner of a surface's cell (default: its own)"
    add("--box", type=float, nargs=6, metavar="X", help=text)
    add("--modulus", type=float, default=1.0, metavar="E", help="Young's modulus of the solid (default: 1)")
    add("--poisson", type=float, default=0.3, metavar="NU", help="Poisson's ratio of the solid (default: 0.3)")
    add("--accuracy", type=float, default=1e-3, metavar="X", help="relative difference of the bounds (default: 1e-3)")
    add("--json", type=Path, metavar="FILE", help="write tensor, bounds, constants, iterations and seconds")
    add("--picture", type=Path, metavar="FILE", help="picture of the directional stiffness (.png, .pdf, .svg)")
    add("--network", type=Path, default=PRETRAINED, metavar="FILE", help="network that predicts the initial fields")
    add("--solver-only", action="store_true", help="begin with zero displacements, without a network")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_threads_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 done, 2 bad input, 1 where the accuracy was not reached or the solver failed."""
    try:
        options = vars(make_parser().parse_args(arguments))
        options["network"] = None if options.pop("solver_only") else options["network"]
        answer = run(options.pop("cell"), json_file=options.pop("json"), **options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (RuntimeError, MemoryError) as error:
        sys.stderr.write(f"{(str(error).splitlines() or ['The memory of this machine is exhausted.'])[0]}\n")
        return 1
    sys.stdout.write(as_text(answer))
    return 0 if answer["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
