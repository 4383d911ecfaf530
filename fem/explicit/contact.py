"""Frictionless contact of nodes with rigid planes, and the end of a contact: the rebound.

Two ways to keep nodes out:

- **Impulses** (penalty 0, the default): a node that would pass a plane is put exactly onto it. It lands inelastically:
  the normal kinetic energy of the nodal mass is lost, half a layer of cells for a flat foot, so that the loss falls
  with the first power of the cell size. Impact codes book it in the same way for rigid walls ("stonewall energy").
- **Penalty**: a spring of the stiffness k = penalty * mass / dt_0^2 at each node, with the stable step dt_0 of the body
  at rest. Nothing is lost: what the springs store returns when the nodes leave. Nodes enter the plane by about
  2 p / (penalty * M) of a cell at the pressure p and the wave modulus M.

Where several planes meet, the impulses of a node solve the contact conditions of all of them together: of all
velocities that do not enter any plane, the node takes the nearest (Moreau).

References:
    Moreau (1988), 10.1007/978-3-7091-2624-0_1: impact as the projection of velocities.
    Belytschko and Neal (1991), 10.1002/nme.1620310309: penalty and impulses in explicit contact, and stable steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

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
        penalty: Contact stiffness over mass / dt_0^2 (see the module), at most 2; 0 is contact by impulses.
    """

    point: tuple[float, float, float] = (0.0, 0.0, 0.0)
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)
    penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("point", "normal"):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.shape != (3,) or not np.all(np.isfinite(value)):
                given = getattr(self, name)
                raise ValueError(f"The {name} of a rigid plane must be three finite numbers, got {given}.")
            object.__setattr__(self, name, tuple(value.tolist()))
        if not 0.0 <= self.penalty <= 2.0:
            raise ValueError(f"The penalty of a rigid plane must be in [0, 2], got {self.penalty}.")
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


def spring_force(
    planes: Sequence[RigidPlane], x: np.ndarray, mass: np.ndarray, dt_0: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Force of the penalty springs on nodes, which of them are in contact, and the energy stored.

    Args:
        planes: The rigid planes; those without a penalty do not count.
        x: Positions, (n, 3), m.
        mass: Nodal masses, (n,), kg.
        dt_0: Stable step of the body at rest, s.

    Returns:
        Force (n, 3), N; contact, (n,) bool; energy, J.
    """
    force, touching, energy = np.zeros_like(x), np.zeros(len(x), dtype=bool), 0.0
    for plane in planes:
        if plane.penalty > 0.0:
            depth = np.maximum(-plane.gap(x), 0.0)
            push = plane.penalty / dt_0**2 * mass * depth
            force += push[:, None] * np.asarray(plane.normal)
            touching |= depth > 0.0
            energy += 0.5 * float(np.sum(push * depth))
    return force, touching, energy


def nearest_velocity(normals: np.ndarray, least: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Change that brings velocities to the nearest ones with the normal components n_p . v >= least.

    Args:
        normals: Unit normals of the planes, (p, 3).
        least: Least normal component at each plane, (n, p), m/s; -inf where the plane does not count.
        v: Velocities, (n, 3), m/s.

    Returns:
        Change, (n, 3), m/s: a sum of normals with factors that are not negative, as Moreau's projection has.
    """
    change = np.zeros_like(v)
    lack = least - np.stack([along(v, tuple(n)) for n in normals], axis=1)
    left = np.flatnonzero((lack > 0.0).any(axis=1))
    for count in range(1, min(3, len(normals)) + 1):
        for chosen in combinations(range(len(normals)), count):
            part = np.array(chosen)
            gram = normals[part] @ normals[part].T
            if np.linalg.det(gram) < 1e-12:  # parallel planes
                continue
            need = lack[np.ix_(left, part)]
            finite = np.isfinite(need).all(axis=1)
            factor = np.where(finite[:, None], need, 0.0) @ np.linalg.inv(gram)
            step = factor @ normals[part]
            rest = lack[left] - step @ normals.T
            scale = 1e-12 * np.abs(np.where(np.isfinite(lack[left]), lack[left], 0.0)).max(axis=1, initial=0.0)
            solved = finite & (factor >= 0.0).all(axis=1) & (rest <= scale[:, None]).all(axis=1)
            change[left[solved]] = step[solved]
            left = left[~solved]
    return change


def keep_out(
    planes: Sequence[RigidPlane], x: np.ndarray, v: np.ndarray, mass: np.ndarray, dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Impulses that bring nodes which would pass a plane within dt exactly onto it; changes v in place.

    The gap after the step is predicted from v; the impulse is what closes it, never negative. A node that leaves by
    itself needs none: release is automatic.

    Args:
        planes: The rigid planes; those with a penalty do not count.
        x: Positions at the start of the step, (n, 3), m.
        v: Velocity that will carry the nodes through the step, (n, 3), m/s; corrected in place.
        mass: Nodal masses, (n,), kg.
        dt: Step, s.

    Returns:
        Impulse on each node (n, 3), N s, and which nodes are in contact, (n,) bool.
    """
    planes = [plane for plane in planes if plane.penalty == 0.0]
    if not planes:
        return np.zeros_like(v), np.zeros(len(x), dtype=bool)
    normals = np.array([plane.normal for plane in planes])
    change = nearest_velocity(normals, np.stack([-plane.gap(x) / dt for plane in planes], axis=1), v)
    v += change
    return mass[:, None] * change, np.asarray(change.any(axis=1))


def stop_approach(
    planes: Sequence[RigidPlane], x: np.ndarray, v: np.ndarray, mass: np.ndarray, touching: np.ndarray, tolerance: float
) -> np.ndarray:
    """Impulses that stop nodes on a plane from moving into it; changes v in place.

    Args:
        planes: The rigid planes; those with a penalty do not count.
        x: Positions at the end of the step, (n, 3), m.
        v: Velocity there, (n, 3), m/s; corrected in place.
        mass: Nodal masses, (n,), kg.
        touching: Nodes that `keep_out` put on a plane in this step, (n,) bool.
        tolerance: Gap that counts as contact, m.

    Returns:
        Impulse on each node, (n, 3), N s.
    """
    impulse = np.zeros_like(v)
    planes = [plane for plane in planes if plane.penalty == 0.0]
    nodes = np.flatnonzero(touching)
    if planes and len(nodes):
        normals = np.array([plane.normal for plane in planes])
        on = np.stack([plane.gap(x[nodes]) <= tolerance for plane in planes], axis=1)
        change = nearest_velocity(normals, np.where(on, 0.0, -np.inf), v[nodes])
        v[nodes] += change
        impulse[nodes] = mass[nodes, None] * change
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
