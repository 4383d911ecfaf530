"""Full integration of trilinear hexahedra that does not lock in isochoric flow: mean dilatation (F-bar).

All points of a cell share its change of volume: the law is given

    F_bar = (J_bar / J)^(1/3) F,      J_bar = sum_q w_q J_q / V         (current volume over reference volume)

and the forces are the derivative of the energy sum_q w_q psi(F_bar_q), so that energy and momenta are conserved:

    P_eff = a P - (P : F_bar)/3 F^-T + (J/J_bar) p F^-T,   a = (J_bar/J)^(1/3),   p = sum_q w_q (P : F_bar)_q / (3 V)

with P = P(F_bar). P_eff takes the place of P in the residual.

References:
    Hughes (1980), 10.1002/nme.1620150914; de Souza Neto, Peric, Dutko and Owen (1996),
    10.1016/0020-7683(95)00259-6 (F-bar, there with J at the centre and a force that has no potential).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fem.discretisation.mean_gradient import MeanGradientPoints, add_pressure, check_cells
from fem.discretisation.nodal_dilatation import NodalDilatationPoints
from fem.discretisation.quadrature import QuadraturePoints
from fem.laws.kernels import compiled, invert


class MeanDilatationPoints(QuadraturePoints):
    """Full integration of trilinear hexahedra with the mean dilatation of each cell.

    Args:
        V: Displacement space, P1 vector on hexahedra.

    Attributes:
        viscous: Viscous Kirchhoff pressure, (n,), Pa, positive in compression; zero unless the solver sets it.
        total: What stands for P in UFL, (n, 3, 3), Pa, as `transfer` left it.

    All else is that of `QuadraturePoints`; `F` is F_bar and `P` the stress of the law for it.
    """

    def __init__(self, V: Any) -> None:
        super().__init__(V)
        self.total = self._P
        self._P, self.viscous = np.zeros((self.n, 3, 3)), np.zeros(self.n)
        self._F_bar = np.zeros((self.n, 3, 3))

    @property
    def F(self) -> np.ndarray:
        """F_bar at the points, (n, 3, 3), a view."""
        return self._F_bar

    @property
    def F_cell(self) -> np.ndarray:
        """Deformation gradient that stands for the shape of the cell: F_bar, (n, 3, 3), a view."""
        return self._F_bar

    def gather(self, u: Any) -> np.ndarray:
        """Compute F_bar at the points from a displacement Function; returns the view `F`.

        Where a point of a cell is inverted, all points of the cell get their own F, so that it is found.
        """
        super().gather(u)
        _share_volume(self._F, self.per_cell, self.volume, self._F_bar)
        return self._F_bar

    def transfer(self) -> None:
        """Bring `stress` up to date with `P` and `viscous`."""
        add_pressure(self._P, self._F_bar, self.viscous, self.total)
        _effective(self._F, self.per_cell, self.volume, self._F_bar, self.total)


ExplicitPoints = MeanGradientPoints | MeanDilatationPoints


def explicit_points(V: Any, integration: str) -> ExplicitPoints:
    """Points of the explicit solver.

    Args:
        V: Displacement space, P1 vectors on linear hexahedra or tetrahedra.
        integration: For hexahedra "one-point" (mean gradient) or "full" (2 x 2 x 2 points with the mean dilatation of
            the cell); for tetrahedra "one-point" (with the mean dilatation of the nodes).

    Raises:
        ValueError: If there is no such integration, or the space is another one.
    """
    if integration not in ("one-point", "full"):
        raise ValueError(f'integration must be "one-point" or "full", got "{integration}".')
    check_cells(V)
    if V.mesh.topology.cell_type.name == "tetrahedron":
        if integration == "full":
            raise ValueError('integration must be "one-point" for tetrahedra, got "full".')
        return NodalDilatationPoints(V)
    return MeanGradientPoints(V) if integration == "one-point" else MeanDilatationPoints(V)


@compiled
def _share_volume(F: np.ndarray, per_cell: int, volume: np.ndarray, F_bar: np.ndarray) -> None:
    """Write F_bar of all points; F, F_bar (n, 3, 3), volume (n,)."""
    work, J = np.empty((3, 3)), np.empty(per_cell)
    for c in range(F.shape[0] // per_cell):
        first = c * per_cell
        inside, outside, good = 0.0, 0.0, True
        for q in range(per_cell):
            J[q] = invert(F[first + q], work)
            good = good and J[q] > 0.0
            inside += volume[first + q] * J[q]
            outside += volume[first + q]
        for q in range(per_cell):
            scale = (inside / outside / J[q]) ** (1.0 / 3.0) if good else 1.0
            for i in range(3):
                for j in range(3):
                    F_bar[first + q, i, j] = scale * F[first + q, i, j]


@compiled
def _effective(F: np.ndarray, per_cell: int, volume: np.ndarray, F_bar: np.ndarray, P: np.ndarray) -> None:
    """Turn P(F_bar) into the effective stress of the residual, in place; all (n, 3, 3), volume (n,)."""
    inverse = np.empty((3, 3))
    J, power = np.empty(per_cell), np.empty(per_cell)
    for c in range(F.shape[0] // per_cell):
        first = c * per_cell
        inside, outside, mean = 0.0, 0.0, 0.0
        for q in range(per_cell):
            n = first + q
            J[q] = invert(F[n], inverse)
            power[q] = 0.0
            for i in range(3):
                for j in range(3):
                    power[q] += P[n, i, j] * F_bar[n, i, j] / 3.0
            inside += volume[n] * J[q]
            outside += volume[n]
            mean += volume[n] * power[q]
        for q in range(per_cell):
            n = first + q
            invert(F[n], inverse)
            scale = (inside / outside / J[q]) ** (1.0 / 3.0)
            pressure = mean * J[q] / inside - power[q]
            for i in range(3):
                for j in range(3):
                    P[n, i, j] = scale * P[n, i, j] + pressure * inverse[j, i]
