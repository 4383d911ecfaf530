"""The crystal law in compiled form: a Taylor polycrystal whose grains are advanced by a C library, NumPy in and out.

The mathematics stands in `micro/crystal/kernel`: `rates.h` has the rates of the law, `stage.h` Newton's iteration,
`step.h` the steps of TR-BDF2 (Hosea and Shampine 1996), `crystal.c` the queue. Several grains are advanced at a time,
one in each lane of a vector (eight lanes with AVX-512); each has its own step, and a lane whose grain has reached the
end takes the next one of the queue. The result of a grain does not depend on the grains in the other lanes.
`micro.crystal.constants` holds all constants.

Only the right Cauchy-Green tensor C = F^T F enters, linear in time between two given instants. A grain gives
H = B B^T with B = F_in^-1, and the mean of H over the grains gives the second Piola-Kirchhoff stress,

    S = G J^(-2/3) (H - (C : H) / 3 C^-1) + 2 lambda_e (J - 1) J C^-1,    J = sqrt(det C).           Eqs. (A.3), (A.8)

A state is a row of numbers: C at the last instant (6), then, for each grain, B (9), the accumulated slip, the twin
fractions, the Mandel stress (5), Pa, and the suggested time step, s (1). Symmetric tensors have the order
11, 22, 33, 12, 23, 13.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668; Hosea and Shampine (1996),
    doi:10.1016/0168-9274(95)00115-8.
"""

import ctypes
import logging
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from micro.build import BuildError, build
from micro.crystal import constants
from micro.crystal.systems import CrystalSystems
from micro.tensors import PATH_ORDER, from_components, to_components

logger = logging.getLogger(__name__)

#: The C file of the law.
MAIN = Path(__file__).parent / "kernel" / "crystal.c"
#: Bytes of intermediate results that one call of the library may need; larger batches are cut into blocks.
BLOCK_BYTES = 2**26


class _Job(ctypes.Structure):
    """`Job` of crystal.c."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("points", "instants", "grains", "stride")),
        *((name, ctypes.c_void_p) for name in ("C", "duration", "turn", "weight", "state", "state_new", "H", "mean")),
        *((name, ctypes.c_void_p) for name in ("history", "failed_at", "status", "solves")),
        ("counts", ctypes.c_long * 4),
    )


class Counts(NamedTuple):
    """What a call has cost.

    Attributes:
        steps, rejected: Time steps of all grains of all points, and how many of them were repeated.
        iterations: Newton iterations of all grains of all points.
        places: Lanes that could have taken one, so that iterations / places is the share of busy lanes.
    """

    steps: int
    rejected: int
    iterations: int
    places: int


class Update(NamedTuple):
    """Result of one step of n points.

    Attributes:
        S: Second Piola-Kirchhoff stress (n, 6), Pa; not a number where the point was not solved.
        state: New state (n, k); the old one where the point was not solved.
        ok: Whether the point was solved (n,), bool.
        status: Why not (n,), an index of `constants.REASONS`.
        solves: Implicit stages of all grains of the point (n,), those of rejected steps included.
        counts: What the call has cost.
    """

    S: np.ndarray
    state: np.ndarray
    ok: np.ndarray
    status: np.ndarray
    solves: np.ndarray
    counts: Counts


class Solution(NamedTuple):
    """Result along s paths of T instants.

    Attributes:
        S: Second Piola-Kirchhoff stress (s, T, 6), Pa; not a number from the instant on at which a path failed.
        state: State at the end (s, k); that of the start where the path failed.
        ok: Whether the path was solved to its end (s,), bool.
        failed_at: The first instant that was not reached (s,), or T.
        status: Why not (s,), an index of `constants.REASONS`.
        solves: Implicit stages of all grains of the path (s,).
        counts: What the call has cost.
        history: Where it was asked for, the states of the grains (s, T - 1, g, k_g) after the first instant.
    """

    S: np.ndarray
    state: np.ndarray
    ok: np.ndarray
    failed_at: np.ndarray
    status: np.ndarray
    solves: np.ndarray
    counts: Counts
    history: np.ndarray | None


@cache
def available() -> bool:
    """Return whether the law can be compiled here; a line of the log says why not."""
    try:
        build(MAIN, _defines(12, 6, True, True))
    except BuildError as error:
        logger.warning("The crystal law is not compiled, and much slower: %s.", error)
        return False
    return True


def _defines(n_slip: int, n_twin: int, slip_square: bool, twin_square: bool) -> tuple[str, ...]:
    squares = (("SLIP_SQUARE", slip_square), ("TWIN_SQUARE", twin_square))
    return (f"N_SLIP={n_slip}", f"N_TWIN={n_twin}", *(name for name, there in squares if there))


def _eight(tensors: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return eight components of trace-free tensors (..., 9): five symmetric, half of 12 - 21, 23 - 32, 13 - 31."""
    skew = [(tensors[..., i] - tensors[..., j]) / 2 for i, j in ((1, 3), (5, 7), (2, 6))]
    return np.concatenate([tensors @ basis, np.stack(skew, -1)], -1)


