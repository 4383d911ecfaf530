"""Properties that a learned history map should have but is not given: causality, isotropy, freedom of sampling.

A map takes whole histories to whole histories, as the networks of paper 1 do: it could look into the future, and it
could have preferred directions. Here are the strain histories that show it, and the numbers that measure it. Stress is
in Mandel vectors throughout; histories of the right stretch U are in the components and order of the data.

- **Causality**: histories with a common past must have a common stress in it. `acausality` is the largest difference of
  two stresses before their histories part, relative to the root mean square of the stress in that time.
- **Isotropy**: tension along any axis must give the same stress along it. `anisotropy` is the range of that stress over
  the axes, relative to its mean. Of a polycrystal of few grains it is not zero either, and that is to be shown beside.
- **Sampling**: `resampled` gives the history as a host with longer steps knows it.

References:
    Figures 1(d), 2 and 3 of doi:10.1016/j.jmps.2021.104668.
"""

import numpy as np
import torch
from torch import Tensor

from surrogates import tensors

SMALLEST = 0.2  # principal stretch that a history made here must keep, as those of the data


def diverging(U: np.ndarray, instant: int) -> np.ndarray:
    """Histories that share the past of the first one up to an instant, and then follow the increments of each.

    Args:
        U: histories (s, T, 6).
        instant: index of the last common time.

    Returns:
        The first history, and the others whose principal stretches stay above `SMALLEST`, (at most s, T, 6).

    Raises:
        ValueError: the instant does not lie inside the histories.
    """
    if not 0 < instant < U.shape[1] - 1:
        raise ValueError(f"instant must lie between 1 and {U.shape[1] - 2}, got {instant}.")
    joined = U.copy()
    joined[:, : instant + 1] = U[0, : instant + 1]
    joined[:, instant + 1 :] = U[0, instant] + U[:, instant + 1 :] - U[:, instant : instant + 1]
    smallest = np.linalg.eigvalsh(tensors.from_components(joined)).min(axis=(1, 2))
    smallest[0] = np.inf
    return joined[smallest > SMALLEST]


def held_ramps(strain: float, instants: list[int], times: int) -> np.ndarray:
    """Uniaxial stretches U11 = 1 + c t, c the strain, U22 = 1/U11, each held from an instant on, (s, T, 6)."""
    t = np.minimum(np.arange(times), np.asarray(instants)[:, None]) / (times - 1)
    U = np.zeros((len(instants), times, 6))
    U[..., 0], U[..., 1], U[..., 2] = 1 + strain * t, 1 / (1 + strain * t), 1.0
    return U


def acausality(stress: Tensor, instants: list[int]) -> float:
    """Largest difference of two stresses while their histories agree, relative to the stress.

    Args:
        stress: stress (s, T, 6) of histories that agree with one another.
        instants: index of the last time up to which each history follows the common one.

    Returns:
        The largest norm of a difference of two stresses up to the smaller of their instants, divided by the root mean
        square of the norm of the stresses up to that instant.
    """
    worst = 0.0
    for i in range(len(stress)):
        for j in range(i):
            end = min(instants[i], instants[j]) + 1
            one, other = stress[i, :end], stress[j, :end]
            size = torch.cat([one, other]).square().sum(dim=-1).mean().sqrt()
            worst = max(worst, float((one - other).norm(dim=-1).max() / size))
    return worst


def tension_axes(angles: np.ndarray) -> np.ndarray:
    """Unit vectors (s, 3): the first axis turned by angles (s,), rad, about the second."""
    return np.stack([np.cos(angles), np.zeros_like(angles), -np.sin(angles)], axis=-1)


def turned_tension(angles: np.ndarray, strain: float, times: int) -> np.ndarray:
    """Isochoric tension of a bar, U = f n n + (I - n n)/sqrt(f), f = 1 + c t, along turned axes n, (s, T, 6)."""
    n = tension_axes(angles)
    along = np.einsum("si,sj->sij", n, n)[:, None]
    f = (1 + strain * np.linspace(0.0, 1.0, times))[None, :, None, None]
    return tensors.to_components(f * along + (np.eye(3) - along) / np.sqrt(f))


def tensile(stress: Tensor, angles: np.ndarray) -> Tensor:
    """Stress along the axes of `turned_tension`, n . sigma n, (s, T), of stress (s, T, 6)."""
    n = torch.from_numpy(tension_axes(angles)).to(stress.dtype)
    full = tensors.to_matrix(stress.reshape(-1, 6)).reshape(*stress.shape[:2], 3, 3)
    return torch.einsum("si,stij,sj->st", n, full, n)


def anisotropy(tensile: Tensor) -> float:
    """Range of tensile stresses (s, T) over the axes at the end, relative to their mean there."""
    end = tensile[:, -1]
    return float((end.max() - end.min()) / end.mean().abs())


def resampled(U: np.ndarray, stride: int) -> np.ndarray:
    """Histories (s, T, 6) known at every `stride`-th time only, linear between.

    Raises:
        ValueError: the stride does not divide the number of steps.
    """
    steps = U.shape[1] - 1
    if stride < 1 or steps % stride:
        raise ValueError(f"stride must divide the {steps} steps of a history, got {stride}.")
    known = np.arange(0, steps + 1, stride)
    lower = np.minimum(np.arange(steps + 1) // stride, len(known) - 2)
    weight = ((np.arange(steps + 1) - lower * stride) / stride)[None, :, None]
    return (1 - weight) * U[:, known[lower]] + weight * U[:, known[lower + 1]]
