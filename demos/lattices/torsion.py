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
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from comparison import costs, errors, imbalance, newton_summary, of_box, of_lattice, values
from load_cases import CASES, LoadCase
from loaded import LoadedBox, LoadedLattice, follow, resume
from mpi4py import MPI
from tqdm import tqdm
from two_scale import bars_at

import fem.laws
from fem.command import Parser, Stop, finish, remove, together, write_text
from fem.io.fields import surface
from fem.mesh import read_mesh
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from meshes.box import KINDS, box
from meshes.session import session
from micro.lattice.data import lattice_of
from micro.lattice.tiling import tile
from surrogates.tann.exact import exact_law

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

ROOT = Path(__file__).resolve().parents[2]
PRETRAINED = ROOT / "surrogates" / "pretrained"
SWEEP = (1, 2, 4, 8, 16, 20)  # cells a side of the study
MESH = ("size", "kind", "grading", "rim", "degree")

# %% [markdown]
# ## Parameters
# Every option is checked on every rank before anything is written; a bad one is one sentence from rank 0.


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Lattice torsion.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    cases = [name for name in CASES if name[:3] == "lcT"]
    p.add_argument("--case", choices=cases, default="lcT2", help="load case")
    p.add_argument("--n", type=int, default=20, help="cells a side of the finite lattice; epsilon = 1/n")
    p.add_argument(
        "--size", type=float, default=3.7, help="size of the finite elements; the edge is 10, the paper's 0.5"
    )
    p.add_argument("--kind", choices=KINDS, default="hexahedra", help="finite elements")
    p.add_argument("--grading", type=float, default=1 / 7, help="height of the top layer of elements over the bottom")
    p.add_argument("--rim", type=float, default=0.4, help="width of the elements at the sides over those inside")
    p.add_argument("--degree", type=int, choices=(1, 2), default=2, help="of the displacement")
    p.add_argument("--law", default=str(PRETRAINED / "tann_cube_1.pt"), help="artifact (.pt) of a lattice cell")
    p.add_argument("--steps", type=int, default=6, help="load steps")
    p.add_argument(
        "--linear", choices=("auto", "direct", "iterative"), default="auto", help="linear solver, both sides"
    )
    p.add_argument("--threads", type=int, help="threads a rank; none: the cores it owns")
    p.add_argument("--study", action="store_true", help=f"both angles, n = {SWEEP}, as figure 17")
    p.add_argument("--output", default="results/lattice_torsion", help="folder for the results")
    p.add_argument("--checkpoint", action="store_true", help="write a checkpoint after every load step")
    p.add_argument("--restart", help="folder of a former run with --checkpoint to go on from, with the same options")
    o = p.parse_args(arguments)
    for name in ("n", "steps", "threads"):
        if getattr(o, name) is not None and getattr(o, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(o, name)}.")
    for name in ("size", "grading", "rim"):
        if not 0.0 < getattr(o, name) < math.inf:
            raise ValueError(f"--{name} must be a positive finite number, got {getattr(o, name)}.")
    if Path(o.output).exists() and not Path(o.output).is_dir():
        raise ValueError(f"--output must name a folder, but {o.output!r} is a file.")
    if o.restart is not None and not (Path(o.restart) / "checkpoint").is_dir():
        raise ValueError(f"--restart names {o.restart!r}, but there is no checkpoint in it.")
    return o


# %% [markdown]
# ## Laws
# The manifest of a learned law names its cell and its bars: from them come the finite lattice and the exact law,
# which is a shipped artifact or made here in a moment.


# %%
class Laws:
    """The law asked for, the exact law of its cell (the same if the law is exact), cell and bars (collective)."""

    def __init__(self, comm: MPI.Comm, o: argparse.Namespace) -> None:
        self.law = together(comm, lambda: fem.laws.load_law(o.law))
        structure = getattr(self.law, "microstructure", None)
        if structure is None or self.law.dimension != 3:
            raise Stop(f"--law must be an artifact of a lattice cell in three dimensions, got {o.law}.")
        self._told = structure.parameters()
        self.cell, self.bar = together(comm, lambda: lattice_of(self._told))
        self.exact = self.law if self.law.manifest.kind == "lattice" else None

    def find_exact(self, comm: MPI.Comm, folder: Path) -> None:
        """Load the exact law if the law is not, and write it to the folder if none is shipped."""
        if self.exact is None:
            made = together(comm, lambda: exact_law(self._told, PRETRAINED, folder / "exact_law.pt"), root=True)
            path = comm.bcast(made)
            self.exact = together(comm, lambda: fem.laws.load_law(path))


