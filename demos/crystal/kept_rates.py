# %% [markdown]
# # What does it cost to keep the network's output of the recurrent law for some steps?
#
# **Why.** The recurrent law evaluates its network at every step, and in a run a step strains by 5e-4 only. The network
# gives the strengths, viscosities, rates, back strains and targets of the elements (`surrogates/path/overlay.py`). They
# could be kept until the material has been strained by some amount, and only the elements be advanced at every step.
#
# **What is measured.** The law with constants that are kept, along the paths of data sets cut into short steps, as in a
# run: the error against the polycrystal, the difference from the law that evaluates its network always, and the
# fraction of evaluations that are left, of points and of blocks of 16 points, since the compiled law advances 16 points
# at a time. The constants are computed anew at a point after a length of the strain path since the last time; with
# `turn` also where the increment of strain turns by more than 60 degrees, with `rate` also where its rate has doubled
# or halved.
#
# **Cost.** The time of a point-step of the compiled law, and of one with the smallest network: their difference is what
# evaluating the network takes, and the most that can be saved.
#
# **Check.** Constants that are never kept give the law itself.

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

import numpy as np
import torch
from torch import Tensor

from micro.data.cli import Parser, check_count, check_folder
from micro.data.files import write_whole
from surrogates.artifact import load_law
from surrogates.artifact.compiled import update
from surrogates.artifact.compiled_recurrent import CompiledRecurrentLaw
from surrogates.artifact.shipped import locate
from surrogates.path.data import Samples, load_samples, mandel
from surrogates.path.errors import follow, refined, relative_errors
from surrogates.path.overlay import Overlay, Sizes, Step
from surrogates.path.recurrent import RecurrentLaw
from surrogates.tensors import deviator

#: Lengths of the strain path between two evaluations, per cent, and what else leads to one.
LENGTHS = (0.1, 0.2, 0.3)
CRITERIA = ((), ("turn",), ("turn", "rate"))
COSINE, FACTOR = 0.5, 2.0  # of a turn, and of a change of rate
LANES = 16  # points that the compiled law advances together
ONE_PIECE = 0.1  # largest strain of a piece of a step: the steps are short, and none is cut