def law_table(systems: CrystalSystems) -> np.ndarray:
    """Return the numbers of the structure `Law` of rates.h."""
    array = lambda name: np.asarray(getattr(systems, name), dtype=float)
    numbers = ("slip_exponent", "twin_exponent", "twin_tau_0", "twin_rate_0", "twin_h", "twin_k")
    basis = array("basis")
    parts = [_eight(array("slip"), basis), _eight(array("twin"), basis)]
    parts += [array(name) for name in ("tau_0", "rate_0", "h", "sigma_inf", "r_0", "v")]
    parts += [np.array([float(getattr(systems, name)) for name in numbers] + [float(systems.parameters.G)])]
    i, j = np.triu_indices(5)
    parts += [part[:, i] * part[:, j] for part in (parts[0][:, 0], parts[1])]
    parts += [1 / array("tau_0"), -array("h") / array("sigma_inf")]
    parts += [array("rate_0") ** (-1 / systems.slip_exponent)]
    parts += [np.array([systems.twin_rate_0 ** (-1 / systems.twin_exponent) if systems.twin_rate_0 > 0 else 0.0])]
    return np.concatenate([part.ravel() for part in parts])


def control_table(tolerance: float, substeps: int, domains: bool) -> np.ndarray:
    """Return the numbers of the structure `Control` of rates.h."""
    c = constants
    iterations = c.FIXED_STEP_ITERATIONS if substeps > 0 else c.NEWTON_ITERATIONS
    return np.array(
        [c.GAMMA, c.DIAGONAL, c.WEIGHT, *c.ERROR_WEIGHTS]
        + [tolerance, c.TWIN_TOLERANCE, c.NEWTON_TOLERANCE, c.NEWTON_TWIN_TOLERANCE, c.FLOW_TOLERANCE]
        + [c.STRESS_REFERENCE, c.TWIN_REFERENCE]
        + [iterations, c.FREE_SLIP, c.FAR, c.TWIN_DETERMINANT, c.TWIN_PIVOT, c.SLIPPING_FRACTION]
        + [c.CUT, c.SAFETY, c.SHRINK, c.GROW, c.SMALLEST_STEP, c.MOST_STEPS, substeps, domains]
    )