def make_domain(comm: MPI.Comm, case: LoadCase, o: argparse.Namespace, size: float) -> Any:
    """Mesh the box on rank 0 and distribute it (collective)."""
    if comm.rank:
        return read_mesh(None, comm)
    with session():
        return read_mesh(box(case.box, size, kind=o.kind, grading=o.grading, rim=o.rim), comm)


def make_lattice(comm: MPI.Comm, laws: Laws, case: LoadCase, n: int) -> Any:
    """The finite lattice of n cells a side, on rank 0; None elsewhere."""
    counts = [round(n * length / case.box[0]) for length in case.box]
    return tile(laws.cell, counts, case.box[0] / n) if comm.rank == 0 else None


# %% [markdown]
# ## Solve
# Clocks tick in the load steps alone, and a small run of each kind goes before, so that no time is counted that is
# spent on compiling and loading.


# %%
def warm_up(comm: MPI.Comm, o: argparse.Namespace, laws: Laws, case: LoadCase) -> None:
    """Run everything once, small (collective)."""
    domain = make_domain(comm, case, o, 0.5 * case.box[0])
    solvers = dict.fromkeys((o.linear, "iterative"))  # an order that all ranks share
    for law in (laws.exact, laws.law):
        for linear in solvers:
            follow(LoadedBox(domain, law, case, degree=o.degree, linear=linear), case.times(1))
    lattice = make_lattice(comm, laws, case, 3)
    for linear in solvers:
        follow(LoadedLattice(comm, lattice, laws.bar, case, linear=linear), case.times(1))


def lead(o: argparse.Namespace, body: Any, name: str, label: str, **options: Any) -> None:
    """Follow the load case, from a checkpoint if there is one (collective)."""
    if o.restart is not None:
        resume(body, Path(o.restart) / "checkpoint" / f"{name}.h5")
    path = Path(o.output) / "checkpoint" / f"{name}.h5" if o.checkpoint else None
    follow(body, body.case.times(o.steps), label=label, checkpoint=path, progress=True, **options)


def solve(comm: MPI.Comm, o: argparse.Namespace, laws: Laws, case: LoadCase, ns: Sequence[int], folder: Path) -> Any:
    """One load case: boxes once, then every lattice; a report for each n, and on rank 0 what the figures want."""
    domain = make_domain(comm, case, o, o.size)
    cells = domain.mesh.topology.index_map(3).size_global
    boxes = {}
    for name in ("exact", "law") if laws.exact is not laws.law else ("law",):
        body = LoadedBox(domain, getattr(laws, name), case, degree=o.degree, linear=o.linear, output=folder)
        lead(o, body, f"{case.name}-{name}", f"{case.name}, {'exact ' * (name == 'exact')}law")
        boxes[name] = body
    boxes.setdefault("exact", boxes["law"])
    with boxes["law"].solver.writer(folder) as out:  # it writes the end of the path
        skin = surface(out.functions)
    reports, pictures = [], []
    for n in ns:
        lattice = make_lattice(comm, laws, case, n)
        body = LoadedLattice(comm, lattice, laws.bar, case, linear=o.linear, output=folder)
        lead(o, body, f"{case.name}-lattice-{n}", f"{case.name}, lattice of {n}")
        size = case.box[0] / n
        outcome = {name: of_box(b, laws.cell, lattice, size, body.node) for name, b in boxes.items()}
        outcome["lattice"] = of_lattice(body)
        report = {"case": case.name, "n": n, "cells": cells, **costs(boxes["law"], body)}
        if comm.rank == 0:
            for suffix, value, reference in (
                ("", "law", "lattice"), ("_exact", "exact", "lattice"), ("_learned", "law", "exact"),
            ):  # fmt: skip
                found = errors(outcome[value], outcome[reference], case, lattice, body.node)
                report |= {f"{key}{suffix}": error for key, error in found.items()}
            report |= newton_summary(boxes["law"].rows)
            report["lattice_newton_iterations_max"] = newton_summary(body.rows)["newton_iterations_max"]
            report["values"] = {name: values(one) for name, one in outcome.items()}
            symmetric = len(np.unique(laws.cell.master)) == 1  # a perturbed cell has no mirror
            tried = {run: superposition(one.rows, case) if symmetric else None for run, one in outcome.items()}
            if o.kind == "tetrahedra":  # which break the mirror, too
                tried = {"lattice": tried["lattice"]}
            report["superposition"] = tried
            report["imbalance"] = {name: imbalance(one.rows) for name, one in outcome.items()}
            there = bars_at(lattice.bars, body.node)
            pictures.append({"bars": {name: one.stress[there] for name, one in outcome.items()}, "skin": skin})
        reports.append(comm.bcast(report))
    return reports, pictures


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


