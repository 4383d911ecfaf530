"""Pictures of the learning study of paper 1: figures 1, 2 and 3, and the errors against paths, width and sampling."""

from pathlib import Path
from typing import Any

import numpy as np
from learning import ROUTES, Study
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from surrogates.path.data import mandel
from surrogates.path.properties import tensile
from surrogates.tensors import deviator

COMPONENTS = ("11", "22", "33")
GPA = 1e9
FIELDS = ("strain", "route", "paths", "width", "modes", "steps")


def best_of(results: dict[str, Any], strain: int) -> str:
    """The network with the smallest error of the deviator on random paths of a strain."""
    own = {name: net for name, net in results["networks"].items() if name.startswith(f"{strain}-R-")}
    return min(own, key=lambda name: float(own[name]["tests"]["R"]["deviatoric"]))


def draw_path(left: Axes, right: Axes, results: dict[str, Any], study: Study, models: dict[str, Any]) -> None:
    """Stress and deviator of one test path: the polycrystal, and the network with the smallest error."""
    strain = max(study.options.strains)
    name = best_of(results, strain)
    held = study.tests("R", strain)
    truth = mandel(held.stress[:1])
    found = study.predict(*models[name], held.U[:1], float(held.duration[0]))
    t = held.time[0]
    for axis, change in ((left, lambda x: x), (right, deviator)):
        for k, component in enumerate(COMPONENTS):
            axis.plot(t, change(truth)[0, :, k] / GPA, f"C{k}", label=component)
            axis.plot(t, change(found)[0, :, k] / GPA, f"C{k}--")
        axis.set_xlabel("time")
        axis.grid(alpha=0.3)
    left.set(title=f"a test path, {strain} %: stress, GPa", ylabel=f"dashed: {name}")
    right.set(title="its deviator, GPa")
    left.legend(fontsize=7)


def draw_against(axis: Axes, results: dict[str, Any], key: str, label: str) -> None:
    """Test errors against a field of the networks, the others of which are equal; nothing where there is but one."""
    groups: dict[tuple[Any, ...], list[tuple[float, float, float]]] = {}
    for net in results["networks"].values():
        if net["protocol"] in ("R", "R+"):
            rest = tuple(net[name] for name in FIELDS if name != key)
            test = net["tests"]["R"]
            groups.setdefault(rest, []).append((net[key], 100 * test["full"], 100 * test["deviatoric"]))
    many = {rest: sorted(points) for rest, points in groups.items() if len(points) > 1}
    for colour, (rest, points) in enumerate(many.items()):
        x, full, deviatoric = zip(*points, strict=True)
        axis.loglog(x, full, f"C{colour}o-", label=f"{rest[0]} %, {rest[1]}: full")
        axis.loglog(x, deviatoric, f"C{colour}x:", label="deviator")
    if not many:
        axis.set_axis_off()
        return
    values = sorted({point[0] for points in many.values() for point in points})
    axis.set(xlabel=label, ylabel="test error, %")
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.minorticks_off()
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)


def draw_errors(results: dict[str, Any], study: Study, models: dict[str, Any], path: Path) -> None:
    """A test path, and errors against paths, width and sampling."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.5), layout="constrained")
    draw_path(axes[0, 0], axes[0, 1], results, study, models)
    draw_against(axes[0, 2], results, "paths", "training paths")
    draw_against(axes[0, 3], results, "steps", "updates")
    draw_against(axes[1, 0], results, "width", "width of the hidden layers")
    draw_against(axes[1, 1], results, "modes", "modes per component")
    o = study.options
    for name, row in results["resolution"].items():
        if any(name.endswith(f"-{o.width}-{route}-{o.updates}") for route in ROUTES):
            axes[1, 2].semilogx([int(n) for n in row], [100 * e for e in row.values()], "o-", label=name)
    axes[1, 2].set(xlabel="steps at which the path is known", ylabel="test error, full, %", ylim=(0, None))
    axes[1, 2].legend(fontsize=6)
    axes[1, 2].grid(alpha=0.3)
    draw_cost(axes[1, 3], results, max(o.strains))
    figure.savefig(path, dpi=75)


def draw_cost(axis: Axes, results: dict[str, Any], strain: int) -> None:
    """On-line error of the deviator against the operations of one evaluation, one colour per route."""
    for colour, route in enumerate(ROUTES):
        nets = [net for net in results["networks"].values() if (net["strain"], net["route"]) == (strain, route)]
        points = [(n["operations"], 100 * n["tests"]["R"]["deviatoric_online"]) for n in nets if n["protocol"] == "R"]
        if points:
            axis.loglog(*zip(*points, strict=True), f"C{colour}o", label=route)
    axis.set(xlabel="operations per evaluation", ylabel="on-line error, deviator, %")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3, which="both")


def draw_properties(curves: dict[str, Any], laws: list[str], path: Path) -> None:
    """Figures 2 and 3 for some laws: histories that part, held ramps, tension along turned axes."""
    figure, axes = plt.subplots(3, len(laws), figsize=(3 * len(laws), 7.5), layout="constrained", squeeze=False)
    for column, name in enumerate(laws):
        rows = (axes[0, column], axes[1, column], axes[2, column])
        for axis, case in zip(rows[:2], ("part", "held"), strict=True):
            stress = deviator(curves[name][case])[:, :, 0] / GPA
            t = np.linspace(0, 1, stress.shape[1])
            for row in stress:
                axis.plot(t, row, lw=1)
        drawn = tensile(deviator(curves[name]["turned"]), curves["angles"]) / GPA
        for row in drawn:
            rows[2].plot(np.linspace(0, 1, len(row)), row, lw=1)
        rows[0].set_title(name, fontsize=8)
        for axis in rows:
            axis.grid(alpha=0.3)
    for row, text in enumerate(("parting at 0.5: s11, GPa", "held ramps: s11, GPa", "turned tension: s, GPa")):
        axes[row, 0].set_ylabel(text)
        low, high = (f(axis.get_ylim()[k] for axis in axes[row]) for k, f in enumerate((min, max)))
        for axis in axes[row]:
            axis.set_ylim(low, high)
    figure.savefig(path, dpi=75)
