"""Errors of a law on held-out paths, as paper 1 defines them, and the certificate of its derivative.

The error of a path is ||sigma - sigma_data|| / ||sigma_data||, norms over time and all nine components; a set's error
is the mean over its paths. Pressure is exact in most laws and dwarfs the deviator, so both stresses are reported.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surrogates import kinematics
from surrogates.samples import Samples, mandel, matrices


def relative_errors(stress: Tensor, truth: Tensor) -> Tensor:
    """Relative error (s,) of each path, from Mandel vectors (s, T, 6)."""
    return (stress - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def report(stress: Tensor, samples: Samples, suffix: str = "") -> dict[str, float]:
    """Mean errors of Cauchy stress (s, T, 6) (Mandel, Pa) against the data: full, deviatoric and its spread."""
    truth = mandel(samples.stress)
    full = relative_errors(stress, truth)
    deviatoric = relative_errors(kinematics.deviator(stress), kinematics.deviator(truth))
    return {
        f"full{suffix}": float(full.mean()),
        f"deviatoric{suffix}": float(deviatoric.mean()),
        f"deviatoric_median{suffix}": float(deviatoric.median()),
        f"deviatoric_worst_tenth{suffix}": float(np.quantile(deviatoric.numpy(), 0.9)),
    }


def coarsen(samples: Samples, stride: int) -> Samples:
    """The same paths seen at every `stride`-th time.

    Raises:
        ValueError: the number of steps is not a multiple of `stride`.
    """
    if (samples.U.shape[1] - 1) % stride:
        raise ValueError(f"stride must divide the {samples.U.shape[1] - 1} steps of a path, got {stride}.")
    U, stress, time = (array[:, ::stride] for array in (samples.U, samples.stress, samples.time))
    return Samples(U, stress, samples.duration, time, samples.ids, samples.hash, samples.meta)


def follow(law: Any, samples: Samples) -> Tensor:
    """Cauchy stress (s, T, 6) (Mandel, Pa) of a law driven with F = U along the paths, step by step as a host does.

    A law with a method `step(F, state, dt (n,))` takes all paths at once; another takes them in groups of equal step,
    for its `forward` knows one dt.
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
            state = law.initial_state(len(rows))
            for k in range(1, F.shape[1]):
                F_k = F[rows, k].to(device)
                if hasattr(law, "step"):
                    P, state = law.step(F_k, state, dt[:, k - 1].to(device))
                else:
                    P, state = law.forward(F_k, state, float(dt[rows[0], k - 1]))
                sigma = torch.matmul(P, F_k.transpose(1, 2)) / kinematics.determinant(F_k)[:, None, None]
                stress[rows, k] = kinematics.to_vector(0.5 * (sigma + sigma.transpose(1, 2))).cpu()
    return stress


def resolution_report(law: Any, samples: Samples) -> dict[str, float]:
    """Errors of a law driven along the paths at every time, every second (`_half`) and fourth (`_quarter`)."""
    found = report(follow(law, samples), samples)
    for stride, suffix in ((2, "_half"), (4, "_quarter")):
        coarse = coarsen(samples, stride)
        other = report(follow(law, coarse), coarse)
        found |= {f"full{suffix}": other["full"], f"deviatoric{suffix}": other["deviatoric"]}
    return found


def certificate(law: Any, samples: Samples, *, points: int = 8) -> dict[str, float | bool]:
    """Certificate of a law: its tangent against central differences and its stress in the virgin state.

    Differences are taken in float64 on states reached along the first paths, under an added rotation and shear, at a
    quarter, a half and all of their time.

    Returns:
        `tangent_difference`, relative to the largest entry of the tangent; `virgin_stress`, Pa, the largest component
        of P at F = I after one step; `symmetric`, whether every tangent has dP_ij/dF_kl = dP_kl/dF_ij to 1e-6.
    """
    virgin = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    dt = float(samples.duration[0]) / 200
    with torch.no_grad():
        virgin_stress = law.forward(virgin, law.initial_state(3), dt)[0].abs().max()
    law = copy.deepcopy(law).double().cpu()
    some = samples[slice(0, points)]
    F_path = matrices(some.U)
    angle = torch.tensor([[0.0, -0.3, 0.1], [0.3, 0.0, -0.2], [-0.1, 0.2, 0.0]], dtype=torch.float64)
    turn = torch.matrix_exp(angle)
    T = F_path.shape[1]
    checks = {(T - 1) // 4, (T - 1) // 2, T - 1}
    worst, skew = 0.0, 0.0
    state = law.initial_state(len(some))
    for k in range(1, T):
        F = torch.matmul(turn, F_path[:, k])
        with torch.no_grad():
            _, new_state = law.forward(F, state, dt)
        if k in checks:
            _, _, dP_dF = law.tangent(F, state, dt)
            difference = torch.zeros_like(dP_dF)
            for i in range(3):
                for j in range(3):
                    h = torch.zeros(3, 3, dtype=torch.float64)
                    h[i, j] = 1e-6
                    with torch.no_grad():
                        P_plus, P_minus = law.forward(F + h, state, dt)[0], law.forward(F - h, state, dt)[0]
                    difference[:, :, :, i, j] = (P_plus - P_minus) / 2e-6
            size = dP_dF.abs().amax()
            worst = max(worst, float((dP_dF - difference).abs().amax() / size))
            skew = max(skew, float((dP_dF - dP_dF.permute(0, 3, 4, 1, 2)).abs().amax() / size))
        state = new_state
    return {"tangent_difference": worst, "virgin_stress": float(virgin_stress), "symmetric": skew < 1e-6}
