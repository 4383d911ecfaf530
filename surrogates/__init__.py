"""Learned laws: networks, training, and the exported law (the artifact).

This package imports nothing here on purpose: a macro solver needs `surrogates.artifact` alone and must not pay for,
or depend on, the training code.
"""

import os
import sys

# Threads of OpenMP that wait must sleep: see `micro.threads`. They read this when PyTorch or PETSc loads them.
if not {"torch", "petsc4py", "dolfinx"} & sys.modules.keys():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
