"""Energy and momentum of a run: what came in, where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from mpi4py import MPI


@dataclass(frozen=True)
class Ledger:
    """The books at one time, summed over all ranks. Energies and work in J, momentum and impulse in N s.

    Attributes:
        time: s.
        kinetic_energy: Of the nodal masses.
        internal_energy: Work of the stress so far, without the hourglass energy.
        hourglass_energy: Exact, of the current displacement.
        contact_work: Work of the walls on the body; the loss of nodes that stop at a rigid wall is in it.
        external_work: Work of the user's forms.
        reaction_work: Work of the fixed components.
        energy_error: |kinetic + internal + hourglass - work - initial kinetic| over the energy put in.
        momentum: (3,).
        contact_impulse: Of the walls on the body so far, (3,).
        external_impulse: Of the user's forms so far, (3,).
        reaction_impulse: Of the fixed components so far, (3,).
        momentum_error: |change of momentum - impulses| over the largest of initial momentum and impulses.
        contact_nodes: Nodes in contact in the last step.
    """

    time: float
    kinetic_energy: float
    internal_energy: float
    hourglass_energy: float
    contact_work: float
    external_work: float
    reaction_work: float
    energy_error: float
    momentum: tuple[float, float, float]
    contact_impulse: tuple[float, float, float]
    external_impulse: tuple[float, float, float]
    reaction_impulse: tuple[float, float, float]
    momentum_error: float
    contact_nodes: int

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
class Kick:
    """Impulses of supports in half a step, and the mean velocity over it; all (nodes, 3), owned nodes.

    Impulse times mean velocity is the exact work of an impulse.
    """

    contact: np.ndarray
    reaction: np.ndarray
    velocity: np.ndarray


@dataclass
class Books:
    """This rank's running sums; one row each of work (J) and impulse (N s)."""

    internal_work: float = 0.0
    contact_work: float = 0.0
    external_work: float = 0.0
    reaction_work: float = 0.0
    contact_impulse: np.ndarray = field(default_factory=lambda: np.zeros(3))
    external_impulse: np.ndarray = field(default_factory=lambda: np.zeros(3))
    reaction_impulse: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def record(
        self, kicks: Sequence[Kick], du: np.ndarray, internal: np.ndarray, user: np.ndarray | None, dt: float
    ) -> None:
        """Add one step.

        Args:
            kicks: Of its two halves.
            du: Displacement of the step, (nodes, 3), m.
            internal: Mean of the internal force at both ends (trapezoid), to be subtracted, (nodes, 3), N.
            user: Same of the user's forms, or None.
            dt: The step, s.
        """
        for kick in kicks:
            self.contact_work += dot(kick.contact, kick.velocity)
            self.contact_impulse += kick.contact.sum(axis=0)
            self.reaction_work += dot(kick.reaction, kick.velocity)
            self.reaction_impulse += kick.reaction.sum(axis=0)
        self.internal_work += dot(internal, du)
        if user is not None:
            self.external_work -= dot(user, du)
            self.external_impulse -= dt * user.sum(axis=0)

    def pack(self) -> np.ndarray:
        """All sums as one vector, (13,)."""
        works = [self.internal_work, self.contact_work, self.external_work, self.reaction_work]
        return np.concatenate([works, self.contact_impulse, self.external_impulse, self.reaction_impulse])

    def unpack(self, values: np.ndarray) -> None:
        """Take all sums from the vector of `pack`."""
        self.internal_work, self.contact_work, self.external_work, self.reaction_work = (float(v) for v in values[:4])
        impulses = np.array(values[4:]).reshape(3, 3)
        self.contact_impulse, self.external_impulse, self.reaction_impulse = impulses[0], impulses[1], impulses[2]


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of a * b for (n, 3) arrays; einsum, since threaded BLAS costs more than it saves on such small arrays."""
    return float(np.einsum("ni,ni->", a, b))


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


def close(
    comm: MPI.Comm,
    books: Books,
    opening: dict[str, Any],
    time: float,
    mass: np.ndarray,
    v: np.ndarray,
    hourglass: float,
    contact_nodes: int,
) -> Ledger:
    """Sum the books of all ranks; collective.

    Args:
        comm: Communicator.
        books: This rank's sums.
        opening: `totals` at the start, and "hourglass", the hourglass energy then.
        time: s.
        mass: Masses of the owned nodes, (n,), kg.
        v: Velocities of the owned nodes, (n, 3), m/s.
        hourglass: This rank's hourglass energy, J.
        contact_nodes: This rank's nodes in contact.
    """
    local = np.concatenate([books.pack(), [kinetic(mass, v), hourglass], mass @ v, [contact_nodes]])
    total = np.empty_like(local)
    comm.Allreduce(local, total, op=MPI.SUM)
    sums = Books()
    sums.unpack(total[:13])
    kinetic_energy, hourglass_energy, momentum = float(total[13]), float(total[14]), total[15:18]
    work = sums.contact_work + sums.external_work + sums.reaction_work
    internal = sums.internal_work - (hourglass_energy - opening["hourglass"])
    put_in = max(opening["kinetic"] + abs(sums.external_work) + abs(sums.reaction_work), kinetic_energy)
    balance = kinetic_energy + sums.internal_work - work - opening["kinetic"]
    impulse = sums.contact_impulse + sums.external_impulse + sums.reaction_impulse
    scale = max(opening["speed"], float(np.abs(impulse).max()), float(np.linalg.norm(momentum)))
    drift = float(np.linalg.norm(momentum - opening["momentum"] - impulse))
    return Ledger(
        time=time,
        kinetic_energy=kinetic_energy,
        internal_energy=internal,
        hourglass_energy=hourglass_energy,
        contact_work=sums.contact_work,
        external_work=sums.external_work,
        reaction_work=sums.reaction_work,
        energy_error=float(abs(balance) / put_in) if put_in > 0.0 else 0.0,
        momentum=_triple(momentum),
        contact_impulse=_triple(sums.contact_impulse),
        external_impulse=_triple(sums.external_impulse),
        reaction_impulse=_triple(sums.reaction_impulse),
        momentum_error=float(drift / scale) if scale > 0.0 else 0.0,
        contact_nodes=round(total[18]),
    )


def _triple(v: np.ndarray) -> tuple[float, float, float]:
    return (float(v[0]), float(v[1]), float(v[2]))
