"""Rigid planes, spheres and cylinders, and obstacles from a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fem.explicit.contact.obstacle import Motion, Obstacle, check_obstacle, three
from fem.laws.kernels import compiled


def along(v: np.ndarray, normal: tuple[float, float, float]) -> np.ndarray:
    """Components of vectors (n, 3) along a direction, (n,); no BLAS call, whose threads cost more than the work."""
    return v[:, 0] * normal[0] + v[:, 1] * normal[1] + v[:, 2] * normal[2]


@compiled
def _height(x: np.ndarray, point: tuple[float, float, float], normal: tuple[float, float, float]) -> np.ndarray:
    """Components of x - point along a direction, (n,), for positions x (n, 3), m."""
    height = np.empty(x.shape[0])
    for i in range(x.shape[0]):
        r, s, t = x[i, 0] - point[0], x[i, 1] - point[1], x[i, 2] - point[2]
        height[i] = r * normal[0] + s * normal[1] + t * normal[2]
    return height


def _vectors(obstacle: Any, name: str, *, points: tuple[str, ...] = (), unit: tuple[str, ...] = ()) -> None:
    """Check vectors of a frozen obstacle and make directions unit vectors."""
    for attribute in (*points, *unit):
        value = three(f"{attribute} of a {name}", getattr(obstacle, attribute))
        if attribute in unit:
            length = float(np.linalg.norm(value))
            if length == 0.0:
                raise ValueError(f"The {attribute} of a {name} must not be zero.")
            value = (value[0] / length, value[1] / length, value[2] / length)
        object.__setattr__(obstacle, attribute, value)
    check_obstacle(obstacle)


def _positive(name: str, value: float, most: float = np.inf) -> None:
    """Check that a size is positive, and not above another one."""
    if not 0.0 < value <= most:
        bound = "positive" if most == np.inf else f"in (0, {most:g}] m"
        raise ValueError(f"The {name} must be {bound}, got {value}.")


@dataclass(frozen=True)
class RigidPlane(Obstacle):
    """A rigid half space behind a plane.

    Attributes:
        point: A point of the plane, m.
        normal: Direction out of the plane, towards the body; made a unit vector.
        penalty: Contact stiffness, see `Obstacle`; 0 is contact by impulses.
        friction: Coefficient of Coulomb friction.
        motion: How it moves, see `Obstacle`.
        separation: Whether nodes may leave it, see `Obstacle`.
    """

    point: tuple[float, float, float] = (0.0, 0.0, 0.0)
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)
    penalty: float = 0.0
    friction: float = 0.0
    motion: Motion = None
    separation: bool = True

    def __post_init__(self) -> None:
        _vectors(self, "rigid plane", points=("point",), unit=("normal",))

    def gap(self, x: np.ndarray) -> np.ndarray:
        """Signed distance of positions x (n, 3) from the plane, (n,), m; negative inside it."""
        return np.asarray(_height(x, self.point, self.normal))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """The normal at positions x (n, 3), (n, 3)."""
        gradient = np.empty(x.shape)
        gradient[:] = self.normal
        return gradient


@dataclass(frozen=True)
class RigidSphere(Obstacle):
    """A rigid ball.

    Attributes:
        centre: m.
        radius: m.
        penalty, friction, motion: See `Obstacle`.
    """

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 1e-3
    penalty: float = 0.0
    friction: float = 0.0
    motion: Motion = None

    def __post_init__(self) -> None:
        _positive("radius of a rigid sphere", self.radius)
        _vectors(self, "rigid sphere", points=("centre",))

    def gap(self, x: np.ndarray) -> np.ndarray:
        """Signed distance of positions x (n, 3) from the sphere, (n,), m; negative inside it."""
        r = x - np.asarray(self.centre)
        return np.sqrt(np.einsum("ni,ni->n", r, r)) - self.radius

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Outward direction at positions x (n, 3), (n, 3); zero at the centre."""
        r = x - np.asarray(self.centre)
        length = np.sqrt(np.einsum("ni,ni->n", r, r))
        return r / np.where(length > 0.0, length, 1.0)[:, None]


