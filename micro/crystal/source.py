"""Source of paper 1's data: random stretch paths and the stress of the Taylor polycrystal along them.

References:
    Liu et al. (2022), section 3, doi:10.1016/j.jmps.2021.104668.
"""

import argparse
import dataclasses
from typing import Any

import numpy as np
import torch

from micro.crystal.constants import TOLERANCE
from micro.crystal.materials import CrystalParameters
from micro.crystal.paths import random_walk
from micro.crystal.taylor import TaylorPolycrystal
from micro.data.cli import as_range, check_between, check_count, check_memory
from micro.data.source import Block, Field, Source
from micro.tensors import PATH_ORDER

COMPONENTS = f"component {PATH_ORDER.names}"

#: Memory of a block in bytes, measured: per crystal in a step, per stored point of a path, per knot.
CRYSTAL_BYTES, POINT_BYTES, KNOT_BYTES = 10_000, 500, 1000
#: Solver steps of a path, beyond which it would take days.
MOST_STEPS = 10**7


class TaylorSource(Source):
    """Random walks of the right stretch, solved with the Taylor polycrystal of magnesium.

    Args:
        seed: seed of the paths.
        strain: range of the largest strain of a path, drawn evenly in the logarithm.
        steps: stored steps per path.
        knots: range of the number of intervals per path.
        intervals: "random" or "fixed".
        duration: range of durations, s, drawn evenly in the logarithm.
        margin: smallest principal stretch allowed.
        grains: grains of the polycrystal.
        grain_seed: seed of their orientations.
        tolerance: bound on the error of a solver step, relative to the stress of a grain.
        device: torch device.
        threads: torch threads.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "taylor"

    def __init__(
        self,
        seed: int,
        *,
        strain: tuple[float, float],
        steps: int,
        knots: tuple[int, int],
        intervals: str,
        duration: tuple[float, float],
        margin: float,
        grains: int,
        grain_seed: int,
        tolerance: float,
        device: str,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self.seed = seed
        self.walk: dict[str, Any] = {
            "strain": strain,
            "steps": steps,
            "knots": knots,
            "intervals": intervals,
            "duration": duration,
            "margin": margin,
        }
        random_walk([], seed, **self.walk)  # checks the arguments before any work begins
        material = CrystalParameters()
        self.polycrystal = TaylorPolycrystal(
            grains, seed=grain_seed, parameters=material, tolerance=tolerance, device=device
        )
        self.parameters = {
            "paths": {key: list(value) if isinstance(value, tuple) else value for key, value in self.walk.items()},
            "grains": grains,
            "grain_seed": grain_seed,
            "crystal": dataclasses.asdict(material),
        }
        self.tolerances = {"step": tolerance}
        self.fields = {
            "U": Field("1", (steps + 1, 6), f"time, {COMPONENTS} of the right stretch"),
            "stress": Field("Pa", (steps + 1, 6), f"time, {COMPONENTS} of the mean Cauchy stress"),
            "time": Field("1", (steps + 1,), "time relative to the duration"),
            "duration": Field("s", (), "duration of the path"),
        }

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of paths and polycrystal."""
        add = parser.add_argument
        add("--strain", default=[0.5], type=float, nargs="+", metavar="X", help="largest strain, or its range")
        add("--duration", default=[1e-6, 1e-4], type=float, nargs="+", metavar="X", help="duration in s, or its range")
        add("--steps", default=200, type=int, metavar="N", help="stored steps per path")
        add("--knots", default=[10], type=int, nargs="+", metavar="N", help="intervals per path, or their range")
        add("--intervals", default="random", choices=("random", "fixed"), help="lengths of the intervals")
        add("--margin", default=0.2, type=float, metavar="X", help="smallest principal stretch allowed")
        add("--grains", default=128, type=int, metavar="N", help="grains of the polycrystal")
        add("--grain-seed", default=0, type=int, metavar="S", help="seed of their orientations")
        add("--tolerance", default=TOLERANCE, type=float, metavar="X", help="bound on the error of a solver step")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "TaylorSource":
        """Make the source from parsed options."""
        for name in ("steps", "grains"):
            check_count(name, getattr(arguments, name))
        if not 0 <= arguments.grain_seed < 2**63:
            raise ValueError(f"grain-seed must lie between 0 and 2**63 - 1, got {arguments.grain_seed}.")
        for strain in as_range("strain", arguments.strain):
            check_between("strain", strain, 1e-9, 100.0)
        for duration in as_range("duration", arguments.duration):
            check_between("duration", duration, 1e-12, 1e9)
        for knots in arguments.knots:
            check_count("knots", knots)
        check_count("steps", arguments.steps, MOST_STEPS)
        check_between("tolerance", arguments.tolerance, 1e-12, 0.5)
        sample = arguments.grains * CRYSTAL_BYTES + arguments.steps * POINT_BYTES + max(arguments.knots) * KNOT_BYTES
        check_memory(
            f"blocks of {arguments.block} samples, {arguments.grains} grains and {arguments.steps} steps",
            min(arguments.block, arguments.samples) * sample,
            arguments.device,
        )
        return cls(
            arguments.seed,
            strain=as_range("strain", arguments.strain),
            steps=arguments.steps,
            knots=as_range("knots", arguments.knots),
            intervals=arguments.intervals,
            duration=as_range("duration", arguments.duration),
            margin=arguments.margin,
            grains=arguments.grains,
            grain_seed=arguments.grain_seed,
            tolerance=arguments.tolerance,
            device=arguments.device,
            threads=arguments.threads,
        )

    def solve(self, ids: np.ndarray) -> Block:
        """Make the samples of one block; see `fields` for the arrays."""
        paths = random_walk([int(sample) for sample in ids], self.seed, **self.walk)
        time = torch.from_numpy(paths.time * paths.duration[:, None])
        with torch.no_grad():
            result = self.polycrystal.solve(torch.from_numpy(paths.U), time)
        stress = result.stress.cpu().numpy()
        solved = zip(result.ok.tolist(), result.reason, strict=True)
        reason = ["" if ok else text or "the solver failed" for ok, text in solved]
        stress[[bool(text) for text in reason]] = np.nan  # a stress that is no solution must not be taken for one
        return Block({"U": paths.U, "stress": stress, "time": paths.time, "duration": paths.duration}, reason)
