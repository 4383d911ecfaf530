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

E, G, K = 20e6, 10e6, 20e6 / 3  # Pa
DENSITY, L = 200.0, 0.1  # kg/m^3, and m, the length of the bar
comm, FOLDER, errors = MPI.COMM_WORLD, Path("results/own_forms"), {}
z = np.linspace(0.0, L, 17)
line = np.stack([0 * z, 0 * z, z], axis=1)  # points on the axis of the bar
figure = Figure(figsize=(11, 6), layout="constrained")
axes = iter(figure.subplots(2, 3).ravel())


def problem(law, cells=(2, 2, 8), solver=ImplicitSolver, held=(0, 1, 2), **options):
    """A solver of the bar, with the symmetries u_i = 0 on x_i = 0 of some components i."""
    box = mesh.create_box(comm, [(0, 0, 0), (L / 5, L / 5, L)], cells, mesh.CellType.hexahedron)
    made = solver(box, load_law(law, shear_modulus=G, bulk_modulus=K, density=DENSITY), **options)
    for i in held:
        made.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
    return made, made.test_function


def check(name, found, exact, tolerance, x=1e3 * z):
    """Compare in the largest norm, and draw both."""
    errors[name] = float(np.abs(found - exact).max() / np.abs(exact).max())
    assert errors[name] < tolerance, (name, errors[name])
    axis = next(axes)
    axis.plot(x, exact, x, found, ".")
    axis.set_title(f"{name}: error {errors[name]:.0e}", fontsize="medium")


# %% [markdown]
# ## 1. A body force
# The bar stands on its foot in a centrifuge, under 1000 g. It shortens by u = -rho a (L z - z^2 / 2) / E. Elements of
# the second order hold this parabola.

# %%
solver, v = problem("linear-elastic", degree=2)
solver.external -= DENSITY * 9810.0 * solver.time_constant * v[2] * ufl.dx
solver.run().finish()
check("body force", solver.probe(line)[:, 2], -DENSITY * 9810.0 * (L * z - z**2 / 2) / E, 1e-9)

# %% [markdown]
# ## 2. A pressure that follows the surface
# A pressure p acts on the *deformed* surface, whose normal times area is det(F) F^-T N dS. The energy of the shipped
# neo-Hookean law has p = K (1 - J), so that all lengths shrink by (1 - p / K)^(1/3). We take p = K / 2; half of the
# volume is gone, and Newton's method has no trouble, since the load is part of the tangent.

# %%
solver, v = problem("neo-hookean")
F, N = ufl.Identity(3) + ufl.grad(solver.u), ufl.FacetNormal(solver.domain.mesh)
solver.external -= 0.5 * K * solver.time_constant * ufl.inner(ufl.cofac(F) * N, v) * ufl.ds
solver.run(step=0.25).finish()
check("follower pressure", solver.probe(line)[:, 2], (0.5 ** (1 / 3) - 1) * z, 1e-9)

# %% [markdown]
# ## 3. Rayleigh damping
# A free bar rings in its first mode cos(pi z / L), with the frequency w = pi / L sqrt(E / rho). Damping is a form of
# the velocity: alpha times the mass and beta times the stiffness. With d = (alpha + beta w^2) / 2, the amplitude is
# q = V / w_d exp(-d t) sin(w_d t), w_d^2 = w^2 - d^2. The error is that of the mesh and of the time step. The latter is
# shorter than usual (`safety`): damping in proportion to the stiffness lowers the stable step, and the solver does not
# know what we add.

# %%
w, speed = np.pi / L * np.sqrt(E / DENSITY), 0.1  # 1/s, m/s
alpha, beta, start = 0.1 * w, 0.02 / w, lambda x: np.outer([0, 0, speed], np.cos(np.pi * x[2] / L))
options = {"solver": ExplicitSolver, "held": (0, 1), "initial_velocity": start, "safety": 0.4}
solver, v = problem("neo-hookean", (1, 1, 60), **options)
u, rate = solver.u, solver.velocity
solver.external -= alpha * DENSITY * ufl.inner(rate, v) * ufl.dx
solver.external -= beta * E * ufl.inner(ufl.grad(rate), ufl.grad(v)) * ufl.dx
mode = form(50 / L**3 * u[2] * ufl.cos(np.pi / L * ufl.SpatialCoordinate(solver.domain.mesh)[2]) * ufl.dx)
t, q = np.array([(step.time, comm.allreduce(assemble_scalar(mode))) for step in solver.run(until=20 / w)]).T
d = (alpha + beta * w**2) / 2
w_d = np.sqrt(w**2 - d**2)
check("Rayleigh damping", q, speed / w_d * np.exp(-d * t) * np.sin(w_d * t), 1e-2, x=1e3 * t)

