"""A domain: the distributed mesh with its named groups."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import dolfinx.mesh
import numpy as np
from mpi4py import MPI

from fem import compat
from fem.parallel import raise_together

LINEAR_CELLS = (2, 3, 4, 5)  # gmsh's numbers of triangles, quadrilaterals, tetrahedra and hexahedra


@dataclass(frozen=True)
class Domain:
    """A mesh with named groups of cells and facets: hexahedra, tetrahedra, quadrilaterals or triangles.

    Attributes:
        mesh: The `dolfinx.mesh.Mesh`, distributed.
        cell_tags: Tags of the cells (volume groups), or None.
        facet_tags: Tags of the facets (surface groups). Facets that lie in several groups have a tag of their own for
            each combination of groups.
        names: Group name -> (dimension, tag).
        parts: Group name -> all tags that make it up, where these are not the tag of the group alone.
    """

    mesh: Any
    cell_tags: Any
    facet_tags: Any
    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def comm(self) -> MPI.Comm:
        """Communicator of the mesh."""
        return self.mesh.comm

    def facets(self, name: str) -> np.ndarray:
        """Local facets of a surface group, sorted, (n,); a facet may lie in several groups.

        Args:
            name: Name of the group, for example "foot".

        Raises:
            ValueError: If there is no such surface group.
        """
        facet = self.mesh.topology.dim - 1
        known = sorted(key for key, (dim, _) in self.names.items() if dim == facet)
        if name not in known:
            raise ValueError(f'The mesh has no surface group "{name}"; it has {", ".join(known) or "none"}.')
        parts = self.parts.get(name, (self.names[name][1],))
        return np.sort(np.concatenate([self.facet_tags.find(part) for part in parts]))

    def cells(self, name: str) -> np.ndarray:
        """Local cells of a volume group (of a surface group in two dimensions), ghosts included, sorted, (n,).

        Args:
            name: Name of the group, for example "core".

        Raises:
            ValueError: If there is no such group.
        """
        d = self.mesh.topology.dim
        known = sorted(key for key, (dim, _) in self.names.items() if dim == d)
        if name not in known:
            raise ValueError(f'The mesh has no group of cells "{name}"; it has {", ".join(known) or "none"}.')
        if self.cell_tags is None:
            cells = self.mesh.topology.index_map(d)
            return np.arange(cells.size_local + cells.num_ghosts)
        parts = self.parts.get(name, (self.names[name][1],))
        return np.sort(np.concatenate([self.cell_tags.find(part) for part in parts]))

    def tag(self, name: str) -> int | tuple[int, ...]:
        """Tag of a group, or its tags, for `ufl.ds(tag)` with `subdomain_data=domain.facet_tags`."""
        if name not in self.names:
            raise ValueError(f'The mesh has no group "{name}"; it has {", ".join(sorted(self.names)) or "none"}.')
        parts = self.parts.get(name, (self.names[name][1],))
        return parts[0] if len(parts) == 1 else parts


def as_domain(mesh: Domain | Any) -> Domain:
    """A domain as it is, or one without surface groups of a DOLFINx mesh.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(mesh, Domain):
        return mesh
    if not (hasattr(mesh, "topology") and hasattr(mesh, "geometry")):
        raise ValueError(f"The mesh must be a dolfinx.mesh.Mesh or a fem.mesh.Domain, got {type(mesh).__name__}.")
    return domain_from_mesh(mesh)


@contextlib.contextmanager
def closing_gmsh(comm: MPI.Comm) -> Iterator[None]:
    """Close at the end of a block, also after an error, the gmsh session that is open on rank 0; local."""
    try:
        yield
    finally:
        if comm.rank == 0:
            import gmsh

            if gmsh.isInitialized():
                gmsh.finalize()


def read_mesh(source: str | PathLike[str] | Any, comm: MPI.Comm, *, root: int = 0) -> Domain:
    """Read a `.msh` file, or take the live gmsh model, as a distributed domain; collective.

    Args:
        source: Path of a `.msh` file, or a gmsh model that lives on rank `root` (any value elsewhere).
        comm: Communicator of the mesh. Ranks without cells are allowed.
        root: Rank that reads.

    Returns:
        The domain.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If the file is no gmsh mesh of one kind of linear cells with a named volume (a named surface, if
            the model has two dimensions: those of x and y).
    """
    is_path = comm.bcast(isinstance(source, (str, PathLike)), root=root)
    error: Exception | None = None
    model: Any = None
    dimension = 3
    parts: dict[str, tuple[int, ...]] = {}
    names: dict[str, tuple[int, int]] = {}
    with contextlib.ExitStack() as session:
        if comm.rank == root:
            try:
                model = session.enter_context(_opened(Path(source))) if is_path else source
                dimension = _check_model(model, str(source) if is_path else "The gmsh model")
                names = _group_names(model)
                for dim in (dimension - 1, dimension):
                    parts |= session.enter_context(_separated(model, dim))
            except Exception as caught:
                error = caught
        raise_together(comm, error)
        dimension = comm.bcast(dimension, root=root)
        mesh, cell_tags, facet_tags = compat.model_to_mesh(model, comm, root, dimension)
    names, parts = comm.bcast((names, parts), root=root)
    mesh.topology.create_connectivity(dimension - 1, dimension)
    return Domain(mesh, cell_tags, facet_tags, names, parts)


def _group_names(model: Any) -> dict[str, tuple[int, int]]:
    """Named physical groups of a gmsh model, name -> (dimension, tag)."""
    groups = [(int(dim), int(tag)) for dim, tag in model.getPhysicalGroups()]
    return {model.getPhysicalName(*group): group for group in groups if model.getPhysicalName(*group)}


