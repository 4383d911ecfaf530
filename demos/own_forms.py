# %% [markdown]
# # Forms of your own
#
# Both solvers take forms of UFL. `solver.external` is linear in `solver.test_function` and has the sign of a load; it
# may hold the displacement `solver.u`, in dynamics the `solver.velocity`, and the time `solver.time_constant`. In
# statics, its derivative is part of Newton's tangent. `solver.internal` is the form of the internal forces, in which
# `solver.P` is the stress of the law, be it a formula or a network.
#
# Six small problems follow. Each adds one or two lines of UFL to a solver, and each has an answer that we know exactly.
# The body is a bar along z. It is made of cork, whose Poisson ratio is zero: Young's modulus is E = 2 G, the bulk
# modulus K = 2 G / 3, and answers of one dimension are exact in three.

# %%
import json
from pathlib import Path

import numpy as np
import ufl
from dolfinx import mesh
from dolfinx.fem import assemble_scalar, form
from matplotlib.figure import Figure
from mpi4py import MPI

from fem import ExplicitSolver, ImplicitSolver, load_law

E, G, K, DENSITY, L = 20e6, 10e6, 20e6 / 3, 200.0, 0.1  # Pa, Pa, Pa, kg/m^3, m (the length of the bar)
CORK = {"shear_modulus": G, "bulk_modulus": K, "density": DENSITY}
comm, FOLDER, errors, figure = MPI.COMM_WORLD, Path("results/own_forms"), {}, Figure((11, 6), layout="constrained")
axes, z = iter(figure.subplots(2, 3).ravel()), np.linspace(0.0, L, 17)  # m, points on the axis of the bar

# %% [markdown]
# Two functions serve all problems: one makes a solver of the bar, with planes of symmetry u_i = 0 on x_i = 0 for some
# components i. The other holds what was found against what is exact, in the largest norm, and draws both.


# %%
def problem(law, solver=ImplicitSolver, held=(0, 1, 2), cells=(2, 2, 8), **options):
    box = mesh.create_box(comm, [(0, 0, 0), (L / 5, L / 5, L)], cells, mesh.CellType.hexahedron)
    made = solver(box, law, **options)
    for i in held:
        made.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
    return made, made.test_function


def check(name, found, exact, tolerance, x=1e3 * z):
    axis, errors[name] = next(axes), float(np.abs(found - exact).max() / np.abs(exact).max())
    assert errors[name] < tolerance, (name, errors[name])
    axis.plot(x, found, ".", x, exact, "k-", linewidth=1)
    axis.set_title(f"{name}: error {errors[name]:.0e}", fontsize="medium")


# %% [markdown]
# ## 1. A body force
# The bar stands on its foot in a centrifuge, under 1000 g. It shortens by u = -rho a (L z - z^2 / 2) / E. Elements of
# the second order hold this parabola.

# %%
solver, v = problem(load_law("linear-elastic", **CORK), degree=2)
solver.external -= DENSITY * 9810.0 * solver.time_constant * v[2] * ufl.dx
solver.run().finish()
check("body force", solver.probe(np.outer(z, [0, 0, 1]))[:, 2], -DENSITY * 9810.0 * (L * z - z**2 / 2) / E, 1e-9)

# %% [markdown]
# ## 2. A pressure that follows the surface
# A pressure p acts on the *deformed* surface, whose normal times area is det(F) F^-T N dS. The energy of the shipped
# neo-Hookean law has p = K (1 - J), so that all lengths shrink by (1 - p / K)^(1/3). We take p = K / 2; half of the
# volume is gone, and Newton's method has no trouble, since the load is part of the tangent.

# %%
solver, v = problem(load_law("neo-hookean", **CORK))
F, N = ufl.Identity(3) + ufl.grad(solver.u), ufl.FacetNormal(solver.domain.mesh)
solver.external -= 0.5 * K * solver.time_constant * ufl.inner(ufl.cofac(F) * N, v) * ufl.ds
solver.run(step=0.25).finish()
check("follower pressure", solver.probe(np.outer(z, [0, 0, 1]))[:, 2], (0.5 ** (1 / 3) - 1) * z, 1e-9)

# %% [markdown]
# ## 3. Rayleigh damping
# A free bar rings in its first mode cos(pi z / L), with the frequency w = pi / L sqrt(E / rho). Damping is a form of
# the velocity: alpha times the mass and beta times the stiffness. With d = (alpha + beta w^2) / 2, the amplitude is
# q = V / w_d exp(-d t) sin(w_d t), w_d^2 = w^2 - d^2. The error is that of the mesh and of the time step. The latter is
# shorter than usual (`safety`): damping in proportion to the stiffness lowers the stable step, and the solver does not
# know what we add.

