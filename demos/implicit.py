# %% [markdown]
# # Statics with Newton's method
#
# Equilibrium is a nonlinear equation, and Newton's method solves it in a few linear ones, if the tangent is the exact
# derivative of the stress. Every law of this project, learned or compiled, hands over its tangent with its stress.
# This story looks at two bodies: a block of a learned lattice material with an answer that we know by hand, and a
# square bar of metal that is twisted until it flows, with two limits that are known since Saint-Venant and Nadai.
#
# At each load step the solver finds u with
#
#     int P : grad v dX = external(v)   for all v,     P, state, dP_dF = law(I + grad u, state at the start).
#
# The state of the material is taken over only when a step has converged; a step that fails is taken back and halved.
# One call of the law at all points gives P, the new state and dP_dF; one iteration is one linear system. The linear
# solver is chosen by the size of the problem: a direct one here, multigrid for large bodies.

# %%
import json
from pathlib import Path

import numpy as np
import ufl
from dolfinx import mesh
from dolfinx.fem import assemble_scalar, form
from matplotlib.figure import Figure
from mpi4py import MPI

from fem import ImplicitSolver, load_law

comm, FOLDER = MPI.COMM_WORLD, Path("results/implicit")
SIDE, LENGTH = 10e-3, 20e-3  # m, of the bar
TWIST = np.radians(10.0)  # between the ends of the bar
TIMES = np.array([0.01, 0.05, 0.1, 0.15, 0.25, 0.4, 0.7, 1.0])  # nothing yields in the first step
YIELD, HARDENING = 150e6, 300e6  # Pa, of "magnesium-j2"

# %% [markdown]
# ## 1. A learned law, and an answer by hand
# The law `tann-cube-1` has learned a lattice: a cell of bars that carry axial forces, with modulus 1, strength 1/3 and
# hardening 1/10. A block of 10 m is compressed by 5 m with free sides. Up to the strain 1/3 the block is elastic: the
# energy is 101.1617146683 J at the strain 0.3 (known from the bars themselves), and goes with the square. From then on
# the vertical bars yield by alpha = (strain - 1/3) / (1 + 1/10), and dissipate 1/3 alpha in each unit of volume.

# %%
solver = ImplicitSolver(mesh.create_box(comm, [(0, 0, 0), (10, 10, 10)], (2, 2, 2)), load_law("tann-cube-1"))
for i in range(3):
    solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
solver.prescribe(lambda x: np.isclose(x[2], 10.0), 2, lambda x, t: -5.0 * t)

found = []
for step in solver.run(until=1.0, step=0.1):
    found.append((0.5 * step.time, solver.stored_energy(), solver.dissipation()))
strain, energy, dissipation = np.array(found).T

alpha = np.maximum(strain - 1 / 3, 0.0) / 1.1
psi = 101.1617146683 * (strain / 0.3) ** 2 + 500 * ((strain - alpha) ** 2 - strain**2 + 0.1 * alpha**2)
energy_error, dissipation_error = np.abs(energy / psi - 1).max(), np.abs(dissipation - 1000 / 3 * alpha).max()
assert max(energy_error, dissipation_error) < 1e-7, (energy_error, dissipation_error)

# %% [markdown]
# The lattice is linear between its kinks, so that Newton's method ends exactly, after few iterations. Metals flow
# gradually, point by point, and are harder.
#
# ## 2. A square bar in torsion
# One end is held, the other one turns. Both may warp: sections of a square bar do not stay plane, and only the middle
# of the held end is kept from moving along the axis. The elements are of the second order. The law is J2 plasticity of
# finite strain with linear hardening, a compiled law with the constants of magnesium. A prescribed displacement is the
# value *at the time t*, from the coordinates x of the undeformed body.

# %%
bar = mesh.create_box(comm, [(0, 0, 0), (SIDE, SIDE, LENGTH)], (4, 4, 2), mesh.CellType.hexahedron)
bar.geometry.x[:, :2] -= SIDE / 2  # the axis in the middle
solver = ImplicitSolver(bar, load_law("magnesium-j2"), degree=2)


def turned(x, t):
    c, s = np.cos(TWIST * t), np.sin(TWIST * t)
    return c * x[0] - s * x[1] - x[0], s * x[0] + c * x[1] - x[1]


for i in (0, 1):
    solver.prescribe(lambda x: np.isclose(x[2], 0.0), i)
    solver.prescribe(lambda x: np.isclose(x[2], LENGTH), i, lambda x, t, i=i: turned(x, t)[i])