# %% [markdown]
# ## 4. An elastic foundation
# The bar stands in a bed of springs, k per volume, and its top is pulled by U. From E u'' = k u follows u = U cosh(m z)
# / cosh(m L) with m^2 = k / E; here m L = 3. This is no polynomial, so that the mesh leaves an error.

# %%
solver, v = problem("linear-elastic", held=(0, 1), degree=2)
solver.external -= 9 * E / L**2 * ufl.inner(solver.u, v) * ufl.dx
solver.prescribe(lambda x: np.isclose(x[2], L), 2, L / 100)
solver.run().finish()
check("elastic foundation", solver.probe(line)[:, 2], L / 100 * np.cosh(3 * z / L) / np.cosh(3), 1e-3)

# %% [markdown]
# ## 5. A thermal strain
# With sigma = C (eps - a T I), the thermal part 3 K a T div(v) goes to the loads. A temperature that grows across the
# bar, a T = x / R, leaves it free of stress and bends it to the radius R: u_x = -z^2 / (2 R) on the axis.

# %%
solver, v = problem("linear-elastic", held=(1, 2), degree=2)
solver.prescribe(lambda x: np.isclose(x, 0.0).all(axis=0), 0)
solver.external += 3 * K * ufl.SpatialCoordinate(solver.domain.mesh)[0] / (5 * L) * ufl.div(v) * ufl.dx
solver.run().finish()
check("thermal strain", solver.probe(line)[:, 0], -(z**2) / (10 * L), 1e-9)

# %% [markdown]
# ## 6. A learned stress in a form of your own
# The law is a network of the lattice cell cube-1, in the unit of its bars' modulus. A damage d = x / 20 weakens a cube
# of 10 m from one side to the other: the stress is (1 - d)^2 P. The law's own side contraction does not depend on the
# factor, so the strain stays uniform, and the force is the mean of (1 - d)^2, 7/12, times that of the sound cube. The
# latter is known: the cell stores 101.1617146683 J at the strain 0.3, and from 1/3 on its vertical bars yield by a.

# %%
box = mesh.create_box(comm, [(0, 0, 0), (10, 10, 10)], (2, 2, 2), mesh.CellType.hexahedron)
solver = ImplicitSolver(box, load_law("tann-cube-1"))
for i in range(3):
    solver.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
top, d = (lambda x: np.isclose(x[2], 10.0)), ufl.SpatialCoordinate(box)[0] / 20
solver.prescribe(top, 2, lambda x, t: -5.0 * t)
solver.internal = ufl.inner((1 - d) ** 2 * solver.P, ufl.grad(solver.test_function)) * solver.dx
with solver.writer(FOLDER) as out:
    force = [(out.update(), solver.reaction(top)[2])[1] for _step in solver.run(step=0.1)]
strain = 0.05 * np.arange(1, 11)
a = np.maximum(strain - 1 / 3, 0.0) / 1.1
check("damage of a learned law", force, -7 / 12 * 100 * (2 * 0.1011617146683 / 0.09 * strain - a), 1e-8, x=strain)

# %% [markdown]
# ## The picture
# Lines are exact, dots are found: displacement in m over z in mm, in 3 the amplitude over time in ms, in 6 the force in
# N over the strain.

# %%
if comm.rank == 0:
    figure.savefig(FOLDER / "own_forms.png", dpi=150)
    (FOLDER / "summary.json").write_text(json.dumps(errors, indent=1))
    print("Own forms, largest errors: " + ", ".join(f"{name} {error:.0e}" for name, error in errors.items()) + ".")
