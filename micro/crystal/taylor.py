"""Taylor polycrystal: grains of different orientation with one common deformation gradient.

References:
    Liu et al. (2022), section 3.1 (3DTaylor), doi:10.1016/j.jmps.2021.104668.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from micro.crystal.law import Crystal, CrystalState
from micro.crystal.materials import CrystalParameters
from micro.crystal.texture import Texture, random_texture
from micro.tensors import from_components, matmul, to_components
from micro.threads import small_batches


@dataclass(frozen=True)
class TaylorResult:
    """Response of a polycrystal to a batch of strain paths.

    Attributes:
        stress: Mean Cauchy stress (s, T, 6), Pa, in the frame of the stretch; order 11, 22, 33, 12, 23, 13.
        ok: Whether each path was solved (s,), bool.
        reason: Why a path was not solved, empty where it was; s strings.
    """

    stress: Tensor
    ok: Tensor
    reason: list[str]


class TaylorPolycrystal:
    """A Taylor polycrystal of hcp grains.

    Args:
        grains: Texture, or the number of grains of uniformly random orientations; the default is the paper's.
        seed: Seed of the orientations.
        parameters: Single-crystal parameters.
        substeps: Solver steps between two given points of a path; the stretch is interpolated linearly.
        device: Torch device.

    Raises:
        ValueError: `grains` or `substeps` is not positive.
    """

    def __init__(
        self,
        grains: Texture | int = 128,
        seed: int = 0,
        parameters: CrystalParameters | None = None,
        *,
        substeps: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        texture = random_texture(grains, seed) if isinstance(grains, int) else grains
        if substeps < 1:
            raise ValueError(f"substeps must be at least 1, got {substeps}.")
        self.crystal = Crystal(parameters, device=device)
        self.orientations = texture.orientations.to(device)  # (g, 3, 3), crystal frame to sample frame
        self.weights = texture.weights.to(device)  # (g,)
        self.substeps = substeps

    def initial_state(self, n: int) -> CrystalState:
        """Return the state of `n` virgin polycrystals, a batch of ``n * grains`` crystals, grains running fastest."""
        return self.crystal.initial_state(n * len(self.orientations))

    def unpack(self, state: CrystalState) -> tuple[Tensor, Tensor, Tensor]:
        """Return F_in (n, g, 3, 3), e (n, g, n_slip) and lambda (n, g, n_twin) of the grains, in their own frames."""
        F_in, e, lam = (a.unflatten(0, (-1, len(self.weights))) for a in (state.F_in, state.e, state.lam))
        return F_in, e, lam

    def update(self, F: Tensor, state: CrystalState, dt: Tensor) -> tuple[Tensor, CrystalState, Tensor]:
        """Advance the polycrystals by one step.

        Args:
            F: Deformation gradient at the end of the step (n, 3, 3).
            state: State at the start of the step.
            dt: Size of the step (n,), s.

        Returns:
            Mean Cauchy stress (n, 3, 3), Pa; the new state; whether all grains have converged (n,), bool.
        """
        n, g = len(F), len(self.orientations)
        q = self.orientations
        F_crystal = matmul(matmul(q.mT, F[:, None]), q).reshape(n * g, 3, 3)
        state, converged = self.crystal.update(F_crystal, state, dt.repeat_interleave(g))
        sigma = self.crystal.cauchy(F_crystal, state).reshape(n, g, 3, 3)
        return (
            torch.einsum("g,ngij->nij", self.weights, matmul(matmul(q, sigma), q.mT)),
            state,
            converged.reshape(n, g).all(1),
        )

    @small_batches()
    def solve(self, U: Tensor, time: Tensor) -> TaylorResult:
        """Return the mean stress along stretch paths.

        Args:
            U: Right stretch (s, T, 6), the identity at the first time; order 11, 22, 33, 12, 23, 13.
            time: Times (s, T), s, increasing.

        Returns:
            The stress history and the status of each path.

        Raises:
            ValueError: The shapes do not fit, a time step is not positive, or a path does not start at the identity.
        """
        if U.dim() != 3 or U.shape[-1] != 6 or time.shape != U.shape[:2]:
            raise ValueError(f"U must have shape (s, T, 6) and time (s, T), got {tuple(U.shape)}, {tuple(time.shape)}.")
        if not bool((time.diff(dim=1) > 0).all()):
            raise ValueError("time must increase along every path, got a step that is not positive.")
        U, time = U.to(self.orientations), time.to(self.orientations)
        start = to_components(torch.eye(3).to(U))
        if not torch.allclose(U[:, 0], start.expand(len(U), 6), rtol=0, atol=1e-12):
            raise ValueError("U must be the identity at the first time of every path: grains are virgin there.")
        state = self.initial_state(len(U))
        stress = torch.zeros_like(U)
        ok = torch.ones(len(U), dtype=torch.bool, device=U.device)
        reason = [""] * len(U)
        for k in range(1, U.shape[1]):
            dt = (time[:, k] - time[:, k - 1]) / self.substeps
            for i in range(1, self.substeps + 1):
                part = U[:, k - 1] + (U[:, k] - U[:, k - 1]) * (i / self.substeps)
                sigma, state, converged = self.update(from_components(part), state, dt)
                for lost in torch.nonzero(ok & ~converged).flatten().tolist():
                    reason[lost] = f"Newton of the crystal law did not converge at stored step {k}"
                ok &= converged
            stress[:, k] = to_components(sigma)
        return TaylorResult(stress, ok, reason)
