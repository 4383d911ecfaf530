# %% [markdown]
# # Two Taylor bars that other codes have computed
#
# **Why.** Two impact problems with published constants, for which values of other codes are known:
#
# - *copper*: 32.4 mm x 3.2 mm (length x radius) at 227 m/s, von Mises plasticity with linear hardening, to 80 us. Four
#   codes converge to a foot radius of 7.226 mm and a length of 21.42 mm; the often quoted 7.24 and 21.47 mm are
#   values of coarse meshes.
# - *steel*: a bar of 42CrMo4 of the same size at 287 m/s, Johnson-Cook plasticity with adiabatic heating. Two codes
#   give a length of 26.52 to 26.56 mm, a foot diameter of 11.15 to 11.22 mm, at most 582 to 597 degrees C and a plastic
#   strain of 1.78 to 1.84.
#
# The bar is run on one mesh after another, a quarter of it with two planes of symmetry, and its shape is held against
# these values at each of their times.
#
# **Checks.** Energy and momentum are balanced in every run: to 1 %, and to 1e-9. The deviations from the other codes
# are reported and not asserted: on a coarse mesh they are the error of the mesh.

# %%
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from mpi4py import MPI

from fem import ExplicitSolver, RigidPlane, load_law, read_mesh
from fem.command import Parser, Stop, finish, together, write_text
from fem.mesh import closing_gmsh
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from meshes.taylor_bar import taylor_bar
from micro.data.cli import check_folder

matplotlib.use("Agg")
from matplotlib.figure import Figure

LENGTH, RADIUS, END = 32.4e-3, 3.2e-3, 80e-6
TIMES = np.arange(1, 9) * 1e-5


def moduli(E: float, nu: float) -> dict[str, float]:
    """Shear and bulk modulus, Pa."""
    return {"shear_modulus": E / (2.0 * (1.0 + nu)), "bulk_modulus": E / (3.0 * (1.0 - 2.0 * nu))}


# %% [markdown]
# ## The two cases
# Constants in SI units; what other codes found in mm and us.

