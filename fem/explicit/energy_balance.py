"""The balance of energy and momentum of a run: work and impulses against kinetic and internal energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.explicit.contact.system import ContactSystem, Share
from fem.laws.kernels import compiled

WORKS = (
    *("internal_work", "contact_work", "external_work", "reaction_work", "viscous_work"),
    *("obstacle_work", "free_work", "friction_loss"),
)
DRIVEN = ("external_work", "reaction_work", "obstacle_work")  # that bring energy into the system
SUMS = len(WORKS) + 9  # numbers in `Sums.pack`


@dataclass(frozen=True)
class EnergyBalance:
    """Energy and momentum at one time, summed over all ranks. Energies and work in J, momentum and impulse in N s.

    Attributes:
        time: s.
        kinetic_energy: Of the nodal masses.
        internal_energy: Work of the stress of the law so far.
        hourglass_energy: Stored by the hourglass stiffness now, and dissipated by it so far.
        viscous_energy: Dissipated by the bulk viscosity so far.
        contact_energy: Stored in penalty springs now; a contact by impulses stores none.
        contact_loss: Lost at obstacles so far: of nodes that land inelastically on them. The work of an obstacle that
            does not move and has no friction is this loss alone; penalty springs lose only the error of the step.
        friction_loss: Dissipated by friction on obstacles so far.
        obstacle_work: Work on the body of obstacles with a prescribed motion.
        obstacle_energy: Kinetic energy of the obstacles that are free to move.
        external_work: Work of the external forces.
        reaction_work: Work of the prescribed displacements.
        energy_error: |sum of all energies and losses - work - initial kinetic| over the energy put in.
        momentum: Of the body, (3,).
        obstacle_momentum: Of the obstacles that are free to move, (3,).
        contact_impulse: Of the obstacles on the body so far, (3,).
        external_impulse: Of the external forces so far, (3,).
        reaction_impulse: Of the supports at prescribed displacements so far, (3,).
        momentum_error: |change of momentum - impulses| over the largest of initial momentum and impulses.
        contact_nodes: Nodes in contact in the last step.
        added_mass: Mass that mass scaling added, over the mass of the body without it.
    """

    time: float
    kinetic_energy: float
    internal_energy: float
    hourglass_energy: float
    viscous_energy: float
    contact_energy: float
    contact_loss: float
    friction_loss: float
    obstacle_work: float
    obstacle_energy: float
    external_work: float
    reaction_work: float
    energy_error: float
    momentum: tuple[float, float, float]
    obstacle_momentum: tuple[float, float, float]
    contact_impulse: tuple[float, float, float]
    external_impulse: tuple[float, float, float]
    reaction_impulse: tuple[float, float, float]
    momentum_error: float
    contact_nodes: int
    added_mass: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Flat, name -> number; vectors as name_x, name_y, name_z."""
        flat: dict[str, float] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple):
                flat.update({f"{item.name}_{axis}": float(v) for axis, v in zip("xyz", value)})
            else:
                flat[item.name] = value
        return flat


@dataclass(frozen=True)
class Impulses:
    """Impulses on the owned nodes in half a step, and their velocities before and after it.

    Impulse times mean velocity is the exact work of an impulse.

    Attributes:
        contact: Of each obstacle that touched nodes.
        rows: Prescribed components, node * 3 + component, (p,).
        reaction: Impulse of the supports on each of them, (p,), N s.
        before: Velocities before, (nodes, 3), m/s.
        after: Velocities after, (nodes, 3), m/s.
    """

    contact: tuple[Share, ...]
    rows: np.ndarray
    reaction: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass
