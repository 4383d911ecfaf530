"""What differs between DOLFINx 0.9 (tested), 0.10 and 0.11, in one place."""

from __future__ import annotations

from typing import Any

import dolfinx
import numpy as np
from mpi4py import MPI


def model_to_mesh(model: Any, comm: MPI.Comm, root: int, dimension: int = 3) -> tuple[Any, Any, Any]:
    """Distribute the mesh of a live gmsh model; collective.

    Args:
        model: The gmsh model, on rank `root`; ignored elsewhere.
        comm: Communicator of the mesh.
        root: Rank that holds the model.
        dimension: Of the coordinates, 2 or 3.

    Returns:
        Mesh, cell tags and facet tags.
    """
    result = _gmsh_reader().model_to_mesh(model, comm, root, gdim=dimension)
    return result[0], result[1], result[2]


def check_model(model: Any) -> None:
    """Read a live gmsh model on this rank as `model_to_mesh` does, to see what fails before other ranks wait for it."""
    reader = _gmsh_reader()
    reader.extract_topology_and_markers(model)
    if not np.isfinite(reader.extract_geometry(model)).all():
        raise ValueError("a node has coordinates that are not finite")


def _gmsh_reader() -> Any:
    try:
        from dolfinx.io import gmsh as reader  # 0.10 and later
    except ImportError:
        from dolfinx.io import gmshio as reader  # 0.9
    return reader


def interpolation_points(element: Any) -> np.ndarray:
    """Interpolation points of a finite element, (n, 3): a method in 0.9, a property from 0.10 on."""
    points = element.interpolation_points
    return np.asarray(points() if callable(points) else points)


def evaluate(expression: Any, mesh: Any, cells: np.ndarray, n_points: int) -> np.ndarray:
    """Values of a compiled `Expression` in cells.

    Args:
        expression: A `dolfinx.fem.Expression`.
        mesh: Its mesh.
        cells: Local cell indices, (n,).
        n_points: Points per cell.

    Returns:
        Values, (n * n_points, value size), points of one cell together.
    """
    values = np.asarray(expression.eval(mesh, np.asarray(cells, dtype=np.int32)))
    if len(cells) == 0:
        return np.zeros((0, 1))
    return values.reshape(len(cells) * n_points, -1)


def version() -> str:
    """Version of DOLFINx."""
    return str(dolfinx.__version__)