solver.prescribe(lambda x: np.isclose(x, 0.0).all(axis=0), 2)

# %% [markdown]
# The torque is the work of the stress when the twist grows by one radian. Any motion that turns the end by it will do:
# we take w = z / LENGTH e_z x (X + u), and integrate the stress of the law, `solver.P`, with the measure of its points.
# In this way the stress in the solver, learned or not, can be used in any form: here it is a result, and in
# demos/own_forms.py a part of the problem.

# %%
x = ufl.SpatialCoordinate(bar) + solver.u
w = ufl.SpatialCoordinate(bar)[2] / LENGTH * ufl.as_vector((-x[1], x[0], 0))
work = form(ufl.inner(solver.P, ufl.grad(w)) * solver.dx)
figure, torque = Figure(figsize=(11, 4), layout="constrained"), []
axes = figure.subplots(1, 3)
with solver.writer(FOLDER) as out:
    for _step in solver.run(times=TIMES):
        out.update()
        torque.append(comm.allreduce(assemble_scalar(work)))
    image = out.draw(axes[0], "von_mises", "xz", length=1e-3, unit=1e6, vmin=0)

# %% [markdown]
# ## Checks
# 1. *Elastic*: Saint-Venant's torsion of a square, T = 0.140577 G a^4 theta / L, to 0.5 % (the mesh).
# 2. *Plastic*: in Nadai's heap of sand, the shear stress is k = Y / sqrt(3) everywhere and runs along the sides, which
#    gives the torque k a^3 / 3. The same motion of rigid plasticity has the shear strain 2 (x - |y|) theta / L beside
#    the side x = a / 2. With linear hardening, Y = Y_0 + H e and e the strain over sqrt(3), the work of the stress on
#    it adds H a^4 theta / (18 L). The bar is also elastic, and the mesh is coarse: we ask for 1 %.
# 3. *Convergence*: near the solution, each residual is about the square of the one before. The observed order follows
#    from the last three above round-off. The median of all plastic steps must be above 1.7.

# %%
elastic_error = abs(torque[0] / (0.140577 * solver.law.shear_modulus * SIDE**4 * TIMES[0] * TWIST / LENGTH) - 1)
assert elastic_error < 5e-3, elastic_error

limit = YIELD / np.sqrt(3) * SIDE**3 / 3 + HARDENING * SIDE**4 * TIMES * TWIST / (18 * LENGTH)  # N m
plastic_error = abs(torque[-1] / limit[-1] - 1)
assert plastic_error < 1e-2, (torque[-1], limit[-1])

histories = [np.array(step.convergence.residuals) for step in solver.history[1:]]
orders = []
for residuals in histories:
    r = residuals[residuals > 1e-11 * residuals[0]][-3:]
    orders.append(np.log(r[2] / r[1]) / np.log(r[1] / r[0]))
assert np.median(orders) > 1.7, orders

# %% [markdown]
# ## The picture
# Left: the twisted bar and its von Mises stress; lengths are in mm. Middle: the torque rises along Saint-Venant's line
# and then follows the limit of rigid plasticity (dashed). Right: the residuals of each step, which fall more steeply
# with each iteration: the number of correct digits doubles.
#
# If the residuals of your own problem fall by the same factor in each iteration instead, the tangent is not the
# derivative of the stress: docs/guides/implicit.md says what to do.

# %%
figure.colorbar(image, ax=axes[0], label="von Mises stress, MPa")
axes[1].plot(np.degrees(TWIST) * TIMES, torque, "o-")
axes[1].plot(np.degrees(TWIST) * TIMES, limit, "k--")
axes[1].set(xlabel="twist, degrees", ylabel="torque, N m", ylim=(0, None))
for residuals in histories:
    axes[2].semilogy(residuals / residuals[0], ".-")
axes[2].set(xlabel="Newton iteration", ylabel="residual over the first one")
if comm.rank == 0:
    figure.savefig(FOLDER / "implicit.png", dpi=150)
    summary = {"energy_error": energy_error, "elastic_error": elastic_error, "plastic_error": plastic_error}
    summary |= {"torque": torque, "order": float(np.median(orders))}
    (FOLDER / "summary.json").write_text(json.dumps(summary, indent=1))
    print(f"Implicit: energy to {energy_error:.0e}, torque to {plastic_error:.1%}, order {summary['order']:.1f}.")
