# %% [markdown]
# # Lattice in torsion: a learned law at every quadrature point, against the whole lattice
#
# **Why.** A column of 10 x 10 x 20 is filled with n x n x 2n cells of elastoplastic bars and its top is turned by 40 or
# 60 degrees. Warping and clamped ends make strain vary over lengths that are not long against a cell: the hardest of
# the paper's loads for homogenisation (FEM x TANN), and the one where its errors are largest.
#
# **Equations.** Small strain. The column: find u_0 with
#
#     int Sigma(E(u_0), Z) : E(v) dx = 0,   E(u) = sym grad u,   Sigma = dPsi/dE,   Z internal variables of the law;
#
# the lattice: sum over the bars of area * length * sigma(eps) deps = 0. From the column the lattice is told back by the
# law's decoder: u = u_0 + epsilon u_1 at the nodes with epsilon = 1/n, stress = decoded force / cross-section in bars.
#
# **Cases.** Bottom fixed; top (u_x, u_y) = (R(omega) - I)(x - centre), u_z free; E = 1, H = 0.1, k = 1/3. The angle
# grows in even steps to 40 degrees (lcT1) or 60 (lcT2). Angles are large; the kinematics is linear all the same.
#
# Each is solved three times: the lattice; the column with the exact law of the cell; the column with the law asked for.
# So what the law has to answer for (`_learned`: law against exact law) stands apart from what homogenisation and mesh
# err (`_exact`: exact law against lattice).
#
# **Checks**, each against a number from outside:
#
# 1. (R - I) x is sin(omega) times a turn plus (1 - cos(omega)) times a contraction, which by symmetry do no work on
#    each other: as long as nothing yields psi = a sin^2 + b (1 - cos)^2, so two tell a third (1e-8, regular cells);
# 2. psi + dissipation of every run lies between the two bounds of the work done by the supports, step by step;
# 3. law against exact law: displacement and energy within 0.5 %, dissipation within 2 %.
#
# References: Masi and Stefanou, CMAME 398 (2022), sections V.C, V.E, figure 17, doi:10.1016/j.cma.2022.115190.

# %%
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import Outcome
from figures import draw_convergence, draw_deformed
from load_cases import CASES, LoadCase
from models import Laws
from mpi4py import MPI
from options import read
from study import SWEEP, Checks, Found, Study, hold, run

from fem.command import finish
from fem.parallel import abort_when_uncaught

# %% [markdown]
# ## Parameters
# Every option is checked on every rank before anything is written; a bad one is one sentence from rank 0. What the
# studies share stands beside this file: `options`, `models`, `study`, `comparison`, `figures`.


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    cases = [name for name in CASES if name[:3] == "lcT"]
    defaults = {"case": "lcT2", "n": 20, "size": 3.7, "kind": "hexahedra", "grading": 1 / 7, "rim": 0.4, "degree": 2}
    defaults |= {"steps": 6, "output": "results/lattice_torsion"}
    return read(arguments, "Lattice torsion", cases, defaults, study=f"both angles, n = {SWEEP}, as figure 17")


# %% [markdown]
# ## Check
# The two parts of (R - I) x are mirrored differently by the planes of the column, hence orthogonal in energy.


# %%
def superposition(rows: list[dict[str, Any]], case: LoadCase) -> float | None:
    """How far the third elastic step is from what the first two tell, relative; None if less than three are elastic."""
    elastic = [row for row in rows[:3] if row["dissipation"] == 0.0]
    if len(elastic) < 3:
        return None
    omega = np.radians([np.interp(row["time"], np.arange(len(case.path)), case.path) for row in elastic])
    parts = np.stack([np.sin(omega) ** 2, (1.0 - np.cos(omega)) ** 2], axis=1)
    psi = np.array([row["psi"] for row in elastic])
    return float(abs(parts[2] @ np.linalg.solve(parts[:2], psi[:2]) / psi[2] - 1.0))


def report(outcome: dict[str, Outcome], case: LoadCase, laws: Laws, o: argparse.Namespace) -> dict[str, Any]:
    """How far each run is from the superposition of the two parts; None where the column has no mirror."""
    symmetric = len(np.unique(laws.cell.master)) == 1  # a perturbed cell has none
    tried = {name: superposition(one.rows, case) if symmetric else None for name, one in outcome.items()}
    if o.kind == "tetrahedra":  # which break the mirror, too
        tried = {"lattice": tried["lattice"]}
    return {"superposition": tried}


def checks(report: dict[str, Any], laws: Laws, case: LoadCase) -> Checks:
    """Hold a report to the superposition."""
    out: Checks = {}
    for name, found in report["superposition"].items():
        if found is not None:
            out |= hold(f"superposition_{name}", found, 1e-8)
    return out


# %% [markdown]
# ## Figures
# `deformed.png`: the turned column, and the stress of every bar that ends at the control point. With `--study`,
# `convergence.png`: displacement of the control point, energy and dissipation against epsilon (17).


# %%
def draw(folder: Path, o: argparse.Namespace, found: dict[str, Found], at: int) -> None:
    """Write the figures."""
    shown = [
        (one.case, f"{name}: {one.case.path[-1]:g} degrees", one.panels[one.case.end], one.bars[at])
        for name, one in found.items()
    ]
    draw_deformed(shown, o.n, 10.0, folder / "deformed.png")
    if o.study:
        draw_convergence({name: one.reports for name, one in found.items()}, folder / "convergence.png")


# % [markdown]
# ## Main


# %
def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the study (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments), Study(checks, draw, report, sweep=SWEEP)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
