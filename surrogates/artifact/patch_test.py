"""A small patch of elements on which a law is tried: one hexahedron or quadrilateral, or two per side.

Linear elements with full integration (two Gauss points per direction), the last direction called height. The bottom is
clamped, the top is pulled along the height and free across it, and Newton's method solves for the rest with the law's
own tangent: no line search, no damping, so that convergence and its rate depend on the law alone.

References:
    Observed order of an iteration: Eq. (2.4) of C. T. Kelley, Iterative Methods for Linear and Nonlinear Equations,
    1995, doi:10.1137/1.9781611970944.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ORDER_CAP = 4.0
ROUND_OFF = 1e-12  # residuals, relative to the element forces, that are called zero
ITERATIONS = 25


@dataclass(frozen=True)
class Patch:
    """Elements and what their integration needs.

    Attributes:
        nodes: positions (m, d).
        cells: nodes of the elements (e, 2^d).
        slopes: gradients of the shape functions at the Gauss points (e, q, 2^d, d).
        weights: integration weights (e, q).
        free: whether a displacement is sought (m, d).
    """

    nodes: Tensor
    cells: Tensor
    slopes: Tensor
    weights: Tensor
    free: Tensor


@dataclass(frozen=True)
class LoadStep:
    """One load step: relative residuals, the starting one first, and whether they came down to round-off."""

    residuals: tuple[float, ...]
    converged: bool

    @property
    def iterations(self) -> int:
        """Linear systems solved."""
        return len(self.residuals) - 1

    @property
    def order(self) -> float:
        """Observed order log(r_{k+1}/r_k) / log(r_k/r_{k-1}) at the end, at most `ORDER_CAP`; 0 if not converged.

        Of the last two triples the greater: where r_{k+1} is round-off, it stands for a smaller residual that
        arithmetic cannot show, and the order found with it is a lower bound. Where there is no triple, or the residual
        grew before it vanished, Newton ended exactly: the cap.
        """
        if not self.converged:
            return 0.0
        r = [max(value, 1e-16) for value in self.residuals]
        triples = [(r[k - 1], r[k], r[k + 1]) for k in range(1, len(r) - 1)][-2:]
        orders = [math.log(c / b) / math.log(b / a) if b < a else ORDER_CAP for a, b, c in triples if c < b]
        return min(ORDER_CAP, max(orders, default=ORDER_CAP))


def make_patch(dimension: int, count: int, *, distortion: float = 0.0, seed: int = 0) -> Patch:
    """Unit square or cube of `count` elements per side.

    Args:
        dimension: 2 or 3.
        count: elements per side.
        distortion: largest shift of a node, in element sizes; nodes on a side of the box stay on it.
        seed: of the shifts.
    """
    d, ticks = dimension, np.linspace(0.0, 1.0, count + 1)
    nodes = np.stack(np.meshgrid(*[ticks] * d, indexing="ij"), axis=-1).reshape(-1, d)
    shifts = np.random.Generator(np.random.Philox(key=seed)).uniform(-1, 1, nodes.shape) * distortion / count
    inside = (nodes > 0) & (nodes < 1)
    number = np.arange(len(nodes)).reshape([count + 1] * d)
    corners = list(itertools.product((0, 1), repeat=d))
    corner_of = [number[tuple(slice(c, count + c) for c in corner)].reshape(-1) for corner in corners]
    cells = torch.from_numpy(np.stack(corner_of, axis=1))
    sign = 2.0 * np.array(corners) - 1.0  # (a, d)
    points = sign / math.sqrt(3.0)
    factor = 0.5 * (1 + points[:, None, :] * sign[None, :, :])  # (q, a, d)
    local = np.empty((len(points), len(sign), d))
    for j in range(d):
        others = np.delete(factor, j, axis=2).prod(axis=2)
        local[:, :, j] = 0.5 * sign[None, :, j] * others
    X = torch.from_numpy(nodes + np.where(inside, shifts, 0.0))
    jacobian = torch.einsum("eai,qaj->eqij", X[cells], torch.from_numpy(local))  # dX_i / dxi_j
    slopes = torch.einsum("qaj,eqji->eqai", torch.from_numpy(local), torch.linalg.inv(jacobian))
    bottom, top = torch.from_numpy(nodes[:, -1] == 0), torch.from_numpy(nodes[:, -1] == 1)
    free = ~bottom[:, None].repeat(1, d)
    free[top, -1] = False
    return Patch(X, cells, slopes, torch.linalg.det(jacobian), free)


def gradients(patch: Patch, u: Tensor) -> Tensor:
    """F (e q, d, d) at the Gauss points for displacements u (m, d)."""
    d = u.shape[1]
    H = torch.einsum("eai,eqaj->eqij", u[patch.cells], patch.slopes)
    return (H + torch.eye(d, dtype=torch.float64)).reshape(-1, d, d)


def forces(patch: Patch, P: Tensor) -> tuple[Tensor, float]:
    """Internal forces (m, d), int P : grad v, and the size of the element forces that are summed."""
    e, q = patch.weights.shape
    d = P.shape[-1]
    element = torch.einsum("eq,eqij,eqaj->eai", patch.weights, P.reshape(e, q, d, d), patch.slopes)
    total = torch.zeros_like(patch.nodes).index_add(0, patch.cells.reshape(-1), element.reshape(-1, d))
    return total, float(element.norm())


def stiffness(patch: Patch, dP_dF: Tensor) -> Tensor:
    """Stiffness (m d, m d), int grad v : dP_dF : grad du."""
    e, q = patch.weights.shape
    m, d = patch.nodes.shape
    A = dP_dF.reshape(e, q, d, d, d, d)
    element = torch.einsum("eq,eqaj,eqijkl,eqbl->eaibk", patch.weights, patch.slopes, A, patch.slopes)
    rows = (patch.cells[:, :, None] * d + torch.arange(d)).reshape(e, -1)
    n = rows.shape[1]
    at = (rows[:, :, None] * (m * d) + rows[:, None, :]).reshape(-1)
    K = torch.zeros((m * d) ** 2, dtype=torch.float64).index_add(0, at, element.reshape(e * n * n))
    return K.reshape(m * d, m * d)


def solve(patch: Patch, law: Any, u: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, LoadStep]:
    """Newton's method for the free displacements from the guess u (m, d), with the other displacements as in u.

    Returns:
        Displacements, new state of the Gauss points, and how the residual went.
    """
    free = patch.free.reshape(-1)
    residuals: list[float] = []
    size = 0.0
    while True:
        P, new_state, dP_dF = law.tangent(gradients(patch, u), state, dt)
        f, now = forces(patch, P)
        size = max(size, now)
        r = f.reshape(-1)[free]
        residuals.append(float(r.norm()) / size if size > 0 else 0.0)
        if not math.isfinite(residuals[-1]) or len(residuals) > ITERATIONS:
            return u, state, LoadStep(tuple(residuals), False)
        if residuals[-1] <= ROUND_OFF:
            return u, new_state, LoadStep(tuple(residuals), True)
        K = stiffness(patch, dP_dF)[free][:, free]
        du, info = torch.linalg.solve_ex(K, r)
        if int(info) != 0:
            return u, state, LoadStep(tuple(residuals), False)
        step = torch.zeros_like(free, dtype=torch.float64)
        step[free] = du
        u = u - step.reshape(u.shape)


def pull(patch: Patch, law: Any, stretch: float, steps: int, dt: float) -> list[LoadStep]:
    """Pull the top by `stretch` times the height in equal load steps; stops at the first that does not converge.

    Every load step starts from the last displacement with the increment of a uniform stretch added.
    """
    u = torch.zeros_like(patch.nodes)
    state = law.initial_state(patch.weights.numel())
    taken: list[LoadStep] = []
    for _ in range(steps):
        u = u.clone()
        u[:, -1] += stretch / steps * patch.nodes[:, -1]
        u, state, step = solve(patch, law, u, state, dt)
        taken.append(step)
        if not step.converged:
            break
    return taken
