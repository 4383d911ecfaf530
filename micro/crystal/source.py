"""Source of paper 1's data: strain paths and the stress of the Taylor polycrystal along them.

References:
    Liu et al. (2022), section 3, doi:10.1016/j.jmps.2021.104668.
"""

import argparse
import dataclasses
import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micro.crystal import constants
from micro.crystal.materials import load_material
from micro.crystal.paths import PROTOCOLS, Insertions, PathOptions, draw_paths
from micro.crystal.paths.mixture import histories
from micro.crystal.taylor import TaylorPolycrystal
from micro.crystal.texture import Texture, even_texture, fibre_texture, random_texture, read_texture
from micro.data.cli import check_count, check_memory
from micro.data.config import add_options, make_config, option
from micro.data.source import Block, Field, Source
from micro.tensors import PATH_ORDER

COMPONENTS = f"component {PATH_ORDER.names}"
#: Histories besides the stress that a set can hold.
OUTPUTS = ("twin_fraction", "slip")
#: Memory of a block in bytes, measured: per crystal in a step, per stored point of a path, per knot.
CRYSTAL_BYTES, POINT_BYTES, KNOT_BYTES = 10_000, 500, 1000
#: Stored points of a path, beyond which it would take days.
MOST_STEPS = 10**7
#: Images of a grain under the groups of rotations of the sample.
IMAGES = {"none": 1, "orthorhombic": 4, "cubic": 24}
#: Largest seed of a stream.
MOST_SEED = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class TaylorConfig:
    """Options of the Taylor source: those of `PathOptions`, `Insertions` and the polycrystal."""

    protocols: tuple[str, ...] = option(
        ("walk",),
        f"protocols of the paths, one or a mixture of {', '.join(PROTOCOLS)}",
        choices=PROTOCOLS,
        shape="list",
    )
    fractions: tuple[float, ...] = option((), "share of each protocol; equal by default", shape="list", item=float)
    recorded: str = option("", "HDF5 or npz file of recorded histories, for the protocol recorded; empty without it")
    strain: tuple[float, float] = option((0.5, 0.5), "largest strain", low=1e-9, high=100.0, shape="range")
    duration: tuple[float, float] = option(
        (1e-6, 1e-4), "duration without holds", unit="s", low=1e-12, high=1e9, shape="range"
    )
    steps: int = option(200, "stored steps per path", low=1)
    knots: tuple[int, int] = option((10, 10), "intervals per walk", low=1, shape="range")
    intervals: str = option("random", "lengths of the intervals of a walk", choices=("random", "fixed"))
    margin: float = option(0.2, "smallest principal stretch allowed", low=0.0, high=1.0)
    orientation: str = option("fixed", "axes of a path: as its protocol says, or turned at random",
                              choices=("fixed", "random"))  # fmt: skip
    rates: tuple[float, float] = option(
        (1e3, 1e6), "strain rates of an impact path", unit="1/s", low=1e-6, high=1e12, shape="range"
    )
    holds: tuple[int, int] = option((0, 0), "holds per path", shape="counts")
    hold_duration: tuple[float, float] = option(
        (1e-7, 2e-5), "duration of a hold", unit="s", low=1e-12, high=1e9, shape="range"
    )
    jumps: tuple[int, int] = option((0, 0), "rate jumps per path", shape="counts")
    jump_factor: tuple[float, float] = option(
        (0.1, 10.0), "factor of the rate after a jump", low=1e-6, high=1e6, shape="range"
    )
    ringing: tuple[int, int] = option((0, 0), "trains of elastic ringing per path", shape="counts")
    ringing_amplitude: tuple[float, float] = option(
        (5e-4, 5e-3), "amplitude of strain of the ringing", low=1e-9, high=0.1, shape="range"
    )
    ringing_period: tuple[float, float] = option(
        (1e-7, 2e-6), "period of the ringing", unit="s", low=1e-12, high=1e9, shape="range"
    )
    ringing_cycles: tuple[int, int] = option((2, 5), "cycles of a train", low=1, shape="range")
    spacing: str = option("even", "distances of the stored points along the path", choices=("even", "random"))
    grains: int = option(128, "grains of the polycrystal", low=1)
    grain_seed: int = option(0, "seed of their orientations")
    texture: str = option("random", "orientations: random, even, fibre, or a text file of Euler angles")
    fibre_spread: float = option(
        15.0, "standard deviation of the tilts of the c axes away from the axis 3 in a fibre texture", unit="degrees",
        low=0.0, high=90.0,
    )  # fmt: skip
    symmetry: str = option(
        "none", "group of rotations of the sample by which the texture is made symmetric", choices=tuple(IMAGES)
    )
    material: str = option("magnesium", "name of a material, or path of its file")
    tolerance: float = option(
        constants.TOLERANCE, "tolerance of a step of the solver, relative to the stress", low=1e-12, high=1.0
    )
    slip: str = option("domains", "how parent and twins slip", choices=("domains", "common", "parent"))
    backend: str = option("auto", "code that solves the grains", choices=("auto", "compiled", "torch"))
    outputs: tuple[str, ...] = option(
        (), f"histories besides the stress: {', '.join(OUTPUTS)}", choices=OUTPUTS, shape="list"
    )

    def path_options(self) -> PathOptions:
        """Return what the paths are; ValueError names the field that does not fit."""
        insertions = Insertions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Insertions)})
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(PathOptions)
               if field.name != "insertions"}  # fmt: skip
        return PathOptions(**own, insertions=insertions)