class Sums:
    """Work (J) and impulses (N s) of this rank since the start."""

    internal_work: float = 0.0
    contact_work: float = 0.0
    external_work: float = 0.0
    reaction_work: float = 0.0
    viscous_work: float = 0.0
    obstacle_work: float = 0.0
    free_work: float = 0.0
    friction_loss: float = 0.0
    contact_impulse: np.ndarray = field(default_factory=lambda: np.zeros(3))
    external_impulse: np.ndarray = field(default_factory=lambda: np.zeros(3))
    reaction_impulse: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def record(
        self,
        halves: Sequence[Impulses],
        du: np.ndarray,
        internal: tuple[np.ndarray, np.ndarray],
        external: tuple[np.ndarray, np.ndarray] | None,
        viscous: float,
        dt: float,
    ) -> None:
        """Add one step; the work of a force is that of its mean (trapezoid).

        Args:
            halves: Of its two halves.
            du: Displacement of the step, (nodes, 3), m.
            internal: Internal force at both ends, to be subtracted, (nodes, 3), N; ghosts may follow.
            external: Same of the external force, which is added; None if there is none.
            viscous: Work of the bulk viscosity, J.
            dt: The step, s.
        """
        for half in halves:
            for share in half.contact:
                self._add_share(share, 0.5 * (half.before[share.nodes] + half.after[share.nodes]))
            if len(half.rows):
                rows, reaction = half.rows, half.reaction
                self.reaction_work += 0.5 * float(
                    np.einsum("n,n->", reaction, half.before.reshape(-1)[rows] + half.after.reshape(-1)[rows])
                )
                self.reaction_impulse += np.bincount(rows % 3, reaction, minlength=3)
        self.internal_work += mean_work(*internal, du)
        self.viscous_work += viscous
        if external is not None:
            self.external_work += mean_work(*external, du)
            self.external_impulse += 0.5 * dt * (external[0] + external[1])[: len(du)].sum(axis=0)

    def _add_share(self, share: Share, velocity: np.ndarray) -> None:
        """Add what an obstacle did in half a step to nodes with the mean velocities (k, 3), m/s."""
        impulse = share.impulse.sum(axis=0)
        work = float(impulse @ share.velocity)
        self.contact_work += dot(share.impulse, velocity)
        self.contact_impulse += impulse
        self.free_work += work if share.free else 0.0
        self.obstacle_work += 0.0 if share.free else work
        if share.friction is not None:
            self.friction_loss -= dot(share.friction, velocity - share.velocity)

    def pack(self) -> np.ndarray:
        """All sums as one vector, (17,)."""
        works = [getattr(self, name) for name in WORKS]
        return np.concatenate([works, self.contact_impulse, self.external_impulse, self.reaction_impulse])

    def unpack(self, values: np.ndarray) -> None:
        """Take all sums from the vector of `pack`."""
        for name, value in zip(WORKS, values):
            setattr(self, name, float(value))
        impulses = np.array(values[len(WORKS) :]).reshape(3, 3)
        self.contact_impulse, self.external_impulse, self.reaction_impulse = impulses[0], impulses[1], impulses[2]


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of a * b for (n, 3) arrays; einsum, since threaded BLAS costs more than it saves on such small arrays."""
    return float(np.einsum("ni,ni->", a, b))


@compiled
def mean_work(force_n: np.ndarray, force: np.ndarray, du: np.ndarray) -> float:
    """Work of the mean of two forces, (n, 3) or more rows, N, on displacements (n, 3), m."""
    x, y, z = 0.0, 0.0, 0.0
    for i in range(du.shape[0]):
        x += 0.5 * (force_n[i, 0] + force[i, 0]) * du[i, 0]
        y += 0.5 * (force_n[i, 1] + force[i, 1]) * du[i, 1]
        z += 0.5 * (force_n[i, 2] + force[i, 2]) * du[i, 2]
    return x + y + z


def kinetic(mass: np.ndarray, v: np.ndarray) -> float:
    """Kinetic energy of nodal masses (n,) with velocities (n, 3), J."""
    return 0.5 * float(np.einsum("n,ni,ni->", mass, v, v))


def totals(comm: MPI.Comm, mass: np.ndarray, v: np.ndarray) -> dict[str, Any]:
    """Kinetic energy, sum of mass times speed, and momentum of all ranks; collective.

    Args:
        comm: Communicator.
        mass: Masses of the owned nodes, (n,), kg.
        v: Their velocities, (n, 3), m/s.
    """
    local = np.concatenate([[kinetic(mass, v), mass @ np.linalg.norm(v, axis=1)], mass @ v])
    total = np.empty_like(local)
    comm.Allreduce(local, total, op=MPI.SUM)
    return {"kinetic": float(total[0]), "speed": float(total[1]), "momentum": total[2:]}


def balance(
    comm: MPI.Comm, sums: Sums, initial: dict[str, Any], time: float, mass: np.ndarray, v: np.ndarray,
    hourglass: float, contact: ContactSystem, x: np.ndarray,
) -> EnergyBalance:  # fmt: skip
    """Energy and momentum of all ranks; collective.

    Args:
        comm: Communicator.
        sums: This rank's sums.
        initial: `totals` at the start, and "hourglass", the hourglass energy then.
        time: s.
        mass: Masses of the owned nodes, (n,), kg.
        v: Velocities of the owned nodes, (n, 3), m/s.
        hourglass: This rank's hourglass energy, J.
        contact: The obstacles.
        x: Positions of the owned nodes, (n, 3), m.
    """
    mechanical = [kinetic(mass, v), hourglass, contact.stored(x)]
    local = np.concatenate([sums.pack(), mechanical, mass @ v, [contact.touching]])
    total = np.empty_like(local)
    comm.Allreduce(local, total, op=MPI.SUM)
    whole = Sums()
    whole.unpack(total[:SUMS])
    kinetic_energy, hourglass_energy, stored = (float(value) for value in total[SUMS : SUMS + 3])
    momentum = total[SUMS + 3 : SUMS + 6]
    work = whole.contact_work + whole.external_work + whole.reaction_work
    internal = whole.internal_work - (hourglass_energy - initial["hourglass"]) - whole.viscous_work
    flying, at_start = contact.energy()
    put_in = initial["kinetic"] + at_start + sum(abs(getattr(whole, name)) for name in DRIVEN)
    put_in = max(put_in, kinetic_energy + flying)
    # The body, and the free obstacles, whose change of energy is the work that they did.
    error = kinetic_energy + whole.internal_work - work - initial["kinetic"] + flying - at_start + whole.free_work
    landed = whole.contact_work - whole.obstacle_work - whole.free_work + whole.friction_loss + stored
    impulse = whole.contact_impulse + whole.external_impulse + whole.reaction_impulse
    scale = max(initial["speed"], float(np.abs(impulse).max()), float(np.linalg.norm(momentum)))
    drift = float(np.linalg.norm(momentum - initial["momentum"] - impulse))
    return EnergyBalance(
        time=time,
        kinetic_energy=kinetic_energy,
        internal_energy=internal,
        hourglass_energy=hourglass_energy,
        viscous_energy=whole.viscous_work,
        contact_energy=stored,
        contact_loss=-landed,
        friction_loss=whole.friction_loss,
        obstacle_work=whole.obstacle_work,
        obstacle_energy=flying,
        external_work=whole.external_work,
        reaction_work=whole.reaction_work,
        energy_error=float(abs(error) / put_in) if put_in > 0.0 else 0.0,
        momentum=_triple(momentum),
        obstacle_momentum=_triple(contact.momentum()),
        contact_impulse=_triple(whole.contact_impulse),
        external_impulse=_triple(whole.external_impulse),
        reaction_impulse=_triple(whole.reaction_impulse),
        momentum_error=float(drift / scale) if scale > 0.0 else 0.0,
        contact_nodes=round(total[-1]),
    )


def _triple(v: np.ndarray) -> tuple[float, float, float]:
    return (float(v[0]), float(v[1]), float(v[2]))
