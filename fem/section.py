"""Axial sections of a run for pictures: the cells along the plane y = 0, their values, and how to paint them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

# Fields of a section: title, key, colours, symbol.
ROWS = (
    ("von Mises stress", "von_mises", "inferno", r"$\sigma_M$"),
    ("deviatoric strain", "e_d", "viridis", r"$e_d = \frac{1}{2}\,|F^T F\,/\,(\det F)^2 - I|$"),
    ("volumetric strain", "e_v", "RdBu", r"$e_v = \det F - 1$"),
)


class Section:
    """The axial section of a body, with the value of each cell and the nodal means.

    The cells that touch the plane y = 0 from y > 0 have faces in that plane, whose nodes stay in it.

    Args:
        solver: An explicit solver, of a mesh that has y = 0 as a plane of nodes.
        size: Of the body, m.
        keys: Fields of `project` to keep.
    """

    def __init__(self, solver: Any, size: float, keys: Sequence[str] = tuple(key for _, key, *_ in ROWS)) -> None:
        self.solver, self.comm, self.keys = solver, solver.comm, tuple(keys)
        V = solver.u.function_space
        dofs = V.dofmap.list[: V.mesh.topology.index_map(3).size_local]
        self.x = V.tabulate_dof_coordinates()
        x = self.x[dofs]
        flat = np.abs(x[..., 1]) < 1e-9 * size
        self.inside = np.flatnonzero((flat.sum(axis=1) == 4) & (x[..., 1].mean(axis=1) > 0.0))
        # Corners of the faces, (m, 4), in order round each; nodes of a face come in tensor-product order.
        self.quads = dofs[self.inside][flat[self.inside]].reshape(-1, 4)[:, [0, 1, 3, 2]]

    def panel(self) -> dict[str, Any] | None:
        """The section now, gathered on rank 0 (None elsewhere; collective).

        It has `time`, s, the corners `x` (m, 4, 2), m, in x and z, and for each field the values of the cells `cell`
        (m,) and of the corners `corner` (m, 4).
        """
        cells, nodal = self.solver.project(), self.solver.projected.nodal
        u = self.solver.u.x.array.reshape(-1, 3)
        part = {
            "x": (self.x + u)[self.quads][..., [0, 2]],
            "cell": {key: cells[key][self.inside] for key in self.keys},
            "corner": {key: nodal[key].x.array[self.quads] for key in self.keys},
        }
        parts = self.comm.gather(part, root=0)
        if parts is None:
            return None
        join = {
            name: {k: np.concatenate([p[name][k] for p in parts]) for k in self.keys} for name in ("cell", "corner")
        }
        return {"time": self.solver.time, "x": np.concatenate([p["x"] for p in parts]), **join}


def mirrored(panel: dict[str, Any]) -> dict[str, Any]:
    """A panel of half a section with its mirror image at x < 0."""
    both = {name: {key: np.concatenate([v, v]) for key, v in panel[name].items()} for name in ("cell", "corner")}
    return {**panel, "x": np.concatenate([panel["x"], panel["x"] * [-1, 1]]), **both}


def extremes(solver: Any) -> dict[str, dict[str, float]]:
    """Least and largest cell value of every projected field over all ranks (collective)."""
    cells, comm = solver.project(), solver.comm
    return {
        name: {
            "min": float(comm.allreduce(value.min(initial=math.inf), MPI.MIN)),
            "max": float(comm.allreduce(value.max(initial=-math.inf), MPI.MAX)),
        }
        for name, value in cells.items()
    }


def top_value(panels: Sequence[dict[str, Any]], key: str) -> float:
    """Largest absolute value of a field for the colours: a few cells at an edge must not wash out all others."""
    values = np.concatenate([np.append(panel["corner"][key], panel["cell"][key]) for panel in panels])
    return max(float(np.percentile(np.abs(values), 99.7)), 1e-12)


def colours(panels: Sequence[dict[str, Any]], key: str, unit: float) -> dict[str, float]:
    """The range of the colours of a field, in a unit, as options of `paint`: from zero, or on both sides of it."""
    top = max(top_value(panels, key) / unit, 1e-12)
    return {"vmin": -top if key == "e_v" else 0.0, "vmax": top}


def draw_cells(axes: Any, panel: dict[str, Any], key: str, *, length: float, width: float, alpha: float) -> None:
    """Draw the edges of the cells of a panel over its colours; `length` as in `paint`."""
    loops = np.full((len(panel["x"]), 6, 2), np.nan)  # round each cell, and a gap to the next
    loops[:, :4], loops[:, 4] = panel["x"] / length, panel["x"][:, 0] / length
    edge = "black" if key == "e_v" else "white"
    axes.plot(*loops.reshape(-1, 2).T, color=edge, linewidth=width, alpha=alpha)


def colour_bar(figure: Any, image: Any, axes: Sequence[Any], key: str, symbol: str, **options: Any) -> Any:
    """Add a colour bar with the symbol of a field and the unit of its colours; returns it."""
    bar = figure.colorbar(image, ax=list(axes), extend="both" if key == "e_v" else "max", **options)
    bar.set_label(symbol + (" (MPa)" if key == "von_mises" else ""), fontsize=10)
    bar.ax.tick_params(labelsize=8)
    return bar


def paint(axes: Any, panel: dict[str, Any], key: str, *, length: float, unit: float, **options: Any) -> Any:
    """Paint a panel into axes of Matplotlib: corners carry the nodal means, centres the values of the cells.

    Args:
        axes: `matplotlib.axes.Axes`.
        panel: Of `Section.panel`.
        key: Field.
        length: Unit of the axes, m.
        unit: Unit of the colours.
        **options: Of `axes.tripcolor`, for example norm and cmap.

    Returns:
        What `tripcolor` returns, for a colour bar.
    """
    x = panel["x"] / length
    points = np.concatenate([x, x.mean(axis=1, keepdims=True)], axis=1).reshape(-1, 2)
    value = np.column_stack([panel["corner"][key], panel["cell"][key]]).ravel() / unit
    fan = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    triangles = (5 * np.arange(len(x))[:, None, None] + fan).reshape(-1, 3)
    return axes.tripcolor(*points.T, triangles, value, shading="gouraud", rasterized=True, **options)
