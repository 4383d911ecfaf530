"""Cells: densities of voxel cells, sets to train networks on and single ones, with exact fields on request.

A set is a folder that `micro.generate` wrote, or a file `.npy` with densities (cells, X, Y, Z) from 0 to 1. A single
cell is a file of voxels, a folder of images, or a closed surface that is filled.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.data.dataset import good_samples, read_arrays
from micro.voxel.cells.files import HDF5, STACKS, read_npy, read_voxels
from micro.voxel.cells.surface import fill, read_triangles
from micro.voxel.solver.homogeniser import Homogeniser, check_size
from surrogates.training.split import joined_hash, same_size, split_each

#: The data that `surrogates.train` requires.
DATA = "data set of micro.generate voxels, or .npy file of densities"
#: Tolerance of exact fields, of the energy; number of cells solved together.
EXACT = 1e-7
AT_ONCE = 8
#: Least edge of a voxel, and its inverse the largest.
SMALLEST = 1e-30
#: Endings of surfaces, and of files of voxels.
SURFACES = (".stl", ".msh", ".ply", ".obj", ".vtp", ".vtk")
VOXELS = (".npy", ".raw", *HDF5, *STACKS)
#: Options that only some kinds of files take; for other files they are an error.
ONLY = {"dataset": HDF5, "shape": (".raw",), "dtype": (".raw",), "resolution": SURFACES, "box": SURFACES}


@dataclass(frozen=True)
class Cells:
    """Voxel cells of one resolution, of a solid with E = 1 and nu = 0.3.

    Attributes:
        density: Factors of the solid's moduli (n, X, Y, Z), float32, from 0 to 1.
        tensor: Exact tensors (n, 6, 6), float64, or None.
        displacement: Exact fluctuations (n, 6, 3, X, Y, Z), float32, in voxels, or None.
        hash: Content hash of the sets they come from.
        meta: Manifest of each set.
    """

    density: Tensor
    tensor: Tensor | None = None
    displacement: Tensor | None = None
    hash: str = "0" * 64
    meta: tuple[dict[str, Any], ...] = ()

    @property
    def ids(self) -> np.ndarray:
        """Places of the cells (n,), which are read in the order of their sample ids."""
        return np.arange(len(self))

    def __len__(self) -> int:
        """Number of cells."""
        return len(self.density)

    def __getitem__(self, rows: Any) -> "Cells":
        """The cells of an index array, a mask or a slice."""
        tensor = None if self.tensor is None else self.tensor[rows]
        displacement = None if self.displacement is None else self.displacement[rows]
        return replace(self, density=self.density[rows], tensor=tensor, displacement=displacement)

    def parts(self, size: int) -> Iterator["Cells"]:
        """The cells in batches of `size`."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def check_density(density: np.ndarray | Tensor, source: str = "density") -> Tensor:
    """Return densities (n, X, Y, Z) as real numbers, from 0 (void) to 1 (solid).

    Raises:
        ValueError: They have the wrong shape, type or range.
    """
    if isinstance(density, np.ndarray):
        if density.dtype.kind not in "buifc":
            raise ValueError(f"{source} must be real numbers, got {density.dtype}.")
        if density.dtype.kind == "f" and density.dtype.itemsize > 8:
            density = density.astype(float)  # PyTorch has no long double
        elif density.dtype.kind == "c" and density.dtype.itemsize > 16:
            raise ValueError(f"{source} must be real, got {density.dtype}.")
    values = torch.as_tensor(density)
    if values.ndim != 4 or 0 in values.shape:
        raise ValueError(f"{source} must have shape (cells, X, Y, Z), got {tuple(values.shape)}.")
    if values.is_complex():
        raise ValueError(f"{source} must be real, got {values.dtype}.")
    values = values if values.is_floating_point() else values.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{source} must be finite, got nan or infinity.")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"{source} must lie between 0 (void) and 1 (solid), got {float(values.min()):g} to {float(values.max()):g}."
        )
    return values


