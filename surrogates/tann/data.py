"""Lattice paths: strain paths of a lattice cell, its averages and its internal coordinates, to train a TANN on.

Strain and stress are Mandel vectors (`surrogates.tensors`). The internal coordinates xi are the displacements of the
nodes and the forces of the bars, Fig. 2 of paper 2, each kind divided by its own size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.lattice.data import read_lattice_set
from surrogates.tensors import component_factors
from surrogates.training.split import check_finite, joined_hash, same_size, split_each

#: The data that `surrogates.train` requires.
DATA = "data set of strain paths of a lattice cell, of micro.generate lattice"
FIELDS = ("strain", "stress", "psi", "dissipation", "displacement", "force", "alpha")
ARRAYS = (*FIELDS, "ids")


@dataclass(frozen=True)
class LatticePaths:
    """States along strain paths of one cell; time is the second axis, its first entry is the virgin state.

    Attributes:
        strain: Mandel vectors (s, T, c).
        stress: Mandel vectors (s, T, c), Pa.
        psi: free energy (s, T), J/m^3.
        dissipation: dissipated in the step that ends at each time (s, T), J/m^3.
        displacement: displacements of the nodes (s, T, m d).
        force: bar forces (s, T, b), N.
        alpha: plastic strains of the bars (s, T, b).
        ids: sample ids (s,).
        hash: content hash of the data sets they come from.
        meta: the manifest of each data set.
    """

    strain: Tensor
    stress: Tensor
    psi: Tensor
    dissipation: Tensor
    displacement: Tensor
    force: Tensor
    alpha: Tensor
    ids: np.ndarray
    hash: str = "0" * 64
    meta: tuple[dict[str, Any], ...] = ()

    def __len__(self) -> int:
        """Number of paths."""
        return len(self.strain)

    def __getitem__(self, rows: Any) -> "LatticePaths":
        """The paths of an index array, a mask or a slice."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ARRAYS})

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return 2 if self.strain.shape[-1] == 3 else 3

    @property
    def lattice(self) -> dict[str, Any]:
        """The cell and its bars, from the data job, in the form that `micro.lattice.data.lattice_of` reads."""
        parameters = self.meta[0]["parameters"]
        return {"cell": parameters["cell"], "bar": parameters["bar"]}


def load_paths(
    paths: Sequence[str | Path], held_out: int | None = None, *, allow_partial: bool = False
) -> tuple[LatticePaths, LatticePaths]:
    """Read data sets of one cell and split each, see `surrogates.training.split`.

    Raises:
        ValueError: the sets are of different cells, hold values that are not finite, or nothing is left to train on.
    """
    parts = [_read(path, allow_partial) for path in paths]
    if any(part.lattice != parts[0].lattice for part in parts):
        raise ValueError("Data sets trained on together must be of the same cell and bars.")
    train, held = split_each(parts, held_out)
    return join(train), join(held)


def join(parts: Sequence[LatticePaths]) -> LatticePaths:
    """All paths of several sets with the same number of times.

    Raises:
        ValueError: their numbers of times differ.
    """
    if len(parts) == 1:
        return parts[0]
    same_size([part.strain.shape[1] for part in parts])
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in FIELDS}
    ids = np.concatenate([part.ids for part in parts])
    digest = joined_hash([part.hash for part in parts])
    return LatticePaths(**tensors, ids=ids, hash=digest, meta=tuple(meta for part in parts for meta in part.meta))


def paths_of(
    arrays: Mapping[str, np.ndarray], ids: np.ndarray, meta: dict[str, Any], digest: str = "0" * 64
) -> LatticePaths:
    """Paths from the arrays of the data source, strain and stress in components.

    Args:
        arrays: those of FIELDS, paths first; see `LatticePaths` for shapes.
        ids: sample ids (s,).
        meta: the manifest, or at least its `parameters`.
        digest: content hash.
    """
    tensors = {name: torch.from_numpy(np.array(arrays[name], dtype=np.float64)) for name in FIELDS}
    factors = 1.0 / component_factors(2 if tensors["strain"].shape[-1] == 3 else 3)
    tensors["strain"], tensors["stress"] = tensors["strain"] * factors, tensors["stress"] * factors
    return LatticePaths(**tensors, ids=ids, hash=digest, meta=(meta,))


def _read(path: str | Path, allow_partial: bool) -> LatticePaths:
    data = read_lattice_set(path, allow_partial=allow_partial)
    arrays = {name: getattr(data, name) for name in FIELDS if name not in ("displacement", "alpha")}
    displacement = data.displacement.reshape(*data.psi.shape, -1)
    arrays |= {"displacement": displacement, "alpha": data.bar_state[..., 0]}
    check_finite(arrays, data.ids, path)
    return paths_of(arrays, data.ids, data.meta, data.hash)
