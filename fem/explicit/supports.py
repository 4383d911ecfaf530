"""What supports do to the nodes of an explicit run: prescribed components, and planes of symmetry of any direction.

A plane with the unit normal n holds n . u = 0. All conditions on one node, the planes and the prescribed components
e_c . u, are the rows of a matrix A, and the support changes the velocity v of the node by the least impulse that meets
them (Moore-Penrose inverse, since two planes may be one, and three may meet in a line):

    v <- v + A^+ (r - A v),      r = -n . u_n / dt for a plane, the prescribed rate for a component

so that a displacement across a plane by rounding is taken back in the next step. Nodes without an oblique plane are
left to `fem.discretisation.dirichlet`.
"""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from fem.discretisation.dirichlet import Dirichlet, DirichletSet, Where, describe

JUMP = 1e-9  # of the size of the body: by how much a prescribed displacement may differ from that of its nodes
FLAT = 1e-9  # of the size of the body: by how much nodes of a plane may lie beside it
LINE = 1e-6  # of the size of the body: nodes of a smaller extent are on a line
SAME = 1e-6  # sine of the angle between planes that are one
CONTRADICTION = 1e-6  # part of a rate that cannot be met


def plane_normal(prescribed: DirichletSet, where: Where) -> tuple[np.ndarray, np.ndarray]:
    """Unit normal (3,) of the plane of some nodes, and these nodes on this rank, ghosts included; collective.

    A normal along a coordinate axis is that axis exactly.

    Args:
        prescribed: Conditions of the body, for its nodes.
        where: The place, as for prescribed displacements.

    Raises:
        ValueError: On all ranks, if there is no node, or the nodes lie on no plane, or on a line.
    """
    nodes = prescribed.nodes
    found = nodes.find(where)
    x = nodes.x[:, found[found < nodes.owned]] / nodes.size
    count = nodes.comm.allreduce(x.shape[1])
    centre = nodes.comm.allreduce(x.sum(axis=1)) / count
    away = x - centre[:, None]
    # In the order of the eigenvalues: the least extent is along the normal.
    squares, axes = np.linalg.eigh(nodes.comm.allreduce(away @ away.T) / count)
    normal = axes[:, 0] * np.sign(axes[np.argmax(np.abs(axes[:, 0])), 0])
    aligned = np.abs(np.abs(normal) - 1.0) < FLAT
    normal = aligned.astype(float) if aligned.any() else normal
    beside = float(nodes.comm.allreduce(np.abs(normal @ away).max(initial=0.0), op=MPI.MAX))
    if squares[1] < LINE**2:
        raise ValueError(f"A plane of symmetry needs nodes that span a plane, but {describe(where)} lies on a line.")
    if beside > FLAT:
        raise ValueError(
            f"A plane of symmetry must be flat, but a node of {describe(where)} lies {beside * nodes.size:.3g} m "
            "beside the plane through them."
        )
    return normal, found


