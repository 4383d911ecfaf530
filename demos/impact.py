# %% [markdown]
# # Impact: a magnesium bar hits a rigid wall
#
# A square bar of magnesium flies with 150 m/s against a rigid, frictionless wall. An elastic wave runs up the bar and
# stops the material that it passes, but not quite: magnesium yields at a few hundred megapascals, far below the
# pressure at the wall, so that a slower plastic wave follows and the foot becomes wider.
#
# The material is not a formula. It is a *recurrent network*, trained on a polycrystal of magnesium, and it stands at
# every material point of the mesh: strain in, stress out, with the memory of the path as its state.
#
# **Equations.** On the reference body, with the deformation gradient F = I + grad u,
#
#     rho u_tt = Div P,     P = law(history of F),     u_t(0) = -V e_z,     x_3 >= 0 at the wall.
#
# Hexahedra with one point and hourglass control, lumped mass, and central differences in time.
#
# Run it with `python3 demos/impact.py`, or `mpirun -n 2 python3 demos/impact.py`: the numbers are the same.

# %%
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import ufl
from dolfinx import mesh
from dolfinx.fem import assemble_scalar, form
from matplotlib.tri import Triangulation
from mpi4py import MPI

from fem import ExplicitSolver, RigidPlane, load_law

SPEED = 150.0  # m/s
WIDTH, LENGTH = 1e-3, 5e-3  # m
CELLS = 6, 60  # in half the width and in the length
TIMES = 0.4e-6, 0.9e-6, 1.5e-6  # s; the pictures are taken here
FOLDER = Path("results/impact")

# %% [markdown]
# ## The problem
# Two planes of symmetry cut the bar: a quarter of it is enough. The mesh is an ordinary mesh of DOLFINx. The law comes
# by its name; `python3 -m surrogates.pretrained` lists what is shipped. The normal of the wall points to the bar.

# %%
comm = MPI.COMM_WORLD
corner, cells = (WIDTH / 2, WIDTH / 2, LENGTH), (CELLS[0], CELLS[0], CELLS[1])
box = mesh.create_box(comm, [(0, 0, 0), corner], cells, mesh.CellType.hexahedron)
law = load_law("magnesium-recurrent")
wall = RigidPlane((0, 0, 0), (0, 0, 1))
solver = ExplicitSolver(box, law, contact=[wall], initial_velocity=(0, 0, -SPEED))
for i in (0, 1):
    solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), component=i)

# %% [markdown]
# ## The run
# `run` is an iterator that takes a step each time the loop asks for one. The writer keeps a series for ParaView
# (`fields.bp`) and a table (`history.csv`). At each of the three times we also keep the skin of the body, for the
# figure; it is gathered on rank 0.

# %%
skins = []
with solver.writer(FOLDER, every=0.1e-6) as out:
    for end in TIMES:
        for _step in solver.run(until=end):
            out.update()
        skins.append(out.surface())
balance = solver.energy_balance()

# %% [markdown]
# ## Checks
# None of them uses the law, so they hold for every law. The mass of the quarter bar is rho A L, by hand.
#
# 1. *Momentum.* The impulse of the wall is what the bar has lost: rho A L V plus the momentum that is left. The latter
#    we integrate ourselves, with a form of DOLFINx over the velocity.
# 2. *Energy.* The wall does no work, but the layer of nodes that meets it stops at once. It carries the mass of half a
#    cell of length h, so that h / (2 L) of the energy rho A L V^2 / 2 is lost; kinetic, internal and hourglass energy
#    are together what remains (to 0.3 %, the error of the time integration).
# 3. *The front.* No signal is faster than the wave of a confined medium, c_p = sqrt((K + 4 G / 3) / rho), and the
#    front is not slower than the wave of a slender bar, c_0 = sqrt(E / rho). We look for the highest layer of nodes
#    that has lost 0.3 % of its speed, and allow two cells, and 5 % because a compressed solid is stiffer.

