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

import numpy as np
import ufl
from dolfinx import mesh
from dolfinx.fem import assemble_scalar, form
from matplotlib.figure import Figure
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
#
# Two wave speeds will be of use: a wave runs along a slender bar with c_0 = sqrt(E / rho), and no wave is faster than
# that in a confined medium, c_p = sqrt((K + 4 G / 3) / rho). Both follow from the elastic moduli that a law declares.

# %%
comm = MPI.COMM_WORLD
corner, cells = (WIDTH / 2, WIDTH / 2, LENGTH), (CELLS[0], CELLS[0], CELLS[1])
box = mesh.create_box(comm, [(0, 0, 0), corner], cells, mesh.CellType.hexahedron)
law = load_law("magnesium-recurrent")
K, G, rho = law.bulk_modulus, law.shear_modulus, law.density
slow, fast = np.sqrt(9 * K * G / (3 * K + G) / rho), np.sqrt((K + 4 / 3 * G) / rho)

wall = RigidPlane((0, 0, 0), (0, 0, 1))
solver = ExplicitSolver(box, law, contact=[wall], initial_velocity=(0, 0, -SPEED))
for i in (0, 1):
    solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), component=i)

# %% [markdown]
# ## The run
# `run` is an iterator that takes a step each time the loop asks for one. The writer keeps a series for ParaView
# (`fields.bp`) and a table (`history.csv`). It also draws: the body as it is, seen from the plane of symmetry, with the
# von Mises stress. At the same times we read the front, the highest node that has lost 0.3 % of its speed. Each rank
# looks at its own nodes.

# %%
figure, fronts = Figure(figsize=(9, 5), layout="constrained"), []
axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 4))
with solver.writer(FOLDER, every=0.1e-6) as out:
    for axis, end in zip(axes, TIMES):
        for _step in solver.run(until=end):
            out.update()
        image = out.draw(axis, "von_mises", "yz", length=1e-3, unit=1e6, vmin=0, vmax=600)
        axis.set(title=f"{1e6 * end:.1f} us", xlim=(0, 0.75), ylim=(0, 5.1))
        axis.axhspan(1e3 * slow * end, 1e3 * fast * end, color="white", alpha=0.4)
        X, v = solver.velocity.function_space.tabulate_dof_coordinates()[:, 2], solver.velocity.x.array[2::3]
        fronts.append(comm.allreduce(X[np.abs(v + SPEED) > 0.003 * SPEED].max(initial=0.0), op=MPI.MAX))
balance = solver.energy_balance()

# %% [markdown]
# ## Checks
# None of them uses the law, so they hold for every law. The mass of the quarter bar is rho A L, by hand.
#
# 1. *Momentum.* The impulse of the wall is what the bar has lost: rho A L V plus the momentum that is left. The latter
#    we integrate ourselves, with a form of DOLFINx over the velocity.
# 2. *Energy.* The wall does no work, but the layer of nodes that meets it stops at once. It carries the mass of half a
#    cell of length h, so that h / (2 L) of the energy rho A L V^2 / 2 is lost (`contact_loss`); kinetic, internal,
#    hourglass and viscous energy are together what remains (to 0.3 %, the error of the time integration).
# 3. *The front.* It stands between c_0 t and c_p t. We allow two cells, and 5 % because a compressed solid is stiffer.

# %%
mass = rho * WIDTH**2 / 4 * LENGTH
left = comm.allreduce(assemble_scalar(form(rho * solver.velocity[2] * ufl.dx)))
impulse_error = abs(balance.contact_impulse[2] / (mass * SPEED + left) - 1)
assert impulse_error < 1e-9, impulse_error

energy = balance.kinetic_energy + balance.internal_energy + balance.hourglass_energy + balance.viscous_energy
energy_error = abs(energy / (mass * SPEED**2 / 2) - (1 - 1 / (2 * CELLS[1])))
assert energy_error < 3e-3, energy_error

for t, front in zip(TIMES, fronts):
    margin = 2 * LENGTH / CELLS[1]
    assert slow * t - margin < front < 1.05 * fast * t + margin, (t, front)

# %% [markdown]
# ## The picture
# Left: half of the section at the three times; lengths are in mm. The bright bands lie between c_0 t and c_p t: there
# stands the front. It carries little stress, since the elastic wave decays as it runs. Most of the speed is taken by
# the plastic wave behind it, and the foot becomes wider. Right: the energies.

# %%
figure.colorbar(image, ax=axes[:3], label="von Mises stress, MPa", location="left")
for name in ("kinetic_energy", "internal_energy", "hourglass_energy"):
    times, values = zip(*[(1e6 * row["time"], 1e3 * row[name]) for row in out.history.rows])
    axes[3].plot(times, values, label=name.replace("_", " "))
axes[3].set(xlabel="time, us", ylabel="mJ")
axes[3].legend()
if comm.rank == 0:
    figure.savefig(FOLDER / "impact.png", dpi=150)
    found = {"impulse_error": impulse_error, "energy_error": energy_error, "fronts": fronts, **balance.as_dict()}
    (FOLDER / "summary.json").write_text(json.dumps(found, indent=1))
    print(f"Impact: impulse to {impulse_error:.0e}, energy to {energy_error:.1%}, front at {1e3 * fronts[-1]:.2f} mm.")
