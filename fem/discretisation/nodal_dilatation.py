"""Linear tetrahedra that do not lock in isochoric flow: mean dilatation over the cells around each node.

A tetrahedron with linear displacement has one change of volume J. A mesh has five to six tetrahedra for each node, so
that J_c = 1 in every cell would be more conditions than the nodes have freedoms. Here the change of volume is averaged
over the cells around each node a, and from the nodes back to the cells,

    J_a = sum_c (V_c/4) J_c / sum_c V_c/4,      J_bar_c = (J_1 + J_2 + J_3 + J_4)/4 of the nodes of the cell,

so that there are as many conditions as nodes. The law is given F_bar = (J_bar/J)^(1/3) F, as in
`fem.discretisation.mean_dilatation`, and the forces are the derivative of the energy sum_c V_c psi(F_bar_c):

    P_eff_c = (J_bar/J)^(1/3) P - (P : F_bar)/3 F^-T + p_c J F^-T,
    p_c = (p_1 + p_2 + p_3 + p_4)/4,    p_a = sum_c (V_c/4) (P : F_bar)_c/(3 J_bar_c) / sum_c V_c/4

with P = P(F_bar): energy and momenta are conserved. The pressure p_a is that of a node, as in the element with average
nodal pressure. The volumetric energy is at most that of the tetrahedra without the average (it is convex in J), so that
the stable step of the cells holds.

References:
    Bonet and Burton (1998), 10.1002/(SICI)1099-0887(199805)14:5<437::AID-CNM162>3.0.CO;2-W: average nodal pressure.
    de Souza Neto, Andrade Pires and Owen (2005), 10.1002/nme.1187: F-bar over patches of simplices.
"""

from __future__ import annotations

from typing import Any

import dolfinx.la
import numpy as np

from fem.discretisation.mean_gradient import MeanGradientPoints, add_pressure
from fem.laws.kernels import compiled, invert


class NodalDilatationPoints(MeanGradientPoints):
    """One point in each linear tetrahedron, with the mean dilatation of its nodes.

    `gather` and `transfer` are collective.

    Args:
        V: Displacement space, P1 vector on tetrahedra.

    All else is that of `MeanGradientPoints`; `F` is F_bar and `P` the stress of the law for it.
    """

    def __init__(self, V: Any) -> None:
        super().__init__(V)
        self._F_bar = np.zeros((self.n, 3, 3))
        self._J, self._J_bar, self._mean = np.ones(self.n), np.ones(self.n), np.zeros(self.n)
        self._nodal = dolfinx.la.vector(V.dofmap.index_map, 1)
        self._weight = self._nodal_sums(np.ones(self.n)).copy()

    @property
    def F(self) -> np.ndarray:
        """F_bar at the points, (n, 3, 3), a view."""
        return self._F_bar

    def gather(self, u: Any) -> np.ndarray:
        """Compute F_bar at the points from a displacement Function; returns the view `F`. An inverted cell keeps F."""
        super().gather(u)
        _determinants(self._F, self._J)
        self._average(self._J, self._J_bar)
        _share_volume(self._F, self._J, self._J_bar, self._F_bar)
        return self._F_bar

    def transfer(self) -> None:
        """Bring `stress` up to date with `P` and `viscous`."""
        add_pressure(self._P, self._F_bar, self.viscous, self.total)
        own = np.einsum("nij,nij->n", self.total, self._F_bar) / 3.0
        self._average(own / self._J_bar, self._mean)
        _effective(self._F, self._J, self._J_bar, own, self._mean, self.total)

    def _average(self, values: np.ndarray, mean: np.ndarray) -> None:
        """Write the mean over the nodes of each cell of the means of `values` (n,) over the cells around each node."""
        _mean_of_nodes(self._nodal_sums(values), self._weight, self.nodes, mean)

    def _nodal_sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the cells around each node of V/4 times a value (n,), ghosts included, (nodes,)."""
        nodal = self._nodal
        nodal.array[:] = 0.0
        _add_to_nodes(values, self.volume, self.nodes, nodal.array)
        nodal.scatter_reverse(dolfinx.la.InsertMode.add)
        nodal.scatter_forward()
        return np.asarray(nodal.array)


@compiled
def _determinants(F: np.ndarray, J: np.ndarray) -> None:
    """Write det F of all points."""
    work = np.empty((3, 3))
    for n in range(F.shape[0]):
        J[n] = invert(F[n], work)


@compiled
def _add_to_nodes(values: np.ndarray, volume: np.ndarray, nodes: np.ndarray, total: np.ndarray) -> None:
    """Add a quarter of value times volume of each cell to its nodes."""
    for c in range(nodes.shape[0]):
        part = 0.25 * volume[c] * values[c]
        for a in range(4):
            total[nodes[c, a]] += part


@compiled
def _mean_of_nodes(total: np.ndarray, weight: np.ndarray, nodes: np.ndarray, mean: np.ndarray) -> None:
    """Write the mean of total / weight over the nodes of each cell."""
    for c in range(nodes.shape[0]):
        mean[c] = 0.0
        for a in range(4):
            mean[c] += 0.25 * total[nodes[c, a]] / weight[nodes[c, a]]


@compiled
def _share_volume(F: np.ndarray, J: np.ndarray, J_bar: np.ndarray, F_bar: np.ndarray) -> None:
    """Write F_bar of all points; an inverted cell keeps its F and J."""
    for n in range(F.shape[0]):
        if not (J[n] > 0.0 and J_bar[n] > 0.0):
            J_bar[n] = J[n]
        scale = (J_bar[n] / J[n]) ** (1.0 / 3.0) if J_bar[n] != J[n] else 1.0
        for i in range(3):
            for j in range(3):
                F_bar[n, i, j] = scale * F[n, i, j]


@compiled
def _effective(
    F: np.ndarray, J: np.ndarray, J_bar: np.ndarray, own: np.ndarray, mean: np.ndarray, P: np.ndarray
) -> None:
    """Turn P(F_bar) into the effective stress of the residual, in place; own is (P : F_bar)/3, mean the p_c above."""
    inverse = np.empty((3, 3))
    for n in range(F.shape[0]):
        invert(F[n], inverse)
        scale = (J_bar[n] / J[n]) ** (1.0 / 3.0)
        pressure = mean[n] * J[n] - own[n]
        for i in range(3):
            for j in range(3):
                P[n, i, j] = scale * P[n, i, j] + pressure * inverse[j, i]
