"""What every learned law has in common: `forward` at one step for all points, and its derivative."""

import torch
from torch import Tensor

from surrogates.tensors import stress_derivative


class PointLaw(torch.nn.Module):
    """Abstract law of the artifact's contract; a final law adds `initial_state`, `step`, `observe` and `describe`."""

    def step(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with a step dt (n,), s, of each point's own."""
        raise NotImplementedError

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and new state for F (n, 3, 3) after a step dt, s."""
        return self.step(F, state, torch.full_like(state[:, 0], dt))

    @torch.jit.export
    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` and its derivative dP_dF (n, 3, 3, 3, 3)."""
        graded = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        F = F.detach().requires_grad_(True)
        P, new_state = self.forward(F, state, dt)
        dP_dF = stress_derivative(P, F)
        torch.set_grad_enabled(graded)
        return P.detach(), new_state.detach(), dP_dF
