# %% [markdown]
# # Taylor anvil: a magnesium cylinder hits a rigid wall
#
# **Why.** A cylinder of length H and diameter D flies at speed V against a rigid, frictionless wall. An elastic wave
# runs up the bar, a plastic front follows it, release waves come in from the sides, the foot mushrooms, and after some
# tens of microseconds the bar rebounds. It is the classical test of a dynamic material law, and the main job of
# anvilx: at every quadrature point stands a law *learned* from a polycrystal (or a classical one, to compare).
#
# **Equations.** Total Lagrangian, on the reference bar, with P = P(history of F) from the law:
#
#     rho u_tt = Div P,   P N = 0 on side and top,   u_t = -V e_z at t = 0,
#     gap g = z >= 0, wall force >= 0, force * g = 0 on the foot (Signorini, no friction).
#
# Hexahedra with one point and hourglass control (or full integration), lumped mass, central differences.
#
# **Fields.** von Mises stress sqrt(3/2) |dev sigma| of the Cauchy stress; the paper's deviatoric strain
# e_d = |F^T F/(det F)^2 - I|/2 and the isochoric one, e_d_isochoric = |F^T F/(det F)^(2/3) - I|/2, which a change of
# volume alone leaves at zero; e_v = det F - 1; and what the law itself lets one observe.
#
# **Case.** H = 5 mm, D = 1 mm, V = 200 m/s; panels at 1 us (the paper's time) and at rebound.
#
# **Checks**, each against a number from outside the solver and true for every law:
#
# 1. the elastic front at 1 us stands between the bar wave's sqrt(E/rho) t and the confined wave's
#    sqrt((K + 4G/3)/rho) t (two cells and 5 % of finite-strain stiffening allowed);
# 2. wall impulse = change of momentum of a bar whose mass is the closed-form volume times rho, to 1e-9;
# 3. the sum of the energies and the loss of nodes that land on the wall is constant, to 1 % (on bars coarser than ten
#    cells across to 1 % (10/cells)^2, the order of the scheme).
#
# References: Liu, Kovachki, Li, Azizzadenesheli, Anandkumar, Stuart, Bhattacharya, JMPS 158 (2022), section 4.1,
# doi:10.1016/j.jmps.2021.104668; Taylor, Proc. R. Soc. A 194 (1948), doi:10.1098/rspa.1948.0081.

# %%
from __future__ import annotations

import argparse
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

from fem import ExplicitSolver, RigidPlane, SolverError, load_law, read_mesh, study
from fem.command import Parser, Stop, name_value_pairs, together
from fem.errors import Interrupted
from fem.explicit.checkpoints import Checkpoints
from fem.io.files import replacing, write_arrays
from fem.io.point_histories import PointHistories
from fem.io.progress import flat, nested
from fem.laws import FINITE, NAMED
from fem.mesh import closing_gmsh
from fem.novelty import NoveltyMonitor
from fem.parallel import abort_when_uncaught
from fem.range_monitor import RangeMonitor
from fem.section import ROWS, Section, colour_bar, colours, draw_cells, extremes, mirrored, paint
from fem.threads import plan_threads
from micro.data.cli import check_count, check_folder

DENSITIES = (1e-3, 1e6)  # kg/m^3, of anything solid
PROGRESS, PANELS, IMPULSE = "progress", "panels.npz", "contact_impulse_z"
KEPT: tuple[str, ...] = ("kinetic_energy", "internal_energy", "hourglass_energy", "viscous_energy", "contact_loss")
KEPT += ("energy_error", "momentum_error")  # of the last row of the history, in the summary
FRAMES = 100_000  # at most: a series of more would fill any disk