def read_cells(path: str | Path, *, allow_partial: bool = False) -> Cells:
    """Read one set.

    Raises:
        ValueError: The set cannot be read, or holds no densities.
    """
    path = Path(path)
    if path.is_dir():
        arrays, meta, digest = read_arrays(path, allow_partial=allow_partial)
        good, _ = good_samples(arrays, path)
        if "density" not in good:
            raise ValueError(f"{path} holds {', '.join(sorted(good))}, but no density.")
        solid = meta.get("parameters", {})
        known = "tensor" in good and (solid.get("E"), solid.get("nu")) == (1.0, 0.3)
        tensor = torch.from_numpy(good["tensor"]).double() if known else None
        return Cells(check_density(good["density"], f"density in {path}").float(), tensor, hash=digest, meta=(meta,))
    try:
        values = read_npy(path)
    except ValueError as error:
        raise ValueError(f"{path} is neither a data set nor a .npy file of densities.") from error
    density = check_density(values, f"density in {path}").float()
    return Cells(density, hash=hashlib.sha256(density.numpy().tobytes()).hexdigest(), meta=({"command": str(path)},))


def join(parts: Sequence[Cells]) -> Cells:
    """Return all cells of several sets, with their tensors if all sets have them, without displacements.

    Raises:
        ValueError: Their resolutions differ.
    """
    same_size([tuple(part.density.shape[1:]) for part in parts], "resolution")
    digest = joined_hash([part.hash for part in parts])
    known = [p.tensor for p in parts if p.tensor is not None]
    tensor = torch.cat(known) if len(known) == len(parts) else None
    meta = tuple(m for p in parts for m in p.meta)
    return Cells(torch.cat([p.density for p in parts]), tensor, hash=digest, meta=meta)


def load_cells(
    paths: Sequence[str | Path], held_out: int | None = None, *, allow_partial: bool = False
) -> tuple[Cells, Cells]:
    """Read sets of one resolution and split each, see `surrogates.training.split`.

    Raises:
        ValueError: A set cannot be read, the resolutions differ, or nothing is left to train on.
    """
    train, held = split_each([read_cells(path, allow_partial=allow_partial) for path in paths], held_out)
    return join(train), join(held)


def solve(cells: Cells, *, fields: bool = False, device: str = "cpu") -> Cells:
    """Return the cells with their exact tensors and, with `fields`, displacements; known ones are not solved again."""
    if cells.tensor is not None and (cells.displacement is not None or not fields):
        return cells
    tensors, displacements = [], []
    for part in cells.parts(AT_ONCE):
        cell = Homogeniser(part.density.double().to(device), spacing=np.ones(3))
        solved = cell.solve(tolerance=EXACT)
        tensors.append(solved.tensor.cpu())
        if fields:
            displacements.append(solved.displacement.float().cpu())
    return replace(cells, tensor=torch.cat(tensors), displacement=torch.cat(displacements) if fields else None)


def resolve(resolution: Sequence[int], edges: np.ndarray) -> tuple[int, ...]:
    """Return voxels (X, Y, Z): as given, or nearly cubic ones with the given number along the longest edge."""
    if len(resolution) not in (1, 3) or min(resolution) < 1:
        raise ValueError(f"resolution must be one positive number of voxels or three, got {list(resolution)}.")
    if len(resolution) == 3:
        return tuple(resolution)
    return tuple(int(n) for n in np.maximum(1, np.round(resolution[0] * edges / edges.max())))


