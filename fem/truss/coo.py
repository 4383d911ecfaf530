"""Assembly of a PETSc matrix from coordinate lists in one call, which petsc4py (3.22) does not offer: through ctypes.

PETSc sorts the coordinates once, sums repeated ones and sends those of other ranks' rows; after that an assembly is one
pass over the values.
"""

from __future__ import annotations

import ctypes

import numpy as np
from petsc4py import PETSc

_library = ctypes.CDLL(PETSc.__file__)  # its symbols include those of the PETSc it is linked to
_library.MatSetPreallocationCOO.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p]
_library.MatSetValuesCOO.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]


def preallocate(A: PETSc.Mat, rows: np.ndarray, columns: np.ndarray) -> None:
    """Fix the pattern of a matrix; collective.

    Args:
        A: With sizes and type set.
        rows: Global rows, of any rank, repeated as they come, (m,).
        columns: Global columns, (m,).

    Raises:
        RuntimeError: If PETSc fails.
    """
    # PETSc uses both as work arrays.
    i, j = (np.array(numbers, dtype=PETSc.IntType) for numbers in (rows, columns))
    _check(_library.MatSetPreallocationCOO(A.handle, len(i), i.ctypes.data, j.ctypes.data))


def set_values(A: PETSc.Mat, values: np.ndarray) -> None:
    """Fill the matrix, repeated coordinates summed; collective.

    Args:
        A: Of `preallocate`.
        values: One number for each coordinate there, float64, (m,).

    Raises:
        RuntimeError: If PETSc fails.
    """
    if values.dtype != PETSc.ScalarType or not values.flags.c_contiguous:
        raise ValueError(f"values must be a contiguous array of {np.dtype(PETSc.ScalarType)}.")
    _check(_library.MatSetValuesCOO(A.handle, values.ctypes.data, int(PETSc.InsertMode.INSERT)))
    A.stateIncrease()


def _check(code: int) -> None:
    if code != 0:
        raise RuntimeError(f"PETSc failed with error code {code}.")
