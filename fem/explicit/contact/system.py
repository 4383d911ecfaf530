"""All obstacles of a run: where they are, how fast they move, and what they exchange with the body.

An obstacle that is free to move takes part in the contact conditions: within each half of a step its velocity V and the
impulses J(V) on the nodes solve M (V - V_n) + J(V) = 0 by Newton's method, with one reduction in each iteration. Its
velocity is then what the impulses make it, so that momentum is exchanged exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.explicit.contact.impulses import Encounter, Touches, keep_out, no_touches, spring_impulses, stop_approach
from fem.explicit.contact.obstacle import FreeBody, Obstacle, check_obstacle, prescribed_displacement
from fem.explicit.contact.shapes import RigidPlane, along

ITERATIONS = 30  # of Newton's method for the velocities of free obstacles
TOLERANCE = 1e-13  # of their momentum and impulses
DEEPEST = 1e-6  # of the size of the body: how deep a node may lie in an obstacle at the start


@dataclass(frozen=True)
class Share:
    """What one obstacle did to the nodes within half a step.

    Attributes:
        nodes: Nodes that it touched, (k,).
        impulse: On each of them, (k, 3), N s.
        friction: The tangential part of it, (k, 3), N s; None without friction.
        velocity: Mean velocity of the obstacle in this half, (3,), m/s; impulse times velocity is the exact work.
        free: Whether it is free to move.
    """

    nodes: np.ndarray
    impulse: np.ndarray
    friction: np.ndarray | None
    velocity: np.ndarray
    free: bool


def rigid_obstacles(given: Obstacle | Sequence[Obstacle]) -> tuple[Obstacle, ...]:
    """The obstacles of an argument.

    Raises:
        ValueError: If there is anything else in it, or an attribute of one does not fit.
    """
    obstacles = (given,) if isinstance(given, Obstacle) else tuple(given)
    for obstacle in obstacles:
        if not isinstance(obstacle, Obstacle):
            raise ValueError(f"contact must be a list of obstacles, as RigidPlane, got {type(obstacle).__name__}.")
        check_obstacle(obstacle)
        prescribed_displacement(obstacle.motion, 0.0)
    return obstacles


class ContactSystem:
    """The obstacles of a run and their motion.

    Args:
        comm: Communicator.
        obstacles: The obstacles.
        mass: Masses of the owned nodes, (n,), kg.
        tolerance: Gap that counts as contact, m.

    Attributes:
        obstacles: The obstacles.
        displacement: Of the obstacles since time zero, (p, 3), m.
        velocity: Of the obstacles, (p, 3), m/s.
        touching: Owned nodes in contact in the last step.
    """

    def __init__(self, comm: MPI.Comm, obstacles: Sequence[Obstacle], mass: np.ndarray, tolerance: float) -> None:
        self.comm, self.obstacles, self._mass, self._tolerance = comm, tuple(obstacles), mass, tolerance
        count = len(self.obstacles)
        self.displacement, self.velocity = np.zeros((count, 3)), np.zeros((count, 3))
        self.touching = 0
        self._x = np.empty((len(mass), 3))  # work array
        self._stiffness, self._held = 0.0, np.zeros((len(mass), count), dtype=bool)
        self._landed = no_touches(count)
        self._moved = [(p, o) for p, o in enumerate(self.obstacles) if o.motion is not None]
        self._bodies = [(p, o.motion) for p, o in enumerate(self.obstacles) if isinstance(o.motion, FreeBody)]
        for p, body in self._bodies:
            self.velocity[p] = body.velocity
        self._put(0.0)

    @property
    def penalty(self) -> float:
        """Sum of the penalties."""
        return sum(obstacle.penalty for obstacle in self.obstacles)

    def set_rest_step(self, rest_step: float) -> None:
        """Tell the springs the stable step of the body at rest, s."""
        self._stiffness = 1.0 / rest_step**2 if 0.0 < rest_step < np.inf else 0.0

    def check_gaps(self, x: np.ndarray, size: float) -> None:
        """Check what the obstacles return, and that no node lies inside one; find those that may not leave one (local).

        Args:
            x: Positions of the nodes, (n, 3), m.
            size: Of the body, m.

        Raises:
            ValueError: If a gap or gradient has a wrong shape or is not finite, or a node lies inside.
        """
        for p, obstacle in enumerate(self.obstacles):
            kind, y = type(obstacle).__name__, x - self.displacement[p]
            found: dict[str, np.ndarray] = {}
            for name, shape in (("gap", (len(x),)), ("gradient", (len(x), 3))):
                value = found[name] = np.asarray(getattr(obstacle, name)(y))
                if value.shape != shape or not np.all(np.isfinite(value)):
                    raise ValueError(
                        f"The {name} of obstacle {p} ({kind}) must be finite and of shape {shape}, got {value.shape}."
                    )
            gap = found["gap"]
            deepest = float(-gap.min(initial=np.inf))
            if deepest > DEEPEST * size:
                raise ValueError(f"A node lies {deepest:.3g} m inside obstacle {p} ({kind}) at the start.")
            if not obstacle.separation:
                self._held[:, p] = np.abs(gap[: len(self._mass)]) <= DEEPEST * size

    def _put(self, time: float) -> None:
        """Put the obstacles with a prescribed motion to their places at a time, s."""
        for p, obstacle in self._moved:
            at = prescribed_displacement(obstacle.motion, time)
            if at is not None:
                self.displacement[p] = at

    def first_half(self, X: np.ndarray, u: np.ndarray, v: np.ndarray, time: float, dt: float) -> tuple[Share, ...]:
        """Impulses that keep nodes out in a step from `time`; changes v in place and moves the obstacles; collective.

        Args:
            X: Reference positions of the owned nodes, (n, 3), m.
            u: Their displacements at the start of the step, (n, 3), m.
            v: Their velocities, with the half step of the forces, (n, 3), m/s.
            time: At the start of the step, s.
            dt: The step, s.

        Returns:
            What each obstacle did to the nodes that it touched.
        """
        if not self.obstacles:
            return ()
        x = np.add(X, u, out=self._x)
        place, before = self.displacement.copy(), self.velocity.copy()
        for p, obstacle in self._moved:
            at = prescribed_displacement(obstacle.motion, time + dt)
            if at is not None:
                before[p] = self.velocity[p] = (at - place[p]) / dt
        here = Encounter(self.obstacles, place, self.velocity, x, v, self._mass)
        springs = self._spring(here, 0.5 * dt)
        self._apply(springs, v)
        landed = self._exchange(lambda V: keep_out(here.at(V), dt))
        self._apply(landed, v)
        if self._moved:
            self.displacement += dt * self.velocity
            self._put(time + dt)
        self._landed = landed
        self.touching = len(np.union1d(springs.nodes, landed.nodes) if len(springs.nodes) else landed.nodes)
        return self._shares(before, springs, landed)

    def _apply(self, touches: Touches, v: np.ndarray) -> None:
        """Change the velocities (n, 3), m/s, of the nodes by their impulses."""
        if len(touches.nodes):
            v[touches.nodes] += touches.impulse / self._mass[touches.nodes, None]

    def second_half(self, X: np.ndarray, u: np.ndarray, v: np.ndarray, dt: float) -> tuple[Share, ...]:
        """Impulses at the end of a step: nodes in contact do not approach; changes v in place; collective.

        Args:
            X: Reference positions of the owned nodes, (n, 3), m.
            u: Their displacements at the end of the step, (n, 3), m.
            v: Their velocities, with the second half step of the forces, (n, 3), m/s.
            dt: The step, s.

        Returns:
            What each obstacle did to the nodes that it touched.
        """
        if not self.obstacles or not (len(self._landed.nodes) or self.penalty or self._bodies):
            return ()
        x = np.add(X, u, out=self._x)
        before = self.velocity.copy()
        here = Encounter(self.obstacles, self.displacement, self.velocity, x, v, self._mass)
        springs = self._spring(here, 0.5 * dt)
        self._apply(springs, v)
        stopped = self._exchange(lambda V: stop_approach(here.at(V), self._landed, self._tolerance))
        self._apply(stopped, v)
        return self._shares(before, springs, stopped)

    def _spring(self, here: Encounter, duration: float) -> Touches:
        """Impulses of the penalty springs within a duration, s."""
        if self.penalty == 0.0:
            return no_touches(len(self.obstacles))
        return spring_impulses(here, self._stiffness, duration, self._held)[0]

    def _exchange(self, strike: Callable[[np.ndarray], Touches]) -> Touches:
        """Impulses that fit the velocities which they give to the free obstacles; sets these velocities."""
        if not self._bodies:
            return strike(self.velocity)
        start = self.velocity.copy()
        touches = strike(self.velocity)
        index = [p for p, _ in self._bodies]
        mass = np.array([body.mass for _, body in self._bodies])
        free = np.array([[axis in body.axes for axis in "xyz"] for _, body in self._bodies])
        count, V_n, V = len(index), start[index], start[index]
        for iteration in range(ITERATIONS):
            impulses, slope = touches.of_obstacles[:, index], np.asarray(touches.slope)[index]
            here = [impulses.sum(axis=0), np.abs(impulses).sum(axis=0), slope]
            total = np.empty(15 * count)
            self.comm.Allreduce(np.concatenate([part.ravel() for part in here]), total, op=MPI.SUM)
            J = np.where(free, total[: 3 * count].reshape(-1, 3), 0.0)
            rest = mass[:, None] * (V - V_n) + J
            scale = total[3 * count : 6 * count].reshape(-1, 3).sum(axis=1) + mass * np.abs(V_n).sum(axis=1)
            if np.all(np.abs(rest).max(axis=1) <= TOLERANCE * scale) or iteration == ITERATIONS - 1:
                break
            both = free[:, :, None] & free[:, None, :]
            matrix = np.where(both, total[6 * count :].reshape(-1, 3, 3), 0.0) + mass[:, None, None] * np.eye(3)
            V = V - np.linalg.solve(matrix, rest[..., None])[..., 0]
            self.velocity[index] = V
            touches = strike(self.velocity)
        self.velocity[index] = V_n - J / mass[:, None]
        return touches

    def _shares(self, before: np.ndarray, *all_touches: Touches) -> tuple[Share, ...]:
        """The share of each obstacle that touched nodes; its velocities before and now, (p, 3), have their mean."""
        shares = []
        for touches in all_touches:
            if not len(touches.nodes):
                continue
            mean = 0.5 * (before + self.velocity)
            for p, obstacle in enumerate(self.obstacles):
                rubbed = None if touches.friction is None else touches.friction[:, p]
                free = isinstance(obstacle.motion, FreeBody)
                shares.append(Share(touches.nodes, touches.of_obstacles[:, p], rubbed, mean[p], free))
        return tuple(shares)

    def stored(self, x: np.ndarray) -> float:
        """Energy of the penalty springs of this rank's nodes at positions x (n, 3), J."""
        if self.penalty == 0.0:
            return 0.0
        here = Encounter(self.obstacles, self.displacement, self.velocity, x, np.zeros_like(x), self._mass)
        return spring_impulses(here, self._stiffness, 0.0, self._held)[1]

    def energy(self) -> tuple[float, float]:
        """Kinetic energy of the free obstacles now and at time zero, J."""
        now = sum((0.5 * body.mass * float(np.sum(self.velocity[p] ** 2)) for p, body in self._bodies), 0.0)
        return now, sum((0.5 * body.mass * float(np.sum(np.square(body.velocity))) for _, body in self._bodies), 0.0)

    def momentum(self) -> np.ndarray:
        """Momentum of the free obstacles, (3,), N s."""
        return np.sum([body.mass * self.velocity[p] for p, body in self._bodies], axis=0) + np.zeros(3)

    @property
    def state(self) -> np.ndarray:
        """Displacement and velocity of the obstacles, (6 p,), for a checkpoint or to return to."""
        return np.concatenate([self.displacement.ravel(), self.velocity.ravel()])

    @state.setter
    def state(self, values: np.ndarray) -> None:
        self.displacement, self.velocity = (part.reshape(-1, 3).copy() for part in np.split(np.asarray(values), 2))

    def plane(self) -> RigidPlane | None:
        """The first obstacle, if it is a plane that does not move; a body rebounds from it."""
        first = self.obstacles[0] if self.obstacles else None
        return first if isinstance(first, RigidPlane) and first.motion is None else None


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


def left_for_good(time: float, last_contact: float, transit: float, momentum: np.ndarray, plane: Any) -> bool:
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
