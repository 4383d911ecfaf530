"""Mixed-precision preconditioned conjugate gradients (PCG) with iterative refinement, for a batch of cells.

A pass of conjugate gradients solves for a correction of the fluctuations in the precision of the preconditioner, with
the forces out of balance as its load. Then the forces are computed anew in double precision. The error of the energy
is quadratic in the error of the fluctuations, so that one pass in single precision reaches 1e-8 of the tensor, and two
or three passes reach 1e-10. All results are in double precision.

Each step lowers the energy of a load by delta = alpha r.z exactly, so the sum of the steps to come is the error of that
load's upper bound. It is extrapolated from the latest steps, and the iteration ends when it is small enough;
`micro.voxel.bounds.lower_bound` turns this estimate into a bound. Where hinges in soft voids leave modes 1e9 times as
soft as the others, single precision may make the preconditioner or the stiffness indefinite. Then the products that
have to be positive are not, the estimate means nothing, and the load continues in double precision; a pass that raised
the energy, measured in double precision, is discarded. What multigrid leaves of such cells is measured once more, with
the forces in double precision. Loads and cells are independent of each other: each
ends separately, and they are distributed over the threads.

Fields are laid out (loads, 3, cells, nodes), see `micro.voxel.solver.operator.CompactCells`.

References:
    Strakos and Tichy (2002), On error estimation in the conjugate gradient method and why it works in finite precision
    computations, Electron. Trans. Numer. Anal. 13, 56-80: the gain of a step.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from micro.threads import single
from micro.voxel.solver.fourier import FourierPreconditioner
from micro.voxel.solver.multigrid import Multigrid
from micro.voxel.solver.operator import CompactCells, VoxelOperator

#: Steps whose convergence is extrapolated: this fraction of all steps, and at least this number. The convergence of
#: thin frames has plateaus, which become longer with the number of steps.
PART, WINDOW = 3, 3
#: Factor on the extrapolated error: without it some loads would end too early, by up to a factor of two.
SAFETY = 2.0
#: Gains below this part of the goal are rounding.
FLOOR = 1e-12
#: Part of what a pass gains that rounding of single precision may spoil.
SINGLE = 1e-8
#: The softest phase is split off where its part of the mean stiffness is at most the first, and its part of the voxels
#: at least the second.
SOFT, COMMON = 0.03, 0.25
#: Multigrid's steps are at least about 1 long, so that shorter ones come of rounding.
SHORTEST = 0.25
#: Contrast times the rounding of the precision above which multigrid may be indefinite.
DOUBTFUL = 1e-3
PRECONDITIONERS = ("auto", "fourier", "multigrid", "none")
#: Steps after which "auto" continues with multigrid: hinges and winding struts slow the Fourier preconditioner down.
PATIENCE = 50
#: Voxels of the cells that are solved together: on a CPU as many as fit into its cache.
TOGETHER = {"cpu": 1 << 14, "cuda": 1 << 24}
#: Voxels above which starting threads pays, and above which each load is solved separately.
THREADS, ALONE = 1 << 12, 1 << 15
#: Passes after which the accuracy cannot improve any more.
PASSES = 12
#: Batches whose operators are kept.
KEPT = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Solution:
    """State of a pass of conjugate gradients at its end.

    Attributes:
        u: Displacements (loads, 3, cells, nodes).
        residual: -f - K u, of the same shape.
        left: Estimated energy still to gain (loads, cells); infinite where rounding broke the pass.
        gained: Energy gained (loads, cells).
        iterations: Steps taken (loads, cells), int.
        converged: Whether `left` is below the goal (loads, cells), bool.
    """

    u: Tensor
    residual: Tensor
    left: Tensor
    gained: Tensor
    iterations: Tensor
    converged: Tensor


def wide(scalar: Tensor) -> Tensor:
    """Return one number per load and cell (loads, cells) so that it multiplies fields (loads, 3, cells, nodes)."""
    return scalar[:, None, :, None]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of the fields (loads, 3, cells, nodes) of each load and cell (loads, cells)."""
    return torch.linalg.vecdot(a, b).sum(1)


