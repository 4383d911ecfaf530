# %% [markdown]
# # What a finite lattice costs: n x n x n cells of elastoplastic bars
#
# **Why.** The gain of a homogenised law is the cost of the lattice that it replaces. So the lattice has to be solved as
# well as it can be: here by Newton with the consistent tangent, a distributed block matrix, and either a direct solver
# (MUMPS, Cholesky) or conjugate gradients with algebraic multigrid (GAMG with rigid-body modes).
#
# **Problem.** A box 10 x 10 x 10 of n cells per side, each with 28 bars (shared ones counted once), linear kinematic
# hardening with E = 1, H = 0.1, k = 1/3, area (10/n)^2. Loads of section V of the paper:
# lcU: top u_z = -5, bottom u_z = 0, sides free; lcC: bottom fixed, top u_z = -5; lcT: bottom fixed, top turned by
# 60 degrees about the vertical axis.
#
# **Numbers.** Unknowns, bars, Newton iterations, calls of the bar law as the paper counts them (bars times
# evaluations), seconds by phase, and the ratio of direct to iterative; the exponents p of seconds ~ n^p.
#
# **Check.** The first part of lcU is elastic and homogeneous: at u_z = -3 the stored energy is 101.1617146683 for every
# n (1e-8). Both linear solvers store and dissipate the same (1e-8). Seconds are those of the machine, one thread a
# rank.
#
# Reference: Masi and Stefanou (2022), section V, doi:10.1016/j.cma.2022.115190.

# %%
from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from mpi4py import MPI

from fem.command import Parser
from fem.discretisation.dirichlet import Dirichlet
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from fem.truss.solver import TrussSolver
from micro.data.cli import check_folder, check_memory
from micro.data.files import write_whole
from micro.data.ranks import world
from micro.lattice.bars import KinematicBar
from micro.lattice.geometry import make_cell
from micro.lattice.tiling import Truss, tile

matplotlib.use("Agg")
from matplotlib import pyplot as plt

EDGE = 10.0
BYTES = 100.0  # of a lattice, per node and bar of its cells, at least
ELASTIC = 101.1617146683  # stored energy of lcU at u_z = -3, for every n

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Cost of the finite lattice.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--n", nargs="+", type=int, default=[4, 8, 12, 16, 20], help="cells per side")
    p.add_argument("--case", choices=("lcU", "lcC", "lcT"), default="lcC", help="load")
    p.add_argument("--steps", type=int, default=5, help="load steps")
    p.add_argument("--direct-to", type=int, default=16, help="largest n for which the direct solver runs as well")
    p.add_argument("--cell", default="cube-1", help="cell: cube-1, cube-2")
    p.add_argument("--perturbation", type=float, default=0.0, help="standard deviation of its nodes, in its units")
    p.add_argument("--output", default="results/bench_lattice", help="folder for the results")
    o = p.parse_args(arguments)
    if min(o.n) < 1 or len(set(o.n)) < len(o.n):
        raise ValueError(f"--n must be different positive integers, got {o.n}.")
    if o.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {o.steps}.")
    check_folder("--output", o.output)
    cell = make_cell(o.cell, perturbation=o.perturbation)  # refuses what it cannot make
    n = max(o.n)
    check_memory(f"lattices of {n} x {n} x {n} cells", BYTES * float(n) ** 3 * (len(cell.nodes) + len(cell.bars)))
    return o


# %% [markdown]
# ## Loads


