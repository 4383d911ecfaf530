"""Certified effective stiffness of voxel cells: a network's fields, a few steps of conjugate gradients, and two bounds.

    python3 -m surrogates.effective cell.npy --accuracy 1e-3 [--json FILE] [--picture FILE] [--solver-only]

The file holds a cube of voxels (n, n, n), densities from 0 (void) to 1 (solid; E = 1, nu = 0.3), or True and False. The
network (`surrogates.multiscale`) gives displacements, whose energy is an upper bound of the stiffness of the elements;
conjugate gradients go on from there, and a stress in equilibrium gives a lower bound (`micro.voxel_bound`), until
bounds are as near each other as asked. With --solver-only the displacements to begin with are zero.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, arXiv; equation (25) for the upper bound.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

import numpy as np
import torch
from torch import Tensor

from micro.homogeniser import NEGLIGIBLE, Homogeniser
from micro.voxel_bound import Bounds, bounds
from surrogates.cell_network import PRETRAINED, CellNetwork, load_network, predict
from surrogates.cells import check_density
from surrogates.engineering import engineering_constants
from surrogates.stiffness_picture import write_picture

ORDER = ("11", "22", "33", "23", "13", "12")
#: Conjugate gradients are asked for this part of what the bounds may differ, at first.
SHARE = 0.3
#: Times that they are asked for more, and how much more.
ROUNDS, SHARPER = 4, 0.2


@dataclass(frozen=True)
class Effective:
    """Effective stiffness of a batch of cells, between two bounds.

    Attributes:
        tensor: Upper bounds, the answers (cells, 6, 6), order 11, 22, 33, 23, 13, 12, engineering shear.
        lower: Lower bounds (cells, 6, 6), in the sense of quadratic forms like `upper`.
        upper: Upper bounds (cells, 6, 6).
        displacement: Fluctuations of the unit strains (cells, 6, 3, X, Y, Z), in voxels.
        iterations: Steps of conjugate gradients (cells,).
        reached: Whether the bounds are as near as asked (cells,), bool.
        seconds: Wall time of each phase.
    """

    tensor: Tensor
    lower: Tensor
    upper: Tensor
    displacement: Tensor
    iterations: Tensor
    reached: Tensor
    seconds: dict[str, float]


class Clock:
    """Wall time of phases, in seconds, after what the device still does."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict[str, float]()

    def __call__(self, phase: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return work(*arguments, **options), and add its time to a phase."""
        began = time.perf_counter()
        found = work(*arguments, **options)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began
        return found


def effective(
    density: np.ndarray | Tensor, accuracy: float = 1e-3, *, network: CellNetwork | None = None,
    device: str = "cpu", iterations: int = 500,
) -> Effective:  # fmt: skip
    """Return the effective stiffness of a batch of cells, certified.

    Args:
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 (void) to 1 (solid, E = 1, nu = 0.3).
        accuracy: Largest difference of the bounds, relative to the upper one, on the diagonal of the tensor: of
            the energy of every unit strain.
        network: Whose fields to begin with; zero fields if None.
        device: Of PyTorch.
        iterations: Most steps of conjugate gradients in a round.

    Raises:
        ValueError: Densities are none, accuracy is not positive, or the network gives no fields.
    """
    if not accuracy > 0:
        raise ValueError(f"accuracy must be positive, got {accuracy}.")
    rho = check_density(density).to(device)
    if bool((rho.amax((1, 2, 3)) == 0).any()):
        raise ValueError("density must hold some solid in every cell, got a void one.")
    clock = Clock(torch.device(device))
    u: Tensor | None = None
    if network is not None:
        u = clock("network", predict, network.module, rho)[1]
        if u is None:
            raise ValueError("network must give displacements: one of kind tensor has none, and no bound.")
    cells = clock("solver", Homogeniser, rho.double(), spacing=np.ones(3))
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


def read_cell(path: Path) -> np.ndarray:
    """Read one cell (n, n, n) from a .npy file.

    Raises:
        ValueError: One sentence that says what is wrong with the file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not there.")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy file of numbers.") from error
    if not isinstance(values, np.ndarray):  # an archive, .npz
        raise ValueError(f"{path} is an archive; a .npy file of one array is needed.")
    if values.ndim != 3 or len(set(values.shape)) != 1 or 0 in values.shape:
        raise ValueError(f"{path} must hold a cube of voxels (n, n, n), got shape {values.shape}.")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{path} must hold real numbers, got {values.dtype}.")
    check_density(values[None], f"density in {path}")
    return values


def report(path: Path, found: Effective, accuracy: float, network: str) -> dict[str, Any]:
    """Return what the JSON file of the first cell holds."""
    tensor = found.tensor[0].numpy()
    return {
        "cell": path.name,
        "order": list(ORDER),
        "tensor": tensor.tolist(),
        "lower": found.lower[0].tolist(),
        "upper": found.upper[0].tolist(),
        "accuracy": accuracy,
        "reached": bool(found.reached[0]),
        "iterations": int(found.iterations[0]),
        "network": network,
        "seconds": found.seconds,
        "constants": engineering_constants(tensor),
    }


def as_text(said: dict[str, Any]) -> str:
    """Return a report for people."""
    lines = []
    for name in ("tensor", "lower", "upper"):
        lines.append(f"{name}, order {', '.join(ORDER)}, of Young's modulus of the solid:")
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
    parser = argparse.ArgumentParser(prog="surrogates.effective", description="Certified stiffness of a voxel cell.")
    parser.add_argument("cell", type=Path, help=".npy file: a cube of densities from 0 (void) to 1 (solid)")
    parser.add_argument("--accuracy", type=float, default=1e-3, metavar="X", help="relative gap of the bounds (1e-3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write tensor, bounds, iterations and seconds")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="directional stiffness (CELL_stiffness.png)")
    parser.add_argument("--network", type=Path, default=PRETRAINED, metavar="FILE", help="network to begin with")
    parser.add_argument("--solver-only", action="store_true", help="begin with zero displacements")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of PyTorch and BLAS (default: 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 2 where the input is refused, 1 where the accuracy was not reached."""
    options = make_parser().parse_args(argv)
    try:
        if options.threads < 1:
            raise ValueError(f"threads must be at least 1, got {options.threads}.")
        if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device {options.device} is not there: this PyTorch sees no GPU.")
        torch.set_num_threads(options.threads)
        cell = read_cell(options.cell)
        network = None if options.solver_only else load_network(options.network, options.device)
        found = effective(cell[None], options.accuracy, network=network, device=options.device)
        said = report(options.cell, found, options.accuracy, "" if network is None else options.network.name)
        picture = options.picture or Path(f"{options.cell.stem}_stiffness.png")
        write_picture(picture, found.tensor[0].numpy(), options.cell.name)
        if options.json is not None:
            options.json.write_text(json.dumps(said, indent=1) + "\n")
    except (ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(as_text(said) + f"picture: {picture}\n")
    return 0 if said["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
