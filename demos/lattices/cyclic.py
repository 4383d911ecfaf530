# %% [markdown]
# # Lattice turned back and forth: a learned law with a memory, against the whole lattice
#
# **Why.** The column of `lattice_torsion.py` is turned to 30, -50 and 60 degrees and let go. Its bars yield, unload,
# and yield the other way; what is left at the end is the memory of the whole path. At every quadrature point a law
# learned from one periodic cell has to keep it in its internal variables (FEM x TANN).
#
# **Equations.** Small strain. The column: find u_0 with
#
#     int Sigma(E(u_0), Z) : E(v) dx = 0,   E(u) = sym grad u,   Sigma = dPsi/dE,   Z internal variables of the law;
#
# the lattice: sum over the bars of area * length * sigma(eps) deps = 0. From the column the lattice is told back by the
# law's decoder: u = u_0 + epsilon u_1 at the nodes with epsilon = 1/n, stress = decoded force / cross-section in bars.
#
# **Case.** lcH: bottom fixed; top (u_x, u_y) = (R(omega) - I)(x - centre), u_z free, omega = 10, 20, 30, 20, .., -50,
# -40, .., 60 degrees; then the top is free: the forces that held it fade to zero within the last step. E = 1, H = 0.1,
# k = 1/3.
#
# It is solved three times: the lattice; the column with the exact law of the cell; the column with the law asked for.
# So what the law has to answer for (`_learned`: law against exact law) stands apart from what homogenisation and mesh
# err (`_exact`: exact law against lattice). Errors are largest differences over largest values along the path.
#
# **Checks**, each against a number from outside:
#
# 1. until something yields, psi depends on the angle alone, and a regular column has been there before: steps to 30
#    degrees and back to 0 store the same on both ways, and nothing at 0 (1e-9);
# 2. psi + dissipation of every run lies between the two bounds of the work done by the supports, step by step, and
#    dissipation never falls;
# 3. the released column pulls at nothing: what it still stores is less than what it gave back;
# 4. law against exact law: displacement and energy within 0.5 %, dissipation within 2 %.
#
# References: Masi and Stefanou, CMAME 398 (2022), sections V.D, V.E, figures 18 and 19,
# doi:10.1016/j.cma.2022.115190.

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
    p = Parser(description="Lattice under cyclic torsion.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--case", choices=("lcH",), default="lcH", help="load case")
    p.add_argument("--n", type=int, default=16, help="cells a side of the finite lattice; epsilon = 1/n")
    p.add_argument(
        "--size", type=float, default=3.7, help="size of the finite elements; the edge is 10, the paper's 0.5"
    )
    p.add_argument("--kind", choices=KINDS, default="hexahedra", help="finite elements")
    p.add_argument("--grading", type=float, default=1 / 7, help="height of the top layer of elements over the bottom")
    p.add_argument("--rim", type=float, default=0.4, help="width of the elements at the sides over those inside")
    p.add_argument("--degree", type=int, choices=(1, 2), default=2, help="of the displacement")
    p.add_argument("--law", default=str(PRETRAINED / "tann_cube_1.pt"), help="artifact (.pt) of a lattice cell")
    p.add_argument("--steps", type=int, default=1, help="load steps for every 10 degrees")
    p.add_argument(
        "--linear", choices=("auto", "direct", "iterative"), default="auto", help="linear solver, both sides"
    )
    p.add_argument("--threads", type=int, help="threads a rank; none: the cores it owns")
    p.add_argument("--panels", default="3,11,22,23", help="steps of 10 degrees whose fields are drawn; 23: released")
    p.add_argument("--variable", default="Z_1", help="field of the law that is drawn")
    p.add_argument("--study", action="store_true", help=f"n = {SWEEP} in one figure")
    p.add_argument("--output", default="results/lattice_cyclic", help="folder for the results")
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
    try:
        o.panels = sorted({int(part) for part in o.panels.split(",")})
    except ValueError:
        o.panels = []
    if not o.panels or not 1 <= o.panels[0] <= o.panels[-1] <= CASES["lcH"].end:
        raise ValueError(f"--panels must be whole numbers from 1 to {CASES['lcH'].end:.0f}, separated by commas.")
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
    """Columns once, then every lattice; a report for each n, and on rank 0 what the figures want."""
    domain = make_domain(comm, case, o, o.size)
    cells = domain.mesh.topology.index_map(3).size_global
    boxes, panels = {}, {}
    if laws.exact is not laws.law:
        boxes["exact"] = LoadedBox(domain, laws.exact, case, degree=o.degree, linear=o.linear, output=folder)
        lead(o, boxes["exact"], "exact", "exact law")
    law = boxes["law"] = LoadedBox(domain, laws.law, case, degree=o.degree, linear=o.linear, output=folder)
    with law.solver.writer(folder) as out:

        def write(body: LoadedBox) -> None:
            out.update()
            if body.solver.time in o.panels:
                panels[int(body.solver.time)] = surface(out.functions)

        lead(o, law, "law", "law", each=write)
        if not law.solver.history:  # nothing was left to do after a restart
            write(law)
    boxes.setdefault("exact", law)
    reports, histories = [], {}
    for n in ns:
        lattice = make_lattice(comm, laws, case, n)
        body = LoadedLattice(comm, lattice, laws.bar, case, linear=o.linear, output=folder)
        lead(o, body, f"lattice-{n}", f"lattice of {n}")
        size = case.box[0] / n
        outcome = {name: of_box(b, laws.cell, lattice, size, body.node) for name, b in boxes.items()}
        outcome["lattice"] = of_lattice(body)
        report = {"case": case.name, "n": n, "cells": cells, **costs(law, body)}
        if comm.rank == 0:
            for suffix, value, reference in (
                ("", "law", "lattice"), ("_exact", "exact", "lattice"), ("_learned", "law", "exact"),
            ):  # fmt: skip
                found = errors(outcome[value], outcome[reference], case, lattice, body.node)
                report |= {f"{key}{suffix}": error for key, error in found.items()}
            report |= newton_summary(law.rows)
            report["lattice_newton_iterations_max"] = newton_summary(body.rows)["newton_iterations_max"]
            report["values"] = {name: values(one) for name, one in outcome.items()}
            report["loaded"] = {name: values(one, -2) for name, one in outcome.items()}
            report["imbalance"] = {name: imbalance(one.rows) for name, one in outcome.items()}
            report["return"] = {name: elastic_return(one.rows, case) for name, one in outcome.items()}
            falls = {name: float(-np.diff(one.history("dissipation")).min()) for name, one in outcome.items()}
            report["largest_fall_of_dissipation"] = falls
            histories[n] = {f"{name}_rows": one.rows for name, one in outcome.items()}
        reports.append(comm.bcast(report))
    return reports, histories, panels