@contextlib.contextmanager
def _separated(model: Any, dim: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Within the block, put entities that lie in several physical groups into one further group per combination.

    DOLFINx keeps one tag for each facet, that of the first group; the others would lose it.

    Yields:
        Group name -> tags that make it up, of the groups that have entities in common.
    """
    groups = {int(tag): model.getEntitiesForPhysicalGroup(dim, tag).tolist() for _, tag in model.getPhysicalGroups(dim)}
    names = {tag: model.getPhysicalName(dim, tag) for tag in groups}
    members: dict[int, list[int]] = {}
    for tag, entities in groups.items():
        for entity in entities:
            members.setdefault(entity, []).append(tag)
    shared = sorted({tuple(found) for found in members.values() if len(found) > 1})
    if not shared:
        yield {}
        return
    new = dict(zip(shared, range(max(groups) + 1, max(groups) + 1 + len(shared))))
    model.removePhysicalGroups([(dim, tag) for tag in groups])
    try:
        for tag in groups:
            alone = [entity for entity in groups[tag] if members[entity] == [tag]]
            if alone:
                model.addPhysicalGroup(dim, alone, tag=tag)
        for combination, tag in new.items():
            model.addPhysicalGroup(dim, [e for e, found in members.items() if tuple(found) == combination], tag=tag)
        yield {
            names[tag]: (tag, *(new[combination] for combination in shared if tag in combination))
            for tag in groups
            if names[tag] and any(tag in combination for combination in shared)
        }
    finally:
        model.removePhysicalGroups([(dim, tag) for _, tag in model.getPhysicalGroups(dim)])
        for tag, entities in groups.items():
            model.addPhysicalGroup(dim, entities, tag=tag, name=names[tag])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The gmsh model of a file; a session that the caller has open is left as it was."""
    import gmsh

    if not path.is_file():
        raise FileNotFoundError(f"Mesh file {path} does not exist.")
    own = not gmsh.isInitialized()
    if own:
        gmsh.initialize(interruptible=False)
        gmsh.option.setNumber("General.Terminal", 0)
    before = gmsh.model.getCurrent()
    gmsh.model.add("anvilx mesh file")
    try:
        try:
            gmsh.merge(str(path))
        except Exception as cause:
            raise ValueError(f"Mesh file {path} is not a gmsh mesh: {cause}") from cause
        yield gmsh.model
    finally:
        if own:
            gmsh.finalize()
        else:
            gmsh.model.remove()
            gmsh.model.setCurrent(before)


def _check_model(model: Any, label: str) -> int:
    """Check that a model holds linear cells of one kind in a group; returns the dimension, 2 or 3."""
    dimension = 2 if model.getDimension() == 2 else 3
    kind = {2: "surface", 3: "volume"}[dimension]
    if not model.getPhysicalGroups(dimension):
        raise ValueError(f'{label} has no physical {kind}; the cells must be in a group named "body".')
    types = [int(t) for t in model.mesh.getElementTypes(dimension)]
    if len(types) != 1 or types[0] not in LINEAR_CELLS:
        names = [model.mesh.getElementProperties(t)[0] for t in types]
        raise ValueError(f"{label} must hold linear cells of one kind only, got {', '.join(names) or 'no cells'}.")
    try:
        compat.check_model(model)
    except Exception as error:  # on this rank alone; the others would wait for the mesh
        raise ValueError(f"{label} cannot be read: {str(error) or type(error).__name__}.") from error
    return dimension


def domain_from_mesh(mesh: Any, facets: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None) -> Domain:
    """Name facets of a DOLFINx mesh by location.

    Args:
        mesh: A `dolfinx.mesh.Mesh`.
        facets: Group name -> predicate of the vertex coordinates (3, n), true on the group; boundary facets only.

    Returns:
        The domain; all cells are in the group "body".
    """
    facet = mesh.topology.dim - 1
    mesh.topology.create_connectivity(facet, facet + 1)
    index_map = mesh.topology.index_map(facet)
    members = np.zeros((index_map.size_local + index_map.num_ghosts, len(facets or {})), dtype=bool)
    for column, predicate in enumerate((facets or {}).values()):
        members[dolfinx.mesh.locate_entities_boundary(mesh, facet, predicate), column] = True
    names = {"body": (facet + 1, 1)} | {name: (facet, tag) for tag, name in enumerate(facets or {}, start=1)}
    # Combinations of groups, the same on all ranks; a facet in one group only has the tag of the group.
    found = mesh.comm.allgather({tuple(int(c) for c in np.flatnonzero(row)) for row in np.unique(members, axis=0)})
    shared = sorted(combination for combination in set().union(*found) if len(combination) > 1)
    tags = {(column,): column + 1 for column in range(members.shape[1])}
    tags |= dict(zip(shared, range(len(tags) + 1, len(tags) + 1 + len(shared))))
    values = np.zeros(len(members), dtype=np.int32)
    for combination, tag in tags.items():
        row = np.isin(np.arange(members.shape[1]), combination)
        values[np.all(members == row, axis=1)] = tag
    parts = {
        name: tuple(tag for combination, tag in tags.items() if column in combination)
        for column, name in enumerate(facets or {})
        if any(column in combination for combination in shared)
    }
    index = np.flatnonzero(values).astype(np.int32)
    return Domain(mesh, None, dolfinx.mesh.meshtags(mesh, facet, index, values[index]), names, parts)
