"""One cell from a file for the command line: voxels, images, or a closed surface that is filled.

`python3 -m surrogates.homogenise` and whoever else takes one cell share these options.
"""

import argparse
from pathlib import Path

import numpy as np

from micro.voxel.cells.files import HDF5, STACKS, read_voxels
from micro.voxel.cells.surface import fill, read_triangles
from surrogates.cells.data import check_density

#: Endings of surfaces; all else is voxels.
SURFACES = (".stl", ".msh", ".ply", ".obj", ".vtp", ".vtk")
VOXELS = (".npy", ".raw", *HDF5, *STACKS)
#: Options that some kinds of files need; where they have no meaning they are refused, not ignored.
ONLY = {"dataset": HDF5, "shape": (".raw",), "dtype": (".raw",), "resolution": SURFACES, "box": SURFACES}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the cell and what a file of its kind needs."""
    add = parser.add_argument
    add("cell", type=Path, help=".npy, .h5, .raw, .tif, a folder of images, or a closed surface (.stl, .msh, ...)")
    add("--threshold", type=float, metavar="X", help="voxels above this are solid, the others void")
    add("--dataset", metavar="NAME", help="data set of an HDF5 file, if it has several")
    add("--sample", type=int, metavar="I", help="which cell, where the file holds (cells, X, Y, Z)")
    add("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels of a .raw file, z runs fastest")
    add("--dtype", metavar="TYPE", help="numbers of a .raw file, for instance <u2")
    add("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), help="edges of a voxel (default: cubes)")
    add("--resolution", type=int, nargs="+", metavar="N", help="voxels of a surface: along its longest edge, or X Y Z")
    add(
        "--box",
        type=float,
        nargs=6,
        metavar="X",
        help="lowest and highest corner of a surface's cell (default: its own)",
    )


def resolve(resolution: list[int], edges: np.ndarray) -> tuple[int, ...]:
    """Return voxels (X, Y, Z): as given, or so many along the longest edge and voxels that are about cubes."""
    if len(resolution) not in (1, 3) or min(resolution) < 1:
        raise ValueError(f"resolution must be one positive number of voxels or three, got {resolution}.")
    if len(resolution) == 3:
        return tuple(resolution)
    return tuple(int(n) for n in np.maximum(1, np.round(resolution[0] * edges / edges.max())))


def read_surface(path: Path, resolution: list[int] | None, box: list[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return densities (X, Y, Z) and edges of a voxel (3,) of the solid within a surface.

    Raises:
        ValueError: The file holds no closed surface, or the options do not fit.
    """
    if resolution is None:
        raise ValueError(f"resolution must be given for a surface, {path}: how many voxels a side.")
    triangles = read_triangles(path)
    ends = np.array(box).reshape(2, 3) if box is not None else np.stack([triangles.min((0, 1)), triangles.max((0, 1))])
    low, high = ends
    if not (high > low).all():
        raise ValueError(
            f"box must be two corners, the second above the first, got {low.tolist()} and {high.tolist()}."
        )
    shape = resolve(resolution, high - low)
    return fill(triangles, shape, (list(low), list(high))), (high - low) / np.array(shape)


def read_cell(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the densities (X, Y, Z) of one cell, from 0 to 1, and the edges of a voxel (3,).

    Raises:
        ValueError: One sentence that says what is wrong with the file or with an option.
    """
    path, suffix = options.cell, options.cell.suffix.lower()
    if not path.exists():
        raise ValueError(f"{path} is not there.")
    if not path.is_dir() and suffix not in VOXELS + SURFACES:
        raise ValueError(f"{path} must be a folder of images or end in {', '.join(VOXELS + SURFACES)}.")
    for name, kinds in ONLY.items():
        if getattr(options, name) is not None and (path.is_dir() or suffix not in kinds):
            raise ValueError(f"{name} must not be given for {path}, it belongs to {', '.join(kinds)}.")
    if suffix in SURFACES and options.spacing is not None:
        raise ValueError(f"spacing must not be given for {path}, it follows from the box and the resolution.")
    if suffix in SURFACES and not path.is_dir():
        values, spacing = read_surface(path, options.resolution, options.box)
    else:
        values, spacing = (
            read_voxels(path, dataset=options.dataset, shape=options.shape, dtype=options.dtype),
            np.ones(3),
        )
    if values.ndim == 4:
        count = len(values)
        if options.sample is None and count > 1:
            raise ValueError(f"sample must be given, {path} holds {count} cells.")
        if not 0 <= (options.sample or 0) < count:
            raise ValueError(f"sample must lie between 0 and {count - 1}, got {options.sample}.")
        values = values[options.sample or 0]
    elif options.sample is not None:
        raise ValueError(f"sample must not be given, {path} holds one cell (X, Y, Z).")
    if options.threshold is not None:
        if not np.isfinite(options.threshold):
            raise ValueError(f"threshold must be finite, got {options.threshold}.")
        values = values > options.threshold
    if options.spacing is not None:
        spacing = np.array(options.spacing)
        if not (np.isfinite(spacing) & (spacing > 0)).all():
            raise ValueError(f"spacing must be three positive numbers, got {options.spacing}.")
    check_density(values[None], f"density in {path}, unless cut by --threshold,")
    return values, spacing
