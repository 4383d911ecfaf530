"""From nodal fields to material points and back: quadrature, Dirichlet conditions, projection, point evaluation."""