class Supports:
    """Prescribed components and oblique planes of symmetry of a body.

    Args:
        prescribed: Prescribed components; what is added to them later counts as well.

    Attributes:
        prescribed: The same.
        rows: Components that supports act on, node * 3 + component, owned nodes, (p,).
    """

    def __init__(self, prescribed: DirichletSet) -> None:
        self.prescribed = prescribed
        self._planes: list[tuple[np.ndarray, np.ndarray]] = []
        self._seen: np.ndarray | None = None
        self._arrange()

    def add_plane(self, where: Where) -> None:
        """Hold the nodes of a plane in it; collective. A plane along two axes is a prescribed component.

        Raises:
            ValueError: On all ranks, if the nodes lie on no plane, or a component is prescribed otherwise.
        """
        normal, nodes = plane_normal(self.prescribed, where)
        if normal.max() == 1.0:
            self.prescribed.add(Dirichlet(where, int(np.argmax(normal))))
            return
        self._planes.append((normal, nodes[nodes < self.prescribed.nodes.owned]))
        self._seen = None

    def check_start(self, u: np.ndarray, time: float) -> None:
        """Check that displacements (owned, 3), m, of a body at a time, s, fit what is prescribed; collective.

        Raises:
            ValueError: On all ranks, if they do not.
        """
        planes = [float(np.abs(u[nodes] @ normal).max(initial=0.0)) for normal, nodes in self._planes]
        nodes = self.prescribed.nodes
        if nodes.comm.allreduce(max([self.prescribed.lack(u), *planes]), op=MPI.MAX) > JUMP * nodes.size:
            raise ValueError(
                f"A prescribed displacement jumps at time {time:g} s: it must begin with the displacement that its "
                "nodes have, for example value=lambda x, t: speed * t."
            )

    def rates(self, u: np.ndarray, t: float, dt: float) -> np.ndarray:
        """Rates for `drive` in a step, m/s; local: an error is kept in `prescribed.failed`.

        Args:
            u: Displacements of the owned nodes at its start, (owned, 3), m.
            t: Time at its start, s.
            dt: Its length, s.
        """
        rates = self.prescribed.rates(u, t, dt)
        if not self._planes:
            self.rows = self.prescribed.driven
            return rates
        if self._seen is not self.prescribed.rows:
            self._arrange()
        wanted = np.zeros(self._A.shape[:2])
        wanted[:, 3:] = -np.einsum("kmi,ki->km", self._A[:, 3:], u[self._nodes]) / dt
        wanted[self._place, self._component] = rates[self._held]
        change = np.einsum("kim,km->ki", self._inverse, wanted)
        rest = np.abs(np.einsum("kmi,ki->km", self._A, change) - wanted).max(initial=0.0)
        rounding = 1e-12 * self.prescribed.nodes.size / dt
        if rest > CONTRADICTION * np.abs(wanted).max(initial=0.0) + rounding:
            self.prescribed.failed = "a displacement is prescribed that leads out of a plane of symmetry"
        return np.concatenate([rates[~self._held], wanted.ravel()])

    def drive(self, v: np.ndarray, rates: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """Give nodes the velocities of their supports; returns the impulses of the supports on `rows`, (p,), N s.

        Args:
            v: Velocities of the owned nodes, (owned, 3), m/s, contiguous; changed in place.
            rates: As `rates` returned them.
            mass: Of the owned nodes, (owned,), kg.
        """
        if not self._planes:
            return self.prescribed.drive(v, rates, mass)
        flat, free = v.reshape(-1), self._free
        impulse = mass[free // 3] * (rates[: len(free)] - flat[free])
        flat[free] = rates[: len(free)]
        w, wanted = v[self._nodes], rates[len(free) :].reshape(self._A.shape[:2])
        change = np.einsum("kim,km->ki", self._inverse, wanted - np.einsum("kmi,ki->km", self._A, w))
        v[self._nodes] = w + change
        return np.concatenate([impulse, (mass[self._nodes, None] * change).ravel()])

    def _arrange(self) -> None:
        """Collect the conditions on each node with an oblique plane: first the three components, then the planes."""
        rows = self.prescribed.driven
        self._seen, self.rows = self.prescribed.rows, rows
        if not self._planes:
            return
        self._nodes = np.unique(np.concatenate([nodes for _, nodes in self._planes]))
        self._A = np.zeros((len(self._nodes), 3 + len(self._planes), 3))
        for p, (normal, nodes) in enumerate(self._planes):
            self._A[np.searchsorted(self._nodes, nodes), 3 + p] = normal
        self._held = np.isin(rows // 3, self._nodes)
        self._place, self._component = np.searchsorted(self._nodes, rows[self._held] // 3), rows[self._held] % 3
        self._A[self._place, self._component] = np.eye(3)[self._component]
        self._inverse = np.linalg.pinv(self._A, rcond=SAME)
        self._free = rows[~self._held]
        self.rows = np.concatenate([self._free, (3 * self._nodes[:, None] + np.arange(3)).ravel()])
