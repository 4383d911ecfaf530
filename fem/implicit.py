"""Implicit statics: see `fem.statics.implicit`."""

from fem.discretisation.dirichlet import Dirichlet
from fem.errors import SolverError
from fem.statics.implicit import ImplicitSolver

__all__ = ["Dirichlet", "ImplicitSolver", "SolverError"]
