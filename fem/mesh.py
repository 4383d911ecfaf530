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
        facet_tags: Tags of the facets (surface groups).
        names: Group name -> (dimension, tag).
    """

    mesh: Any
    cell_tags: Any
    facet_tags: Any
    names: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def comm(self) -> MPI.Comm:
        """Communicator of the mesh."""
        return self.mesh.comm

    def facets(self, name: str) -> np.ndarray:
        """Local facets of a surface group, (n,).

        Args:
            name: Name of the group, for example "foot".

        Raises:
            ValueError: If there is no such surface group.
        """
        facet = self.mesh.topology.dim - 1
        known = sorted(key for key, (dim, _) in self.names.items() if dim == facet)
        if name not in known:
            raise ValueError(f'The mesh has no surface group "{name}"; it has {", ".join(known) or "none"}.')
        return self.facet_tags.find(self.names[name][1])

    def tag(self, name: str) -> int:
        """Tag of a group, for `ufl.ds(tag)` with `subdomain_data=domain.facet_tags`."""
        if name not in self.names:
            raise ValueError(f'The mesh has no group "{name}"; it has {", ".join(sorted(self.names)) or "none"}.')
        return self.names[name][1]


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
    with contextlib.ExitStack() as session:
        if comm.rank == root:
            try:
                model = session.enter_context(_opened(Path(source))) if is_path else source
                dimension = _check_model(model, str(source) if is_path else "The gmsh model")
            except Exception as caught:
                error = caught
        raise_together(comm, error)
        dimension = comm.bcast(dimension, root=root)
        mesh, cell_tags, facet_tags, names = compat.model_to_mesh(model, comm, root, dimension)
    mesh.topology.create_connectivity(dimension - 1, dimension)
    return Domain(mesh, cell_tags, facet_tags, names)


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
    """Refuse what is not linear cells of one kind in a group of their own; returns the dimension, 2 or 3."""
    dimension = 2 if model.getDimension() == 2 else 3
    kind = {2: "surface", 3: "volume"}[dimension]
    if not model.getPhysicalGroups(dimension):
        raise ValueError(f'{label} has no physical {kind}; the cells must be in a group named "body".')
    types = [int(t) for t in model.mesh.getElementTypes(dimension)]
    if len(types) != 1 or types[0] not in LINEAR_CELLS:
        names = [model.mesh.getElementProperties(t)[0] for t in types]
        raise ValueError(f"{label} must hold linear cells of one kind only, got {', '.join(names) or 'no cells'}.")
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
    names = {"body": (facet + 1, 1)}
    indices: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for tag, (name, predicate) in enumerate((facets or {}).items(), start=1):
        found = dolfinx.mesh.locate_entities_boundary(mesh, facet, predicate)
        names[name] = (facet, tag)
        indices.append(np.asarray(found, dtype=np.int32))
        values.append(np.full(len(found), tag, dtype=np.int32))
    index = np.concatenate(indices) if indices else np.zeros(0, dtype=np.int32)
    value = np.concatenate(values) if values else np.zeros(0, dtype=np.int32)
    index, first = np.unique(index, return_index=True)
    return Domain(mesh, None, dolfinx.mesh.meshtags(mesh, facet, index, value[first]), names)
