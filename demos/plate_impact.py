# %% [markdown]
# # Plate impact: a rigid punch hits a magnesium plate
#
# **Why.** A rigid cylinder of diameter D, so heavy that nothing slows it down, hits the middle of a plate of thickness
# H at speed V. An elastic wave and a plastic front run through the plate and return from its free face; then the plate
# guides the waves outwards, while the punch goes on into it. Thin plates bend away from the punch, thick ones flow.
#
# **Equations.** Total Lagrangian, on the reference plate, with P = P(history of F) from the law:
#
#     rho u_tt = Div P,   P N = 0 on the faces,   u_z = 0 on the rim (simply supported),   u = u_t = 0 at t = 0,
#     gap g(x, t) >= 0 to the punch, pressure p >= 0, p g = 0, friction |tau| <= mu p against sliding.
#
# The punch is a signed distance: a flat face, an edge rounded by a radius, a side; nodes touch all three. Hexahedra of
# one point and hourglass control, lumped mass, central differences, contact by impulses.
#
# **Fields.** von Mises stress of the Cauchy stress; the paper's e_d = |F^T F/(det F)^2 - I|/2; e_v = det F - 1.
#
# **Case.** D = 2 mm, V = 200 m/s, H = 1 mm, a plate of 20 mm in diameter. The paper leaves open the size of the plate,
# the radius of the edge, and the friction; here the edge is rounded by 0.1 mm and frictionless. Panels at the paper's
# time, 1 us, before and after. `--study velocities` and `--study thicknesses` run one case after the other and draw the
# stress at the end of each (the paper's figure 7).
#
# **Checks**, each against a number from outside the solver and true for every law:
#
# 1. under the flat face the strain is uniaxial until release waves come in: at 0.8 H/c the elastic front has run
#    through the plate with the confined speed c = sqrt((K + 4G/3)/rho), to 10 % and a cell;
# 2. at the end the front in the plane is no farther from the punch than c t (5 % and two cells there allowed);
# 3. the mass is rho times the closed-form volume, and impulse of punch + impulse of support = momentum of the plate, to
#    1e-9;
# 4. the work of the punch is all found in energies and losses, to 1 %;
# 5. no node is inside the punch.
#
# References: Liu, Kovachki, Li, Azizzadenesheli, Anandkumar, Stuart, Bhattacharya, JMPS 158 (2022), section 4.2,
# doi:10.1016/j.jmps.2021.104668.

# %%
from __future__ import annotations

import argparse
import copy
import functools
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from tqdm import tqdm

from fem import ExplicitSolver, FreeBody, RigidCylinder, SolverError, load_law, read_mesh, study
from fem.command import Parser, name_value_pairs, positive_numbers, together
from fem.io.files import replacing
from fem.io.point_histories import PointHistories
from fem.laws import FINITE, NAMED
from fem.mesh import closing_gmsh
from fem.novelty import NoveltyMonitor
from fem.parallel import abort_when_uncaught
from fem.section import ROWS, Section, colour_bar, colours, draw_cells, extremes, mirrored, paint
from fem.threads import plan_threads
from micro.data.cli import check_count, check_folder

STUDIES = {
    "velocities": ("velocity", [50.0, 100.0, 200.0, 300.0]),
    "thicknesses": ("thickness", [2.5e-4, 5e-4, 1e-3, 2e-3]),
}
MILLI, MICRO, MEGA = 1e-3, 1e-6, 1e6
LEAST_LAYERS = 4  # through a thin plate, so that it can bend
ENDED = ("summary.json", "history.csv", "section.png", "study.png", "paths.npz", "fields*", "failure-*")

