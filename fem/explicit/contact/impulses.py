"""Impulses of rigid obstacles on nodes: landing, resting, springs, and Coulomb friction.

Where several obstacles meet, the normal impulses of a node solve the contact conditions of all of them together: of all
velocities that do not enter any obstacle, the node takes the nearest (Moreau). A curved surface is linearised where the
node would be at the end of the step, and the node is put onto it by Newton's method, which for a signed distance is the
projection on the nearest point.

References:
    Moreau (1988), 10.1007/978-3-7091-2624-0_1: impact as the projection of velocities; friction in impulses.
    Belytschko and Neal (1991), 10.1002/nme.1620310309: penalty and impulses in explicit contact, and stable steps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fem.explicit.contact.obstacle import FreeBody, Obstacle, distance
from fem.laws.kernels import compiled

SWEEPS = 10  # of Newton's method onto a surface; a plane needs one, a signed distance two


@dataclass(frozen=True)
class Encounter:
    """Obstacles and the nodes that may touch them, at one time.

    Attributes:
        obstacles: The obstacles.
        place: Their displacements, (p, 3), m.
        velocity: Their velocities, (p, 3), m/s.
        x: Positions of the nodes, (n, 3), m.
        v: Their velocities, (n, 3), m/s; no function here changes them.
        mass: Their masses, (n,), kg.
    """

    obstacles: Sequence[Obstacle]
    place: np.ndarray
    velocity: np.ndarray
    x: np.ndarray
    v: np.ndarray
    mass: np.ndarray

    def at(self, velocity: np.ndarray) -> Encounter:
        """The same with other velocities of the obstacles, (p, 3), m/s."""
        return replace(self, velocity=velocity)


@dataclass(frozen=True)
class Touches:
    """Impulses of obstacles on some nodes within half a step.

    Attributes:
        nodes: Which nodes, (k,).
        normal: Normal impulse of each obstacle, (k, p, 3), N s.
        friction: Tangential impulse, (k, p, 3), N s; None where no obstacle has friction.
        slope: Derivative of the sum of the impulses of an obstacle by its velocity, (p, 3, 3), kg; None where no
            obstacle is free to move.
    """

    nodes: np.ndarray
    normal: np.ndarray
    friction: np.ndarray | None
    slope: np.ndarray | None

    @functools.cached_property
    def of_obstacles(self) -> np.ndarray:
        """Impulse of each obstacle, (k, p, 3), N s."""
        return self.normal if self.friction is None else self.normal + self.friction

    @functools.cached_property
    def impulse(self) -> np.ndarray:
        """Sum over the obstacles, (k, 3), N s."""
        whole = self.of_obstacles
        return whole[:, 0] if whole.shape[1] == 1 else np.asarray(whole.sum(axis=1))


def no_touches(count: int) -> Touches:
    """Touches of no node by a number of obstacles."""
    return Touches(np.empty(0, dtype=np.intp), np.zeros((0, count, 3)), None, np.zeros((count, 3, 3)))


def cone_factors(normals: np.ndarray, lack: np.ndarray) -> np.ndarray:
    """Factors of the normals in Moreau's projection: the least change with n_p . change >= lack_p.

    Args:
        normals: Unit normals of the obstacles at each node, (n, p, 3).
        lack: What the normal components of the velocity lack, (n, p), m/s; -inf where an obstacle does not count.

    Returns:
        Factors, (n, p), m/s, none negative; the change is their sum with the normals.
    """
    if lack.shape[1] == 1:
        return np.maximum(lack, 0.0)
    factors = np.zeros_like(lack)
    left = np.flatnonzero((lack > 0.0).any(axis=1))
    for count in range(1, min(3, lack.shape[1]) + 1):
        for chosen in combinations(range(lack.shape[1]), count):
            part = np.array(chosen)
            sub, need = normals[left][:, part], lack[np.ix_(left, part)]
            gram = np.einsum("nci,ndi->ncd", sub, sub)
            usable = np.isfinite(need).all(axis=1) & (np.linalg.det(gram) > 1e-12)  # not parallel
            gram[~usable], need[~usable] = np.eye(count), 0.0
            factor = np.linalg.solve(gram, need[..., None])[..., 0]
            step = np.einsum("nc,nci->ni", factor, sub)
            rest = lack[left] - np.einsum("ni,npi->np", step, normals[left])
            scale = 1e-12 * np.abs(np.where(np.isfinite(lack[left]), lack[left], 0.0)).max(axis=1, initial=0.0)
            solved = usable & (factor >= 0.0).all(axis=1) & (rest <= scale[:, None]).all(axis=1)
            factors[np.ix_(left[solved], part)] = factor[solved]
            left = left[~solved]
    return factors


def nearest_velocity(normals: np.ndarray, least: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Change that brings velocities to the nearest ones with the normal components n_p . v >= least.

    Args:
        normals: Unit normals of the obstacles, (p, 3), or at each node, (n, p, 3).
        least: Least normal component at each obstacle, (n, p), m/s; -inf where it does not count.
        v: Velocities, (n, 3), m/s.

    Returns:
        Change, (n, 3), m/s: a sum of normals with factors that are not negative, as Moreau's projection has.
    """
    normals = np.broadcast_to(normals, (*least.shape, 3))
    factors = cone_factors(normals, least - np.einsum("npi,ni->np", normals, v))
    return np.asarray(np.einsum("np,npi->ni", factors, normals))


