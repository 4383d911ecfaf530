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
from micro.crystal.stage import Solution, Stage, mandel, mandel_rate, solve_stage
from micro.tensors import determinant, isochoric, matmul

#: Outcome of a crystal between two instants, and what it means.
SOLVED, STEP_TOO_SMALL, INVERTED = 0, 1, 2
REASONS = ("", "the step of a grain became too small", "the deformation gradient was not finite with det F > 0")


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
        status: SOLVED, STEP_TOO_SMALL or INVERTED (n,), int64.
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
    status = torch.where(valid, SOLVED, INVERTED)
    solves = torch.zeros_like(status)
    at_once = valid & (duration == 0)
    final.m[at_once] = mandel(rules, state.B[at_once], C1[at_once])
    rows = torch.nonzero(valid & ~at_once).flatten()
    everyone = torch.arange(len(duration), device=duration.device)
    rate = (C1 - C0) / duration[:, None, None]
    run = _Run(everyone, C0, rate, duration, torch.zeros_like(duration), state.h, solves, state).take(rows)
    while len(run.rows):
        run, failed = _advance(rules, control, run)
        ended = failed | (run.time >= run.duration)
        if bool(ended.any()):  # the one synchronisation of a step, besides those of Newton's iteration
            done = run.take(torch.nonzero(ended & ~failed).flatten())
            for whole, part in zip(final, done.state._replace(h=done.first)):
                whole[done.rows] = part
            solves[run.rows[ended]] = run.solves[ended]
            status[run.rows[failed]] = STEP_TOO_SMALL
            run = run.take(torch.nonzero(~ended).flatten())
    return Outcome(final, status, solves)


class _Run(NamedTuple):
    """The crystals that are still under way: their rows, the change of C per second, times, and states."""

    rows: Tensor
    C0: Tensor
    rate: Tensor
    duration: Tensor
    time: Tensor
    first: Tensor
    solves: Tensor
    state: CrystalState

    def take(self, index: Tensor) -> "_Run":
        return _Run(*(field[index] for field in self[:-1]), self.state.rows(index))  # type: ignore[arg-type]

    def C(self, time: Tensor) -> Tensor:
        return self.C0 + self.rate * time[:, None, None]


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
        accepted, factor = ok, torch.ones_like(step)
        failed = ~ok
    else:
        accepted = ok & (error <= 1)
        factor = (constants.SAFETY * error ** (-1 / 3)).clamp(constants.SHRINK, constants.GROW)
        factor = torch.where(ok, factor, constants.CUT)
        failed = ~accepted & (factor * step < constants.SMALLEST_STEP * run.duration)
    suggested = factor * step
    suggested = torch.where(accepted & (step < h), torch.maximum(h, suggested), suggested)
    state = CrystalState(*(_where(accepted, a, b) for a, b in zip((*new, suggested), (*run.state[:-1], suggested))))
    first = torch.where(accepted & (run.time == 0), suggested, run.first)
    time = torch.where(accepted, torch.where(step == remaining, run.duration, run.time + step), run.time)
    return run._replace(state=state, time=time, first=first, solves=run.solves + 2), failed


def _step(
    rules: FlowRules, control: Control, run: _Run, h: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Return B, e, lambda and m after a step of size `h` (n,), whether it was solved, and its error over the bound."""
    B, e, lam, m, _ = run.state
    newton_tolerance = constants.NEWTON_TOLERANCE * control.tolerance
    start = rules.rates(m, e, lam)
    known = (-matmul(B, start.L), start.e, start.lam)  # k_0
    s = DIAGONAL * h
    R = [_along(y, k, s) for y, k in zip((B, e, lam), known)]
    middle = solve_stage(rules, Stage(*R, run.C(run.time + GAMMA * h), s), m, newton_tolerance)
    k2 = [_rate(y, r, s) for y, r in zip(middle[:3], R)]
    weight = WEIGHT * h
    R = [_along(_along(y, k, weight), k_, weight) for y, k, k_ in zip((B, e, lam), known, k2)]
    C = run.C(run.time + h)
    end = solve_stage(rules, Stage(*R, C, s), m + (middle.m - m) / GAMMA, newton_tolerance)
    k3 = [_rate(y, r, s) for y, r in zip(end[:3], R)]
    E = [
        _along(_along(_along(torch.zeros_like(a), a, ERROR_WEIGHTS[0] * h), b, ERROR_WEIGHTS[1] * h), c, ERROR_WEIGHTS[2] * h)
        for a, b, c in zip(known, k2, k3)
    ]
    error = _error(rules, control, end, C, E)
    ok = middle.ok & end.ok & torch.isfinite(error)
    return (isochoric(end.B, determinant(end.B)), end.e, end.lam, end.m), ok, error


def _error(rules: FlowRules, control: Control, end: Solution, C: Tensor, E: list[Tensor]) -> Tensor:
    """Return the error of a step divided by its bound (n,), the largest of stress and twin fractions.

    Args:
        rules: Flow rules.
        control: Tolerances.
        end: Solution of the last stage.
        C: Right Cauchy-Green tensor at its time.
        E: Result minus embedded result of B, e and lambda.
    """
    change = mandel_rate(rules, end.B, E[0], C)
    dm, _, dlam = solve(rules, end.linear, -change, -E[1], -E[2])
    error = dm.norm(dim=-1) / (control.tolerance * (end.m.norm(dim=-1) + constants.STRESS_REFERENCE))
    bound = constants.TWIN_TOLERANCE * control.tolerance * (end.lam + constants.TWIN_REFERENCE)
    twins = torch.cat([torch.zeros_like(dlam[:, :1]), dlam.abs() / bound], -1).amax(-1)
    return torch.maximum(error, twins).clamp(min=1e-12)


def _along(y: Tensor, rate: Tensor, time: Tensor) -> Tensor:
    """Return y + time * rate for a `time` (n,) of each row."""
    return y + time.reshape(-1, *[1] * (y.dim() - 1)) * rate


def _rate(y: Tensor, known: Tensor, s: Tensor) -> Tensor:
    """Return the implicit rate (y - known) / s of a stage."""
    return (y - known) / s.reshape(-1, *[1] * (y.dim() - 1))


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the rows of `a` where `mask` (n,) holds, those of `b` elsewhere."""
    return torch.where(mask.reshape(-1, *[1] * (a.dim() - 1)), a, b)
