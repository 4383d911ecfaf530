"""Two scales: what a homogenised run says of the nodes and bars of the lattice it stands for.

The displacement of a node is that of the finite elements plus epsilon times the periodic one of its cell, decoded from
the law's state, and the stress of a bar is the decoded force over the cross-section:

    u_eps(x) = u_0(x) + epsilon u_1(x, y),   epsilon u_1 = H (x - x_ref) + s (u_decoded - E y - mean),

where H = grad u_0, s is the edge of a unit in the lattice, x_ref is where the node stood before the cell was perturbed
(in a regular lattice x = x_ref), and the mean over the independent nodes of the cell is the part of u_1 that the cell
problem leaves open: it is u_0's.

References:
    Masi and Stefanou (2022), section V.A, doi:10.1016/j.cma.2022.115190.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from dolfinx.fem import Function

from fem.discretisation.point_evaluation import Probe
from fem.discretisation.projection import NodalFields
from fem.implicit import ImplicitSolver


class CellShape(Protocol):
    """What is asked of a cell of bars (`micro.lattice.Cell`)."""

    nodes: np.ndarray  # (m, d), in units
    bars: np.ndarray  # (b, 2)
    area: np.ndarray  # (b,)
    box: np.ndarray  # (d,)
    master: np.ndarray  # (m,)

    @property
    def bar_class(self) -> np.ndarray:
        """Number of the set of periodic images of each bar, (b,)."""


class Lattice(Protocol):
    """What is asked of a finite lattice (`micro.lattice.tiling.Truss`)."""

    nodes: np.ndarray  # (N, d), m
    bars: np.ndarray  # (B, 2)
    area: np.ndarray  # (B,)
    cell_bar: np.ndarray  # (B,)
    cell_nodes: np.ndarray  # (C, m)
    reference: np.ndarray  # (N, d), m


class TwoScale:
    """Reads a solver at the nodes and bars of a lattice; the constructor and all methods are collective.

    Args:
        solver: A run with a law that observes the forces of the bars and the displacements of the nodes of its cell.
        cell: The cell.
        lattice: The lattice; on rank 0, elsewhere ignored.
        size: Edge of its cells, m.

    Raises:
        ValueError: On all ranks, if the law does not observe what the cell has, or the lattice leaves the mesh.
    """

    def __init__(self, solver: ImplicitSolver, cell: CellShape, lattice: Lattice | None, size: float) -> None:
        self.solver, self.cell, self._comm = solver, cell, solver.comm
        m, d = cell.nodes.shape
        column = getattr(solver.law, "column", lambda *_: None)
        wanted = [column("node_displacement", node, axis) for node in range(m) for axis in range(d)]
        forces = [column("bar_force", bar) for bar in range(len(cell.bars))]
        if None in wanted + forces:
            raise ValueError(
                f"The law {solver.law.name} does not provide the {m} displacements and {len(forces)} forces "
                "of the cell."
            )
        if column("bar_force", len(forces)) is not None:
            raise ValueError(f"The law {solver.law.name} is of a cell with more than {len(forces)} bars.")
        self._u = wanted
        self._first_bar = np.unique(cell.bar_class, return_index=True)[1]
        self._force = [forces[bar] for bar in self._first_bar]
        self._independent, self._image = np.unique(cell.master, return_inverse=True)
        self._scale = size / float(cell.box[0])
        data = None
        if self._comm.rank == 0:
            assert lattice is not None
            local = np.empty(len(lattice.nodes), dtype=np.int64)
            local[lattice.cell_nodes.reshape(-1)] = np.tile(np.arange(m), len(lattice.cell_nodes))
            middle = lattice.reference[lattice.bars].mean(axis=1)
            data = (lattice.reference, lattice.nodes - lattice.reference, local, middle, lattice.cell_bar)
        self._reference, self._shift, local, self._middle, bar = self._comm.bcast(data, root=0)
        self._kind, self._bar_class = self._image[local], cell.bar_class[bar]
        probe = Probe(solver.domain.mesh)
        self._at_nodes, self._at_bars = probe.locate(self._reference), probe.locate(self._middle)
        self._nodal = NodalFields(solver.points)
        self._f = Function(self._nodal.W)

    def displacement(self) -> np.ndarray:
        """u_0 + epsilon u_1 of every node, (N, d), m, on all ranks."""
        d = self.cell.nodes.shape[1]
        H = self.solver.points.F - np.eye(d)
        E = 0.5 * (H + np.swapaxes(H, 1, 2))
        decoded = self.solver.law.observe(self.solver.state)[:, self._u].reshape(len(E), len(self.cell.nodes), d)
        w = (decoded - np.einsum("nij,mj->nmi", E, self.cell.nodes))[:, self._independent]
        w = self._scale * (w - w.mean(axis=1, keepdims=True))
        mine, x, cells = self._at_nodes
        u = np.zeros((len(self._reference), d))
        if len(mine):
            u[mine] = self.solver.u.eval(x, cells).reshape(len(mine), d)
        for i in range(d):
            for kind in range(w.shape[1]):
                self._add(u[:, i], w[:, kind, i], self._at_nodes, self._kind == kind, 1.0)
            for j in range(d):
                self._add(u[:, i], H[:, i, j], self._at_nodes, self._shift[:, j] != 0.0, self._shift[:, j])
        return self._comm.allreduce(u)

    def bar_stress(self) -> np.ndarray:
        """Stress of every bar, (B,), Pa, on all ranks: decoded force over cross-section, at the middle of the bar."""
        forces = self.solver.law.observe(self.solver.state)[:, self._force]
        stress = np.zeros(len(self._middle))
        for kind, bar in enumerate(self._first_bar):
            values = forces[:, kind] / self.cell.area[bar]
            self._add(stress, values, self._at_bars, self._bar_class == kind, 1.0)
        return self._comm.allreduce(stress)

    def _add(self, out: np.ndarray, values: np.ndarray, at: Any, chosen: np.ndarray, factor: Any) -> None:
        """Add factor times a field, given at the quadrature points, to the chosen entries that this rank answers."""
        if not chosen.any() or self._comm.allreduce(float(np.abs(values).max(initial=0.0))) == 0.0:
            return
        self._nodal.project(values, self._f)
        mine, x, cells = at
        take = chosen[mine]
        if take.any():
            found = self._f.eval(x[take], cells[take]).reshape(-1)
            out[mine[take]] += found * (factor if np.isscalar(factor) else factor[mine[take]])


def relative(value: Any, reference: Any, weight: Any = 1.0) -> float:
    """Relative L2 difference of two arrays of one shape; 0 where both are zero."""
    value, reference = np.asarray(value, dtype=float), np.asarray(reference, dtype=float)
    difference = float(np.sqrt(np.sum(weight * (value - reference) ** 2)))
    size = float(np.sqrt(np.sum(weight * reference**2)))
    return difference / size if size > 0.0 else (0.0 if difference == 0.0 else float("inf"))


def bars_at(bars: np.ndarray, node: int) -> np.ndarray:
    """Numbers of the bars (B, 2) that end at a node."""
    return np.flatnonzero((bars == node).any(axis=1))