# %% [markdown]
# ## Check


# %%
def elastic_return(rows: list[dict[str, Any]], case: LoadCase) -> float | None:
    """How much psi differs at one angle on the ways to 30 degrees and back, over psi there; None if bars yield."""
    early = [row for row in rows if row["time"] <= 6.0]
    if not early or early[-1]["dissipation"] > 0.0:
        return None
    top = max(row["psi"] for row in early)
    by_time = {row["time"]: row["psi"] for row in early} | {0.0: 0.0}
    return max(abs(by_time[t] - by_time[6.0 - t]) for t in by_time if 6.0 - t in by_time) / top


def checks(report: dict[str, Any], laws: Laws, case: LoadCase) -> dict[str, dict[str, Any]]:
    """Hold a report to independent numbers; every entry says what was found, what was asked and whether it held."""
    out: dict[str, dict[str, Any]] = {}

    def hold(name: str, found: float, high: float) -> None:
        out[name] = {"found": found, "high": high, "holds": bool(found <= high)}

    for run in report["imbalance"]:
        if report["return"][run] is not None:
            hold(f"return_{run}", report["return"][run], 1e-9)
        hold(f"work_{run}", report["imbalance"][run], 1e-8)
        hold(f"second_law_{run}", report["largest_fall_of_dissipation"][run], 0.0)
        hold(f"release_{run}", report["values"][run]["psi"], 0.5 * report["loaded"][run]["psi"])
    for name, high in (("displacement", 0.005), ("energy", 0.005), ("dissipation", 0.02)):
        hold(f"{name}_learned", report[f"{name}_error_learned"], high)
    return out


# %% [markdown]
# ## Figures
# `history.png`: displacement of the control point, energy and dissipation against the steps (the paper's figure 18),
# and `fields.png`: the column at several steps, coloured by its vertical displacement and an internal variable (19).

# %%
INK, LAW = "#023047", "#fb8500"


def draw_history(histories: dict[int, dict[str, Any]], case: LoadCase, path: Path) -> None:
    """Angle, displacement of the control point, energy and dissipation against time, the law and every lattice."""
    figure, axes = plt.subplots(
        4, 1, figsize=(8.0, 10.0), sharex=True, layout="constrained", height_ratios=(1, 2, 2, 2)
    )
    axes[0].plot(np.arange(len(case.path)), case.path, "o-", color="0.4", markersize=3)
    axes[0].set(ylabel="angle")
    shades = plt.get_cmap("Blues")(np.linspace(0.4, 1.0, len(histories)))
    for shade, (n, history) in zip(shades, sorted(histories.items()), strict=True):
        curves(axes[1:], history["lattice_rows"], case, color=shade, label=f"lattice, n = {n}")
    last = histories[max(histories)]
    curves(axes[1:], last["law_rows"], case, color=LAW, marker="s", markerfacecolor="none", linestyle="--", label="law")
    for axis, label in zip(axes[1:], ("displacement of the control point", "psi", "dissipation")):
        axis.set(ylabel=label)
    axes[1].legend(frameon=False)
    axes[-1].set(xlabel="step of 10 degrees, the last one released")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(case.loaded, color="0.8", linewidth=0.8)
    _save(figure, path)


