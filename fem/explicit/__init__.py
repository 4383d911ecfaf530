"""Explicit dynamics: central differences, contact with rigid obstacles, energy balance."""

from fem.errors import SolverError
from fem.explicit.contact import FreeBody, Obstacle, RigidCylinder, RigidFunction, RigidPlane, RigidSphere
from fem.explicit.energy_balance import EnergyBalance
from fem.explicit.solver import ExplicitSolver, Step

__all__ = [
    "EnergyBalance",
    "ExplicitSolver",
    "FreeBody",
    "Obstacle",
    "RigidCylinder",
    "RigidFunction",
    "RigidPlane",
    "RigidSphere",
    "SolverError",
    "Step",
]
