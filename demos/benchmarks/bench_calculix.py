# %% [markdown]
# # One Taylor bar in two codes: this solver and CalculiX
#
# **Why.** A second code with other elements, written by others, on the same mesh with the same law, is the plainest
# check there is. The copper bar of `demos/taylor_bars.py`, a quarter of it, is written as an input deck of CalculiX
# (J2 plasticity, linear isotropic hardening, finite strain, *DYNAMIC, EXPLICIT), run by `ccx` where that is on the
# PATH, and run here with the same nodes and cells.
#
# **Wall.** The nodes of the foot are held in the plane of the wall and slide in it: *BOUNDARY there, a prescribed
# component here. So no contact is compared, and a foot that would lift off cannot.
#
# **Numbers.** Length and foot radius at equal times, their differences, and processor seconds of both.
#
# Reference: Dhondt, The Finite Element Method for Three-Dimensional Thermomechanical Applications (2004),
# doi:10.1002/0470021217, the manual of CalculiX CrunchiX.

# %%
from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fem import ExplicitSolver, load_law, read_mesh
from fem.command import Parser, Stop, finish, write_text
from fem.mesh import closing_gmsh
from micro.data.cli import check_folder

LENGTH, RADIUS, SPEED = 32.4e-3, 3.2e-3, 227.0
E, NU, YIELD, HARDENING, DENSITY = 117e9, 0.35, 400e6, 100e6, 8930.0  # of copper, SI
COPPER = {
    "yield_stress": YIELD, "linear_hardening": HARDENING, "density": DENSITY, "bulk_modulus": E / (3.0 - 6.0 * NU),
    "shear_modulus": E / (2.0 + 2.0 * NU),
}  # fmt: skip
ELEMENTS = ("C3D8", "C3D8R", "C3D8I")
MILLI = 1e-3  # the deck is in t, mm, s, N, MPa
NEAR = 1e-6  # of the bar: nodes of a face


# %%
def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="One Taylor bar in two codes.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--cells", type=int, default=4, help="cells across the diameter, even, at least 4")
    p.add_argument("--until", type=float, default=2e-5, help="end time, s")
    p.add_argument("--rows", type=int, default=8, help="rows of the table")
    p.add_argument("--element", choices=ELEMENTS, default="C3D8", help="element of CalculiX")
    p.add_argument("--step", type=float, help="fixed step of CalculiX, s; none: its own")
    p.add_argument("--limit", type=float, default=600.0, help="seconds that CalculiX may take")
    p.add_argument("--output", default="results/bench_calculix", help="folder for deck and results")
    o = p.parse_args(arguments)
    for name in ("until", "step", "limit"):
        value = getattr(o, name)
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"--{name} must be a positive finite number, got {value}.")
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## The deck


