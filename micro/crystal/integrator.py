"""Adaptive time integration of many crystals between two given instants: TR-BDF2, a step of its own for each crystal.

Between the instants the right Cauchy-Green tensor C is linear in time. The rates of B = F_in^-1, of the accumulated
slip e and of the twin fractions lambda are those of `micro.crystal.flow_rules`, B_dot = -B (L_p + L_t). A step takes
the explicit rate k_0 at its start and two implicit stages:

    y_2 = y_n + d h (k_0 + k_2)    at t + gamma h,        y_3 = y_n + h (w k_0 + w k_2 + d k_3)    at t + h,

and estimates its error by an embedded third-order result, filtered by the Newton matrix of the second stage, so that
the estimate stays of the size of the error where the equations are stiff. The error counts in the Mandel stress and in
every twin fraction, also of the variants that lose the competition: their fractions of about 5e-5 hinder the winner by
some MPa, so the competition has to be resolved.

References:
    Hosea and Shampine (1996), doi:10.1016/0168-9274(95)00115-8.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from micro.crystal import constants
from micro.crystal.constants import DIAGONAL, ERROR_WEIGHTS, GAMMA, WEIGHT
from micro.crystal.flow_rules import FlowRules, solve
from micro.crystal.stage import Solution, Stage, Start, mandel, solve_stage
from micro.tensors import determinant, isochoric, matmul


class CrystalState(NamedTuple):
    """State of n crystals, in the frame of each crystal.

    Attributes:
        B: Inverse of the inelastic deformation gradient (n, 3, 3), det B = 1.
        e: Accumulated slip of each slip system (n, a), (A.1).
        lam: Twin fractions (n, b), each at least zero and never decreasing, their sum at most one.
        m: Five components of the Mandel stress (n, 5), Pa.
        h: Suggested size of the next step (n,), s; zero where there is none.
    """

    B: Tensor
    e: Tensor
    lam: Tensor
    m: Tensor
    h: Tensor

    def rows(self, index: Tensor) -> "CrystalState":
        """Return the crystals of `index`."""
        return CrystalState(*(field[index] for field in self))


class Outcome(NamedTuple):
    """What became of n crystals between two instants.

    Attributes:
        state: The state at the end; where the crystal was not solved, that of the start.
        status: What became of each crystal (n,), int64, an index of `constants.REASONS`.
        solves: Implicit stages that were solved (n,), also those of steps that were repeated.
    """

    state: CrystalState
    status: Tensor
    solves: Tensor


@dataclass(frozen=True)
class Control:
    """How the step is chosen.

    Attributes:
        tolerance: Bound on the error of a step relative to the Mandel stress.
        substeps: If positive, so many equal steps between two instants, without control of the error.
    """

    tolerance: float = constants.TOLERANCE
    substeps: int = 0

    @property
    def iterations(self) -> int:
        """Newton iterations allowed in a stage."""
        return constants.FIXED_STEP_ITERATIONS if self.substeps > 0 else constants.NEWTON_ITERATIONS


def integrate(
    rules: FlowRules, control: Control, C0: Tensor, C1: Tensor, state: CrystalState, duration: Tensor
) -> Outcome:
    """Integrate n crystals from one instant to the next.

    Args:
        rules: Flow rules.
        control: How the step is chosen.
        C0: Right Cauchy-Green tensor at the start (n, 3, 3), in the frame of each crystal.
        C1: The same at the end.
        state: State at the start.
        duration: Time between the instants (n,), s.
    """
    valid = torch.isfinite(C1).flatten(1).all(-1) & (determinant(C1) > 0) & (duration >= 0)
    final = CrystalState(*(field.clone() for field in state))
    status = torch.where(valid, constants.SOLVED, constants.INVALID)
    solves = torch.zeros_like(status)
    at_once = valid & (duration == 0)
    final.m[at_once] = mandel(rules, state.B[at_once], C1[at_once])
    rows = torch.nonzero(valid & ~at_once).flatten()
    everyone = torch.arange(len(duration), device=duration.device)
    run = _Run(everyone, C0, C1 - C0, duration, torch.zeros_like(duration), solves, state).take(rows)
    while len(run.rows):
        run, failed = _advance(rules, control, run)
        late = ~failed & (run.time < run.duration) & (run.steps >= constants.MOST_STEPS)
        ended = failed | late | (run.time >= run.duration)
        if bool(ended.any()):  # the one synchronisation of a step, besides those of Newton's iteration
            done = run.take(torch.nonzero(ended & ~failed & ~late).flatten())
            for whole, part in zip(final, done.state):
                whole[done.rows] = part
            solves[run.rows[ended]] = 2 * run.steps[ended]
            status[run.rows[failed]] = constants.STEP_TOO_SMALL
            status[run.rows[late]] = constants.TOO_MANY_STEPS
            run = run.take(torch.nonzero(~ended).flatten())
    return Outcome(final, status, solves)


class _Run(NamedTuple):
    """The crystals that are still under way.

    Attributes:
        rows: Their places in the batch (n,).
        C0: C at the start of the interval (n, 3, 3).
        dC: Its change in the interval (n, 3, 3).
        duration: The interval (n,), s.
        time: The present time in it (n,), s.
        steps: Steps that were tried (n,).
        state: Their states.
    """

    rows: Tensor
    C0: Tensor
    dC: Tensor
    duration: Tensor
    time: Tensor
    steps: Tensor
    state: CrystalState

    def take(self, index: Tensor) -> "_Run":
        return _Run._make([*(field[index] for field in self[:-1]), self.state.rows(index)])

    def C(self, time: Tensor) -> Tensor:
        return self.C0 + (time / self.duration)[:, None, None] * self.dC


def _advance(rules: FlowRules, control: Control, run: _Run) -> tuple[_Run, Tensor]:
    """Try one step of every crystal; return the run after it and which crystals have failed for good (n,)."""
    remaining, h = run.duration - run.time, run.state.h
    if control.substeps:
        h = run.duration / control.substeps
        step = torch.where(remaining > 1.5 * h, h, remaining)
    else:
        step = torch.where(h > remaining / 2, remaining / 2, h)
        step = torch.where((h <= 0) | (h >= remaining), remaining, step)
    new, ok, error = _step(rules, control, run, step)
    if control.substeps:
        accepted, failed, suggested = ok, ~ok, run.state.h
    else:
        accepted = ok & (error <= 1)
        factor = (constants.SAFETY * error ** (-1 / 3)).clamp(constants.SHRINK, constants.GROW)
        suggested = step * torch.where(ok, factor, constants.CUT)
        failed = ~accepted & (suggested < constants.SMALLEST_STEP * run.duration)
        suggested = torch.where(accepted & (step < h), torch.maximum(h, suggested), suggested)
    state = CrystalState._make([*(_where(accepted, a, b) for a, b in zip(new, run.state[:-1])), suggested])
    time = torch.where(accepted, torch.where(step == remaining, run.duration, run.time + step), run.time)
    return run._replace(state=state, time=time, steps=run.steps + 1), failed


def _step(
    rules: FlowRules, control: Control, run: _Run, h: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Return B, e, lambda and m after a step of size `h` (n,), whether it was solved, and its error over the bound."""
    B, e, lam, m, _ = run.state
    slipping, limits, s = rules.slipping(lam), (control.tolerance, control.iterations), DIAGONAL * h
    # The rates of the start are at the same time the first that the middle stage needs: its iteration begins there.
    start = rules.rates(m, e, lam, slipping=slipping, bound=(1 - lam.sum(-1)).clamp(min=0.0) / s)
    D = s[:, None, None] * start.L
    first = (-matmul(B, D), s[:, None] * start.e, s[:, None] * start.lam)  # s k_0
    R = [y + k for y, k in zip((B, e, lam), first)]
    given = Stage._make([*R, run.C(run.time + GAMMA * h), s, slipping])
    middle = solve_stage(rules, given, Start(m, e, lam, start), *limits)
    second = [y - r for y, r in zip(middle[:3], R)]  # s k_2
    R = [y + WEIGHT / DIAGONAL * (k + k_) for y, k, k_ in zip((B, e, lam), second, first)]
    guess = Start(m + (middle.m - m) / GAMMA, R[1], R[2])
    end = solve_stage(rules, Stage._make([*R, run.C(run.time + h), s, slipping]), guess, *limits)
    third = [y - r for y, r in zip(end[:3], R)]  # s k_3
    D5 = D.reshape(-1, 9) @ rules.systems.basis
    terms = zip((D5, *first[1:]), (middle.D, *second[1:]), (end.D, *third[1:]))
    weights = [weight / DIAGONAL for weight in ERROR_WEIGHTS]
    error = _error(rules, control, end, [weights[0] * a + weights[1] * b + weights[2] * c for a, b, c in terms])
    ok = middle.ok & end.ok & torch.isfinite(error)
    B = isochoric(end.B, determinant(end.B))
    return (B, end.e, _limited(end.lam, lam), end.m), ok, error


