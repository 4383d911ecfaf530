"""Macro solvers on DOLFINx: classical laws, exported laws, explicit dynamics."""

import os
import sys

# Threads of OpenMP that wait must sleep: see `fem.parallel`. They read this when PETSc or PyTorch loads them.
if not {"torch", "petsc4py", "dolfinx"} & sys.modules.keys():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
