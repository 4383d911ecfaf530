"""How close the step of a run is to the largest stable one, measured at any of its times.

Central differences are stable up to dt = 2/omega with the highest frequency omega of small motions about the present
state. It is found by Lanczos iteration on M^-1/2 K M^-1/2, matrix-free, where K is the derivative of the internal
force, geometric stiffness and hourglass stiffness included, with prescribed components held. The material answers small
motions elastically, the stiffest way it can: as a neo-Hookean body with the elastic strain that belongs to the stress.
Contact and bulk viscosity are left out. The solver does not need this; it is a check of its step.

References:
    Parlett (1998), 10.1137/1.9781611971163, section 13: Lanczos without reorthogonalisation, bound of the residual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.laws.kernels import compiled, invert, stress_rate
from fem.laws.von_mises import isochoric_mean

SMALL = 1e-6  # largest gradient of the small motions


def largest_stable_step(solver: Any, tolerance: float = 1e-3, iterations: int = 300) -> float:
    """Largest stable step of central differences at the present state, s; collective.

    Args:
        solver: An `ExplicitSolver`; left as it was.
        tolerance: Relative error of the square of the frequency at which the iteration ends.
        iterations: At most as many are done.

    Raises:
        ValueError: On all ranks, if the iteration does not converge.
    """
    solver._prepare()
    apply, restore = _stiffness(solver)
    mass = np.sqrt(solver.mass)[:, None]
    try:
        square = _lanczos(solver, lambda v: apply(v / mass) / mass, tolerance, iterations)
    finally:
        restore()
    return 2.0 / float(np.sqrt(square))


def _lanczos(solver: Any, apply: Callable[[np.ndarray], np.ndarray], tolerance: float, iterations: int) -> float:
    """Largest eigenvalue of a symmetric operator on owned nodal vectors (nodes, 3); collective."""
    comm = solver.comm
    dot = lambda a, b: float(comm.allreduce(float(np.einsum("ni,ni->", a, b))))
    # A rough start that depends on the place only, hence not on the number of ranks.
    x = solver._x[: solver.n_nodes] / max(comm.allreduce(float(np.abs(solver._x).max(initial=0.0)), op=MPI.MAX), 1e-300)
    v = np.sin(1e3 * (x @ np.array([[1.0, 2.3, 3.1], [5.7, 1.9, 4.1], [3.3, 7.3, 2.9]])))
    v.reshape(-1)[solver.prescribed.rows[: solver.prescribed.owned]] = 0.0
    v /= np.sqrt(dot(v, v))
    before, diagonal, beside = np.zeros_like(v), [], [0.0]
    for k in range(iterations):
        w = apply(v) - beside[-1] * before
        diagonal.append(dot(w, v))
        w -= diagonal[-1] * v
        norm = float(np.sqrt(dot(w, w)))
        T = np.diag(diagonal) + np.diag(beside[1:], 1) + np.diag(beside[1:], -1)
        values, vectors = np.linalg.eigh(T)
        if norm * abs(vectors[-1, -1]) <= tolerance * values[-1] and (k > 10 or norm <= 1e-12 * values[-1]):
            return float(values[-1])
        beside.append(norm)
        before, v = v, w / norm
    raise ValueError(f"The largest stable step was not found within {iterations} iterations.")


def _stiffness(solver: Any) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[], None]]:
    """Product of the stiffness with owned nodal vectors (nodes, 3), and what puts the solver back; collective."""
    points, forces, u, n = solver.points, solver.forces, solver.u, solver.n_nodes
    array = u.x.array.reshape(-1, 3)
    u_0, P_0, viscous = array.copy(), points.P.copy(), points.viscous.copy()
    F_0 = points.gather(u).copy()
    rows = solver.prescribed.rows[: solver.prescribed.owned]
    of_points = lambda value: np.repeat(value, points.per_cell)
    c = solver.stable.constants
    tangent = np.empty((points.n, 3, 3, 3, 3))
    elastic_tangent(F_0, P_0, of_points(c.bulk_modulus), of_points(c.shear_modulus), tangent)
    tangent = tangent.reshape(-1, 9, 9)
    steepest = solver.comm.allreduce(float(np.abs(points.B).max(initial=1e-300)), op=MPI.MAX)
    points.viscous[:] = 0.0

    def force(v: np.ndarray) -> np.ndarray:
        array[:n] = u_0[:n] + v
        u.x.scatter_forward()
        change = points.gather(u) - F_0
        points.P[:] = P_0 + np.einsum("nab,nb->na", tangent, change.reshape(-1, 9)).reshape(-1, 3, 3)
        return forces.internal_force()[:n].copy()

    def apply(v: np.ndarray) -> np.ndarray:
        h = SMALL / steepest / max(solver.comm.allreduce(float(np.abs(v).max(initial=0.0)), op=MPI.MAX), 1e-300)
        product = (force(h * v) - force(-h * v)) / (2.0 * h)
        product.reshape(-1)[rows] = 0.0
        return product

    def restore() -> None:
        array[:], points.P[:], points.viscous[:] = u_0, P_0, viscous
        points.gather(u)
        points.transfer()

    return apply, restore


@compiled
def elastic_tangent(F: np.ndarray, P: np.ndarray, K: np.ndarray, G: np.ndarray, dP_dF: np.ndarray) -> None:
    """Derivative of the stress without plastic flow, as the energy of `fem.laws.kernels` has it.

    Args:
        F: Deformation gradients, (n, 3, 3).
        P: First Piola-Kirchhoff stress, (n, 3, 3), Pa; its deviator gives the isochoric elastic strain b.
        K: Bulk moduli, (n,), Pa.
        G: Shear moduli, (n,), Pa.
        dP_dF: Filled, (n, 3, 3, 3, 3), Pa.
    """
    F_inv, b, s, tau = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    d_tau, L, dP = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for n in range(F.shape[0]):
        J = invert(F[n], F_inv)
        square = 0.0
        for i in range(3):
            for j in range(3):
                tau[i, j] = P[n, i, 0] * F[n, j, 0] + P[n, i, 1] * F[n, j, 1] + P[n, i, 2] * F[n, j, 2]
        pressure = (tau[0, 0] + tau[1, 1] + tau[2, 2]) / 3.0
        for i in range(3):
            for j in range(3):
                s[i, j] = 0.5 * (tau[i, j] + tau[j, i]) - (pressure if i == j else 0.0)
                square += s[i, j] * s[i, j]
        mean = isochoric_mean(s, G[n], 1.0 + np.sqrt(square) / G[n])
        for i in range(3):
            for j in range(3):
                b[i, j] = s[i, j] / G[n] + (mean if i == j else 0.0)
        for k in range(3):
            for m in range(3):
                # dF = e_k e_m^T, so L = dF F^-1 has one row.
                for i in range(3):
                    for j in range(3):
                        L[i, j] = F_inv[m, j] if i == k else 0.0
                volume = F_inv[m, k]
                for i in range(3):
                    for j in range(3):
                        d_tau[i, j] = G[n] * (
                            L[i, 0] * b[0, j] + L[i, 1] * b[1, j] + L[i, 2] * b[2, j]
                            + b[i, 0] * L[j, 0] + b[i, 1] * L[j, 1] + b[i, 2] * L[j, 2]
                            - 2.0 / 3.0 * volume * b[i, j]
                        )
                trace = (d_tau[0, 0] + d_tau[1, 1] + d_tau[2, 2]) / 3.0
                for i in range(3):
                    d_tau[i, i] += K[n] * (2.0 * J - 1.0) * J * volume - trace
                stress_rate(tau, d_tau, L, F_inv, dP)
                for i in range(3):
                    for j in range(3):
                        dP_dF[n, i, j, k, m] = dP[i, j]
