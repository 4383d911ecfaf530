"""Strain paths read from a file: the history of points of a run.

The file is HDF5 (.h5, .hdf5) or NumPy (.npz) with the arrays

- ``time`` (T,) or (n, T), s, increasing;
- ``F`` (n, T, 3, 3), the deformation gradient, or ``U`` (n, T, 3, 3), the right stretch; the identity at the first time.

Sample i of a set takes the history i modulo n. Between two recorded times C = F^T F is linear in time, as in the law;
histories whose number of points differs from that of the set are resampled along this interpolation, at parameters even
in the number of the recorded point.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from micro.crystal.paths.walk import Curve
from micro.tensors import to_components

#: Largest deviation of the first recorded tensor from the identity.
START = 1e-9


@dataclass(frozen=True)
class Recorded:
    """Recorded histories.

    Attributes:
        C: Right Cauchy-Green tensor (n, T, 3, 3).
        time: Times (n, T), s, from 0.
        digest: sha256 of the file.
    """

    C: np.ndarray
    time: np.ndarray
    digest: str


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays F, U and time of a file that it has.

    Raises:
        ValueError: The file is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise ValueError(f"recorded must be an HDF5 or npz file, {path} does not exist.")
    wanted = ("F", "U", "time")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: np.asarray(file[name], dtype=float) for name in wanted if name in file}
        if path.suffix in (".h5", ".hdf5"):
            with h5py.File(path, "r") as file:
                return {name: np.asarray(file[name][()], dtype=float) for name in wanted if name in file}
    except Exception as error:  # of HDF5, zipfile or NumPy, whatever a damaged file provokes in them
        raise ValueError(f"recorded {path} cannot be read ({type(error).__name__}): it is damaged.") from None
    raise ValueError(f"recorded must be an HDF5 (.h5, .hdf5) or .npz file, got {path.name}.")


def read_recorded(path: Path) -> Recorded:
    """Read recorded histories and check them.

    Raises:
        ValueError: The file cannot be read, or an array is missing, has another shape, is not finite, does not begin
            at the identity, is inverted, or its time does not increase; the sentence names it.
    """
    arrays = read_arrays(path)
    if "time" not in arrays or len(arrays) != 2:
        raise ValueError(f"recorded {path.name} must hold time and one of F and U, it holds {', '.join(arrays) or 'none'}.")
    name = "F" if "F" in arrays else "U"
    A, time = arrays[name], arrays["time"]
    if A.ndim != 4 or A.shape[2:] != (3, 3) or A.shape[0] < 1 or A.shape[1] < 2:
        raise ValueError(f"{name} in {path.name} must have shape (n, T, 3, 3) with T at least 2, got {A.shape}.")
    if time.shape not in (A.shape[1:2], A.shape[:2]):
        raise ValueError(f"time in {path.name} must have shape {A.shape[1:2]} or {A.shape[:2]}, got {time.shape}.")
    for label, array in ((name, A), ("time", time)):
        if not np.isfinite(array).all():
            raise ValueError(f"{label} in {path.name} must be finite, got nan or inf.")
    time = np.broadcast_to(time, A.shape[:2])
    if not (np.diff(time, axis=1) > 0).all():
        raise ValueError(f"time in {path.name} must increase, got a step that is not positive.")
    start = np.abs(A[:, 0] - np.eye(3)).max()
    if start > START:
        raise ValueError(f"{name} in {path.name} must be the identity at the first time, it differs by {start:.3g}.")
    smallest = np.linalg.det(A).min()
    if smallest <= 0:
        raise ValueError(f"{name} in {path.name} must have a positive determinant, got {smallest:.3g}.")
    if name == "U" and (
        np.abs(A - np.swapaxes(A, 2, 3)).max() > 1e-9 * np.abs(A).max() or np.linalg.eigvalsh(A).min() <= 0
    ):
        raise ValueError(f"U in {path.name} must be symmetric and positive definite; give F where there is a rotation.")
    C = np.swapaxes(A, 2, 3) @ A
    return Recorded(C, time - time[:, :1], hashlib.sha256(path.read_bytes()).hexdigest())


def recorded_curve(recorded: Recorded, sample: int) -> Curve:
    """Return the history of a sample; x is even in the number of the recorded point."""
    row = sample % len(recorded.C)
    C, time = recorded.C[row].reshape(-1, 9), recorded.time[row]
    x = np.linspace(0.0, 1.0, len(C))

    def stretch(parameter: np.ndarray) -> np.ndarray:
        full = np.stack([np.interp(parameter, x, C[:, k]) for k in range(9)], axis=-1).reshape(-1, 3, 3)
        values, axes = np.linalg.eigh(full)
        U = np.einsum("mik,mk,mjk->mij", axes, np.sqrt(values), axes)
        U[parameter == 0.0] = np.eye(3)  # to the bit
        return np.asarray(to_components(U))

    return Curve(stretch, float(time[-1]), lambda parameter: np.interp(parameter, x, time / time[-1]))