def curves(axes: Any, rows: list[dict[str, Any]], case: LoadCase, **style: Any) -> None:
    """The three curves of one run."""
    t = [0.0, *(row["time"] for row in rows)]
    for axis, key in zip(axes, ("displacement", "psi", "dissipation")):
        y = [row[key][case.component] if key == "displacement" else row[key] for row in rows]
        axis.plot(t, [0.0, *y], **style)


def draw_fields(panels: dict[int, dict[str, np.ndarray]], case: LoadCase, variable: str, path: Path) -> None:
    """The deformed column at the panels' steps, coloured by u_z (above) and by the internal variable (below)."""
    columns = sorted(panels)
    figure = plt.figure(figsize=(2.6 * len(columns) + 1.0, 9.0), layout="constrained")
    high = max(float((panels[k]["x"] + panels[k]["displacement"])[..., 2].max()) for k in columns)
    for row, name in enumerate(("u_z", variable)):
        fields = {k: panels[k]["displacement"][..., 2] if name == "u_z" else panels[k][name] for k in columns}
        top = max(max(float(np.abs(f).max()) for f in fields.values()), 1e-300)
        norm = matplotlib.colors.Normalize(-top, top)
        axes = []
        for i, k in enumerate(columns):
            axis = figure.add_subplot(2, len(columns), row * len(columns) + i + 1, projection="3d", proj_type="ortho")
            axes.append(axis)
            x = panels[k]["x"] + panels[k]["displacement"]
            colours = plt.get_cmap("RdBu")(norm(fields[k].mean(axis=1)))
            axis.add_collection3d(
                Poly3DCollection(x, facecolors=colours, edgecolors="0.3", linewidths=0.1, clip_on=False)
            )
            axis.set(xlim=(0.0, case.box[0]), ylim=(0.0, case.box[1]), zlim=(0.0, high))
            axis.set_box_aspect((*case.box[:2], high), zoom=1.5)
            axis.set_axis_off()
            axis.view_init(15, -60)
            angle = "released" if k > case.loaded else f"{case.path[k]:g} degrees"
            axis.set_title(f"step {k}: {angle}", fontsize=10, y=-0.3)
        colours = matplotlib.cm.ScalarMappable(norm, "RdBu")
        figure.colorbar(colours, ax=axes, shrink=0.7, label=name)
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
    for pattern in ("summary.json", "history.json", "*.png", "fields*", "failure-*", "exact_law.*"):
        for path in folder.glob(pattern):
            remove(path)
    if o.checkpoint:
        if o.restart is None or Path(o.restart).resolve() != folder.resolve():
            remove(folder / "checkpoint")
        (folder / "checkpoint").mkdir(exist_ok=True)
        write_text(folder / "checkpoint" / "options.json", json.dumps(told))


def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Laws, solves, comparison, figures, checks (collective)."""
    start, plan, folder, case = time.perf_counter(), plan_threads(comm, o.threads), Path(o.output), CASES[o.case]
    laws = Laws(comm, o)
    names = fem.laws.drawable(laws.law)
    if o.variable not in names:
        raise Stop(f"--variable must be one of {', '.join(names)}, got {o.variable}.")
    together(comm, lambda: prepare(folder, o), root=True)
    laws.find_exact(comm, folder)
    if comm.rank == 0:
        tqdm.write(f"{laws.law.name}, {o.case}, n = {o.n}, {o.kind} of {o.size:g}, {plan}", file=sys.stderr)
    ns = sorted({*SWEEP, o.n}) if o.study else [o.n]
    warm_up(comm, o, laws, case)
    reports, histories, panels = solve(comm, o, laws, case, ns, folder)
    report = reports[ns.index(o.n)]
    held = {str(row["n"]): checks(row, laws, case) for row in reports}
    summary = {
        "law": laws.law.name, "law_source": o.law, "ranks": comm.size, **report,
        **{key: getattr(o, key) for key in MESH}, "load_steps": len(case.times(o.steps)),
        "wall_seconds": time.perf_counter() - start, "checks": held[str(o.n)],
    }  # fmt: skip
    if o.study:
        summary["study"] = reports

    def write() -> None:
        draw_history(histories, case, folder / "history.png")
        if panels:
            draw_fields(panels, case, o.variable, folder / "fields.png")
        rows = {key: value for key, value in histories[o.n].items() if key.endswith("_rows")}
        write_text(folder / "history.json", json.dumps(rows, allow_nan=False) + "\n")
        write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        sys.stdout.write(sentence(summary))

    together(comm, write, root=True)
    failed = [f"n = {n} {name}: {e}" for n, found in held.items() for name, e in found.items() if not e["holds"]]
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
