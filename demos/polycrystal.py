# %% [markdown]
# # A polycrystal: why rolled magnesium is soft in one direction
#
# Magnesium crystals slip easily in the basal plane, which cannot change the length of the c axis. The c axis gets
# longer by twinning: a part of the crystal shears by 0.129 and is then a crystal of another orientation. A twin works
# in one sense only, so nothing as easy makes the c axis shorter. A rolled sheet, whose c axes stand on the sheet, is
# therefore hard when it is compressed across the sheet, and soft when it is compressed along it.
#
# This story loads a material and a texture, compresses the polycrystal in both directions, and looks at stress, twins,
# slip and pole figures. Nothing here needs a mesh: the package `micro.crystal` can be used on its own.
#
# The polycrystal is that of Taylor: all grains have the same deformation gradient F, and the stress is the mean of
# theirs. The law of a grain is that of Liu et al. (2022), doi:10.1016/j.jmps.2021.104668, with the parameters of its
# table A.1; docs/guides/crystal-plasticity.md explains both.

# %%
import json
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from mpi4py import MPI

from micro.crystal.materials import load_material
from micro.crystal.pole_figure import pole_figure
from micro.crystal.systems import slip_systems, twin_systems
from micro.crystal.taylor import TaylorPolycrystal
from micro.crystal.texture import deformed_texture, fibre_texture, write_texture
from micro.tensors import to_components

GRAINS, SPREAD, SEED = 96, 12.0, 1  # number, degrees, -
STRAIN, RATE, STEPS = 0.08, 1e3, 40  # logarithmic, 1/s, -
SQUEEZE = 0.01  # loss of volume at the end
comm, FOLDER = MPI.COMM_WORLD, Path("results/polycrystal")

# %% [markdown]
# ## Material and texture
# A material is a small file with the source of every number: `micro/crystal/materials/magnesium.toml`. Here the grains
# have their c axes near the z axis, the normal of the sheet, with tilts of 12 degrees, and any rotation about it.

# %%
magnesium = load_material("magnesium")
sheet = fibre_texture(GRAINS, SEED, spread=SPREAD)

# %% [markdown]
# ## Two compressions
# The first path compresses the z axis, across the sheet; the second one the x axis, along the sheet. The other two
# axes grow alike. The volume shrinks by one per cent on the way, so that there is a pressure to check:
#
#     F(t) = J(t)^(1/3) diag(b, b, a),   a = exp(-rate t),   b = a^(-1/2),   J(t) = 1 - 0.01 t/T.
#
# F is symmetric and positive, so it is the stretch U as well. Components of U: 11, 22, 33, 12, 23, 13.

# %%
time = torch.linspace(0, STRAIN / RATE, STEPS + 1, dtype=torch.float64)
a, J = torch.exp(-RATE * time), 1 - SQUEEZE * time / time[-1]
b = a**-0.5
U = torch.stack([torch.stack([b, b, a], -1), torch.stack([a, b, b], -1)]) * J[:, None] ** (1 / 3)
F = torch.diag_embed(U)  # (2 paths, 41 times, 3, 3)

# %% [markdown]
# ## Solve
# `solve` takes whole paths and returns the mean Cauchy stress. The textures at the end need the state of the grains,
# which `update` carries from one time to the next, as a finite element code would. `unpack` reads from it, for every
# grain in the frame of its crystal, the inelastic deformation F_in, the accumulated slip e of each system, and the
# volume fraction lambda of each twin.

# %%
taylor = TaylorPolycrystal(sheet, parameters=magnesium)
result = taylor.solve(to_components(F), time.expand(2, -1))
assert bool(result.ok.all()), result.reason
state, twinned = taylor.initial_state(2), [torch.zeros(2, dtype=torch.float64)]
for k in range(1, STEPS + 1):
    _, state, ok = taylor.update(F[:, k], state, (time[k] - time[k - 1]).expand(2))
    F_in, e, lam = taylor.unpack(state)
    twinned.append(lam.sum(-1) @ sheet.weights)
after = [deformed_texture(sheet, F[i, -1], F_in[i], lam[i], magnesium) for i in range(2)]

