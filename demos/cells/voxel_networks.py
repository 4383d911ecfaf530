# %% [markdown]
# # Networks, the solver, and both together: effective stiffness of voxel cells
#
# **Why.** A network that predicts the displacements of a cell can replace a solver only if it is faster at the same
# accuracy, on kinds of cells that it has not been trained on. Here it runs beside that solver: seconds of one
# processor, one cell at a time, set-up included.
#
# **Equations.** Both yield fluctuations u of the six unit strains. The energy of u is an upper bound U of the tensor C
# of the elements, Eq. (25) of the paper, so U - C has no negative eigenvalue, whatever the weights of the network. The
# measure is the paper's mean relative error, Eqs. (32) to (34), with absolute values.
#
# **Parameters.** E = 1 and nu = 0.3 in the solid, voids are empty. The four families of the paper as
# `micro.generate voxels` draws them: frames of nine kinds, unshifted and with other radii than in the training;
# minimal surfaces of five kinds, both sides; Latin-hypercube densities, and penalised ones.
#
# **Checks.** No tensor of the network is below the solver's in energy; errors fall with every step of the network.
#
# Reference: Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional
# neural network, doi:10.1007/s00371-024-03411-5; section 5.

# %%
from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np
import torch

from micro.data.cli import Parser, check_folder, check_memory
from micro.voxel.solver.homogeniser import Homogeniser, check_size
from micro.voxel.source import FAMILIES, draw
from surrogates.cells.data import Cells, solve
from surrogates.cells.evaluate import as_text, predict, relative_error, table
from surrogates.cells.networks.file import PRETRAINED, load_network
from surrogates.cells.networks.multiscale import MultiscaleNetwork
from surrogates.cells.networks.paper import TensorNetwork

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TARGETS = {"frame": 0.012, "tpms": 0.03, "lhs": 0.005, "p-lhs": 0.005}
PAPER = {"frame": 0.017, "tpms": 0.044, "lhs": 0.0066, "p-lhs": 0.0073}
#: Seed of the cells, not that of the sets trained on, and radii of the frames.
SEED, RADIUS = 7, (0.06, 0.2)
#: Memory of the cells of the four families, bytes per voxel: densities in double and single precision.
BYTES = 4 * 12


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Networks and the solver.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--n", type=int, default=20, help="voxels per side")
    p.add_argument("--cells", type=int, default=10, help="cells of each family")
    p.add_argument("--timed", type=int, default=3, help="cells of each family whose times are measured")
    p.add_argument("--network", type=Path, nargs="+", default=[PRETRAINED], help="networks; the first is timed")
    p.add_argument("--output", type=Path, default=Path("results/voxel_networks"), help="folder of the results")
    o = p.parse_args(arguments)
    if o.n < 2:
        raise ValueError(f"--n must be at least 2, got {o.n}.")
    if o.cells < 1:
        raise ValueError(f"--cells must be at least 1, got {o.cells}.")
    check_size("--n", (o.n,) * 3)
    what = f"{o.cells} cells of {o.n}^3 voxels in each of four families"
    check_memory(what, BYTES * o.cells * o.n**3, name="--cells")
    if not 1 <= o.timed <= o.cells:
        raise ValueError(f"--timed must lie between 1 and --cells, {o.cells}, got {o.timed}.")
    if len({path.stem for path in o.network}) < len(o.network):
        raise ValueError(f"--network must be files whose names differ, got {', '.join(map(str, o.network))}.")
    check_folder("--output", o.output)
    return o


def read_networks(paths: list[Path], n: int) -> dict[str, torch.nn.Module]:
    """Return the networks by their names; ValueError names one that cannot run here."""
    modules = {path.stem: load_network(path).module for path in paths}
    first = next(iter(modules.values()))
    if not isinstance(first, MultiscaleNetwork):
        raise ValueError(f"--network must begin with a multiscale network, which is timed, got {paths[0]}.")
    for path, module in zip(paths, modules.values()):
        if isinstance(module, TensorNetwork) and module.side != n:
            raise ValueError(f"--n must be {module.side} for {path}, a tensor network, got {n}.")
    return modules


# %% [markdown]
# ## Cells


# %%
def families(n: int, count: int) -> dict[str, Cells]:
    """Return solved cells of each family, of none of the sets that networks are trained on."""
    sets = {}
    for family in FAMILIES:
        density = np.stack([draw(family, n, k, SEED, radius=RADIUS).density for k in range(count)])
        sets[family] = solve(Cells(torch.from_numpy(density).float()))
    return sets


# %% [markdown]
# ## Times


# %%
def timed(cells: Cells, module: torch.nn.Module | None, steps: int, iterations: int, kind: str) -> tuple[float, float]:
    """Return mean error and processor seconds per cell of steps of a network followed by conjugate gradients."""
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


def draw_race(seconds: dict[str, dict[str, list[tuple[float, float]]]], path: Path) -> None:
    """Error against processor seconds: a panel per family, a line each for the network, the solver and both."""
    figure, axes = plt.subplots(1, len(seconds), figsize=(3.6 * len(seconds), 3.8), sharey=True, layout="constrained")
    for axis, (name, curves) in zip(axes, seconds.items()):
        for who, curve in curves.items():
            axis.loglog(*zip(*((spent, max(error, 1e-7)) for error, spent in curve)), "o-", ms=3, label=who)
        axis.set_title(name)
        axis.set_xlabel("processor seconds per cell")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean relative error")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


# %% [markdown]
# ## Run


# %%
def run(options: argparse.Namespace, networks: dict[str, torch.nn.Module], sets: dict[str, Cells]) -> None:
    """Measure, check, write and draw."""
    first = next(iter(networks.values()))
    assert isinstance(first, MultiscaleNetwork)
    found = table(networks, sets)
    print(as_text(found))
    summary: dict = {
        "n": options.n,
        "cells": options.cells,
        "timed": options.timed,
        "networks": found,
        "seconds": {},
        "to": {},
    }
    # Checks: the bound, and progress with every step.
    ours = [row for label, row in found.items() if label.startswith(f"{next(iter(networks))}, ")]
    for name in sets:
        assert all(row[name]["energy_least"] > -1e-5 for row in ours), f"{name}: a tensor below the elements'"
        means = [row[name]["mean"] for row in ours]
        assert all(b < a for a, b in zip(means, means[1:])), f"{name}: errors {means} do not fall"
    for name, cells in sets.items():
        some = cells[torch.linspace(0, len(cells) - 1, options.timed).long()]
        timed(some[:1], first, 1, 1, "multigrid")  # first calls are slow
        curves = race(some, first)
        summary["seconds"][name] = curves
        summary["to"][name] = {
            f"{100 * error:g} %": {who: time_to(curve, error) for who, curve in curves.items()}
            for error in (1e-2, 1e-3)
        }
        print(f"{name:7s} seconds per cell to", json.dumps(summary["to"][name]))
    options.output.mkdir(parents=True, exist_ok=True)
    draw_race(summary["seconds"], options.output / "race.png")
    summary["targets"], summary["paper"] = TARGETS, PAPER
    (options.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with the options of the command line: 0 done, 2 bad input."""
    torch.set_num_threads(1)
    try:
        options = parse(arguments)
        networks = read_networks(options.network, options.n)
        sets = families(options.n, options.cells)  # where there is no cell of a family on so few voxels
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logger = logging.getLogger("micro.voxel.solver.homogeniser")
    logger.setLevel(logging.ERROR)  # runs are stopped on purpose
    try:
        run(options, networks, sets)
    finally:
        logger.setLevel(logging.NOTSET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
