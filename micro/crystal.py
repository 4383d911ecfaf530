"""Single-crystal law of an hcp metal: finite-strain viscoplastic slip and twinning, batched.

The state of a crystal is its inelastic deformation F_in (isochoric), the accumulated slip e of 12 systems and the
volume fraction lambda of 6 twin variants. All tensors live in the frame of the crystal, so that every crystal of a
batch shares the same slip systems; a caller rotates the deformation into that frame (`micro.taylor` does).

With A = F F_in^-1 and the Mandel stress M = G dev(C_e), C_e = det(A)^(-2/3) A^T A, the forces that drive the rates
x = (gamma_dot, lambda_dot) are M : S_a, where S_a is the Schmid tensor of the slip system, averaged over parent and
twins (A.10), or the twin shear times that of the twin (A.11). The rates follow from the inverse of (A.12), (A.13),

    y_a = max(|M : S_a| - r_a, 0) / tau_0,    rate_a = rate_0 y_a^(1/m) sign(M : S_a)

where r is the hardening; twins only grow, so theirs has no absolute value. A step of size dt is implicit (backward
Euler): forces, hardening and the flow are those of its end; the Schmid tensors, which only twinning changes, those of
its start. The unknowns are the five components of M; at the end F_in is updated by the exponential of L dt, which
keeps det F_in = 1.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668 (read as physics: A.9 as F_in_dot F_in^-1 = L_p + L_t,
    sum of lambda at most 1, k_ij off the diagonal); Chang and Kochmann (2015), doi:10.1016/j.ijplas.2015.03.008.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from micro import hcp
from micro.magnesium import CrystalParameters
from micro.tensors import determinant, deviator, identity_like, inverse, isochoric_exponential, matmul, matmul_last

N_SLIP, N_TWIN = 12, 6
N_FLOW = N_SLIP + N_TWIN
EXPONENTIAL_TERMS = 4


class CrystalState(NamedTuple):
    """State of a batch of crystals.

    Attributes:
        F: Deformation gradient (n, 3, 3) at the end of the last step; only a step that must be halved needs it.
        F_in: Inelastic deformation gradient (n, 3, 3), det F_in = 1.
        e: Accumulated slip (n, 12), eq. (A.1).
        lam: Twin volume fractions (n, 6), each >= 0 and never decreasing, their sum at most 1.
        m: Five components (n, 5), Pa, of the Mandel stress at the end of the last step; it follows from F and F_in
            and only starts the next iteration.
    """

    F: Tensor
    F_in: Tensor
    e: Tensor
    lam: Tensor
    m: Tensor


class Crystal:
    """The single-crystal law; see the module's text for the equations.

    Args:
        parameters: Material parameters.
        device: Torch device of all batches.
        iterations: Newton iterations allowed in a step before it counts as failed.
        halvings: How often a step that does not converge may be halved.
        tolerance: A step has converged when the Mandel stress changes by less than this fraction of itself.

    Raises:
        ValueError: The slip families do not share one rate exponent m.
    """

    def __init__(
        self,
        parameters: CrystalParameters | None = None,
        *,
        device: str | torch.device = "cpu",
        iterations: int = 40,
        halvings: int = 6,
        tolerance: float = 1e-7,
    ) -> None:
        self.parameters = p = CrystalParameters() if parameters is None else parameters
        self.iterations, self.halvings, self.tolerance = iterations, halvings, tolerance
        slip, twin = hcp.slip_systems(p.c_over_a), hcp.twin_systems(p.c_over_a)
        families = [getattr(p, name) for name in slip.family]
        if len({f.m for f in families}) > 1:
            raise ValueError(f"m must be the same for all slip families, got {sorted({f.m for f in families})}.")
        self._slip_exponent, self._twin_exponent = 1 / families[0].m, 1 / p.twin.m

        on_device = {"dtype": torch.float64, "device": device}
        # Orthonormal basis (9, 5) of the symmetric trace-free tensors: the Mandel stress has five components.
        r2, r6 = 2**-0.5, 6**-0.5
        basis = [
            [[r2, 0, 0], [0, -r2, 0], [0, 0, 0]], [[-r6, 0, 0], [0, -r6, 0], [0, 0, 2 * r6]],
            [[0, r2, 0], [r2, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, r2], [0, r2, 0]], [[0, 0, r2], [0, 0, 0], [r2, 0, 0]],
        ]  # fmt: skip
        self._basis = torch.tensor(basis, **on_device).reshape(5, 9).T.contiguous()
        # Schmid tensors of slip in the parent and in the six twins (12, 7, 9), and of twinning (6, 9).
        everywhere = torch.cat([slip.schmid[:, None], hcp.twinned(slip, twin)], dim=1)
        self._slip = everywhere.to(**on_device).reshape(N_SLIP, 1 + N_TWIN, 9)
        self._twin = p.twin_shear * twin.schmid.to(**on_device).reshape(N_TWIN, 9)
        self._slip5, self._twin5 = self._slip @ self._basis, self._twin @ self._basis
        i, j = torch.triu_indices(5, 5)
        unpack = torch.zeros(15, 5, 5, **on_device)  # upper triangle to the full matrix
        unpack[torch.arange(15), i, j] = unpack[torch.arange(15), j, i] = 1.0
        self._unpack = unpack.reshape(15, 25)
        self._twin55 = torch.einsum("ai,bj->abij", self._twin5, self._twin5).reshape(36, 25)

        self._tau_0 = torch.tensor([f.tau_0 for f in families], **on_device)
        self._rate_0 = torch.tensor([f.rate_0 for f in families], **on_device)
        self._h = torch.tensor([f.h for f in families], **on_device)
        self._sigma_inf = torch.tensor([f.sigma_inf for f in families], **on_device)
        # Latent hardening of systems of different families: geometric mean, so that the matrix stays symmetric, as
        # the second derivative of an energy must be, and basal slip (h_ij = 0) takes no part.
        h_latent = torch.tensor([f.h_latent for f in families], **on_device).sqrt()
        self._latent = h_latent[:, None] * h_latent[None, :] * (1 - torch.eye(N_SLIP, **on_device))
        off_diagonal = 1 - torch.eye(N_TWIN, **on_device)
        # W_t = lambda . K lambda + h lambda^2 / 2 has the derivative (2 K + h I) lambda: no half in the first term.
        self._twin_hardening = 2 * p.twin.h_latent * off_diagonal + p.twin.h * torch.eye(N_TWIN, **on_device)

    def initial_state(self, n: int) -> CrystalState:
        """Return the state of `n` virgin crystals."""
        like = {"dtype": torch.float64, "device": self._tau_0.device}
        return CrystalState(
            torch.eye(3, **like).expand(n, 3, 3).clone(),
            torch.eye(3, **like).expand(n, 3, 3).clone(),
            torch.zeros(n, N_SLIP, **like),
            torch.zeros(n, N_TWIN, **like),
            torch.zeros(n, 5, **like),
        )

    def cauchy(self, F: Tensor, state: CrystalState) -> Tensor:
        """Return the Cauchy stress (n, 3, 3), Pa, in the crystal's frame, from eqs. (A.3) and (A.8)."""
        p = self.parameters
        A = matmul(F, inverse(state.F_in))
        J = determinant(A)[:, None, None]
        return p.G * J ** (-5 / 3) * deviator(matmul(A, A.mT)) + 2 * p.lambda_e * (J - 1) * identity_like(F)

    def rates(self, F: Tensor, state: CrystalState) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rates of the state: the differential equations that `update` integrates.

        Args:
            F: Deformation gradient (n, 3, 3), in the crystal's frame.
            state: State.

        Returns:
            The slip rates (n, 12), 1/s, the rates of the twin fractions (n, 6), 1/s (A.12, A.13), and
            L_p + L_t (n, 3, 3), 1/s (A.10, A.11).
        """
        p = self.parameters
        m = self._mandel(_isochoric(matmul(F, inverse(state.F_in))))
        w = self._weights(state.lam)
        slip_force, twin_force = self._forces(m, w)
        slip_r, twin_r = self.resistance(state.e, state.lam)
        y = (slip_force.abs() - slip_r).clamp(min=0.0) / self._tau_0
        gamma = self._rate_0 * y**self._slip_exponent * torch.sign(slip_force)
        y = (twin_force - twin_r).clamp(min=0.0) / p.twin.tau_0
        lam = p.twin.rate_0 * y**self._twin_exponent * (state.lam.sum(-1, keepdim=True) < 1)
        return gamma, lam, self._flow(gamma, lam, w)

    def resistance(self, e: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hardening dW_p/de (n, 12) and dW_t/dlambda (n, 6), Pa, of (A.4) and (A.5)."""
        slip = self._sigma_inf * (1 - torch.exp(-self._h / self._sigma_inf * e)) + e @ self._latent
        return slip, lam @ self._twin_hardening

    def update(self, F: Tensor, state: CrystalState, dt: Tensor) -> tuple[CrystalState, Tensor]:
        """Advance the state by one implicit step that ends at the deformation gradient `F`.

        Crystals whose iteration does not converge (about one in 10^5 at steps of a per cent) take the step in two halves,
        each of which may be halved again.

        Args:
            F: Deformation gradient at the end of the step (n, 3, 3), in the crystal's frame.
            state: State at the start of the step.
            dt: Size of the step (n,), s.

        Returns:
            The new state, and whether the step has converged (n,), bool.
        """
        return self._advance(F, state, dt, self.halvings)

    def _advance(self, F: Tensor, state: CrystalState, dt: Tensor, halvings: int) -> tuple[CrystalState, Tensor]:
        new, converged = self._step(F, state, dt)
        lost = torch.nonzero(~converged).flatten()
        if len(lost) == 0 or halvings == 0:
            return new, converged
        part, half = CrystalState(*(a[lost] for a in state)), dt[lost] / 2
        part, ok_first = self._advance((part.F + F[lost]) / 2, part, half, halvings - 1)
        part, ok_second = self._advance(F[lost], part, half, halvings - 1)
        for whole, repaired in zip(new, part):
            whole[lost] = repaired
        converged[lost] = ok_first & ok_second
        return new, converged

    def _step(self, F: Tensor, state: CrystalState, dt: Tensor) -> tuple[CrystalState, Tensor]:
        A = _isochoric(matmul(F, inverse(state.F_in)))
        trial, w = self._mandel(A), self._weights(state.lam)
        slip_r, twin_r = self.resistance(state.e, state.lam)
        order = (self._forces(trial, w)[1] - twin_r).argsort(dim=-1, descending=True)
        S5 = torch.tensordot(w, self._slip5, dims=([1], [1]))  # (n, 12, 5)
        i, j = torch.triu_indices(5, 5, device=w.device)
        squares = S5[:, :, i] * S5[:, :, j]
        step = _Step(A, w, squares, torch.exp(-self._h / self._sigma_inf * state.e), slip_r, twin_r, dt, order)
        start = torch.where((state.m != 0).any(-1, keepdim=True), state.m, trial)
        at = self._evaluate(start, torch.zeros_like(state.e), step, False)
        m, x = torch.zeros_like(start), start.new_zeros(len(start), N_FLOW)
        converged = torch.zeros(len(dt), dtype=torch.bool, device=dt.device)
        rows, length, done = torch.arange(len(dt), device=dt.device), torch.ones_like(dt), converged
        for iteration in range(self.iterations):
            tried = self._evaluate(at.m + length[:, None] * at.direction, at.y, step, iteration > self.iterations // 2)
            small = tried.direction.norm(dim=-1) <= self.tolerance * (tried.m.norm(dim=-1) + self._tau_0.min())
            # Back-track while the residual grows, and never return to the region far away.
            less = (tried.residual <= (1 - 1e-3 * length) * at.residual) | (length < 0.02)
            better = torch.where(tried.near == at.near, less, tried.near)
            length = torch.where(better, 1.0, length / 2)
            at = tried.where((better | small) & ~done, at)  # a converged crystal stays as it is, whatever the batch
            done = done | small
            remaining = int((~done).sum())
            if remaining <= len(rows) // 2 or iteration == self.iterations - 1:
                m[rows], x[rows], converged[rows] = at.m, at.x, done
                rows, at, step, length = rows[~done], at.rows(~done), step.rows(~done), length[~done]
                done = done[~done]
            if remaining == 0:
                break
        L = self._flow(x[:, :N_SLIP], x[:, N_SLIP:], w)
        F_in = matmul(isochoric_exponential(L, EXPONENTIAL_TERMS), state.F_in)
        new = CrystalState(F, F_in, state.e + x[:, :N_SLIP].abs(), state.lam + x[:, N_SLIP:], m)
        return new, converged & torch.isfinite(x).all(-1)

    def _weights(self, lam: Tensor) -> Tensor:
        """Return the volume fractions of the parent and the twins (n, 7)."""
        return torch.cat([1 - lam.sum(-1, keepdim=True), lam], dim=-1)

    def _mandel(self, A: Tensor) -> Tensor:
        """Return the Mandel stress G dev(A^T A) of isochoric `A`, five components (n, 5), Pa."""
        return self.parameters.G * (matmul(A.mT, A).reshape(-1, 9) @ self._basis)

    def _mandel_after(self, A: Tensor, L: Tensor) -> Tensor:
        """Return the Mandel stress (n, 5), Pa, of A exp(-L).

        The hot spot of the law: 3x3 products with the batch last, where every operation runs over long rows.
        """
        a, minus = (t.reshape(-1, 9).T.contiguous().reshape(3, 3, -1) for t in (A, -L))
        power = result = matmul_last(a, minus)
        result = a + result
        for k in range(2, EXPONENTIAL_TERMS + 1):
            power = matmul_last(power, minus) / k
            result = result + power
        C = matmul_last(result.transpose(0, 1), result)
        return self.parameters.G * (C.reshape(9, -1).T @ self._basis)

    def _forces(self, m: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forces M : S on slip (n, 12) and twinning (n, 6), Pa."""
        slip = (m @ self._slip5.reshape(-1, 5).T).reshape(-1, N_SLIP, 1 + N_TWIN)
        return (slip * w[:, None, :]).sum(-1), m @ self._twin5.T

    def _flow(self, gamma: Tensor, lam: Tensor, w: Tensor) -> Tensor:
        """Return L_p + L_t (n, 3, 3) of (A.10), (A.11) for rates, or increments, of slip and twin fractions."""
        slip = (gamma[:, :, None] * w[:, None, :]).reshape(-1, N_SLIP * (1 + N_TWIN))
        return (slip @ self._slip.reshape(-1, 9) + lam @ self._twin).reshape(-1, 3, 3)

    def _evaluate(self, m: Tensor, y: Tensor, step: "_Step", hold_followers: bool) -> "_Point":
        """Return residual, Newton direction and increments at the Mandel stress `m` (n, 5)."""
        slip_force, twin_force = self._forces(m, step.w)
        y, dgamma, slip_slope = self._slip_response(slip_force, y, step)
        dlam, twin_slope = self._twin_response(twin_force, step, hold_followers)
        L = self._flow(dgamma, dlam, step.w)
        # Far from the solution the flow is unphysically large, and the exponential useless: there elasticity is linear.
        near = L.square().sum((-1, -2)) < 0.1
        m_near = self._mandel_after(step.A, torch.where(near[:, None, None], L, 0.0))
        linear = 2 * self.parameters.G * (L.reshape(-1, 9) @ self._basis)
        residual = m - m_near + torch.where(near[:, None], 0.0, linear)
        # Jacobian with the linear elasticity: exact but for elastic strains, which are a per cent.
        flat = (slip_slope[:, :, None] * step.squares).sum(1) @ self._unpack + twin_slope.reshape(-1, 36) @ self._twin55
        jacobian = 2 * self.parameters.G * flat.reshape(-1, 5, 5)
        jacobian.diagonal(dim1=-2, dim2=-1).add_(1.0)
        direction = -torch.linalg.solve_ex(jacobian, residual)[0]
        return _Point(m, y, torch.cat([dgamma, dlam], -1), residual.norm(dim=-1), direction, near)

    def _slip_response(self, force: Tensor, y: Tensor, step: "_Step") -> tuple[Tensor, Tensor, Tensor]:
        """Return y, the slip increments and their derivatives with respect to the `force`, each (n, 12).

        Each system solves |force| = r(e + x) + tau_0 y, x = dt rate_0 y^(1/m), on its own: a bracketed Newton
        iteration on y from its last value, which converges together with that of the stress.
        """
        over = (force.abs() - step.slip_r).clamp(min=0.0)
        c, k, p = step.dt[:, None] * self._rate_0, self._h / self._sigma_inf, self._slip_exponent
        # Bounds: no further hardening, and (m = 1/2) hardening that does not saturate.
        high = over / self._tau_0
        low = torch.zeros_like(high)
        if p == 2:
            low = 2 * over / (self._tau_0 + (self._tau_0**2 + 4 * (self._h * step.decay) * c * over).sqrt())
        y = torch.where((y > low) & (y < high), y, low)
        for _ in range(3):
            x = c * y**p
            hardening = self._sigma_inf * step.decay * torch.expm1(-k * x)  # negative
            f = over + hardening - self._tau_0 * y
            slope = self._tau_0 + k * (self._sigma_inf * step.decay + hardening) * (p * c) * y ** (p - 1)
            up = f > 0
            low, high = torch.where(up, y, low), torch.where(up, high, y)
            y = y + f / slope
            y = torch.where((y >= low) & (y <= high), y, (low + high) / 2)
        x = c * y**p
        dx_dy = (p * c) * y ** (p - 1)
        slope = self._tau_0 + self._h * step.decay * torch.exp(-k * x) * dx_dy
        return y, x * torch.sign(force), dx_dy / slope

    def _twin_response(self, force: Tensor, step: "_Step", hold_followers: bool) -> tuple[Tensor, Tensor]:
        """Return the twin increments (n, 6) and their derivatives with respect to the `force` (n, 6, 6).

        The most strongly driven variant (at the start of the step) grows first, and its growth holds back the others
        (k_ij), one after another; the last `hold_followers` allows the first only.
        """
        twin, p = self.parameters.twin, self._twin_exponent
        over = force - step.twin_r
        c, room = step.dt * twin.rate_0, step.w[:, 0].clamp(min=0.0)
        x, slope = torch.zeros_like(over), over.new_zeros(len(over), N_TWIN, N_TWIN)
        rows = torch.arange(len(over), device=over.device)
        taken, dtaken = torch.zeros_like(room), torch.zeros_like(over)
        for rank in range(1 if hold_followers else N_TWIN):
            b = step.order[:, rank]
            y_b = (over[rows, b] - 2 * twin.h_latent * taken).clamp(min=0.0) / twin.tau_0
            if not bool((y_b > 0).any()):
                continue
            x_b = c * y_b**p
            dx_b = -2 * twin.h_latent * dtaken
            dx_b[rows, b] += 1.0
            dx_b = dx_b * (c * p * y_b ** (p - 1) / twin.tau_0)[:, None]
            full = x_b > room - taken
            x_b, dx_b = torch.where(full, room - taken, x_b), torch.where(full[:, None], -dtaken, dx_b)
            x[rows, b], slope[rows, b] = x_b, dx_b
            taken, dtaken = taken + x_b, dtaken + dx_b
        return x, slope


def _isochoric(A: Tensor) -> Tensor:
    return A * determinant(A)[:, None, None] ** (-1 / 3)


class _Step(NamedTuple):
    """What stays fixed in the Newton iteration of a step, for the crystals that still iterate."""

    A: Tensor  # isochoric trial A (n, 3, 3)
    w: Tensor  # volume fractions of parent and twins (n, 7)
    squares: Tensor  # S (x) S of the slip systems' five components, upper triangle (n, 12, 15)
    decay: Tensor  # exp(-h e / sigma_inf) at the start (n, 12)
    slip_r: Tensor  # hardening at the start (n, 12), Pa
    twin_r: Tensor  # hardening at the start (n, 6), Pa
    dt: Tensor  # (n,), s
    order: Tensor  # twins by their driving force at the start (n, 6)

    def rows(self, mask: Tensor) -> "_Step":
        """Return the rows of `mask` (n,)."""
        return _Step(*(field[mask] for field in self))


class _Point(NamedTuple):
    """A point of the Newton iteration."""

    m: Tensor  # Mandel stress (n, 5)
    y: Tensor  # slip rate variables (n, 12)
    x: Tensor  # increments (n, 18)
    residual: Tensor  # its norm (n,), Pa
    direction: Tensor  # Newton step (n, 5)
    near: Tensor  # whether the full problem was evaluated, not the linear one (n,)

    def rows(self, mask: Tensor) -> "_Point":
        """Return the rows of `mask` (n,)."""
        return _Point(*(field[mask] for field in self))

    def where(self, mask: Tensor, other: "_Point") -> "_Point":
        """Return this point where `mask` (n,) holds, `other` elsewhere."""
        return _Point(*(torch.where(mask.reshape(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(self, other)))