def checks(report: dict[str, Any], laws: Laws, case: LoadCase) -> dict[str, dict[str, Any]]:
    """Hold a report to independent numbers; every entry says what was found, what was asked and whether it held."""
    out: dict[str, dict[str, Any]] = {}

    def hold(name: str, found: float, high: float) -> None:
        out[name] = {"found": found, "high": high, "holds": bool(found <= high)}

    for run, found in report["superposition"].items():
        if found is not None:
            hold(f"superposition_{run}", found, 1e-8)
    for run, found in report["imbalance"].items():
        hold(f"work_{run}", found, 1e-8)
    for name, high in (("displacement", 0.005), ("energy", 0.005), ("dissipation", 0.02)):
        hold(f"{name}_learned", report[f"{name}_error_learned"], high)
    return out


# %% [markdown]
# ## Figures
# `deformed.png`: the turned column, and the stress of every bar that ends at the control point. With `--study`,
# `convergence.png`: displacement of the control point, energy and dissipation against epsilon (17).

# %%
INK, LAW = "#023047", "#fb8500"


def draw_deformed(pictures: list[tuple[LoadCase, int, dict[str, Any]]], path: Path) -> None:
    """The deformed column and the bar stresses at the control point, one column a case."""
    figure = plt.figure(figsize=(5.5 * len(pictures), 10.0), layout="constrained")
    for i, (case, n, picture) in enumerate(pictures):
        axis = figure.add_subplot(2, len(pictures), i + 1, projection="3d", proj_type="ortho")
        skin = picture["skin"]
        x, u = skin["x"] + skin["displacement"], skin["displacement"][..., 2].mean(axis=1)
        colours = plt.get_cmap("viridis")((u - u.min()) / max(np.ptp(u), 1e-300))
        axis.add_collection3d(Poly3DCollection(x, facecolors=colours, edgecolors="0.2", linewidths=0.15))
        low, high = x.reshape(-1, 3).min(axis=0), x.reshape(-1, 3).max(axis=0)
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(0.0, max(high[2], case.box[2])))
        axis.set_box_aspect(np.array([*(high - low)[:2], max(high[2], case.box[2])]))
        axis.set_title(f"{case.name}: {case.path[-1]:g} degrees")
        axis.view_init(20, -60)
        bars = picture["bars"]
        below = figure.add_subplot(2, len(pictures), len(pictures) + i + 1)
        order = np.argsort(bars["lattice"])
        ticks = np.arange(1, len(order) + 1)
        below.bar(ticks - 0.2, bars["lattice"][order], 0.4, color=INK, label=f"lattice, n = {n}")
        below.bar(ticks + 0.2, bars["law"][order], 0.4, color=LAW, label="law, decoded")
        below.axhline(0.0, color="0.3", linewidth=0.8)
        below.set(xlabel="bar at the control point", ylabel="stress", xticks=ticks)
        below.legend(frameon=False)
        below.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_convergence(reports: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Displacement, energy and dissipation against epsilon, one column a case."""
    figure, axes = plt.subplots(
        3, len(reports), figsize=(5.0 * len(reports), 9.0), squeeze=False, sharex=True, layout="constrained"
    )
    for column, (name, rows) in zip(axes.T, reports.items(), strict=True):
        epsilon = [1.0 / row["n"] for row in rows]
        component = CASES[name].component
        for axis, key, label in zip(
            column, ("displacement", "psi", "dissipation"), ("displacement of the control point", "psi", "dissipation")
        ):
            for run, style in (("lattice", {"marker": "o", "color": INK}), ("law", {"marker": "s", "color": LAW})):
                ends = [row["values"][run][key] for row in rows]
                y = [end[component] for end in ends] if key == "displacement" else ends
                axis.plot(epsilon, y, markerfacecolor="none", label=run, **style)
            axis.set(xscale="log", ylabel=label)
            axis.spines[["top", "right"]].set_visible(False)
        column[0].set_title(name)
        column[0].legend(frameon=False)
        column[-1].set_xticks(epsilon, [f"1/{row['n']}" for row in rows], rotation=45)
        column[-1].minorticks_off()
        column[-1].set_xlabel("epsilon = 1/n")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    part = path.with_name(f".{path.name}.part.png")
    figure.savefig(part, dpi=150)
    plt.close(figure)
    part.replace(path)


# %% [markdown]
# ## Main


# %%
def prepare(folder: Path, o: argparse.Namespace) -> None:
    """Make the folder, clear away what a former run left, hold a restart to the options it began with (rank 0)."""
    told = {key: getattr(o, key) for key in (*MESH, "steps")} | {"law": Path(o.law).name}
    if o.restart is not None:
        begun = json.loads((Path(o.restart) / "checkpoint" / "options.json").read_text())
        wrong = [key for key, value in told.items() if begun.get(key) != value]
        if wrong:
            raise ValueError(f"--restart goes on with --{wrong[0]} {begun.get(wrong[0])}, but got {told[wrong[0]]}.")
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("summary.json", "*.png", "fields*", "failure-*", "exact_law.*"):
        for path in folder.glob(pattern):
            remove(path)
    if o.checkpoint:
        if o.restart is None or Path(o.restart).resolve() != folder.resolve():
            remove(folder / "checkpoint")
        (folder / "checkpoint").mkdir(exist_ok=True)
        write_text(folder / "checkpoint" / "options.json", json.dumps(told))


def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Laws, solves, comparison, figures, checks (collective)."""
    start, plan, folder = time.perf_counter(), plan_threads(comm, o.threads), Path(o.output)
    laws = Laws(comm, o)
    together(comm, lambda: prepare(folder, o), root=True)
    laws.find_exact(comm, folder)
    if comm.rank == 0:
        tqdm.write(f"{laws.law.name}, {o.case}, n = {o.n}, {o.kind} of {o.size:g}, {plan}", file=sys.stderr)
    names = [name for name in CASES if name[:3] == o.case[:3]] if o.study else [o.case]
    ns = sorted({*SWEEP, o.n}) if o.study else [o.n]
    warm_up(comm, o, laws, CASES[o.case])
    reports: dict[str, list[dict[str, Any]]] = {}
    shown = []
    for name in sorted(names, key=lambda name: name == o.case):  # the case asked for last: its fields stay
        reports[name], pictures = solve(comm, o, laws, CASES[name], ns, folder)
        if comm.rank == 0:
            shown.append((CASES[name], o.n, pictures[ns.index(o.n)]))
    report = reports[o.case][ns.index(o.n)]
    held = {f"{name}_{row['n']}": checks(row, laws, CASES[name]) for name, rows in reports.items() for row in rows}
    summary = {
        "law": laws.law.name, "law_source": o.law, "ranks": comm.size, **report,
        **{key: getattr(o, key) for key in MESH}, "load_steps": o.steps,
        "wall_seconds": time.perf_counter() - start, "checks": held[f"{o.case}_{o.n}"],
    }  # fmt: skip
    if o.study:
        summary["study"] = [row for name in sorted(reports) for row in reports[name]]

    def write() -> None:
        draw_deformed(sorted(shown, key=lambda one: one[0].name), folder / "deformed.png")
        if o.study:
            draw_convergence({name: reports[name] for name in sorted(reports)}, folder / "convergence.png")
        write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        sys.stdout.write(sentence(summary))

    together(comm, write, root=True)
    failed = [f"{run} {name}: {e}" for run, found in held.items() for name, e in found.items() if not e["holds"]]
    if failed:
        raise Stop(f"The run does not pass its check of {'; '.join(failed)}.", code=1)


def sentence(s: dict[str, Any]) -> str:
    """The summary in a few lines."""
    keys = ("displacement", "energy", "dissipation", "bar_stress")
    lines = [f"{s['case']}, n = {s['n']}, {s['cells']} cells; errors in %:"]
    for suffix, label in (
        ("", "law against lattice"), ("_exact", "exact law against lattice"), ("_learned", "law against exact law"),
    ):  # fmt: skip
        lines.append(f"  {label}: " + ", ".join(f"{key} {100 * s[f'{key}_error{suffix}']:.3g}" for key in keys))
    lines.append(
        f"  lattice over box: calls {s['cost_ratio_calls']:.1f}, seconds {s['cost_ratio_seconds']:.1f}; "
        f"Newton iterations at most {s['newton_iterations_max']}; {s['wall_seconds']:.0f} s."
    )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the demo (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
