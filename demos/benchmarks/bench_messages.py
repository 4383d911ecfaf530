# %% [markdown]
# # Messages of the explicit solver: how many, how large, on how many ranks
#
# **Why.** What a step costs on many ranks is its work, its messages and its reductions. The first is measured by
# `bench_explicit.py`; the others can be counted on any machine, also with more ranks than cores. Every call of MPI is
# counted by a small library between the program and MPI (`count_messages.c`, its profiling interface), over the steps
# alone.
#
# **Problem.** A box of n x n x 2n hexahedra hits a wall; run for some steps on each number of ranks.
#
# **Checks.** One reduction per step on any number of ranks; two exchanges with neighbours, of the displacement and of
# the forces; the answer is that of one rank (kinetic energy and impulse of the wall to 1e-10), also on ranks without
# cells.

# **Model.** With `--expect C F` nothing is run: the time of a step is modelled for many ranks, from C microseconds per
# cell and F microseconds per step of work (`bench_explicit.py`), the messages counted here, and a usual network.

# %%
from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIDE, SPEED = 1e-3, 150.0
LATENCY, BYTES, LEVEL = 2.0, 5e3, 3.0  # us per message; bytes per us; us per level of a reduction
NEIGHBOURS, LAYERS = 16, 9.0  # of a rank; copies of nodes over (cells per rank)^(2/3): 6 faces, one and a half layers
NAMES = ("reductions", "reduced_bytes", "exchanges", "messages", "bytes")
NAMES += ("other_messages", "other_bytes", "collectives")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = argparse.ArgumentParser(
        description="Messages of a step.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    text = "numbers of ranks; the first is the reference"
    p.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 8, 32], help=text)
    p.add_argument("--cells", type=int, default=8, help="n: the box has n x n x 2n cells")
    p.add_argument("--law", default="magnesium-j2", help="law of the body")
    p.add_argument("--steps", type=int, default=40, help="steps that are counted")
    p.add_argument("--drive", action="store_true", help="drive the top by a function of time as well")
    text = "print the model for C us per cell and F us per step"
    p.add_argument("--expect", type=float, nargs=2, metavar=("C", "F"), help=text)
    p.add_argument("--output", default="results/bench_messages", help="folder for the results")
    p.add_argument("--library", help=argparse.SUPPRESS)  # set in the runs on ranks
    o = p.parse_args(arguments)
    if min(o.ranks) < 1 or o.cells < 1 or o.steps < 1:
        p.error("ranks, cells and steps must be at least 1.")
    return o


# %% [markdown]
# ## Model


# %%
def expected(cells: float, ranks: int, per_cell: float, per_step: float) -> tuple[float, float]:
    """Time of a step, us, and efficiency, on a number of ranks."""
    share = cells / ranks
    time = share * per_cell + per_step
    if ranks > 1:
        time += 2 * NEIGHBOURS * LATENCY + 48.0 * LAYERS * share ** (2.0 / 3.0) / BYTES + LEVEL * math.log2(ranks)
    return time, (cells * per_cell + per_step) / (ranks * time)


def print_model(per_cell: float, per_step: float) -> None:
    """Print the model for meshes of 50 000 cells to 10 million on 64 and 1024 ranks, and the cells for 0.85."""
    sys.stdout.write("| cells | 64 ranks: us per step, efficiency | 1024 ranks: us per step, efficiency |\n")
    sys.stdout.write("|---|---|---|\n")
    for cells in (5e4, 1e6, 1e7):
        found = [expected(cells, ranks, per_cell, per_step) for ranks in (64, 1024)]
        text = " | ".join(f"{time:.0f}, {efficiency:.2f}" for time, efficiency in found)
        sys.stdout.write(f"| {cells:g} | {text} |\n")
    least = next(n for n in range(100, 10**7, 100) if expected(1024.0 * n, 1024, per_cell, per_step)[1] >= 0.85)
    sys.stdout.write(f"An efficiency of 0.85 on 1024 ranks needs {least} cells per rank.\n")


# %% [markdown]
# ## On the ranks


