"""A rigid obstacle: its signed distance, the friction on it, and how it moves.

The signed distance is a function of positions in the frame of the obstacle, which is the frame of the body at time zero
and moves with the obstacle (without rotation). A new obstacle needs nothing but this function:

    class Ellipsoid(Obstacle):
        friction = 0.2

        def gap(self, x):
            return 1e-3 * (np.sqrt(((x / [2e-3, 1e-3, 1e-3]) ** 2).sum(axis=1)) - 1.0)

Any smooth function that is negative inside, positive outside and has a gradient at the surface will do: nodes are put
onto its surface by Newton's method along the gradient.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fem.laws.kernels import compiled


@dataclass(frozen=True)
class FreeBody:
    """Motion of an obstacle that is free to translate: contact changes its momentum.

    In a model with planes of symmetry it has the mass of its modelled part, and `axes` leaves out the directions
    across these planes.

    Attributes:
        mass: kg.
        velocity: At time zero, m/s.
        axes: Directions in which it can move, of "xyz"; in the others it is guided without friction.
    """

    mass: float
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: str = "xyz"

    def __post_init__(self) -> None:
        if not 0.0 < self.mass < np.inf:
            raise ValueError(f"The mass of a free body must be a positive finite number, got {self.mass}.")
        velocity = three("velocity of a free body", self.velocity)
        object.__setattr__(self, "velocity", velocity)
        if not self.axes or set(self.axes) - set("xyz"):
            raise ValueError(f'The axes of a free body must be some of "xyz", got {self.axes!r}.')
        if any(v != 0.0 for v, axis in zip(velocity, "xyz", strict=True) if axis not in self.axes):
            raise ValueError(f"The velocity of a free body must lie along its axes {self.axes!r}, got {velocity}.")


Motion = Sequence[float] | Callable[[float], Any] | FreeBody | None


class Obstacle(abc.ABC):
    """A rigid obstacle that the nodes of a body cannot enter.

    Attributes:
        penalty: Contact stiffness over mass / dt_0^2 (see `fem.explicit.contact`), at most 2; 0 is contact by impulses.
        friction: Coefficient of Coulomb friction, at least 0.
        motion: None, if it stands; a velocity (three numbers, m/s); a function of time (s) that returns the
            displacement since time zero (three numbers, m), which may be a method; or a `FreeBody`.
        step: Step of the differences in `gradient`, m.
        separation: Whether nodes may leave it. If not, those that lie on it at the start stay on it and only slide: its
            springs pull as well as push.
    """

    penalty: float = 0.0
    friction: float = 0.0
    motion: Motion = None
    step: float = 1e-8
    separation: bool = True

    @abc.abstractmethod
    def gap(self, x: np.ndarray) -> np.ndarray:
        """Signed distance of positions from the surface, negative inside.

        Args:
            x: Positions in the frame of the obstacle, (n, 3), m.

        Returns:
            Distance, (n,), m.
        """

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Gradient of `gap`, (n, 3), which at the surface is the outward normal; by central differences here.

        Args:
            x: Positions in the frame of the obstacle, (n, 3), m.
        """
        columns = [self.gap(x + self.step * e) - self.gap(x - self.step * e) for e in np.eye(3)]
        return np.stack(columns, axis=1) / (2.0 * self.step)


def three(name: str, value: Any) -> tuple[float, float, float]:
    """Three finite numbers.

    Raises:
        ValueError: If the value is anything else; the name is for the message.
    """
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (3,) or not np.all(np.isfinite(array)):
        raise ValueError(f"The {name} must be three finite numbers, got {value}.")
    return (float(array[0]), float(array[1]), float(array[2]))


def distance(obstacle: Obstacle, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,), m, and unit normal (n, 3) at positions near the surface of an obstacle.

    Of a function that is no distance this is the step of Newton's method along the gradient. Where the gradient is zero
    the distance is infinite: such a point is not near a surface.

    Args:
        obstacle: The obstacle.
        x: Positions in its frame, (n, 3), m.
    """
    gap, normal = np.array(obstacle.gap(x), dtype=float), np.array(obstacle.gradient(x), dtype=float, order="C")
    _normalise(gap, normal)
    return gap, normal


@compiled
def _normalise(gap: np.ndarray, gradient: np.ndarray) -> None:
    """Divide gaps (n,) and gradients (n, 3) by the lengths of the gradients, in place; see `distance`."""
    for i in range(gradient.shape[0]):
        x, y, z = gradient[i]
        length = np.sqrt(x * x + y * y + z * z)
        if not length > 0.0:
            gap[i] = np.inf
            continue
        gap[i] /= length
        for k in range(3):
            gradient[i, k] /= length


def prescribed_displacement(motion: Motion, time: float) -> np.ndarray | None:
    """Displacement (3,), m, of an obstacle at a time, s; None if it is free.

    Raises:
        ValueError: If the user's function returns anything but three finite numbers.
    """
    if isinstance(motion, FreeBody):
        return None
    if motion is None:
        return np.zeros(3)
    if callable(motion):
        return np.array(three(f"displacement of an obstacle at {time:g} s", motion(time)))
    return time * np.array(motion, dtype=float)


def check_obstacle(obstacle: Obstacle) -> None:
    """Check the attributes of an obstacle.

    Raises:
        ValueError: If one does not fit.
    """
    kind, motion = type(obstacle).__name__, obstacle.motion
    words = {"RigidPlane": "rigid plane", "RigidSphere": "rigid sphere", "RigidCylinder": "rigid cylinder"}
    name = words.get(kind, kind)
    if not 0.0 <= obstacle.penalty <= 2.0:
        raise ValueError(f"The penalty of a {name} must be in [0, 2], got {obstacle.penalty}.")
    if not 0.0 <= obstacle.friction < np.inf:
        raise ValueError(f"The friction of a {name} must be a finite number of at least 0, got {obstacle.friction}.")
    if not obstacle.separation and obstacle.penalty == 0.0:
        raise ValueError(f"A {name} without separation holds its nodes by springs and needs a positive penalty, got 0.")
    if motion is not None and not callable(motion) and not isinstance(motion, FreeBody):
        three(f"velocity of a {name}", motion)
    if isinstance(motion, FreeBody) and obstacle.penalty > 0.0:
        raise ValueError(f"A free body needs contact by impulses, penalty 0, got {obstacle.penalty}.")
