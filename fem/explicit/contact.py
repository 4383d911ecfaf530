"""Frictionless contact of nodes with a rigid plane, by impulses, and the end of a contact: the rebound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI


def along(v: np.ndarray, normal: tuple[float, float, float]) -> np.ndarray:
    """Components of vectors (n, 3) along a direction, (n,); no BLAS call, whose threads cost more than the work."""
    return v[:, 0] * normal[0] + v[:, 1] * normal[1] + v[:, 2] * normal[2]


@dataclass(frozen=True)
class RigidPlane:
    """A rigid, frictionless plane that does not move.

    Attributes:
        point: A point of the plane, m.
        normal: Direction out of the plane, towards the body; made a unit vector.
    """

    point: tuple[float, float, float] = (0.0, 0.0, 0.0)
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("point", "normal"):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.shape != (3,) or not np.all(np.isfinite(value)):
                given = getattr(self, name)
                raise ValueError(f"The {name} of a rigid plane must be three finite numbers, got {given}.")
            object.__setattr__(self, name, tuple(value.tolist()))
        length = float(np.linalg.norm(self.normal))
        if length == 0.0:
            raise ValueError("The normal of a rigid plane must not be zero.")
        object.__setattr__(self, "normal", tuple(float(c) / length for c in self.normal))

    def gap(self, x: np.ndarray) -> np.ndarray:
        """Signed distance of positions x (n, 3) from the plane, (n,), m; negative inside it."""
        return along(x - np.asarray(self.point), self.normal)


def rigid_planes(given: RigidPlane | Sequence[RigidPlane]) -> tuple[RigidPlane, ...]:
    """The rigid planes of an argument.

    Raises:
        ValueError: If there is anything else in it.
    """
    planes = (given,) if isinstance(given, RigidPlane) else tuple(given)
    for plane in planes:
        if not isinstance(plane, RigidPlane):
            raise ValueError(f"contact must be a list of RigidPlane, got {type(plane).__name__}.")
    return planes


def keep_out(
    planes: Sequence[RigidPlane], x: np.ndarray, v: np.ndarray, mass: np.ndarray, dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Impulses that bring nodes which would pass a plane within dt exactly onto it; changes v in place.

    The gap after the step is predicted from v; the impulse is what closes it, never negative. A node that leaves by
    itself needs none: release is automatic.

    Args:
        planes: The rigid planes.
        x: Positions at the start of the step, (n, 3), m.
        v: Velocity that will carry the nodes through the step, (n, 3), m/s; corrected in place.
        mass: Nodal masses, (n,), kg.
        dt: Step, s.

    Returns:
        Impulse on each node (n, 3), N s, and which nodes are in contact, (n,) bool.
    """
    impulse = np.zeros_like(v)
    touching = np.zeros(len(x), dtype=bool)
    for plane in planes:
        normal = np.asarray(plane.normal)
        gap = plane.gap(x) + dt * along(v, plane.normal)
        inside = np.flatnonzero(gap < 0.0)
        change = (-gap[inside] / dt)[:, None] * normal
        v[inside] += change
        impulse[inside] += mass[inside, None] * change
        touching[inside] = True
    return impulse, touching


def stop_approach(
    planes: Sequence[RigidPlane], x: np.ndarray, v: np.ndarray, mass: np.ndarray, touching: np.ndarray, tolerance: float
) -> np.ndarray:
    """Impulses that stop nodes on a plane from moving into it; changes v in place.

    Args:
        planes: The rigid planes.
        x: Positions at the end of the step, (n, 3), m.
        v: Velocity there, (n, 3), m/s; corrected in place.
        mass: Nodal masses, (n,), kg.
        touching: Nodes that `keep_out` put on a plane in this step, (n,) bool.
        tolerance: Gap that counts as contact, m.

    Returns:
        Impulse on each node, (n, 3), N s.
    """
    impulse = np.zeros_like(v)
    nodes = np.flatnonzero(touching)
    for plane in planes:
        normal = np.asarray(plane.normal)
        approach = along(v[nodes], plane.normal)
        stop = (approach < 0.0) & (plane.gap(x[nodes]) <= tolerance)
        change = -approach[stop, None] * normal
        v[nodes[stop]] += change
        impulse[nodes[stop]] += mass[nodes[stop], None] * change
    return impulse


def transit_time(comm: MPI.Comm, x: np.ndarray, plane: RigidPlane, wave_speed: float) -> float:
    """Time of a longitudinal wave through a body along the normal of a rigid plane, s; collective.

    Args:
        comm: Communicator.
        x: Node coordinates of this rank, (n, 3), m.
        plane: The rigid plane.
        wave_speed: sqrt((K + 4 G / 3) / rho), m/s.
    """
    height = along(x, plane.normal)
    ends = np.array([height.max(initial=-np.inf), -height.min(initial=np.inf)])
    total = np.empty(2)
    comm.Allreduce(ends, total, op=MPI.MAX)
    return float(total.sum()) / wave_speed


def left_for_good(time: float, last_contact: float, transit: float, momentum: np.ndarray, plane: RigidPlane) -> bool:
    """Whether a body that had touched a rigid plane has been free for the transit time of a wave and moves away.

    Single nodes may lift off and land again while waves run in the body; after one passage of a wave none will return.

    Args:
        time: Now, s.
        last_contact: Time of the last contact, s; -inf if there was none.
        transit: Transit time, s.
        momentum: Of the body, (3,), N s.
        plane: The rigid plane.
    """
    free = np.isfinite(last_contact) and time - last_contact >= transit
    return bool(free and float(momentum @ np.asarray(plane.normal)) > 0.0)