@dataclass(frozen=True)
class RigidCylinder(Obstacle):
    """A rigid cylinder with flat ends whose edges are rounded.

    Attributes:
        face: Centre of one end, m.
        axis: Direction out of this end; made a unit vector. The cylinder lies behind the face.
        radius: m.
        length: m; infinite by default.
        edge: Radius of the rounded edges, m, at most the radius and half the length; 0 leaves them sharp.
        penalty, friction, motion: See `Obstacle`.
    """

    face: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: tuple[float, float, float] = (0.0, 0.0, -1.0)
    radius: float = 1e-3
    length: float = np.inf
    edge: float = 0.0
    penalty: float = 0.0
    friction: float = 0.0
    motion: Motion = None

    def __post_init__(self) -> None:
        _positive("radius of a rigid cylinder", self.radius)
        if not self.length > 0.0:
            raise ValueError(f"The length of a rigid cylinder must be positive, got {self.length}.")
        most = min(self.radius, 0.5 * self.length)
        if not 0.0 <= self.edge <= most:
            raise ValueError(f"The edge of a rigid cylinder must be in [0, {most:g}] m, got {self.edge}.")
        _vectors(self, "rigid cylinder", points=("face",), unit=("axis",))

    def _section(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Radial and axial excess (n,), m, over the cylinder that is smaller by the edge, and the outward directions.

        The rounded cylinder is that smaller one, thickened by the radius of the edge.
        """
        offset, axis = x - np.asarray(self.face), np.asarray(self.axis)
        height = along(offset, self.axis)
        radial = offset - height[:, None] * axis
        r = np.sqrt(np.einsum("ni,ni->n", radial, radial))
        front, back = height + self.edge, -height - self.length + self.edge
        end = np.where((front >= back)[:, None], axis, -axis)
        return r - (self.radius - self.edge), np.maximum(front, back), radial / np.where(r > 0.0, r, 1.0)[:, None], end

    def gap(self, x: np.ndarray) -> np.ndarray:
        """Signed distance of positions x (n, 3) from the cylinder, (n,), m; negative inside it."""
        side, end, _, _ = self._section(x)
        outside = np.hypot(np.maximum(side, 0.0), np.maximum(end, 0.0))
        return outside + np.minimum(np.maximum(side, end), 0.0) - self.edge

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Direction away from the nearest point of the surface at positions x (n, 3), (n, 3)."""
        side, end, outward, along_axis = self._section(x)
        corner = (side > 0.0) & (end > 0.0)
        length = np.where(corner, np.hypot(side, end), 1.0)
        a = np.where(corner, side / length, side > end)
        b = np.where(corner, end / length, side <= end)
        return a[:, None] * outward + b[:, None] * along_axis


@dataclass(frozen=True)
class RigidFunction(Obstacle):
    """A rigid obstacle from a function.

    Attributes:
        function: Of positions (n, 3), m, in the frame of the obstacle; returns (n,), negative inside, positive
            outside, best the distance in m.
        derivative: Its gradient, (n, 3) -> (n, 3); None takes central differences.
        penalty, friction, motion, step: See `Obstacle`.
    """

    function: Callable[[np.ndarray], np.ndarray]
    derivative: Callable[[np.ndarray], np.ndarray] | None = None
    penalty: float = 0.0
    friction: float = 0.0
    motion: Motion = None
    step: float = 1e-8

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ValueError(f"The function of an obstacle must be callable, got {type(self.function).__name__}.")
        _positive("step of an obstacle", self.step)
        check_obstacle(self)

    def gap(self, x: np.ndarray) -> np.ndarray:
        """The function at positions x (n, 3), (n,)."""
        return self.function(x)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Its gradient at positions x (n, 3), (n, 3)."""
        return super().gradient(x) if self.derivative is None else self.derivative(x)
