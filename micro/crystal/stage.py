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
        slipping: Which twins slip (n, b), bool.
    """

    B: Tensor
    e: Tensor
    lam: Tensor
    C: Tensor
    s: Tensor
    slipping: Tensor


class Solution(NamedTuple):
    """Solution of a stage, for n crystals.

    Attributes:
        B, e, lam, m: State at the time of the stage.
        D: Five components of s L (n, 5), of its symmetric part.
        linear: The equations of the last iteration.
        ok: Whether the iteration has converged (n,), bool.
    """

    B: Tensor
    e: Tensor
    lam: Tensor
    m: Tensor
    D: Tensor
    linear: Elimination
    ok: Tensor


def mandel(rules: FlowRules, B: Tensor, C: Tensor) -> Tensor:
    """Return the five components of the Mandel stress (n, 5), Pa: G times the deviator of the isochoric B^T C B."""
    A = matmul(matmul(B.mT, C), B)
    A = A * torch.pow(determinant(A), -1.0 / 3.0)[:, None, None]
    return rules.systems.parameters.G * (A.reshape(-1, 9) @ rules.systems.basis)


class Start(NamedTuple):
    """Where the iteration of a stage starts, for n crystals.

    Attributes:
        m: Mandel stress (n, 5), Pa.
        e: Accumulated slip (n, a).
        lam: Twin fractions (n, b).
        rates: The rates there, where they are known.
    """

    m: Tensor
    e: Tensor
    lam: Tensor
    rates: Rates | None = None


def solve_stage(rules: FlowRules, stage: Stage, start: Start, tolerance: float, iterations: int) -> Solution:
    """Solve a stage for many crystals, each of which leaves the iteration when it has converged.

    Args:
        rules: Flow rules.
        stage: The stage.
        start: Where the iteration starts.
        tolerance: Tolerance of the time step, to which the constants of Newton's iteration are relative.
        iterations: Iterations allowed.
    """
    rows = torch.arange(len(start.m), device=start.m.device)
    given, (m, e, lam, known) = stage, start
    trial = mandel(rules, stage.B, stage.C)
    bound = (1 - stage.lam.sum(-1)).clamp(min=0.0) / stage.s
    solution: Solution | None = None
    for _ in range(iterations):
        rates = known or rules.rates(m, e, lam, slipping=given.slipping, bound=bound)
        known = None
        D = given.s[:, None, None] * rates.L
        m_calc = _configuration(rules, given, D, trial)[1]
        linear = eliminate(rules, rates, e, given.s)
        rho_lam = lam - given.lam - given.s[:, None] * rates.lam
        rho_e = e - given.e - given.s[:, None] * rates.e
        change = solve(rules, linear, m - m_calc, rho_e, rho_lam)
        ahead = _look_ahead(rules, rates, (m, e, lam), change, given.s, bound)
        dm, de, dlam = (ahead.length[:, None] * part for part in change)
        m, e, lam = m + dm, torch.maximum(e + de, given.e), torch.maximum(lam + dlam, given.lam)
        D = given.s[:, None, None] * ahead.L
        B, m_calc, near = _configuration(rules, given, D, trial)
        rho_lam = lam - given.lam - given.s[:, None] * ahead.lam
        done = _converged(rules, linear, (m, e, lam), (m - m_calc, rho_lam), tolerance) & near & (ahead.length >= 1)
        done |= ~ahead.flows & torch.isfinite(m).all(-1)  # elastic: the first iteration is exact
        # The last change of m belongs to a small flow, which B and D take into account.
        last = (m - m_calc) / (2 * rules.systems.parameters.G)
        B = B + matmul(B, (last @ rules.systems.basis.T).reshape(-1, 3, 3))
        point = Solution(B, e, lam, m, D.reshape(-1, 9) @ rules.systems.basis - last, linear, done & linear.resolved)
        if solution is None:
            solution = point
        else:
            _scatter(solution, rows, point)
        keep = torch.nonzero(~done).flatten()  # the one synchronisation of an iteration
        if len(keep) == 0:
            break
        if len(keep) < len(rows):
            rows, m, e, lam, trial, bound = rows[keep], m[keep], e[keep], lam[keep], trial[keep], bound[keep]
            given = Stage(*(field[keep] for field in given))
    assert solution is not None
    return solution


def _converged(
    rules: FlowRules, linear: Elimination, point: tuple[Tensor, ...], rest: tuple[Tensor, Tensor], tolerance: float
) -> Tensor:
    """Return whether the stage is solved at m, e, lambda (n,), bool, where residuals of m and lambda are left.

    With the equations at hand they give an estimate of the next change, which has to be small. So has the residual of m
    itself, which is the flow that is missing: where slip hardly depends on the rate, a small change of m is a large
    change of the flow, and the next step begins with this flow.
    """
    (m, e, lam), (rho_m, rho_lam) = point, rest
    change, _, twins = solve(rules, linear, rho_m, torch.zeros_like(e), rho_lam)
    size = tolerance * (m.norm(dim=-1) + constants.STRESS_REFERENCE)
    small = change.norm(dim=-1) <= constants.NEWTON_TOLERANCE * size
    small &= rho_m.norm(dim=-1) <= constants.FLOW_TOLERANCE * size
    bound = constants.NEWTON_TWIN_TOLERANCE * tolerance * constants.TWIN_TOLERANCE * (lam + constants.TWIN_REFERENCE)
    return small & (twins.abs() <= bound).all(-1)


def _configuration(rules: FlowRules, given: Stage, D: Tensor, trial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return B, the Mandel stress that follows from it, and whether the flow is small enough for this.

    Far from the solution the flow D (n, 3, 3) can be unphysically large; there B stays, and the stress is that of
    linear elasticity.
    """
    near = D.square().sum((-1, -2)) < constants.FAR
    one = identity_like(D)
    B = matmul(given.B, inverse(torch.where(near[:, None, None], one + D, one)))
    linear = trial - 2 * rules.systems.parameters.G * (D.reshape(-1, 9) @ rules.systems.basis)
    return B, torch.where(near[:, None], mandel(rules, B, given.C), linear), near


