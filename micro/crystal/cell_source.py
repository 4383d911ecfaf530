"""Source of the paper's 2DFFT data: random polycrystals in a periodic cell along random paths of the mean stretch.

References:
    Liu et al. (2022), section 3 (2DFFT), doi:10.1016/j.jmps.2021.104668.
"""

import argparse
import dataclasses

import numpy as np
import torch

from micro.crystal.cell import polycrystal_cells, random_cell
from micro.crystal.materials import load_material
from micro.crystal.paths import PROTOCOLS, PathOptions, Paths, draw_paths
from micro.crystal.source import json_ready
from micro.data.cli import check_memory
from micro.data.config import add_options, make_config, option
from micro.data.source import Block, Field, Source
from micro.spectral.solver import CellResult
from micro.tensors import PATH_ORDER

COMPONENTS = f"component {PATH_ORDER.names}"
#: Memory in bytes per point of a cell: states, stresses and the history of the acceleration.
POINT_BYTES = 6000
#: Protocols whose paths stay in the plane 1-2; of a walk in two dimensions, its components in the plane are taken.
PLANE = ("walk", "uniaxial", "load-unload", "cavity", "plane-strain", "simple-shear", "cyclic")


@dataclasses.dataclass(frozen=True)
class CellConfig:
    """Options of the cell source: those of the paths, of the cells and of their solution."""

    shape: tuple[int, ...] = option((64, 64), "voxels along each axis, two or three numbers", low=1, shape="list")
    grains: int = option(16, "grains of a cell", low=1)
    cell_seed: int = option(-1, "seed of the one cell of all samples; -1: each has a cell of its own", low=-1)
    material: str = option("two-slip-2d", "name of a material, or path of its file")
    protocols: tuple[str, ...] = option(("walk",), "protocols of the paths", choices=PLANE, shape="list")
    intervals: str = option("random", "lengths of the intervals of a walk", choices=("random", "fixed"))
    strain: tuple[float, float] = option((0.1, 0.1), "largest strain", low=1e-9, high=100.0, shape="range")
    duration: tuple[float, float] = option((1.0, 1.0), "duration", unit="s", low=1e-12, high=1e9, shape="range")
    steps: int = option(200, "stored steps per path", low=1)
    substeps: int = option(1, "solver steps per stored step", low=1)
    margin: float = option(0.2, "smallest principal stretch allowed", low=0.0, high=1.0)
    tolerance: float = option(1e-4, "residual of equilibrium relative to the stress", low=1e-12, high=1.0)

    def path_options(self) -> PathOptions:
        """Return what the paths are; ValueError names the field that does not fit."""
        names = ("protocols", "strain", "steps", "intervals", "duration", "margin")
        return PathOptions(**{name: getattr(self, name) for name in names})


class CellSource(Source):
    """Paths of the mean stretch, solved with random periodic polycrystals (2DFFT).

    Every sample has a polycrystal of its own, or all have one in common. In two dimensions the components 11, 22, 12 of
    the stretch walk and the others stay those of the identity: plane strain.

    Args:
        seed: seed of paths and cells.
        config: options of paths and cells.
        device: torch device.
        threads: torch threads.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "cell"

    def __init__(self, seed: int, config: CellConfig, *, device: str = "cpu", threads: int = 1) -> None:
        if len(config.shape) not in (2, 3):
            raise ValueError(f"shape must be two or three numbers of voxels, got {list(config.shape)}.")
        torch.set_num_threads(threads)
        self.seed, self.config, self.device = seed, config, device
        self.path_options = config.path_options()  # checks them before any work begins
        self.crystal = load_material(config.material)
        self.parameters = {
            "paths": json_ready(dataclasses.asdict(self.path_options)),
            "cell_seed": config.cell_seed,
            "shape": list(config.shape),
            "grains": config.grains,
            "substeps": config.substeps,
            "crystal": dataclasses.asdict(self.crystal),
        }
        self.tolerances = {"equilibrium": config.tolerance}
        T = config.steps + 1
        self.fields = {
            "U": Field("1", (T, 6), f"time, {COMPONENTS} of the mean right stretch"),
            "stress": Field("Pa", (T, 6), f"time, {COMPONENTS} of the mean Cauchy stress"),
            "time": Field("1", (T,), "time relative to the duration"),
            "duration": Field("s", (), "duration of the path"),
            "protocol": Field("1", (), "protocol of the path", PROTOCOLS),
        }

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of paths and cells."""
        add_options(parser, CellConfig)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "CellSource":
        """Make the source from parsed options."""
        config = make_config(CellConfig, arguments)
        count = min(arguments.block, arguments.samples) * int(np.prod(config.shape))
        check_memory(f"blocks of {arguments.block} cells", count * POINT_BYTES, arguments.device)
        return cls(arguments.seed, config, device=arguments.device, threads=arguments.threads)

    def paths(self, ids: np.ndarray) -> Paths:
        """Return the paths of samples; in two dimensions those of the plane."""
        found = draw_paths([int(sample) for sample in ids], self.seed, self.path_options)
        if len(self.config.shape) == 2:
            # The smallest principal stretch in the plane is not below that in space.
            found.U[..., 2], found.U[..., 4:] = 1.0, 0.0
        return found

    def respond(self, ids: np.ndarray, store: tuple[int, ...] = ()) -> CellResult:
        """Solve the cells of the samples `ids` (s,), at all solver steps.

        Args:
            ids: Sample ids.
            store: Numbers of the stored times whose local fields are kept; `CellResult` says which.
        """
        return self._respond(ids, self.paths(ids), store)

    def _respond(self, ids: np.ndarray, paths: Paths, store: tuple[int, ...] = ()) -> CellResult:
        """Solve the cells of the samples along paths that are drawn already; see `respond`."""
        U, duration = paths.U, paths.duration
        common = self.config.cell_seed
        streams = [(self.seed, int(sample)) if common < 0 else (common, 0) for sample in ids]
        # A cell that samples have in common is built once.
        drawn = {stream: random_cell(self.config.grains, self.config.shape, *stream) for stream in set(streams)}
        cells = [drawn[stream] for stream in streams]
        orientations = torch.stack([turn for _, turn in cells])
        problem = polycrystal_cells(
            np.stack([grain for grain, _ in cells]),
            orientations,
            self.crystal,
            device=self.device,
            tolerance=self.config.tolerance,
        )
        n = self.config.substeps
        weight = np.arange(1, n + 1)[:, None] / n
        fine = U[:, :-1, None] + (U[:, 1:, None] - U[:, :-1, None]) * weight
        fine = np.concatenate([U[:, :1], fine.reshape(len(U), -1, 6)], axis=1)
        instants = np.linspace(0.0, 1.0, fine.shape[1]) * duration[:, None]
        places = tuple(k % U.shape[1] * n for k in store)
        with torch.no_grad():
            return problem.solve(torch.from_numpy(fine), torch.from_numpy(instants), places)

    def solve(self, ids: np.ndarray) -> Block:
        """Make the samples of one block; see `fields` for the arrays."""
        paths = self.paths(ids)
        result = self._respond(ids, paths)
        stress = result.stress[:, :: self.config.substeps].cpu().numpy()
        stress[[bool(text) for text in result.reason]] = np.nan  # a failed sample has no stress at all
        arrays = {"U": paths.U, "stress": stress, "time": paths.time, "duration": paths.duration}
        return Block(arrays | {"protocol": paths.protocol}, result.reason)
