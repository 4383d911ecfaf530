"""Cells: densities of voxel cells to train a network on, and, where they are asked for, their exact fields and tensors.

A set is a folder that `micro.generate` wrote, or a file `.npy` with densities (cells, X, Y, Z) from 0 to 1.
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
from micro.voxel.cells.files import read_npy
from micro.voxel.solver.homogeniser import Homogeniser
from surrogates.training.split import joined_hash, same_size, split_each

#: What `surrogates.train` asks for.
DATA = "data set of micro.generate voxels, or .npy file of densities"
#: Tolerance of exact fields, of the energy; cells solved at a time.
EXACT = 1e-7
AT_ONCE = 8


@dataclass(frozen=True)
class Cells:
    """Voxel cells of one resolution, of a solid with E = 1 and nu = 0.3.

    Attributes:
        density: Factors of the solid's moduli (n, X, Y, Z), float32, from 0 to 1.
        tensor: Exact tensors (n, 6, 6), float64, or None.
        displacement: Exact fluctuations (n, 6, 3, X, Y, Z), float32, in voxels, or None.
        hash: Content hash of the sets they come from.
        meta: What made each set.
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
        """The cells, some at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def check_density(density: np.ndarray | Tensor, source: str = "density") -> Tensor:
    """Return densities (n, X, Y, Z) as real numbers, void and solid marked by 0 and 1.

    Raises:
        ValueError: One sentence that says what is wrong with them.
    """
    if isinstance(density, np.ndarray) and density.dtype.kind not in "buifc":
        raise ValueError(f"{source} must be real numbers, got {density.dtype}.")
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
    """Return all cells of several sets, with their tensors if all of them have theirs, without displacements.

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
    """Return the cells with their exact tensors and, with `fields`, displacements; what is known is not solved for."""
    if cells.tensor is not None and (cells.displacement is not None or not fields):
        return cells
    tensors, displacements = [], []
    for part in cells.parts(AT_ONCE):
        solved = Homogeniser(
            part.density.double().to(device), spacing=np.ones(3)
        ).solve(tolerance=EXACT)  # fmt: skip
        tensors.append(solved.tensor.cpu())
        if fields:
            displacements.append(solved.displacement.float().cpu())
    return replace(cells, tensor=torch.cat(tensors), displacement=torch.cat(displacements) if fields else None)
