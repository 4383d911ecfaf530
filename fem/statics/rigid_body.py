"""Rigid-body modes: what a body without supports can do without stress, the coarse space of multigrid."""

from __future__ import annotations

from typing import Any

import numpy as np
from petsc4py import PETSc


def rigid_body_modes(x: np.ndarray) -> np.ndarray:
    """Translations and infinitesimal rotations about the centre of some points.

    Args:
        x: Positions, (n, d), d = 2 or 3, m.

    Returns:
        Modes, (3 or 6, n, d).
    """
    n, d = x.shape
    pairs = [(0, 1)] if d == 2 else [(0, 1), (1, 2), (2, 0)]
    modes = np.zeros((d + len(pairs), n, d))
    for i in range(d):
        modes[i, :, i] = 1.0
    for mode, (i, j) in zip(modes[d:], pairs):
        mode[:, i], mode[:, j] = -x[:, j], x[:, i]
    return modes


def near_nullspace(vector: PETSc.Vec, x: np.ndarray) -> PETSc.NullSpace:
    """Rigid-body modes as orthonormal vectors; collective.

    Args:
        vector: A vector of the layout of the unknowns, blocks of d.
        x: Positions of the owned nodes, (n, d), m.
    """
    comm: Any = vector.comm.tompi4py()
    centre = comm.allreduce(x.sum(axis=0)) / max(comm.allreduce(len(x)), 1)
    basis: list[PETSc.Vec] = []
    for mode in rigid_body_modes(x - centre):
        new = vector.duplicate()
        new.array_w[:] = mode.reshape(-1)
        for _ in range(2):  # Gram and Schmidt, twice is enough
            for old in basis:
                new.axpy(-new.dot(old), old)
        new.normalize()
        basis.append(new)
    return PETSc.NullSpace().create(vectors=basis, comm=vector.comm)
