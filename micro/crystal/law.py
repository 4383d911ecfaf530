"""Single-crystal law of an hcp metal: finite-strain viscoplastic slip and twinning, batched.

The state of a crystal is its inelastic deformation F_in (isochoric), the accumulated slip e of 12 systems and the
volume fraction lambda of 6 twin variants. All tensors live in the frame of the crystal, so that every crystal of a
batch has the same slip systems; a caller rotates the deformation into that frame (`micro.crystal.taylor` does).

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

from micro.crystal.flow_rules import Step, slip_response, twin_response
from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.systems import EXPONENTIAL_TERMS, crystal_systems, volume_fractions
from micro.tensors import determinant, deviator, identity_like, inverse, isochoric, isochoric_exponential, matmul


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
    """The single-crystal law; see the docstring of the module for the equations.

    Args:
        parameters: Material parameters.
        device: Torch device of all batches.
        iterations: Newton iterations allowed in a step before it counts as failed.
        halvings: How often a step that does not converge may be halved.
        tolerance: A step has converged when the Mandel stress changes by less than this fraction of itself.

    Raises:
        ValueError: The slip families do not have the same rate exponent m.
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
        self.parameters = load_material() if parameters is None else parameters
        self.iterations, self.halvings, self.tolerance = iterations, halvings, tolerance
        self._systems = crystal_systems(self.parameters, device)

    def initial_state(self, n: int) -> CrystalState:
        """Return the state of `n` virgin crystals."""
        like = self._systems.tau_0  # its type and device
        one = identity_like(like).expand(n, 3, 3)
        zeros = [like.new_zeros(n, size) for size in (self._systems.n_slip, self._systems.n_twin, 5)]
        return CrystalState(one.clone(), one.clone(), *zeros)

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
        systems = self._systems
        A = matmul(F, inverse(state.F_in))
        m, w = systems.mandel(isochoric(A, determinant(A))), volume_fractions(state.lam)
        slip_force, twin_force = systems.forces(m, w)
        slip_r, twin_r = self.resistance(state.e, state.lam)
        y = (slip_force.abs() - slip_r).clamp(min=0.0) / systems.tau_0
        gamma = systems.rate_0 * y**systems.slip_exponent * torch.sign(slip_force)
        y = (twin_force - twin_r).clamp(min=0.0) / systems.twin_tau_0
        lam = systems.twin_rate_0 * y**systems.twin_exponent * (state.lam.sum(-1, keepdim=True) < 1)
        return gamma, lam, systems.flow(gamma, lam, w)

    def resistance(self, e: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hardening dW_p/de (n, 12) and dW_t/dlambda (n, 6), Pa, of (A.4) and (A.5)."""
        return self._systems.resistance(e, lam)

    def update(self, F: Tensor, state: CrystalState, dt: Tensor) -> tuple[CrystalState, Tensor]:
        """Advance the state by one implicit step that ends at the deformation gradient `F`.

        Crystals whose iteration does not converge (about one in 10^5 at steps of a per cent) take the step in two
        halves, each of which may be halved again.

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
        # A crystal that is inverted, or has failed before, fails in smaller steps as well.
        lost = lost[determinant(matmul(F[lost], inverse(state.F_in[lost]))) > 0]
        if len(lost) == 0 or halvings == 0:
            return new, converged
        part, half = CrystalState(*(a[lost] for a in state)), dt[lost] / 2
        part, ok_first = self._advance(_middle(part.F, F[lost]), part, half, halvings - 1)
        if not bool(ok_first.any()):
            return new, converged
        part, ok_second = self._advance(F[lost], part, half, halvings - 1)
        for whole, repaired in zip(new, part):
            whole[lost] = repaired
        converged[lost] = ok_first & ok_second
        return new, converged

    def _step(self, F: Tensor, state: CrystalState, dt: Tensor) -> tuple[CrystalState, Tensor]:
        systems = self._systems
        A = matmul(F, inverse(state.F_in))
        A = isochoric(A, determinant(A))
        trial, w = systems.mandel(A), volume_fractions(state.lam)
        slip_r, twin_r = self.resistance(state.e, state.lam)
        order = (systems.forces(trial, w)[1] - twin_r).argsort(dim=-1, descending=True)
        S5 = torch.tensordot(w, systems.slip5, dims=([1], [1]))  # (n, 12, 5)
        i, j = torch.triu_indices(5, 5, device=w.device)
        squares = S5[:, :, i] * S5[:, :, j]
        step = Step(A, w, squares, torch.exp(-systems.h / systems.sigma_inf * state.e), slip_r, twin_r, dt, order)
        start = torch.where((state.m != 0).any(-1, keepdim=True), state.m, trial)
        at = self._evaluate(start, torch.zeros_like(state.e), step, False)
        m, x = torch.zeros_like(start), start.new_zeros(len(start), systems.n_slip + systems.n_twin)
        converged = torch.zeros(len(dt), dtype=torch.bool, device=dt.device)
        rows, length, done = torch.arange(len(dt), device=dt.device), torch.ones_like(dt), converged
        for iteration in range(self.iterations):
            tried = self._evaluate(at.m + length[:, None] * at.direction, at.y, step, iteration > self.iterations // 2)
            small = tried.direction.norm(dim=-1) <= self.tolerance * (tried.m.norm(dim=-1) + systems.tau_0.min())
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
        slip, twin = x.split((systems.n_slip, systems.n_twin), dim=-1)
        L = systems.flow(slip, twin, w)
        F_in = matmul(isochoric_exponential(L, EXPONENTIAL_TERMS), state.F_in)
        new = CrystalState(F, F_in, state.e + slip.abs(), state.lam + twin, m)
        return new, converged & torch.isfinite(x).all(-1)

    def _evaluate(self, m: Tensor, y: Tensor, step: Step, hold_followers: bool) -> "_Point":
        """Return residual, Newton direction and increments at the Mandel stress `m` (n, 5)."""
        systems, G = self._systems, self.parameters.G
        slip_force, twin_force = systems.forces(m, step.w)
        y, dgamma, slip_slope = slip_response(systems, slip_force, y, step)
        dlam, twin_slope = twin_response(systems, twin_force, step, hold_followers)
        L = systems.flow(dgamma, dlam, step.w)
        # Far from the solution the flow is unphysically large: there the linear elastic problem is solved instead.
        near = L.square().sum((-1, -2)) < 0.1
        m_near = systems.mandel_after(step.A, torch.where(near[:, None, None], L, 0.0))
        linear = 2 * G * (L.reshape(-1, 9) @ systems.basis)
        residual = m - m_near + torch.where(near[:, None], 0.0, linear)
        # Jacobian with the linear elasticity: exact up to elastic strains, which are about one per cent.
        flat = (slip_slope[:, :, None] * step.squares).sum(1) @ systems.unpack
        flat = flat + twin_slope.flatten(1) @ systems.twin55
        jacobian = 2 * G * flat.reshape(-1, 5, 5)
        jacobian.diagonal(dim1=-2, dim2=-1).add_(1.0)
        direction = -torch.linalg.solve_ex(jacobian, residual)[0]
        return _Point(m, y, torch.cat([dgamma, dlam], -1), residual.norm(dim=-1), direction, near)


def _middle(F_n: Tensor, F: Tensor) -> Tensor:
    """Return a deformation gradient (n, 3, 3) whose right Cauchy-Green tensor is the mean of those of `F_n` and `F`.

    The law depends on C alone, so that any F with this C serves; the mean of `F_n` and `F` themselves would depend on
    a rotation between them.
    """
    C = (matmul(F_n.mT, F_n) + matmul(F.mT, F)) / 2
    return torch.linalg.cholesky_ex(C)[0].mT


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
