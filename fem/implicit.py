"""Implicit statics: see `fem.statics.implicit`."""

from fem.discretisation.prescribed import Prescribed
from fem.errors import SolverError
from fem.statics.implicit import ImplicitSolver

__all__ = ["ImplicitSolver", "Prescribed", "SolverError"]