# %%
COPPER = {"yield_stress": 400e6, "linear_hardening": 100e6, "density": 8930.0, **moduli(117e9, 0.35)}
STEEL = {
    "A": 806e6, "B": 614e6, "C": 0.0089, "n": 0.168, "m": 1.1, "rate_0": 1.0, "density": 7830.0, "specific_heat": 460.0,
    "taylor_quinney": 0.9, "reference_temperature": 293.15, "melting_temperature": 1813.15, **moduli(206.9e9, 0.3),
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "copper": {
        "law": "j2", "constants": COPPER, "speed": 227.0,
        "radius": {10: 5.218, 20: 6.195, 30: 6.811, 40: 7.139, 80: 7.226},
        "length": {10: 30.140, 20: 28.063, 30: 26.185, 40: 24.556, 50: 23.215, 60: 22.205, 80: 21.42},
    },
    "steel": {
        "law": "johnson-cook", "constants": STEEL, "speed": 287.0,
        "radius": {80: (11.15 + 11.22) / 4.0}, "length": {80: (26.52 + 26.56) / 2.0},
    },
}  # fmt: skip


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Taylor bars against other codes.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--case", choices=tuple(CASES), default="copper", help="which bar")
    p.add_argument("--cells", type=int, nargs="+", default=[4, 6, 8], help="cells across, even, of each mesh")
    p.add_argument("--integration", choices=("one-point", "full"), default="one-point", help="quadrature of a cell")
    p.add_argument("--tetrahedra", action="store_true", help="six tetrahedra in place of each hexahedron")
    p.add_argument("--hourglass", type=float, default=0.3, help="hourglass stiffness over shear modulus (one-point)")
    p.add_argument("--viscosity", type=float, nargs=2, default=[0.06, 1.2], help="bulk viscosity, linear and quadratic")
    p.add_argument("--penalty", type=float, default=0.0, help="stiffness of the wall; 0 is contact by impulses")
    p.add_argument("--held", action="store_true", help="the foot slides on the wall and does not leave it")
    p.add_argument("--yield-measure", choices=("kirchhoff", "cauchy"), default="kirchhoff", help="copper only")
    p.add_argument("--until", type=float, default=END, help="end time, s")
    p.add_argument("--output", default="results/taylor_bars", help="folder for the results")
    o = p.parse_args(arguments)
    if any(cells < 4 or cells % 2 for cells in o.cells):
        raise ValueError(f"--cells must be even numbers of at least 4, got {o.cells}.")
    if not 0.0 < o.until <= END:
        raise ValueError(f"--until must be a time in (0, {END:g}] s, got {o.until}.")
    if o.held and o.penalty == 0.0:
        raise ValueError("--held needs springs at the wall: give a positive --penalty.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## One run


# %%
def make_solver(comm: MPI.Comm, o: argparse.Namespace, cells: int) -> ExplicitSolver:
    """The problem on one mesh (collective)."""
    case = CASES[o.case]
    constants = dict(case["constants"])
    if o.case == "copper":
        constants["yield_measure"] = o.yield_measure
    law = together(comm, lambda: load_law(case["law"], **constants))
    build = lambda: taylor_bar(LENGTH, 2.0 * RADIUS, cells, quarter=True, tetrahedra=o.tetrahedra)
    with closing_gmsh(comm):
        domain = read_mesh(together(comm, build, root=True), comm)
    solver = ExplicitSolver(
        domain, law, contact=[RigidPlane(penalty=o.penalty, separation=not o.held)],
        initial_velocity=(0.0, 0.0, -case["speed"]),
        integration=o.integration, hourglass=o.hourglass, viscosity=tuple(o.viscosity),
    )  # fmt: skip
    solver.prescribe("symmetry_x", component=0)
    solver.prescribe("symmetry_y", component=1)
    return solver


def shape(solver: ExplicitSolver) -> dict[str, float]:
    """Foot radius and length of the bar, mm, and the largest value of what the law observes (collective).

    The problem is axisymmetric and the mesh is not: the radius is the mean over the rim of the foot, and its spread,
    the largest less the smallest radius of the rim, is an error of the mesh. The lift is the largest distance of the
    rim from the wall.
    """
    n, comm = solver.n_nodes, solver.comm
    X, x = solver.points.V.tabulate_dof_coordinates()[:n], solver.x[:n]
    highest = lambda values: float(comm.allreduce(values.max(initial=-np.inf), op=MPI.MAX))
    rim = (X[:, 2] < 1e-6 * LENGTH) & (np.hypot(X[:, 0], X[:, 1]) > RADIUS * (1.0 - 1e-6))
    ends = np.isclose(X[rim, 0], 0.0, atol=1e-9) | np.isclose(X[rim, 1], 0.0, atol=1e-9)
    weight, r = np.where(ends, 0.5, 1.0), np.hypot(x[rim, 0], x[rim, 1])  # trapezoidal rule along the rim
    mean = comm.allreduce(float(weight @ r)) / comm.allreduce(float(weight.sum()))
    found = {"radius": 1e3 * mean, "spread": 1e3 * (highest(r) + highest(-r))}
    found["length"] = 1e3 * (highest(x[:, 2]) + highest(-x[:, 2]))
    found["lift"] = 1e3 * max(0.0, highest(x[rim, 2]))
    observed = solver.law.observe(solver.state)
    return found | {name: highest(observed[:, k]) for k, name in enumerate(solver.law.observed)}


def run_one(comm: MPI.Comm, o: argparse.Namespace, cells: int) -> dict[str, Any]:
    """Run the bar on one mesh (collective)."""
    solver, start, history = make_solver(comm, o, cells), time.process_time(), []
    for end in [t for t in TIMES if t < o.until] + [o.until]:
        solver.run(end).finish()
        history.append({"time": 1e6 * solver.time, **shape(solver)})
    balance = solver.energy_balance()
    put_in = solver.comm.allreduce(0.5 * float(solver.mass.sum())) * CASES[o.case]["speed"] ** 2
    parts = ("hourglass_energy", "viscous_energy", "contact_loss", "contact_energy")
    return {
        "cells": cells, "points": comm.allreduce(solver.points.n), "steps": solver.steps, "history": history,
        "of_kinetic_energy": {name: getattr(balance, name) / put_in for name in parts},
        "energy_error": balance.energy_error, "momentum_error": balance.momentum_error,
        "processor_seconds": comm.allreduce(time.process_time() - start),
    }  # fmt: skip


def deviations(o: argparse.Namespace, run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Foot radius and length less those of the other codes, over those, at each of their times (us)."""
    out: dict[str, dict[str, float]] = {}
    for name in ("radius", "length"):
        known = CASES[o.case][name]
        rows = {round(row["time"]): row[name] for row in run["history"]}
        out[name] = {str(t): rows[t] / value - 1.0 for t, value in known.items() if t in rows}
    return out


def sentence(run: dict[str, Any]) -> str:
    """What a run found, for the screen."""
    last, parts = run["history"][-1], run["of_kinetic_energy"]
    shown = ("time", "radius", "spread", "length", "lift")
    more = [f"{name} {value:.4g}" for name, value in last.items() if name not in shown]
    text = f"{run['cells']} cells across, {run['points']} points, {run['steps']} steps: foot radius "
    text += f"{last['radius']:.3f} mm (spread {last['spread']:.3f}), length {last['length']:.3f} mm, {', '.join(more)}"
    return text + "; of the kinetic energy: " + ", ".join(f"{name} {value:.2%}" for name, value in parts.items()) + "\n"


# %% [markdown]
# ## Picture


# %%
def draw(o: argparse.Namespace, runs: list[dict[str, Any]], path: Path) -> None:
    """Histories of foot radius and length on every mesh, with the values of the other codes."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("radius", "length"), strict=True):
        for run in runs:
            first = RADIUS if name == "radius" else LENGTH
            rows = [(0.0, 1e3 * first)] + [(row["time"], row[name]) for row in run["history"]]
            axis.plot(*zip(*rows, strict=True), marker=".", label=f"{run['cells']} cells across")
        known = CASES[o.case][name]
        axis.plot(list(known), list(known.values()), "k+", markersize=9, label="other codes")
        axis.set(xlabel="time (us)", ylabel=f"{'foot radius' if name == 'radius' else name} (mm)")
        axis.legend()
    figure.suptitle(f"Taylor bar of {o.case}, {CASES[o.case]['speed']:g} m/s, {o.integration}")
    figure.savefig(path, dpi=120)


def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """All meshes, the table, the picture (collective)."""
    plan_threads(comm)
    folder = Path(o.output)
    together(comm, lambda: folder.mkdir(parents=True, exist_ok=True), root=True)
    runs = []
    for cells in o.cells:
        found = run_one(comm, o, cells)
        found["deviations"] = deviations(o, found)
        runs.append(found)
        if comm.rank == 0:
            sys.stdout.write(sentence(found))
            sys.stdout.flush()
    failed = [r["cells"] for r in runs if not (r["energy_error"] < 1e-2 and r["momentum_error"] < 1e-9)]

    def conclude() -> None:
        draw(o, runs, folder / f"{o.case}.png")
        summary = {"case": o.case, "options": vars(o), "runs": runs}
        write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")

    together(comm, conclude, root=True)
    if failed:
        raise Stop(f"Energy or momentum are not balanced with {failed} cells across.", code=1)


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the study (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
