"""Taylor polycrystal: grains of different orientation with one common deformation gradient.

The state of a polycrystal is one row of numbers: the six components of the right Cauchy-Green tensor C at its last
instant, in the frame of the sample, then for every grain B (9), e, lambda, the Mandel stress (5) and the suggested step.
C is linear in time between two given instants.

References:
    Liu et al. (2022), section 3.1 (3DTaylor), doi:10.1016/j.jmps.2021.104668.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from micro.crystal import constants
from micro.crystal.integrator import INVALID, REASONS, CrystalState
from micro.crystal.law import Crystal, second_piola
from micro.crystal.materials import CrystalParameters
from micro.tensors import determinant, from_components, inverse, matmul, random_rotations, to_components
from micro.threads import small_batches

BACKENDS = ("auto", "compiled", "torch")


class Orientations(Protocol):
    """What a texture provides: `micro.crystal.texture.Texture` does."""

    @property
    def orientations(self) -> Tensor:
        """Rotations (g, 3, 3) from the frame of each grain to that of the sample."""

    @property
    def weights(self) -> Tensor:
        """Volume fractions (g,) of the grains, whose sum is one."""


@dataclass(frozen=True)
class TaylorResult:
    """Response of a polycrystal to a batch of strain paths.

    Attributes:
        stress: Mean Cauchy stress (s, T, 6), Pa, in the frame of the stretch; order 11, 22, 33, 12, 23, 13. Not a
            number from where on a path could not be solved.
        ok: Whether each path was solved (s,), bool.
        reason: Why a path was not solved, empty where it was; s strings.
        solves: Implicit stages solved on each path (s,), the mean over the grains.
        fields: Mean twin fraction and slip of each family, see `TaylorPolycrystal.fields`, each (s, T).
    """

    stress: Tensor
    ok: Tensor
    reason: list[str]
    solves: Tensor
    fields: dict[str, Tensor]


class TaylorPolycrystal:
    """A Taylor polycrystal.

    Args:
        texture: Orientations and weights of the grains, or a number of grains of equal weight and uniformly random
            orientations; the default is the paper's number.
        seed: Seed of the random orientations.
        parameters: Single-crystal parameters; magnesium by default.
        tolerance: Bound on the error of a step of a grain, relative to its Mandel stress.
        slip: How parent and twins slip: "domains", "common" or "parent"; see `micro.crystal.flow_rules`.
        backend: "compiled", "torch", or "auto", which takes the compiled update where it can be used: on the CPU,
            for slip "domains", with a C compiler at hand.
        substeps: If positive, so many equal steps between two instants instead of the control of the error.
        device: Torch device.

    Raises:
        ValueError: An argument is out of its range, or the backend cannot be used.
    """

    def __init__(
        self,
        texture: Orientations | int = 128,
        *,
        seed: int = 0,
        parameters: CrystalParameters | None = None,
        tolerance: float = constants.TOLERANCE,
        slip: str = "domains",
        backend: str = "auto",
        substeps: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if isinstance(texture, int):
            if texture < 1:
                raise ValueError(f"grains must be at least 1, got {texture}.")
            orientations = random_rotations(texture, seed)
            weights = torch.full((texture,), 1 / texture, dtype=torch.float64)
        else:
            orientations, weights = texture.orientations, texture.weights
        self.crystal = Crystal(parameters, slip=slip, tolerance=tolerance, substeps=substeps, device=device)
        self.orientations = orientations.to(device, torch.float64)  # (g, 3, 3), crystal frame to sample frame
        self.weights = weights.to(device, torch.float64)  # (g,)
        self.backend = _backend(backend, torch.device(device), slip, substeps)

    @property
    def grains(self) -> int:
        """Number of grains."""
        return len(self.orientations)

    def initial_state(self, n: int) -> Tensor:
        """Return the state (n, k) of `n` virgin polycrystals."""
        C = to_components(torch.eye(3).to(self.weights)).expand(n, 6)
        return self._pack(C, self.crystal.initial_state(n * self.grains))

    def unpack(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inelastic deformations, slips and twin fractions of the grains, in the frame of each grain.

        Args:
            state: State (n, k).

        Returns:
            F_in (n, g, 3, 3), e (n, g, a) and lambda (n, g, b).
        """
        crystals = self._crystals(state)
        shape = (len(state), self.grains)
        return inverse(crystals.B).reshape(*shape, 3, 3), crystals.e.reshape(*shape, -1), crystals.lam.reshape(*shape, -1)

    def fields(self, state: Tensor) -> dict[str, Tensor]:
        """Return means over the grains by name: "twin_fraction", and "slip_" with the name of each family; each (n,)."""
        _, e, lam = self.unpack(state)
        families = self.crystal.rules.systems.families
        means = {"twin_fraction": lam.sum(-1) @ self.weights}
        for family in dict.fromkeys(families):
            of_family = [k for k, name in enumerate(families) if name == family]
            means[f"slip_{family}"] = e[..., of_family].sum(-1) @ self.weights
        return means

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the polycrystals to the next instant.

        Args:
            F: Deformation gradient at its end (n, 3, 3).
            state: State at the start (n, k).
            dt: Time between the instants (n,), s.

        Returns:
            The mean first Piola-Kirchhoff stress (n, 3, 3), Pa; the new state; whether all grains were solved (n,),
            bool. Where they were not, the stress is not a number and the state is that of the start.
        """
        P, new, status, _ = self._advance(F, state, dt)
        return P, new, status == 0

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
        U, time = self._checked_paths(U, time)
        paths, instants = U.shape[:2]
        state = self.initial_state(paths)
        stress, solves, status = torch.zeros_like(U), torch.zeros_like(time[:, 0]), torch.zeros_like(time[:, 0]).long()
        fields = {name: torch.zeros_like(time) for name in self.fields(state[:1])}
        reason, rows = [""] * paths, torch.arange(paths, device=U.device)
        for k in range(1, instants):
            F = from_components(U[rows, k])
            P, state, status, solved = self._advance(F, state, time[rows, k] - time[rows, k - 1])
            stress[rows, k] = to_components(matmul(P, F.mT) / determinant(F)[:, None, None])
            solves[rows] += solved
            for name, mean in self.fields(state).items():
                fields[name][rows, k] = mean
            lost = torch.nonzero(status).flatten()
            if len(lost):
                for row, code in zip(rows[lost].tolist(), status[lost].tolist()):
                    reason[row] = f"{REASONS[code]} at point {k} of the path"
                    stress[row, k:] = torch.nan
                keep = torch.nonzero(status == 0).flatten()
                rows, state = rows[keep], state[keep]
        ok = torch.tensor([not text for text in reason], device=U.device)
        return TaylorResult(stress, ok, reason, solves, fields)

    def _checked_paths(self, U: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        if U.dim() != 3 or U.shape[-1] != 6 or time.shape != U.shape[:2]:
            raise ValueError(f"U must have shape (s, T, 6) and time (s, T), got {tuple(U.shape)}, {tuple(time.shape)}.")
        if not bool((time.diff(dim=1) > 0).all()):
            raise ValueError("time must increase along every path, got a step that is not positive.")
        U, time = U.to(self.weights), time.to(self.weights)
        start = to_components(torch.eye(3).to(U))
        if not torch.allclose(U[:, 0], start.expand(len(U), 6), rtol=0, atol=1e-12):
            raise ValueError("U must be the identity at the first time of every path: grains are virgin there.")
        return U, time

    def _advance(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the mean stress P (n, 3, 3), the new state, the largest status of the grains and the mean solves."""
        if F.dim() != 3 or F.shape[1:] != (3, 3):
            raise ValueError(f"F must have shape (n, 3, 3), got {tuple(F.shape)}.")
        C1 = matmul(F.mT, F)
        grains, status, solves = self._update_grains(C1, state, dt)
        status = torch.where(determinant(F) > 0, status, INVALID)
        new = self._pack(to_components(C1), grains)
        new = torch.where((status == 0)[:, None], new, state)
        B = matmul(self.orientations, grains.B.reshape(len(F), -1, 3, 3))
        b = (matmul(B, B.mT) * self.weights[:, None, None]).sum(1)
        P = matmul(F, second_piola(self.crystal.parameters, C1, b))
        return torch.where((status == 0)[:, None, None], P, torch.nan), new, status, solves

    def _update_grains(self, C1: Tensor, state: Tensor, dt: Tensor) -> tuple[CrystalState, Tensor, Tensor]:
        """Return the new grains (n * g), the largest status of each polycrystal (n,) and its mean solves (n,)."""
        n, g, q = len(C1), self.grains, self.orientations
        C0, C1 = (matmul(matmul(q.mT, C[:, None]), q).reshape(-1, 3, 3) for C in (from_components(state[:, :6]), C1))
        outcome = self.crystal.update(C0, C1, self._crystals(state), dt.repeat_interleave(g))
        return outcome.state, outcome.status.reshape(n, g).amax(1), outcome.solves.reshape(n, g).double().mean(1)

    def _pack(self, C: Tensor, crystals: CrystalState) -> Tensor:
        n = len(C)
        grains = torch.cat([field.reshape(n, self.grains, -1) for field in crystals], dim=-1)
        return torch.cat([C, grains.flatten(1)], dim=1)

    def _crystals(self, state: Tensor) -> CrystalState:
        systems = self.crystal.rules.systems
        sizes = [9, systems.n_slip, systems.n_twin, 5, 1]
        width = 6 + self.grains * sum(sizes)
        if state.dim() != 2 or state.shape[1] != width:
            raise ValueError(f"state must have shape (n, {width}), got {tuple(state.shape)}.")
        B, e, lam, m, h = state[:, 6:].reshape(-1, sum(sizes)).split(sizes, dim=1)
        return CrystalState(B.reshape(-1, 3, 3), e, lam, m, h[:, 0])


def _backend(backend: str, device: torch.device, slip: str, substeps: int) -> str:
    """Return the backend that is used, "compiled" or "torch"."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    if backend == "torch":
        return backend
    usable = device.type == "cpu" and slip == "domains" and substeps == 0
    if backend == "compiled" and not usable:
        raise ValueError(f'backend "compiled" needs device cpu, slip "domains" and no substeps, got {device}, {slip!r}.')
    return "torch"
