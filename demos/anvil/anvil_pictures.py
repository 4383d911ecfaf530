"""Pictures of runs of the Taylor anvil with several laws: sections, histories, and an animation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from anvil_series import equivalent_strain
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PolyCollection
from PIL import Image

from fem.discretisation.strain_measures import cauchy_stress, von_mises
from fem.io.files import replacing

Run = dict[str, np.ndarray]
MILLI, MICRO, MEGA = 1e3, 1e6, 1e-6
SHOWN = 1e-6  # s, the time of the paper's pictures
FRAMES, COLOURS, MILLISECONDS, HOLD = 45, 64, 110, 1500  # of an animation; the last frame is held


def residual(run: Run) -> np.ndarray:
    """Von Mises stress of the cells of the section at the end, MPa."""
    cells = run["section_cells"]
    return np.asarray(MEGA * von_mises(cauchy_stress(run["F"][cells], run["P"][cells])))


def outline(run: Run, record: int) -> np.ndarray:
    """Edges (k, 2, 2) of the contour of the section in a record, mm: the edges that belong to one cell only."""
    edges = lambda corners: np.stack([corners, np.roll(corners, -1, axis=1)], axis=2).reshape(-1, 2, 2)
    grid = np.round(1e9 * run["section_reference"]).astype(np.int64).tolist()
    keys = [tuple(sorted(map(tuple, edge))) for edge in edges(np.array(grid)).tolist()]
    alone = np.array([keys.count(key) == 1 for key in keys])
    return np.asarray(MILLI * edges(run["sections"][record])[alone])


def half(x: np.ndarray, value: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells of one half of a section: side 1 is x > 0, -1 is x < 0."""
    chosen = side * x[..., 0].mean(axis=1) > 0.0
    return x[chosen], value[chosen]


def cells_of(axis: Any, x: np.ndarray, value: np.ndarray, norm: Any, colours: str) -> PolyCollection:
    """Draw the cells (m, 4, 2), mm, with their values."""
    patches = PolyCollection(x, array=value, norm=norm, cmap=colours, edgecolors="face", linewidths=0.4)
    axis.add_collection(patches)
    return patches


def wall(axis: Any, wide: float, high: float) -> None:
    """Wall, limits and frame of a section, mm."""
    axis.fill_between([-wide, wide], -0.04 * high, 0.0, facecolor="0.8", edgecolor="0.5", hatch="////", linewidth=0.0)
    axis.set(xlim=(-wide, wide), ylim=(-0.04 * high, high), aspect="equal")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)


def draw_sections(runs: dict[str, Run], reference: str, title: str, path: Path) -> None:
    """Sections of all laws at 1 us and at the end, each with the contour of the reference as a line."""
    truth = runs[reference]
    early = int(np.argmin(np.abs(truth["time"] - SHOWN)))
    rows = (
        ("von Mises (MPa)", early, lambda run: MEGA * run["section_stress"][early], "inferno"),
        ("von Mises (MPa)", -1, residual, "inferno"),
        ("equivalent strain", -1, lambda run: equivalent_strain(run["F"][run["section_cells"]]), "viridis"),
    )
    figure, axes = plt.subplots(
        3, len(runs), figsize=(1.45 * len(runs) + 1.2, 9.0), squeeze=False, layout="constrained"
    )
    for line, (label, record, values, colours) in zip(axes, rows, strict=True):
        found = {name: values(run) for name, run in runs.items()}
        norm = plt.Normalize(0.0, float(np.percentile(found[reference], 99.5)))
        contour = outline(truth, record)
        x_all = MILLI * np.concatenate([run["sections"][record].reshape(-1, 2) for run in runs.values()])
        wide, high = 1.1 * np.abs(x_all[:, 0]).max(), 1.04 * x_all[:, 1].max()
        for axis, (name, run) in zip(line, runs.items(), strict=True):
            image = cells_of(axis, MILLI * run["sections"][record], found[name], norm, colours)
            if name != reference:
                axis.add_collection(LineCollection(contour, colors="deepskyblue", linewidths=0.9))
            wall(axis, wide, high)
            axis.set_title(name if record == early else "", fontsize=9)
        line[0].set_ylabel(f"{label}, {MICRO * truth['time'][record]:.3g} us\nz (mm)", fontsize=8)
        figure.colorbar(image, ax=list(line), pad=0.01, aspect=25, extend="max").ax.tick_params(labelsize=7)
    figure.suptitle(f"{title}. Blue: contour with {reference}", fontsize=10)
    save(figure, path)


def draw_histories(runs: dict[str, Run], reference: str, title: str, path: Path) -> None:
    """Length, foot radius, force on the wall and twin fraction over time."""
    figure, axes = plt.subplots(2, 2, figsize=(8.0, 5.6), layout="constrained")
    for number, (name, run) in enumerate(runs.items()):
        time = MICRO * run["time"]
        middle = 0.5 * (time[1:] + time[:-1])
        style = {"color": "black", "linewidth": 2.2} if name == reference else {"color": f"C{number}", "linewidth": 1.1}
        axes[0, 0].plot(time, MILLI * run["length"], label=name, **style)
        axes[0, 1].plot(time, MILLI * run["foot_radius"], **style)
        force = np.diff(run["impulse"]) / np.diff(run["time"])
        axes[1, 0].plot(middle[1:], force[1:], **style)  # in the first interval a layer of nodes lands
        if run["twin_fraction_history"].any():
            axes[1, 1].plot(time, 100.0 * run["twin_fraction_history"], **style)
    labels = ("length (mm)", "foot radius (mm)", "force on the wall (N)", "mean twin fraction (%)")
    for axis, label in zip(axes.ravel(), labels, strict=True):
        axis.set(xlabel="time (us)", ylabel=label)
    axes[0, 0].legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def animate(left: Run, right: Run, names: tuple[str, str], title: str, path: Path) -> None:
    """The impact as a GIF: the left half of the section with one law, the right half with another."""
    records = np.unique(np.linspace(0, min(len(left["time"]), len(right["time"])) - 1, FRAMES).round().astype(int))
    norm = plt.Normalize(0.0, MEGA * float(np.percentile(left["section_stress"][records], 99.5)))
    x_all = MILLI * np.concatenate([run["sections"][records].reshape(-1, 2) for run in (left, right)])
    wide, high = 1.1 * np.abs(x_all[:, 0]).max(), 1.03 * x_all[:, 1].max()
    images = []
    for record in records:
        figure, axis = plt.subplots(figsize=(3.4, 5.4), dpi=75, layout="constrained")
        for run, side in ((left, -1), (right, 1)):
            image = cells_of(axis, *half(MILLI * run["sections"][record], MEGA * run["section_stress"][record], side),
                             norm, "inferno")  # fmt: skip
        axis.axvline(0.0, color="white", linewidth=0.8)
        wall(axis, wide, high)
        axis.set_title(f"{title}\n{names[0]} | {names[1]}\n{MICRO * left['time'][record]:.1f} us", fontsize=8)
        axis.set(xlabel="x (mm)", ylabel="z (mm)")
        figure.colorbar(image, ax=axis, label="von Mises stress (MPa)", extend="max")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        images.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS))
    durations = [MILLISECONDS] * (len(images) - 1) + [HOLD]
    with replacing(path) as part:
        images[0].save(part, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)
    plt.close(figure)
