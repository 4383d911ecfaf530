"""Explicit dynamics: central differences, contact with rigid planes, energy balance."""

from fem.errors import SolverError
from fem.explicit.contact import RigidPlane
from fem.explicit.energy_balance import EnergyBalance
from fem.explicit.solver import ExplicitSolver, Step

__all__ = ["EnergyBalance", "ExplicitSolver", "RigidPlane", "SolverError", "Step"]
