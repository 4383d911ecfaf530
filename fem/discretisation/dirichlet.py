"""Dirichlet conditions: prescribed displacements of bodies and trusses, in time.

One condition states the place, the component and the value; a solver has a set of conditions. Where two
conditions meet on one component of a node, they must prescribe the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import dolfinx.fem
import numpy as np
from mpi4py import MPI

from fem.mesh import Domain
from fem.parallel import raise_together

Predicate = Callable[[np.ndarray], np.ndarray]
Where = str | Predicate | tuple[Any, int] | np.ndarray | Sequence[int] | None
Value = float | np.ndarray | Sequence[float] | Callable[[np.ndarray, float], np.ndarray]
AGREE = 1e-12  # relative difference of two displacements that are meant to be the same
ROUNDING = 1e-14  # the same for displacements close to zero, over the size of the body


@dataclass(frozen=True)
class Dirichlet:
    """Prescribed displacement of one component, or of all, on some nodes.

    Attributes:
        where: A function of the node coordinates (3, n) that is true on the nodes; the name of a group of the mesh; a
            pair (`dolfinx.mesh.MeshTags`, tag); the numbers of the nodes (trusses only); or None for all nodes.
        component: 0, 1, or 2 in three dimensions; None for all components.
        value: The displacement at the time in question, m. A number is constant in time. A function
            `value(x, t)` of the node coordinates (3, n) and the time returns a number or (n,). Where all components are
            prescribed, (d,) numbers are taken as well, and a function may return a number, (d,) or (d, n).
        velocity: Whether the value is a velocity, m/s; explicit dynamics only.

    Raises:
        ValueError: If the component or a number is out of range.
    """

    where: Where
    component: int | None = None
    value: Value = 0.0
    velocity: bool = False

    def __post_init__(self) -> None:
        if self.component is not None and self.component not in (0, 1, 2):
            raise ValueError(f"A prescribed component must be 0, 1 or 2, got {self.component}.")
        if callable(self.value):
            return
        try:
            numbers = np.asarray(self.value, dtype=float)
        except (TypeError, ValueError):
            raise ValueError(f"A prescribed displacement must be a number or a function, got {self.value!r}.") from None
        if not np.all(np.isfinite(numbers)):
            raise ValueError(f"A prescribed displacement must be finite, got {self.value}.")

    def __str__(self) -> str:
        return describe(self.where)


@dataclass(frozen=True)
class Nodes:
    """The nodes on which conditions can be prescribed, of one rank.

    Attributes:
        comm: Communicator.
        dimension: Displacement components of a node, d.
        x: Coordinates, ghosts last, zero where there is no third one, (3, n), m.
        owned: Number of nodes that this rank owns.
        size: Size of the body, the same on all ranks, m.
        find: Nodes of a place on this rank, ghosts included, sorted; collective, raises a ValueError on all ranks.
    """

    comm: MPI.Comm
    dimension: int
    x: np.ndarray
    owned: int
    size: float
    find: Callable[[Where], np.ndarray]


def describe(where: Where) -> str:
    """Name of a place for a message."""
    if where is None:
        return "all nodes"
    if isinstance(where, str):
        return f'the group "{where}"'
    if callable(where):
        return f"the nodes of the function {getattr(where, '__name__', repr(where))}"
    if isinstance(where, tuple) and len(where) == 2 and hasattr(where[0], "find"):
        return f"the entities of tag {where[1]}"
    return f"the {np.size(np.asarray(where, dtype=object))} nodes given by number"


def body_nodes(domain: Domain, V: Any) -> Nodes:
    """Nodes of a displacement space; collective.

    Args:
        domain: Mesh and groups.
        V: Lagrange space with d components.
    """
    x = np.ascontiguousarray(V.tabulate_dof_coordinates().T)

    def find(where: Where) -> np.ndarray:
        if where is not None and not isinstance(where, str) and not callable(where) and not _is_tagged(where):
            raise ValueError(
                "The nodes of a body are given by a function of the coordinates, a group or (MeshTags, tag), "
                f"got {type(where).__name__}."
            )
        if isinstance(where, str) or _is_tagged(where):
            return _tagged_nodes(domain, V, cast("str | tuple[Any, int]", where))
        return nodes_inside(domain.comm, x, cast("Predicate | None", where))

    return Nodes(domain.comm, V.dofmap.index_map_bs, x, V.dofmap.index_map.size_local, extent(domain.comm, x), find)


def nodes_inside(comm: MPI.Comm, x: np.ndarray, where: Predicate | None) -> np.ndarray:
    """Nodes on which a function of the coordinates is true; all of them if it is None; collective.

    Args:
        comm: Communicator.
        x: Coordinates, (3, n), m.
        where: The function.

    Raises:
        ValueError: On all ranks, if the function fails, returns another shape, or is true on no node of any rank.
    """
    every = np.arange(x.shape[1], dtype=np.int32)
    nodes, error = every, None
    if where is not None:
        try:
            inside = np.asarray(where(x), dtype=bool)
            if inside.shape not in ((), every.shape):
                raise ValueError(f"A function of place must return the shape {every.shape}, got {inside.shape}.")
            nodes = every[np.broadcast_to(inside, every.shape)]
        except Exception as caught:  # the user's function may fail in any way, on one rank alone
            error = ValueError(str(caught)) if not isinstance(caught, ValueError) else caught
    raise_together(comm, error)
    check_some(comm, nodes, where)
    return nodes


def check_some(comm: MPI.Comm, nodes: np.ndarray, where: Where) -> None:
    """Check that there are nodes at a place; collective.

    Raises:
        ValueError: On all ranks, if no rank has a node there.
    """
    if comm.allreduce(len(nodes)) == 0:
        raise ValueError(f"There is no node to prescribe in {describe(where)}.")


def extent(comm: MPI.Comm, x: np.ndarray) -> float:
    """Longest edge of the box around the points (3, n) of all ranks, m; collective."""
    low, high = np.empty(3), np.empty(3)
    comm.Allreduce(x.min(axis=1, initial=np.inf), low, op=MPI.MIN)
    comm.Allreduce(x.max(axis=1, initial=-np.inf), high, op=MPI.MAX)
    return float((high - low).max())


class DirichletSet:
    """Conditions on the nodes of one rank, and their values at one time; all methods are collective.

    Two conditions may meet on a component of a node if they prescribe the same value there at all times.

    Args:
        nodes: The nodes.
        conditions: The conditions, the same on all ranks.
        dynamic: Whether velocities can be prescribed.

    Attributes:
        rows: Prescribed components of this rank, node * d + component, ghosts included, sorted, (p,).
        values: Their displacement (or velocity) at the time set last, (p,), m (m/s).
        velocity: Whether it is a velocity, (p,).
        failed: Why `rates` could not evaluate a function on this rank, None if it could.
        owned: Number of them that this rank owns; they come first.
        driven: Those that this rank owns, (owned,).

    Raises:
        ValueError: On all ranks, if a condition does not fit, has no node, or contradicts another one at time zero.
    """

    def __init__(self, nodes: Nodes, conditions: Sequence[Dirichlet] = (), *, dynamic: bool = False) -> None:
        self.nodes, self._dynamic = nodes, dynamic
        self.failed: str | None = None
        self._parts: list[_Part] = []
        self.rows = np.zeros(0, dtype=np.int32)
        self.values, self.owned, self._time = np.zeros(0), 0, 0.0
        self.driven: np.ndarray = self.rows
        self._constant = False
        self.add(*conditions)

    @property
    def in_time(self) -> bool:
        """Whether a value is a function, which may change in time."""
        return any(callable(part.condition.value) for part in self._parts)

    def add(self, *conditions: Dirichlet) -> None:
        """Add conditions to those that exist; if an error is raised, none is added.

        Raises:
            ValueError: On all ranks, as the constructor.
        """
        d, found = self.nodes.dimension, []
        for condition in conditions:
            if condition.velocity and not self._dynamic:
                raise ValueError("A velocity can be prescribed in explicit dynamics only.")
            if condition.component is not None and condition.component >= d:
                raise ValueError(f"A prescribed component must be below {d}, got {condition.component}.")
            numbers = np.zeros(()) if callable(condition.value) else np.asarray(condition.value, dtype=float)
            if numbers.shape not in (((), (d,)) if condition.component is None else ((),)):
                raise ValueError(f"A prescribed displacement must be one number, got shape {numbers.shape}.")
            place = self.nodes.find(condition.where)
            components = np.arange(d) if condition.component is None else np.array([condition.component])
            rows = d * place.astype(np.int64) + components[:, None]
            found.append(_Part(condition, place, rows, np.ones(rows.shape, dtype=bool)))
        before = self._parts
        self._parts = before + found
        self._arrange()
        try:
            self.set_time(self._time)
        except ValueError:
            self._parts = before
            self._arrange()
            self.set_time(self._time)
            raise

    def release(self, rows: np.ndarray) -> None:
        """Free components (node * d + component, ghosts included) of the conditions so far, not of later ones."""
        self._parts = [replace(part, held=part.held & ~np.isin(part.rows, rows)) for part in self._parts]
        self._arrange()
        self.set_time(self._time)

    @property
    def released(self) -> np.ndarray:
        """Components that were released and are not prescribed again, node * d + component, ghosts included, sorted."""
        free = [part.rows[~part.held] for part in self._parts]
        return np.setdiff1d(np.concatenate([np.zeros(0, dtype=np.int64), *free]), self.rows)

    def _arrange(self) -> None:
        """Number the prescribed components."""
        held = [part.rows[part.held] for part in self._parts]
        self.rows = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *held])).astype(np.int32)
        self.owned = int(np.searchsorted(self.rows, self.nodes.dimension * self.nodes.owned))
        self.driven = self.rows[: self.owned]
        self.values, self._constant = np.zeros(len(self.rows)), False
        self.velocity = np.zeros(len(self.rows), dtype=bool)
        for part in self._parts:
            if part.condition.velocity:
                self.velocity[np.searchsorted(self.rows, part.rows[part.held])] = True

    def set_time(self, t: float) -> None:
        """Evaluate `values` at time t.

        Raises:
            ValueError: On all ranks, if a function gives the wrong shape or a value that is not finite, or if two
                conditions contradict each other. `values` are then those of before.
        """
        if self._constant:
            self._time = float(t)
            return
        values = self.values
        error: Exception | None = None
        try:
            values = self._evaluate(float(t))
        except ValueError as caught:
            error = caught
        except Exception as caught:  # the user's function may fail in any way, on one rank alone
            error = ValueError(f"A prescribed displacement cannot be evaluated: {caught}.")
        raise_together(self.nodes.comm, error)
        self.values, self._time = values, float(t)
        self._constant = not self.in_time

    def lack(self, u: np.ndarray) -> float:
        """Largest difference of this rank's owned prescribed displacements from displacements u, (owned, d), m."""
        difference = np.abs(self.values[: self.owned] - u.reshape(-1)[self.rows[: self.owned]])
        return float(difference[~self.velocity[: self.owned]].max(initial=0.0))

    def rates(self, u: np.ndarray, t: float, dt: float) -> np.ndarray:
        """Velocities of the owned prescribed components in a step, (p,), m/s; local: an error is kept in `failed`.

        A prescribed displacement is reached at the end of the step, a prescribed velocity is that of its middle.

        Args:
            u: Displacements of the owned nodes at its start, (owned, d), m.
            t: Time at its start, s.
            dt: Its length, s.
        """
        self.failed = None
        if not self._constant:
            try:
                self.values, self._time = self._evaluate(t + dt, t + 0.5 * dt), t + dt
            except Exception as caught:  # the user's function may fail in any way, on one rank alone
                self.failed = str(caught)
        values = self.values[: self.owned]
        if not self.owned:
            return values
        return np.where(self.velocity[: self.owned], values, (values - u.reshape(-1)[self.driven]) / dt)

    def drive(self, v: np.ndarray, rates: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """Set the prescribed components of velocities; returns the impulses of the supports on them, (p,), N s.

        Args:
            v: Velocities of the owned nodes, (owned, d), m/s, contiguous; changed in place.
            rates: As `rates` returned them.
            mass: Of the owned nodes, (owned,), kg.
        """
        if not self.owned:
            return rates
        rows, flat = self.driven, v.reshape(-1)
        impulse = mass[rows // self.nodes.dimension] * (rates - flat[rows])
        flat[rows] = rates
        return np.asarray(impulse)

    def _evaluate(self, t: float, middle: float | None = None) -> np.ndarray:
        """Values at time t, or velocities at the time `middle`."""
        values = np.full(len(self.rows), np.nan)
        origin = np.zeros(len(self.rows), dtype=np.int64)
        for number, part in enumerate(self._parts):
            held = part.held
            places = np.searchsorted(self.rows, part.rows[held])
            at = middle if middle is not None and part.condition.velocity else t
            new = _values(part.condition, self.nodes.x[:, part.nodes], at, self.nodes.dimension)[held]
            kinds = self.velocity[places] != part.condition.velocity
            if kinds.any():
                raise ValueError(
                    f"Displacement and velocity of one component are prescribed, the second in {part.condition}."
                )
            old = values[places]
            limit = AGREE * np.maximum(np.abs(new), np.abs(old)) + ROUNDING * self.nodes.size
            clash = np.abs(new - old) > limit  # never where nothing was prescribed yet: nan
            if clash.any():
                i = int(np.argmax(clash))
                node, component = divmod(int(self.rows[places[i]]), self.nodes.dimension)
                place = ", ".join(f"{c:g}" for c in self.nodes.x[: self.nodes.dimension, node])
                raise ValueError(
                    f"Component {component} of the node at ({place}) m is prescribed twice at time {t:g}: {old[i]:g} m "
                    f"by the condition on {self._parts[origin[places[i]]].condition} and {new[i]:g} m by the condition "
                    f"on {part.condition}."
                )
            values[places], origin[places] = new, number
        return values


@dataclass(frozen=True)
class _Part:
    """A condition on the nodes of this rank.

    Attributes:
        condition: The condition.
        nodes: Its nodes, (n,).
        rows: Its components, (components, n).
        held: Which of them are still prescribed, (components, n).
    """

    condition: Dirichlet
    nodes: np.ndarray
    rows: np.ndarray
    held: np.ndarray


def _values(condition: Dirichlet, x: np.ndarray, t: float, d: int) -> np.ndarray:
    """Values of a condition at nodes (3, n), (1, n), or (d, n) if all components are prescribed."""
    n, count = x.shape[1], d if condition.component is None else 1
    values = np.asarray(condition.value(x, t) if callable(condition.value) else condition.value, dtype=float)
    if condition.component is None:
        fits = values.shape in ((), (d,), (d, n))
        shaped = values[:, None] if values.shape == (d,) else values
        expected = f"({d}, {n})"
    else:
        fits, shaped, expected = values.shape in ((), (n,)), values, f"({n},)"
    if not fits:
        raise ValueError(f"A prescribed displacement must have shape {expected}, got {values.shape}.")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"A prescribed displacement is not finite at time {t:g}.")
    return np.broadcast_to(shaped, (count, n))


def _is_tagged(where: Where) -> bool:
    return isinstance(where, tuple) and len(where) == 2 and hasattr(where[0], "find")


def _tagged_nodes(domain: Domain, V: Any, where: str | tuple[Any, int]) -> np.ndarray:
    """Nodes of a group, or of the entities of a tag, on this rank, ghosts included, sorted; collective."""
    if isinstance(where, str):
        dimension, entities = domain.mesh.topology.dim - 1, domain.facets(where)
    else:
        dimension, entities = int(where[0].dim), where[0].find(int(where[1]))
    domain.mesh.topology.create_connectivity(dimension, domain.mesh.topology.dim)
    # remote=True also finds nodes whose tagged entity is on another rank.
    found = dolfinx.fem.locate_dofs_topological(V, dimension, entities, remote=True)
    nodes = np.unique(found).astype(np.int32)
    check_some(domain.comm, nodes, where)
    return nodes