# %% [markdown]
# ## Parameters
# SI units. Every option is checked on every rank before anything is written; a bad one is one sentence from rank 0
# and the exit code 2 everywhere.


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="Taylor anvil impact.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    known = ", ".join((*NAMED, *FINITE))
    p.add_argument("--law", default="magnesium-recurrent", help=f"law, artifact (.pt), module:callable, {known}")
    p.add_argument("--law-options", default="", help="options of --law, name=value,name=value, as grains=16")
    p.add_argument("--parameters", help="constants of --law johnson-cook (.json)")
    p.add_argument("--velocity", type=float, default=200.0, help="impact speed, m/s")
    p.add_argument("--length", type=float, default=5e-3, help="length of the bar, m")
    p.add_argument("--diameter", type=float, default=1e-3, help="diameter of the bar, m")
    p.add_argument("--cells", type=int, default=10, help="cells across the diameter, even, at least 4")
    p.add_argument("--grading", type=float, default=1.0, help="top over foot layer; above 1 refines the foot")
    p.add_argument("--until", default="rebound", help="end time, s; or 'rebound', at most 40 bar transit times")
    p.add_argument("--panels", default="0.5e-6,1e-6,3e-6,10e-6", help="times of the figure's columns before the end, s")
    p.add_argument("--frames", type=int, default=40, help="frames of the ParaView series up to the latest end")
    p.add_argument("--every", type=int, default=20, help="steps between rows of the history")
    p.add_argument("--output", default="results/taylor_anvil", help="folder for the results")
    p.add_argument("--dtype", choices=("float32", "float64"), help="network's numbers; none: as the artifact says")
    p.add_argument("--integration", choices=("one-point", "full"), default="one-point", help="quadrature of a cell")
    p.add_argument("--hourglass", type=float, default=0.3, help="hourglass stiffness over shear modulus (one-point)")
    p.add_argument("--safety", type=float, default=0.9, help="step over the largest stable one, at most 1")
    p.add_argument("--quarter", action="store_true", help="a quarter of the bar with two symmetry planes")
    p.add_argument("--density", type=float, help="density, kg/m^3; none: the law's")
    p.add_argument("--stop-novelty", type=float, help="novelty of the law at which the run stops; none: it goes on")
    p.add_argument("--stop-range", action="store_true", help="stop where a point leaves the range of the training")
    p.add_argument("--record", type=int, default=0, help="points whose F is recorded into paths.npz, with the history")
    p.add_argument("--restart", help="checkpoint (checkpoint.h5 of a former run) to go on from")
    p.add_argument("--checkpoint-every", type=float, help="simulated time between checkpoints, s; none: at the end")
    o = p.parse_args(arguments)
    for name in ("velocity", "length", "diameter", "grading", "density", "stop_novelty", "checkpoint_every"):
        value = getattr(o, name)
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} must be a positive finite number, got {value}.")
    if not 0.0 <= o.hourglass < math.inf:
        raise ValueError(f"--hourglass must be a finite number of at least 0, got {o.hourglass}.")
    if not 0.0 < o.safety <= 1.0:
        raise ValueError(f"--safety must be in (0, 1], got {o.safety}.")
    if o.cells < 4 or o.cells % 2:
        raise ValueError(f"--cells must be an even number of at least 4, got {o.cells}.")
    for name, least in (("frames", 0), ("every", 1), ("record", 0)):
        check_count(f"--{name}", getattr(o, name), least=least)
    if o.density is not None and not DENSITIES[0] <= o.density <= DENSITIES[1]:
        low, high = DENSITIES
        raise ValueError(f"--density must lie between {low:g} and {high:g} kg/m^3, got {o.density}.")
    if o.frames > FRAMES:
        raise ValueError(f"--frames must be at most {FRAMES}, got {o.frames}.")
    o.law_options = name_value_pairs("--law-options", o.law_options)
    if o.until != "rebound":
        o.until = times("until", o.until, one=True)[0]
    o.panels = times("panels", o.panels)
    if o.restart is not None and not Path(o.restart).is_file():
        raise ValueError(f"--restart names {o.restart!r}, but there is no such file.")
    check_folder("--output", o.output)
    return o


def times(name: str, text: str, *, one: bool = False) -> list[float]:
    """Positive finite numbers from a comma-separated list."""
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = [math.nan]
    if any(not 0.0 < value < math.inf for value in values) or (one and len(values) != 1):
        kind = "a positive finite time in seconds or 'rebound'" if one else "positive finite times in seconds"
        raise ValueError(f"--{name} must be {kind}, got {text!r}.")
    return sorted(set(values))


# %% [markdown]
# ## Mesh
# Rank 0 meshes an O-grid disc swept along the axis; `read_mesh` distributes it with its groups "body", "foot",
# "side", "top" and, for a quarter, "symmetry_x" and "symmetry_y".


