# %% [markdown]
# # A law of your own: viscoelastic foam rubber
#
# A law is a PyTorch module with two methods. You write the stress; automatic differentiation gives the tangent for
# Newton's method, and the solvers do the rest. This story writes a law, certifies it, stores it in a file, and lets a
# stretched specimen relax. The foam is the one of Blatz and Ko, with the energy
#
#     W = G/2 (tr C - 3) + G/b (J^-b - 1),   C = F^T F,   J = det F,   b = 2 nu / (1 - 2 nu),
#
# and the second Piola-Kirchhoff stress S_e = G (I - J^-b C^-1). A spring and a dashpot in series, parallel to it, add
# an overstress Q that fades with the time tau (Simo's linear viscoelasticity at finite strain):
#
#     P = F (S_e + Q),   dQ/dt + Q / tau = beta dS_e/dt
#
# One step, by the midpoint rule, is Q = exp(-dt / tau) Q_n + beta exp(-dt / (2 tau)) (S_e - S_e_n). The state of a
# point is Q_n and S_e_n: 18 numbers, zero at first.
#
# References: Blatz and Ko (1962), doi:10.1122/1.548937; Simo (1987), doi:10.1016/0045-7825(87)90107-1.

# %%
import json
import math
from pathlib import Path

import numpy as np
import torch
from dolfinx import mesh
from matplotlib.figure import Figure
from mpi4py import MPI

from fem import ImplicitSolver, load_law
from surrogates import export_law

G, NU, BETA, TAU, DENSITY = 0.2e6, 0.25, 1.5, 1.0, 300.0  # Pa, -, -, s, kg/m^3
LENGTH, WIDTH = 60e-3, 20e-3  # m, of the specimen
STRETCH, FAST = 1.5, 0.01  # -, and s: the time in which the specimen is stretched
TIMES = np.array([FAST, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0])  # s
comm, FOLDER = MPI.COMM_WORLD, Path("results/own_law")

# %% [markdown]
# ## The law
# Five attributes say which solvers can use it, and give an explicit solver its stable step. The other two, `strain_max`
# and `time_step`, say what the certificate is for: strains up to 0.5, in steps of about 0.1 s. Calls of `math` and
# `torch` that TorchScript knows may stand in `forward`; tensors are float64, points first.


