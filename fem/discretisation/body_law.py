"""The law of a body: one for all cells, or one for each group of cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dolfinx.fem
import numpy as np

from fem.laws import Law, as_law
from fem.laws.composite import CellConstants, Composite
from fem.mesh import Domain
from fem.parallel import fail_together, raise_together


def body_law(domain: Domain, given: Any) -> Law:
    """The law of a body; collective.

    Args:
        domain: Mesh and groups.
        given: A law, or what `load_law` makes one of; a dictionary that has the law of each group of cells by its name;
            or a pair of `dolfinx.mesh.MeshTags` of the cells and a dictionary that has the law of each tag.

    Returns:
        The law; a `Composite` for a dictionary.

    Raises:
        ValueError: On all ranks, if a cell has no law or several, a group has no cell, or the laws do not go together.
    """
    tags, by_group = None, given
    if isinstance(given, tuple) and len(given) == 2 and hasattr(given[0], "find"):
        tags, by_group = given
    if not isinstance(by_group, Mapping):
        with fail_together(domain.comm):
            law = as_law(given)
        return law
    with fail_together(domain.comm):
        laws = {str(group): as_law(law) for group, law in by_group.items()}
        if tags is not None and int(tags.dim) != domain.mesh.topology.dim:
            raise ValueError(f"The tags of laws must be tags of cells, got those of dimension {tags.dim}.")
        places = [domain.cells(group) if tags is None else tags.find(int(group)) for group in by_group]
    count = domain.mesh.topology.index_map(domain.mesh.topology.dim).size_local
    number = np.full(count, -1, dtype=np.int64)
    error: ValueError | None = None
    for k, (group, place) in enumerate(zip(laws, places, strict=True)):
        own = np.asarray(place)[np.asarray(place) < count]
        if (number[own] >= 0).any():
            other = list(laws)[int(number[own].max())]
            error = error or ValueError(f"A cell must have one law, got those of {other} and {group}.")
        number[own] = k
        if domain.comm.allreduce(len(own)) == 0:
            error = error or ValueError(f"There is no cell in {group}, which has a law.")
    raise_together(domain.comm, error)
    without = domain.comm.allreduce(int((number < 0).sum()))
    if without:
        raise ValueError(f"Every cell needs a law, got none for {without} cells; there are laws for {', '.join(laws)}.")
    # Count of the cells of each law, and sum of their numbers in the input mesh.
    own = np.asarray(domain.mesh.topology.original_cell_index)[:count].astype(np.int64)
    local = [value for k in range(len(laws)) for value in (int((number == k).sum()), int(own[number == k].sum()))]
    layout = tuple(int(value) for value in domain.comm.allreduce(np.array(local, dtype=np.int64)))
    with fail_together(domain.comm):
        whole = Composite(laws, number, layout)
    return whole


def density_field(mesh: Any, law: Law, constants: CellConstants, given: float | None) -> Any:
    """Reference density for forms, kg/m^3: a number, or a piecewise constant Function of a body with several laws.

    Args:
        mesh: The mesh.
        law: One law for all cells, or a `Composite`.
        constants: Of the law of each cell, with the density that is given.
        given: Density of all cells, kg/m^3; None where it is that of the laws.
    """
    if given is not None or not isinstance(law, Composite):
        return float(law.density if given is None else given)
    density = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)), name="density")
    density.x.array[: len(constants.density)] = constants.density
    density.x.scatter_forward()
    return density
