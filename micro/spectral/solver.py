"""Periodic cells of any point laws under a prescribed mean stretch, at finite strain, by fast Fourier transforms.

Find the periodic displacement u such that F = F_mean + grad u and the stress P = P(F, state, dt) of the point laws is
in equilibrium, div P = 0, on a regular grid (`micro.spectral.grid`). The unknowns are y, which are |grad u| by
frequency: compatibility and the mean of F hold by construction. The fixed point of Moulinec and Suquet,

    y <- y - K_0^-1 s(P(F(y))),

with a homogeneous elastic reference medium K_0 is accelerated by Anderson's method. At large strain no homogeneous
medium is near the cell: slip leaves grains that are stiff along one direction and soft along another, as the square of
the local stretch, in the elastic range too and at any size of the step. Where the iteration is slow, the tangents of
the points are therefore measured by differences and take the place of K_0 (`micro.spectral.iteration`); a law offers
its stress alone. The iteration stops when the part of P that is not in equilibrium is small,

    |s| <= tolerance * rms(P),

both root mean squares over the cell: |s| is the norm of div P in H^-1, so it has the unit of a stress and does not
depend on the resolution; rms(P) is never less than the norm of the mean stress and does not vanish while it changes
sign. A step that does not converge is cut in two halves, for the cells of the batch that need it; in between, the
square of the mean stretch C = U^2 is linear in time. A cell that fails at the smallest step is recorded with its
reason, and the others go on.

References:
    Moulinec and Suquet (1998), doi:10.1016/S0045-7825(97)00218-1; Schneider (2021), A review of nonlinear FFT-based
    computational homogenization methods, doi:10.1007/s00707-021-02962-1; Lucarini and Segurado (2019), DBFFT: a
    displacement based FFT approach for non-linear homogenization of the mechanical behavior.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from micro.spectral.grid import Grid, Reference
from micro.spectral.iteration import Iteration, Tangents, like
from micro.spectral.point_law import PointLaw, elastic_moduli
from micro.tensors import determinant, from_components, to_components
from micro.threads import small_batches

#: Evaluations per (partial) step beyond which the next step is cut once more: small steps need far fewer.
HARD = 40


class CellState(NamedTuple):
    """State of a batch of cells.

    Attributes:
        U: Mean stretch (b, 3, 3).
        y: Unknowns of the displacement (b, 3, K...), complex; see `micro.spectral.grid`.
        dU: Change of the mean stretch in the last step (b, 3, 3).
        dy: Change of the unknowns in the last step.
        bend: That change less the one which continues the step before. The next step starts from a continuation of
            second order in the path, which needs both.
        internal: States of the points (b, points, k), those of laws with fewer components filled with zeros.
        halvings: How often the next step is halved before it is tried (b,), int64: one less than the last one needed.
    """

    U: Tensor
    y: Tensor
    dU: Tensor
    dy: Tensor
    bend: Tensor
    internal: Tensor
    halvings: Tensor

    def rows(self, mask: Tensor) -> "CellState":
        """Return the cells of `mask`, (b,) bool or indices."""
        return CellState(*(a[mask] for a in self))


@dataclass(frozen=True)
class StepReport:
    """How a step went.

    Attributes:
        P: First Piola-Kirchhoff stress at the points (b, N..., 3, 3), Pa.
        ok: Whether each cell converged (b,), bool.
        iterations: Evaluations of the laws (b,), those of cut steps included.
        residual: |s| / rms(P) at the end (b,).
    """

    P: Tensor
    ok: Tensor
    iterations: Tensor
    residual: Tensor


@dataclass(frozen=True)
class CellResult:
    """Response of a batch of cells to paths of the mean stretch.

    Attributes:
        stress: Mean Cauchy stress (b, T, 6), Pa, in the frame of the stretch; order 11, 22, 33, 12, 23, 13. It is
            the mean of P times U / det(U), so it is the one that does the work; not a number after a failure.
        ok: Whether each path was solved (b,), bool.
        reason: Why a path was not solved, empty where it was; b strings.
        iterations: Evaluations of the laws per step (b, T), 0 at the first time.
        F: Local deformation gradients (b, len(store), N..., 3, 3) at the stored times.
        P: Local first Piola-Kirchhoff stresses, likewise, Pa.
        internal: Local states (b, len(store), N..., k).
    """

    stress: Tensor
    ok: Tensor
    reason: list[str]
    iterations: Tensor
    F: Tensor = field(repr=False)
    P: Tensor = field(repr=False)
    internal: Tensor = field(repr=False)


class SpectralCells:
    """A batch of periodic cells with the same grid and the same laws.

    In two dimensions the fields do not depend on x_3: plane strain with the mean stretch prescribed, and a displacement
    u_3 where the laws couple it.

    Args:
        phase: Number of the law at each point (b, N...), integers, or (N...) for one cell.
        laws: One law per phase; see `PointLaw`.
        internal: States of the virgin points (b, points, k), where they differ from those of the laws (grains of one
            law whose orientation is part of the state).
        scheme: Discretisation, "rotated" or "fourier"; see `micro.spectral.grid`.
        tolerance: Largest residual |s| / rms(P).
        iterations: Evaluations of the laws allowed in a step before it counts as failed.
        halvings: How often a step that does not converge may be halved.
        depth: Steps that the acceleration keeps, 0 for the plain fixed point.
        device: Torch device.

    Raises:
        ValueError: An argument is out of its range, a phase has no law, or no law of a cell has any stiffness.
    """

    def __init__(
        self,
        phase: Tensor,
        laws: Sequence[PointLaw],
        *,
        internal: Tensor | None = None,
        scheme: str = "rotated",
        tolerance: float = 1e-4,
        iterations: int = 200,
        halvings: int = 6,
        depth: int = 8,
        device: str | torch.device = "cpu",
    ) -> None:
        phase = torch.as_tensor(phase)
        if phase.dtype.is_floating_point or phase.dtype == torch.bool:
            raise ValueError(f"phase must be integers, got {phase.dtype}.")
        _check(tolerance > 0, "tolerance must be positive", tolerance)
        _check(iterations >= 1, "iterations must be at least 1", iterations)
        _check(min(halvings, depth) >= 0, "halvings and depth must not be negative", (halvings, depth))
        _check(phase.dim() in (3, 4), "phase must have shape (b, N, N) or (b, N, N, N)", tuple(phase.shape))
        _check(
            phase.numel() > 0 and int(phase.min()) >= 0 and int(phase.max()) < len(laws),
            f"phase must number {len(laws)} laws from 0",
            sorted(set(phase.flatten().tolist()))[:8],
        )
        self.laws, self.device = list(laws), torch.device(device)
        self.tolerance, self.iterations, self.halvings, self.depth = tolerance, iterations, halvings, depth
        self.grid = Grid(tuple(phase.shape[1:]), scheme, device)
        self.phase = phase.flatten(1).to(self.device)
        self._virgin = self._virgin_state() if internal is None else internal.to(self.device)
        points = tuple(self.phase.shape)
        shape = tuple(self._virgin.shape)
        _check(shape[:2] == points, f"internal must have shape {(*points, 'k')}", shape)
        self.tangents = Tangents(self.cells, self.device)
        self._find_examples()

    @property
    def cells(self) -> int:
        """Number b of cells."""
        return len(self.phase)

    def initial_state(self) -> CellState:
        """Return the state of the virgin cells."""
        one = torch.eye(3, dtype=torch.float64, device=self.device).expand(self.cells, 3, 3).clone()
        y = self.grid.zeros(self.cells)
        never = torch.zeros(self.cells, dtype=torch.long, device=self.device)
        return CellState(one, y, torch.zeros_like(one), y.clone(), y.clone(), self._virgin.clone(), never)

    def respond(self, F: Tensor, internal: Tensor, dt: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stress (a, N..., 3, 3) and the new states (a, points, k) of the points.

        Args:
            F: Deformation gradients (a, N..., 3, 3) at the end of the step.
            internal: States (a, points, k) at its start.
            dt: Size of the step (a,), s.
            phase: Numbers of the laws (a, points).
        """
        rows = F.reshape(-1, 3, 3)
        state, time = internal.flatten(0, 1), dt[:, None].expand(phase.shape).reshape(-1)
        if len(self.laws) == 1:
            P, new = self.laws[0].update(rows, state, time)
            return P.reshape(F.shape), new.reshape(internal.shape)
        P, new, flat = torch.zeros_like(rows), state.clone(), phase.reshape(-1)
        for number, law in enumerate(self.laws):
            at = torch.nonzero(flat == number).flatten()
            if len(at) > 0:
                k = self._widths[number]
                P[at], new[at, :k] = law.update(rows[at], state[at, :k], time[at])
        return P.reshape(F.shape), new.reshape(internal.shape)

    def step(self, U: Tensor, state: CellState, dt: Tensor) -> tuple[CellState, StepReport]:
        """Advance the cells by one step.

        Args:
            U: Mean stretch at the end of the step (b, 3, 3), symmetric and positive definite.
            state: State at its start.
            dt: Size of the step (b,), s.

        Returns:
            The new state, which is the old one where the step has failed; and the report.
        """
        return self._whole(U, state, dt, torch.arange(self.cells, device=self.device))

    @small_batches()
    def solve(self, U: Tensor, time: Tensor, store: Sequence[int] = ()) -> CellResult:
        """Return the mean stress along paths of the mean stretch, and local fields on request.

        Args:
            U: Mean right stretch (b, T, 6), the identity at the first time; order 11, 22, 33, 12, 23, 13.
            time: Times (b, T), s, increasing.
            store: Numbers of the times whose local fields are returned.

        Raises:
            ValueError: The shapes do not fit, a time step is not positive, a path does not start at the identity, or
                a stored time does not exist.
        """
        U, time = self._checked(U, time, store)
        T = U.shape[1]
        kept = {int(k) % T: place for place, k in enumerate(store)}
        stress = torch.zeros_like(U)
        calls = torch.zeros(self.cells, T, dtype=torch.long, device=self.device)
        alive, reason = torch.arange(self.cells, device=self.device), [""] * self.cells
        state, grid = self.initial_state(), self.grid.shape
        self.tangents = Tangents(self.cells, self.device)
        F = U.new_full((self.cells, len(store), *grid, 3, 3), torch.nan)
        P, internal = F.clone(), U.new_full((self.cells, len(store), *grid, state.internal.shape[-1]), torch.nan)
        if 0 in kept:
            F[:, kept[0]], P[:, kept[0]] = torch.eye(3).to(F), 0.0
            internal[:, kept[0]] = state.internal.unflatten(1, grid)
        for k in range(1, T):
            mean, dt = from_components(U[alive, k]), (time[:, k] - time[:, k - 1])[alive]
            state, report = self._whole(mean, state, dt, alive)
            calls[alive, k] = report.iterations
            sigma = report.P.flatten(1, -3).mean(1) @ mean / determinant(mean)[:, None, None]
            stress[alive, k] = to_components((sigma + sigma.mT) / 2)
            if k in kept:
                F[alive, kept[k]], P[alive, kept[k]] = self.grid.deformation(state.y, mean), report.P
                internal[alive, kept[k]] = state.internal.unflatten(1, grid)
            if not bool(report.ok.all()):
                for row in torch.nonzero(~report.ok).flatten().tolist():
                    cell = int(alive[row])
                    residual = float(report.residual[row])
                    reason[cell] = f"equilibrium was not reached at step {k}, residual {residual:.2g}"
                    stress[cell, k:] = torch.nan
                    for fields in (F, P, internal):
                        fields[cell] = torch.nan
                alive, state = alive[report.ok], state.rows(report.ok)
            if len(alive) == 0:
                break
        ok = torch.tensor([not text for text in reason], device=self.device)
        return CellResult(stress, ok, reason, calls, F, P, internal)

    def _whole(self, U: Tensor, state: CellState, dt: Tensor, cells: Tensor) -> tuple[CellState, StepReport]:
        """Advance the given `cells` (a,) by one step, in parts where it must be."""
        depth = torch.zeros_like(cells)
        new, report = self._advance(U, state, dt, cells, 0, depth)
        hard = report.iterations > HARD * 2**depth
        return new._replace(halvings=torch.where(hard, depth + 1, depth - 1).clamp(0, self.halvings)), report

    def _advance(
        self, U: Tensor, state: CellState, dt: Tensor, cells: Tensor, level: int, depth: Tensor
    ) -> tuple[CellState, StepReport]:
        """Advance the given `cells` (a,) by a step that has been halved `level` times already.

        The largest number of halvings of each cell is left in `depth` (a,).
        """
        at_once = torch.nonzero(state.halvings <= level).flatten()
        new = CellState(*(a.clone() for a in state))
        report = self._no_report(len(cells))
        if len(at_once) > 0:
            _put(new, report, at_once, *self._increment(U[at_once], state.rows(at_once), dt[at_once], cells[at_once]))
        depth[:] = level
        lost = torch.nonzero(~report.ok).flatten()
        if len(lost) == 0 or level >= self.halvings:
            return new, report
        start, half, calls = state.rows(lost), dt[lost] / 2, report.iterations[lost]
        deep = depth[lost]
        part, first = self._advance(_middle(start.U, U[lost]), start, half, cells[lost], level + 1, deep)
        _put(None, report, lost, part, first)
        go = torch.nonzero(first.ok).flatten()
        if len(go) > 0:
            at, later = lost[go], deep[go]
            on, second = self._advance(U[at], part.rows(go), half[go], cells[at], level + 1, later)
            deep[go] = torch.maximum(deep[go], later)
            done = torch.nonzero(second.ok).flatten()
            _put(new, None, at[done], on.rows(done), second)
            _put(None, report, at, on, second)
            calls[go] += first.iterations[go]
        report.iterations[lost] += calls
        depth[lost] = deep
        return new, report

    def _no_report(self, count: int) -> StepReport:
        P = torch.full((count, *self.grid.shape, 3, 3), torch.nan, dtype=torch.float64, device=self.device)
        zero = torch.zeros(count, dtype=torch.long, device=self.device)
        return StepReport(P, zero > 0, zero, torch.full_like(zero, torch.inf, dtype=torch.float64))

    def _increment(self, U: Tensor, state: CellState, dt: Tensor, cells: Tensor) -> tuple[CellState, StepReport]:
        """Solve one step of the given `cells` (a,) without cutting it."""
        dU = U - state.U
        last = state.dU.square().sum((1, 2))
        share = (dU * state.dU).sum((1, 2)) / torch.where(last > 0, last, 1.0)
        share = like(share.clamp(0.0, 2.0), state.y)
        line = state.y + share * state.dy
        guess = line + share**2 * state.bend
        work = Iteration(self, U, state.internal, dt, cells, state.y, guess)
        for _ in range(self.iterations):
            if not work.advance():
                break
        new = [a.clone() for a in state]
        at = torch.nonzero(work.ok).flatten()
        y = work.y[at]
        values = (U[at], y, dU[at], y - state.y[at], y - line[at], work.internal[at])
        for old, value in zip(new, values):  # the number of halvings stays
            old[at] = value
        return CellState(*new), StepReport(work.P, work.ok, work.calls, work.residual)

    def _checked(self, U: Tensor, time: Tensor, store: Sequence[int]) -> tuple[Tensor, Tensor]:
        fits = U.dim() == 3 and U.shape[-1] == 6 and time.shape == U.shape[:2] and len(U) == self.cells
        shapes = (tuple(U.shape), tuple(time.shape))
        _check(fits, f"U must have shape ({self.cells}, T, 6) and time ({self.cells}, T)", shapes)
        U, time = U.to(self._virgin), time.to(self._virgin)
        _check(bool((time.diff(dim=1) > 0).all()), "time must increase along every path", "a step that is not positive")
        start = to_components(torch.eye(3).to(U))
        _check(
            torch.allclose(U[:, 0], start.expand(len(U), 6), rtol=0, atol=1e-12),
            "U must be the identity at the first time of every path: cells are virgin there",
            "another stretch",
        )
        T = U.shape[1]
        _check(all(-T <= k < T for k in store), f"store must hold numbers of the {T} times", list(store))
        return U, time

    def _virgin_state(self) -> Tensor:
        parts = [law.initial_state(1) for law in self.laws]
        self._widths = [part.shape[1] for part in parts]
        table = torch.zeros(len(parts), max(self._widths), dtype=torch.float64)
        for number, part in enumerate(parts):
            table[number, : part.shape[1]] = part[0]
        return table.to(self.device)[self.phase]

    def reference(self, U: Tensor, cells: Tensor) -> Reference:
        """Return the preconditioner of the given `cells` (a,) at the mean stretches `U` (a, 3, 3).

        Its moduli are half the sum of the extreme ones of the phases in a cell, at the mean change of volume.
        """
        stretch = determinant(U).clamp(min=1e-3) ** (1 / 3)
        high = torch.zeros(len(cells), 2, dtype=torch.float64, device=self.device)
        low = torch.full_like(high, torch.inf)
        for number, law in enumerate(self.laws):
            point, there = self._example[number][cells], self._there[number][cells]
            moduli = elastic_moduli(law, point[:, : self._widths[number]], stretch, self.grid.dimension)
            high[there] = torch.maximum(high[there], moduli[there])
            low[there] = torch.minimum(low[there], moduli[there])
        shear, rest = ((high + low) / 2).unbind(1)
        return self.grid.preconditioner(U, shear, rest)

    def _find_examples(self) -> None:
        """Keep for each law the cells it occurs in, and the virgin state of one of its points in each cell."""
        self._widths = [law.initial_state(1).shape[1] for law in self.laws]
        self._there = [(self.phase == number).any(1) for number in range(len(self.laws))]
        first = [(self.phase == number).to(torch.int8).argmax(1) for number in range(len(self.laws))]
        every = torch.arange(self.cells, device=self.device)
        self._example = [self._virgin[every, point] for point in first]
        one = torch.eye(3, dtype=torch.float64, device=self.device).expand(self.cells, 3, 3)
        stiff = torch.isfinite(self.reference(one, every).solve(self.grid.zeros(self.cells) + 1)).flatten(1).all(1)
        _check(bool(stiff.all()), "laws must give every cell some stiffness", "a cell without any")


def _put(state: CellState | None, report: StepReport | None, at: Tensor, part: CellState, partial: StepReport) -> None:
    """Write the results of some cells into those of all, at the places `at`."""
    for whole, piece in zip(state or (), part):
        whole[at] = piece
    if report is not None:
        report.P[at], report.ok[at] = partial.P, partial.ok
        report.iterations[at], report.residual[at] = partial.iterations, partial.residual


def _check(fits: bool, rule: str, got: object) -> None:
    if not fits:
        raise ValueError(f"{rule}, got {got}.")


def _middle(U_n: Tensor, U: Tensor) -> Tensor:
    """Return the stretch (b, 3, 3) whose square is the mean of those of `U_n` and `U`."""
    values, axes = torch.linalg.eigh((U_n @ U_n + U @ U) / 2)
    return (axes * values.sqrt()[:, None, :]) @ axes.mT
