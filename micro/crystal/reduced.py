"""Reduced polycrystals: a few grains with positive weights that respond like all grains of a texture.

In a Taylor average every grain follows the deformation of the point, whatever the others do. The mean stress is therefore
linear in the weights of the grains, with the stress histories a_i(t) of the single grains as columns, and a few of them can
stand for all: empirical cubature. Of g grains with mean b(t), the chosen ones minimise

    E^2 = sum_paths int |sum_i w_i a_i - b|^2 dt / int |b|^2 dt,    w_i >= 0,    sum w_i = 1,

a quadratic form E^2 = w . G w in the matrix G of the deviations a_i - b, because the weights sum to one. Only deviators enter;
the pressure does not depend on the grains. Nothing is learned besides the weights, so the reduced polycrystal holds, relaxes
and unloads like the polycrystal, and its virgin response, the same for every orientation, is exact.

References:
    Hernandez, Caicedo and Ferrer (2017), doi:10.1016/j.cma.2016.10.022 (empirical cubature with positive weights);
    Lawson and Hanson (1974), Solving Least Squares Problems, chapter 23 (non-negative least squares).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls

from micro.crystal.seam import TaylorPolycrystal, Texture, CrystalParameters
from micro.tensors import deviator, from_components, inverse, mandel_vector, determinant, matmul

#: Candidates that are tried for a place, the best by their gradient.
TRIED = 12
#: Rounds of exchange of single grains; it usually ends after two or three.
ROUNDS = 8
#: Added to the diagonal of the quadratic form, relative to its mean: grains that are alike leave it singular.
RIDGE = 1e-12


@dataclass(frozen=True)
class Histories:
    """Histories of deformation, the virgin state at the first time.

    Attributes:
        F: Deformation gradients (s, T, 3, 3).
        time: Times (s, T), s, increasing along each path.
    """

    F: np.ndarray
    time: np.ndarray

    def __post_init__(self) -> None:
        if self.F.ndim != 4 or self.F.shape[2:] != (3, 3) or self.time.shape != self.F.shape[:2]:
            raise ValueError(f"F must have shape (s, T, 3, 3) and time (s, T), got {self.F.shape}, {self.time.shape}.")
        if self.F.shape[1] < 2 or not (np.diff(self.time, axis=1) > 0).all():
            raise ValueError("time must have at least two instants and increase along every path.")
        if not (np.isfinite(self.F).all() and (np.linalg.det(self.F) > 0).all()):
            raise ValueError("F must be finite and its determinant positive at every instant.")

    def __len__(self) -> int:
        return len(self.F)

    def __getitem__(self, rows: slice | np.ndarray) -> "Histories":
        return Histories(self.F[rows], self.time[rows])


@dataclass(frozen=True)
class GrainStresses:
    """Deviatoric stress of every grain along some paths.

    Attributes:
        deviation: Stress of a grain less that of the polycrystal (s, g, T * 6), scaled so that its square norm is the
            squared relative error of a polycrystal that consists of this grain alone.
    """

    deviation: np.ndarray

    def matrix(self) -> np.ndarray:
        """Return G (g, g), the mean over the paths: E^2 = w . G w."""
        total = np.zeros((self.deviation.shape[1],) * 2)
        for rows in self.deviation:
            total += rows @ rows.T
        return total / len(self.deviation)

    def errors(self, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the relative error in L2 along each path (s,), of the grains `chosen` with `weights`."""
        return np.linalg.norm(np.tensordot(weights, self.deviation[:, chosen], axes=(0, 1)), axis=1)


def grain_stresses(
    texture: Texture, parameters: CrystalParameters, paths: Histories, *, keep_every: int = 1, block: int = 16
) -> Iterator[np.ndarray]:
    """Solve the polycrystal along paths and yield the scaled deviations of blocks of paths, (s, g, T * 6).

    Args:
        texture: Orientations and weights of all grains.
        parameters: Material of the crystal.
        paths: The paths.
        keep_every: Instants from one that counts to the next.
        block: Paths solved together.

    Raises:
        RuntimeError: If a path cannot be solved.
    """
    polycrystal = TaylorPolycrystal(texture, parameters=parameters)
    Q, weights = texture.orientations, np.asarray(texture.weights)
    for first in range(0, len(paths), block):
        part = paths[first : first + block]
        F, state = torch.from_numpy(part.F), polycrystal.initial_state(len(part))
        stress, measure = [], []
        for k in range(1, part.F.shape[1]):
            step = torch.from_numpy(part.time[:, k] - part.time[:, k - 1])
            _, state, ok = polycrystal.update(F[:, k], state, step)
            if not bool(ok.all()):
                lost = first + int(torch.nonzero(~ok)[0])
                raise RuntimeError(f"Path {lost} cannot be solved at instant {k}.")
            if k % keep_every == 0 or k == part.F.shape[1] - 1:
                stress.append(_deviators(F[:, k], polycrystal.unpack(state)[0], Q))
                measure.append(part.time[:, k])
        # Integrals over time by the rectangle rule on the instants kept.
        width = np.diff(np.stack(measure, axis=1), axis=1, prepend=part.time[:, :1])
        a = np.stack(stress, axis=2) * np.sqrt(width)[:, None, :, None]  # (s, g, T, 6)
        mean = np.tensordot(weights, a, axes=(0, 1))
        size = np.linalg.norm(mean.reshape(len(part), -1), axis=1)
        yield ((a - mean[:, None]) / size[:, None, None, None]).reshape(len(part), len(weights), -1)


def _deviators(F: torch.Tensor, F_in: torch.Tensor, Q: torch.Tensor) -> np.ndarray:
    """Deviators of the Cauchy stress over the shear modulus, (n, g, 6) Mandel vectors, eqs. (A.3), (A.8)."""
    n, g = F_in.shape[:2]
    A = matmul(matmul(F[:, None], Q), inverse(F_in)).reshape(n * g, 3, 3)
    J = determinant(F).repeat_interleave(g)[:, None, None]
    s = J ** (-5 / 3) * deviator(matmul(A, A.mT))
    return mandel_vector(s).reshape(n, g, 6).numpy()


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
