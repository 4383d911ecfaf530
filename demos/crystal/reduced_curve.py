# %% [markdown]
# # How many grains does a polycrystal need?
#
# **Why.** A Taylor average over 128 grains costs 128 times a grain. A few of the grains with positive weights, chosen
# by empirical cubature (`micro.crystal.reduced`), give nearly the same mean stress, because the stress of a grain
# does not depend on the others. This study shows the error against the number of grains that are kept, on paths that
# had no part in the choice: random walks, and points of an impact.
#
# **Two targets.** The 128 random grains themselves; and the isotropic limit, 512 orientations that are spread evenly
# (`even_texture`), of which the few are chosen as well. Beside them stand grains drawn at random with equal weights,
# whose error falls with the square root of their number, and few evenly spread grains with equal weights, which need
# no choice.
#
# **Error** of a path, and root mean square over the paths:
#
#     e^2 = int |sum_i w_i s_i - s|^2 dt / int |s|^2 dt,    s the deviator of the mean Cauchy stress.
#
# **Check.** The error of all grains with their own weights is zero to round-off, and weights are positive with sum
# one. The summary also has the error of one half of each target (`half`), which bounds how far the target itself is
# from its limit.
#
# Reference: Hernandez, Caicedo and Ferrer (2017), doi:10.1016/j.cma.2016.10.022.

# %%
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np
import torch

