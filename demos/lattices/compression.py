# %% [markdown]
# # Lattice under compression: a learned law at every quadrature point, against the whole lattice
#
# **Why.** A box of 10 x 10 x 10 is filled with n x n x n cells of elastoplastic bars and pressed. Solving for all bars
# is exact and costs more with every cell; a homogenised box has a few finite elements, and at each of their quadrature
# points a law learned from one periodic cell (FEM x TANN). How far are they apart, and what do they cost?
#
# **Equations.** Small strain. The box: find u_0 with
#
#     int Sigma(E(u_0), Z) : E(v) dx = 0,   E(u) = sym grad u,   Sigma = dPsi/dE,   Z internal variables of the law;
#
# the lattice: sum over the bars of area * length * sigma(eps) deps = 0. From the box the lattice is told back by the
# law's decoder: u = u_0 + epsilon u_1 at the nodes with epsilon = 1/n, stress = decoded force / cross-section in bars.
#
# **Cases.** Bottom at z = 0, top pressed down by u_z; E = 1, H = 0.1, k = 1/3, bars yield at a strain of 1/3.
#
# - lcU1, lcU2: bottom and top slide, sides are free, top -3 (elastic) and -5: the strain is uniform.
# - lcC1, lcC2: bottom fixed, top slides, -2 (elastic) and -5: boundary layers, which homogenisation does not see.
#
# Each is solved three times: the lattice; the box with the exact law of the cell; the box with the law asked for. So
# what the law has to answer for (`_learned`: law against exact law) stands apart from what homogenisation and mesh err
# (`_exact`: exact law against lattice).
#
# **Checks**, each against a number from outside:
#
# 1. lcU: the totals of psi and of dissipation are the closed form of uniaxial stress, whatever n and the mesh (1e-8);
# 2. lcC1: the energy of the lattice of 1, 2, 4, 8 cells per side is the known one (all digits given);
# 3. psi + dissipation of every run lies between the two bounds of the work done by the supports, step by step;
# 4. law against exact law: displacement and energy within 0.5 %, dissipation within 2 %.
#
# References: Masi and Stefanou, CMAME 398 (2022), sections V.A, V.B, V.E, figures 14 to 16,
# doi:10.1016/j.cma.2022.115190.

# %%
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import draw_convergence, draw_deformed
from load_cases import CASES, LoadCase
from models import Laws
from mpi4py import MPI
from options import read
from study import SWEEP, Checks, Found, Study, hold, run

from fem.command import finish
from fem.parallel import abort_when_uncaught
from micro.lattice.bars import KinematicBar

# %% [markdown]
# ## Parameters
# Every option is checked on every rank before anything is written; a bad one is one sentence from rank 0. What the
# studies share stands beside this file: `options`, `models`, `study`, `comparison`, `figures`.


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    cases = [name for name in CASES if name[:3] in ("lcU", "lcC")]
    defaults = {"case": "lcC2", "n": 20, "size": 2.0, "kind": "hexahedra", "grading": 1.0, "rim": 1.0, "degree": 1}
    defaults |= {"steps": 5, "output": "results/lattice_compression"}
    study = f"both loads of the case, n = {SWEEP}, figure 14 or 15"
    return read(arguments, "Lattice compression", cases, defaults, study=study)


# %% [markdown]
# ## Check
# Uniaxial stress of the regular cell, by hand: the energy known for -3 goes with the square of the strain; the vertical
# bars fill the volume once, carry their strain whatever the others do, and are the first to yield.

# %%
ENERGY_U1 = 101.1617146683  # J, E = 1, top -3, 1000 m^3
ENERGY_C1 = {1: 51.3483, 2: 48.6390, 4: 47.5585, 8: 47.1172}  # J, lattices of n cells per side


def closed_form(top: float, bar: KinematicBar) -> tuple[float, float]:
    """Total psi and dissipation of lcU on cube-1 with kinematic bars, J."""
    E, H, k, strain, volume = bar.modulus, bar.hardening, bar.strength, abs(top) / 10.0, 1000.0
    elastic = E * ENERGY_U1 * (top / 3.0) ** 2
    alpha = max(E * strain - k, 0.0) / (E + H)
    change = 0.5 * E * ((strain - alpha) ** 2 - strain**2) + 0.5 * H * alpha**2
    return elastic + volume * change, volume * k * alpha


def checks(report: dict[str, Any], laws: Laws, case: LoadCase) -> Checks:
    """Hold a report to the closed form of lcU and to the known energies of lcC1."""
    out: Checks = {}
    regular = laws.cell.name == "cube-1" and isinstance(laws.bar, KinematicBar)
    if regular and case.name.startswith("lcU"):
        psi, D = closed_form(case.path[-1], laws.bar)
        for name in ("lattice", "exact"):
            found = report["values"][name]
            out |= hold(f"psi_{name}", abs(found["psi"] / psi - 1.0), 1e-8)
            out |= hold(f"dissipation_{name}", abs(found["dissipation"] - D) / psi, 1e-8)
    if regular and laws.bar == KinematicBar() and case.name == "lcC1" and report["n"] in ENERGY_C1:
        known = ENERGY_C1[report["n"]]
        out |= hold("psi_lattice", abs(report["values"]["lattice"]["psi"] - known), 6e-5)
    return out


# %% [markdown]
# ## Figures
# `bars.png`: the pressed box, and the stress of every bar that ends at the control point (the paper's figure 16). With
# `--study`, `convergence.png`: displacement of the control point, energy and dissipation against epsilon (14, 15).


# %%
def draw(folder: Path, o: argparse.Namespace, found: dict[str, Found], at: int) -> None:
    """Write the figures."""
    shown = [
        (one.case, f"{name}: top {one.case.path[-1]:g}", one.panels[one.case.end], one.bars[at])
        for name, one in found.items()
    ]
    draw_deformed(shown, o.n, 8.0, folder / "bars.png")
    if o.study:
        draw_convergence({name: one.reports for name, one in found.items()}, folder / "convergence.png")


# % [markdown]
# ## Main


# %
def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the study (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments), Study(checks, draw, sweep=SWEEP)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
