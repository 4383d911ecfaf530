"""One random cell of a family, by its number: frames, minimal surfaces, random densities, penalised ones.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 5.1, data sets 1 to 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

from micro.voxel.cells.frames import FRAMES, make_frame
from micro.voxel.cells.random import make_random, stream
from micro.voxel.cells.tpms import SURFACES, make_tpms, tpms_function

FAMILIES = ("frame", "tpms", "lhs", "p-lhs")
PLACES = ("origin", "random")
#: Names of the kinds of a family.
KINDS = {"frame": FRAMES, "tpms": SURFACES}
#: Sizes of the paper's sets.
PAPER_SIZES = {"frame": 598, "tpms": 565, "lhs": 8192, "p-lhs": 8192}
#: Draws after which a cell is given up.
TRIES = 200


@dataclass(frozen=True)
class DrawnCell:
    """A cell and what made it.

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
    """Return the number of pieces, joined by faces, of a periodic solid (X, Y, Z), bool."""
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
    """Return the kinds of frames or surfaces to take, all where none is named; ValueError names one that is unknown."""
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
        n: Voxels a side.
        sample: Number of the cell.
        seed: Seed of the set.
        radius: Range of the struts' radius.
        fraction: Range of the solid's volume fraction, frames and surfaces.
        void: Density of voids; least density of random cells.
        count: Samples of the Latin hypercube.
        place: One of `PLACES`: frames and surfaces as they are defined, or moved by a shift drawn at random, of whole
            and broken voxels, which tells cells of nearly the same radius apart on a coarse grid.
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
    raise ValueError(f"{name} with {n} voxels a side is never one piece of {ranges}: take wider ranges or more voxels.")
