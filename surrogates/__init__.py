"""Learned laws: networks, training, and the exported law (the artifact).

The names below are those of `surrogates.artifact` and are loaded when they are first used: a macro solver needs the
artifact alone and must not pay for, or depend on, the training code.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

# OpenMP threads that wait must sleep, see `micro.threads`: the setting is read when PyTorch or PETSc is loaded.
if not {"torch", "petsc4py", "dolfinx"} & sys.modules.keys():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from surrogates.artifact import Law, certify, export_law, load_law, read_manifest, shipped

__all__ = ["Law", "certify", "export_law", "load_law", "read_manifest", "shipped"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from surrogates import artifact

        return getattr(artifact, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
