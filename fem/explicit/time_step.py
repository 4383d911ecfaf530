"""The largest stable step of central differences, cell by cell, from the current deformation.

A cell with mean gradient B_a, volume V and lumped node masses m_a = rho N_a has the highest frequency

    omega^2 <= (M / rho) * largest eigenvalue of  V sum_a b_a b_a^T / N_a,      b_a = F^-T B_a

where N_a is the volume of the cell that its node has as mass: any split of the mass of a node among its cells gives a
bound. In hexahedra it is the cell's own part of the integral of the shape function. Tetrahedra have very different
shapes; there the mass of a node is split as the stiffness M V |B_a|^2 of its cells, else one flat cell would decide.
M = K J^2 + 4 G / 3 is the current Kirchhoff wave modulus (the volumetric part of the energy is exact for plane waves;
in expansion K J (2 J - 1), of the breathing mode, is larger; plastic flow only lowers the rest). Then dt = 2 / omega,
and the step of the mesh is a safety factor times the smallest of its cells. Waves in a regular mesh of hexahedra have
this frequency exactly and distorted cells stay below it, but a few free cells vibrate faster (one free cube in its
breathing mode by sqrt(3 K / M)): `highest_frequency` of the mesh at rest lowers the factor there. How close the step is
to the largest stable one, at any time of a run, is what `fem.explicit.stability` measures.

Mass scaling makes small cells heavier, once, at rest: a cell whose step would be below the one that is wanted gets the
density rho (wanted / step)^2. Its sound is slower, its weight in the equation of motion too large; momentum and energy
are those of the heavier body.

References:
    Flanagan and Belytschko (1981), 10.1002/nme.1620170504, section 4 (there with the trace for the eigenvalue).
    von Neumann and Richtmyer (1950), 10.1063/1.1699639; Landshoff (1955), LA-1930: quadratic and linear viscosity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.explicit.forces import Forces
from fem.laws.composite import CellConstants
from fem.laws.kernels import compiled, determinant, invert
from fem.parallel import fail_together

ITERATIONS = 60
SMALL = 1e-7  # largest gradient in the power iteration
ROUNDS = 10  # of mass scaling: heavier cells change the highest frequency, and with it the factor on their step
CLOSE = 1e-6  # relative difference of a step from the one wanted
TETRAHEDRON = 4  # nodes
MARGIN = 0.97  # of the step that `highest_frequency` allows: the power iteration comes from below


def step_towards(limit: float | None, time: float, stable: float) -> float:
    """Step to take at a time, s, where `stable` is allowed, s; it does not go past a limit, s.

    Raises:
        ValueError: If it is not positive and finite.
    """
    dt = stable
    if limit is not None and time + 2.0 * dt > limit:
        remaining = limit - time
        dt = remaining if remaining <= dt else 0.5 * remaining  # two equal steps, not one full and one tiny step
    if not (np.isfinite(dt) and dt > 0.0):
        raise ValueError(f"The step must be positive, got {dt} s at time {time} s.")
    return dt


def cell_metric(B: np.ndarray, volume: np.ndarray, node_volume: np.ndarray) -> np.ndarray:
    """V sum_a B_a B_a^T / N_a of each cell in the reference configuration.

    Args:
        B: Mean gradients, (cells, a, 3), 1/m.
        volume: Cell volumes, (cells,), m^3.
        node_volume: Integral of each shape function, (cells, a), m^3.

    Returns:
        Metric, (cells, 3, 3), 1/m^2.
    """
    return np.einsum("c,cai,caj,ca->cij", volume, B, B, 1.0 / node_volume)


@compiled
def _largest(A: np.ndarray) -> float:
    """Largest eigenvalue of a symmetric (3, 3) matrix, in closed form, from its upper half."""
    mean = (A[0, 0] + A[1, 1] + A[2, 2]) / 3.0
    a, b, c = A[0, 0] - mean, A[1, 1] - mean, A[2, 2] - mean
    d, e, f = A[0, 1], A[1, 2], A[0, 2]
    p = np.sqrt((a * a + b * b + c * c + 2.0 * (d * d + e * e + f * f)) / 6.0)
    if p == 0.0:
        return mean
    det = (a * (b * c - e * e) - d * (d * c - e * f) + f * (d * e - b * f)) / (2.0 * p**3)
    return mean + 2.0 * p * np.cos(np.arccos(min(1.0, max(-1.0, det))) / 3.0)


@dataclass(frozen=True)
class AddedMass:
    """What mass scaling added, on all ranks.

    Attributes:
        mass: kg.
        fraction: Of the mass of the body without it.
        cells: Number of cells that became heavier.
        largest: Largest factor on the density of a cell.
    """

    mass: float
    fraction: float
    cells: int
    largest: float


class StableStep:
    """Stable step of the cells of a body, with the bulk viscosity that lowers it; the constructor is collective.

    Args:
        points: Material points.
        constants: Of the law of each owned cell.
        forces: Forces of the body, whose mass follows mass scaling.
        u: Displacement Function; used as work array, left as it was.
        viscosity: Linear and quadratic coefficient.
        safety: Factor on the step of the cells; lowered for meshes that need it.
        wanted: Step that mass scaling shall reach for the body at rest, s; None for none.

    Attributes:
        constants: As given, the density with mass scaling.
        factor: Factor on the step of the cells, at most `safety`.
        rest: Smallest stable step of the cells at rest without viscosity, of all ranks, s.
        added: What mass scaling added.

    Raises:
        ValueError: On all ranks, if a cell is degenerate, or mass scaling does not reach the step.
    """

    def __init__(
        self, points: Any, constants: CellConstants, forces: Forces, u: Any, *,
        viscosity: tuple[float, float], safety: float, wanted: float | None = None,
    ) -> None:  # fmt: skip
        self.constants, self.viscosity = constants, viscosity
        self._points, self._comm, self._safety = points, points.V.mesh.comm, safety
        self._spring = np.inf
        self._measure(forces)
        self._choose(forces, u)
        self.added = AddedMass(0.0, 0.0, 0, 1.0)
        if wanted is not None:
            self._scale_mass(forces, u, wanted)

    def bound(self, F: np.ndarray, F_n: np.ndarray, dt: float) -> tuple[float, int, float]:
        """Stable step of this rank's cells, inverted point, viscous work; brings the viscous pressure up to date.

        The arguments are those of `smallest_step`; the shape of the cells is that which the points gathered last.
        """
        p, c = self._points, self.constants
        return smallest_step(
            F, F_n, p.F_cell, dt, p.per_cell, self._metric, c.bulk_modulus, c.shear_modulus, c.density,
            *self.viscosity, p.volume, p.viscous,
        )  # fmt: skip

    def stiffen(self, penalty: float) -> None:
        """Take account of contact springs, which add penalty / rest^2 to the square of the highest frequency."""
        self._spring = MARGIN * self.rest / np.sqrt(penalty) if penalty > 0.0 else np.inf

    def allowed(self, bound: float) -> float:
        """Step to take where the cells of all ranks allow `bound`, s."""
        if not np.isfinite(self._spring):
            return self.factor * bound
        return min(self.factor * bound, bound / np.sqrt(1.0 + 0.25 * (bound / self._spring) ** 2))

    def slowest_wave(self) -> float:
        """Slowest longitudinal wave of all cells, m/s; collective."""
        return float(self._comm.allreduce(float(self._speeds().min(initial=np.inf)), op=MPI.MIN))

    def _speeds(self) -> np.ndarray:
        """Speed of longitudinal waves in each cell, (cells,), m/s."""
        c = self.constants
        return np.sqrt((c.bulk_modulus + 4.0 / 3.0 * c.shear_modulus) / c.density)

    def _measure(self, forces: Forces) -> None:
        """Set the metric and the length of each cell, from its share of the mass of its nodes."""
        p, share = self._points, self._points.node_volume
        nodes = p.V.dofmap.list[: len(share)]
        if share.shape[1] == TETRAHEDRON:
            c = self.constants
            modulus = c.bulk_modulus + 4.0 / 3.0 * c.shear_modulus
            stiffness = (modulus * p.cell_volume)[:, None] * np.einsum("cai,cai->ca", p.B, p.B)
            total = forces.nodal_sums(stiffness)
            share = stiffness * (forces.mass / total)[nodes] / c.density[:, None]
        with fail_together(self._comm):  # a degenerate cell
            self._metric = cell_metric(p.B, p.cell_volume, share)
            self._lengths = 2.0 / np.sqrt(np.linalg.eigvalsh(self._metric)[:, 2])

    def _choose(self, forces: Forces, u: Any) -> None:
        """Set `rest` and `factor`."""
        steps = self._lengths / self._speeds()
        self.rest = float(self._comm.allreduce(float(steps.min(initial=np.inf)), op=MPI.MIN))
        highest = highest_frequency(self._points, forces, u, self.constants)
        movable = highest > 0.0 and self.rest > 0.0
        self.factor = min(self._safety, MARGIN * 2.0 / highest / self.rest) if movable else 0.0

    def _scale_mass(self, forces: Forces, u: Any, wanted: float) -> None:
        """Make cells heavier until the step of the body at rest is the one that is wanted."""
        before = self.constants.density
        slower = np.sqrt(1.0 + self.viscosity[0] ** 2) - self.viscosity[0]  # by the linear viscosity
        for _ in range(ROUNDS):
            steps = self.factor * slower * self._lengths / self._speeds()
            lowest = float(self._comm.allreduce(float(steps.min(initial=np.inf)), op=MPI.MIN))
            if lowest >= wanted * (1.0 - CLOSE):
                break
            density = self.constants.density * np.maximum(1.0, wanted / steps) ** 2
            self.constants = replace(self.constants, density=density)
            forces.lump(density)
            self._measure(forces)
            self._choose(forces, u)
        else:
            raise ValueError(f"mass_scaling of {wanted:g} s cannot be reached, only {lowest:g} s.")
        volume, factors = self._points.cell_volume, self.constants.density / before
        local = np.array([volume @ (self.constants.density - before), volume @ before, (factors > 1.0).sum()])
        total = self._comm.allreduce(local)
        largest = float(self._comm.allreduce(float(factors.max(initial=1.0)), op=MPI.MAX))
        self.added = AddedMass(float(total[0]), float(total[0] / total[1]), round(total[2]), largest)


@compiled
def smallest_step(
    F: np.ndarray, F_n: np.ndarray, F_cell: np.ndarray, dt: float, per_cell: int, metric: np.ndarray,
    bulk: np.ndarray, shear: np.ndarray, density: np.ndarray, linear: float, quadratic: float,
    volume: np.ndarray, viscous: np.ndarray,
) -> tuple[float, int, float]:  # fmt: skip
    """Smallest stable step of the cells, the first point with det F <= 0 or not finite (or -1), and viscous work.

    Args:
        F: Deformation gradients at the points, (n, 3, 3).
        F_n: Those before the last step, (n, 3, 3).
        F_cell: Deformation gradients of the shape of the cells, (n, 3, 3).
        dt: The last step, s.
        per_cell: Points per cell.
        metric: Of `cell_metric`, (n / per_cell, 3, 3), 1/m^2.
        bulk: K of the cells, (n / per_cell,), Pa.
        shear: G of the cells, (n / per_cell,), Pa.
        density: Reference density of the cells, (n / per_cell,), kg/m^3.
        linear: b_1, of the bulk viscosity.
        quadratic: b_2.
        volume: Reference volume of the points, (n,), m^3.
        viscous: Viscous Kirchhoff pressure, (n,), Pa, brought from the start of the step to its end.

    Returns:
        Step, s; point; work of the viscous pressure in the step (trapezoid), J.
    """
    inverse, half, pushed = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    shortest, work = np.inf, 0.0
    for n in range(F.shape[0]):
        J, c = determinant(F[n]), n // per_cell
        if not (J > 0.0 and J < np.inf and invert(F_cell[n], inverse) > 0.0):
            return 0.0, n, 0.0
        S = metric[c]
        for k in range(3):
            for j in range(3):
                half[k, j] = S[k, 0] * inverse[0, j] + S[k, 1] * inverse[1, j] + S[k, 2] * inverse[2, j]
        for i in range(3):
            for j in range(i, 3):
                pushed[i, j] = inverse[0, i] * half[0, j] + inverse[1, i] * half[1, j] + inverse[2, i] * half[2, j]
        modulus = bulk[c] * J * max(J, 2.0 * J - 1.0) + 4.0 / 3.0 * shear[c]
        highest = _largest(pushed)
        if not highest > 0.0:
            continue
        length, speed = 2.0 / np.sqrt(highest), np.sqrt(modulus / density[c])
        squeeze = np.log(J / determinant(F_n[n]))
        closing = min(squeeze / dt, 0.0)
        pressure = -density[c] * length * squeeze / dt * (linear * speed - quadratic**2 * length * closing)
        work -= 0.5 * (viscous[n] + pressure) * squeeze * volume[n]
        viscous[n] = pressure
        xi = linear - quadratic**2 * length / speed * closing
        shortest = min(shortest, length / speed * (np.sqrt(1.0 + xi * xi) - xi))
    return shortest, -1, work


def highest_frequency(points: Any, forces: Forces, u: Any, constants: CellConstants) -> float:
    """Highest frequency of the free linear elastic body at rest, hourglass stiffness included, 1/s; collective.

    Power iteration on M^-1 K, matrix-free, with isotropic elasticity at every point. The Rayleigh quotient comes from
    below, by a few per cent at most after 60 iterations: less than the margin of the safety factor.

    Args:
        points: Material points; F and P are used as work arrays.
        forces: Forces of the body.
        u: Displacement Function; used as work array, left as it was.
        constants: Moduli of the law of each owned cell.
    """
    of_points = lambda value: np.repeat(value, points.per_cell)[:, None, None]
    bulk, shear = of_points(constants.bulk_modulus), of_points(constants.shear_modulus)
    comm = points.V.mesh.comm
    n = points.V.dofmap.index_map.size_local
    array = u.x.array.reshape(-1, 3)
    before = array.copy()
    mass = forces.mass[:n, None]
    # A rough start that depends on the place only, hence not on the number of ranks.
    x = points.V.tabulate_dof_coordinates()[:n]
    size = np.array([np.abs(x).max(initial=1e-300)])
    comm.Allreduce(MPI.IN_PLACE, size, op=MPI.MAX)
    v = np.sin(1e3 * (x @ np.array([[1.0, 2.3, 3.1], [5.7, 1.9, 4.1], [3.3, 7.3, 2.9]])) / size)
    steepest = comm.allreduce(float(np.abs(points.B).max(initial=1e-300)), op=MPI.MAX)
    quotient = 0.0
    for _ in range(ITERATIONS):
        # So small that the mean dilatation of full integration is linear in it.
        array[:n] = v * (SMALL / steepest / comm.allreduce(float(np.abs(v).max(initial=1e-300)), op=MPI.MAX))
        u.x.scatter_forward()
        H = points.gather(u) - np.eye(3)
        trace = np.trace(H, axis1=1, axis2=2)[:, None, None]
        points.P[:] = shear * (H + np.swapaxes(H, 1, 2)) + (bulk - 2.0 / 3.0 * shear) * trace * np.eye(3)
        force = forces.internal_force()[:n]
        work = [np.einsum("ni,ni->", force, array[:n]), np.einsum("ni,ni->", array[:n] * mass, array[:n])]
        total = np.empty(2)
        comm.Allreduce(np.array(work), total, op=MPI.SUM)
        quotient = total[0] / total[1]
        v = force / mass
    array[:] = before
    return float(np.sqrt(quotient))