# %%
def mesh_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, 3), m, and hexahedra (m, 8), from 0, of the current model of gmsh."""
    import gmsh

    tags, x, _ = gmsh.model.mesh.getNodes()
    order = np.argsort(tags)
    _, _, corners = gmsh.model.mesh.getElements(3)
    position = np.zeros(int(tags.max()) + 1, dtype=int)
    position[tags[order].astype(int)] = np.arange(len(tags))
    return x.reshape(-1, 3)[order], position[corners[0].astype(int)].reshape(-1, 8)


def node_set(name: str, nodes: np.ndarray) -> str:
    """A set of nodes, numbered from 0, as lines of the deck."""
    lines = [", ".join(map(str, nodes[k : k + 12] + 1)) + "," for k in range(0, len(nodes), 12)]
    return "\n".join([f"*NSET, NSET={name}", *lines, ""])


def deck(x: np.ndarray, cells: np.ndarray, o: argparse.Namespace) -> str:
    """The input deck of the bar, for nodes (n, 3), m, and hexahedra (m, 8)."""
    near = NEAR * LENGTH
    foot, rim = x[:, 2] < near, np.hypot(x[:, 0], x[:, 1]) > RADIUS - near
    sets = {
        "FOOT": foot, "SYMX": np.abs(x[:, 0]) < near, "SYMY": np.abs(x[:, 1]) < near, "RIM": foot & rim,
        "TOP": (x[:, 2] > LENGTH - near) & (np.hypot(x[:, 0], x[:, 1]) < near), "REST": ~foot,
    }  # fmt: skip
    places = x / MILLI
    nodes = "\n".join(", ".join([str(k + 1), *(f"{c:.12g}" for c in places[k])]) for k in range(len(x)))
    elements = "\n".join(f"{k + 1}, " + ", ".join(map(str, cell + 1)) for k, cell in enumerate(cells))
    flow, hard = 1e-6 * YIELD, 1e-6 * HARDENING
    moduli = f"{1e-6 * E}, {NU}\n*DENSITY\n{1e-12 * DENSITY}"
    direct = ", DIRECT" if o.step else ""
    first = o.step or 1e-9
    # Without its own step the increments are not known before: print each of them.
    every = max(1, round(o.until / o.rows / o.step)) if o.step else 1
    printed = "".join(f"*NODE PRINT, NSET={name}, FREQUENCY={every}\nU\n" for name in ("RIM", "TOP"))
    return (
        f"*NODE, NSET=ALL\n{nodes}\n*ELEMENT, TYPE={o.element}, ELSET=BAR\n{elements}\n"
        + "".join(node_set(name, np.flatnonzero(chosen)) for name, chosen in sets.items())
        + f"*MATERIAL, NAME=COPPER\n*ELASTIC\n{moduli}\n*PLASTIC\n{flow}, 0.\n{flow + 10.0 * hard}, 10.\n"
        + "*SOLID SECTION, ELSET=BAR, MATERIAL=COPPER\n*BOUNDARY\nFOOT, 3, 3\nSYMX, 1, 1\nSYMY, 2, 2\n"
        + f"*INITIAL CONDITIONS, TYPE=VELOCITY\nREST, 3, {-SPEED / MILLI}\n"
        + f"*STEP, NLGEOM, INC=10000000\n*DYNAMIC, EXPLICIT{direct}\n{first:.9g}, {o.until:.9g}\n{printed}*END STEP\n"
    )


def number(word: str) -> float:
    """A printed number; nan for one of a run that has diverged, whose exponent has lost its letter."""
    try:
        return float(word)
    except ValueError:
        return math.nan


def read_printed(path: Path, x: np.ndarray) -> np.ndarray:
    """Rows of time (s), length and foot radius (m) from the printed displacements, (n, 3)."""
    found: dict[float, dict[str, list[float]]] = {}
    name, at = "", 0.0
    for line in path.read_text().splitlines():
        words = line.split()
        if "for set" in line:
            name, at = words[words.index("set") + 1], float(words[-1])
        elif len(words) == 4 and words[0].isdigit():
            k, u = int(words[0]) - 1, np.array([number(word) for word in words[1:]]) * MILLI
            place = x[k] + u
            value = float(np.hypot(place[0], place[1]) if name == "RIM" else place[2])
            found.setdefault(at, {}).setdefault(name, []).append(value)
    rows = [(t, np.mean(v["TOP"]), np.max(v["RIM"])) for t, v in sorted(found.items()) if {"TOP", "RIM"} <= set(v)]
    return np.array(rows, dtype=float).reshape(-1, 3)


def run_calculix(folder: Path, x: np.ndarray, cells: np.ndarray, o: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Run the deck; returns what was printed, and processor seconds.

    Raises:
        Stop: If there is no ccx, it takes too long, or it prints nothing.
    """
    program = shutil.which("ccx")
    if program is None:
        raise Stop("There is no ccx on the PATH: install CalculiX (in Debian the package calculix-ccx).")
    (folder / "bar.inp").write_text(deck(x, cells, o))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            [program, "bar"], cwd=folder, capture_output=True, text=True, timeout=o.limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Stop(f"CalculiX did not end within {o.limit:g} s.", code=1) from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (folder / "bar.log").write_text(done.stdout + done.stderr)
    rows = read_printed(folder / "bar.dat", x) if (folder / "bar.dat").is_file() else np.zeros((0, 3))
    if not len(rows):
        raise Stop(f"CalculiX has printed no displacement; its words are in {folder / 'bar.log'}.", code=1)
    return rows, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# %% [markdown]
