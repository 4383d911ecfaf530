"""Samples: the strain paths and stresses that a law is trained on, and the range that they cover."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micro.data.dataset import read_dataset
from surrogates import tensors
from surrogates.artifact.export import Material
from surrogates.training.split import check_finite, joined_hash, same_size, split_each

ARRAYS = ("U", "stress", "duration", "time", "ids")
#: The data that `surrogates.train` requires.
DATA = "data set of strain paths, of micro.generate taylor"
LAMBDA_E, SHEAR, DENSITY = 24e9, 25e9, 1e4  # Pa, Pa, kg/m^3: paper 1, table A.1


@dataclass(frozen=True)
class Samples:
    """Strain paths and the stress along them.

    Attributes:
        U: right stretch (s, T, 6), order 11, 22, 33, 12, 23, 13.
        stress: Cauchy stress (s, T, 6), Pa, in the frame of U, same order.
        duration: duration of each path (s,), s.
        time: time relative to the duration (s, T), from 0 to 1.
        ids: sample ids (s,).
        hash: content hash of the data sets they come from.
        meta: the manifest of each data set.
    """

    U: np.ndarray
    stress: np.ndarray
    duration: np.ndarray
    time: np.ndarray
    ids: np.ndarray
    hash: str = "0" * 64
    meta: tuple[dict[str, Any], ...] = ()

    def __len__(self) -> int:
        """Number of paths."""
        return len(self.U)

    def __getitem__(self, rows: Any) -> "Samples":
        """The paths of an index array, a mask or a slice."""
        parts = {name: getattr(self, name)[rows] for name in ARRAYS}
        return replace(self, **parts)


def load_samples(
    paths: Sequence[str | Path], held_out: int | None = None, *, allow_partial: bool = False
) -> tuple[Samples, Samples]:
    """Read data sets and split each, see `surrogates.training.split`.

    Args:
        paths: directories of data sets.
        held_out: number of paths to hold out of each set; None for a tenth.
        allow_partial: accept a set whose job has not finished.

    Returns:
        Training samples and held-out samples.

    Raises:
        ValueError: the sets cannot be combined, hold values that are not finite, or nothing is left to train on.
    """
    parts = []
    for path in paths:
        data = read_dataset(path, allow_partial=allow_partial)
        check_finite({name: getattr(data, name) for name in ARRAYS if name != "ids"}, data.ids, path)
        parts.append(Samples(data.U, data.stress, data.duration, data.time, data.ids, data.hash, (data.meta,)))
    train, held = split_each(parts, held_out)
    return join(train), join(held)


def join(parts: Sequence[Samples]) -> Samples:
    """All paths of several sets with the same number of times.

    Raises:
        ValueError: their numbers of times differ.
    """
    if len(parts) == 1:
        return parts[0]
    same_size([part.U.shape[1] for part in parts])
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    digest = joined_hash([part.hash for part in parts])
    return Samples(**arrays, hash=digest, meta=tuple(meta for part in parts for meta in part.meta))


def matrices(components: np.ndarray) -> torch.Tensor:
    """Symmetric (..., 3, 3) float64 of components (..., 6) in the order of the data."""
    return torch.from_numpy(np.ascontiguousarray(tensors.from_components(components), dtype=np.float64))


def mandel(components: np.ndarray) -> torch.Tensor:
    """Mandel vectors (..., 6) float64 of components (..., 6) in the order of the data."""
    factors = np.array(tensors.mandel_factors(tensors.PATH_ORDER))
    return torch.from_numpy(np.asarray(components, dtype=np.float64) * factors)


def crystal_constant(samples: Samples, name: str, default: float) -> float:
    """A constant of the crystals that made the data, by its name in `micro.crystal.materials`.

    Raises:
        ValueError: data sets of different crystals are mixed.
    """
    values = {float(meta.get("parameters", {}).get("crystal", {}).get(name, default)) for meta in samples.meta}
    if len(values) > 1:
        raise ValueError(f"Data sets trained on together must have the same {name}, got {sorted(values)}.")
    return values.pop() if values else default


def moduli(samples: Samples) -> tuple[float, float]:
    """Bulk and shear modulus (Pa) of the crystals that made the data, the bulk modulus checked against the pressure.

    Raises:
        ValueError: the pressure of the data is not K (J - 1), which every law here assumes.
    """
    bulk, shear = 2 * crystal_constant(samples, "lambda_e", LAMBDA_E), crystal_constant(samples, "G", SHEAR)
    J = torch.linalg.det(matrices(samples.U)).numpy()
    pressure = samples.stress[..., :3].mean(-1)
    # The stress counts as well, and rounding, since isochoric paths have no pressure.
    size = max(np.abs(bulk * (J - 1)).max(), np.abs(samples.stress).max(), 1e-6 * bulk)
    error = np.abs(pressure - bulk * (J - 1)).max() / size
    if not error < 1e-5:
        raise ValueError(f"The mean stress of the data must be K (J - 1), K = {bulk:g} Pa; it differs by {error:.1e}.")
    return bulk, shear


def trained_range(samples: Samples, time_window: float | None = None) -> dict[str, float | None]:
    """The range of the paths: norm of E = (C_bar - I)(C_bar + I)^-1, its rate |dE|/dt (1/s), length of its path, J.

    The smallest rate is the first percentile of all steps, since some steps have no strain.
    """
    n, T = samples.U.shape[:2]
    U = matrices(samples.U).reshape(-1, 3, 3)
    J = tensors.determinant(U)
    E = tensors.to_vector(tensors.rational_strain(tensors.isochoric(U, J))).reshape(n, T, 6)
    step = torch.from_numpy(np.diff(samples.time, axis=1) * samples.duration[:, None])
    change = E.diff(dim=1).norm(dim=-1)
    rate = change / step
    return {
        "strain_max": float(E.norm(dim=-1).max()),
        "rate_min": float(np.quantile(rate.numpy(), 0.01)),
        "rate_max": float(rate.max()),
        "time_window": time_window,
        "jacobian_min": float(J.min()),
        "jacobian_max": float(J.max()),
        "length_max": float(change.sum(dim=1).max()),
    }


def material(train: Samples) -> Material:
    """The manifest's description of the crystals that a law was trained on."""
    return Material("finite", 3, crystal_constant(train, "density", DENSITY), moduli(train), trained_range(train))