def rub(
    normals: np.ndarray, factors: np.ndarray, friction: np.ndarray, velocity: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coulomb friction, one obstacle after the other; changes w in place.

    Args:
        normals: Unit normals, (k, p, 3).
        factors: Change of the normal velocity by each obstacle, (k, p), m/s.
        friction: Coefficients, (p,).
        velocity: Of the obstacles, (p, 3), m/s.
        w: Velocities of the nodes, (k, 3), m/s.

    Returns:
        Change by each obstacle (k, p, 3), m/s; direction of sliding (k, p, 3), zero where a node sticks; part of the
        sliding that was stopped, (k, p).
    """
    change, slide, part = np.zeros_like(normals), np.zeros_like(normals), np.zeros_like(factors)
    for p in np.flatnonzero(friction > 0.0):
        n, most = normals[:, p], friction[p] * factors[:, p]
        relative = w - velocity[p]
        tangential = relative - np.einsum("ni,ni->n", relative, n)[:, None] * n
        speed = np.sqrt(np.einsum("ni,ni->n", tangential, tangential))
        slips = speed > most
        size = np.where(speed > 0.0, speed, 1.0)
        part[:, p] = np.where(slips, most / size, factors[:, p] > 0.0)
        slide[:, p] = np.where(slips & (most > 0.0), 1.0 / size, 0.0)[:, None] * tangential
        change[:, p] = -part[:, p, None] * tangential
        w += change[:, p]
    return change, slide, part


def _rub(
    obstacles: Sequence[Obstacle], normals: np.ndarray, factors: np.ndarray, velocity: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """What `rub` does with the friction of the obstacles; None where none has friction."""
    friction = [o.friction for o in obstacles]
    return rub(normals, factors, np.array(friction), velocity, w) if any(friction) else None


def _touches(
    obstacles: Sequence[Obstacle], nodes: np.ndarray, mass: np.ndarray, normals: np.ndarray, factors: np.ndarray,
    normal: np.ndarray, rubbed: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Touches:  # fmt: skip
    """Impulses on nodes (k,) of masses (k,), kg, from changes of their velocities.

    Args:
        obstacles: The obstacles.
        nodes: Which nodes.
        mass: Their masses.
        normals: Unit normals of the obstacles, (k, p, 3).
        factors: Change of the normal velocity by each obstacle, (k, p), m/s.
        normal: Whole change along the normals, (k, p, 3), m/s.
        rubbed: What `rub` returned; None for no friction.
    """
    weight, slope = mass[:, None, None], None
    if any(isinstance(obstacle.motion, FreeBody) for obstacle in obstacles):
        slope = _slopes(mass, normals, factors, rubbed, np.array([o.friction for o in obstacles]))
    return Touches(nodes, weight * normal, None if rubbed is None else weight * rubbed[0], slope)


def _slopes(
    mass: np.ndarray, normals: np.ndarray, factors: np.ndarray, rubbed: tuple[np.ndarray, ...] | None,
    friction: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Derivative of the impulses of each obstacle by its velocity, summed over nodes, (p, 3, 3), kg; see `rub`."""
    active = mass[:, None] * (factors > 0.0)
    if rubbed is None:
        return np.einsum("np,npi,npj->pij", active, normals, normals)
    _, slide, part = rubbed
    across = np.einsum("np,npi,npj->pij", active, normals - friction[:, None] * slide, normals)
    weight = mass[:, None] * part
    tangent = np.einsum("np,ij->pij", weight, np.eye(3))
    tangent -= np.einsum("np,npi,npj->pij", weight, normals, normals)
    tangent -= np.einsum("np,npi,npj->pij", weight, slide, slide)
    return np.asarray(across + tangent)


def keep_out(here: Encounter, dt: float) -> Touches:
    """Impulses that put nodes which would be inside an obstacle after dt, s, exactly onto its surface.

    The impulse is never negative: a node that leaves by itself needs none, so that release is automatic.

    Args:
        here: At the start of a step, with the velocities that would carry nodes and obstacles through it. Obstacles
            with a penalty do not count.
        dt: Step, s.
    """
    obstacles, velocity = here.obstacles, here.velocity
    entering, after = np.zeros(len(here.x), dtype=bool), here.place + dt * velocity
    for p, obstacle in enumerate(obstacles):
        if obstacle.penalty == 0.0:
            entering |= obstacle.gap(_ends(here.x, here.v, dt, after[p])) < 0.0
    nodes = entering.nonzero()[0]
    if not len(nodes):
        return no_touches(len(obstacles))
    x, w, mass = here.x[nodes], here.v[nodes], here.mass[nodes]
    normal = np.zeros((len(nodes), len(obstacles), 3))
    normals, factors = _close(obstacles, after, x, w, dt, normal)
    rubbed = _rub(obstacles, normals, factors, velocity, w)
    if rubbed is not None:
        _close(obstacles, after, x, w, dt, normal)
    return _touches(obstacles, nodes, mass, normals, factors, normal, rubbed)


@compiled
def _ends(x: np.ndarray, v: np.ndarray, dt: float, place: np.ndarray) -> np.ndarray:
    """Positions x + dt v (n, 3), m, in the frame of an obstacle that is displaced to `place` (3,), m."""
    ends = np.empty_like(x)
    for i in range(x.shape[0]):
        for k in range(3):
            ends[i, k] = x[i, k] + dt * v[i, k] - place[k]
    return ends


def _close(
    obstacles: Sequence[Obstacle], after: np.ndarray, x: np.ndarray, w: np.ndarray, dt: float, normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Change velocities w (k, 3) so that no node ends inside; adds the changes to `normal` (k, p, 3).

    Returns:
        Normals (k, p, 3) and the change along them (k, p), m/s.
    """
    normals, factors = np.zeros_like(normal), np.zeros(normal.shape[:2])
    floor = 4.0 * np.finfo(float).eps * np.abs(x).max(axis=1, initial=0.0) / dt  # rounding of positions
    for sweep in range(SWEEPS):
        lack = np.full(factors.shape, -np.inf)
        for p, obstacle in enumerate(obstacles):
            if obstacle.penalty == 0.0:
                gap, normals[:, p] = distance(obstacle, x + dt * w - after[p])
                lack[:, p] = -gap / dt
        if sweep == 0:
            floor += 1e-12 * lack.max(axis=1, initial=0.0)
        if not (lack > floor[:, None]).any():
            break
        more = cone_factors(normals, lack)
        change = more[..., None] * normals
        w += change.sum(axis=1)
        normal += change
        factors += more
    return normals, factors


def stop_approach(here: Encounter, landed: Touches, tolerance: float) -> Touches:
    """Impulses that stop nodes on an obstacle from moving into it.

    Args:
        here: At the end of a step. Obstacles with a penalty do not count.
        landed: What `keep_out` found in this step: which nodes touch which obstacle.
        tolerance: Gap that counts as contact, m.
    """
    nodes, obstacles, place, velocity = landed.nodes, here.obstacles, here.place, here.velocity
    if not len(nodes):
        return no_touches(len(obstacles))
    x, w, mass = here.x[nodes], here.v[nodes], here.mass[nodes]
    normals, lack = np.zeros((len(nodes), len(obstacles), 3)), np.full((len(nodes), len(obstacles)), -np.inf)
    for p, obstacle in enumerate(obstacles):
        if obstacle.penalty == 0.0:
            gap, normals[:, p] = distance(obstacle, x - place[p])
            on = landed.normal[:, p].any(axis=1) | (gap <= tolerance)
            lack[on, p] = -np.einsum("ni,ni->n", w[on] - velocity[p], normals[on, p])
    factors = cone_factors(normals, lack)
    normal = factors[..., None] * normals
    w += normal.sum(axis=1)
    rubbed = _rub(obstacles, normals, factors, velocity, w)
    if rubbed is not None and len(obstacles) > 1:  # sliding along one obstacle may have led out of another
        least = np.where(np.isfinite(lack), np.einsum("npi,pi->np", normals, velocity), -np.inf)
        normal += cone_factors(normals, least - np.einsum("npi,ni->np", normals, w))[..., None] * normals
    return _touches(obstacles, nodes, mass, normals, factors, normal, rubbed)


def spring_impulses(
    here: Encounter, stiffness: float, duration: float, held: np.ndarray
) -> tuple[Touches, float]:
    """Impulses of penalty springs within a duration, with their friction, and the energy stored in the springs.

    Args:
        here: With the velocities before the impulses. Obstacles without a penalty do not count.
        stiffness: Spring constant over penalty and mass, 1 / dt_0^2, 1/s^2.
        duration: s.
        held: Which nodes may not leave which obstacle, (n, p).

    Returns:
        Impulses of the nodes inside an obstacle or held by it; energy, J.
    """
    obstacles, place, x = here.obstacles, here.place, here.x
    depths = np.zeros((len(x), len(obstacles)))
    for p, obstacle in enumerate(obstacles):
        if obstacle.penalty > 0.0:
            depths[:, p] = np.maximum(-obstacle.gap(x - place[p]), 0.0)
    nodes = np.flatnonzero((depths > 0.0).any(axis=1) | held.any(axis=1))
    w, mass = here.v[nodes], here.mass[nodes]
    normals, factors, energy = np.zeros((len(nodes), len(obstacles), 3)), depths[nodes], 0.0
    for p, obstacle in enumerate(obstacles):
        if obstacle.penalty > 0.0:
            gap, normals[:, p] = distance(obstacle, x[nodes] - place[p])
            depth = np.where(np.isfinite(gap), np.where(held[nodes, p], -gap, np.maximum(-gap, 0.0)), 0.0)
            energy += 0.5 * obstacle.penalty * stiffness * float(np.sum(mass * depth**2))
            factors[:, p] = obstacle.penalty * stiffness * duration * depth
    normal = factors[..., None] * normals
    w = w + normal.sum(axis=1)
    rubbed = _rub(obstacles, normals, np.maximum(factors, 0.0), here.velocity, w)
    friction = None if rubbed is None else mass[:, None, None] * rubbed[0]
    return Touches(nodes, mass[:, None, None] * normal, friction, np.zeros((len(obstacles), 3, 3))), energy
