"""Planes of symmetry, and pressure on the deformed surface of a body.

A pressure p acts on the deformed surface, along its inward normal, and follows it:

    external(v) = -int p n . v da = -int p (J F^-T N) . v dA          (Nanson)

with the normal N and the area dA of the reference configuration. On linear cells the integrand is a polynomial that the
quadrature integrates exactly, so that a uniform pressure on a closed surface has neither force nor moment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ufl
from mpi4py import MPI

from fem.discretisation.dirichlet import Nodes, Where, describe
from fem.mesh import Domain

FLAT = 1e-9  # of the size of the body: by how much nodes of a plane may lie beside it
DEGREE = 3  # of the quadrature of a pressure: exact on bilinear facets


def normal_axis(nodes: Nodes, where: Where) -> int:
    """Number of the coordinate axis that is normal to the plane of some nodes; collective.

    Args:
        nodes: The nodes of the body.
        where: The place, as for prescribed displacements.

    Raises:
        ValueError: On all ranks, if there is no node, or the nodes do not lie in one plane normal to an axis.
    """
    x = nodes.x[: nodes.dimension, nodes.find(where)]
    low, high = np.empty(nodes.dimension), np.empty(nodes.dimension)
    nodes.comm.Allreduce(x.min(axis=1, initial=np.inf), low, op=MPI.MIN)
    nodes.comm.Allreduce(x.max(axis=1, initial=-np.inf), high, op=MPI.MAX)
    flat = np.flatnonzero(high - low <= FLAT * nodes.size)
    if len(flat) != 1:
        extents = ", ".join(f"{extent:.3g}" for extent in high - low)
        raise ValueError(
            f"A plane of symmetry must be normal to one coordinate axis, but {describe(where)} extends by {extents} m."
        )
    return int(flat[0])


def pressure(domain: Domain, u: Any, v: Any, where: str | tuple[Any, int] | None, p: Any) -> Any:
    """Linear form of a pressure on the deformed surface, with the sign of a load; collective.

    Args:
        domain: Mesh and groups.
        u: Displacement Function.
        v: Test function of its space.
        where: Name of a group of facets, a pair (`dolfinx.mesh.MeshTags`, tag), or None for the whole surface.
        p: Pressure, Pa, positive towards the body: a number or a UFL expression.

    Raises:
        ValueError: If there is no such group, or no facet in it.
    """
    mesh, tags = domain.mesh, None
    tag: Any = "everywhere"
    if isinstance(where, str):
        tags, tag = domain.facet_tags, domain.tag(where)
        facets = domain.facets(where)
    elif where is not None:
        if not (isinstance(where, tuple) and len(where) == 2 and hasattr(where[0], "find")):
            raise ValueError(f"A pressure acts on a group, (MeshTags, tag) or None, got {type(where).__name__}.")
        tags, tag = where[0], int(where[1])
        facets = tags.find(tag)
    if where is not None and domain.comm.allreduce(len(facets)) == 0:
        raise ValueError(f"There is no facet for a pressure in {describe(where)}.")
    d = mesh.geometry.dim
    cofactor = ufl.cofac(ufl.Identity(d) + ufl.grad(u))
    ds = ufl.Measure("ds", domain=mesh, subdomain_data=tags, metadata={"quadrature_degree": DEGREE})
    return -p * ufl.inner(cofactor * ufl.FacetNormal(mesh), v) * ds(tag)
