"""Taylor polycrystal: grains of different orientation with one common deformation gradient.

The state of a polycrystal is one row of numbers: the six components of the right Cauchy-Green tensor C at its last
instant, in the frame of the sample, then for every grain B (9), e, lambda, the Mandel stress (5) and the suggested time
step.
C is linear in time between two given instants.

References:
    Liu et al. (2022), section 3.1 (3DTaylor), doi:10.1016/j.jmps.2021.104668.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from micro.crystal import constants
from micro.crystal.compiled import CompiledPolycrystal, available
from micro.crystal.constants import INVALID, REASONS
from micro.crystal.integrator import CrystalState
from micro.crystal.law import Crystal, second_piola
from micro.crystal.materials import CrystalParameters
from micro.crystal.texture import Texture, random_texture
from micro.tensors import determinant, from_components, inverse, matmul, to_components
from micro.threads import small_batches

BACKENDS = ("auto", "compiled", "torch")
#: Bytes of the histories of all grains that the compiled update keeps at a time.
HISTORY_BYTES = 2**28


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
        texture: Texture | int = 128,
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
            texture = random_texture(texture, seed)
        self.crystal = Crystal(parameters, slip=slip, tolerance=tolerance, substeps=substeps, device=device)
        self.orientations = texture.orientations.to(device, torch.float64)  # (g, 3, 3), crystal frame to sample frame
        self.weights = texture.weights.to(device, torch.float64)  # (g,)
        self.compiled = self._compiled(backend, torch.device(device), tolerance, substeps)

    def _compiled(
        self, backend: str, device: torch.device, tolerance: float, substeps: int
    ) -> CompiledPolycrystal | None:
        """Return the compiled update, None where PyTorch is used."""
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
        usable = device.type == "cpu" and self.crystal.rules.slip == "domains"
        if backend == "torch" or (backend == "auto" and not (usable and available())):
            return None
        if not usable:
            got = f"{device}, {self.slip!r}"
            raise ValueError(f'backend "compiled" needs the device cpu and slip "domains", got {got}.')
        if not available():
            raise ValueError('backend "compiled" needs a C compiler, and none works here; "auto" does without.')
        arrays = (self.orientations.numpy(), self.weights.numpy())
        return CompiledPolycrystal(self.crystal.rules.systems, *arrays, None if substeps else tolerance, substeps)

    @property
    def backend(self) -> str:
        """The backend that is used, "compiled" or "torch"."""
        return "torch" if self.compiled is None else "compiled"

    @property
    def slip(self) -> str:
        """How parent and twins slip."""
        return self.crystal.rules.slip

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
        F_in = inverse(crystals.B).reshape(*shape, 3, 3)
        return F_in, crystals.e.reshape(*shape, -1), crystals.lam.reshape(*shape, -1)

    def fields(self, state: Tensor) -> dict[str, Tensor]:
        """Return means over the grains by name: "twin_fraction", "slip_" and the name of a family; each (n,)."""
        return self._means(*self.unpack(state)[1:])

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.crystal.rules.systems.n_slip, self.crystal.rules.systems.n_twin

    def _means(self, e: Tensor, lam: Tensor) -> dict[str, Tensor]:
        """Return `fields` from e (..., g, a) and lambda (..., g, b)."""
        families = self.crystal.rules.systems.families
        means = {"twin_fraction": (lam.sum(-1) * self.weights).sum(-1)}
        for family in dict.fromkeys(families):
            of_family = [k for k, name in enumerate(families) if name == family]
            means[f"slip_{family}"] = (e[..., of_family].sum(-1) * self.weights).sum(-1)
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
        if self.compiled is not None:
            return self._solve_compiled(U, time)
        state = self.initial_state(len(U))
        stress, solves = torch.zeros_like(U), torch.zeros_like(time[:, 0])
        fields = {name: torch.zeros_like(time) for name in self.fields(state[:1])}
        reason, rows = [""] * len(U), torch.arange(len(U), device=U.device)
        for k in range(1, U.shape[1]):
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

    def _solve_compiled(self, U: Tensor, time: Tensor) -> TaylorResult:
        """As `solve`, whole paths at once, in blocks whose histories fit into memory."""
        assert self.compiled is not None
        F = from_components(U)
        J = determinant(F)
        stress, solves = torch.empty_like(U), torch.empty_like(time[:, 0])
        fields = {name: torch.zeros_like(time) for name in self._means(*(torch.zeros(1, 1, k) for k in self._sizes))}
        reason = [""] * len(U)
        block = max(1, int(HISTORY_BYTES / (8 * self.grains * self.compiled.grain_size * U.shape[1])))
        for rows in torch.arange(len(U)).split(block):
            # A stretch that is turned inside out has a right Cauchy-Green tensor that does not show it.
            C = torch.where(J[rows, :, None] > 0, to_components(matmul(F[rows].mT, F[rows])), torch.nan)
            result = self.compiled.solve(C.numpy(), time[rows].numpy(), history=True)
            S = from_components(torch.from_numpy(result.S))
            sigma = matmul(matmul(F[rows], S), F[rows].mT) / J[rows, :, None, None]
            stress[rows] = to_components(sigma)
            stress[rows, 0] = 0.0  # virgin
            solves[rows] = torch.from_numpy(result.solves).to(solves) / self.grains
            assert result.history is not None
            grains = self.compiled.unpack_grains(result.history)
            means = self._means(torch.from_numpy(grains["e"]), torch.from_numpy(grains["lam"]))
            for name, mean in means.items():
                fields[name][rows, 1:] = mean
            for row, status, point in zip(rows.tolist(), result.status, result.failed_at):
                reason[row] = f"{REASONS[int(status)]} at point {int(point)} of the path" if status else ""
        return TaylorResult(stress, torch.tensor([not text for text in reason]), reason, solves, fields)

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
        """Return the mean stress P (n, 3, 3), the new state, the status of each polycrystal and the mean solves."""
        if F.dim() != 3 or F.shape[1:] != (3, 3):
            raise ValueError(f"F must have shape (n, 3, 3), got {tuple(F.shape)}.")
        C1 = matmul(F.mT, F)
        if self.compiled is not None:
            update = self.compiled.update(to_components(C1).numpy(), state.numpy(), dt.numpy())
            S, new = from_components(torch.from_numpy(update.S)), torch.from_numpy(update.state)
            status, solves = torch.from_numpy(update.status), torch.from_numpy(update.solves) / self.grains
        else:
            grains, status, solves = self._update_grains(C1, state, dt)
            new = self._pack(to_components(C1), grains)
            B = matmul(self.orientations, grains.B.reshape(len(F), -1, 3, 3))
            S = second_piola(self.crystal.parameters, C1, (matmul(B, B.mT) * self.weights[:, None, None]).sum(1))
        status = torch.where(determinant(F) > 0, status, INVALID)
        solved = status == 0
        P = torch.where(solved[:, None, None], matmul(F, S), torch.nan)
        return P, torch.where(solved[:, None], new, state), status, solves

    def _update_grains(self, C1: Tensor, state: Tensor, dt: Tensor) -> tuple[CrystalState, Tensor, Tensor]:
        """Return the new grains (n * g), the first reason to fail of each polycrystal (n,) and its mean solves (n,)."""
        n, g, q = len(C1), self.grains, self.orientations
        C0, C1 = (matmul(matmul(q.mT, C[:, None]), q).reshape(-1, 3, 3) for C in (from_components(state[:, :6]), C1))
        outcome = self.crystal.update(C0, C1, self._crystals(state), dt.repeat_interleave(g))
        status = outcome.status.reshape(n, g)
        status = torch.where(status.amax(1) > 0, torch.where(status > 0, status, len(REASONS)).amin(1), 0)
        return outcome.state, status, outcome.solves.reshape(n, g).double().mean(1)

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
