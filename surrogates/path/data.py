"""Samples: the strain paths and stresses a law is trained on, split by sample id, and what they cover."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micro.data.dataset import read_dataset
from surrogates import tensors

ARRAYS = ("U", "stress", "duration", "time", "ids")
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
    """Read data sets and split each by sample id: the last ids are held out.

    Args:
        paths: directories of data sets.
        held_out: paths to hold out of each set; None for 10 % of it.
        allow_partial: accept a set whose job has not finished.

    Returns:
        Training samples and held-out samples.

    Raises:
        ValueError: the sets do not go together, or nothing is left to train on.
    """
    parts = []
    for path in paths:
        data = read_dataset(path, allow_partial=allow_partial)
        parts.append(Samples(data.U, data.stress, data.duration, data.time, data.ids, data.hash, (data.meta,)))
    train, held = zip(*[split(part, held_out) for part in parts], strict=True)
    return join(train), join(held)


def split(samples: Samples, held_out: int | None = None) -> tuple[Samples, Samples]:
    """Training and held-out samples: the `held_out` last ids (None: 10 %, at least one) are held out.

    Raises:
        ValueError: nothing is left on one of the sides.
    """
    n = max(1, len(samples) // 10) if held_out is None else held_out
    if not 0 < n < len(samples):
        raise ValueError(f"held_out must lie between 1 and {len(samples) - 1} for {len(samples)} paths, got {n}.")
    order = np.argsort(samples.ids, kind="stable")
    return samples[order[:-n]], samples[order[-n:]]


def join(parts: Sequence[Samples]) -> Samples:
    """All paths of several sets with the same number of times.

    Raises:
        ValueError: their numbers of times differ.
    """
    if len(parts) == 1:
        return parts[0]
    counts = [part.U.shape[1] for part in parts]
    if len(set(counts)) > 1:
        raise ValueError(f"Data sets trained on together must have the same number of times, got {counts}.")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    digest = hashlib.sha256("".join(part.hash for part in parts).encode()).hexdigest()
    return Samples(**arrays, hash=digest, meta=tuple(meta for part in parts for meta in part.meta))


def matrices(components: np.ndarray) -> torch.Tensor:
    """Symmetric (..., 3, 3) float64 of components (..., 6) in the order of the data."""
    full = components[..., [0, 3, 5, 3, 1, 4, 5, 4, 2]]
    return torch.from_numpy(np.ascontiguousarray(full, dtype=np.float64)).reshape(*components.shape[:-1], 3, 3)


def mandel(components: np.ndarray) -> torch.Tensor:
    """Mandel vectors (..., 6) float64 of components (..., 6) in the order of the data."""
    weights = np.array([1.0, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    return torch.from_numpy(np.asarray(components, dtype=np.float64) * weights)


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
        ValueError: the pressure of the data is not K (J - 1), on which every law here relies.
    """
    bulk, shear = 2 * crystal_constant(samples, "lambda_e", LAMBDA_E), crystal_constant(samples, "G", SHEAR)
    J = torch.linalg.det(matrices(samples.U)).numpy()
    pressure = samples.stress[..., :3].mean(-1)
    error = np.abs(pressure - bulk * (J - 1)).max() / max(1e-12, np.abs(bulk * (J - 1)).max())
    if not error < 1e-5:
        raise ValueError(f"The mean stress of the data must be K (J - 1), K = {bulk:g} Pa; it differs by {error:.1e}.")
    return bulk, shear


def trained_range(samples: Samples, time_window: float | None = None) -> dict[str, float | None]:
    """What the paths cover: norm of E = (C_bar - I)(C_bar + I)^-1, its rate |dE|/dt (1/s), and J.

    The smallest rate is the first percentile of all steps, for some steps are still.
    """
    n, T = samples.U.shape[:2]
    U = matrices(samples.U).reshape(-1, 3, 3)
    J = tensors.determinant(U)
    E = tensors.to_vector(tensors.rational_strain(tensors.isochoric(U, J))).reshape(n, T, 6)
    step = torch.from_numpy(np.diff(samples.time, axis=1) * samples.duration[:, None])
    rate = E.diff(dim=1).norm(dim=-1) / step
    return {
        "strain_max": float(E.norm(dim=-1).max()),
        "rate_min": float(np.quantile(rate.numpy(), 0.01)),
        "rate_max": float(rate.max()),
        "time_window": time_window,
        "jacobian_min": float(J.min()),
        "jacobian_max": float(J.max()),
    }
