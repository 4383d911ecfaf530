"""Moduli of the voxels as combinations of few basis matrices; see `micro.voxel.solver.operator`."""

import numpy as np


def check_stiffness(stiffness: np.ndarray) -> np.ndarray:
    """Return the moduli of the phases (p, 6, 6).

    Raises:
        ValueError: They are not symmetric, not positive semi-definite, or have the wrong shape.
    """
    D = np.atleast_3d(np.asarray(stiffness, dtype=float)) if np.ndim(stiffness) != 2 else np.asarray(stiffness)[None]
    D = D.astype(float)
    if D.ndim != 3 or D.shape[1:] != (6, 6):
        raise ValueError(f"stiffness must have shape (6, 6) or (p, 6, 6), got {np.shape(stiffness)}.")
    if not np.isfinite(D).all():
        raise ValueError("stiffness must be finite.")
    size = abs(D).max(axis=(1, 2), initial=0.0)
    for phase, (matrix, scale) in enumerate(zip(D, size)):
        if abs(matrix - matrix.T).max() > 1e-10 * scale:
            raise ValueError(f"stiffness of phase {phase} must be symmetric.")
        if np.linalg.eigvalsh(matrix)[0] < -1e-10 * scale:
            raise ValueError(f"stiffness of phase {phase} must be positive semi-definite.")
    return (D + D.transpose(0, 2, 1)) / 2


def decompose(D: np.ndarray, tolerance: float = 1e-14) -> tuple[np.ndarray, np.ndarray]:
    """Return basis matrices (Q, 6, 6) and coordinates (p, Q) with D = coordinates . basis.

    Each phase is divided by its size first, so that soft phases are met as accurately as stiff ones. Matrices that
    occur are preferred to abstract ones: phases that are multiples of the first have one coordinate, exactly.

    Args:
        D: Moduli of the phases (p, 6, 6).
        tolerance: Relative accuracy.
    """
    flat = D.reshape(len(D), 36)
    size = np.linalg.norm(flat, axis=1)
    unit = flat / np.where(size > 0, size, 1.0)[:, None]
    chosen: list[int] = []
    rest = unit.copy()
    while len(chosen) < len(D):  # Gram-Schmidt with pivots
        pivot = int(np.argmax(np.linalg.norm(rest, axis=1)))
        length = np.linalg.norm(rest[pivot])
        if length <= 1e3 * tolerance:
            break
        chosen.append(pivot)
        direction = rest[pivot] / length
        rest -= np.outer(rest @ direction, direction)
    if not chosen:
        raise ValueError("stiffness must not be zero in all phases.")
    basis = flat[chosen] / size[chosen, None]
    coordinates = np.linalg.lstsq(basis.T, unit.T, rcond=None)[0].T
    coordinates[abs(coordinates) < 10 * tolerance] = 0.0
    coordinates[chosen] = np.eye(len(chosen))
    return basis.reshape(-1, 6, 6), coordinates * size[:, None]
