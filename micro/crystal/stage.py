"""One implicit stage of the time integration: Newton's iteration for the Mandel stress of many crystals.

A stage solves, with the weight s of its rates,

    B (I + s L) = R_B,    e - s e_rate = R_e,    lambda - s lambda_rate = R_lambda,    m = G dev5(isochoric(B^T C B)),

where the rates and L = L_p + L_t follow from (m, e, lambda), and R collects what earlier stages give. Slips and twin
fractions are eliminated in closed form, so that five linear equations for m remain.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from micro.crystal import constants
from micro.crystal.flow_rules import Elimination, FlowRules, Rates, eliminate, solve
from micro.tensors import determinant, identity_like, inverse, matmul


class Stage(NamedTuple):
    """What is given in a stage, for n crystals.

    Attributes:
        B: Known part of B (n, 3, 3).
        e: Known part of the accumulated slip (n, a).
        lam: Known part of the twin fractions (n, b).
        C: Right Cauchy-Green tensor at the time of the stage (n, 3, 3), in the frame of the crystal.
        s: Weight of the implicit rates (n,), s.
    """

    B: Tensor
    e: Tensor
    lam: Tensor
    C: Tensor
    s: Tensor


class Solution(NamedTuple):
    """Solution of a stage, for n crystals.

    Attributes:
        B, e, lam, m: State at the time of the stage.
        linear: The equations of the last iteration.
        ok: Whether the iteration has converged (n,), bool.
    """

    B: Tensor
    e: Tensor
    lam: Tensor
    m: Tensor
    linear: Elimination
    ok: Tensor


def mandel(rules: FlowRules, B: Tensor, C: Tensor) -> Tensor:
    """Return the five components of the Mandel stress (n, 5), Pa: G times the deviator of the isochoric B^T C B."""
    A = matmul(matmul(B.mT, C), B)
    A = A * torch.pow(determinant(A), -1.0 / 3.0)[:, None, None]
    return rules.systems.parameters.G * (A.reshape(-1, 9) @ rules.systems.basis)


def mandel_rate(rules: FlowRules, B: Tensor, dB: Tensor, C: Tensor) -> Tensor:
    """Return the change (n, 5), Pa, of the Mandel stress with `B` in the direction `dB` (n, 3, 3)."""
    A = matmul(matmul(B.mT, C), B)
    half = matmul(matmul(B.mT, C), dB)
    dA = (half + half.mT) * torch.pow(determinant(A), -1.0 / 3.0)[:, None, None]
    return rules.systems.parameters.G * (dA.reshape(-1, 9) @ rules.systems.basis)


def solve_stage(rules: FlowRules, stage: Stage, start: Tensor, newton_tolerance: float) -> Solution:
    """Solve a stage for many crystals, each of which leaves the iteration when it has converged.

    Args:
        rules: Flow rules.
        stage: The stage.
        start: Mandel stress (n, 5), Pa, from which the iteration starts.
        newton_tolerance: Relative change of m and lambda at which it ends.
    """
    n = len(start)
    rows = torch.arange(n, device=start.device)
    given, m, e, lam = stage, start, stage.e, stage.lam
    trial = mandel(rules, stage.B, stage.C)
    solution: Solution | None = None
    for _ in range(constants.NEWTON_ITERATIONS):
        rates = rules.rates(m, e, lam)
        B, m_calc, near = _configuration(rules, given, rates, trial)
        linear = eliminate(rules, rates, e, given.s)
        rho_lam = lam - given.lam - given.s[:, None] * rates.lam
        rho_e = e - given.e - given.s[:, None] * rates.e
        dm, de, dlam = solve(rules, linear, m - m_calc, rho_e, rho_lam)
        length = _step_length(rules, rates, (m, e, lam), (dm, de, dlam), given.s)[:, None]
        m, e, lam = m + length * dm, torch.maximum(e + length * de, given.e), lam + length * dlam
        lam = _limited(torch.maximum(lam, given.lam), given.lam)
        small = dm.norm(dim=-1) <= newton_tolerance * (m.norm(dim=-1) + constants.STRESS_REFERENCE)
        small &= (dlam.abs() <= newton_tolerance * (lam + constants.TWIN_REFERENCE)).all(-1)
        done = small & near & (length[:, 0] == 1)
        ok = done & (linear.determinant > constants.TWIN_DETERMINANT)
        point = Solution(B, e, lam, m, linear, ok)
        if solution is None:
            solution = point
        else:
            _scatter(solution, rows, point)
        keep = torch.nonzero(~done).flatten()  # the one synchronisation of an iteration
        if len(keep) == 0:
            break
        if len(keep) < len(rows):
            rows, m, e, lam, trial = rows[keep], m[keep], e[keep], lam[keep], trial[keep]
            given = Stage(*(field[keep] for field in given))
    assert solution is not None
    finite = torch.isfinite(solution.m).all(-1) & torch.isfinite(solution.B).flatten(1).all(-1)
    return solution._replace(ok=solution.ok & finite)


def _configuration(rules: FlowRules, given: Stage, rates: Rates, trial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return B, the Mandel stress that follows from it, and whether the flow is small enough for this.

    Far from the solution the flow can be unphysically large; there B stays, and the stress is that of linear
    elasticity.
    """
    D = given.s[:, None, None] * rates.L
    near = D.square().sum((-1, -2)) < constants.FAR
    one = identity_like(D)
    B = matmul(given.B, inverse(torch.where(near[:, None, None], one + D, one)))
    linear = trial - 2 * rules.systems.parameters.G * (D.reshape(-1, 9) @ rules.systems.basis)
    return B, torch.where(near[:, None], mandel(rules, B, given.C), linear), near