class Kept(Overlay):
    """The learned step with constants that are kept.

    Args:
        sizes: Sizes of the law.
        length: Length of the strain path, per cent, after which the constants of a point are computed anew.
        criteria: What else leads to that, "turn" and "rate".
    """

    def __init__(self, sizes: Sizes, length: float, criteria: Sequence[str]) -> None:
        super().__init__(sizes)
        self.length, self.criteria = length, criteria
        self.kept: tuple[Tensor, Tensor] | None = None
        self.stale = torch.zeros(0, dtype=torch.bool)
        self.points = self.blocks = 0.0
        self.steps = 0

    def forward(self, e: Tensor, m: Tensor, E: Tensor, volume: Tensor, D: Tensor, dt: Tensor) -> Step:
        """Advance by one step; see `Overlay`."""
        size = D.norm(dim=1)
        direction, rate = D / size.clamp_min(1e-12).unsqueeze(1), size / dt
        if self.kept is None:
            self.stale = torch.ones_like(size, dtype=torch.bool)
            self.path, self.seen, self.speed = size, direction, rate
        else:
            self.path = self.path + size
            self.stale = self.path > self.length
            if "turn" in self.criteria:
                self.stale = self.stale | ((direction * self.seen).sum(1) < COSINE)
            if "rate" in self.criteria:
                self.stale = self.stale | (rate > FACTOR * self.speed) | (FACTOR * rate < self.speed)
        there = self.stale
        self.path = torch.where(there, size, self.path)
        self.seen = torch.where(there.unsqueeze(1), direction, self.seen)
        self.speed = torch.where(there, rate, self.speed)
        self.points += float(there.double().mean())
        self.blocks += float(torch.stack([part.any() for part in there.split(LANES)]).double().mean())
        self.steps += 1
        return super().forward(e, m, E, volume, D, dt)

    def invariants(self, T: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        """What the network and the constants are computed from: the kept values, and new ones where they are stale."""
        features, basis = super().invariants(T, volume)
        if self.kept is not None:
            features = torch.where(self.stale.unsqueeze(1), features, self.kept[0])
            basis = torch.where(self.stale.reshape(-1, 1, 1), basis, self.kept[1])
        self.kept = (features, basis)
        return features, basis


def law_with(module: Any, overlay: Overlay) -> RecurrentLaw:
    """The recurrent law of an artifact with another form of its learned step."""
    law = RecurrentLaw(overlay, bulk=module.bulk, shear=module.shear, limit=ONE_PIECE)
    law.overlay.load_state_dict(module.overlay.state_dict())
    return law.eval()


def study(module: Any, samples: Samples, factor: int) -> list[dict[str, Any]]:
    """One row per length and criterion: errors, differences from the law itself, evaluations that are left."""
    fine, sizes = refined(samples, factor), Sizes.of(module.overlay.state_dict())
    truth = deviator(mandel(samples.stress))
    plain = deviator(follow(law_with(module, Overlay(sizes)), fine))[:, ::factor]
    rows = [
        {"length": 0.0, "criteria": "", "error": _mean(plain, truth), "difference": 0.0, "points": 1.0, "blocks": 1.0}
    ]
    for length in (0.0, *LENGTHS):
        for criteria in CRITERIA if length else ((),):
            kept = Kept(sizes, length, criteria)
            found = deviator(follow(law_with(module, kept), fine))[:, ::factor]
            row = {
                "length": length, "criteria": "+".join(criteria), "error": _mean(found, truth),
                "difference": _mean(found, plain), "points": kept.points / kept.steps,
                "blocks": kept.blocks / kept.steps,
            }  # fmt: skip
            if length:
                rows.append(row)
            elif row["difference"] != 0.0:
                raise AssertionError(f"Constants that are never kept must give the law, got {row['difference']:.1e}.")
    return rows


def _mean(found: Tensor, truth: Tensor) -> float:
    return float(relative_errors(found, truth).mean())


def cost(sizes: Sizes, points: int = 4096, repeats: int = 15) -> float:
    """Microseconds of a point-step of the compiled law with random weights, the least of some."""
    law = CompiledRecurrentLaw(RecurrentLaw(Overlay(sizes).float(), bulk=48e9, shear=25e9))
    rng = np.random.default_rng(0)
    L = 2e-4 * rng.standard_normal((points, 3, 3))
    F, state, least = np.tile(np.eye(3), (points, 1, 1)), np.zeros((points, 11 + sizes.state)), np.inf
    for _ in range(repeats):
        F = F + L @ F
        start = time.perf_counter()
        _, state = update(law, F, state, 1e-8)
        least = min(least, time.perf_counter() - start)
    return 1e6 * least / points


def parts(sizes: Sizes) -> dict[str, float]:
    """Microseconds of a point-step: of the law, without its hidden layers, and without its invariants as well."""
    narrow = sizes._replace(width=8)
    return {"law": cost(sizes), "narrow": cost(narrow), "least": cost(narrow._replace(mixed=1, products=1, basis=1))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    p = Parser(
        description="Constants of the recurrent law that are kept.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--law", default="magnesium-recurrent", help="artifact of a recurrent law")
    p.add_argument("--data", type=Path, nargs="+", required=True, help="data sets of strain paths")
    p.add_argument("--paths", type=int, default=32, help="paths of each set, the last ones")
    p.add_argument("--factor", type=int, default=4, help="steps into which a step of a path is cut")
    p.add_argument("--output", default="results/kept_rates", help="folder for the results")
    try:
        o = p.parse_args(arguments)
        check_count("--paths", o.paths)
        check_count("--factor", o.factor)
        check_folder("--output", o.output)
        module = load_law(locate(o.law)).module
        sets = {str(path): load_samples([path], o.paths)[1] for path in o.data}
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    results: dict[str, Any] = {"sets": {}, "cost": parts(Sizes.of(module.overlay.state_dict()))}
    for name, samples in sets.items():
        fine = refined(samples, o.factor)
        step = np.linalg.norm(np.diff(fine.U, axis=1), axis=-1)
        results["sets"][name] = {"step": float(np.median(step)), "rows": study(module, samples, o.factor)}
    lines = ["| set | length, % | also after | error, % | difference, % | points, % | blocks, % |", "|---" * 7 + "|"]
    for name, found in results["sets"].items():
        for r in found["rows"]:
            numbers = " | ".join(f"{100 * r[key]:.2g}" for key in ("error", "difference", "points", "blocks"))
            lines.append(f"| {Path(name).name} | {r['length']:g} | {r['criteria'] or '-'} | {numbers} |")
    lines.append(
        "\nMicroseconds of a point-step: " + ", ".join(f"{k} {v:.2f}" for k, v in results["cost"].items()) + "."
    )
    folder = Path(o.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "table.md", "\n".join(lines) + "\n")
    write_whole(folder / "summary.json", json.dumps({"options": vars(o), **results}, indent=1, default=str) + "\n")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