# %%
w, speed = np.pi / L * np.sqrt(E / DENSITY), 0.1  # 1/s, m/s
alpha, beta = 0.1 * w, 0.01 / w  # 1/s, s
start = {"initial_velocity": lambda x: np.outer([0, 0, speed], np.cos(np.pi * x[2] / L)), "safety": 0.6}
solver, v = problem(load_law("neo-hookean", **CORK), ExplicitSolver, (0, 1), (1, 1, 50), viscosity=(0, 0), **start)
rate = solver.velocity  # the bulk viscosity of the solver, another damping, is off
solver.external -= (alpha * DENSITY * ufl.inner(rate, v) + beta * E * ufl.inner(ufl.grad(rate), ufl.grad(v))) * ufl.dx
mode = form(50 / L**3 * solver.u[2] * ufl.cos(np.pi / L * ufl.SpatialCoordinate(solver.domain.mesh)[2]) * ufl.dx)
t, q = np.array([(step.time, comm.allreduce(assemble_scalar(mode))) for step in solver.run(until=13 / w)]).T
w_d = np.sqrt(w**2 - (d := (alpha + beta * w**2) / 2) ** 2)
check("Rayleigh damping", q, speed / w_d * np.exp(-d * t) * np.sin(w_d * t), 1e-2, x=1e3 * t)

# %% [markdown]
# ## 4. An elastic foundation
# The bar stands in a bed of springs, k per volume, and its top is pulled by U. From E u'' = k u follows u = U cosh(m z)
# / cosh(m L) with m^2 = k / E; here m L = 3. This is no polynomial, so that the mesh leaves an error.

# %%
solver, v = problem(load_law("linear-elastic", **CORK), held=(0, 1), degree=2)
solver.external -= 9 * E / L**2 * ufl.inner(solver.u, v) * ufl.dx
solver.prescribe(lambda x: np.isclose(x[2], L), 2, L / 100)
solver.run().finish()
check("elastic foundation", solver.probe(np.outer(z, [0, 0, 1]))[:, 2], L / 100 * np.cosh(3 * z / L) / np.cosh(3), 1e-3)

# %% [markdown]
# ## 5. A thermal strain
# With sigma = C (eps - a T I), the thermal part 3 K a T div(v) goes to the loads. A temperature that grows across the
# bar, a T = x / R, leaves it free of stress and bends it to the radius R: u_x = -z^2 / (2 R) on the axis.

# %%
solver, v = problem(load_law("linear-elastic", **CORK), held=(1, 2), degree=2)
solver.prescribe(lambda x: np.isclose(x, 0.0).all(axis=0), 0)
solver.external += 3 * K * ufl.SpatialCoordinate(solver.domain.mesh)[0] / (5 * L) * ufl.div(v) * ufl.dx
solver.run().finish()
check("thermal strain", solver.probe(np.outer(z, [0, 0, 1]))[:, 0], -(z**2) / (10 * L), 1e-9)

# %% [markdown]
# ## 6. A learned stress in a form of your own
# The law is a network, learned from the lattice cell cube-1, in which stresses are in units of the modulus of its bars.
# A damage d = 5 x / (2 L), from 0 on one side of the bar to 1/2 on the other, weakens it: the stress is (1 - d)^2 P.
# The strain stays uniform, since the contraction sideways does not depend on the factor. The force is therefore that
# of the sound bar times the mean of (1 - d)^2, 7/12. That of the sound bar is known: the cell stores the energy
# 0.1011617146683 at the strain 0.3, and its vertical bars yield by a = (strain - 1/3) / 1.1 from the strain 1/3 on.
# The tangent of the degraded form follows by itself, from the derivatives by u and by P.

# %%
solver, v = problem(load_law("tann-cube-1"))
top, d = (lambda x: np.isclose(x[2], L)), 5 / (2 * L) * ufl.SpatialCoordinate(solver.domain.mesh)[0]
solver.prescribe(top, 2, lambda x, t: -L / 2 * t)
solver.internal = ufl.inner((1 - d) ** 2 * solver.P, ufl.grad(v)) * solver.dx
with solver.writer(FOLDER) as out:
    force = [(out.update(), solver.reaction(top)[2])[1] for _step in solver.run(step=0.1)]
strain = np.linspace(0.05, 0.5, 10)
stress = 2 * 0.1011617146683 / 0.3**2 * strain - np.maximum(strain - 1 / 3, 0.0) / 1.1
check("damage of a learned law", force, -7 / 12 * (L / 5) ** 2 * stress, 1e-8, x=strain)

# %% [markdown]
# ## The picture
# Lines are exact, and dots are found. Problems 1, 2, 4 and 5 show the displacement of the axis in m over z in mm, the
# vibration its amplitude in m over the time in ms, and the damaged bar the force over the strain. The kink is where
# the bars of the cell begin to yield.

# %%
if comm.rank == 0:
    figure.savefig(FOLDER / "own_forms.png", dpi=150)
    (FOLDER / "summary.json").write_text(json.dumps(errors, indent=1))
    print("Own forms:", ", ".join(f"{name} to {error:.0e}" for name, error in errors.items()) + ".")
