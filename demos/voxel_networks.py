# %% [markdown]
# # Networks, the solver, and both together: effective stiffness of voxel cells
#
# **Why.** A network that gives a cell's displacements replaces a solver only if it is faster at the same accuracy, on
# cells of kinds that it has not seen. Here it runs beside the solver it is to replace: seconds of one processor, one
# cell at a time, set-up included.
#
# **Equations.** Both give fluctuations u of the six unit strains. The energy of u is an upper bound U of the tensor C
# of the elements, Eq. (25) of the paper, so that U - C has no negative eigenvalue, whatever the network's weights. The
# measure is the paper's mean relative error, Eqs. (32) to (34), with absolute values.
#
# **Parameters.** E = 1 and nu = 0.3 in the solid, voids are empty. Frames of nine kinds, centred and with other radii
# than those trained on; minimal surfaces of five kinds, both sides; Latin-hypercube densities, and penalised ones.
#
# **Checks.** No tensor of the network is below the solver's in energy; errors fall with every step of the network.
#
# Reference: Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional
# neural network, section 5.

# %%
from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np
import torch
from torch import Tensor

from micro.homogeniser import Homogeniser
from micro.voxel_frames import FRAMES, make_frame
from micro.voxel_random import make_random
from micro.voxel_tpms import SURFACES, make_tpms, tpms_function
from surrogates.cell_errors import energy_error, relative_error
from surrogates.cell_network import PRETRAINED, load_network, predict
from surrogates.cells import Cells, solve
from surrogates.multiscale import MultiscaleNetwork

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TARGETS = {"frames": 0.012, "tpms": 0.03, "lhs": 0.005, "p-lhs": 0.005}
PAPER = {"frames": 0.017, "tpms": 0.044, "lhs": 0.0066, "p-lhs": 0.0073}


# %%
def parse() -> argparse.Namespace:
    """Read the command line."""
    shown = argparse.ArgumentDefaultsHelpFormatter
    p = argparse.ArgumentParser(description="Networks and the solver.", formatter_class=shown)
    p.add_argument("--n", type=int, default=20, help="voxels a side")
    p.add_argument("--cells", type=int, default=10, help="cells of each family")
    p.add_argument("--timed", type=int, default=3, help="cells of each family on which times are taken")
    p.add_argument("--network", type=Path, nargs="*", default=[PRETRAINED], help="networks; the first is timed")
    p.add_argument("--output", type=Path, default=Path("results/voxel_networks"), help="folder of the results")
    return p.parse_args()


# %% [markdown]
# ## Cells


