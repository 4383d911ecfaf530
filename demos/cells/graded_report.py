"""Report of a graded part: its checks against independent numbers, its figure, and the summary in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def checks(s: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Compare a summary with independent numbers: the value found, its tolerance, and whether it passed."""
    out: dict[str, dict[str, Any]] = {}

    def check(name: str, found: float, tolerance: float) -> None:
        out[name] = {"found": found, "tolerance": tolerance, "passed": bool(found <= tolerance)}

    check("clapeyron", s["clapeyron"], 1e-8)
    check("derivative", s["derivative"]["error"], 1e-4)
    if s["network_against_homogeniser"] is not None:
        check("upper_bound_of_the_part", s["network_against_homogeniser"]["compliance_error"], 1e-8)
        check("upper_bound_of_the_cells", -s["network_against_homogeniser"]["energy_least"], 1e-6)
    if s["against_voxels"] is not None:
        check("voxels", abs(s["against_voxels"]["compliance_error"]), 0.2)
        check("line", s["against_voxels"]["displacement_error"], 0.2)
    J = s["compliance"]
    check("volume", abs(s["volume"][1] / s["volume"][0] - 1.0), 1e-9)
    check("descent", max(np.diff(J), default=-1.0), 0.0)
    return out


def draw(sections: Sequence[np.ndarray], fractions: Sequence[np.ndarray], history: Sequence[float], path: Path) -> None:
    """Draw the part at the start and at the end: a section lengthwise, volume fractions, and the compliance by step.

    Args:
        sections: Densities (X, Z) in the middle of a cell.
        fractions: Volume fractions of the cells (a, b, c).
        history: Compliance by step.
        path: File of the picture.
    """
    a, _, c = fractions[0].shape
    low, high = min(values.min() for values in fractions), max(values.max() for values in fractions)
    figure, axes = plt.subplots(3, 2, figsize=(10, 7), layout="constrained")
    for column, (section, fraction, name) in enumerate(zip(sections, fractions, ("start", "end"), strict=True)):
        extent = (0.0, c, 0.0, a)
        axes[0, column].imshow(section, cmap="Greys", origin="lower", extent=extent, vmin=0, vmax=1)
        axes[0, column].set(title=name, ylabel="x")
        picture = axes[1, column].imshow(
            fraction.mean(1), cmap="viridis", origin="lower", extent=extent, vmin=low, vmax=high
        )
        axes[1, column].set(xlabel="z, clamped at 0", ylabel="x")
    figure.colorbar(picture, ax=axes[1, 1], label="volume fraction")
    axes[2, 0].plot(history, "o-", color="#023047")
    axes[2, 0].set(xlabel="step", ylabel="compliance")
    gap = axes[2, 1]
    for fraction, name, colour in zip(fractions, ("start", "end"), ("#8ecae6", "#fb8500"), strict=True):
        gap.plot(np.arange(c) + 0.5, fraction.mean((0, 1)), "o-", color=colour, label=name)
    gap.set(xlabel="z", ylabel="volume fraction, mean")
    gap.legend(frameon=False)
    hidden = path.with_name(f".{path.name}.part.png")
    figure.savefig(hidden, dpi=130)
    plt.close(figure)
    hidden.replace(path)


def sentence(s: dict[str, Any]) -> str:
    """The summary in a few lines."""
    J, versus, voxels = s["compliance"], s["network_against_homogeniser"], s["against_voxels"]
    lines = [f"{s['family']}, {' x '.join(map(str, s['cells']))} cells, stiffness from {s['stiffness_from']}."]
    if versus is not None:
        lines.append(
            f"  network against homogeniser: compliance {100 * versus['compliance_error']:.3g} %, displacement "
            f"{100 * versus['displacement_error']:.3g} %, worst tensor {100 * versus['tensor_error_worst']:.3g} %"
        )
    if voxels is not None:
        lines.append(
            f"  homogenised against {voxels['voxels']} voxels: compliance {100 * voxels['compliance_error']:.3g} %, "
            f"line of deflection {100 * voxels['displacement_error']:.3g} %"
        )
    lines.append(f"  derivative against differences: {s['derivative']['error']:.2g}")
    lines.append(f"  compliance {J[0]:.5g} -> {J[-1]:.5g}, cells all alike {s['compliance_even']:.5g}; same volume")
    return "\n".join(lines) + f"\n  {s['seconds']['wall']:.0f} s.\n"
