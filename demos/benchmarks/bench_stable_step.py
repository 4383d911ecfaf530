# %% [markdown]
# # Is the step safe, and how close to the largest stable one?
#
# **Why.** Impact codes estimate the stable step of central differences from a length of each cell and the speed of
# sound. Where cells are strongly deformed, such estimates can be far too large; where they are too small, time is lost.
# Here the largest stable step, 2 over the highest frequency of small motions about the present state, is found by
# Lanczos iteration on the assembled stiffness at many times of the impact of a copper bar (32.4 x 3.2 mm, 227 m/s), and
# four steps are held against it: ours, and three common estimates with the speed of sound at rest.
#
# - *ours*: `fem.explicit.time_step`, times its safety factor of 0.9;
# - *shortest edge*: the shortest edge of all cells over the speed of sound;
# - *volume over face*: the volume of a cell over its largest face (three times that in a tetrahedron), over the same;
# - *cube root*: the cube root of the volume of a cell, over the same.
#
# Small motions are elastic here, the stiffest that the material can do, so that the largest step is a lower bound while
# the bar flows. Bulk viscosity is off (it lowers our step as it lowers the largest).
#
# **Check.** Ours is below the largest stable step at every time.

# %%
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fem import ExplicitSolver, RigidPlane, load_law, read_mesh
from fem.command import Parser, Stop, finish, together, write_text
from fem.explicit.stability import largest_stable_step
from fem.mesh import closing_gmsh
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from meshes.taylor_bar import taylor_bar
from micro.data.cli import check_count, check_folder

LENGTH, RADIUS, SPEED = 32.4e-3, 3.2e-3, 227.0
E, NU, DENSITY = 117e9, 0.35, 8930.0
G, K = E / (2.0 * (1.0 + NU)), E / (3.0 * (1.0 - 2.0 * NU))
SOUND = float(np.sqrt((K + 4.0 / 3.0 * G) / DENSITY))
FACES = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
EDGES = [(i, j) for i, j in combinations(range(8), 2) if bin(i ^ j).count("1") == 1]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Stable steps.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--cells", type=int, default=6, help="cells across, even, at least 4")
    p.add_argument("--integration", choices=("one-point", "full"), default="one-point", help="quadrature")
    p.add_argument("--tetrahedra", action="store_true", help="six tetrahedra in place of each hexahedron")
    p.add_argument("--until", type=float, default=80e-6, help="end time, s")
    p.add_argument("--times", type=int, default=16, help="times to look at, after the start")
    p.add_argument("--output", default="results/bench_stable_step", help="folder for the results")
    o = p.parse_args(arguments)
    check_count("--times", o.times)
    check_folder("--output", o.output)
    if not 0.0 < o.until <= 1e-3:
        raise ValueError(f"--until must be a time in (0, 0.001] s, got {o.until}.")
    return o


# %% [markdown]
# ## The bar


# %%
def make_solver(comm: MPI.Comm, o: argparse.Namespace) -> ExplicitSolver:
    """A quarter of the copper bar (collective)."""
    law = load_law("j2", yield_stress=400e6, linear_hardening=100e6, shear_modulus=G, bulk_modulus=K, density=DENSITY)
    build = lambda: taylor_bar(LENGTH, 2.0 * RADIUS, o.cells, quarter=True, tetrahedra=o.tetrahedra)
    with closing_gmsh(comm):
        domain = read_mesh(together(comm, build, root=True), comm)
    solver = ExplicitSolver(
        domain, law, contact=[RigidPlane()], initial_velocity=(0.0, 0.0, -SPEED), integration=o.integration,
        viscosity=(0.0, 0.0),
    )  # fmt: skip
    solver.prescribe("symmetry_x", component=0)
    solver.prescribe("symmetry_y", component=1)
    return solver


# %% [markdown]
# ## The estimates


# %%
def estimates(solver: ExplicitSolver) -> dict[str, float]:
    """The three common estimates of the stable step on the deformed mesh, s (collective)."""
    V = solver.points.V
    x = solver.x[V.dofmap.list[: solver.points.n // solver.points.per_cell]]
    edges = EDGES if x.shape[1] == 8 else list(combinations(range(4), 2))
    shortest = min((np.linalg.norm(x[:, i] - x[:, j], axis=1).min(initial=np.inf) for i, j in edges), default=np.inf)
    faces = FACES if x.shape[1] == 8 else [(i, j, k, k) for i, j, k in combinations(range(4), 3)]
    area = [0.5 * np.linalg.norm(np.cross(x[:, c] - x[:, a], x[:, d] - x[:, b]), axis=1) for a, b, c, d in faces]
    J = np.linalg.det(solver.points.F_cell).reshape(len(x), -1).mean(axis=1)
    # A tetrahedron is a third of face times height.
    volume = solver.points.cell_volume * J
    heights = (1.0 if x.shape[1] == 8 else 3.0) * volume / np.max(area, axis=0)
    least = lambda value: float(solver.comm.allreduce(float(value), op=MPI.MIN)) / SOUND
    return {
        "shortest edge": least(shortest), "volume over face": least(heights.min(initial=np.inf)),
        "cube root": least(np.cbrt(volume).min(initial=np.inf)),
    }  # fmt: skip


def look(solver: ExplicitSolver) -> dict[str, float]:
    """One row of the table (collective)."""
    largest, ours = largest_stable_step(solver), solver.next_step
    row = {"time": 1e6 * solver.time, "steps": solver.steps, "step": 1e9 * ours, "largest": 1e9 * largest}
    return row | {"ours": ours / largest} | {name: step / largest for name, step in estimates(solver).items()}


def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Run the bar, print and write the table (collective)."""
    plan_threads(comm)
    together(comm, lambda: Path(o.output).mkdir(parents=True, exist_ok=True), root=True)
    solver = make_solver(comm, o)
    rows: list[dict[str, Any]] = []
    for time in o.until * np.arange(o.times + 1) / o.times:
        solver.run(float(time)).finish()
        rows.append(look(solver))
        if comm.rank == 0:
            head = "| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|\n" if len(rows) == 1 else ""
            sys.stdout.write(head + "| " + " | ".join(f"{value:.4g}" for value in rows[-1].values()) + " |\n")
            sys.stdout.flush()
    ratios = np.array([row["ours"] for row in rows])
    summary = {"options": vars(o), "closest": float(ratios.max()), "farthest": float(ratios.min()), "rows": rows}
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    together(comm, lambda: write_text(Path(o.output) / "summary.json", text), root=True)
    if comm.rank == 0:
        sys.stdout.write(f"Ours over the largest stable step: {ratios.min():.3f} to {ratios.max():.3f}.\n")
    if not ratios.max() < 1.0:
        raise Stop(f"The step is {ratios.max():.3f} of the largest stable one.", code=1)


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the benchmark; returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
