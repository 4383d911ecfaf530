"""Nodal fields of values at quadrature points: the continuous, piecewise linear fields that are nearest in L2."""

from __future__ import annotations

from typing import Any

import basix.ufl
import numpy as np
import ufl
from dolfinx.fem import Function, assemble_vector, form, functionspace
from dolfinx.fem.petsc import assemble_matrix
from dolfinx.la import InsertMode
from petsc4py import PETSc

from fem.discretisation.quadrature import QuadraturePoints

RTOL = 1e-12


class NodalFields:
    """Projects values at quadrature points to the vertices of the mesh, one field at a time; collective.

    A field that is linear in the position is reproduced if the quadrature has at least degree 2; with one point per
    tetrahedron, values are taken as constant in each cell.

    Args:
        points: The quadrature points.

    Attributes:
        W: Space of the fields, Lagrange of degree 1.
    """

    def __init__(self, points: QuadraturePoints) -> None:
        mesh = points.V.mesh
        self.W = functionspace(mesh, ("Lagrange", 1))
        degree = int(points.dx.metadata()["quadrature_degree"])
        element = basix.ufl.quadrature_element(mesh.topology.cell_type.name, degree=degree)
        self._values = Function(functionspace(mesh, element))
        self._n = points.n
        u, v = ufl.TrialFunction(self.W), ufl.TestFunction(self.W)
        self._load = form(self._values * v * points.dx)
        mass = assemble_matrix(form(u * v * ufl.dx(mesh)))
        mass.assemble()
        self._x, self._b = mass.createVecs()
        self._ksp = PETSc.KSP().create(mesh.comm)
        self._ksp.setOperators(mass)
        self._ksp.setType("cg")
        self._ksp.getPC().setType("jacobi")
        self._ksp.setTolerances(rtol=RTOL, max_it=500)
        self._mass = mass

    def project(self, values: np.ndarray, out: Any | None = None) -> np.ndarray:
        """Nodal values of a field.

        Args:
            values: At the quadrature points of this rank, (n,).
            out: A Function of `W` to fill as well.

        Returns:
            At the nodes of this rank, ghosts included, (nodes,).

        Raises:
            RuntimeError: On all ranks, if the mass matrix cannot be inverted.
        """
        self._values.x.array[: self._n] = values
        b = assemble_vector(self._load)
        b.scatter_reverse(InsertMode.add)
        found = Function(self.W) if out is None else out
        owned = self.W.dofmap.index_map.size_local
        self._b.array_w[:] = b.array[:owned]
        self._ksp.solve(self._b, self._x)
        if self._ksp.getConvergedReason() <= 0:
            raise RuntimeError("Nodal fields: the mass matrix could not be inverted.")
        found.x.array[:owned] = self._x.array_r
        found.x.scatter_forward()
        return np.array(found.x.array)
