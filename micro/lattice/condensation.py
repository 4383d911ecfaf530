"""Condensed cell: a lattice cell with its node displacements eliminated, an energy of strain and plastic strains alone.

Bars are linear, so that the periodic displacements that minimise the energy are linear in (E, alpha), and

    Psi(E, alpha) = 1/2 E.C E + E.G alpha + 1/2 alpha.K alpha + 1/2 h.p^2,   D = k.|d alpha|

exactly, for any cell. Bars that are images of one another have one common variable. In a regular cell K is diagonal,
and bars of one direction have one common variable: 4 in two dimensions, 13 in three. Strain and stress are Mandel
vectors: 11, 22, 33, 12, 23, 13 or 11, 22, 12, the off-diagonal components times sqrt(2).
"""

from dataclasses import dataclass

import numpy as np

from micro.lattice.bars import BarLaw, IsotropicBar, KinematicBar
from micro.lattice.geometry import Cell
from micro.tensors import ORDERS


@dataclass(frozen=True)
class CondensedCell:
    """The quadratic form of a cell, c components of strain, N different bars; per volume of the cell.

    Attributes:
        C: stiffness at fixed alpha (c, c), Pa.
        G: (c, N), Pa.
        K: (N, N), Pa.
        k: thresholds (N,), Pa.
        h: isotropic hardening (N,), Pa; zero for kinematic bars.
        displacement_E, displacement_alpha: displacements of the nodes (m d, c), (m d, N), in sizes of the unit.
        force_E, force_alpha: forces of the bars (b, c), (b, N), N.
        variable: the variable of each bar (b,).
    """

    C: np.ndarray
    G: np.ndarray
    K: np.ndarray
    k: np.ndarray
    h: np.ndarray
    displacement_E: np.ndarray
    displacement_alpha: np.ndarray
    force_E: np.ndarray
    force_alpha: np.ndarray
    variable: np.ndarray


def mandel_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rows (n, c) with row . E = a.E b for Mandel vectors E; a and b (n, d)."""
    pairs = ORDERS[a.shape[1]].pairs
    half = 0.5**0.5
    rows = [a[:, i] * b[:, i] if i == j else half * (a[:, i] * b[:, j] + a[:, j] * b[:, i]) for i, j in pairs]
    return np.stack(rows, axis=1)


def same_direction(B: np.ndarray) -> np.ndarray:
    """Group bars by direction, (N, directions) of zeros and ones, from the rows B (N, c) that strain them."""
    _, number = np.unique(np.round(B, 10), axis=0, return_inverse=True)
    return np.eye(number.max() + 1)[number.reshape(-1)]


def condense(cell: Cell, bar: BarLaw) -> CondensedCell:
    """Eliminate the node displacements of a cell.

    Raises:
        ValueError: the bars are not of linear hardening.
    """
    if not isinstance(bar, KinematicBar | IsotropicBar):
        raise ValueError(f"bar must be of linear hardening, got {type(bar).__name__}.")
    (m, d), b = cell.nodes.shape, len(cell.bars)
    variable = cell.bar_class
    N = int(variable.max()) + 1
    picks = np.zeros((b, N))
    picks[np.arange(b), variable] = 1.0
    # eps = B_E E + B_w w, with u = E x + w[master]
    B_E = mandel_rows(cell.direction, cell.direction)
    B_w = np.zeros((b, m, d))
    for end, sign in ((0, -1.0), (1, 1.0)):
        np.add.at(B_w, (np.arange(b), cell.master[cell.bars[:, end]]), sign * cell.direction / cell.length[:, None])
    masters = np.unique(cell.master)[1:]  # the first stays: no translation
    B_w = B_w[:, masters].reshape(b, -1)
    fraction = cell.weight * cell.area * cell.length / cell.volume
    stiff = bar.modulus * fraction
    # w = W_E E + W_alpha alpha minimises sum of stiff (B_E E + B_w w - alpha)^2
    relax = -np.linalg.pinv(B_w * np.sqrt(stiff)[:, None], rcond=1e-12) * np.sqrt(stiff) if B_w.size else B_w.T
    W_E, W_alpha = relax @ B_E, -relax @ picks
    eps_E, eps_alpha = B_E + B_w @ W_E, B_w @ W_alpha - picks  # elastic strain = eps_E E + eps_alpha alpha
    kinematic = isinstance(bar, KinematicBar)
    merged = np.bincount(variable, fraction, N)
    K = eps_alpha.T @ (stiff[:, None] * eps_alpha) + np.diag(merged) * (bar.hardening if kinematic else 0.0)
    u_E = np.stack([mandel_rows(np.eye(d)[[i] * m], cell.nodes) for i in range(d)], axis=1)
    u_alpha = np.zeros((m, d, N))
    # The first independent node was fixed; the mean of w over all of them is to be zero, as in
    # `micro.lattice.cell_problem`.
    independent = np.unique(cell.master)
    for u, w in ((u_E, W_E.reshape(-1, d, W_E.shape[1])), (u_alpha, W_alpha.reshape(-1, d, N))):
        every = np.concatenate([np.zeros((1, *w.shape[1:])), w])
        u += (every - every.mean(axis=0))[np.searchsorted(independent, cell.master)]
    G, k, force = eps_E.T @ (stiff[:, None] * eps_alpha), bar.strength * merged, bar.modulus * cell.area
    first = np.unique(variable, return_index=True)[1]
    group = same_direction(B_E[first])
    if max(np.abs(W_E).max(initial=0.0), np.abs(W_alpha @ group).max(initial=0.0)) > 1e-10:
        group = np.eye(N)  # the nodes move: bars of one direction differ
    return CondensedCell(
        C=eps_E.T @ (stiff[:, None] * eps_E),
        G=G @ group,
        K=group.T @ (0.5 * (K + K.T)) @ group,
        k=group.T @ k,
        h=np.zeros(group.shape[1]) if kinematic else bar.hardening * group.T @ merged,
        displacement_E=u_E.reshape(m * d, -1),
        displacement_alpha=u_alpha.reshape(m * d, N) @ group,
        force_E=force[:, None] * eps_E,
        force_alpha=force[:, None] * eps_alpha @ group,
        variable=np.argmax(group, axis=1)[variable],
    )