# %%
def count(o: argparse.Namespace) -> None:
    """Run the box on all ranks, count, and write the row of this number of ranks (collective)."""
    import numpy as np
    from dolfinx import mesh
    from mpi4py import MPI

    from fem import ExplicitSolver, RigidPlane, load_law

    comm, n = MPI.COMM_WORLD, o.cells
    box = mesh.create_box(comm, [(0, 0, 0), (SIDE, SIDE, 2 * SIDE)], [n, n, 2 * n], mesh.CellType.hexahedron)
    solver = ExplicitSolver(box, load_law(o.law), contact=[RigidPlane()], initial_velocity=(0.0, 5.0, -SPEED))
    if o.drive:
        solver.prescribe(lambda x: np.isclose(x[2], 2 * SIDE), 2, lambda x, t: -SPEED * t)
    solver.step()  # compiles forms, prepares
    counts = (ctypes.c_longlong * 8).in_dll(ctypes.CDLL(o.library), "message_counts")
    before = np.array(counts)
    for _ in range(o.steps):
        solver.step()
    mine = (np.array(counts) - before) / o.steps
    nodes, balance = solver.points.V.dofmap.index_map, solver.energy_balance()
    rows = comm.gather([*mine, solver.points.n, nodes.size_local, nodes.num_ghosts])
    if comm.rank == 0:
        every = np.array(rows)
        row = {"ranks": comm.size, "steps": solver.steps, "time": solver.time}
        for k, name in enumerate((*NAMES, "cells", "nodes", "ghosts")):
            row |= {name: float(every[:, k].mean()), f"{name}_most": float(every[:, k].max())}
        row |= {"kinetic_energy": balance.kinetic_energy, "impulse": balance.contact_impulse[2]}
        (Path(o.output) / "row.json").write_text(json.dumps(row))


# %% [markdown]
# ## The runs


# %%
def run_on(ranks: int, library: Path, o: argparse.Namespace) -> dict[str, Any]:
    """Start the program on a number of ranks and return its row.

    Raises:
        RuntimeError: If the run fails; says what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
        environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        environment["OMPI_MCA_mpi_yield_when_idle"] = "1"  # ranks that wait leave the core to the others
        options = [f"--{name}={getattr(o, name)}" for name in ("cells", "law", "steps")] + ["--drive"] * o.drive
        command = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", "-x", "LD_PRELOAD"]
        command += [sys.executable, __file__, f"--library={library}", f"--output={folder}", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{ranks} ranks: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        row: dict[str, Any] = json.loads((Path(folder) / "row.json").read_text())
    return row


def check(rows: list[dict[str, Any]]) -> None:
    """One reduction, two exchanges, and the answer of the first run.

    Raises:
        RuntimeError: If there are more, or the answer differs.
    """
    for row in rows:
        if row["reductions_most"] != 1.0 or row["collectives_most"] != 0.0:
            raise RuntimeError(f"{row['ranks']} ranks: {row['reductions_most']:g} reductions per step.")
        if row["exchanges_most"] > 2.0 or row["other_messages_most"] != 0.0:
            raise RuntimeError(f"{row['ranks']} ranks: {row['exchanges_most']:g} exchanges per step.")
        for name in ("kinetic_energy", "impulse"):
            if not abs(row[name] / rows[0][name] - 1.0) <= 1e-10:
                raise RuntimeError(f"{row['ranks']} ranks: {name} {row[name]}, not {rows[0][name]}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    o = parse(arguments)
    if o.expect:
        print_model(*o.expect)
        return 0
    if o.library:
        count(o)
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "count_messages.so"
        source = Path(__file__).with_name("count_messages.c")
        subprocess.run(["mpicc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        head = ("ranks", "cells per rank", "ghosts, most", "messages, mean (most)", "bytes, mean (most)", "reductions")
        sys.stdout.write(f"| {' | '.join(head)} |\n")
        sys.stdout.write("|---|---|---|---|---|---|\n")
        for ranks in o.ranks:
            row = run_on(ranks, library, o)
            rows.append(row)
            text = "| {ranks} | {cells:.4g} | {ghosts_most:g} | {messages:.3g} ({messages_most:g}) "
            text += "| {bytes:.3g} ({bytes_most:.3g}) | {reductions_most:g} |\n"
            sys.stdout.write(text.format(**row))
            sys.stdout.flush()
    check(rows)
    Path(o.output).mkdir(parents=True, exist_ok=True)
    (Path(o.output) / "summary.json").write_text(json.dumps({"options": vars(o), "rows": rows}, indent=1) + "\n")
    sys.stdout.write("One reduction per step, and the answer of one rank, on every number of ranks.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
