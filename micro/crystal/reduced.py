"""Reduced polycrystals: a few grains with positive weights that respond like all grains of a texture.

In a Taylor average every grain follows the deformation of the point, whatever the others do. The mean stress is
therefore linear in the weights of the grains, with the stress histories a_i(t) of the single grains as columns, and a
few of them can stand for all: empirical cubature. Of g grains with mean b(t), the chosen ones minimise

    E^2 = sum_paths int |sum_i w_i a_i - b|^2 dt / int |b|^2 dt,    w_i >= 0,    sum w_i = 1,

a quadratic form E^2 = w . G w in the matrix G of the deviations a_i - b, because the weights sum to one. Only
deviators enter; the pressure does not depend on the grains. Nothing is learned besides the weights, so the reduced
polycrystal holds, relaxes and unloads like the polycrystal, and its virgin response, the same for every orientation,
is exact.

References:
    Hernandez, Caicedo and Ferrer (2017), doi:10.1016/j.cma.2016.10.022 (empirical cubature with positive weights);
    Lawson and Hanson (1974), Solving Least Squares Problems, chapter 23 (non-negative least squares).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from tqdm import tqdm

from micro.crystal.compiled import CompiledPolycrystal
from micro.tensors import PATH_ORDER, mandel_factors, to_components

#: Bytes of the states of the grains that are kept while paths are solved together.
BLOCK_BYTES = 2**27
#: Candidates that are tried for a place, the best by their gradient.
TRIED = 8
#: Rounds of exchange of single grains; it usually ends after two or three.
ROUNDS = 8
#: Added to the diagonal of the quadratic form, relative to its mean: grains that are alike leave it singular.
RIDGE = 1e-12


@dataclass(frozen=True)
class Histories:
    """Histories of deformation that begin at the virgin state; C is linear in time between the instants.

    Attributes:
        C: Right Cauchy-Green tensors (s, T, 3, 3), the identity at the first instant.
        time: Times (s, T), s, increasing along each path.

    Raises:
        ValueError: The shapes do not fit, there is no path, or time does not increase.
    """

    C: np.ndarray
    time: np.ndarray

    def __post_init__(self) -> None:
        if self.C.ndim != 4 or self.C.shape[2:] != (3, 3) or self.time.shape != self.C.shape[:2]:
            raise ValueError(f"C must have shape (s, T, 3, 3) and time (s, T), got {self.C.shape}, {self.time.shape}.")
        if len(self.C) < 1 or self.C.shape[1] < 2 or not (np.diff(self.time, axis=1) > 0).all():
            raise ValueError("There must be a path of two instants at least, and time must increase along every path.")

    def __len__(self) -> int:
        return len(self.C)

    def part(self, rows: slice) -> "Histories":
        """Return some of the paths."""
        return Histories(self.C[rows], self.time[rows])


@dataclass(frozen=True)
class Deviations:
    """How far the stress of every single grain is from that of the polycrystal along some paths.

    Attributes:
        values: Deviatoric Cauchy stress of a grain less that of the polycrystal, times the square root of the
            interval of time, over the norm of the latter over the path (s, g, 6 T): the squared norm of a row is the
            squared relative error of a polycrystal of this grain alone.
    """

    values: np.ndarray

    def matrix(self) -> np.ndarray:
        """Return G (g, g), the mean over the paths of the products of rows: E^2 = w . G w."""
        total = np.zeros((self.values.shape[1],) * 2)
        for rows in self.values:
            total += rows @ rows.T
        return total / len(self.values)

    def errors(self, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the relative errors in L2 along each path (s,) of the grains `chosen` with their `weights`."""
        return np.array([np.linalg.norm(weights @ rows[chosen]) for rows in self.values])

    def join(self, other: "Deviations") -> "Deviations":
        """Return the deviations of both sets of paths, which must have as many instants."""
        return Deviations(np.concatenate([self.values, other.values]))


