"""The iteration for equilibrium of one step of a batch of cells, each of which has an iteration of its own.

From the imbalance s of the present field a step -M^-1 s follows, where M is either a homogeneous elastic medium or the
tangent of the points, measured by differences (`micro.spectral.tangent`) and solved by a method of minimal residuals
with the homogeneous medium as its preconditioner. A tangent is kept as long as it serves: Anderson's method makes up
for what has changed since it was measured. It is measured where the iteration is slow. Where a step makes the residual
grow, the iteration goes back to the best point and measures the tangent there; only a step that follows from the
tangent of the point it starts from is halved.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from micro.spectral.anderson import Anderson
from micro.spectral.grid import Grid
from micro.spectral.krylov import minimal_residual
from micro.spectral.tangent import apply, in_plane, mean_inverse, measure, pairs_of
from micro.tensors import determinant

if TYPE_CHECKING:
    from micro.spectral.solver import SpectralCells

#: A residual this many times larger than the smallest one sends the iteration back to that one: a step that follows
#: from the homogeneous medium, and one that follows from the tangent.
WORST, GROWTH = 30.0, 1.0
#: A step has failed when the smallest residual has not fallen by a tenth for so many evaluations.
PATIENCE = 30
#: Returns to the best point, one after the other, after which a step has failed: of steps that follow from the
#: homogeneous medium, and from the tangent.
RETREATS, SHORTENED = 12, 6
#: The tangent is measured where an evaluation has not cut the residual below this share, at most so often in a step.
SLOW, MEASURES = 0.4, 8
#: Residual of the linear equations relative to the imbalance, and products with the tangent allowed.
SHARE, PRODUCTS = 0.1, 100


class Tangents:
    """Tangents of the cells of a batch, as they were last measured, and the media that precondition them.

    Args:
        cells: Number b of cells.
        device: Torch device.

    Attributes:
        known: Whether the tangents of a cell have been measured (b,), bool.
        values: Tangents at the points (b, c, c, N...), Pa; see `micro.spectral.tangent.measure`.
        medium: Inverse, by frequency, of the homogeneous media with their means (b, r, r, K...), 1/Pa.
        plane: Whether they are those of the plane (r = 2).
    """

    def __init__(self, cells: int, device: torch.device) -> None:
        self.known = torch.zeros(cells, dtype=torch.bool, device=device)
        self.values = self.medium = torch.zeros(0, device=device)
        self.plane = False

    def put(self, numbers: Tensor, values: Tensor, plane: bool, grid: Grid) -> None:
        """Keep the tangents `values` (a, c, c, N...) of the cells `numbers` (a,)."""
        medium = mean_inverse(grid, values)
        if self.values.shape[1:] != values.shape[1:]:
            self.values = values.new_zeros((len(self.known), *values.shape[1:]))
            self.medium = medium.new_zeros((len(self.known), *medium.shape[1:]))
            self.known[:] = False
        self.values[numbers], self.medium[numbers] = values, medium
        self.known[numbers], self.plane = True, plane


class Iteration:
    """What the iteration of one step knows of each cell, and of those that still iterate.

    Args:
        cells: The batch.
        U: Mean stretches (a, 3, 3) at the end of the step.
        internal: States (a, points, k) of the points at its start.
        dt: Size of the step (a,), s.
        numbers: Numbers of the cells in the batch (a,).
        start: Unknowns (a, 3, K...) at the start of the step.
        guess: Unknowns from which the iteration starts.
    """

    def __init__(
        self, cells: "SpectralCells", U: Tensor, internal: Tensor, dt: Tensor, numbers: Tensor,
        start: Tensor, guess: Tensor,
    ) -> None:  # fmt: skip
        self._cells, self._rows, self._numbers = cells, torch.arange(len(U), device=U.device), numbers
        self._U, self._state, self._dt, self._phase = U, internal, dt, cells.phase[numbers]
        self._reference = cells.reference(U, numbers)
        self.y, self.internal = guess.clone(), internal.clone()
        self.P = U.new_zeros((len(U), *cells.grid.shape, 3, 3))
        self.ok = torch.zeros(len(U), dtype=torch.bool, device=U.device)
        self.calls = torch.zeros(len(U), dtype=torch.long, device=U.device)
        self.residual = U.new_full((len(U),), torch.inf)
        self._now, self._last, self._last_r = guess, start, torch.zeros_like(guess)
        self._mark = self.residual.clone()  # the residual from which the patience counts
        self._before = self.residual.clone()
        self._best, self._best_r, self._best_y = self.residual.clone(), torch.zeros_like(guess), start
        self._retreats, self._waited = torch.zeros_like(self.calls), torch.zeros_like(self.calls)
        self._measured = torch.zeros_like(self.calls)
        self._ask = torch.zeros_like(self.ok)  # the tangent is measured at the next evaluation
        self._there = torch.zeros_like(self.ok)  # the tangent is that of the best point
        self._fresh = torch.ones_like(self.ok)  # no step has been taken since the last return
        self._mixing = Anderson(len(U), 2 * guess[0].numel(), cells.depth, U)

    def advance(self) -> bool:
        """Evaluate the laws once and take one step; return whether any cell still iterates."""
        cells, grid = self._cells, self._cells.grid
        F = grid.deformation(self._now, self._U)
        P, internal = cells.respond(F, self._state, self._dt, self._phase)
        rows = self._rows
        self.calls[rows] += 1
        finite = torch.isfinite(P).flatten(1).all(1) & (determinant(F) > 0).flatten(1).all(1)
        s = grid.imbalance(torch.where(like(finite, P), P, 0.0))
        size = P.square().sum((-1, -2)).flatten(1).mean(1).sqrt()
        residual = s.abs().square().flatten(1).sum(1).sqrt() / torch.where(size > 0, size, 1.0)
        residual = torch.where(finite, residual, torch.inf)
        done = residual <= cells.tolerance
        self.residual[rows] = residual
        if bool(done.any()):
            at = rows[done]
            self.y[at], self.P[at], self.internal[at], self.ok[at] = self._now[done], P[done], internal[done], True
        if not bool(done.all()):
            self._measure(F, P, residual, finite & ~done)
            self._move(residual, -self._solve(s, residual))
        self._before = residual
        most = torch.where(self._with_tangent(), SHORTENED, RETREATS)
        keep = ~done & (self._retreats <= most) & (self._waited <= PATIENCE)
        if not bool(keep.all()):
            self._keep(keep)
        return len(self._rows) > 0

    def _measure(self, F: Tensor, P: Tensor, residual: Tensor, candidates: Tensor) -> None:
        """Measure the tangents of the cells of `candidates` (a,) whose iteration is slow or has gone astray."""
        tangents = self._cells.tangents
        slow = self._ask | ((residual > SLOW * self._before) & ~self._astray(residual))
        slow &= candidates & (self._measured < MEASURES)
        self._ask[:] = False
        at = torch.nonzero(slow).flatten()
        if len(at) == 0 or self._cells.depth == 0:
            return
        dimension = self._cells.grid.dimension
        plane = in_plane(F[at], P[at], dimension)
        count = len(pairs_of(plane))
        state, dt, phase = self._state[at], self._dt[at], self._phase[at]

        def respond(trials: Tensor) -> Tensor:
            t, F = len(trials), trials.flatten(0, 1)
            stress, _ = self._cells.respond(F, state.repeat(t, 1, 1), dt.repeat(t), phase.repeat(t, 1))
            return stress.unflatten(0, (t, -1))

        values = measure(respond, F[at], P[at], dimension, plane)
        sound = torch.isfinite(values).flatten(1).all(1)
        tangents.put(self._numbers[at[sound]], values[sound], plane, self._cells.grid)
        self.calls[self._rows[at]] += count
        self._measured[at] += 1
        self._mixing.forget(slow)
        self._fresh |= slow
        self._best[at[sound]] = torch.inf  # the iteration goes on from here
        self._there[at[sound]] = True

    def _with_tangent(self) -> Tensor:
        return self._cells.tangents.known[self._numbers]

    def _astray(self, residual: Tensor) -> Tensor:
        """Return whether the last step has made the residuals (a,) too large."""
        return ~(residual <= torch.where(self._with_tangent(), GROWTH, WORST) * self._best) | torch.isinf(residual)

    def _solve(self, s: Tensor, residual: Tensor) -> Tensor:
        """Return M^-1 s."""
        tangents = self._cells.tangents
        at = torch.nonzero(self._with_tangent() & torch.isfinite(residual)).flatten()
        if len(at) == 0:
            return self._reference.solve(s)
        r = self._reference.solve(s) if len(at) < len(s) else torch.zeros_like(s)
        A, medium = tangents.values[self._numbers[at]], tangents.medium[self._numbers[at]]
        rows = 2 if tangents.plane else 3
        right = s[at, :rows]
        whole = lambda x: torch.view_as_complex(x.unflatten(1, (*right.shape[1:], 2)))
        share = (0.3 * self._cells.tolerance / residual[at]).clamp(SHARE, 0.3)
        x = minimal_residual(
            lambda x: _flat(apply(self._cells.grid, A, whole(x))),
            lambda x: _flat((medium * whole(x)[:, None]).sum(2)),
            _flat(right), share, PRODUCTS,
        )  # fmt: skip
        r[at, :rows] = whole(x)
        return r

    def _move(self, residual: Tensor, r: Tensor) -> None:
        """Take the accelerated step, or return towards the best point where the residual has grown too much.

        Where the tangent is not that of the best point, it is measured there first; a step that follows from it is
        shortened until the residual does not grow.
        """
        bad = self._astray(residual)
        better = (residual < self._best) & ~bad
        self._waited = torch.where(residual < 0.9 * self._mark, 0, self._waited + 1)
        self._mark = torch.where(residual < 0.9 * self._mark, residual, self._mark)
        self._there &= ~better | torch.isinf(self._best)  # where it has just been measured, the best is not known yet
        self._best = torch.where(better, residual, self._best)
        self._best_y = torch.where(like(better, r), self._now, self._best_y)
        self._best_r = torch.where(like(better, r), r, self._best_r)
        stored = ~bad & ~self._fresh
        dx, dr = (_flat(torch.where(like(stored, r), a, 0.0)) for a in (self._now - self._last, r - self._last_r))
        self._mixing.store(dx, dr)
        self._mixing.forget(bad)
        step = torch.view_as_complex(self._mixing.step(_flat(r)).unflatten(1, (*r.shape[1:], 2)))
        none = torch.isinf(self._best)
        self._ask = bad & ~none & ~self._there & (self._measured < MEASURES) & (self._cells.depth > 0)
        lost = bad & none & (self._retreats > 0)  # neither the guess nor the start of the step has a finite stress
        self._retreats = torch.where(better | self._ask, 0, torch.where(lost, RETREATS + 1, self._retreats + bad))
        damping = 0.5 ** self._retreats.to(torch.float64)
        # From the best point: a short plain step; where there is none yet, towards the start of the step.
        back = torch.where(like(none | self._ask, r), 0.0, like(damping, r) * self._best_r)
        target = torch.where(like(bad, r), self._best_y + back, self._now + step)
        self._last = torch.where(like(bad, r), self._best_y, self._now)
        self._last_r = torch.where(like(bad, r), self._best_r, r)
        self._fresh = bad & (none | self._ask)
        self._now = target

    def _keep(self, mask: Tensor) -> None:
        names = ["_rows", "_numbers", "_U", "_state", "_dt", "_phase", "_now", "_last", "_last_r", "_best", "_best_r"]
        names += ["_best_y", "_mark", "_waited", "_retreats", "_fresh", "_before", "_measured", "_ask", "_there"]
        for name in names:
            setattr(self, name, getattr(self, name)[mask])
        self._reference = self._reference.rows(mask)
        self._mixing.keep(mask)


def _flat(a: Tensor) -> Tensor:
    """Return complex unknowns (b, ...) as real ones (b, n)."""
    return torch.view_as_real(a.contiguous()).flatten(1)


def like(a: Tensor, b: Tensor) -> Tensor:
    """Return `a` (b,) with as many axes as `b` (b, ...)."""
    return a.reshape(-1, *[1] * (b.dim() - 1))
