# %% [markdown]
# # A metal with stiff fibres, a metal with voids, and a polycrystal: three cells, one solver
#
# **Why.** The spectral solver of `micro.spectral` takes any law at a point. Here an elastoplastic metal (von Mises,
# linear hardening, finite strain) holds stiff fibres, then voids, at random places; then the metal is 16 grains
# with two slip systems each. Local fields show where the mean hides them.
#
# **Problem.** Plane strain, mean stretch diag(1 + e, 1/(1 + e), 1): e = 2 % for the composites, 4 % for the grains.
#
# **Check** against bounds that know nothing of the geometry. With equal strain everywhere (Voigt, for which only the
# phases alone are computed) the work of a monotonic path is larger than in the cell: 72 % of the metal remain
# with voids. The metal alone does less work than the metal with stiff fibres.
#
# Reference: Liu et al. (2022), section 3 (2DFFT), doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import torch

from micro.crystal.cell import polycrystal_cells, random_cell
from micro.crystal.materials import load_material
from micro.data.files import write_whole
from micro.spectral import CellResult, SpectralCells
from micro.spectral.laws import NeoHookean, Void, VonMises
from micro.spectral.voronoi import stream
from micro.tensors import determinant, deviator, from_components, matmul

matplotlib.use("Agg")
from matplotlib import pyplot as plt

N, STEPS, DISCS, RADIUS = 48, 8, 9, 0.1
METAL, FIBRE = VonMises(mu=26e9, bulk=70e9, yield_stress=200e6, hardening=500e6), NeoHookean(mu=160e9, lam=160e9)
OUTPUT = Path("results/composite")

# %% [markdown]
# ## Geometry, path, work


# %%
rng = stream(0, 0)
centres: list[np.ndarray] = []
while len(centres) < DISCS:  # discs that do not touch, in the periodic distance
    point = rng.uniform(size=2)
    if all(np.linalg.norm((point - c + 0.5) % 1 - 0.5) > 2.2 * RADIUS for c in centres):
        centres.append(point)
x = np.stack(np.meshgrid(*[(np.arange(N) + 0.5) / N] * 2, indexing="ij"), -1)
inside = np.any([np.linalg.norm((x - c + 0.5) % 1 - 0.5, axis=-1) < RADIUS for c in centres], axis=0)
phase = torch.from_numpy(inside.astype(np.int64))[None]
fraction = float(inside.mean())


def path(strain: float, duration: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean stretch (1, T, 6) and the times (1, T), s."""
    t = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    U = torch.zeros(1, STEPS + 1, 6, dtype=torch.float64)
    U[0, :, 0], U[0, :, 1], U[0, :, 2] = 1 + strain * t, 1 / (1 + strain * t), 1.0
    return U, duration * t[None]


def work(result: CellResult, U: torch.Tensor) -> float:
    """Work of the mean stress along the path, J/m^3, by the trapezoidal rule."""
    mean = from_components(U[0])
    P = determinant(mean)[:, None, None] * matmul(from_components(result.stress[0]), torch.linalg.inv(mean))
    return float((0.5 * (P[1:] + P[:-1]) * mean.diff(dim=0)).sum())


# %% [markdown]
# ## Solve

# %%
U, time = path(0.02, 1.0)
one = torch.zeros(1, 2, 2, dtype=torch.long)
metal, fibre = (work(SpectralCells(one, [law]).solve(U, time), U) for law in (METAL, FIBRE))
fibres = SpectralCells(phase, [METAL, FIBRE]).solve(U, time, store=[-1])
voids = SpectralCells(phase, [METAL, Void()]).solve(U, time, store=[-1])
grain, turns = random_cell(16, (N, N), 0, 0)
U_grains, time_grains = path(0.04, 0.04)
grains = polycrystal_cells(grain[None], turns[None], load_material("two-slip-2d")).solve(
    U_grains, time_grains, store=[-1]
)
assert all(bool(result.ok.all()) for result in (fibres, voids, grains)), "a cell was not solved"

# %% [markdown]
# ## Check

# %%
summary = {
    "fraction": fraction,
    "work_metal": metal,
    "work_fibres": work(fibres, U),
    "voigt_fibres": (1 - fraction) * metal + fraction * fibre,
    "work_voids": work(voids, U),
    "voigt_voids": (1 - fraction) * metal,
    "evaluations_per_step": {
        name: float(r.iterations[:, 1:].double().mean())
        for name, r in (("fibres", fibres), ("voids", voids), ("grains", grains))
    },
}
assert metal < summary["work_fibres"] < summary["voigt_fibres"]
assert 0 < summary["work_voids"] < summary["voigt_voids"]

# %% [markdown]
# ## Picture

# %%
OUTPUT.mkdir(parents=True, exist_ok=True)
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for axis, result, title in zip(axes, (fibres, voids), ("stiff fibres", "voids")):
    alpha = np.where(inside, np.nan, result.internal[0, 0, ..., 6].numpy())
    image = axis.imshow(alpha.T, origin="lower", cmap="viridis")
    axis.set_title(f"{title}: equivalent plastic strain")
    figure.colorbar(image, ax=axis)
F, P = grains.F[0, 0], grains.P[0, 0]
sigma = deviator(matmul(P, F.mT) / determinant(F)[..., None, None])
mises = 1.5**0.5 * sigma.flatten(-2).norm(dim=-1) / 1e6
image = axes[2].imshow(mises.T.numpy(), origin="lower", cmap="magma")
edges = (grain != np.roll(grain, 1, 0)) | (grain != np.roll(grain, 1, 1))
axes[2].contour(edges.T, levels=[0.5], colors="white", linewidths=0.4)
axes[2].set_title("16 grains: von Mises stress, MPa")
figure.colorbar(image, ax=axes[2])
figure.savefig(OUTPUT / "cells.png", dpi=130)
write_whole(OUTPUT / "summary.json", json.dumps(summary, indent=1))
print(json.dumps(summary, indent=1))
