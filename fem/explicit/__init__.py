"""Explicit dynamics: central differences, contact with rigid walls, energy balance."""

from fem.errors import SolverError
from fem.explicit.boundary import Fixed
from fem.explicit.contact import PlaneWall
from fem.explicit.solver import ExplicitSolver

__all__ = ["ExplicitSolver", "Fixed", "PlaneWall", "SolverError"]