def _error(rules: FlowRules, control: Control, end: Solution, E: list[Tensor]) -> Tensor:
    """Return the error of a step divided by its bound (n,), the largest of stress and twin fractions.

    Args:
        rules: Flow rules.
        control: Tolerances.
        end: Solution of the last stage.
        E: Result minus embedded result of the flow (n, 5), the slips (n, a) and the twin fractions (n, b).
    """
    dm, _, dlam = solve(rules, end.linear, 2 * rules.systems.parameters.G * E[0], -E[1], -E[2])
    error = dm.norm(dim=-1) / (control.tolerance * (end.m.norm(dim=-1) + constants.STRESS_REFERENCE))
    bound = constants.TWIN_TOLERANCE * control.tolerance * (end.lam + constants.TWIN_REFERENCE)
    twins = torch.cat([dlam.new_zeros(len(dlam), 1), dlam.abs() / bound], -1).amax(-1)
    return torch.maximum(error, twins).clamp(min=1e-12)


def _limited(lam: Tensor, start: Tensor) -> Tensor:
    """Return twin fractions (n, b) whose sum is at most one: the increments from `start` are scaled."""
    total, before = lam.sum(-1, keepdim=True), start.sum(-1, keepdim=True)
    part = (1 - before).clamp(min=0.0) / (total - before).clamp(min=1e-300)
    return torch.where(total > 1, start + (lam - start) * part, lam)


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the rows of `a` where `mask` (n,) holds, those of `b` elsewhere."""
    return torch.where(mask.reshape(-1, *[1] * (a.dim() - 1)), a, b)