def deviations(
    grains: CompiledPolycrystal, paths: Histories, *, instants: int = 100, progress: bool = False
) -> Deviations:
    """Solve a polycrystal along paths and compare its grains with their mean.

    Args:
        grains: All grains.
        paths: The paths.
        instants: Instants of each path that count, at most; they are spread evenly over those of the path.
        progress: Whether to show a bar.

    Raises:
        ValueError: A path cannot be solved, or has no deviatoric stress.
    """
    last, g = paths.C.shape[1] - 1, len(grains.weights)
    counted = np.unique(np.round(np.linspace(0, last, min(instants, last) + 1)).astype(int))[1:]
    values = np.empty((len(paths), g, 6 * len(counted)))
    block = max(1, BLOCK_BYTES // (8 * last * g * grains.grain_size))
    for first in tqdm(range(0, len(paths), block), unit="block", disable=not progress, leave=False, mininterval=1.0):
        part = paths.part(slice(first, first + block))
        solved = grains.solve(to_components(part.C), part.time, history=True)
        if not solved.ok.all():
            lost = int(np.argmin(solved.ok))
            raise ValueError(f"Path {first + lost} cannot be solved at instant {solved.failed_at[lost]}.")
        assert solved.history is not None
        B = grains.unpack_grains(solved.history[:, counted - 1])["B"]
        stress = _deviators(grains.orientations, part.C[:, counted], B)  # (s, T, g, 6)
        stress *= np.sqrt(np.diff(part.time[:, [0, *counted]], axis=1))[:, :, None, None]
        mean = np.einsum("g,stgk->stk", grains.weights, stress)
        size = np.linalg.norm(mean.reshape(len(part), -1), axis=1)
        if not (size > 0).all():
            raise ValueError(f"Path {first + int(np.argmin(size))} has no deviatoric stress.")
        stress = (stress - mean[:, :, None]) / size[:, None, None, None]
        values[first : first + block] = np.moveaxis(stress, 2, 1).reshape(len(part), g, -1)
    return Deviations(values)


def _deviators(Q: np.ndarray, C: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Deviatoric Cauchy stress of each grain over the shear modulus (s, T, g, 6), Mandel vectors, eqs. (A.3), (A.8).

    It is turned by the rotation of F, which changes no norm: with F^T F = C, s = J^(-5/3) dev(A A^T), A = F Q B.
    """
    F = np.swapaxes(np.linalg.cholesky(C), -1, -2)
    A = np.einsum("stij,gjk->stgik", F, Q, optimize=True) @ B
    s = A @ np.swapaxes(A, -1, -2)
    pressure = np.trace(s, axis1=-2, axis2=-1)[..., None, None] / 3 * np.eye(3)
    s = (s - pressure) * np.linalg.det(F)[:, :, None, None, None] ** (-5 / 3)
    return to_components(s) * np.array(mandel_factors(PATH_ORDER))


def choose(matrix: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose grains and their weights: greedily one after another, then by exchange of single grains.

    Args:
        matrix: G (g, g) of `GrainStresses.matrix`.
        keep: Number of grains, at most g.

    Returns:
        Indices (k,), increasing, and weights (k,), positive, with sum one; k <= keep, less only where further grains
        would have the weight zero.

    Raises:
        ValueError: If `keep` is not between 1 and g.
    """
    g = len(matrix)
    if not 1 <= keep <= g:
        raise ValueError(f"keep must lie between 1 and the {g} grains, got {keep}.")
    G = matrix + RIDGE * np.trace(matrix) / g * np.eye(g)
    chosen, weights = np.array([int(np.argmin(np.diag(G)))]), np.ones(1)
    while len(chosen) < keep:
        grown = _best_addition(G, chosen, weights)
        if grown is None:
            break
        chosen, weights = grown
    for _ in range(ROUNDS):
        before = _square(G, chosen, weights)
        for out in chosen.copy():
            rest = chosen[chosen != out]
            if len(rest) == 0 or len(rest) == len(chosen):
                continue
            kept, reweighted = _weights(G, rest)
            grown = _best_addition(G, kept, reweighted)
            if grown is not None and _square(G, *grown) < _square(G, chosen, weights):
                chosen, weights = grown
        if _square(G, chosen, weights) > (1 - 1e-6) * before:
            break
    order = np.argsort(chosen)
    return chosen[order], weights[order]


def smallest(matrix: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Choose the fewest grains, by bisection, whose root mean square error over the paths of `matrix` is `error`.

    Raises:
        ValueError: If `error` is not positive.
    """
    if not error > 0:
        raise ValueError(f"error must be positive, got {error}.")
    low, high = 0, len(matrix)
    found = (np.arange(high), np.full(high, 1.0 / high))
    while high - low > 1:
        middle = (low + high) // 2
        tried = choose(matrix, middle)
        if _square(matrix, *tried) <= error**2:
            high, found = middle, tried
        else:
            low = middle
    return found


def _square(G: np.ndarray, chosen: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ G[np.ix_(chosen, chosen)] @ weights)


def _weights(G: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grains of `chosen` with a positive weight, and the weights that minimise w . G w with sum one.

    The minimum on the simplex is that of |R u - R^-T 1|^2, u >= 0, with G = R^T R, scaled to sum one: the conditions of
    both are G u >= 1, with equality where u > 0, but for the factor.
    """
    R = np.linalg.cholesky(G[np.ix_(chosen, chosen)]).T
    u = nnls(R, np.linalg.solve(R.T, np.ones(len(chosen))))[0]
    positive = u > 1e-9 * u.sum()
    return chosen[positive], u[positive] / u[positive].sum()


def _best_addition(G: np.ndarray, chosen: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The best set with one grain more, of the candidates with the steepest descent; None if none helps."""
    slope = G[:, chosen] @ weights
    slope = slope - float(weights @ slope[chosen])
    slope[chosen] = np.inf
    best, least = None, _square(G, chosen, weights)
    for candidate in np.argsort(slope)[:TRIED]:
        if slope[candidate] >= 0:
            break
        tried = _weights(G, np.append(chosen, candidate))
        square = _square(G, *tried)
        if square < least:
            best, least = tried, square
    return best
