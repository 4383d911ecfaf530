"""Figures of the studies: the deformed box with the bars at the control point, and convergence with the cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from load_cases import CASES, LoadCase

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

INK, LAW = "#023047", "#fb8500"


def draw_deformed(shown: list[tuple[LoadCase, str, Any, dict[str, Any]]], n: int, height: float, path: Path) -> None:
    """The deformed box and the bar stresses at the control point, one column per case.

    Args:
        shown: Of each column the case, its title, the skin (`fem.io.fields.surface`) and the stress of the bars by run.
        n: Cells per side of the lattice.
        height: Of the figure, inches.
        path: The file.
    """
    figure = plt.figure(figsize=(5.5 * len(shown), height), layout="constrained")
    for i, (case, title, skin, bars) in enumerate(shown):
        axis = figure.add_subplot(2, len(shown), i + 1, projection="3d", proj_type="ortho")
        x, u = skin["x"] + skin["displacement"], skin["displacement"][..., 2].mean(axis=1)
        colours = plt.get_cmap("viridis")((u - u.min()) / max(np.ptp(u), 1e-300))
        axis.add_collection3d(Poly3DCollection(x, facecolors=colours, edgecolors="0.2", linewidths=0.15))
        low, high = x.reshape(-1, 3).min(axis=0), x.reshape(-1, 3).max(axis=0)
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(0.0, max(high[2], case.box[2])))
        axis.set_box_aspect(np.array([*(high - low)[:2], max(high[2], case.box[2])]))
        axis.set_title(title)
        axis.view_init(20, -60)
        draw_bars(figure.add_subplot(2, len(shown), len(shown) + i + 1), bars, n)
    save(figure, path)


def draw_bars(axis: Any, bars: dict[str, np.ndarray], n: int) -> None:
    """Stress of the bars of the lattice, in increasing order, beside what the law decodes."""
    order = np.argsort(bars["lattice"])
    ticks = np.arange(1, len(order) + 1)
    axis.bar(ticks - 0.2, bars["lattice"][order], 0.4, color=INK, label=f"lattice, n = {n}")
    axis.bar(ticks + 0.2, bars["law"][order], 0.4, color=LAW, label="law, decoded")
    axis.axhline(0.0, color="0.3", linewidth=0.8)
    axis.set(xlabel="bar at the control point", ylabel="stress", xticks=ticks)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def draw_convergence(reports: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Displacement, energy and dissipation against epsilon, one column per case."""
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
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure whole or not at all, and close it."""
    part = path.with_name(f".{path.name}.part.png")
    figure.savefig(part, dpi=150)
    plt.close(figure)
    part.replace(path)