# %% [markdown]
# ## Check 1: the pressure
# Slip and twinning keep the volume, and the energy of the model has the part lambda_e (J - 1)^2. So a third of the
# trace of the mean stress is 2 lambda_e (J - 1), whatever the grains have done. The solver was not told.

# %%
pressure = 2 * magnesium.lambda_e * (J - 1)
pressure_error = float((result.stress[..., :3].mean(-1) - pressure).abs().max() / pressure.abs().max())
assert pressure_error < 1e-6, pressure_error

# %% [markdown]
# ## Check 2: the twins
# Compression along the sheet makes c longer, so the grains twin; compression across it does not. A twin is the parent
# turned by 180 degrees about the normal n of the twin plane (10-12), which swings c by 86.3 degrees: the angle that
# textbooks give for magnesium, and the reason why new basal poles appear in the direction of compression.

# %%
across, along = twinned[-1].tolist()
n = twin_systems(magnesium).m[int(lam[1].sum(0).argmax())]
swing = math.degrees(math.acos(abs(float(2 * n[2] ** 2 - 1))))
assert abs(swing - 86.3) < 0.05 and along > 0.1 > 5 * across, (swing, along, across)

# %% [markdown]
# ## Slip per family
# The sum of the accumulated slip of the systems of a family, the mean over the grains, as a share of all slip.

# %%
families = np.array(slip_systems(magnesium).family)
total = torch.einsum("g,pgs->ps", sheet.weights, e).numpy()
activity = {name: total[:, families == name].sum(1) / total.sum(1) for name in dict.fromkeys(families.tolist())}

# %% [markdown]
# ## The picture
# Above: stress, twins and slip of the two compressions. Below: the basal poles, in multiples of a random texture, with
# the z axis in the middle and x to the right. The textures are written to files of Euler angles, which
# `read_texture` reads again.

# %%
FOLDER.mkdir(parents=True, exist_ok=True)
figure, names = Figure(figsize=(11, 7), layout="constrained"), ("across the sheet", "along the sheet")
(left, middle, right), low = figure.subplots(2, 3)
deviator = torch.diag_embed(result.stress[..., :3] - pressure[:, None])
von_mises = 1e-6 * (1.5 * (deviator.square().sum((-1, -2)) + 2 * result.stress[..., 3:].square().sum(-1))).sqrt()
for i, name in enumerate(names):
    left.plot(100 * RATE * time, von_mises[i], label=name)
    middle.plot(100 * RATE * time, 100 * torch.stack(twinned)[:, i], label=name)
    right.bar(np.arange(3) + 0.4 * i, [100 * share[i] for share in activity.values()], 0.4, label=name)
left.set(xlabel="strain, %", title="von Mises stress, MPa")
middle.set(xlabel="strain, %", title="twinned volume, %")
right.set(title="share of all slip, %", xticks=np.arange(3) + 0.2, xticklabels=list(activity))
left.legend(title="compression", frameon=False)
for axis, texture, name in zip(low, (sheet, *after), ("before", *(f"after, {name}" for name in names))):
    x, y, density = pole_figure(texture, (0, 0, 0, 1), magnesium)
    figure.colorbar(axis.contourf(x, y, density, 12), ax=axis, shrink=0.8)
    axis.set(aspect="equal", xticks=[], yticks=[], frame_on=False, title=f"basal poles {name}")
if comm.rank == 0:
    figure.savefig(FOLDER / "polycrystal.png", dpi=150)
    for texture, name in zip((sheet, *after), ("before", "across", "along")):
        write_texture(FOLDER / f"texture_{name}.txt", texture)
    found = {"pressure_error": pressure_error, "swing": swing, "twinned": [across, along]}
    found |= {"von_mises": von_mises[:, -1].tolist(), "slip": {k: v.tolist() for k, v in activity.items()}}
    (FOLDER / "summary.json").write_text(json.dumps(found, indent=1))
    print(f"Polycrystal: {100 * along:.0f} % twinned along the sheet and {100 * across:.1f} % across it.")