# %%
K, G, rho = law.bulk_modulus, law.shear_modulus, law.density
mass = rho * WIDTH**2 / 4 * LENGTH
left = comm.allreduce(assemble_scalar(form(rho * solver.velocity[2] * ufl.dx)))
impulse_error = abs(balance.contact_impulse[2] / (mass * SPEED + left) - 1)

energy = balance.kinetic_energy + balance.internal_energy + balance.hourglass_energy
energy_error = abs(energy / (mass * SPEED**2 / 2) - (1 - 1 / (2 * CELLS[1])))

slow, fast = np.sqrt(9 * K * G / (3 * K + G) / rho), np.sqrt((K + 4 / 3 * G) / rho)
margin = 2 * LENGTH / CELLS[1]

assert impulse_error < 1e-9, impulse_error
assert energy_error < 3e-3, energy_error

# %% [markdown]
# The layers stand on the plane of symmetry x = 0, a part of the skin: heights, mean speeds, and the front.


# %%
def profile(skin):
    """Heights of the layers of the section x = 0, m, and their mean axial velocity, m/s."""
    cut = np.isclose(skin["x"][:, :, 0], 0.0).all(axis=1)
    z, layer = np.unique(np.round(skin["x"][cut][:, :, 2] / LENGTH, 9), return_inverse=True)
    v = skin["velocity"][cut][:, :, 2].ravel()
    return z * LENGTH, np.bincount(layer.ravel(), v) / np.bincount(layer.ravel())


if comm.rank == 0:
    fronts = []
    for t, skin in zip(TIMES, skins):
        z, v = profile(skin)
        fronts.append(z[np.abs(v + SPEED) > 0.003 * SPEED].max())
        assert slow * t - margin < fronts[-1] < 1.05 * fast * t + margin, (t, fronts[-1])

# %% [markdown]
# ## The picture
# Left: the section of the bar at the three times, with the von Mises stress. Right: the axial velocity along the bar,
# with the band in which the front must be. The elastic wave takes only a part of the speed; what follows is plastic, and
# only the material next to the wall comes to rest. Its speed swings about zero: release waves come in from the sides,
# and the middle of the foot may lift off for a moment.

# %%
if comm.rank == 0:
    figure, axes = plt.subplots(1, 4, figsize=(11, 5), layout="constrained", width_ratios=(1, 1, 1, 2.6))
    for axis, t, skin in zip(axes, TIMES, skins):
        cut = np.isclose(skin["x"][:, :, 0], 0.0).all(axis=1)
        x, stress = 1e3 * (skin["x"] + skin["displacement"])[cut], skin["von_mises"][cut].ravel() / 1e6
        for side in (-1, 1):
            faces = Triangulation(side * x[:, :, 1].ravel(), x[:, :, 2].ravel(), np.arange(stress.size).reshape(-1, 3))
            colours = axis.tripcolor(faces, stress, shading="gouraud", vmin=0, vmax=600, cmap="viridis")
        axis.set(aspect="equal", title=f"{1e6 * t:.1f} $\\mu$s", xlim=(-0.9, 0.9), ylim=(0, 5.1), xlabel="mm")
        line = axes[3].plot(1e3 * profile(skin)[0], profile(skin)[1], label=f"{1e6 * t:.1f} $\\mu$s")[0]
        axes[3].axvspan(1e3 * slow * t, 1e3 * fast * t, color=line.get_color(), alpha=0.15)
    figure.colorbar(colours, ax=axes[:3], label="von Mises stress, MPa", location="left")
    axes[3].set(xlabel="height in the undeformed bar, mm", ylabel="axial velocity, m/s", title="velocity along the bar")
    axes[3].legend(title="bands: $c_0 t$ to $c_p t$")
    figure.savefig(FOLDER / "impact.png", dpi=150)
    found = {"impulse_error": impulse_error, "energy_error": energy_error, "fronts": fronts, "steps": solver.steps}
    (FOLDER / "summary.json").write_text(json.dumps(found | balance.as_dict(), indent=1))
    print(f"Impact: momentum to {impulse_error:.0e}, energy to {energy_error:.1%}, front at {1e3 * fronts[-1]:.2f} mm.")
