"""Predictions of networks on voxel cells and their errors: the paper's measure, and that of the energy.

`python3 -m surrogates.evaluate` prints the table. A set is a folder of `micro.generate voxels`, whose tensors are used
if it holds any, or a `.npy` of densities. There is one row for each number of steps of a multiscale network.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (32) to (34).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from surrogates.cells.data import Cells
from surrogates.cells.energy import CellEnergy
from surrogates.cells.networks.multiscale import MultiscaleNetwork
from surrogates.cells.networks.paper import TensorNetwork

#: Components below this part of the largest one count as zero in Eq. (32); the paper does not give its epsilon. It is
#: twice the random size, in random cells of 20^3 voxels, of components that are zero on average.
NEGLIGIBLE = 2e-3
#: Stiffness at which cells without any connection are counted, E = 1.
NOTHING = 1e-9
#: Voxels that a network evaluates together.
VOXELS = 1 << 20


def relative_error(found: Tensor, exact: Tensor, negligible: float = NEGLIGIBLE) -> Tensor:
    """Return the mean relative error of each tensor (cells,), Eqs. (32) and (33), of absolute values.

    As printed Eq. (32) has no absolute value, and errors of opposite sign cancel. Negligible components count as exact,
    so 12 of 36 count in a cell with the symmetry of the cube.

    Args:
        found: Tensors (cells, 6, 6).
        exact: Tensors (cells, 6, 6).
        negligible: See `NEGLIGIBLE`.
    """
    size = exact.abs()
    counted = size >= (negligible * size.amax((1, 2), keepdim=True)).clamp(min=NOTHING)
    return torch.where(counted, (found - exact).abs() / torch.where(counted, size, 1.0), 0.0).mean((1, 2))


def energy_error(found: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest relative error of the energy over all strains, each (cells,).

    The least is not negative, up to rounding, for a tensor that is computed from the energy. Strains that a cell hardly
    resists are compared with 1e-6 of its largest stiffness.
    """
    values, vectors = torch.linalg.eigh(exact)
    size = torch.maximum(values, 1e-6 * values[:, -1:]).clamp(min=NOTHING).rsqrt()
    difference = size[:, :, None] * (vectors.mT @ (found - exact) @ vectors) * size[:, None]
    errors = torch.linalg.eigvalsh((difference + difference.mT) / 2)
    return errors[:, 0], errors[:, -1]


def predict_steps(
    module: torch.nn.Module, density: Tensor, steps: Sequence[int | None]
) -> tuple[list[Tensor], Tensor | None]:
    """Return the tensors (cells, 6, 6) after each of some steps, in one run, and the fluctuations after the last.

    Args:
        module: The network.
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 to 1.
        steps: Of a multiscale network, in rising order; None is its own number. Other networks have one prediction
        only.
    """
    tensors: list[list[Tensor]] = [[] for _ in steps]
    fields = []
    many = max(1, VOXELS // int(np.prod(density.shape[1:])))
    with torch.no_grad():
        for part in density.split(many):
            cells = CellEnergy(part)
            if isinstance(module, TensorNetwork):
                tensors[-1].append(module(cells).double())
                continue
            if isinstance(module, MultiscaleNetwork):
                sequence = module.sequence(cells, steps[-1])
            else:
                sequence = [module(cells)]
            for found, k in zip(tensors, steps):
                found.append(cells.certified(sequence[-1 if k is None else k - 1]))
            fields.append(sequence[-1])
    return [torch.cat(found) for found in tensors], torch.cat(fields) if fields else None


def predict(module: torch.nn.Module, density: Tensor, *, steps: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Return tensors (cells, 6, 6), float64, and fluctuations (cells, 6, 3, X, Y, Z), float32, in voxels.

    The tensors of networks that give fields are upper bounds of the elements', Eq. (25); a tensor network gives no
    fields, and no bound.

    Args:
        module: The network.
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 to 1.
        steps: Of a multiscale network, its own number if None.
    """
    tensors, fields = predict_steps(module, density, [steps])
    return tensors[-1], fields


def steps_of(module: torch.nn.Module) -> list[int | None]:
    """Return the numbers of steps for which a network predicts, the last one its own; None where it has no steps."""
    return list(range(1, module.steps + 1)) if isinstance(module, MultiscaleNetwork) else [None]


def errors_of(module: torch.nn.Module, known: Cells, device: str = "cpu") -> list[dict[str, float]]:
    """Return the errors of a network against exact tensors, after each of its steps.

    Args:
        module: The network.
        known: Cells with their exact tensors.
        device: Of PyTorch.

    Returns:
        `mean`, Eq. (34), `worst` of a cell, and of the energy over all strains `energy_median`, the median over the
        cells of the largest error, and `energy_least`, the least error of all: for a network that gives fields it is
        not negative, up to rounding, since no strain has less energy than in the elements.

    Raises:
        ValueError: The cells have no exact tensors.
    """
    if known.tensor is None:
        raise ValueError("cells must be solved before errors are measured.")
    steps = steps_of(module)
    parts = [predict_steps(module, part.density.to(device), steps)[0] for part in known.parts(8)]
    rows = []
    for found in zip(*parts):
        tensor = torch.cat(found).cpu()
        error, (least, most) = relative_error(tensor, known.tensor), energy_error(tensor, known.tensor)
        rows.append({
            "mean": float(error.mean()), "worst": float(error.max()),
            "energy_median": float(most.median()), "energy_least": float(least.min()),
        })  # fmt: skip
    return rows


def table(
    modules: dict[str, torch.nn.Module], sets: dict[str, Cells], device: str = "cpu"
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the errors of each network (and number of steps) on each set of solved cells."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, module in modules.items():
        labels = [name if k is None else f"{name}, {k} step{'s' * (k > 1)}" for k in steps_of(module)]
        rows |= {label: {} for label in labels}
        for kind, known in sets.items():
            for label, found in zip(labels, errors_of(module, known, device)):
                rows[label][kind] = found
    return rows


def as_text(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a readable table: mean relative errors in per cent, that of the worst cell in brackets."""
    names = list(next(iter(rows.values())))
    wide = max(map(len, rows))
    lines = [f"{'mean (worst) error, %':{wide}s} " + " ".join(f"{name:>16s}" for name in names)]
    for label, found in rows.items():
        cells_ = (f"{100 * row['mean']:.2f} ({100 * row['worst']:.2f})" for row in found.values())
        lines.append(f"{label:{wide}s} " + " ".join(f"{text:>16s}" for text in cells_))
    return "\n".join(lines) + "\n"