# %%
class Foam(torch.nn.Module):
    strain, dimension, density, strain_max, time_step = "finite", 3, DENSITY, 0.5, 0.1
    shear_modulus, bulk_modulus = G, G * (2 * NU / (1 - 2 * NU) + 2 / 3)

    def __init__(self):
        super().__init__()
        self.G, self.b, self.beta, self.tau = G, 2 * NU / (1 - 2 * NU), BETA, TAU

    def initial_state(self, n: int) -> torch.Tensor:
        return torch.zeros([n, 18], dtype=torch.float64)

    def forward(self, F: torch.Tensor, state: torch.Tensor, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
        Q_n, S_n = state[:, :9].reshape(-1, 3, 3), state[:, 9:].reshape(-1, 3, 3)
        C, J = F.transpose(1, 2) @ F, torch.linalg.det(F)[:, None, None]
        S = self.G * (torch.eye(3, dtype=F.dtype) - J ** (-self.b) * torch.linalg.inv(C))
        Q = math.exp(-dt / self.tau) * Q_n + self.beta * math.exp(-0.5 * dt / self.tau) * (S - S_n)
        return F @ (S + Q), torch.cat([Q.flatten(1), S.flatten(1)], dim=1)


# %% [markdown]
# ## The certificate and the file
# `export_law` certifies the law on random strain paths and on two small meshes: is the tangent the derivative of the
# stress? Does Newton's method converge with it, at the second order? Then it writes one file that needs no Python
# source. The function `surrogates.certify` gives the certificate alone, and docs/guides/certificate.md explains its
# entries: the place to look when Newton's method does not converge.

# %%
if comm.rank == 0:
    certificate = export_law(FOLDER / "foam.pt", Foam())["certificate"]
    assert certificate["tangent_difference"] < 1e-6 and certificate["newton_order_patch"] > 1.5
comm.barrier()

# %% [markdown]
# ## The specimen
# A box of DOLFINx becomes a bar with a waist: we move its nodes. One end is held. The other one is pulled to 1.5 times
# the length in 0.01 s, and stays there for 3 s. `dt=1.0` says that one unit of pseudo-time is one second. The law comes
# from the file, by its path.

# %%
bar = mesh.create_box(comm, [(-0.5, -0.5, 0), (0.5, 0.5, 1)], (4, 4, 16), mesh.CellType.hexahedron)
waist = 1 - 0.25 * (1 - np.cos(2 * np.pi * bar.geometry.x[:, 2]))
bar.geometry.x[:] *= np.stack([WIDTH * waist, WIDTH * waist, np.full_like(waist, LENGTH)], axis=1)
held, pulled = (lambda x: np.isclose(x[2], 0.0)), (lambda x: np.isclose(x[2], LENGTH))
solver = ImplicitSolver(bar, load_law(FOLDER / "foam.pt"), dt=1.0)
solver.prescribe(held)
solver.prescribe(pulled, value=lambda x, t: (STRETCH - 1) * min(t / FAST, 1.0) * np.outer([0, 0, 1], x[2]))

figure, force = Figure(figsize=(9, 4.5), layout="constrained"), []
left, right = figure.subplots(1, 2, width_ratios=(1, 1.8))
with solver.writer(FOLDER) as out:
    for _step in solver.run(times=TIMES):
        out.update()
        force.append(solver.reaction(pulled)[2])
    image = out.draw(left, "von_mises", "xz", length=1e-3, unit=1e6)

# %% [markdown]
# ## Check 1: relaxation, for any shape
# At a fixed F, the overstress of every point fades by the same factor. A body that is in equilibrium after the stretch
# therefore stays so without any motion, and its force is that of the bare foam times a factor that we know:
#
#     1 + beta exp(-FAST / (2 tau)) exp(-(t - FAST) / tau)
#
# The solver was told nothing of it. Note that the steps in time are long: the law's update is exact at fixed strain.

# %%
factor = lambda t: 1 + BETA * np.exp(-FAST / (2 * TAU)) * np.exp(-(t - FAST) / TAU)
relaxation_error = np.abs(np.array(force) / force[0] * factor(FAST) / factor(TIMES) - 1).max()
assert relaxation_error < 1e-9, relaxation_error

# %% [markdown]
# ## Check 2: uniaxial stretch
# A bar of this foam with free sides narrows to lambda^-nu, and its nominal stress is G (lambda - lambda^(-1 - 2 nu)):
# for few materials can both be written down. A cube must show them, the stress times the factor of check 1. Here the
# law comes from a Python module, by "module:callable"; `__main__` is the module of this very script.

# %%
cube = ImplicitSolver(mesh.create_unit_cube(comm, 3, 3, 3), load_law("__main__:Foam"), dt=FAST)
top = lambda x: np.isclose(x[2], 1.0)
for i in range(3):
    cube.prescribe(lambda x, i=i: np.isclose(x[i], 0.0), i)
cube.prescribe(top, 2, lambda x, t: (STRETCH - 1) * t)
cube.run(until=1.0).finish()
width_error = abs((1 + cube.probe([[1.0, 1.0, 1.0]])[0, 0]) / STRETCH**-NU - 1)
stress_error = abs(cube.reaction(top)[2] / (G * (STRETCH - STRETCH ** (-1 - 2 * NU)) * factor(FAST)) - 1)
assert max(width_error, stress_error) < 1e-9, (width_error, stress_error)

# %% [markdown]
# ## The picture
# Left: the stretched specimen with the von Mises stress after 3 s; lengths are in mm. The waist carries most of the
# stretch. Right: the force at the end of each step, on the curve that was written down before the solver ran.

# %%
figure.colorbar(image, ax=left, label="von Mises stress, MPa")
t = np.linspace(FAST, TIMES[-1], 200)
right.plot(t, force[0] * factor(t) / factor(FAST), label="closed form")
right.plot(TIMES, force, "o", label="the law in the solver")
right.legend(title="force in N over time in s")
if comm.rank == 0:
    figure.savefig(FOLDER / "own_law.png", dpi=150)
    found = {"relaxation_error": relaxation_error, "stress_error": stress_error, "force": force, **certificate}
    (FOLDER / "summary.json").write_text(json.dumps(found, indent=1))
    print(f"Own law: relaxation to {relaxation_error:.0e}, uniaxial stress to {stress_error:.0e} of the closed forms.")