# %%
def conditions(truss: Truss, case: str, full: float) -> list[Dirichlet]:
    """Prescribed displacements of a load; `full` is u_z at the top, m, or degrees."""
    x = truss.reference
    near = 1e-9 * EDGE
    bottom, top = np.flatnonzero(x[:, 2] < near), np.flatnonzero(x[:, 2] > EDGE - near)
    if case == "lcU":
        at = lambda *p: np.flatnonzero(np.abs(x - np.array(p)).max(axis=1) < near)
        origin, along = at(0.0, 0.0, 0.0), at(EDGE, 0.0, 0.0)
        pins = [Dirichlet(origin, 0), Dirichlet(origin, 1), Dirichlet(along, 1)]
        return [Dirichlet(bottom, 2), Dirichlet(top, 2, lambda x, t: full * t), *pins]
    fixed = Dirichlet(bottom)
    if case == "lcC":
        return [fixed, Dirichlet(top, 2, lambda x, t: full * t)]

    def turn(row: int) -> Callable[[np.ndarray, float], np.ndarray]:
        def value(x: np.ndarray, t: float) -> np.ndarray:
            a = math.radians(full) * t
            R = np.array([[math.cos(a) - 1.0, -math.sin(a)], [math.sin(a), math.cos(a) - 1.0]])
            return R[row] @ (x[:2] - 0.5 * EDGE)

        return value

    return [fixed, Dirichlet(top, 0, turn(0)), Dirichlet(top, 1, turn(1))]


# %% [markdown]
# ## Solve


# %%
def measure(truss: Truss, n: int, linear: str, o: argparse.Namespace) -> dict[str, Any]:
    """Solve one lattice and count (collective)."""
    comm = MPI.COMM_WORLD
    full = 60.0 if o.case == "lcT" else -5.0
    comm.barrier()
    start = time.perf_counter()
    solver = TrussSolver(
        truss.nodes, truss.bars, truss.area, KinematicBar(), prescribed=conditions(truss, o.case, full), linear=linear
    )
    comm.barrier()
    ready = time.perf_counter()
    steps = list(solver.run(times=np.linspace(0.0, 1.0, o.steps + 1)[1:].tolist()))
    comm.barrier()
    end = time.perf_counter()
    phases = solver.total_seconds()
    iterations = [step.convergence.iterations for step in steps]
    return {
        "n": n, "ranks": comm.size, "linear": linear, "unknowns": truss.nodes.size, "bars": len(truss.bars),
        "newton_iterations": iterations, "newton_iterations_max": max(iterations), "bar_calls": solver.bar_calls,
        "linear_iterations": [step.convergence.linear_iterations for step in steps],
        "seconds_setup": ready - start, "seconds": end - ready,
        "seconds_law": phases["law"], "seconds_assemble": phases["assemble"],
        "stored_energy": solver.stored_energy(), "dissipation": solver.dissipation(),
        "external_work": solver.external_work,
    }  # fmt: skip


def elastic_energy(truss: Truss) -> float:
    """Stored energy of lcU at u_z = -3 (collective)."""
    load = conditions(truss, "lcU", -3.0)
    solver = TrussSolver(truss.nodes, truss.bars, truss.area, KinematicBar(), prescribed=load)
    solver.run().finish()
    return solver.stored_energy()


def check(rows: list[dict[str, Any]], elastic: dict[int, float], regular: bool) -> None:
    """The known energy, and the same from both linear solvers.

    Raises:
        ValueError: naming the lattice that fails.
    """
    for n, energy in elastic.items():
        if regular and not abs(energy - ELASTIC) <= 1e-8:
            raise ValueError(f"n = {n}: the elastic energy is {energy:.10f}, not {ELASTIC}.")
    for row in rows:
        first = next(other for other in rows if other["n"] == row["n"])
        for name in ("stored_energy", "dissipation"):
            if not abs(row[name] - first[name]) <= 1e-8 * first["stored_energy"]:
                raise ValueError(f"n = {row['n']}: the {name} of the solvers differs by {row[name] - first[name]:.1e}.")
        if not row["bar_calls"] == row["bars"] * (1 + sum(row["newton_iterations"])):
            raise ValueError(f"n = {row['n']}: {row['bar_calls']} calls of the bar law were counted.")


# %% [markdown]
# ## Summary and figure