# %%
def make_domain(comm: MPI.Comm, o: argparse.Namespace) -> Any:
    """Mesh the bar on rank 0 and distribute it."""

    def build() -> Any:
        from meshes.taylor_bar import taylor_bar

        return taylor_bar(o.length, o.diameter, o.cells, quarter=o.quarter, grading=o.grading)

    with closing_gmsh(comm):
        return read_mesh(together(comm, build, root=True), comm)


def closed_form_volume(o: argparse.Namespace) -> float:
    """Volume of the meshed bar, m^3: the prism over the regular polygon of 8 ceil(cells/4) sides in its circle."""
    return (0.25 if o.quarter else 1.0) * study.o_grid_area(o.diameter, o.cells) * o.length


# %% [markdown]
# ## Figure
# `solver.writer` makes the ParaView series (`fields.bp`: ADIOS2VTXReader, Warp By Vector) and the history. The figure
# shows the axial section (`fem.section`): columns are times, rows fields; dashed is the bar before impact.


# %%
def scaled(value: float) -> tuple[float, str]:
    """Factor and SI prefix that bring a value to one or above."""
    steps = ((1.0, ""), (1e3, "m"), (1e6, "\u00b5"), (1e9, "n"))
    return next((step for step in steps if value * step[0] > 0.99), steps[-1])