# %%
def families(n: int, count: int) -> dict[str, Tensor]:
    """Return densities (cells, n, n, n) of each family."""
    radii = np.linspace(max(0.07, 0.9 / n), 0.19, max(2, -(-count // 9)))  # thinner ones hold no voxel
    frames = [make_frame(name, n, float(r)) for r in radii for name in FRAMES][:count]
    surfaces = []
    for k in range(count):
        name, above = SURFACES[k % 5], (k // 5) % 2 == 0
        share = 0.25 + 0.5 * (k * 0.618034 % 1)  # of solid
        level = np.quantile(tpms_function(name, n), 1 - share if above else share)
        surfaces.append(make_tpms(name, n, float(level), above=above))
    random = [[make_random(n, k, 7, penalised=p)[0] for k in range(count)] for p in (False, True)]
    sets = {"frames": frames, "tpms": surfaces, "lhs": random[0], "p-lhs": random[1]}
    return {name: torch.from_numpy(np.stack(cells).astype(np.float32)) for name, cells in sets.items()}


def held_together(cells: Cells) -> Cells:
    """Return the cells that resist every strain, as the paper's do: some surfaces fall into pieces."""
    assert cells.tensor is not None
    return cells[torch.linalg.eigvalsh(cells.tensor)[:, 0] > 1e-4]


# %% [markdown]
# ## Errors


# %%
def table(module: torch.nn.Module, sets: dict[str, Cells], steps: int | None) -> dict[str, dict[str, float]]:
    """Return the errors of a network on each family."""
    out = {}
    for name, cells in sets.items():
        tensor = torch.cat([predict(module, part.density, steps=steps)[0] for part in cells.parts(8)])
        assert cells.tensor is not None
        error, (least, most) = relative_error(tensor, cells.tensor), energy_error(tensor, cells.tensor)
        out[name] = {
            "mean": float(error.mean()), "worst": float(error.max()),
            "energy_median": float(most.median()), "energy_least": float(least.min()),
        }  # fmt: skip
    return out


# %% [markdown]
# ## Times


# %%
def timed(cells: Cells, module: torch.nn.Module | None, steps: int, iterations: int, kind: str) -> tuple[float, float]:
    """Return mean error and processor seconds a cell of steps of a network and then some of conjugate gradients."""
    errors, seconds = [], []
    for part in cells.parts(1):
        assert part.tensor is not None
        began = time.process_time()
        u, tensor = None, None
        if module is not None:
            tensor, u = predict(module, part.density, steps=steps)
        if iterations:
            cell = Homogeniser(part.density.double(), spacing=np.ones(3), preconditioner=kind)
            tensor = cell.solve(None if u is None else u.double(), tolerance=1e-14, iterations=iterations).tensor
        seconds.append(time.process_time() - began)
        assert tensor is not None
        errors.append(float(relative_error(tensor, part.tensor)))
    return float(np.mean(errors)), float(np.mean(seconds))


def race(cells: Cells, module: MultiscaleNetwork) -> dict[str, list[tuple[float, float]]]:
    """Return (error, seconds) of growing effort for the network alone, the solver alone and both."""
    curves = {"network": [timed(cells, module, steps, 0, "") for steps in range(1, module.steps + 2)]}
    for kind, most in (("multigrid", 6), ("fourier", 16)):
        efforts = [k for k in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16) if k <= most]
        curves[f"solver, {kind}"] = [timed(cells, None, 0, k, kind) for k in efforts]
        curves[f"network + CG, {kind}"] = [timed(cells, module, 1, k, kind) for k in efforts[:-2]]
    return curves


def time_to(curve: list[tuple[float, float]], error: float) -> float | None:
    """Return the least seconds at which a curve is at an error or below, None where it never is."""
    reached = [seconds for found, seconds in curve if found <= error]
    return min(reached) if reached else None


# %% [markdown]
# ## Run


# %%
def run(options: argparse.Namespace) -> None:
    """Measure, check, write and draw."""
    torch.set_num_threads(1)
    sets = {name: held_together(solve(Cells(rho))) for name, rho in families(options.n, options.cells).items()}
    counts = {name: len(cells) for name, cells in sets.items()}
    summary: dict = {"n": options.n, "cells": counts, "networks": {}, "seconds": {}, "to": {}}
    networks = {path.stem: load_network(path).module for path in options.network}
    for label, module in networks.items():
        rows = [("", None)]
        if isinstance(module, MultiscaleNetwork):
            rows = [(f", {k} steps", k) for k in range(1, module.steps + 1)]
        for text, steps in rows:
            found = table(module, sets, steps)
            summary["networks"][label + text] = found
            print(f"{label + text:34s}", *(f"{name} {100 * row['mean']:.2f} %" for name, row in found.items()))
    # Checks: the bound, and progress with every step.
    ours = [v for k, v in summary["networks"].items() if k.startswith(next(iter(networks)))]
    for name in sets:
        assert all(found[name]["energy_least"] > -1e-5 for found in ours), f"{name}: a tensor below the elements'"
        means = [found[name]["mean"] for found in ours]
        assert all(b < a for a, b in zip(means, means[1:])), f"{name}: errors {means} do not fall"
    first = next(iter(networks.values()))
    assert isinstance(first, MultiscaleNetwork), "the first network must be multiscale: it is timed"
    figure, axes = plt.subplots(1, len(sets), figsize=(3.6 * len(sets), 3.4), sharey=True, layout="constrained")
    for axis, (name, cells) in zip(axes, sets.items()):
        some = cells[torch.linspace(0, len(cells) - 1, options.timed).long()]
        timed(some[:1], first, 1, 1, "multigrid")  # first calls are slow
        curves = race(some, first)
        summary["seconds"][name] = curves
        summary["to"][name] = {
            f"{100 * error:g} %": {who: time_to(curve, error) for who, curve in curves.items()}
            for error in (1e-2, 1e-3)
        }
        print(f"{name:7s} seconds a cell to", json.dumps(summary["to"][name]))
        for who, curve in curves.items():
            axis.loglog(*zip(*((seconds, max(error, 1e-7)) for error, seconds in curve)), "o-", ms=3, label=who)
        axis.set_title(name)
        axis.set_xlabel("processor seconds a cell")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean relative error")
    axes[0].legend()
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "race.png", dpi=110)
    summary["targets"], summary["paper"] = TARGETS, PAPER
    (options.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def main() -> int:
    """Run with the options of the command line."""
    logger = logging.getLogger("micro.homogeniser")
    logger.setLevel(logging.ERROR)  # runs are stopped on purpose
    try:
        run(parse())
    finally:
        logger.setLevel(logging.NOTSET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