class _Ahead(NamedTuple):
    """Where a Newton step leads, for n crystals.

    Attributes:
        length: Fraction (n,) of the step that leaves every overstress within its cap.
        flows: Whether anything flows before or after the step (n,), bool.
        L: L_p + L_t after the whole step (n, 3, 3), 1/s, in which hardening is linear.
        lam: Rates of the twin fractions there (n, b), 1/s.
    """

    length: Tensor
    flows: Tensor
    L: Tensor
    lam: Tensor


def _look_ahead(
    rules: FlowRules, rates: Rates, point: tuple[Tensor, ...], change: tuple[Tensor, ...], s: Tensor, bound: Tensor
) -> _Ahead:
    """Return where the Newton step `change` leads.

    The rates grow with a power of the overstress. Its cap is twice its present value, or what makes a slip of
    `FREE_SLIP` in the stage if this is more.
    """
    c, (m, e, lam), (dm, de, dlam) = rules.systems, point, change
    slip_r, twin_r = rules.resistance(e, lam)
    f = rates.force + (rates.schmid5 @ dm[:, None, :, None])[..., 0]
    cap = (constants.FREE_SLIP / (s[:, None] * c.rate_0)) ** (1 / c.slip_exponent)
    limit = torch.maximum(2 * rates.y, cap[:, :, None])
    now = (rates.force.abs() - slip_r[:, :, None]) / c.tau_0[:, None]
    latent = c.v * ((de * c.v).sum(-1, keepdim=True) - c.v * de)
    harder = (slip_r + rules.self_hardening(e) * de + latent)[:, :, None]
    then = (f.abs() - harder) / c.tau_0[:, None]
    slips = (rates.w > 0)[:, None]
    slips[..., 0] = True  # also a parent of which only round-off is left
    length = torch.where(slips, _fraction(now, then, limit), 1.0).amin((1, 2))
    flows = (((then > 0) | (now > 0)) & slips).any(-1).any(-1)
    weights = rates.w
    if rules.slip == "common":
        weights = torch.cat([(1 - lam.sum(-1, keepdim=True)).clamp(min=0.0), lam], -1)
    flow = c.rate_0[:, None] * then.clamp(min=0.0) ** c.slip_exponent * torch.sign(f) * weights[:, None]
    L = flow.flatten(1) @ c.slip[:, : flow.shape[-1]].reshape(-1, 9)
    growth = rates.lam
    if c.n_twin:
        cap = (constants.FREE_SLIP / (s[:, None] * c.twin_rate_0)) ** (1 / c.twin_exponent)
        now = (m @ c.twin5.T - twin_r) / c.twin_tau_0
        harder = 2 * c.twin_k * dlam.sum(-1, keepdim=True) + (c.twin_h - 2 * c.twin_k) * dlam
        then = now + (dm @ c.twin5.T - harder) / c.twin_tau_0
        length = torch.minimum(length, _fraction(now, then, torch.maximum(2 * now, cap)).amin(1))
        flows |= ((then > 0) | (now > 0)).any(-1)
        growth = c.twin_rate_0 * then.clamp(min=0.0) ** c.twin_exponent
        total = growth.sum(-1)
        growth = torch.where((total > bound)[:, None], growth * (bound / total)[:, None], growth)
        L = L + growth @ c.twin
    return _Ahead(length.clamp(min=0.01), flows, L.reshape(-1, 3, 3), growth)


def _fraction(now: Tensor, then: Tensor, limit: Tensor) -> Tensor:
    """Return where a value on its way from `now` to `then` passes its limit; one where it does not."""
    return torch.where(then > limit, (limit - now) / (then - now), 1.0)


def _scatter(solution: Solution, rows: Tensor, point: Solution) -> None:
    """Write the present values of some rows into the solution."""
    for whole, part in zip((*solution[:5], *solution.linear, solution.ok), (*point[:5], *point.linear, point.ok)):
        whole[rows] = part