# %%
def summarise(rows: list[dict[str, Any]], elastic: dict[int, float], o: argparse.Namespace) -> dict[str, Any]:
    """Ratios and exponents."""
    ratio = {}
    for n in o.n:
        found = {row["linear"]: row["seconds"] for row in rows if row["n"] == n}
        if len(found) == 2:
            ratio[str(n)] = found["direct"] / found["iterative"]
    exponents = {}
    for linear in ("direct", "iterative"):
        some = [row for row in rows if row["linear"] == linear and row["n"] >= 8]
        if len(some) > 1:
            slope = np.polyfit(np.log([r["n"] for r in some]), np.log([r["seconds"] for r in some]), 1)[0]
            exponents[linear] = float(slope)
    return {
        "case": o.case, "cell": o.cell, "perturbation": o.perturbation, "steps": o.steps, "ranks": MPI.COMM_WORLD.size,
        "elastic_energy": {str(n): energy for n, energy in elastic.items()},
        "direct_over_iterative_seconds": ratio, "exponent_of_seconds": exponents, "rows": rows,
    }  # fmt: skip


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and calls of the bar law against n."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.0), layout="constrained")
    for linear, colour, label in (("direct", "#fb8500", "MUMPS"), ("iterative", "#219ebc", "CG + GAMG")):
        some = [row for row in rows if row["linear"] == linear]
        if some:
            left.loglog([r["n"] for r in some], [r["seconds"] for r in some], "o-", color=colour, label=label)
    some = [row for row in rows if row["linear"] == "iterative"]
    n = np.array([row["n"] for row in some], dtype=float)
    left.loglog(n, some[-1]["seconds"] * (n / n[-1]) ** 3, ":", color="0.5", label="n^3")
    right.loglog(n, [row["bar_calls"] for row in some], "o-", color="#023047", label="calls of the bar law")
    right.loglog(n, [row["unknowns"] for row in some], "s-", color="#8ecae6", label="unknowns")
    ticks = sorted({row["n"] for row in rows})
    for axis in (left, right):
        axis.set_xticks(ticks, [str(k) for k in ticks])
        axis.minorticks_off()
        axis.set(xlabel="cells per side n")
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    left.set(ylabel="seconds of the load")
    figure.savefig(path, dpi=150)
    plt.close(figure)


# %% [markdown]
# ## Main


# %%
def run(o: argparse.Namespace) -> None:
    """Measure every n; write figure and summary."""
    comm = MPI.COMM_WORLD
    plan = plan_threads(comm, 1)
    cell = make_cell(o.cell, perturbation=o.perturbation)
    rows: list[dict[str, Any]] = []
    elastic = {}
    for n in sorted(o.n):
        truss = tile(cell, (n,) * 3, EDGE / n)
        elastic[n] = elastic_energy(truss)
        for linear in ("iterative", "direct"):
            if linear == "direct" and n > o.direct_to:
                continue
            rows.append(measure(truss, n, linear, o))
            if comm.rank == 0:
                row = rows[-1]
                sys.stdout.write(
                    f"n = {n}, {linear}: {row['unknowns']} unknowns, {row['bars']} bars, Newton "
                    f"{row['newton_iterations']}, {row['bar_calls']} calls, {row['seconds']:.2f} s\n"
                )
                sys.stdout.flush()
    check(rows, elastic, o.perturbation == 0.0 and o.cell.startswith("cube-"))
    if comm.rank == 0:
        folder = Path(o.output)
        folder.mkdir(parents=True, exist_ok=True)
        draw(rows, folder / "cost.png")
        summary = {"plan": str(plan), **summarise(rows, elastic, o)}
        write_whole(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 for bad input, 1 where a check fails."""
    ranks, code = world(), 2
    try:
        o = ranks.together(lambda: parse(arguments))
        code = 1
        run(o)
    except ValueError as error:  # raised on all ranks together
        if MPI.COMM_WORLD.rank == 0:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
        MPI.COMM_WORLD.barrier()  # mpirun ends the others as soon as one rank has left with an error: say it first
        return code
    return 0


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
