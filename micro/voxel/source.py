"""Source of paper 3's data: random voxel cells of four families, their effective stiffness, displacements on request.

A cell of a family is drawn by its number alone: frames, minimal surfaces, random densities, penalised ones.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 5.1, data sets 1 to 4.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import label

from micro.data.cli import as_range
from micro.data.source import Block, Field, Source
from micro.tensors import ENGINEERING_ORDER
from micro.threads import use_threads
from micro.voxel.cells.frames import FRAMES, make_frame
from micro.voxel.cells.random import make_random, stream
from micro.voxel.cells.tpms import SURFACES, make_tpms, tpms_function
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import NEGLIGIBLE, PRECONDITIONERS, Homogeniser, check_size

FAMILIES = ("frame", "tpms", "lhs", "p-lhs")
PLACES = ("origin", "random")
#: Names of the kinds of a family.
KINDS = {"frame": FRAMES, "tpms": SURFACES}
#: Sizes of the paper's sets.
PAPER_SIZES = {"frame": 598, "tpms": 565, "lhs": 8192, "p-lhs": 8192}
#: Number of draws of a cell after which an error is raised.
TRIES = 200
#: Struts of this radius fill the cell: every point is as near as this to an image of any joint.
LARGEST_RADIUS = 3**0.5 / 2
LABELS = ("none", "tensor", "displacement")
#: Voxels solved together.
VOXELS = {"cpu": 1 << 17, "cuda": 1 << 22}


@dataclass(frozen=True)
class DrawnCell:
    """A cell and the parameters that it was made with.

    Attributes:
        density: Densities (X, Y, Z).
        kind: Number in `FRAMES` or in `SURFACES`, 0 for random cells.
        parameter: Radius of the struts, level of the surface, or exponent of the densities.
        above: 1 where the solid is above the level, else 0.
    """

    density: np.ndarray
    kind: int
    parameter: float
    above: int


def pieces(solid: np.ndarray) -> int:
    """Return the number of pieces, connected by faces, of a periodic solid (X, Y, Z), bool."""
    labels, count = label(solid)
    parent = np.arange(count + 1)

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for axis in range(3):
        first, last = np.take(labels, 0, axis), np.take(labels, -1, axis)
        both = (first > 0) & (last > 0)
        for i, j in np.unique(np.stack([first[both], last[both]], axis=1), axis=0):
            parent[root(int(i))] = root(int(j))
    return sum(int(parent[i] == i) for i in range(1, count + 1))


def whole(solid: np.ndarray) -> bool:
    """Return whether a periodic solid is one piece, across all its images: so is a box of 2 x 2 x 2 cells."""
    return pieces(solid) == 1 and pieces(np.tile(solid, (2, 2, 2))) == 1


def check_kinds(family: str, kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds of frames or surfaces to take, all if none is named; the ValueError names an unknown one."""
    known = KINDS.get(family, ())
    for name in kinds:
        if name not in known:
            raise ValueError(f"kinds of {family} must be among {', '.join(known) or 'none'}, got {name!r}.")
    return tuple(kinds) or known


