"""Source of paper 3's data: voxel cells of a family, with their effective stiffness and displacements if asked for.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 5.1.
"""

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch

from micro.data.cli import as_range
from micro.data.source import Block, Field, Source
from micro.voxel.cells.draw import FAMILIES, PLACES, DrawnCell, check_kinds, draw
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import NEGLIGIBLE, PRECONDITIONERS, Homogeniser

LABELS = ("none", "tensor", "displacement")
#: Voxels solved at a time.
VOXELS = {"cpu": 1 << 17, "cuda": 1 << 22}


class VoxelSource(Source):
    """Voxel cells of a family, and their effective stiffness.

    Args:
        seed: Seed of the cells.
        family: Name of the family, see `micro.voxel.cells.draw`.
        resolution: Voxels a side.
        radius: Range of the struts' radius.
        fraction: Range of the volume fraction of frames and surfaces.
        void: Density of voids; least density of random cells.
        place: Where in the cell frames and surfaces are, one of `micro.voxel.cells.draw.PLACES`.
        kinds: Names of the frames or surfaces to take, all if empty.
        design: Samples of the Latin hypercube, an upper bound of those that can be made.
        E: Young's modulus of the solid, Pa.
        nu: Its Poisson's ratio.
        labels: What to solve for: nothing, the tensor, or the displacements as well.
        tolerance: Error of the tensor.
        preconditioner: Of the solver.
        device: Torch device.
        threads: Torch threads.

    Raises:
        ValueError: An argument is out of its range.
    """

    name = "voxels"

    def __init__(
        self,
        seed: int,
        *,
        family: str,
        resolution: int,
        radius: tuple[float, float],
        fraction: tuple[float, float],
        void: float,
        place: str,
        kinds: Sequence[str],
        design: int,
        E: float,
        nu: float,
        labels: str,
        tolerance: float,
        preconditioner: str,
        device: str,
        threads: int,
    ) -> None:
        if resolution < 2:
            raise ValueError(f"resolution must be at least 2, got {resolution}.")
        if not 0 <= void < 1:
            raise ValueError(f"void must be at least 0 and below 1, got {void}.")
        if fraction[1] > 1:
            raise ValueError(f"fraction must be at most 1, got {fraction[1]}.")
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}.")
        torch.set_num_threads(threads)
        self.seed, self.family, self.resolution, self.labels = seed, family, resolution, labels
        self.ranges = {"radius": radius, "fraction": fraction, "void": void, "count": design, "place": place}
        self.kinds = check_kinds(family, kinds)
        self.stiffness = isotropic(E, nu)
        self.tolerance, self.preconditioner, self.device = tolerance, preconditioner, device
        self.parameters = {
            "family": family,
            "resolution": resolution,
            "radius": list(radius),
            "fraction": list(fraction),
            "void": void,
            "place": place,
            "kinds": list(self.kinds),
            "design": design,
            "E": E,
            "nu": nu,
            "labels": labels,
            "preconditioner": preconditioner,
        }
        self.tolerances = {"tensor": tolerance, "negligible": NEGLIGIBLE}
        grid = (resolution,) * 3
        self.fields = {
            "density": Field("1", grid, "x, y, z of the voxel"),
            "kind": Field("1", (), "frame or surface by its number in the family"),
            "parameter": Field("1", (), "radius of the struts, level of the surface, or exponent of the densities"),
            "above": Field("1", (), "1 where the solid is above the level of the surface"),
        }
        if labels != "none":
            order = "order 11, 22, 33, 23, 13, 12, engineering shear"
            self.fields["tensor"] = Field("Pa", (6, 6), f"effective stiffness, {order}")
            self.fields["left"] = Field("Pa", (6,), "estimated error of the diagonal of the tensor")
            self.fields["iterations"] = Field("1", (), "steps of conjugate gradients")
        if labels == "displacement":
            self.fields["displacement"] = Field(
                "1", (6, 3, *grid), "unit strain, direction, x, y, z of the node; fluctuation, edge of the cell 1"
            )

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of the cells and of the solver."""
        add = parser.add_argument
        add("--family", default="frame", choices=FAMILIES, help="kind of cells")
        add("--resolution", default=40, type=int, metavar="N", help="voxels a side")
        add("--radius", default=[0.05, 0.15], type=float, nargs="+", metavar="X", help="radius of struts, or its range")
        add("--fraction", default=[0.1, 0.95], type=float, nargs="+", metavar="X", help="range of volume fractions")
        add("--void", default=0.0, type=float, metavar="X", help="density of voids, least density of random cells")
        add("--place", default="origin", choices=PLACES, help="frames and surfaces as defined, or moved at random")
        add("--kinds", default=[], nargs="*", metavar="NAME", help="frames or surfaces to take (default: all)")
        add("--design", default=8192, type=int, metavar="N", help="samples of the Latin hypercube")
        add("--modulus", default=1.0, type=float, metavar="X", help="Young's modulus, Pa")
        add("--poisson", default=0.3, type=float, metavar="X", help="Poisson's ratio")
        add("--labels", default="tensor", choices=LABELS, help="what to solve for")
        add("--tolerance", default=1e-6, type=float, metavar="X", help="relative error of the tensor")
        add("--preconditioner", default="auto", choices=PRECONDITIONERS, help="of conjugate gradients")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "VoxelSource":
        """Make the source from parsed options."""
        for name in ("void", "modulus", "poisson", "tolerance"):
            if not math.isfinite(getattr(arguments, name)):
                raise ValueError(f"{name} must be finite, got {getattr(arguments, name)}.")
        if arguments.family in ("lhs", "p-lhs") and arguments.samples > arguments.design:
            raise ValueError(f"samples must be at most design, {arguments.design}, got {arguments.samples}.")
        return cls(
            arguments.seed,
            family=arguments.family,
            resolution=arguments.resolution,
            radius=as_range("radius", arguments.radius),
            fraction=as_range("fraction", arguments.fraction),
            void=arguments.void,
            place=arguments.place,
            kinds=arguments.kinds,
            design=arguments.design,
            E=arguments.modulus,
            nu=arguments.poisson,
            labels=arguments.labels,
            tolerance=arguments.tolerance,
            preconditioner=arguments.preconditioner,
            device=arguments.device,
            threads=arguments.threads,
        )

    def draw(self, sample: int) -> DrawnCell:
        """Return the cell of a sample."""
        return draw(self.family, self.resolution, sample, self.seed, kinds=self.kinds, **self.ranges)  # type: ignore[arg-type]

    def solve(self, ids: np.ndarray) -> Block:
        """Make the samples of one block; see `fields` for the arrays."""
        cells = [self.draw(int(sample)) for sample in ids]
        arrays = {"density": np.stack([cell.density for cell in cells])}
        for name in ("kind", "parameter", "above"):
            arrays[name] = np.array([getattr(cell, name) for cell in cells], dtype=float)
        reason = [""] * len(ids)
        if self.labels == "none":
            return Block(arrays, reason)
        at_once = max(1, VOXELS["cpu" if self.device == "cpu" else "cuda"] // self.resolution**3)
        wanted = [name for name in ("tensor", "left", "iterations", "displacement") if name in self.fields]
        solved: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        for start in range(0, len(ids), at_once):
            part = Homogeniser(
                arrays["density"][start : start + at_once],
                self.stiffness,
                preconditioner=self.preconditioner,
                device=self.device,
            )
            result = part.solve(tolerance=self.tolerance)
            for name in wanted:
                solved[name].append(getattr(result, name).cpu().numpy())
            for k, converged in enumerate(result.converged.tolist(), start):
                if not converged:
                    reason[k] = f"conjugate gradients did not converge in {int(result.iterations[k - start])} steps"
        return Block(arrays | {name: np.concatenate(parts) for name, parts in solved.items()}, reason)
