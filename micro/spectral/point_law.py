"""What a cell needs of the law of a phase, and the elastic moduli that it measures itself."""

from typing import Protocol

import torch
from torch import Tensor

#: Strain and duration (s) of the trial steps that measure a law's elastic moduli.
TRIAL_STRAIN, TRIAL_TIME = 1e-6, 1e-15


class PointLaw(Protocol):
    """What a cell needs of the law of a phase."""

    def initial_state(self, n: int) -> Tensor:
        """Return the state (n, k) of `n` virgin points."""

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first Piola-Kirchhoff stress (n, 3, 3), Pa, and the new state (n, k), and change no argument.

        A point whose step fails has a stress that is not finite.

        Args:
            F: Deformation gradient at the end of the step (n, 3, 3).
            state: State at the start of the step (n, k).
            dt: Size of the step (n,), s.
        """


def elastic_moduli(law: PointLaw, virgin: Tensor, stretch: Tensor, dimension: int) -> Tensor:
    """Return the two moduli (n, 2), Pa, of the acoustic tensor of virgin points that are only dilated.

    At F = stretch 1 the tangent of an isotropic law is a 1 (x) 1 + b I + c I^T, and the acoustic tensor of the deformed
    body b |q|^2 1 + (a + c) q (x) q, both times stretch^2. At stretch 1 the two are mu and lam + mu. Where the law
    fails they are zero.

    Args:
        law: A point law.
        virgin: Virgin states (n, k).
        stretch: Stretches (n,).
        dimension: Shears in the plane only (2), or in space (3): the largest is taken.
    """
    pairs = [(0, 1), (1, 2), (0, 2)][: 2 * dimension - 3]
    one = torch.eye(3, dtype=torch.float64, device=virgin.device)
    trials = torch.zeros(len(pairs) + 2, 3, 3, dtype=torch.float64, device=virgin.device)  # none, shears, dilation
    for row, (i, j) in enumerate(pairs):
        trials[row + 1, i, j] = TRIAL_STRAIN
    trials[-1] = TRIAL_STRAIN * one
    F = stretch[:, None, None, None] * one + trials
    count = len(trials)
    state, time = virgin.repeat_interleave(count, 0), F.new_full((len(F) * count,), TRIAL_TIME)
    P = law.update(F.flatten(0, 1), state, time)[0].unflatten(0, (-1, count))
    dP = (P[:, 1:] - P[:, :1]) / TRIAL_STRAIN
    b = torch.stack([dP[:, row, i, j] for row, (i, j) in enumerate(pairs)], dim=1)
    c = torch.stack([dP[:, row, j, i] for row, (i, j) in enumerate(pairs)], dim=1)
    b, c = b.amax(1), c.amax(1)
    a = (dP[:, -1].diagonal(dim1=1, dim2=2).mean(1) - b - c) / 3
    return torch.nan_to_num(torch.stack([b, a + c], dim=1), 0.0, 0.0, 0.0) * stretch[:, None] ** 2