# ## This solver


# %%
def run_here(domain: Any, times: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Rows of time, length and foot radius at the times (s), processor seconds, and steps."""
    law = load_law("j2", **COPPER)
    velocity = lambda x: np.vstack([0.0 * x[:2], np.where(x[2] > NEAR * LENGTH, -SPEED, 0.0)])
    solver = ExplicitSolver(domain, law, initial_velocity=velocity)
    for group, component in (("foot", 2), ("symmetry_x", 0), ("symmetry_y", 1)):
        solver.prescribe(group, component)
    X = solver.u.function_space.tabulate_dof_coordinates()
    foot, top = X[:, 2] < NEAR * LENGTH, X[:, 2] > (1.0 - NEAR) * LENGTH
    axis = top & (np.hypot(X[:, 0], X[:, 1]) < NEAR * LENGTH)
    start, rows = time.process_time(), []
    for until in times:
        solver.run(until).finish()
        x = solver.x
        rows.append((until, float(x[axis, 2].mean()), float(np.hypot(x[foot, 0], x[foot, 1]).max())))
    return np.array(rows), time.process_time() - start, solver.steps


# %% [markdown]
# ## Main


# %%
def run(o: argparse.Namespace) -> None:
    """Both codes, table and summary."""
    from meshes.taylor_bar import taylor_bar

    comm, folder = MPI.COMM_SELF, Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    with closing_gmsh(comm):
        model = taylor_bar(LENGTH, 2.0 * RADIUS, o.cells, quarter=True)
        x, cells = mesh_arrays()
        domain = read_mesh(model, comm)
    theirs, their_seconds = run_calculix(folder, x, cells, o)
    sane = theirs[np.isfinite(theirs).all(axis=1) & (np.abs(theirs[:, 1:]) < 2.0 * LENGTH).all(axis=1)]
    whole = len(sane) == len(theirs) and theirs[-1, 0] > 0.999 * o.until
    times = np.linspace(0.0, sane[-1, 0], o.rows + 1)[1:] if len(sane) else np.array([o.until])
    ours, our_seconds, steps = run_here(domain, times)
    sys.stdout.write("| time, us | length, mm | CalculiX | foot radius, mm | CalculiX |\n|---|---|---|---|---|\n")
    rows = []
    for t, length, radius in ours:
        other = [float(np.interp(t, sane[:, 0], sane[:, k])) if len(sane) else math.nan for k in (1, 2)]
        rows.append({"time": t, "length": length, "radius": radius, "their_length": other[0], "their_radius": other[1]})
        values = [1e3 * value for value in (length, other[0], radius, other[1])]
        sys.stdout.write(f"| {1e6 * t:.2f} | {' | '.join(f'{value:.3f}' for value in values)} |\n")
    steps_there = len(theirs) if not o.step else round(theirs[-1, 0] / o.step)
    sys.stdout.write(
        f"{len(cells)} cells, {o.element}: {steps_there} steps and {their_seconds:.1f} s of CalculiX, "
        f"{steps} steps and {our_seconds:.1f} s here.\n"
    )
    if not whole:
        sys.stdout.write(f"CalculiX did not reach the end: its last sane row is at {1e6 * times[-1]:.3g} us.\n")
    summary = {
        "element": o.element, "cells": len(cells), "step": o.step, "whole": bool(whole), "rows": rows,
        "seconds": {"calculix": their_seconds, "here": our_seconds}, "steps": {"calculix": steps_there, "here": steps},
    }  # fmt: skip
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit status."""
    return finish(MPI.COMM_SELF, lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
