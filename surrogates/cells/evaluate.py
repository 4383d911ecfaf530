"""Errors of networks on sets of voxel cells: the paper's table.

`python3 -m surrogates.evaluate` prints the table. A set is a folder of `micro.generate voxels`, whose tensors are used
if it holds any, or a `.npy` of densities. Each number of steps of a multiscale network has a row of its own.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (32) to (34).
"""

import torch

from surrogates.cells.data import Cells
from surrogates.cells.errors import energy_error, relative_error
from surrogates.cells.network import predict_steps
from surrogates.cells.networks.multiscale import MultiscaleNetwork


def steps_of(module: torch.nn.Module) -> list[int | None]:
    """Return the numbers of steps that a network can be asked for, the last one its own; None where it has none."""
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
    """Return a table for people: mean relative errors, per cent, the worst cell's in brackets."""
    names = list(next(iter(rows.values())))
    wide = max(map(len, rows))
    lines = [f"{'mean (worst) error, %':{wide}s} " + " ".join(f"{name:>16s}" for name in names)]
    for label, found in rows.items():
        cells_ = (f"{100 * row['mean']:.2f} ({100 * row['worst']:.2f})" for row in found.values())
        lines.append(f"{label:{wide}s} " + " ".join(f"{text:>16s}" for text in cells_))
    return "\n".join(lines) + "\n"
