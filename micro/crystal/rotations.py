"""Rotations: uniformly random orientations, rotation about an axis."""

import numpy as np
import torch
from torch import Tensor


def from_quaternions(q: Tensor) -> Tensor:
    """Return the rotation matrices (..., 3, 3) of unit quaternions `q` (..., 4), scalar part first."""
    w, x, y, z = q.unbind(-1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=-1,
    ).reshape(*q.shape[:-1], 3, 3)  # fmt: skip


def random_rotations(n: int, seed: int) -> Tensor:
    """Return `n` rotations (n, 3, 3), uniform on SO(3) (Haar measure), as float64.

    A normalised vector of four independent normal numbers is uniform on the unit quaternions. The same `seed` gives
    the same rotations on every platform (counter-based Philox generator).

    Raises:
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}.")
    q = np.random.Generator(np.random.Philox(key=seed)).standard_normal((n, 4))
    return from_quaternions(torch.from_numpy(q / np.linalg.norm(q, axis=-1, keepdims=True)))


def rotation_about(axis: Tensor, angle: float) -> Tensor:
    """Return the rotation (3, 3) by `angle` (radian) about the vector `axis` (3,), right-handed.

    Raises:
        ValueError: `axis` is not a non-zero vector of three components.
    """
    if axis.shape != (3,) or float(axis.norm()) == 0.0:
        raise ValueError(f"axis must be a non-zero vector of shape (3,), got {axis.tolist()}.")
    half = torch.as_tensor(angle / 2, dtype=torch.float64)
    unit = axis.to(torch.float64)
    unit = unit / unit.norm()  # a norm in single precision would leave a rotation that is none, by 1e-8
    return from_quaternions(torch.cat([half.cos()[None], half.sin() * unit]))