from micro import reduce
from micro.crystal import reduced
from micro.crystal.materials import load_material
from micro.crystal.polycrystal_law import make_grains
from micro.crystal.reduced import Deviations
from micro.crystal.texture import Texture, even_texture, random_texture
from micro.data.cli import Parser, check_count, check_folder
from micro.data.files import write_whole

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DRAWS = 20  # sets of random grains with equal weights, whose errors are averaged

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Error of reduced polycrystals.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--material", default="magnesium", help="name or file of the material")
    p.add_argument("--keep", type=int, nargs="+", default=[4, 6, 8, 12, 16, 24, 32, 48, 64], help="grains kept")
    p.add_argument("--walks", type=int, default=64, help="random walks, and as many held out")
    p.add_argument("--isotropic", type=int, default=512, help="evenly spread grains of the isotropic target; 0: none")
    p.add_argument("--isotropic-walks", type=int, default=24, help="random walks of the isotropic target")
    p.add_argument("--history", type=Path, nargs="*", default=[], help="recorded F of an impact; none: drawn paths")
    p.add_argument("--seed", type=int, default=1, help="seed of the walks")
    p.add_argument("--output", default="results/reduced_curve", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("walks", "isotropic_walks"):
        check_count(name, getattr(o, name), 10**5)
    if min(o.keep) < 1 or max(o.keep) > 128:
        raise ValueError(f"--keep must be numbers between 1 and 128, got {o.keep}.")
    check_folder("--output", o.output)
    return o


def options(o: argparse.Namespace, walks: int) -> argparse.Namespace:
    """Options of `micro.reduce` for the paths."""
    words = ["--output", "unused.json", "--keep", "1", "--walks", str(walks), "--path-seed", str(o.seed)]
    words += ["--history", *map(str, o.history)] if o.history else []
    return reduce.make_parser().parse_args(words)


# %% [markdown]
# ## Solve
# The stress histories of all grains, once; each reduced set is then a matter of linear algebra.


# %%
def curve(o: argparse.Namespace, texture: Texture, base: int, walks: int, thin: int) -> dict[str, Any]:
    """Errors of reduced sets of a texture, and of random and evenly spread grains, by number of grains."""
    chosen = options(o, walks)
    kinds = [reduce.walks(chosen), reduce.impact(chosen)]
    g, rows, counts = len(texture.weights), [], sorted(k for k in o.keep if k <= len(texture.weights))
    others = [even_texture(keep).orientations for keep in counts]  # they take part with the weight zero
    weights = torch.cat([texture.weights, torch.zeros(sum(counts), dtype=torch.float64)])
    grains = make_grains(Texture(torch.cat([texture.orientations, *others]), weights), load_material(o.material))
    found = {}
    for kind in kinds:
        every = slice(None, None, thin if kind.name == "impact" else 1)
        parts = [paths.part(every) for paths in (kind.training, kind.held_out)]
        found[kind.name] = tuple(reduced.deviations(grains, part, instants=50, progress=True) for part in parts)
    matrix = np.mean([pair[0].matrix() for pair in found.values()], axis=0)[:g, :g]
    assert max(rms(pair[1], np.arange(g), grains.weights[:g]) for pair in found.values()) < 1e-9
    rng, end = np.random.default_rng(0), g
    for keep in counts:
        even, end = np.arange(end, end + keep), end + keep
        start = time.perf_counter()
        index, weights = reduced.choose(matrix, keep)
        assert (weights > 0).all() and abs(weights.sum() - 1) < 1e-12
        draws = [rng.choice(g, keep, replace=False) for _ in range(DRAWS)]
        row: dict[str, Any] = {"grains": keep, "kept": len(index), "seconds": time.perf_counter() - start}
        for name, (training, held) in found.items():
            row[name] = {
                "training": rms(training, index, weights), "held_out": rms(held, index, weights),
                "random": float(np.mean([rms(held, draw, np.full(keep, 1 / keep)) for draw in draws])),
                "even": rms(held, even, np.full(keep, 1 / keep)),
            }  # fmt: skip
        rows.append(row)
        held = [row[kind]["held_out"] for kind in ("walks", "impact")]
        sys.stdout.write(f"{keep} of {g}: walks {held[0]:.4f}, impact {held[1]:.4f}\n")
        sys.stdout.flush()
    half = np.arange(g) % base < base // 2
    equal = np.full(half.sum(), 1 / half.sum())
    halves = {name: rms(pair[1], np.flatnonzero(half), equal) for name, pair in found.items()}
    return {"grains": g, "rows": rows, "half": halves}


def rms(deviations: Deviations, index: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square over the paths of the errors of some grains."""
    return float(np.sqrt(np.mean(deviations.errors(index, weights) ** 2)))


# %% [markdown]
# ## Figure and table


# %%
def draw(results: dict[str, Any], path: Path) -> None:
    """Error against grains, one panel per kind of path."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, kind in zip(axes, ("walks", "impact"), strict=True):
        for (name, result), colour in zip(results.items(), ("C0", "C1"), strict=False):
            n = [row["grains"] for row in result["rows"]]
            for which, line in (("held_out", "o-"), ("training", ":"), ("random", "--"), ("even", "x-.")):
                errors = [100 * row[kind][which] for row in result["rows"]]
                axis.loglog(n, errors, line, color=colour, label=f"{name}, {which.replace('_', ' ')}")
        axis.set(title=kind, xlabel="grains", xticks=n, xticklabels=n)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("error of the mean deviator, %")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def table(results: dict[str, Any]) -> str:
    """The held-out errors as a table in Markdown."""
    lines = []
    for name, result in results.items():
        heads = ["grains", "walks", "impact", "random: walks", "impact", "even: walks", "impact"]
        lines += [f"{name}:", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in result["rows"]:
            numbers = [row[kind][which] for which in ("held_out", "random", "even") for kind in ("walks", "impact")]
            lines.append(f"| {row['grains']} | " + " | ".join(f"{100 * x:.2g} %" for x in numbers) + " |")
        lines.append("")
    return "\n".join(lines)


# %%
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    try:
        o = parse(arguments)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    folder = Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    results = {"128 random grains": curve(o, random_texture(128, 0), 128, o.walks, 1)}
    if o.isotropic:
        results["isotropic limit"] = curve(o, even_texture(o.isotropic), 2, o.isotropic_walks, 4)
    draw(results, folder / "reduced_curve.png")
    content = {"options": vars(o), "results": results}
    write_whole(folder / "summary.json", json.dumps(content, indent=1, default=str) + "\n")
    sys.stdout.write(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
