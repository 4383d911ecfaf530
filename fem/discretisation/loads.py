"""Pressure on the deformed surface of a body.

A pressure p acts on the deformed surface, along its inward normal, and follows it:

    external(v) = -int p n . v da = -int p (J F^-T N) . v dA          (Nanson)

with the normal N and the area dA of the reference configuration. On linear cells the integrand is a polynomial that the
quadrature integrates exactly, so that a uniform pressure on a closed surface has neither force nor moment.
"""

from __future__ import annotations

from typing import Any

import ufl

from fem.discretisation.dirichlet import describe
from fem.mesh import Domain

DEGREE = 3  # of the quadrature of a pressure: exact on bilinear facets


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