def make_texture(config: TaylorConfig) -> Texture:
    """Return the texture of the options."""
    if config.texture == "random":
        texture = random_texture(config.grains, config.grain_seed)
    elif config.texture == "even":
        texture = even_texture(config.grains)
    elif config.texture == "fibre":
        texture = fibre_texture(config.grains, config.grain_seed, spread=config.fibre_spread)
    else:
        texture = read_texture(Path(config.texture))
    return texture if config.symmetry == "none" else texture.symmetrised(config.symmetry)


class TaylorSource(Source):
    """Strain paths, solved with the Taylor polycrystal.

    Args:
        seed: seed of the paths.
        config: options of paths and polycrystal.
        device: torch device.
        threads: torch threads.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "taylor"

    def __init__(self, seed: int, config: TaylorConfig, *, device: str = "cpu", threads: int = 1) -> None:
        self.seed, self.config = seed, config
        self.paths = config.path_options()  # checks them before any work begins
        recorded = histories(self.paths)
        material = load_material(config.material)
        torch.set_num_threads(threads)
        self.polycrystal = TaylorPolycrystal(
            make_texture(config), parameters=material, tolerance=config.tolerance, slip=config.slip,
            backend=config.backend, device=device,
        )  # fmt: skip
        self.parameters = {
            "paths": json_ready(dataclasses.asdict(self.paths) | {"recorded": recorded.digest if recorded else ""}),
            "grains": len(self.polycrystal.orientations),
            **{name: getattr(config, name) for name in ("grain_seed", "symmetry", "slip", "backend")},
            "texture": config.texture if config.texture in ("random", "even", "fibre") else "file",
            "fibre_spread": config.fibre_spread,
            "orientations": digest(self.polycrystal.orientations),
            "weights": digest(self.polycrystal.weights),
            "crystal": json_ready(dataclasses.asdict(material)),
        }
        self.tolerances = {"step": config.tolerance}
        self.fields = self.make_fields()

    def make_fields(self) -> dict[str, Field]:
        """Return the arrays of a set by name."""
        T = self.config.steps + 1
        fields = {
            "U": Field("1", (T, 6), f"time, {COMPONENTS} of the right stretch"),
            "stress": Field("Pa", (T, 6), f"time, {COMPONENTS} of the mean Cauchy stress"),
            "time": Field("1", (T,), "time relative to the duration"),
            "duration": Field("s", (), "duration of the path"),
            "protocol": Field("1", (), "protocol of the path", PROTOCOLS),
        }
        for name in self.histories():
            what = "mean twin fraction" if name == "twin_fraction" else f"mean accumulated {name.replace('_', ' of ')}"
            fields[name] = Field("1", (T,), f"time; {what}")
        return fields

    def histories(self) -> list[str]:
        """Return the names of the histories besides the stress: the outputs asked for, slip for each family."""
        if not self.config.outputs:
            return []
        known = self.polycrystal.fields(self.polycrystal.initial_state(1))
        return [name for name in known if name in self.config.outputs or name.split("_")[0] in self.config.outputs]

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of paths and polycrystal."""
        add_options(parser, TaylorConfig)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "TaylorSource":
        """Make the source from parsed options."""
        for name in ("steps", "grains"):
            check_count(name, getattr(arguments, name))
        if not 0 <= arguments.grain_seed <= MOST_SEED:
            raise ValueError(f"grain-seed must lie between 0 and 2**63 - 1, got {arguments.grain_seed}.")
        config = make_config(TaylorConfig, arguments)
        grains = config.grains * IMAGES[config.symmetry]
        sample = grains * CRYSTAL_BYTES + config.steps * POINT_BYTES + config.knots[1] * KNOT_BYTES
        check_memory(
            f"blocks of {arguments.block} samples, {grains} grains and {config.steps} steps",
            min(arguments.block, arguments.samples) * sample,
            arguments.device,
        )
        check_count("steps", config.steps, MOST_STEPS)
        return cls(arguments.seed, config, device=arguments.device, threads=arguments.threads)

    def solve(self, ids: np.ndarray) -> Block:
        """Make the samples of one block; see `fields` for the arrays."""
        paths = draw_paths([int(sample) for sample in ids], self.seed, self.paths)
        time = torch.from_numpy(paths.time * paths.duration[:, None])
        with torch.no_grad():
            result = self.polycrystal.solve(torch.from_numpy(paths.U), time)
        stress = result.stress.cpu().numpy()
        solved = zip(result.ok.tolist(), result.reason, strict=True)
        reason = ["" if ok else text or "the solver failed" for ok, text in solved]
        stress[[bool(text) for text in reason]] = np.nan  # a stress that is no solution must not be taken for one
        arrays = {"U": paths.U, "stress": stress, "time": paths.time, "duration": paths.duration}
        arrays["protocol"] = paths.protocol
        for name in self.histories():
            arrays[name] = result.fields[name].cpu().numpy()
        return Block(arrays, reason)

    def reference(self, ids: np.ndarray) -> Block:
        """Solve samples with the independent reference, an integrator of another kind on code of its own."""
        # Imported by name: it makes no data, so it is not recorded with them.
        module, polycrystal = importlib.import_module("micro.crystal.reference"), self.polycrystal
        systems = module.reference_crystal(polycrystal.crystal.rules.systems)
        paths = draw_paths([int(sample) for sample in ids], self.seed, self.paths)
        stress = [
            module.solve_polycrystal(
                systems, polycrystal.orientations.cpu().numpy(), U, time * duration,
                weights=polycrystal.weights.cpu().numpy(), slip=self.config.slip,
            ).stress
            for U, time, duration in zip(paths.U, paths.time, paths.duration, strict=True)
        ]  # fmt: skip
        return Block({"stress": np.stack(stress)}, [""] * len(ids))


def json_ready(value: Any) -> Any:
    """Return a value as JSON returns it, tuples as lists: a manifest that was read is equal to one just made."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    return [json_ready(item) for item in value] if isinstance(value, list | tuple) else value


def digest(numbers: torch.Tensor) -> str:
    """Return a hash of numbers rounded to 1e-9, so that it does not depend on the processor."""
    return hashlib.sha256((np.round(numbers.cpu().numpy(), 9) + 0.0).astype("<f8").tobytes()).hexdigest()[:16]
