"""Single-crystal law: finite-strain viscoplastic slip and twinning, batched, in PyTorch.

The state of a crystal is B = F_in^-1, the inverse of its isochoric inelastic deformation, the accumulated slip e of its
slip systems and the fractions lambda of its twin variants. All tensors live in the frame of the crystal, and only the
right Cauchy-Green tensor C enters, so that superposed rotations change nothing.

With C_e = B^T C B and its isochoric part C_e' = det(C_e)^(-1/3) C_e, the Mandel stress M = G dev(C_e') drives slip and
twinning (`micro.crystal.flow_rules`), and

    F_in_dot F_in^-1 = L_p + L_t,    that is    B_dot = -B (L_p + L_t).

Between two given instants C is linear in time, and every crystal takes steps of its own, of second order and with
control of the error (`micro.crystal.integrator`).

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668 (read as physics: A.9 as F_in_dot F_in^-1 = L_p + L_t,
    sum of lambda at most 1, k_ij off the diagonal); Chang and Kochmann (2015), doi:10.1016/j.ijplas.2015.03.008.
"""

import torch
from torch import Tensor

from micro.crystal import constants
from micro.crystal.flow_rules import FlowRules, Rates
from micro.crystal.integrator import Control, CrystalState, Outcome, integrate
from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.stage import mandel
from micro.crystal.systems import crystal_systems
from micro.tensors import determinant, identity_like, inverse, matmul


class Crystal:
    """The single-crystal law; see the docstring of the module for the equations.

    Args:
        parameters: Material parameters; magnesium by default.
        slip: How parent and twins slip: "domains", "common" or "parent"; see `micro.crystal.flow_rules`.
        tolerance: Bound on the error of a step relative to the Mandel stress, > 0.
        substeps: If positive, so many equal steps between two instants instead of the control of the error. `tolerance`
            has no effect then: the equations of a step are solved far below its error.
        device: Torch device of all batches.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        parameters: CrystalParameters | None = None,
        *,
        slip: str = "domains",
        tolerance: float = constants.TOLERANCE,
        substeps: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}.")
        if substeps < 0:
            raise ValueError(f"substeps must not be negative, got {substeps}.")
        self.parameters = load_material() if parameters is None else parameters
        self.rules = FlowRules(crystal_systems(self.parameters, device), slip)
        self.control = Control(constants.FIXED_STEP_TOLERANCE if substeps else tolerance, substeps)

    def initial_state(self, n: int) -> CrystalState:
        """Return the state of `n` virgin crystals."""
        systems = self.rules.systems
        like = systems.tau_0  # its type and device
        sizes = [(n, systems.n_slip), (n, systems.n_twin), (n, 5), (n,)]
        return CrystalState(identity_like(like).repeat(n, 1, 1), *(like.new_zeros(size) for size in sizes))

    def update(self, C0: Tensor, C1: Tensor, state: CrystalState, dt: Tensor) -> Outcome:
        """Advance the state from one instant to the next; C is linear in time between them.

        Args:
            C0: Right Cauchy-Green tensor at the start (n, 3, 3), in the frame of the crystal.
            C1: The same at the end.
            state: State at the start.
            dt: Time between the instants (n,), s. Where it is zero, the change is elastic.

        Returns:
            The new state, the status of each crystal, and the number of implicit stages solved.
        """
        return integrate(self.rules, self.control, C0, C1, state, dt)

    def second_piola(self, C: Tensor, state: CrystalState) -> Tensor:
        """Return the second Piola-Kirchhoff stress (n, 3, 3), Pa, in the frame of the crystal, from (A.3)."""
        return second_piola(self.parameters, C, matmul(state.B, state.B.mT))

    def cauchy(self, F: Tensor, state: CrystalState) -> Tensor:
        """Return the Cauchy stress (n, 3, 3), Pa, for a deformation gradient in the frame of the crystal."""
        S = self.second_piola(matmul(F.mT, F), state)
        return matmul(matmul(F, S), F.mT) / determinant(F)[:, None, None]

    def rates(self, C: Tensor, state: CrystalState) -> Rates:
        """Return the rates of the state: the differential equations that `update` integrates.

        The Mandel stress is the one of `C` (n, 3, 3) and B, not the one that the state keeps.
        """
        return self.rules.rates(mandel(self.rules, state.B, C), state.e, state.lam)

    def resistance(self, e: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the resistances to slip (n, a) and twinning (n, b), Pa."""
        return self.rules.resistance(e, lam)

    def dissipation(self, C: Tensor, state: CrystalState) -> Tensor:
        """Return the dissipation (n,), W/m^3 of the reference volume."""
        return self.rules.dissipation(self.rates(C, state))

    def energy(self, C: Tensor, state: CrystalState) -> Tensor:
        """Return the free energy (n,), J/m^3 of the reference volume: elastic, (A.3), and stored, (A.4), (A.5)."""
        p, s = self.parameters, self.rules.systems
        J = determinant(C).sqrt()
        trace = (C * matmul(state.B, state.B.mT)).sum((-1, -2)) * J ** (-2 / 3)
        elastic = p.G / 2 * (trace - 3) + p.lambda_e * (J - 1) ** 2
        rate = (s.h / s.sigma_inf).clamp(min=1e-30)  # zero where a family does not harden
        slip = (s.sigma_inf * (state.e + torch.expm1(-rate * state.e) / rate)).sum(-1)
        slip = slip + ((state.e * s.v).sum(-1) ** 2 - (state.e * s.v).square().sum(-1)) / 2
        squares = state.lam.square().sum(-1)
        twin = s.twin_k * (state.lam.sum(-1) ** 2 - squares) + s.twin_h / 2 * squares
        return elastic + slip + twin


def second_piola(parameters: CrystalParameters, C: Tensor, b: Tensor) -> Tensor:
    """Return the second Piola-Kirchhoff stress (n, 3, 3), Pa, from C and b = B B^T (n, 3, 3), (A.3).

    It is linear in b, so that a mean of b over grains in one frame gives their mean stress.
    """
    J = determinant(C).sqrt()[:, None, None]
    C_inv = inverse(C)
    trace = (C * b).sum((-1, -2))[:, None, None]
    return parameters.G * J ** (-2 / 3) * (b - trace / 3 * C_inv) + 2 * parameters.lambda_e * (J - 1) * J * C_inv
