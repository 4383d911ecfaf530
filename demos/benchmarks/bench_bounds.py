# %% [markdown]
# # What a certificate costs
#
# **Why.** `surrogates.homogenise` gives two bounds. The upper one is the energy of a displacement field and costs
# nothing extra; the lower one needs a stress in equilibrium. This benchmark measures the cost of each phase: the
# network, the solver, the bounds.
#
# **Equations.** U - sum_b f_b.K_b^+ f_b <= C <= U, see `micro.voxel.bounds.lower_bound`: one sparse coarse problem, and
# one small factorisation for every subdomain of 4 x 4 x 4 voxels.
#
# **Parameters.** E = 1, nu = 0.3, empty voids. Octet of radius 0.1 and voxels of random density at 20^3, gyroid at
# level 0 at 40^3; accuracies 1e-2 and 1e-3; beginning with zero fields and with those of the pretrained network.
#
# **Numbers.** Processor seconds (all threads together) of each phase, the least of several runs in one process, so
# that loading does not count; steps of conjugate gradients; the gap of the bounds.
#
# **Check.** The bounds enclose the solver's tensor to 1e-8, and are as close as asked for.

# %%
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from micro.threads import asked_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import matplotlib
import numpy as np

from micro.data.cli import Parser, check_count, check_folder
from micro.voxel.cells.frames import make_frame
from micro.voxel.cells.random import make_random
from micro.voxel.cells.tpms import make_tpms
from micro.voxel.solver.homogeniser import Homogeniser, check_size
from surrogates.cells.networks.file import PRETRAINED, load_network
from surrogates.homogenise import effective

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PHASES = ("network", "solver", "bounds")
#: Accuracy that rounding allows.
LEAST = 1e-7


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Certificates.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--n", type=int, default=20, help="voxels per side; the gyroid has twice as many")
    p.add_argument("--accuracy", nargs="+", type=float, default=[1e-2, 1e-3], help="relative gaps of the bounds")
    p.add_argument("--runs", type=int, default=3, help="runs of which the fastest counts")
    p.add_argument("--threads", type=int, default=asked_threads() or 1, help="threads of PyTorch and BLAS")
    p.add_argument("--network", type=Path, default=PRETRAINED, help="network")
    p.add_argument("--output", type=Path, default=Path("results/bench_bounds"), help="folder for the results")
    o = p.parse_args(arguments)
    for name, low in (("n", 4), ("runs", 1), ("threads", 1)):
        check_count(f"--{name}", getattr(o, name), least=low)
    check_size("--n", (2 * o.n,) * 3)
    if not all(LEAST <= accuracy < 1 for accuracy in o.accuracy):
        raise ValueError(f"--accuracy must lie between {LEAST:g} and 1, got {o.accuracy}.")
    check_folder("--output", o.output)
    return o


def make_cells(n: int) -> dict[str, np.ndarray]:
    """Return the cells."""
    return {
        f"octet {n}^3": make_frame("octet", n, 0.1).astype(float),
        f"random densities {n}^3": make_random(n, 0, 0)[0],
        f"gyroid {2 * n}^3": make_tpms("gyroid", 2 * n).astype(float),
    }


# %% [markdown]
# ## Every cell, accuracy and start


# %%
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, check, and write the table: 0 done, 2 bad input."""
    try:
        o = parse(arguments)
        use_threads(o.threads)
        network = load_network(o.network)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    o.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, rho in make_cells(o.n).items():
        exact = Homogeniser(rho, preconditioner="multigrid").solve(tolerance=1e-10).tensor[0].numpy()
        for accuracy in o.accuracy:
            for start in (None, network):
                found = [effective(rho[None], accuracy, network=start, now=time.process_time) for _ in range(o.runs)]
                best = min(found, key=lambda answer: sum(answer.seconds.values()))
                upper, lower = best.upper[0].numpy(), best.lower[0].numpy()
                scale = np.linalg.eigvalsh(exact)[-1]
                assert np.linalg.eigvalsh(upper - exact)[0] > -1e-8 * scale, "an upper bound is below the tensor"
                assert np.linalg.eigvalsh(exact - lower)[0] > -1e-8 * scale, "a lower bound is above the tensor"
                assert bool(best.reached[0]), "the bounds are further apart than asked for"
                row = {"cell": name, "accuracy": accuracy, "start": "zero" if start is None else "network"}
                row |= {phase: round(best.seconds.get(phase, 0.0), 4) for phase in PHASES}
                row |= {"iterations": int(best.iterations[0])}
                row |= {"gap": float(np.max(1 - np.diag(lower) / np.diag(upper)))}
                rows.append(row)
                print(json.dumps(row), flush=True)
    summary = {"threads": o.threads, "runs": o.runs, "rows": rows}
    (o.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(rows, o.output / "bench_bounds.png")
    return 0


def draw(rows: list[dict], path: Path) -> None:
    """Draw the phases, one bar per row of the table."""
    figure, axes = plt.subplots(figsize=(8, 0.35 * len(rows) + 1), layout="constrained")
    left = np.zeros(len(rows))
    for phase in PHASES:
        width = np.array([row[phase] for row in rows])
        axes.barh(range(len(rows)), width, left=left, label=phase)
        left += width
    axes.set_yticks(range(len(rows)), [f"{row['cell']}, {row['accuracy']:g}, {row['start']}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("processor seconds")
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