def draw(
    family: str,
    n: int,
    sample: int,
    seed: int,
    *,
    radius: tuple[float, float] = (0.05, 0.15),
    fraction: tuple[float, float] = (0.1, 0.95),
    void: float = 0.0,
    count: int = 8192,
    place: str = "origin",
    kinds: Sequence[str] = (),
) -> DrawnCell:
    """Return the cell with a number in a family; it depends on the family, the seed and the number alone.

    Frames and surfaces are taken in turn. Their radius, or their level and side, are drawn until the solid is one piece
    and its volume fraction is in the range.

    Args:
        family: One of `FAMILIES`.
        n: Voxels per side.
        sample: Number of the cell.
        seed: Seed of the set.
        radius: Range of the struts' radius.
        fraction: Range of the solid's volume fraction, frames and surfaces.
        void: Density of voids; least density of random cells.
        count: Samples of the Latin hypercube.
        place: One of `PLACES`: frames and surfaces as they are defined, or moved by a random shift of whole and broken
            voxels, which distinguishes cells of nearly the same radius on a coarse grid.
        kinds: Names of the frames or of the surfaces to take; all if empty.

    Raises:
        ValueError: There is no such family, place or kind, or no cell is found in the ranges.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}.")
    if place not in PLACES:
        raise ValueError(f"place must be one of {', '.join(PLACES)}, got {place!r}.")
    if family in ("lhs", "p-lhs"):
        density, exponent = make_random(n, sample, seed, count=count, least=void, penalised=family == "p-lhs")
        return DrawnCell(density, 0, exponent, 0)
    rng = stream(seed, sample, 3)
    names = check_kinds(family, kinds)
    name = names[sample % len(names)]
    kind = KINDS[family].index(name)
    shift = [float(s) for s in stream(seed, sample, 4).uniform(size=3)] if place == "random" else [0.0, 0.0, 0.0]
    levels = None if family == "frame" else tpms_function(name, n)
    for _ in range(TRIES):
        if levels is None:
            parameter, above = float(rng.uniform(*radius)), 1
            solid = make_frame(name, n, parameter, shift=shift)
        else:
            parameter, above = float(rng.uniform(levels.min(), levels.max())), int(rng.integers(2))
            solid = make_tpms(name, n, parameter, above=bool(above), shift=shift)
        if fraction[0] <= solid.mean() <= fraction[1] and whole(solid):
            return DrawnCell(np.where(solid, 1.0, void), kind, parameter, above)
    ranges = f"a fraction in {fraction}" + (f" and a radius in {radius}" if family == "frame" else "")
    raise ValueError(
        f"{name} with {n} voxels per side is never one connected piece with {ranges}: take wider ranges or more voxels."
    )


def check_ranges(
    resolution: int, radius: tuple[float, float], fraction: tuple[float, float], void: float, tolerance: float
) -> None:
    """Check the arguments of `VoxelSource`; the ValueError names the one that is out of range."""
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}.")
    check_size("resolution", (resolution,) * 3)
    if radius[1] > LARGEST_RADIUS:
        raise ValueError(
            f"radius must be at most {LARGEST_RADIUS:.4g} edges of the cell, where struts fill it, got {radius[1]:g}."
        )
    if not 0 <= void < 1:
        raise ValueError(f"void must be at least 0 and below 1, got {void}.")
    if fraction[1] > 1:
        raise ValueError(f"fraction must be at most 1, got {fraction[1]}.")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}.")


def make_fields(resolution: int, labels: str) -> dict[str, Field]:
    """Return the arrays of a set by their names, and what they hold."""
    grid = (resolution,) * 3
    fields = {
        "density": Field("1", grid, "x, y, z of the voxel"),
        "kind": Field("1", (), "frame or surface by its number in the family"),
        "parameter": Field("1", (), "radius of the struts, level of the surface, or exponent of the densities"),
        "above": Field("1", (), "1 where the solid is above the level of the surface"),
    }
    if labels != "none":
        order = f"order {ENGINEERING_ORDER.names.replace(' ', ', ')}, engineering shear"
        fields["tensor"] = Field("Pa", (6, 6), f"effective stiffness, {order}")
        fields["left"] = Field("Pa", (6,), "estimated error of the diagonal of the tensor")
        fields["iterations"] = Field("1", (), "steps of conjugate gradients")
    if labels == "displacement":
        fields["displacement"] = Field(
            "1", (6, 3, *grid), "unit strain, direction, x, y, z of the node; fluctuation, edge of the cell 1"
        )
    return fields


class VoxelSource(Source):
    """Voxel cells of a family, and their effective stiffness.

    Args:
        seed: Seed of the cells.
        family: One of `FAMILIES`.
        resolution: Voxels per side.
        radius: Range of the struts' radius.
        fraction: Range of the volume fraction of frames and surfaces.
        void: Density of voids; least density of random cells.
        place: Where in the cell frames and surfaces are, one of `PLACES`.
        kinds: Names of the frames or surfaces to take, all if empty.
        design: Samples of the Latin hypercube, an upper bound of those that can be made.
        E: Young's modulus of the solid, Pa.
        nu: Its Poisson's ratio.
        labels: What to solve for: nothing, the tensor, or the displacements as well.
        tolerance: Error of the tensor.
        preconditioner: Preconditioner of the solver.
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
        check_ranges(resolution, radius, fraction, void, tolerance)
        use_threads(threads)
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
        self.fields = make_fields(resolution, labels)

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of the cells and of the solver."""
        add = parser.add_argument
        add("--family", default="frame", choices=FAMILIES, help="kind of cells")
        add("--resolution", default=40, type=int, metavar="N", help="voxels per side")
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
        ranges: Any = self.ranges
        return draw(self.family, self.resolution, sample, self.seed, kinds=self.kinds, **ranges)

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
