"""Series of fields for ParaView: the displacement and nodal fields of an implicit run, at the times asked for.

With ADIOS2 a `.bp` folder (open it with the ADIOS2VTXReader), else `.xdmf`; the file gets its name when it is whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dolfinx
import numpy as np
from dolfinx.fem import Function, functionspace
from dolfinx.io import VTXWriter, XDMFFile

from fem.command import remove
from fem.discretisation.projection import NodalFields
from fem.errors import SolverError
from fem.laws import drawable
from fem.statics.implicit import ImplicitSolver


class Series:
    """The series; the constructor and all methods are collective.

    Args:
        solver: A solver on the mesh; `write` may be given another one on the same points.
        folder: Where `fields.bp` or `fields.xdmf` goes.
        names: Fields that the law observes; all but those of the decoder if None.

    Attributes:
        nodal: The fields by name, on the vertices, as last written.
        u: Displacement on the vertices, as last written.
    """

    def __init__(self, solver: ImplicitSolver, folder: Path, names: tuple[str, ...] | None = None) -> None:
        mesh = solver.domain.mesh
        self.comm = mesh.comm
        self.names = drawable(solver.law) if names is None else names
        self._columns = [solver.law.observed.index(name) for name in self.names]
        self._projection = NodalFields(solver.points)
        self.nodal = {name: Function(self._projection.W, name=name) for name in self.names}
        self.u = Function(functionspace(mesh, ("Lagrange", 1, (mesh.geometry.dim,))), name="displacement")
        functions = [self.u, *self.nodal.values()]
        self.path = folder / ("fields.bp" if dolfinx.has_adios2 else "fields.xdmf")
        self._part = self.path.with_name(f"fields.part{self.path.suffix}")
        if dolfinx.has_adios2:
            self._file: Any = VTXWriter(self.comm, self._part, functions, engine="BP4")
            self._write = self._file.write
        else:
            self._file = XDMFFile(self.comm, self._part, "w")
            self._file.write_mesh(mesh)
            self._write = lambda t: [self._file.write_function(f, t) for f in functions]

    def write(self, solver: ImplicitSolver) -> None:
        """Append the last state committed."""
        observed = np.asarray(solver.law.observe(solver.state))
        for name, column in zip(self.names, self._columns, strict=True):
            self._projection.project(observed[:, column], self.nodal[name])
        self.u.interpolate(solver.u)
        self._write(solver.time)

    def __enter__(self) -> Series:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None or issubclass(kind, SolverError):  # any other error ends the job: others would wait for ever
            self.close(whole=kind is None)

    def close(self, *, whole: bool = True) -> None:
        """Close the series; only a whole one gets its name."""
        self._file.close()
        self.comm.barrier()
        if whole and self.comm.rank == 0:
            remove(self.path)
            if self.path.suffix == ".xdmf":  # the light file names its heavy one
                os.replace(self._part.with_suffix(".h5"), self.path.with_suffix(".h5"))
                self._part.write_text(self._part.read_text().replace("fields.part.h5", "fields.h5"))
            os.replace(self._part, self.path)
        self.comm.barrier()


def surface(series: Series) -> dict[str, np.ndarray] | None:
    """Skin of the body as triangles, for figures, gathered on rank 0 (None elsewhere); collective.

    Returns:
        "x" (t, 3, 3) positions of the corners of the triangles, m, "u" (t, 3, 3) their displacement, m, and each nodal
        field (t, 3).
    """
    mesh = series.u.function_space.mesh
    d = mesh.topology.dim
    mesh.topology.create_connectivity(d - 1, d)
    mesh.topology.create_connectivity(d - 1, 0)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    nodes = dolfinx.mesh.entities_to_geometry(mesh, d - 1, facets)
    if nodes.shape[1] == 4:  # in tensor-product order
        nodes = np.concatenate([nodes[:, [0, 1, 2]], nodes[:, [1, 3, 2]]])
    value = _at_geometry_nodes(series)
    part = {name: array[nodes] for name, array in {"x": mesh.geometry.x, **value}.items()}
    parts = series.comm.gather(part, root=0)
    if parts is None:
        return None
    return {name: np.concatenate([p[name] for p in parts]) for name in part}


def _at_geometry_nodes(series: Series) -> dict[str, np.ndarray]:
    """Displacement and fields in the numbering of the nodes of the mesh."""
    mesh = series.u.function_space.mesh
    n = len(mesh.geometry.x)
    geometry = mesh.geometry.dofmap
    out: dict[str, np.ndarray] = {}
    vectors = series.u.x.array.reshape(-1, mesh.geometry.dim)
    out["u"] = np.zeros((n, mesh.geometry.dim))
    out["u"][geometry] = vectors[series.u.function_space.dofmap.list]
    for name, f in series.nodal.items():
        out[name] = np.zeros(n)
        out[name][geometry] = f.x.array[f.function_space.dofmap.list]
    return out