def draw(panels: list[dict[str, Any]], o: argparse.Namespace, title: str, path: Path) -> None:
    """Draw the axial section of every panel, coloured by every field of `ROWS`, into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [mirrored(p) for p in panels] if o.quarter else panels
    size, metre = scaled(o.length)
    tick, second = scaled(panels[0]["time"] * 2)
    wide = 1.08 * size * max(np.abs(p["x"][..., 0]).max() for p in panels)
    high = 1.03 * size * max(o.length, *(p["x"][..., 1].max() for p in panels))
    low, half = -0.05 * high, 0.5 * size * o.diameter
    ratio = 2.0 * wide / (high - low)  # of a panel; slender bars stand 3.3 inches high, squat ones fill the width
    tall = min(3.3, 11.0 / (ratio * len(panels)))
    across = len(panels) * (tall * ratio + 0.12)
    figure, axes = plt.subplots(
        len(ROWS), len(panels), figsize=(max(across + 2.2, 6.0), (tall + 0.25) * len(ROWS) + 0.7),
        squeeze=False, sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.04, wspace=0.02, hspace=0.02)
    for row, (name, key, cmap, symbol) in zip(axes, ROWS, strict=True):
        unit = 1e6 if key == "von_mises" else 1.0
        shades = colours(panels, key, unit)
        for axis, panel in zip(row, panels, strict=True):
            image = paint(axis, panel, key, length=1.0 / size, unit=unit, cmap=cmap, **shades)
            draw_cells(axis, panel, key, length=1.0 / size, width=0.3, alpha=0.35)
            axis.plot(
                [-half, -half, half, half], [0.0, size * o.length, size * o.length, 0.0],
                color="0.55", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0,
            )  # fmt: skip
            axis.fill_between([-wide, wide], low, 0.0, facecolor="0.85", edgecolor="0.45", hatch="/////", linewidth=0.0)
            axis.axhline(0.0, color="0.25", linewidth=0.9)
            axis.set(xlim=(-wide, wide), ylim=(low, high), aspect="equal")
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
        row[0].set_ylabel(f"{name}\n\nz ({metre}m)", fontsize=10)
        colour_bar(figure, image, row, key, symbol, pad=0.015, aspect=28).outline.set_linewidth(0.5)
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.set_title(f"{tick * panel['time']:.3g} {second}s", fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel(f"x ({metre}m)", fontsize=9)
    figure.suptitle(title, fontsize=12)
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format="png", bbox_inches="tight", pad_inches=0.1)
    plt.close(figure)


# %% [markdown]
# ## Solve
# The loop owns nothing but the calendar: frames, panels, rows of the history, the moment at which the front is read.


# %%
class Shape:
    """Length and foot of the bar, and the front of the wave in it."""

    def __init__(self, solver: ExplicitSolver, length: float) -> None:
        self.solver, self.comm = solver, solver.comm
        self.own, self.highest = solver.n_nodes, functools.partial(study.highest, solver.comm)
        self.X = solver.u.function_space.tabulate_dof_coordinates()[: self.own]
        self.foot = self.X[:, 2] < 1e-9 * length

    def write_row(self, out: Any) -> dict[str, float]:
        """Append the energy balance, the shape of the bar and the force on the wall to the history (collective)."""
        x = self.X + self.solver.u.x.array.reshape(-1, 3)[: self.own]
        length = self.highest(x[:, 2]) + self.highest(-x[:, 2])
        radius = self.highest(np.hypot(x[self.foot, 0], x[self.foot, 1]))
        impulse, rows = self.solver.energy_balance().contact_impulse[2], out.history.rows
        former = rows[-1][IMPULSE] if rows else 0.0
        force = study.mean_force(rows, "contact_force", self.solver.time, impulse, former)
        return out.write_row(length=length, foot_radius=radius, contact_force=force)

    def front(self, speed: float) -> float:
        """Highest reference z at which the material has lost 0.5 % of its speed, m (collective).

        Little, because the elastic precursor of a law without a threshold of flow decays as it runs ahead.
        """
        v = self.solver.velocity.x.array.reshape(-1, 3)[: self.own, 2]
        return self.highest(self.X[v + speed > 0.005 * speed, 2])

    def planes(self) -> np.ndarray:
        """Heights of the node planes of the mesh (collective)."""
        return np.unique(np.concatenate(self.comm.allgather(np.unique(self.X[:, 2]))))


def solve(solver: ExplicitSolver, o: argparse.Namespace, limit: float, front_time: float, out: Any) -> Any:
    """Run to the end; returns shape, panels (rank 0) and the height of the elastic front (or None)."""
    rebound, comm, kept = o.until == "rebound", solver.comm, Path(o.output) / PROGRESS
    shape, section = Shape(solver, o.length), Section(solver, o.diameter)
    novelty = next((m for m in solver.monitors if isinstance(m, NoveltyMonitor)), None)
    record = PointHistories(solver, o.record) if o.record else None
    panels, front = comm.bcast(together(comm, lambda: read_panels(kept, solver.time), root=True))
    if record and o.restart:
        record.read(kept / "paths.npz", solver.time)
    frames = set(np.linspace(0.0, limit, o.frames + 1)[1:-1].tolist()) if o.frames else set()
    shown = {t for t in o.panels if t < 0.999 * limit}
    stops = sorted(t for t in {*frames, *shown, front_time, limit} if solver.time < t <= limit)

    def keep() -> None:
        out.keep()
        if record:
            record.write(kept / "paths.npz")

    if not out.history.rows:  # of a restart, the start is there already
        shape.write_row(out)
        with solver.timed("output"):
            if o.frames:
                out.write_fields()
            if record:
                record.look()
    layout = "{l_bar}{bar}| {n:.3f}/{total:.3f} us [{elapsed}, {rate_fmt}{postfix}]"
    done = rebound and solver.rebounded()
    saved = Checkpoints(solver, Path(o.output) / "checkpoint.h5", every=o.checkpoint_every, before=keep)
    shy = {"disable": comm.rank != 0, "mininterval": study.patience()}
    with saved, tqdm(total=1e6 * limit, unit="us", bar_format=layout, **shy) as bar:
        bar.update(1e6 * solver.time)
        for stop in stops:
            while solver.time < stop * (1.0 - 1e-12) and not done:
                with solver.timed("output"):
                    saved.look()  # before a step, when all that belongs to this time is written
                solver.step(limit=stop)
                done = rebound and solver.rebounded()
                bar.update(1e6 * solver.time - bar.n)
                if solver.steps % o.every == 0:
                    with solver.timed("output"):
                        row = shape.write_row(out)
                        if novelty:
                            novelty.look()
                        if record:
                            record.look()
                        bar.set_postfix_str(f"{solver.steps} steps, length {1e3 * row['length']:.3f} mm", refresh=False)
            if done:
                bar.total = bar.n
                break
            with solver.timed("output"):
                if stop == front_time:
                    front = shape.front(o.velocity)
                if stop in shown:
                    panels.append(section.panel())
                together(comm, lambda front=front: keep_panels(kept, panels, front), root=True)
                if stop in frames:
                    out.write_fields()
        with solver.timed("output"):
            shape.write_row(out)
            if novelty:
                novelty.look()
            panels.append(section.panel())
            if o.frames:
                out.write_fields()
            if record:
                record.look()
                record.write(Path(o.output) / "paths.npz")
            saved.write()
    return shape, panels, front


# %% [markdown]
# ## Restart
# `--restart` goes on from a checkpoint. What the former run has written until then is in its folder `progress`: the
# frames and the history (`fem.io.progress`), and the columns of the figure. Of the later part nothing is kept.

# %%

def keep_panels(folder: Path, panels: list[Any], front: float | None) -> None:
    """Keep the columns of the figure and the height of the front (rank 0)."""
    values = {"front": math.nan if front is None else front, "panels": dict(enumerate(panels))}
    write_arrays(folder / PANELS, flat(values))


def read_panels(folder: Path, until: float) -> tuple[list[Any], float | None]:
    """Columns of the figure up to a time, and the height of the front, that a former run kept (rank 0)."""
    if not (folder / PANELS).is_file():
        return [], None
    with np.load(folder / PANELS) as file:
        found = nested(file)
    panels, front = list(found.get("panels", {}).values()), float(found["front"])
    return [panel for panel in panels if panel["time"] <= until * (1 + 1e-12)], None if math.isnan(front) else front


# %% [markdown]
# ## Check
# Wave speeds from the law's own moduli, E = 9KG/(3K + G); mass from the closed-form volume.


# %%
def checks(
    summary: dict[str, Any], law: Any, o: argparse.Namespace, shape: Shape, last: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Compare the run with independent numbers: what was found, the bounds, and whether the check is passed."""
    K, G, rho = law.bulk_modulus, law.shear_modulus, summary["density"]
    bar, confined = math.sqrt(9 * K * G / (3 * K + G) / rho), math.sqrt((K + 4 * G / 3) / rho)
    out = {}
    front, t = summary["front"]["height"], summary["front"]["time"]
    if front is not None:
        cell = 2 * float(np.diff(shape.planes()).max())
        low, high = bar * t - cell, 1.05 * confined * t + cell
        out["elastic_front"] = {"found": front, "low": low, "high": high, "passed": bool(low <= front <= high)}
    momentum = rho * closed_form_volume(o) * o.velocity
    error = float(abs(last["momentum_z"] - (last[IMPULSE] - momentum)) / momentum)
    out["momentum"] = {"found": error, "high": 1e-9, "passed": bool(error < 1e-9)}
    error, high = float(summary["energy_error"]), 0.01 * max(1.0, 10 / o.cells) ** 2
    out["energy"] = {"found": error, "high": high, "passed": bool(error < high)}
    return out