def stress(C: np.ndarray, H: np.ndarray, G: float, lambda_e: float) -> np.ndarray:
    """Return the second Piola-Kirchhoff stress (..., 6), Pa, of C and of the mean of B B^T, both (..., 6)."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a, b, c, d, e, f = np.moveaxis(C, -1, 0)
        rows = [b * c - e * e, a * c - f * f, a * b - d * d, e * f - c * d, d * f - a * e, d * e - b * f]
        cofactor = np.stack(rows, -1)
        det = (a * rows[0] + d * rows[3] + f * rows[5])[..., None]
        J, inverse = np.sqrt(det), cofactor / det
        trace = (C * H * np.array([1, 1, 1, 2, 2, 2])).sum(-1, keepdims=True)
        return G * det ** (-1 / 3) * (H - trace / 3 * inverse) + 2 * lambda_e * (J - 1) * J * inverse


@dataclass(frozen=True)
class CompiledPolycrystal:
    """Grains that share one deformation, advanced by the compiled law.

    Attributes:
        systems: Constants of the crystal.
        orientations: Rotations (g, 3, 3) from the frames of the crystals to that of the sample.
        weights: Weights (g,) of the grains, summing to one.
        tolerance: Bound on the error of a time step relative to the Mandel stress; None where `substeps` is given.
        substeps: If positive, so many equal steps between two instants, without control of the error.
        slip: "domains" or "parent", see `micro.crystal.flow_rules`.

    Raises:
        ValueError: An argument has the wrong shape or is out of its range.
    """

    systems: CrystalSystems
    orientations: np.ndarray
    weights: np.ndarray
    tolerance: float | None = constants.TOLERANCE
    substeps: int = 0
    slip: str = "domains"
    _turn: np.ndarray = field(init=False, repr=False, compare=False)
    _law: np.ndarray = field(init=False, repr=False, compare=False)
    _control: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        g = len(self.orientations)
        if self.orientations.shape != (g, 3, 3) or g == 0 or self.weights.shape != (g,):
            raise ValueError(
                f"orientations must have shape (g, 3, 3) and weights (g,), got {self.orientations.shape}, "
                f"{self.weights.shape}."
            )
        if (self.tolerance is None) == (self.substeps < 1) or (self.tolerance is not None and self.tolerance <= 0):
            raise ValueError(
                f"tolerance must be positive or substeps at least 1, not both, got {self.tolerance}, {self.substeps}."
            )
        if self.slip not in ("domains", "parent"):
            raise ValueError(f"slip must be 'domains' or 'parent' in the compiled law, got {self.slip!r}.")
        units = from_components(np.eye(6))  # (6, 3, 3)
        turned = np.einsum("gia,lij,gjb->glab", self.orientations, units, self.orientations)
        turn = np.ascontiguousarray(np.swapaxes(to_components(turned), 1, 2))  # (g, 6, 6)
        tolerance = constants.FIXED_STEP_TOLERANCE if self.tolerance is None else self.tolerance
        control = control_table(tolerance, self.substeps, self.slip == "domains")
        for name, value in (("_turn", turn), ("_law", law_table(self.systems)), ("_control", control)):
            object.__setattr__(self, name, value)

    @property
    def grain_size(self) -> int:
        """Numbers in the state of one grain."""
        return 9 + self.systems.n_slip + self.systems.n_twin + 5 + 1

    @property
    def state_size(self) -> int:
        """Numbers in the state of one point."""
        return 6 + len(self.weights) * self.grain_size

    def initial_state(self, n: int) -> np.ndarray:
        """Return the state (n, k) of virgin points."""
        state = np.zeros((n, self.state_size))
        state[:, :3] = 1.0
        state[:, 6:].reshape(n, -1, self.grain_size)[..., [0, 4, 8]] = 1.0
        return state

    def unpack(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Return B (n, g, 3, 3), e (n, g, n_slip), lam (n, g, n_twin), m (n, g, 5), Pa, and h (n, g), s, of a state."""
        return self.unpack_grains(state[:, 6:].reshape(len(state), len(self.weights), self.grain_size))

    def unpack_grains(self, grains: np.ndarray) -> dict[str, np.ndarray]:
        """As `unpack`, of the states (..., g, k_g) of grains."""
        ends = np.cumsum([9, self.systems.n_slip, self.systems.n_twin, 5])
        B, e, lam, m, h = np.split(grains, ends, axis=-1)
        return {"B": B.reshape(*B.shape[:-1], 3, 3), "e": e, "lam": lam, "m": m, "h": h[..., 0]}

    def stress(self, state: np.ndarray) -> np.ndarray:
        """Return the second Piola-Kirchhoff stress (n, 6), Pa, of a state (n, k)."""
        A = self.orientations @ self.unpack(state)["B"]
        H = (self.weights[:, None, None] * (A @ np.swapaxes(A, -1, -2))).sum(1)
        return stress(state[:, :6], to_components(H), self.systems.parameters.G, self.systems.parameters.lambda_e)

    def update(self, C: np.ndarray, state: np.ndarray, dt: np.ndarray | float) -> Update:
        """Advance n points by one step.

        Args:
            C: Right Cauchy-Green tensor at the end of the step, (n, 6), or the deformation gradient there, (n, 3, 3).
            state: State at the start (n, k).
            dt: Duration of the step (n,) or one for all, s; zero gives the elastic answer.

        Raises:
            ValueError: The shapes do not fit, or a duration is negative.
        """
        C, n = np.asarray(C, dtype=float), len(C)
        if C.shape == (n, 3, 3):
            C = to_components(np.swapaxes(C, 1, 2) @ C)
        if C.shape != (n, 6) or state.shape != (n, self.state_size):
            raise ValueError(
                f"C must have shape (n, 6) or F (n, 3, 3), and state (n, {self.state_size}), "
                f"got {C.shape}, {state.shape}."
            )
        path = np.stack([state[:, :6], C], 1)
        result = self._solve(path, np.broadcast_to(np.asarray(dt, dtype=float), (n,))[:, None], state, False, False)
        return Update(result.S[:, 1], result.state, result.ok, result.status, result.solves, result.counts)

    def advance(
        self, C: np.ndarray, rows: np.ndarray, dt: float | np.ndarray, new: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Advance n points by one step: the quick form of `update` for laws.

        Args:
            C: Right Cauchy-Green tensor at the end of the step, (n, 6).
            rows: States at the start (n, k or more), float64, row by row.
            dt: Duration of the step, one for all or (n,), s.
            new: Takes the states at the end, shaped as `rows`, which takes them where it is left out. Columns beyond k
                are left as they are; those of points that were not solved are then of no use.

        Returns:
            Second Piola-Kirchhoff stress (n, 6), Pa, not a number where the point was not solved, and the status (n,),
            an index of `constants.REASONS`.

        Raises:
            ValueError: The shapes do not fit, or the duration is negative.
        """
        n, g = len(C), len(self.weights)
        if C.shape != (n, 6) or len(rows) != n or rows.shape[1] < self.state_size or not rows.flags.c_contiguous:
            raise ValueError(f"C must have shape (n, 6) and rows (n, {self.state_size}), got {C.shape}, {rows.shape}.")
        new = rows if new is None else new
        if new.shape != rows.shape or not new.flags.c_contiguous:
            raise ValueError(f"new must have the shape of rows, {rows.shape}, row by row, got {new.shape}.")
        if not np.min(dt, initial=0.0) >= 0:
            raise ValueError(f"dt must not be negative, got {np.min(dt)}.")
        path, duration, mean = np.stack([rows[:, :6], C], 1), np.empty((n, 1)), np.empty((n, 1, 6))
        duration[:, 0] = dt
        flags = tuple(np.zeros(n, dtype=ctypes.c_long) for _ in range(3))
        block = max(1, BLOCK_BYTES // (g * 48))
        H = np.empty((min(block, n), 1, g, 6))
        for first in range(0, n, block):
            part = slice(first, min(first + block, n))
            a, b, c = (flag[part] for flag in flags)
            self._call(path[part], duration[part], rows[part], (new[part], H, mean[part], None), (a, b, c))
        new[:, :6] = C
        p, status = self.systems.parameters, flags[1]
        S = stress(C, mean[:, 0], p.G, p.lambda_e)
        S[status != constants.SOLVED] = np.nan
        return S, status

    def solve(
        self, C: np.ndarray, time: np.ndarray, state: np.ndarray | None = None, *, history: bool = False
    ) -> Solution:
        """Advance s points along whole paths.

        Args:
            C: Right Cauchy-Green tensor at the instants (s, T, 6).
            time: Instants (s, T), s, not decreasing.
            state: State at the first instant (s, k), whose C is that of the path; virgin by default.
            history: Whether the states of the grains at all instants are kept.

        Raises:
            ValueError: The shapes do not fit, time decreases, or a path does not start at the C of its state.
        """
        s = len(C)
        if C.ndim != 3 or C.shape[2] != 6 or C.shape[1] < 2 or time.shape != C.shape[:2]:
            raise ValueError(f"C must have shape (s, T, 6), T >= 2, and time (s, T), got {C.shape}, {time.shape}.")
        state = self.initial_state(s) if state is None else state
        if state.shape != (s, self.state_size):
            raise ValueError(f"state must have shape ({s}, {self.state_size}), got {state.shape}.")
        if not np.allclose(C[:, 0], state[:, :6], rtol=0, atol=1e-12):
            raise ValueError("C must start at that of the state, which is the identity where none is given.")
        return self._solve(np.ascontiguousarray(C, dtype=float), np.diff(time, axis=1), state, history, True)

    def _solve(
        self, C: np.ndarray, duration: np.ndarray, state: np.ndarray, history: bool, first_too: bool
    ) -> Solution:
        if (duration < 0).any():
            raise ValueError(f"dt must not be negative, got {duration.min()}.")
        s, T = C.shape[:2]
        g, k = len(self.weights), self.grain_size
        state, mean = np.ascontiguousarray(state, dtype=float), np.empty((s, T - 1, 6))
        new = np.empty_like(state)
        kept = np.full((s, T - 1, g, k), np.nan) if history else None
        failed_at, status, solves = (np.empty(s, dtype=ctypes.c_long) for _ in range(3))
        counts = np.zeros(4, dtype=int)
        block = max(1, BLOCK_BYTES // ((T - 1) * g * 48))
        H = np.empty((min(block, s), T - 1, g, 6))
        for first in range(0, s, block):
            rows = slice(first, min(first + block, s))
            outputs = (new[rows], H, mean[rows], None if kept is None else kept[rows])
            flags = (failed_at[rows], status[rows], solves[rows])
            counts += self._call(C[rows], duration[rows], state[rows], outputs, flags)
        ok = status == constants.SOLVED
        p = self.systems.parameters
        S = np.empty((s, T, 6))
        S[:, 1:] = stress(C[:, 1:], mean, p.G, p.lambda_e)
        S[:, 0] = self.stress(state) if first_too else np.nan
        failed_at += 1
        new[:, :6] = C[:, -1]
        if not ok.all():
            S[np.arange(T) >= failed_at[:, None]] = np.nan
            new[~ok] = state[~ok]
        return Solution(S, new, ok, failed_at, status, solves, Counts(*(int(n) for n in counts)), kept)

    def _call(
        self,
        C: np.ndarray,
        duration: np.ndarray,
        state: np.ndarray,
        outputs: tuple[Any, ...],
        flags: tuple[np.ndarray, ...],
    ) -> np.ndarray:
        """Call the library for one block; `outputs` are the new state, H, its mean and the history."""
        s = self.systems
        library = _library(s.n_slip, s.n_twin, s.slip_exponent == 2, s.twin_exponent == 2, self._law.size)
        new, H, mean, kept = outputs
        C, duration = np.ascontiguousarray(C), np.ascontiguousarray(duration)
        weight = np.ascontiguousarray(self.weights, dtype=float)
        skip = 6 * state.itemsize  # C comes first in a state
        job = _Job(
            *(len(C), C.shape[1], len(weight), state.shape[1]),
            *(_address(a) for a in (C, duration, self._turn, weight)),
            *(_address(state) + skip, _address(new) + skip, _address(H), _address(mean)),
            *(None if kept is None else _address(kept), *(_address(flag) for flag in flags)),
        )
        library.solve(_address(self._law), _address(self._control), ctypes.addressof(job))
        return np.array(job.counts[:], dtype=int)


def _address(array: np.ndarray) -> int:
    """Return where the numbers of an array begin."""
    address: int = array.__array_interface__["data"][0]
    return address


@cache
def _library(n_slip: int, n_twin: int, slip_square: bool, twin_square: bool, size: int) -> ctypes.CDLL:
    """Return the library for so many systems, whose table of the law has the size `size`."""
    library = build(MAIN, _defines(n_slip, n_twin, slip_square, twin_square))
    library.solve.argtypes, library.solve.restype = [ctypes.c_void_p] * 3, None
    sizes = (size, control_table(1.0, 0, True).size, ctypes.sizeof(_Job))
    found = (library.law_doubles(), library.control_doubles(), library.job_bytes())
    if sizes != found:
        raise RuntimeError(f"The tables of the compiled law must have the sizes {found}, got {sizes}.")
    return library


assert PATH_ORDER.pairs == ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)), "the order of components in kernel/"
