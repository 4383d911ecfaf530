"""Solids on DOLFINx with classical and learned laws: explicit dynamics, implicit statics, trusses.

The names below are the public surface. They are loaded when they are first used, so that `import fem` needs no
DOLFINx.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

# OpenMP threads that wait must sleep, see `fem.threads`: the setting is read when PETSc or PyTorch is loaded.
if not {"torch", "petsc4py", "dolfinx"} & sys.modules.keys():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from fem.discretisation.dirichlet import Dirichlet
    from fem.errors import ConvergenceError, SolverError
    from fem.explicit.contact import FreeBody, Obstacle, RigidCylinder, RigidFunction, RigidPlane, RigidSphere
    from fem.explicit.solver import ExplicitSolver
    from fem.laws import load_law
    from fem.mesh import read_mesh
    from fem.statics.implicit import ImplicitSolver
    from fem.truss.solver import TrussSolver

__all__ = [
    "ConvergenceError",
    "Dirichlet",
    "ExplicitSolver",
    "FreeBody",
    "ImplicitSolver",
    "Obstacle",
    "RigidCylinder",
    "RigidFunction",
    "RigidPlane",
    "RigidSphere",
    "SolverError",
    "TrussSolver",
    "load_law",
    "read_mesh",
]

_HOMES = {
    "ConvergenceError": "fem.errors",
    "Dirichlet": "fem.discretisation.dirichlet",
    "ExplicitSolver": "fem.explicit.solver",
    "FreeBody": "fem.explicit.contact",
    "ImplicitSolver": "fem.statics.implicit",
    "Obstacle": "fem.explicit.contact",
    "RigidCylinder": "fem.explicit.contact",
    "RigidFunction": "fem.explicit.contact",
    "RigidPlane": "fem.explicit.contact",
    "RigidSphere": "fem.explicit.contact",
    "SolverError": "fem.errors",
    "TrussSolver": "fem.truss.solver",
    "load_law": "fem.laws",
    "read_mesh": "fem.mesh",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