def extrapolate(gains: list[Tensor]) -> Tensor:
    """Return about the sum of the gains to come (loads, cells): a geometric series of the slowest recent ratio."""
    last = gains[-1]
    if len(gains) < 2:
        return torch.full_like(last, torch.inf)
    recent = gains[-max(WINDOW, len(gains) // PART) - 1 :]
    ratios = torch.stack([torch.where(a > 0, b / a, 0.0) for a, b in zip(recent, recent[1:])])
    ratio = ratios.amax(0).clamp(0.1, 0.98)
    return SAFETY * torch.stack(recent[-2:]).amax(0) * ratio / (1 - ratio)


def measure(step: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a step (loads, 3, cells, nodes) gained, and what another length of it would still (loads, cells).

    Both follow from the forces out of balance before and after it, in double precision, whatever rounding the step was
    made with. The second is zero for conjugate gradients without rounding, and never above the energy left.
    """
    old, new = dot(step, before), dot(step, after)
    stiffness = old - new  # of the step
    return old + new, torch.where(stiffness > 0, new.square() / stiffness, 0.0)


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    residual: Tensor,
    goal: Callable[[Tensor], Tensor],
    iterations: Tensor,
    known_part: Tensor | None = None,
    shortest: float = 0.0,
) -> Solution:
    """Minimise the energies of all loads, from u = 0, until the energy left to gain is below a goal.

    Loads and cells are independent of each other: those that have converged do not change while others continue.

    Args:
        apply: The stiffness, semi-definite; the residual must lie in its range.
        precondition: A positive definite approximation of its inverse.
        residual: Forces out of balance (loads, 3, cells, nodes); they are overwritten.
        goal: Energy that may be left (loads, cells), by what was gained so far (loads, cells).
        iterations: Largest number of steps of each load and cell (loads, cells).
        known_part: If given, `apply` is the stiffness without this multiple of the inverse of `precondition` (cells,).
        shortest: Steps of this length come of rounding; it is below the inverse of the largest eigenvalue.
    """
    u, r = torch.zeros_like(residual), residual
    p = precondition(r)
    rz = dot(r, p)
    known = None if known_part is None else known_part[:, None] * r  # what `apply` leaves out of the product with p
    steps = torch.zeros_like(rz, dtype=torch.long)
    gained, gains = torch.zeros_like(rz), list[Tensor]()
    # A gain below this is rounding, as in cells without load; a product below zero says that the pass is broken.
    floor = FLOOR * goal(gained)
    done = abs(rz) <= floor
    left = torch.full_like(rz, torch.inf).masked_fill_(done, 0.0)
    active = (rz > floor) & (steps < iterations)
    while active.any():
        q = apply(p) if known is None else apply(p).add_(known)
        pq = dot(p, q)
        broken = active & ~((pq > 0) & (rz > shortest * pq))
        alpha = torch.where((pq > 0) & active, rz / pq, 0.0)
        u.addcmul_(wide(alpha), p)
        r.addcmul_(wide(-alpha), q)
        gains.append(alpha * rz)
        gained += gains[-1]
        steps += active
        left = torch.where(active, torch.where(broken, torch.inf, extrapolate(gains)), left)
        done = done | (active & ~broken & ((left <= goal(gained)) | (gains[-1] <= floor)))
        active = active & ~done & ~broken & (steps < iterations)
        if not active.any():
            break
        z = precondition(r)
        rz_new = dot(r, z)
        ended = active & ~(rz_new > floor)
        done = done | (ended & (abs(rz_new) <= floor))
        left = torch.where(ended, torch.where(done, 0.0, torch.inf), left).to(rz)
        active = active & ~ended
        beta = torch.where((rz > 0) & active, rz_new / rz, 0.0)
        torch.addcmul(z, wide(beta), p, out=p)
        if known_part is not None and known is not None:
            known.mul_(wide(beta)).addcmul_(known_part[:, None], r)
        rz = rz_new
    return Solution(u, r, left, gained, steps, done)


def split_soft_phase(coefficients: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the coefficients (cells, 1, X, Y, Z) without the soft phase, and its fraction of the mean (cells,).

    Cells that are mostly one soft phase, void of 1e-9 for instance, need not be multiplied in full. With c_0 the
    coefficient of that phase and K_1 the stiffness of a homogeneous cell of coefficient 1,

        K = c_0 K_1 + (K - c_0 K_1),

    where the second part consists of the other voxels alone. The Fourier preconditioner is the inverse of c K_1, c the
    mean of the coefficients, so that K_1 z = r / c is known for z made of r, and by recursion for the direction
    p = z + beta p. The iterates are the same but for rounding, which is why c_0 / c must be small (`SOFT`).

    Returns:
        None where this is of no use: for voids, which cost nothing, for several basis matrices, or if no phase is
        both soft and common.
    """
    if coefficients.shape[1] > 1:
        return None
    flat = coefficients.flatten(1)
    least, mean = flat.amin(1), flat.mean(1)
    soft = flat == least[:, None]
    fraction = torch.where(mean > 0, least / mean, 0.0)
    fraction = torch.where((fraction <= SOFT) & (soft.double().mean(1) >= COMMON), fraction, 0.0)
    if not bool((fraction > 0).any()):
        return None
    rest = flat - torch.where(fraction > 0, least, 0.0)[:, None]
    return rest.view(coefficients.shape), fraction


class SubBatch:
    """Some cells of a batch: their stiffness in both precisions and their preconditioner.

    Args:
        operator: Stiffness of all cells.
        rows: The cells (r,).
        preconditioner: "fourier", "multigrid" or "none".
        precision: Of the pass.
        scale: Factor of the stiffness in the passes: moduli of 1e11 Pa times voxels of a micrometre would leave the
            range of single precision.
    """

    def __init__(
        self, operator: VoxelOperator, rows: Tensor, preconditioner: str, precision: torch.dtype, scale: float
    ) -> None:
        coefficients = operator.coefficients if len(rows) == operator.cells else operator.coefficients[rows]
        self.scale, self.precision = scale, precision
        self.exact = CompactCells(operator.basis, coefficients)
        self.rough = self.exact.scaled(scale).to(precision)
        self.preconditioner: FourierPreconditioner | Multigrid | None = None
        #: Fraction of the soft phase, whose product is known, in the mean stiffness (cells,); None if there is none.
        self.soft: Tensor | None = None
        if preconditioner != "none":
            make = Multigrid if preconditioner == "multigrid" else FourierPreconditioner
            self.preconditioner = make(VoxelOperator(operator.basis * scale, coefficients), precision)
        contrast = float(coefficients.amax() / torch.where(coefficients > 0, coefficients, torch.inf).amin())
        #: Whether rounding may make the preconditioner indefinite; then its estimate is checked with the forces.
        self.doubtful = preconditioner == "multigrid" and contrast * torch.finfo(precision).eps > DOUBTFUL
        parts = split_soft_phase(coefficients) if preconditioner == "fourier" else None
        if parts is not None:
            self.rest = CompactCells(operator.basis * scale, parts[0]).to(precision)
            self.soft = parts[1].to(precision)

    def precondition(self, r: Tensor) -> Tensor:
        """Return displacements that approximately balance forces (r, loads, 3, X, Y, Z)."""
        if self.preconditioner is None:
            return r * self.scale
        return self.preconditioner.apply(r * self.scale)

    def precondition_nodes(self, r: Tensor) -> Tensor:
        """Do the same for scaled nodal forces (loads, 3, r, nodes)."""
        if self.preconditioner is None:
            return r.clone()
        f = self.rough.spread(r)
        if isinstance(self.preconditioner, FourierPreconditioner):
            return self.rough.gather(self.preconditioner.solve(f))
        u = self.preconditioner.apply(f.permute(2, 0, 1, 3, 4, 5).contiguous())
        return self.rough.gather(u.permute(1, 2, 0, 3, 4, 5))

    def goal(self, tolerance: float, upper: Tensor, least: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the energy that may be left (loads, cells) as a function of what the pass has gained; scaled."""
        size, smallest = (upper * self.scale).to(self.precision), (least * self.scale).to(self.precision)
        spoiled = SINGLE if self.precision == torch.float32 else 0.0

        def goal(gained: Tensor) -> Tensor:
            return torch.maximum(tolerance * torch.maximum(size - gained, smallest), spoiled * gained)

        return goal

    def correct(self, residual: Tensor, goal: Callable[[Tensor], Tensor], limit: Tensor) -> tuple[Tensor, Solution]:
        """Return the correction of a pass (loads, 3, r, nodes) in double precision, and its solution; energies scaled.

        Args:
            residual: Forces out of balance (loads, 3, r, nodes).
            goal: Energies that may be left, by what was gained.
            limit: Largest number of steps (loads, r).
        """
        scaled = (residual * self.scale).to(self.precision)
        if self.soft is None:
            least = SHORTEST if isinstance(self.preconditioner, Multigrid) else 0.0
            multiply = self.rough.multiplier()
            found = conjugate_gradients(multiply, self.precondition_nodes, scaled, goal, limit, shortest=least)
            return found.u.to(residual), found
        assert isinstance(self.preconditioner, FourierPreconditioner)
        rest, solve, multiply = self.rest, self.preconditioner.solve, self.rest.multiplier()
        shape = self.rough.shape
        found = conjugate_gradients(  # on all nodes of the grid
            lambda p: rest.spread(multiply(rest.gather(p.unflatten(-1, shape)))).flatten(3),
            lambda r: solve(r.unflatten(-1, shape)).flatten(3),
            self.rough.spread(scaled).flatten(3),
            goal,
            limit,
            self.soft,
        )
        return self.exact.gather(found.u.unflatten(-1, shape).to(residual)), found

    def advance(
        self, u: Tensor, f: Tensor, r: Tensor, goal: Callable[[Tensor], Tensor], limit: Tensor, harm: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the state after a pass, measured in double precision: `u`, `r`, gain, energy left, steps taken.

        Args:
            u: Displacements before the pass (loads, 3, r, nodes).
            f: Load, of the same shape.
            r: Forces out of balance before the pass, of the same shape.
            goal, limit: See `correct`.
            harm: A pass that raises the energy by more than this is discarded (loads, r).
        """
        step, found = self.correct(r, goal, limit)
        after = u + step
        rest = -(self.exact.multiplier()(after) + f)
        gained, missed = measure(step, r, rest)
        left = torch.maximum(found.left.to(gained) / self.scale, missed)
        if self.doubtful and bool((left <= harm).any()):
            forces = (rest * self.scale).to(self.precision)
            energy = dot(forces, self.precondition_nodes(forces)).to(left) / self.scale
            left = torch.maximum(left, torch.where(energy >= -FLOOR * harm, energy, torch.inf))
        worse = ~(gained >= -harm)
        if bool(worse.any()):
            after, rest = (torch.where(wide(worse), old, new) for old, new in ((u, after), (r, rest)))
            gained, left = torch.where(worse, 0.0, gained), torch.where(worse, torch.inf, left)
        return after, rest, gained, left, found.iterations


def on_threads(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """Return what `work` makes of each item, on some threads; gradients are not recorded.

    The operations of a load are too small to be divided among threads, so each thread takes whole items, and BLAS works
    with one thread meanwhile.
    """

    def alone(item: Item) -> Result:
        with torch.no_grad():
            return work(item)

    threads = min(threads, len(items))
    if threads < 2:
        with single():
            return [alone(item) for item in items]
    with single(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(alone, items))


@dataclass(frozen=True)
class Refined:
    """Fluctuations of all cells at the end of the refinement.

    Attributes:
        u: Fluctuations (cells, loads, 3, X, Y, Z).
        residual: Their forces out of balance, of the same shape.
        left: Estimated errors of the energies (cells, loads).
        iterations: Steps of each cell, those of the load that took most (cells,).
        converged: Whether all loads of a cell reached the goal (cells,).
    """

    u: Tensor
    residual: Tensor
    left: Tensor
    iterations: Tensor
    converged: Tensor


class MixedPrecisionPCG:
    """Mixed-precision PCG with iterative refinement for a batch of cells.

    Args:
        operator: Stiffness of the cells.
        load: Forces of the unit strains (cells, loads, 3, X, Y, Z).
        preconditioner: One of `PRECONDITIONERS`.
        precision: Of the passes.
    """

    def __init__(self, operator: VoxelOperator, load: Tensor, preconditioner: str, precision: torch.dtype) -> None:
        self.operator, self.load = operator, load
        self.preconditioner, self.precision = preconditioner, precision
        self.scale = 1 / float((operator.coefficients.abs().amax() * operator.basis.abs().amax()).clamp(min=1e-300))
        self._parts: dict[tuple[str, torch.dtype, tuple[int, ...]], SubBatch] = {}
        self._lock = Lock()

    def part(self, name: str, rows: Tensor, precision: torch.dtype | None = None) -> SubBatch:
        """Return some cells with a preconditioner; the last ones used are kept."""
        precision = self.precision if precision is None else precision
        key = name, precision, tuple(rows.tolist())
        with self._lock:
            if key not in self._parts:
                if len(self._parts) >= KEPT:
                    self._parts.pop(next(iter(self._parts)))
                self._parts[key] = SubBatch(self.operator, rows, name, precision, self.scale)
            return self._parts[key]

    def run(self, u: Tensor | None, tolerance: float, size: Tensor, floor: Tensor, iterations: int) -> Refined:
        """Lower the energies until the error of each is below the tolerance.

        Args:
            u: Fluctuations to begin with (cells, loads, 3, X, Y, Z); zero when None.
            tolerance: Error of the energies relative to themselves.
            size: Energies of u = 0 (cells, loads).
            floor: Energies below this count as this (cells, loads).
            iterations: Largest number of steps.
        """
        shape, device = self.load.shape, self.load.device
        cpu, voxels = device.type == "cpu", math.prod(shape[3:])
        pieces = torch.arange(shape[0], device=device).split(max(1, TOGETHER["cpu" if cpu else "cuda"] // voxels))
        threaded = cpu and shape[0] * voxels >= THREADS
        groups = 1
        if cpu and voxels >= ALONE:
            groups = shape[1]
        elif threaded and len(pieces) < torch.get_num_threads():
            groups = min(shape[1], torch.get_num_threads())
        ends = [shape[1] * k // groups for k in range(groups + 1)]
        out = Refined(
            torch.empty_like(self.load) if u is None else u.to(self.load, copy=True),
            torch.empty_like(self.load),
            torch.empty_like(size),
            torch.empty(shape[:2], dtype=torch.long, device=device),
            torch.empty(shape[:2], dtype=torch.bool, device=device),
        )

        def work(item: tuple[Tensor, slice]) -> None:
            self._run(*item, u is not None, out, tolerance, size, floor, iterations)

        items = [(cells, slice(a, b)) for cells in pieces for a, b in zip(ends, ends[1:])]
        on_threads(work, items, torch.get_num_threads() if threaded else 1)
        return Refined(out.u, out.residual, out.left, out.iterations.amax(1), out.converged.all(1))

    def _run(
        self,
        cells: Tensor,
        loads: slice,
        begun: bool,
        out: Refined,
        tolerance: float,
        size: Tensor,
        floor: Tensor,
        iterations: int,
    ) -> None:
        """Solve some cells and loads of the batch and write the result to `out`; see `run`."""
        names = ("fourier", "multigrid") if self.preconditioner == "auto" else (self.preconditioner,)
        upper, least = size[cells, loads].mT.clone(), floor[cells, loads].mT
        steps = torch.zeros(upper.shape, dtype=torch.long, device=upper.device)
        left = upper.clone()
        converged = torch.zeros_like(steps, dtype=torch.bool)
        precision = self.precision
        if begun:
            first = self.part(names[0], cells)
            u, f = (first.exact.gather(some(field, cells, loads)) for field in (out.u, self.load))
            r = -(first.exact.multiplier()(u) + f)
            upper += dot(f - r, u)
            put(out.residual, cells, loads, first.exact.spread(r))
        for _ in range(PASSES):
            for name in names:
                open_ = ~converged & (steps < iterations)
                late = (steps >= PATIENCE).any(0)
                mine = open_.any(0) & (~late if name == "fourier" else late) if len(names) > 1 else open_.any(0)
                rows = torch.nonzero(mine).flatten()
                if not len(rows):
                    continue
                most = min(iterations, PATIENCE) if len(names) > 1 and name == "fourier" else iterations
                limit = torch.where(open_, most - steps, 0)[:, rows]
                part = self.part(name, cells[rows], precision)
                f = part.exact.gather(some(self.load, cells[rows], loads))
                r = part.exact.gather(some(out.residual, cells[rows], loads)) if begun else -f
                goal = part.goal(tolerance, upper[:, rows], least[:, rows])
                u = part.exact.gather(some(out.u, cells[rows], loads)) if begun else torch.zeros_like(f)
                harm = tolerance * torch.maximum(upper, least)[:, rows]
                u, r, gained, estimate, taken = part.advance(u, f, r, goal, limit, harm)
                put(out.u, cells[rows], loads, part.exact.spread(u))
                put(out.residual, cells[rows], loads, part.exact.spread(r))
                begun = True  # the first turn takes all
                tried, before = limit > 0, left[:, rows]
                steps[:, rows] += taken
                left[:, rows] = torch.where(tried, estimate, before)
                upper[:, rows] -= gained
                met = left[:, rows] <= tolerance * torch.maximum(upper, least)[:, rows]
                converged[:, rows] = torch.where(tried, met, converged[:, rows])
                if bool((tried & ~met & (taken < limit) & ~(left[:, rows] < 0.1 * before)).any()):
                    precision = torch.float64  # the pass failed by rounding: multigrid of hinges in soft voids
            if not bool((~converged & (steps < iterations)).any()):
                break
        for whole, part_ in ((out.left, left), (out.iterations, steps), (out.converged, converged)):
            whole[cells, loads] = part_.mT


def some(field: Tensor, cells: Tensor, loads: slice) -> Tensor:
    """Return a part of a field (cells, loads, 3, X, Y, Z), laid out (loads, 3, cells, X, Y, Z)."""
    return torch.stack([field[cell, loads] for cell in cells.tolist()], 2)


def put(field: Tensor, cells: Tensor, loads: slice, values: Tensor) -> None:
    """Write what `some` returned."""
    for k, cell in enumerate(cells.tolist()):
        field[cell, loads] = values[:, :, k]