# %% [markdown]
# ## Parameters
# SI units. Every option is checked on every rank before anything is written; a bad one is one sentence from rank 0
# and the exit code 2 everywhere.


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(
        description="Impact of a rigid punch on a plate.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    known = ", ".join((*NAMED, *FINITE))
    p.add_argument("--law", default="magnesium-recurrent", help=f"law, artifact (.pt), module:callable, {known}")
    p.add_argument("--law-options", default="", help="options of --law, name=value,name=value, as grains=16")
    p.add_argument("--velocity", type=float, default=200.0, help="speed of the punch, m/s")
    p.add_argument("--thickness", type=float, default=1e-3, help="of the plate, m")
    p.add_argument("--width", type=float, default=20e-3, help="diameter or side of the plate, m")
    p.add_argument("--shape", choices=("circular", "square"), default="circular", help="of the plate")
    p.add_argument("--punch", type=float, default=2e-3, help="diameter of the punch, m")
    p.add_argument("--edge", type=float, default=1e-4, help="radius of its rounded edge, m")
    p.add_argument("--friction", type=float, default=0.0, help="coefficient of friction on the punch")
    p.add_argument("--mass", type=float, help="mass of the punch, kg; none: infinite, it keeps its speed")
    p.add_argument("--cells", type=int, default=24, help="cells across 1.2 diameters of the punch, even, at least 4")
    p.add_argument("--growth", type=float, default=1.22, help="largest ratio of neighbouring cells outside of these")
    p.add_argument("--until", type=float, default=3e-6, help="end time, s; of each case of a study: 1e-6")
    p.add_argument("--panels", default="0.3e-6,1e-6", help="times of the figure's panels before the end, s")
    p.add_argument("--frames", type=int, default=20, help="frames of the ParaView series")
    p.add_argument("--every", type=int, default=5, help="steps between rows of the history")
    p.add_argument("--output", default="results/plate_impact", help="folder for the results")
    p.add_argument("--integration", choices=("one-point", "full"), default="one-point", help="quadrature of a cell")
    p.add_argument("--safety", type=float, default=0.9, help="step over the largest stable one, at most 1")
    p.add_argument("--quarter", action="store_true", help="a quarter of the plate with two symmetry planes")
    p.add_argument("--density", type=float, help="density, kg/m^3; none: the law's")
    p.add_argument("--record", type=int, default=0, help="points whose F is recorded into paths.npz, with the history")
    p.add_argument("--study", choices=tuple(STUDIES), help="run several cases and draw them side by side")
    p.add_argument("--values", default="", help="velocities (m/s) or thicknesses (m) of the study; none: four")
    given = list(sys.argv[1:] if arguments is None else arguments)
    o = p.parse_args(given)
    if o.study and not any(part.startswith("--until") for part in given):
        o.until = 1e-6
    for name in ("velocity", "thickness", "width", "punch", "until", "density", "mass"):
        value = getattr(o, name)
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"--{name} must be a positive finite number, got {value}.")
    if not 1.2 * o.punch < o.width:
        raise ValueError(f"--width must be above 1.2 diameters of the punch, {1.2 * o.punch:g} m, got {o.width}.")
    if not 0.0 < o.safety <= 1.0:
        raise ValueError(f"--safety must be in (0, 1], got {o.safety}.")
    for name, least in (("frames", 0), ("every", 1), ("record", 0)):
        check_count(f"--{name}", getattr(o, name), 100_000, least=least)
    o.law_options = name_value_pairs("--law-options", o.law_options)
    o.panels = positive_numbers("--panels", o.panels)
    if o.values and not o.study:
        raise ValueError("--values are those of a --study.")
    o.values = positive_numbers("--values", o.values) or (STUDIES[o.study][1] if o.study else [])
    check_folder("--output", o.output)
    return o


# %% [markdown]
# ## Problem
# Rank 0 meshes a graded O-grid, fine under the punch; `read_mesh` distributes it with its groups "body", "top",
# "bottom", "rim" and, for a quarter, "symmetry_x" and "symmetry_y". Prescribing u_z on the whole rim holds it up and
# leaves it free to turn, since the points of its vertical lines may move outwards and inwards.


# %%
def make_domain(comm: MPI.Comm, o: argparse.Namespace) -> Any:
    """Mesh the plate on rank 0 and distribute it (collective)."""

    def build() -> Any:
        from meshes.plate import plate

        layers = max(LEAST_LAYERS, round(o.thickness * o.cells / (1.2 * o.punch)))
        grid = {"fine": 1.2 * o.punch, "cells": o.cells, "growth": o.growth, "layers": layers}
        return plate(o.thickness, o.width, shape=o.shape, quarter=o.quarter, **grid)

    with closing_gmsh(comm):
        return read_mesh(together(comm, build, root=True), comm)


