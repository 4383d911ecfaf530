"""Source of the paper's 2DFFT data: random polycrystals in a periodic cell along random paths of the mean stretch.

References:
    Liu et al. (2022), section 3 (2DFFT), doi:10.1016/j.jmps.2021.104668.
"""

import argparse
import dataclasses
from typing import Any

import numpy as np
import torch

from micro.crystal.cell import polycrystal_cells, random_cell
from micro.crystal.materials import load_material
from micro.crystal.paths import random_walk
from micro.data.cli import as_range, check_between, check_count, check_memory
from micro.data.source import Block, Field, Source
from micro.spectral.solver import CellResult
from micro.tensors import PATH_ORDER

COMPONENTS = f"component {PATH_ORDER.names}"
#: Memory in bytes per point of a cell: states, stresses and the history of the acceleration.
POINT_BYTES = 6000


class CellSource(Source):
    """Random walks of the mean stretch, solved with random periodic polycrystals (2DFFT).

    Every sample has a polycrystal of its own. In two dimensions the components 11, 22, 12 of the stretch walk and the
    others stay those of the identity: plane strain.

    Args:
        seed: seed of paths and cells.
        shape: voxels along each axis, two or three numbers.
        grains: grains of a cell.
        material: name of a material, or the path of its file.
        strain: range of the largest strain of a path, drawn evenly in the logarithm.
        steps: stored steps per path.
        substeps: solver steps per stored step.
        duration: range of durations, s, drawn evenly in the logarithm.
        margin: smallest principal stretch allowed.
        tolerance: largest residual of equilibrium relative to the stress.
        device: torch device.
        threads: torch threads.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "cell"

    def __init__(
        self,
        seed: int,
        *,
        shape: tuple[int, ...],
        grains: int,
        material: str,
        strain: tuple[float, float],
        steps: int,
        substeps: int,
        duration: tuple[float, float],
        margin: float,
        tolerance: float,
        device: str,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self.seed, self.shape, self.grains, self.substeps, self.device = seed, shape, grains, substeps, device
        self.walk: dict[str, Any] = {"strain": strain, "steps": steps, "duration": duration, "margin": margin}
        random_walk([], seed, **self.walk)  # checks the arguments before any work begins
        self.crystal = load_material(material)
        self.parameters = {
            "paths": {key: list(value) if isinstance(value, tuple) else value for key, value in self.walk.items()},
            "shape": list(shape),
            "grains": grains,
            "substeps": substeps,
            "crystal": dataclasses.asdict(self.crystal),
        }
        self.tolerances = {"equilibrium": tolerance}
        self.fields = {
            "U": Field("1", (steps + 1, 6), f"time, {COMPONENTS} of the mean right stretch"),
            "stress": Field("Pa", (steps + 1, 6), f"time, {COMPONENTS} of the mean Cauchy stress"),
            "time": Field("1", (steps + 1,), "time relative to the duration"),
            "duration": Field("s", (), "duration of the path"),
        }

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of paths and cells."""
        add = parser.add_argument
        add("--shape", default=[64, 64], type=int, nargs="+", metavar="N", help="voxels along each axis, two or three")
        add("--grains", default=16, type=int, metavar="N", help="grains of a cell")
        add("--material", default="two-slip-2d", metavar="NAME", help="name or file of the crystal's parameters")
        add("--strain", default=[0.1], type=float, nargs="+", metavar="X", help="largest strain, or its range")
        add("--duration", default=[1.0], type=float, nargs="+", metavar="X", help="duration in s, or its range")
        add("--steps", default=200, type=int, metavar="N", help="stored steps per path")
        add("--substeps", default=1, type=int, metavar="N", help="solver steps per stored step")
        add("--margin", default=0.2, type=float, metavar="X", help="smallest principal stretch allowed")
        add("--tolerance", default=1e-4, type=float, metavar="X", help="residual of equilibrium relative to the stress")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "CellSource":
        """Make the source from parsed options."""
        for name in ("steps", "substeps", "grains"):
            check_count(name, getattr(arguments, name))
        if len(arguments.shape) not in (2, 3):
            raise ValueError(f"shape must be two or three numbers of voxels, got {arguments.shape}.")
        for voxels in arguments.shape:
            check_count("shape", voxels)
        for strain in as_range("strain", arguments.strain):
            check_between("strain", strain, 1e-9, 100.0)
        for duration in as_range("duration", arguments.duration):
            check_between("duration", duration, 1e-12, 1e9)
        check_between("tolerance", arguments.tolerance, 1e-12, 1.0)
        count = min(arguments.block, arguments.samples) * int(np.prod(arguments.shape))
        check_memory(f"blocks of {arguments.block} cells", count * POINT_BYTES, arguments.device)
        return cls(
            arguments.seed,
            shape=tuple(arguments.shape),
            grains=arguments.grains,
            material=arguments.material,
            strain=as_range("strain", arguments.strain),
            steps=arguments.steps,
            substeps=arguments.substeps,
            duration=as_range("duration", arguments.duration),
            margin=arguments.margin,
            tolerance=arguments.tolerance,
            device=arguments.device,
            threads=arguments.threads,
        )

    def paths(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean stretch (s, T, 6), the relative times (s, T), and the durations (s,), s, of samples."""
        walk = random_walk([int(sample) for sample in ids], self.seed, **self.walk)
        U = walk.U.copy()
        if len(self.shape) == 2:
            U[..., 2], U[..., 4:] = 1.0, 0.0  # the smallest principal stretch in the plane is not below that in space
        return U, walk.time, walk.duration

    def respond(self, ids: np.ndarray, store: tuple[int, ...] = ()) -> CellResult:
        """Solve the cells of the samples `ids` (s,), at all solver steps.

        Args:
            ids: Sample ids.
            store: Numbers of the stored times whose local fields are kept; `CellResult` says which.
        """
        U, _, duration = self.paths(ids)
        cells = [random_cell(self.grains, self.shape, self.seed, int(sample)) for sample in ids]
        orientations = torch.stack([turn for _, turn in cells])
        problem = polycrystal_cells(
            np.stack([grain for grain, _ in cells]),
            orientations,
            self.crystal,
            device=self.device,
            tolerance=self.tolerances["equilibrium"],
        )
        n = self.substeps
        weight = np.arange(1, n + 1)[:, None] / n
        fine = U[:, :-1, None] + (U[:, 1:, None] - U[:, :-1, None]) * weight
        fine = np.concatenate([U[:, :1], fine.reshape(len(U), -1, 6)], axis=1)
        instants = np.linspace(0.0, 1.0, fine.shape[1]) * duration[:, None]
        places = tuple(k % U.shape[1] * n for k in store)
        with torch.no_grad():
            return problem.solve(torch.from_numpy(fine), torch.from_numpy(instants), places)

    def solve(self, ids: np.ndarray) -> Block:
        """Make the samples of one block; see `fields` for the arrays."""
        U, time, duration = self.paths(ids)
        result = self.respond(ids)
        stress = result.stress[:, :: self.substeps].cpu().numpy()
        stress[[bool(text) for text in result.reason]] = np.nan  # a failed sample has no stress at all
        return Block({"U": U, "stress": stress, "time": time, "duration": duration}, result.reason)