# %% [markdown]
# ## Main


# %%
def make_law(o: argparse.Namespace) -> Any:
    """The law asked for (local)."""
    if o.parameters is not None and o.law != "johnson-cook":
        raise ValueError(f"--parameters are for johnson-cook only, got --law {o.law}.")
    chosen = dict(o.law_options)
    if o.parameters is not None:
        chosen["parameters"] = o.parameters
    if o.dtype and o.law not in (*FINITE, *NAMED, "johnson-cook"):  # classical laws compute in float64, always
        chosen["dtype"] = o.dtype
    return load_law(o.law, **chosen)


def make_solver(comm: MPI.Comm, o: argparse.Namespace) -> ExplicitSolver:
    """Law, mesh and problem (collective).

    Raises:
        ValueError: on all ranks together, if anything does not fit.
    """
    law = together(comm, lambda: make_law(o))
    domain = make_domain(comm, o)
    solver = ExplicitSolver(
        domain, law, contact=[RigidPlane((0.0, 0.0, 0.0), (0.0, 0.0, 1.0))], initial_velocity=(0.0, 0.0, -o.velocity),
        density=o.density, integration=o.integration, hourglass=o.hourglass, safety=o.safety, output=o.output,
    )  # fmt: skip
    if o.quarter:
        solver.prescribe("symmetry_x", component=0)
        solver.prescribe("symmetry_y", component=1)
    RangeMonitor(solver, stop=o.stop_range)
    NoveltyMonitor(solver, o.stop_novelty)
    if o.restart:
        solver.restore(o.restart)
    return solver