def closed_form_volume(o: argparse.Namespace) -> float:
    """Volume of the meshed plate, m^3: over the square, or the regular polygon of 8 ceil(cells/4) sides."""
    area = o.width**2 if o.shape == "square" else study.o_grid_area(o.width, o.cells)
    return (0.25 if o.quarter else 1.0) * area * o.thickness


def make_punch(o: argparse.Namespace) -> RigidCylinder:
    """The punch, its face on the plate."""
    motion: Any = (0.0, 0.0, -o.velocity)
    if o.mass is not None:
        motion = FreeBody(o.mass * (0.25 if o.quarter else 1.0), motion, "z" if o.quarter else "xyz")
    face, axis = (0.0, 0.0, o.thickness), (0.0, 0.0, -1.0)
    return RigidCylinder(face, axis, 0.5 * o.punch, edge=o.edge, friction=o.friction, motion=motion)


def make_solver(comm: MPI.Comm, o: argparse.Namespace) -> ExplicitSolver:
    """Law, mesh and problem (collective).

    Raises:
        ValueError: on all ranks together, if anything does not fit.
    """
    law, punch = together(comm, lambda: load_law(o.law, **o.law_options)), make_punch(o)
    solver = ExplicitSolver(
        make_domain(comm, o), law, contact=[punch], density=o.density, integration=o.integration, safety=o.safety,
        output=o.output,
    )  # fmt: skip
    solver.prescribe("rim", component=2)
    if o.quarter:
        solver.prescribe("symmetry_x", component=0)
        solver.prescribe("symmetry_y", component=1)
    return solver


# %% [markdown]
# ## What is watched


# %%
class Shape:
    """Deflection of the middle, the fronts of the waves, and the distance of the nodes from the punch."""

    def __init__(self, solver: ExplicitSolver, o: argparse.Namespace) -> None:
        self.solver, self.comm, self.o, self.own = solver, solver.comm, o, solver.n_nodes
        self.largest = functools.partial(study.highest, self.comm)
        self.X = solver.u.function_space.tabulate_dof_coordinates()[: self.own]
        self.r = np.hypot(self.X[:, 0], self.X[:, 1])
        middle = self.r < 1e-9 * o.width
        self.faces = {
            "top": middle & (self.X[:, 2] > (1 - 1e-9) * o.thickness),
            "bottom": middle & (self.X[:, 2] < 1e-9 * o.thickness),
        }
        self.closest = math.inf

    def write_row(self, out: Any) -> dict[str, float]:
        """Append energy balance, deflections, force and gap of the punch to the history (collective)."""
        u = self.solver.u.x.array.reshape(-1, 3)[: self.own]
        obstacles, rows = self.solver.contact, out.history.rows
        gap = -self.largest(-obstacles.obstacles[0].gap(self.X + u - obstacles.displacement[0]))
        self.closest = min(self.closest, gap)
        row = {f"deflection_{name}": self.largest(-u[face, 2]) for name, face in self.faces.items()}
        impulse = -self.solver.energy_balance().contact_impulse[2]
        former = -rows[-1]["contact_impulse_z"] if rows else 0.0
        force = study.mean_force(rows, "punch_force", self.solver.time, impulse, former)
        travel = -float(obstacles.displacement[0, 2])
        return out.write_row(**row, punch_travel=travel, punch_force=force, smallest_gap=gap)

    def _moving(self, part: float) -> np.ndarray:
        """Nodes that move with more than a part of the speed of the punch."""
        v = self.solver.velocity.x.array.reshape(-1, 3)[: self.own]
        return np.asarray(np.linalg.norm(v, axis=1) > part * self.o.velocity)

    def depth(self) -> float:
        """How deep under the middle half of the punch the plate moves with 5 % of its speed, m (collective).

        The elastic precursor of a metal that yields at 400 MPa moves it with more than that.
        """
        return self.largest(self.o.thickness - self.X[self._moving(0.05) & (self.r < 0.25 * self.o.punch), 2])

    def radius(self) -> float:
        """How far from the axis the plate moves with half a per cent of that speed, m (collective)."""
        return self.largest(self.r[self._moving(0.005)])

    def ring(self, radius: float) -> float:
        """Width of the mesh near a radius on the x axis, m (collective)."""
        near = self.X[(np.abs(self.X[:, 1]) < 1e-9 * self.o.width) & (self.X[:, 0] >= 0.0), 0]
        found = np.unique(np.round(np.concatenate(self.comm.allgather(near)) / self.o.width, 9)) * self.o.width
        k = min(int(np.searchsorted(found, radius * (1 - 1e-9))), len(found) - 1)
        return float(found[k] - found[max(k - 1, 0)])


