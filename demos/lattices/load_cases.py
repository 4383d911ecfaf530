"""Load cases: the loads of a box in pseudo-time as data, one definition for finite elements and for lattices.

The box stands on z = 0. Its top is pressed or turned; whole units of pseudo-time are the points of the path:

| case | bottom | top | path |
|---|---|---|---|
| lcU1, lcU2 | u_z = 0 | u_z | -3, -5, uniform; rigid motions are taken by two corners |
| lcC1, lcC2 | fixed | u_z | -2, -5 |
| lcT1, lcT2 | fixed | (u_x, u_y) = (R - I)(x - centre) | 40, 60 degrees |
| lcH | fixed | as lcT | 10, 20, 30, 20, .., -50, -40, .., 60 degrees, then released |

References:
    Masi and Stefanou (2022), section V, doi:10.1016/j.cma.2022.115190.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fem.discretisation.dirichlet import Dirichlet

EDGE = 10.0  # of the square section, m
NEAR = 1e-9  # of the box: where a node is on a plane or at a corner

Place = Literal["bottom", "top"] | tuple[float, float, float]
Value = float | Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Support:
    """One displacement component that is prescribed at a place.

    Attributes:
        place: "bottom" or "top", or the position of one node, m.
        component: 0, 1 or 2.
        value: m; a number is reached in proportion to the pseudo-time as far as time 1, a function of positions (3, n)
            and pseudo-time gives the displacement itself, (n,).
    """

    place: Place
    component: int
    value: Value = 0.0


@dataclass(frozen=True)
class LoadCase:
    """A load of a box.

    Attributes:
        name: As the paper calls it.
        box: Lengths of the box, m.
        supports: What is prescribed.
        path: Displacement (m) or angle (degrees) of the top at the pseudo-times 0, 1, 2, ...
        control: The control point, a corner of the top, m.
        component: Of the displacement that the paper reports there: across the axis, in torsion along it.
        released: Whether the top is let go at the end of the path, within one more unit of pseudo-time.
    """

    name: str
    box: tuple[float, float, float]
    supports: tuple[Support, ...]
    path: tuple[float, ...]
    control: tuple[float, float, float]
    component: int
    released: bool = False

    @property
    def loaded(self) -> float:
        """Pseudo-time at the end of the path, before the top is released."""
        return float(len(self.path) - 1)

    @property
    def end(self) -> float:
        """Pseudo-time at the end."""
        return self.loaded + float(self.released)

    def times(self, steps: int) -> list[float]:
        """Pseudo-times of the load steps: so many for each unit, the whole units among them, the release as one.

        Raises:
            ValueError: If `steps` is not positive.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        units = np.arange(int(self.loaded))
        inside = (units[:, None] + np.arange(1, steps + 1) / steps).ravel()
        return [*inside.tolist(), *([self.end] if self.released else [])]


def load_case(name: str) -> LoadCase:
    """The load case of a name.

    Raises:
        ValueError: If there is none.
    """
    if name not in CASES:
        raise ValueError(f"There is no load case {name!r}; there are {', '.join(CASES)}.")
    return CASES[name]


def prescribed(case: LoadCase) -> tuple[Dirichlet, ...]:
    """Conditions for `fem.implicit.ImplicitSolver`: the mesh has the groups "bottom" and "top"."""
    found = []
    for support in case.supports:
        place = support.place
        found.append(Dirichlet(place if isinstance(place, str) else _at(place), support.component, _value(support)))
    return tuple(found)


def conditions(case: LoadCase, nodes: np.ndarray) -> list[Dirichlet]:
    """Conditions for `fem.truss.TrussSolver`, by node numbers.

    Args:
        case: The load case.
        nodes: Positions of the nodes, (N, 3), m; those of a perturbed lattice before it was perturbed.

    Raises:
        ValueError: If no node is at a place.
    """
    return [Dirichlet(nodes_at(case, nodes, s.place), s.component, _value(s)) for s in case.supports]


def nodes_at(case: LoadCase, nodes: np.ndarray, place: Place) -> np.ndarray:
    """Numbers of the nodes (N, 3) at a place.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(place, str):
        inside = np.abs(nodes[:, 2] - (0.0 if place == "bottom" else case.box[2])) < NEAR * EDGE
    else:
        inside = _at(place)(nodes.T)
    if not inside.any():
        raise ValueError(f"The lattice has no node at {place}.")
    return np.flatnonzero(inside)


def _at(place: tuple[float, float, float]) -> Callable[[np.ndarray], np.ndarray]:
    """Marks the node at a position."""
    return lambda x: np.abs(x - np.array(place)[:, None]).max(axis=0) < NEAR * EDGE


def _value(support: Support) -> Value:
    """The value; a number stays as it is reached at time 1."""
    if callable(support.value):
        return support.value
    value = support.value
    return lambda x, t: np.full(x.shape[1], value * min(t, 1.0))


def _turn(path: tuple[float, ...], row: int) -> Callable[[np.ndarray, float], np.ndarray]:
    """(R - I)(x - centre), its x or y component, at the angle of the path; beyond the end it stays."""

    def value(x: np.ndarray, t: float) -> np.ndarray:
        a = np.radians(np.interp(t, np.arange(len(path)), path))
        R = ((np.cos(a) - 1.0, -np.sin(a)), (np.sin(a), np.cos(a) - 1.0))
        return R[row][0] * (x[0] - EDGE / 2) + R[row][1] * (x[1] - EDGE / 2)

    return value


def _uniform(name: str, top: float) -> LoadCase:
    pins = (Support((0.0, 0.0, 0.0), 0), Support((0.0, 0.0, 0.0), 1), Support((EDGE, 0.0, 0.0), 1))
    supports = (Support("bottom", 2), Support("top", 2, top), *pins)
    return LoadCase(name, (EDGE, EDGE, EDGE), supports, (0.0, top), (EDGE, EDGE, EDGE), 0)


def _uniaxial(name: str, top: float) -> LoadCase:
    supports = (*(Support("bottom", i) for i in range(3)), Support("top", 2, top))
    return LoadCase(name, (EDGE, EDGE, EDGE), supports, (0.0, top), (EDGE, EDGE, EDGE), 0)


def torsion(name: str, path: tuple[float, ...], *, released: bool = False) -> LoadCase:
    """A box whose top is turned along a path of angles (degrees), from 0 on; see `LoadCase`."""
    turned = (Support("top", row, _turn(path, row)) for row in range(2))
    supports = (*(Support("bottom", i) for i in range(3)), *turned)
    box = (EDGE, EDGE, 2 * EDGE)
    return LoadCase(name, box, supports, path, box, 2, released)


def _there_and_back(*turns: int) -> tuple[float, ...]:
    """Angles from 0 to each turning point in steps of 10 degrees."""
    path = [0]
    for turn in turns:
        step = 10 if turn > path[-1] else -10
        path += range(path[-1] + step, turn + step, step)
    return tuple(float(angle) for angle in path)


CASES = {
    case.name: case
    for case in (
        _uniform("lcU1", -3.0),
        _uniform("lcU2", -5.0),
        _uniaxial("lcC1", -2.0),
        _uniaxial("lcC2", -5.0),
        torsion("lcT1", (0.0, 40.0)),
        torsion("lcT2", (0.0, 60.0)),
        torsion("lcH", _there_and_back(30, -50, 60), released=True),
    )
}