def _step_length(
    rules: FlowRules, rates: Rates, point: tuple[Tensor, ...], change: tuple[Tensor, ...], s: Tensor
) -> Tensor:
    """Return the fraction (n,) of a Newton step that leaves every overstress within its cap.

    The rates grow with a power of the overstress. Its cap is twice its present value, or what makes a slip of
    `FREE_SLIP` in the stage if this is more.
    """
    c, (m, e, lam), (dm, de, dlam) = rules.systems, point, change
    slip_r, twin_r = rules.resistance(e, lam)
    df = (rates.schmid5 @ dm[:, None, :, None])[..., 0]
    cap = (constants.FREE_SLIP / (s[:, None] * c.rate_0)) ** (1 / c.slip_exponent)
    room = torch.maximum(2 * rates.y, cap[:, :, None]) * c.tau_0[:, None] + slip_r[:, :, None]
    speed = df.abs() - (rules.self_hardening(e) * de)[:, :, None]
    length = _fraction(room - torch.sign(df) * rates.force, speed).amin((1, 2))
    if c.n_twin:
        cap = (constants.FREE_SLIP / (s * c.twin_rate_0)) ** (1 / c.twin_exponent)
        room = torch.maximum(2 * rates.twin_y, cap[:, None]) * c.twin_tau_0 + twin_r - m @ c.twin5.T
        speed = dm @ c.twin5.T - 2 * c.twin_k * dlam.sum(-1, keepdim=True) - (c.twin_h - 2 * c.twin_k) * dlam
        length = torch.minimum(length, _fraction(room, speed).amin(1))
    return length


def _fraction(room: Tensor, speed: Tensor) -> Tensor:
    """Return room / speed where this lies between zero and one, otherwise one."""
    return torch.where((speed > room) & (speed > 0), (room / speed).clamp(min=0.01), 1.0)


def _limited(lam: Tensor, start: Tensor) -> Tensor:
    """Return twin fractions (n, b) whose sum is at most one: the increments from `start` are scaled."""
    grown, room = (lam - start).sum(-1, keepdim=True), 1 - start.sum(-1, keepdim=True)
    return torch.where(grown > room, start + (lam - start) * (room / grown).clamp(0.0, 1.0), lam)


def _scatter(solution: Solution, rows: Tensor, point: Solution) -> None:
    """Write the present values of some rows into the solution."""
    for whole, part in zip((*solution[:4], *solution.linear, solution.ok), (*point[:4], *point.linear, point.ok)):
        whole[rows] = part