def solve(solver: ExplicitSolver, o: argparse.Namespace, front_time: float, out: Any, label: str) -> Any:
    """Run to the end; returns shape, novelty, panels (rank 0) and the depth of the elastic front."""
    comm, shape, section = solver.comm, Shape(solver, o), Section(solver, o.width)
    novelty, record = NoveltyMonitor(solver), PointHistories(solver, o.record) if o.record else None
    frames = set(np.linspace(0.0, o.until, o.frames + 1)[1:].tolist()) if o.frames else set()
    shown = {t for t in o.panels if t < 0.999 * o.until} | {o.until}
    panels, depth = [], None
    layout = "{desc}{l_bar}{bar}| {n:.3f}/{total:.3f} us [{elapsed}, {rate_fmt}{postfix}]"

    def look() -> None:
        shape.write_row(out)
        novelty.look()
        if record:
            record.look()

    look()
    if o.frames:
        out.write_fields()
    options: dict[str, Any] = {"total": 1e6 * o.until, "unit": "us", "bar_format": layout}
    with tqdm(desc=label, disable=comm.rank != 0, mininterval=study.patience(), **options) as bar:
        for stop in sorted({*frames, *shown, *({front_time} if front_time <= o.until else set())}):
            while solver.time < stop * (1.0 - 1e-12):
                solver.step(limit=stop)
                bar.update(1e6 * solver.time - bar.n)
                if solver.steps % o.every == 0:
                    with solver.timed("output"):
                        look()
            with solver.timed("output"):
                depth = shape.depth() if stop == front_time else depth
                if stop in shown:
                    panels.append(section.panel())
                if stop in frames:
                    out.write_fields()
    look()
    if record:
        record.write(Path(o.output) / "paths.npz")
    return shape, novelty, panels, depth


# %% [markdown]
# ## Check


