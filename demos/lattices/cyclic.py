# %% [markdown]
# # Lattice turned back and forth: a learned law with a memory, against the whole lattice
#
# **Why.** The column of `torsion.py` is turned to 30, -50 and 60 degrees and let go. Its bars yield, unload,
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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from comparison import Outcome, values
from figures import LAW, save
from load_cases import CASES, LoadCase
from matplotlib import pyplot as plt
from models import Laws
from mpi4py import MPI
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from options import read
from study import SWEEP, Checks, Found, Study, hold, run

import fem.laws
from fem.command import Parser, Stop, finish, write_text
from fem.parallel import abort_when_uncaught

# %% [markdown]
# ## Parameters
# Every option is checked on every rank before anything is written; a bad one is one sentence from rank 0. What the
# studies share stands beside this file: `options`, `models`, `study`, `comparison`, `figures`.


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    defaults = {"case": "lcH", "n": 16, "size": 3.7, "kind": "hexahedra", "grading": 1 / 7, "rim": 0.4, "degree": 2}
    defaults |= {"steps": 1, "output": "results/lattice_cyclic"}
    title = "Lattice under cyclic torsion"
    o = read(arguments, title, ("lcH",), defaults, study=f"n = {SWEEP} in one figure", extend=extend)
    try:
        o.panels = sorted({int(part) for part in o.panels.split(",")})
    except ValueError:
        o.panels = []
    if not o.panels or not 1 <= o.panels[0] <= o.panels[-1] <= CASES["lcH"].end:
        raise ValueError(f"--panels must be whole numbers from 1 to {CASES['lcH'].end:.0f}, separated by commas.")
    return o


def extend(p: Parser) -> None:
    """Options of this study alone."""
    p.add_argument("--panels", default="3,11,22,23", help="steps of 10 degrees whose fields are drawn; 23: released")
    p.add_argument("--variable", default="Z_1", help="field of the law that is drawn")


def admit(laws: Laws, o: argparse.Namespace) -> None:
    """Stop if the law has no field of the name of --variable."""
    names = fem.laws.drawable(laws.law)
    if o.variable not in names:
        raise Stop(f"--variable must be one of {', '.join(names)}, got {o.variable}.")


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


def report(outcome: dict[str, Outcome], case: LoadCase, laws: Laws, o: argparse.Namespace) -> dict[str, Any]:
    """What the path tells besides its end: the state before the release, the elastic return, falls of dissipation."""
    return {
        "loaded": {name: values(one, -2) for name, one in outcome.items()},
        "return": {name: elastic_return(one.rows, case) for name, one in outcome.items()},
        "largest_fall_of_dissipation": {
            name: float(-np.diff(one.history("dissipation")).min()) for name, one in outcome.items()
        },
    }


def checks(report: dict[str, Any], laws: Laws, case: LoadCase) -> Checks:
    """Hold a report to the elastic return, the second law and the release."""
    out: Checks = {}
    for name in report["imbalance"]:
        if report["return"][name] is not None:
            out |= hold(f"return_{name}", report["return"][name], 1e-9)
        out |= hold(f"second_law_{name}", report["largest_fall_of_dissipation"][name], 0.0)
        out |= hold(f"release_{name}", report["values"][name]["psi"], 0.5 * report["loaded"][name]["psi"])
    return out


# %% [markdown]
# ## Figures
# `history.png`: displacement of the control point, energy and dissipation against the steps (the paper's figure 18),
# and `fields.png`: the column at several steps, coloured by its vertical displacement and an internal variable (19).


# %%
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
    save(figure, path)


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
    save(figure, path)


def panels(case: LoadCase, o: argparse.Namespace) -> Sequence[float]:
    """Pseudo-times whose fields are drawn."""
    return [float(step) for step in o.panels]


def draw(folder: Path, o: argparse.Namespace, found: dict[str, Found], at: int) -> None:
    """Write the figures and the rows of every run."""
    (one,) = found.values()
    rows = [{f"{name}_rows": run.rows for name, run in outcome.items()} for outcome in one.outcomes]
    histories = {report["n"]: row for report, row in zip(one.reports, rows, strict=True)}
    draw_history(histories, one.case, folder / "history.png")
    if one.panels:
        columns = {int(time): skin for time, skin in one.panels.items()}
        draw_fields(columns, one.case, o.variable, folder / "fields.png")
    write_text(folder / "history.json", json.dumps(rows[at], allow_nan=False) + "\n")


# % [markdown]
# ## Main


# %
def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the study (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments), Study(checks, draw, report, admit, panels, SWEEP)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
