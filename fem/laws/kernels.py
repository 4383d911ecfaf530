"""The elastic energy of all laws of finite strain, as compiled functions of one point.

    W_e(A) = G/2 (tr(A^T A) det(A)^(-2/3) - 3) + K/2 (det A - 1)^2

The pressure part of the Cauchy stress is K (J - 1) I for any history. Tensors are (3, 3); nothing is allocated
here, the caller owns the work arrays.

Numba compares a cached function with its own file only. A function that calls one of another file would therefore keep
the old code of that other file. So all functions that others call are in this package, `compiled` stores the compiled
code in a folder named after a hash of these sources, and after an edit of any of them all are compiled again.

References:
    Eq. (A.3), 10.1016/j.jmps.2021.104668 (there with F F_in^-1 for A and lambda_e = K/2).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

HERE = Path(__file__).resolve().parent


def sources_hash() -> str:
    """Hash of the files of this package that hold compiled functions, and of the version of Numba."""
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__}".encode())
    for path in sorted(HERE.glob("*.py")):
        text = path.read_bytes()
        if b"@compiled" in text:
            digest.update(path.name.encode() + b"\0" + text + b"\0")
    return digest.hexdigest()[:16]


def cache_folder() -> str | None:
    """Where the compiled code of these sources is kept: a folder of their hash; None where nothing can be written.

    The folder lies in NUMBA_CACHE_DIR if that is set, else beside the sources, else in the cache of the user.
    """
    given = numba.config.CACHE_DIR
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "anvilx"
    for parent in [Path(given)] if given else [HERE / "__pycache__", user]:
        folder = parent / f"kernels-{sources_hash()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return str(folder)
        except OSError:
            continue
    return None


CACHE_FOLDER = cache_folder()


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function with Numba; division by zero gives infinities, not exceptions.

    The compiled code is kept on disk as long as no source of this package with compiled functions changes.
    """
    if CACHE_FOLDER is None:
        return numba.njit(error_model="numpy")(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = CACHE_FOLDER  # Numba reads it where the function is decorated
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before


@compiled
def invert(A: np.ndarray, out: np.ndarray) -> float:
    """Write the inverse of A (3, 3) to `out` and return det A; a singular A gives infinities, not an exception."""
    out[0, 0] = A[1, 1] * A[2, 2] - A[1, 2] * A[2, 1]
    out[0, 1] = A[0, 2] * A[2, 1] - A[0, 1] * A[2, 2]
    out[0, 2] = A[0, 1] * A[1, 2] - A[0, 2] * A[1, 1]
    out[1, 0] = A[1, 2] * A[2, 0] - A[1, 0] * A[2, 2]
    out[1, 1] = A[0, 0] * A[2, 2] - A[0, 2] * A[2, 0]
    out[1, 2] = A[0, 2] * A[1, 0] - A[0, 0] * A[1, 2]
    out[2, 0] = A[1, 0] * A[2, 1] - A[1, 1] * A[2, 0]
    out[2, 1] = A[0, 1] * A[2, 0] - A[0, 0] * A[2, 1]
    out[2, 2] = A[0, 0] * A[1, 1] - A[0, 1] * A[1, 0]
    det = A[0, 0] * out[0, 0] + A[0, 1] * out[1, 0] + A[0, 2] * out[2, 0]
    for i in range(3):
        for j in range(3):
            out[i, j] /= det
    return det


@compiled
def determinant(A: np.ndarray) -> float:
    """Determinant of A (3, 3)."""
    return (
        A[0, 0] * (A[1, 1] * A[2, 2] - A[1, 2] * A[2, 1])
        + A[0, 1] * (A[1, 2] * A[2, 0] - A[1, 0] * A[2, 2])
        + A[0, 2] * (A[1, 0] * A[2, 1] - A[1, 1] * A[2, 0])
    )


@compiled
def push(F: np.ndarray, A: np.ndarray, out: np.ndarray) -> None:
    """Write F A F^T to `out` for symmetric A; all (3, 3)."""
    for i in range(3):
        for j in range(3):
            total = 0.0
            for k in range(3):
                for m in range(3):
                    total += F[i, k] * A[k, m] * F[j, m]
            out[i, j] = total


@compiled
def pull_back(tau: np.ndarray, F_inv: np.ndarray, out: np.ndarray) -> None:
    """Write P = tau F^-T to `out`; tau is the Kirchhoff stress (3, 3), Pa."""
    for i in range(3):
        for j in range(3):
            out[i, j] = tau[i, 0] * F_inv[j, 0] + tau[i, 1] * F_inv[j, 1] + tau[i, 2] * F_inv[j, 2]


@compiled
def stress_rate(tau: np.ndarray, d_tau: np.ndarray, L: np.ndarray, F_inv: np.ndarray, out: np.ndarray) -> None:
    """Write dP = (d tau - tau L^T) F^-T to `out`, with L = dF F^-1; all (3, 3)."""
    for i in range(3):
        for j in range(3):
            total = 0.0
            for k in range(3):
                bracket = d_tau[i, k] - tau[i, 0] * L[k, 0] - tau[i, 1] * L[k, 1] - tau[i, 2] * L[k, 2]
                total += bracket * F_inv[j, k]
            out[i, j] = total


@compiled
def energy(b: np.ndarray, J: float, G: float, K: float) -> float:
    """W_e from the isochoric elastic left Cauchy-Green tensor b (3, 3, det 1) and J; J/m^3."""
    return 0.5 * G * (b[0, 0] + b[1, 1] + b[2, 2] - 3.0) + 0.5 * K * (J - 1.0) ** 2