# %%
def checks(
    summary: dict[str, Any], solver: ExplicitSolver, o: argparse.Namespace, shape: Shape, last: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Compare the run with independent numbers: what was found, the bounds, and whether the check is passed."""
    c, out = summary["confined_speed"], {}
    layer, depth, t = summary["layer"], summary["front"]["depth"], summary["front"]["time"]
    if depth is not None:
        low, high = 0.9 * c * t - layer, 1.1 * c * t + layer
        out["elastic_front"] = {"found": depth, "low": low, "high": high, "passed": bool(low <= depth <= high)}
    radius = summary["front"]["radius"]
    high = 0.5 * o.punch + 1.05 * c * solver.time + 2.0 * summary["front"]["ring"]
    out["radial_front"] = {"found": radius, "high": high, "passed": bool(radius <= high)}
    mass = solver.comm.allreduce(float(solver.mass.sum()))
    error = abs(mass / (summary["density"] * closed_form_volume(o)) - 1.0)
    out["mass"] = {"found": error, "high": 1e-9, "passed": bool(error < 1e-9)}
    impulses = np.array([last[f"contact_impulse_{axis}"] + last[f"reaction_impulse_{axis}"] for axis in "xyz"])
    momentum = np.array([last[f"momentum_{axis}"] for axis in "xyz"])
    error = float(np.linalg.norm(momentum - impulses) / max(abs(last["contact_impulse_z"]), 1e-300))
    out["momentum"] = {"found": error, "high": 1e-9, "passed": bool(error < 1e-9)}
    error = float(last["energy_error"])
    out["energy"] = {"found": error, "high": 0.01, "passed": bool(error < 0.01)}
    gap = shape.closest
    out["punch"] = {"found": gap, "low": -1e-9 * o.thickness, "passed": bool(gap >= -1e-9 * o.thickness)}
    return out


# %% [markdown]
# ## Figures
# The deformed section near the punch: rows are times, or the cases of a study, columns are fields.


# %%
def punch_outline(o: argparse.Namespace, travel: float) -> np.ndarray:
    """Outline of the lower part of the punch, (k, 2), m."""
    turn, flat = np.linspace(0.0, 0.5 * np.pi, 20), 0.5 * o.punch - o.edge
    corner = np.column_stack([flat + o.edge * np.sin(turn), o.edge - o.edge * np.cos(turn)])
    right = np.vstack([corner, [0.5 * o.punch, 10.0 * o.punch]])
    return np.vstack([right, right[::-1] * [-1, 1]]) + [0.0, o.thickness - travel]


def draw(cells: list[dict[str, Any]], fields: Sequence[Any], title: str, path: Path) -> None:
    """Draw panels into a PNG: one row for each of `cells` ("panel", "o", "travel", "label"), one column for a field."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    for cell in cells:
        cell["panel"] = mirrored(cell["panel"]) if cell["o"].quarter else cell["panel"]
    reach = (
        min(0.5 * cells[0]["o"].width, max(2.2 * cells[0]["o"].punch, *(1.15 * cell["front"] for cell in cells)))
        / MILLI
    )
    panels = [cell["panel"] for cell in cells]
    near = [p["x"][np.abs(p["x"][..., 0]).max(axis=1) < reach * MILLI, :, 1] / MILLI for p in panels]
    spans = [(z.min(), max(z.max(), 1e3 * c["o"].thickness) + 0.25 * 1e3 * c["o"].punch) for z, c in zip(near, cells)]
    heights = [high - low + 0.3 for low, high in spans]
    wide = 11.0 / len(fields)
    figure, axes = plt.subplots(
        len(cells), len(fields), figsize=(12.0, sum(heights) * wide / (2.0 * reach) + 0.45 * len(cells) + 1.3),
        squeeze=False, height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for column, (name, key, cmap, symbol) in zip(axes.T, fields, strict=True):
        unit = MEGA if key == "von_mises" else 1.0
        shades = colours(panels, key, unit)
        for axis, cell, (low, high) in zip(column, cells, spans, strict=True):
            image = paint(axis, cell["panel"], key, length=MILLI, unit=unit, cmap=cmap, **shades)
            draw_cells(axis, cell["panel"], key, length=MILLI, width=0.2, alpha=0.3)
            outline = punch_outline(cell["o"], cell["travel"]) / MILLI
            axis.fill(*outline.T, facecolor="0.85", edgecolor="0.25", linewidth=0.8, zorder=3)
            axis.set(xlim=(-reach, reach), ylim=(low - 0.15, high + 0.15), aspect="equal")
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=7)
        column[-1].set_xlabel("x (mm)", fontsize=8)
        column[0].set_title(name, fontsize=10)
        colour_bar(figure, image, column, key, symbol, location="bottom", aspect=40)
    for row, cell in zip(axes, cells, strict=True):
        row[0].set_ylabel(f"{cell['label']}\n\nz (mm)", fontsize=8)
    figure.suptitle(title, fontsize=11)
    with replacing(path) as part:
        figure.savefig(part, dpi=140, format="png", bbox_inches="tight", pad_inches=0.1)
    plt.close(figure)


# %% [markdown]
# ## Main


# %%
def run_case(comm: MPI.Comm, o: argparse.Namespace, label: str = "") -> tuple[dict[str, Any], list[Any]]:
    """Mesh, problem, solve and check of one case; returns its summary and panels (collective)."""
    start, plan, folder = time.perf_counter(), plan_threads(comm), Path(o.output)
    solver = make_solver(comm, o)
    law, rho = solver.law, solver.density
    c = math.sqrt((law.bulk_modulus + 4 * law.shear_modulus / 3) / rho)
    front_time = 0.8 * o.thickness / c
    solver.check_end(o.until)
    together(comm, lambda: study.prepare(folder, ENDED), root=True)
    cells = study.announce(comm, law, solver, plan)
    out = solver.writer(folder)
    try:
        shape, novelty, panels, depth = solve(solver, o, front_time, out, label)
    except (SolverError, ValueError):  # seen by all ranks; to close is collective
        out.close(whole=False)
        raise
    out.close()
    last, seconds, radius = out.history.rows[-1], solver.total_seconds(), shape.radius()
    summary: dict[str, Any] = {
        "law": law.name, "law_source": o.law, "ranks": comm.size, "cells": cells, "steps": solver.steps,
        "dt": solver.dt, "time": solver.time, "velocity": o.velocity, "thickness": o.thickness, "width": o.width,
        "punch": o.punch,
        "edge": o.edge, "friction": o.friction, "density": rho, "quarter": o.quarter, "confined_speed": c,
        "front": {"time": front_time, "depth": depth, "radius": radius, "ring": shape.ring(radius)},
        "layer": o.thickness / max(LEAST_LAYERS, round(o.thickness * o.cells / (1.2 * o.punch))),
        "largest_punch_force": max(row["punch_force"] for row in out.history.rows),
        "fields": extremes(solver), "novelty": novelty.report() if novelty.active else None,
        "seconds": {**seconds, "wall": time.perf_counter() - start},
    }  # fmt: skip
    kept = ("deflection_top", "deflection_bottom", "punch_travel", "punch_force", "contact_nodes", "kinetic_energy")
    kept += ("internal_energy", "hourglass_energy", "viscous_energy", "contact_loss", "friction_loss", "obstacle_work")
    kept += ("obstacle_energy", "reaction_work", "energy_error", "momentum_error")
    summary |= {name: last[name] for name in kept}
    summary["checks"] = checks(summary, solver, o, shape, last)
    return summary, panels


def sentence(summary: dict[str, Any]) -> str:
    """The main numbers of a case."""
    return (
        f"{summary['steps']} steps to {summary['time'] / MICRO:.2f} us; deflection of the lower face "
        f"{summary['deflection_bottom'] / MILLI:.3f} mm, gap in the middle "
        f"{(summary['deflection_top'] - summary['punch_travel']) / MILLI:.4f} mm; largest e_d "
        f"{summary['fields']['e_d']['max']:.3f}; energy error {summary['energy_error']:.1e}; "
        f"{summary['seconds']['wall']:.1f} s."
    )


def run_one(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """One case with its picture (collective)."""
    summary, panels = run_case(comm, o)
    folder = Path(o.output)
    title = f"Punch at {o.velocity:g} m/s on a plate of {o.thickness / MILLI:g} mm, {summary['law']}"

    def picture() -> None:
        cells = [
            {"panel": p, "o": o, "label": f"{p['time'] / MICRO:.3g} us", "front": 0.0,
             "travel": summary["punch_travel"] if o.mass is not None else o.velocity * p["time"]}
            for p in panels
        ]  # fmt: skip
        draw(cells, ROWS, title, folder / "section.png")

    study.end(comm, folder, summary, picture, sentence(summary), study.failed(summary))


def run_study(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Several cases, side by side in one picture (collective)."""
    name, folder = STUDIES[o.study][0], Path(o.output) / o.study
    together(comm, lambda: study.prepare(folder, ENDED), root=True)
    cases, cells, wrong = [], [], []
    for value in o.values:
        one = copy.copy(o)
        setattr(one, name, value)
        label = f"{value:g} m/s" if name == "velocity" else f"H = {value / MILLI:g} mm"
        one.output, one.frames, one.panels = str(folder / label.replace(" ", "").replace("/", "_")), 0, []
        summary, panels = run_case(comm, one, f"{label} ")
        cases.append(summary)
        wrong += [f"{label}, {text}" for text in study.failed(summary)]
        if comm.rank == 0:
            sys.stdout.write(f"{label}: {sentence(summary)}\n")
            front, travel = summary["front"]["radius"], summary["punch_travel"]
            cells.append({"panel": panels[-1], "o": one, "label": label, "travel": travel, "front": front})
    title = f"Punch on a plate at {o.until / MICRO:g} us, {cases[0]['law']}"
    picture = functools.partial(draw, cells, ROWS[:2], title, folder / "study.png")
    whole = {"study": o.study, "values": o.values, "cases": cases}
    study.end(comm, folder, whole, picture, f"{len(cases)} cases.", wrong, "study")


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the demo (collective); returns the exit status, the same on every rank."""

    def work() -> None:
        o = parse(arguments)
        (run_study if o.study else run_one)(comm, o)

    return study.main(comm, work)


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
