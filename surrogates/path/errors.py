"""Errors of a law on held-out paths, as paper 1 defines them.

The error of a path is ||sigma - sigma_data|| / ||sigma_data||, norms over time and all nine components; a set's error
is the mean over its paths. Pressure is exact in most laws and much larger than the deviator, so both errors are
reported.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.threads import small_batches
from surrogates import tensors
from surrogates.path.data import Samples, mandel, matrices


def relative_errors(stress: Tensor, truth: Tensor) -> Tensor:
    """Relative error (s,) of each path, from Mandel vectors (s, T, 6)."""
    return (stress - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def report(stress: Tensor, samples: Samples, suffix: str = "") -> dict[str, float]:
    """Mean errors of Cauchy stress (s, T, 6) (Mandel, Pa) against the data: full, deviatoric and its spread."""
    truth = mandel(samples.stress)
    full = relative_errors(stress, truth)
    deviatoric = relative_errors(tensors.deviator(stress), tensors.deviator(truth))
    return {
        f"full{suffix}": float(full.mean()),
        f"deviatoric{suffix}": float(deviatoric.mean()),
        f"deviatoric_median{suffix}": float(deviatoric.median()),
        f"deviatoric_worst_tenth{suffix}": float(np.quantile(deviatoric.numpy(), 0.9)),
    }


def refined(samples: Samples, factor: int) -> Samples:
    """The same paths with every step cut into `factor` equal ones: C = U^2 is linear in between, as in the data.

    The stress of the new instants is not a number.

    Raises:
        ValueError: factor is less than one.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}.")
    U = matrices(samples.U)
    n, T = U.shape[:2]
    at = torch.arange(factor * (T - 1) + 1, dtype=torch.float64) / factor
    low = at.floor().long().clamp(max=T - 2)
    part = (at - low).reshape(1, -1, 1, 1)
    C = U @ U
    C = (1 - part) * C[:, low] + part * C[:, low + 1]
    values, axes = torch.linalg.eigh(C)
    stretch = (axes * values.sqrt().unsqueeze(-2)) @ axes.mT
    stretch[:, ::factor] = U
    stress = np.full((n, len(at), 6), np.nan)
    stress[:, ::factor] = samples.stress
    weight = part.reshape(1, -1).numpy()
    time = (1 - weight) * samples.time[:, low] + weight * samples.time[:, low + 1]
    fine = np.asarray(tensors.to_components(stretch.numpy()))
    return Samples(fine, stress, samples.duration, time, samples.ids, samples.hash, samples.meta)


def coarsen(samples: Samples, stride: int) -> Samples:
    """The same paths at every `stride`-th time.

    Raises:
        ValueError: the number of steps is not a multiple of `stride`.
    """
    if (samples.U.shape[1] - 1) % stride:
        raise ValueError(f"stride must divide the {samples.U.shape[1] - 1} steps of a path, got {stride}.")
    U, stress, time = (array[:, ::stride] for array in (samples.U, samples.stress, samples.time))
    return Samples(U, stress, samples.duration, time, samples.ids, samples.hash, samples.meta)


def walk(law: Any, F: Tensor, dt: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Lead a law along paths step by step; gives the number of each step, P (s, 3, 3), Pa, and the state after it.

    Args:
        law: One with `step(F, state, dt (s,))`, or with `forward`, which takes the dt of the first path for all.
        F: (s, T, 3, 3), on the device of the law.
        dt: (s, T - 1), s.
    """
    state = law.initial_state(len(F))
    for k in range(1, F.shape[1]):
        if hasattr(law, "step"):
            P, state = law.step(F[:, k], state, dt[:, k - 1])
        else:
            P, state = law.forward(F[:, k], state, float(dt[0, k - 1]))
        yield k, P, state


def cauchy(P: Tensor, F: Tensor) -> Tensor:
    """Mandel vectors (s, 6) of the Cauchy stress of P and F (s, 3, 3)."""
    sigma = torch.matmul(P, F.transpose(1, 2)) / tensors.determinant(F)[:, None, None]
    return tensors.to_vector(0.5 * (sigma + sigma.transpose(1, 2)))


@small_batches()
def follow(law: Any, samples: Samples) -> Tensor:
    """Cauchy stress (s, T, 6) (Mandel, Pa) of a law driven with F = U along the paths, step by step as a host does.

    A law with a method `step(F, state, dt (n,))` takes all paths at once; another takes them in groups of equal step,
    since its `forward` takes one dt.
    """
    F = matrices(samples.U)
    dt = torch.from_numpy(np.diff(samples.time, axis=1) * samples.duration[:, None])
    stress = torch.zeros(samples.U.shape, dtype=torch.float64)
    device = next(iter(law.parameters()), torch.zeros(0)).device
    if hasattr(law, "step"):
        groups = [torch.arange(len(F))]
    else:
        _, inverse = torch.unique(dt.round(decimals=18), dim=0, return_inverse=True)
        groups = [torch.nonzero(inverse == group).flatten() for group in range(int(inverse.max()) + 1)]
    with torch.no_grad():
        for rows in groups:
            path = F[rows].to(device)
            for k, P, _ in walk(law, path, dt[rows].to(device)):
                stress[rows, k] = cauchy(P, path[:, k]).cpu()
    return stress


@small_batches()
def resolution_report(law: Any, samples: Samples) -> dict[str, float]:
    """Errors of a law driven along the paths at every time, every second (`_half`) and fourth (`_quarter`)."""
    found = report(follow(law, samples), samples)
    for stride, suffix in ((2, "_half"), (4, "_quarter")):
        coarse = coarsen(samples, stride)
        other = report(follow(law, coarse), coarse)
        found |= {f"full{suffix}": other["full"], f"deviatoric{suffix}": other["deviatoric"]}
    return found