def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Mesh, problem, solve, check, figure (collective)."""
    start, plan, folder = time.perf_counter(), plan_threads(comm), Path(o.output)
    solver = make_solver(comm, o)
    law, rho = solver.law, solver.density
    K, G = law.bulk_modulus, law.shear_modulus
    transit = o.length / math.sqrt(9 * K * G / (3 * K + G) / rho)
    limit = 40.0 * transit if o.until == "rebound" else o.until
    front_time = min(1e-6, 0.6 * o.length / math.sqrt((K + 4 * G / 3) / rho))
    if limit <= solver.time:
        raise Stop(f"--until must lie after the checkpoint, which stands at {solver.time:g} s, got {limit:g} s.")
    solver.check_end(limit)
    together(comm, lambda: prepare(folder, going_on=bool(o.restart)), root=True)
    cells = study.announce(comm, law, solver, plan)
    if comm.rank == 0 and hasattr(law, "summary"):  # an artifact brings its certificate
        tqdm.write(law.summary(), file=sys.stderr)
    out = solver.writer(folder)
    before = Path(o.restart).parent / PROGRESS if o.restart else None
    try:
        out.keep_progress(folder / PROGRESS, source=before, until=solver.time)
        shape, panels, front = solve(solver, o, limit, front_time, out)
    except (SolverError, ValueError, Interrupted):  # seen by all ranks; to close is collective
        out.close(whole=False)
        raise
    out.close()
    last, seconds = out.history.rows[-1], solver.total_seconds()
    summary = {
        "law": law.name, "law_source": o.law, "ranks": comm.size, "cells": cells,
        "points": comm.allreduce(solver.points.n), "steps": solver.steps, "dt": solver.dt, "time": solver.time,
        "rebounded": bool(solver.rebounded()), "velocity": o.velocity, "density": rho, "length": o.length,
        "diameter": o.diameter, "integration": o.integration, "quarter": o.quarter,
        "final_length": last["length"], "final_radius": last["foot_radius"], **{name: last[name] for name in KEPT},
        "seconds": {**seconds, "wall": time.perf_counter() - start},
        "points_per_second": solver.total_points() / max(seconds["law"], 1e-9),
        "fields": extremes(solver), "range": trust(solver), "front": {"time": front_time, "height": front},
    }  # fmt: skip
    summary["checks"] = checks(summary, law, o, shape, last)
    title = f"Taylor anvil: {1e3 * o.length:g} mm x {1e3 * o.diameter:g} mm at {o.velocity:g} m/s, {summary['law']}"
    picture = lambda: draw(panels, o, title, folder / "section.png")
    study.end(comm, folder, summary, picture, sentence(summary), study.failed(summary))


def trust(solver: ExplicitSolver) -> dict[str, Any]:
    """What the monitors of the trained range and of the novelty have seen (collective)."""
    found = {monitor.name: monitor.report() for monitor in solver.monitors}
    return found.pop("range", {}) | found


def prepare(folder: Path, *, going_on: bool) -> None:
    """Clear the folder, except of what a run that goes on needs (rank 0)."""
    ended = ("summary.json", "history.csv", "section.png", "paths.npz", "fields*")
    study.prepare(folder, ended if going_on else (*ended, "failure-*", "checkpoint*.h5", PROGRESS))


def sentence(summary: dict[str, Any]) -> str:
    """The main numbers of a run."""
    return (
        f"{summary['steps']} steps to {1e6 * summary['time']:.2f} us; length {1e3 * summary['final_length']:.3f} mm, "
        f"foot radius {1e3 * summary['final_radius']:.3f} mm; largest e_d {summary['fields']['e_d']['max']:.3f} "
        f"(isochoric {summary['fields']['e_d_isochoric']['max']:.3f}); energy error {summary['energy_error']:.1e}; "
        f"{summary['seconds']['wall']:.1f} s."
    )


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the demo (collective); returns the exit status, the same on every rank."""

    return study.main(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