def read_surface(
    path: Path, resolution: Sequence[int] | None, box: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return densities (X, Y, Z) and edges of a voxel (3,) of the solid within a surface.

    Raises:
        ValueError: The file holds no closed surface, or the options do not fit.
    """
    if resolution is None:
        raise ValueError(f"resolution must be given for a surface, {path}: the number of voxels per side.")
    if len(resolution) == 3:
        check_size("resolution", resolution)
    triangles = read_triangles(path)
    ends = np.array(box).reshape(2, 3) if box is not None else np.stack([triangles.min((0, 1)), triangles.max((0, 1))])
    low, high = ends
    if not ((high > low) & np.isfinite(high - low)).all():
        raise ValueError(
            f"box must be two finite corners, the second above the first, got {low.tolist()} and {high.tolist()}."
        )
    shape = resolve(resolution, high - low)
    check_size("resolution", shape)
    return fill(triangles, shape, (list(low), list(high))), (high - low) / np.array(shape)


def check_kind(path: Path, options: dict[str, Any]) -> None:
    """Check that a file exists, is of a known kind and takes the options that are given, None where they are not.

    Raises:
        ValueError: It does not; the sentence names the option.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if not path.is_dir() and suffix not in VOXELS + SURFACES:
        raise ValueError(f"{path} must be a folder of images or end in {', '.join(VOXELS + SURFACES)}.")
    for name, kinds in ONLY.items():
        if options[name] is not None and (path.is_dir() or suffix not in kinds):
            raise ValueError(f"{name} must not be given for {path}, it belongs to {', '.join(kinds)}.")
    if suffix in SURFACES and options["spacing"] is not None:
        raise ValueError(f"spacing must not be given for {path}, it follows from the box and the resolution.")


def check_spacing(spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the edges of a voxel (3,); ValueError if they are not positive, or if volumes would not be finite."""
    edges = np.array(spacing, dtype=float)
    if edges.shape != (3,) or not ((edges >= SMALLEST) & (edges <= 1 / SMALLEST)).all():
        low, high = SMALLEST, 1 / SMALLEST
        raise ValueError(f"spacing must be three positive numbers, from {low:g} to {high:g}, got {edges.tolist()}.")
    return edges


def take_sample(values: np.ndarray, sample: int | None, path: Path) -> np.ndarray:
    """Return one cell (X, Y, Z) of an array (X, Y, Z) or (cells, X, Y, Z)."""
    if values.ndim == 3:
        if sample is not None:
            raise ValueError(f"sample must not be given, {path} holds one cell (X, Y, Z).")
        return values
    count = len(values)
    if sample is None and count > 1:
        raise ValueError(f"sample must be given, {path} holds {count} cells.")
    if not 0 <= (sample or 0) < count:
        raise ValueError(f"sample must lie between 0 and {count - 1}, got {sample}.")
    return values[sample or 0]


def read_cell(
    path: str | Path,
    *,
    threshold: float | None = None,
    dataset: str | None = None,
    sample: int | None = None,
    shape: Sequence[int] | None = None,
    dtype: str | None = None,
    spacing: Sequence[float] | None = None,
    resolution: Sequence[int] | None = None,
    box: Sequence[float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the densities (X, Y, Z) of one cell, from 0 to 1, and the edges of a voxel (3,).

    Args:
        path: A file of voxels, a folder of images, or a closed surface.
        threshold: Voxels above this are solid, the others void; None for densities as they stand.
        dataset: Data set of an HDF5 file, if it has several.
        sample: Which cell, where the file holds (cells, X, Y, Z).
        shape: Voxels (X, Y, Z) of a raw file; z runs fastest.
        dtype: Type of the numbers of a raw file, for instance "<u2".
        spacing: Edges of a voxel (3,); cubes of edge 1 when None.
        resolution: Voxels of a surface: along its longest edge (1,), or (X, Y, Z).
        box: Lowest and highest corner of a surface's cell (6,); its own when None.

    Raises:
        ValueError: The file or an option does not fit.
    """
    path = Path(path)
    options = {"dataset": dataset, "shape": shape, "dtype": dtype, "resolution": resolution, "box": box}
    check_kind(path, options | {"spacing": spacing})
    if path.suffix.lower() in SURFACES and not path.is_dir():
        values, edges = read_surface(path, resolution, box)
    else:
        values, edges = read_voxels(path, dataset=dataset, shape=shape, dtype=dtype), np.ones(3)
    values = take_sample(values, sample, path)
    check_size(str(path), values.shape)
    if threshold is not None:
        if not np.isfinite(threshold):
            raise ValueError(f"threshold must be finite, got {threshold}.")
        values = values > threshold
    edges = check_spacing(edges if spacing is None else spacing)
    check_density(values[None], f"density in {path}, unless a threshold is given,")
    return values, edges
