"""Merging: fewer internal variables, by letting those most alike move as one."""

import torch
from torch import Tensor

from surrogates.tann.identify import Numbers


def merge(numbers: Numbers, wanted: int, seed: int) -> Numbers:
    """Let groups of variables move together (Galerkin): energy and dissipation are those of the full law.

    Alike are variables that strain drives alike, G_i / k_i up to sign; groups are found by k-means, the best of ten.

    Args:
        numbers: the full law, N variables.
        wanted: number of variables to keep, 1 to N.
        seed: seed of the first centres.
    """
    points = (numbers.G / numbers.k).T
    leading = points.gather(1, points.abs().argmax(dim=1, keepdim=True))
    sign = torch.where(leading < 0, -1.0, 1.0).to(points)
    group = k_means(points * sign, wanted, seed)
    P = torch.nn.functional.one_hot(group, wanted).to(points) * sign  # Z_full = P Z
    return Numbers(
        numbers.C, numbers.G @ P, P.T @ numbers.K @ P, P.abs().T @ numbers.k, P.abs().T @ numbers.h,
        numbers.decode_E, numbers.decode_Z @ P,
    )  # fmt: skip


def k_means(points: Tensor, groups: int, seed: int, *, starts: int = 10, rounds: int = 100) -> Tensor:
    """Group (n,) of each of the points (n, m), none empty: Lloyd's iteration from centres drawn by distance."""
    generator = torch.Generator().manual_seed(seed)
    best, best_spread = torch.arange(len(points)) % groups, float("inf")
    for _ in range(starts):
        chosen = [int(torch.randint(len(points), (1,), generator=generator))]
        while len(chosen) < groups:
            distance = torch.cdist(points, points[chosen]).amin(dim=1) ** 2
            distance[chosen] = 0.0
            weight = distance + 1e-12 * distance.sum() + 1e-300
            weight[chosen] = 0.0
            chosen.append(int(torch.multinomial(weight, 1, generator=generator)))
        centres = points[chosen]
        group = torch.cdist(points, centres).argmin(dim=1)
        for _ in range(rounds):
            count = torch.bincount(group, minlength=groups)
            sums = torch.zeros_like(centres).index_add_(0, group, points)
            centres = torch.where(count[:, None] > 0, sums / count.clamp(min=1)[:, None], centres)
            new = torch.cdist(points, centres).argmin(dim=1)
            if bool((new == group).all()):
                break
            group = new
        spread = float((points - centres[group]).norm() ** 2)
        if spread < best_spread and int(torch.bincount(group, minlength=groups).min()) > 0:
            best, best_spread = group, spread
    return best
