"""Trilinear hexahedron of one voxel, fully integrated: moduli, strain operator, stiffness, affine displacements.

Strains and stresses are in `micro.tensors.ENGINEERING_ORDER`, that is 11, 22, 33, 23, 13, 12, with engineering shear
strains. Node (i, j, k) of a voxel, i, j, k in {0, 1}, is number 4 i + 2 j + k; degree of freedom 3 a + c is
component c at node a.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (17) to (20).
"""

import numpy as np

from micro.tensors import ENGINEERING_ORDER

#: Corner of each node of a voxel, (8, 3) as an array.
NODES: list[tuple[int, int, int]] = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
CORNERS = np.array(NODES)
#: Pairs of axes of the shear components 23, 13, 12.
SHEARS = ENGINEERING_ORDER.pairs[3:]


def isotropic(E: float = 1.0, nu: float = 0.3) -> np.ndarray:
    """Return the stiffness (6, 6) of an isotropic material.

    Args:
        E: Young's modulus.
        nu: Poisson's ratio.

    Raises:
        ValueError: The energy would not be positive.
    """
    if not (E > 0 and -1 < nu < 0.5):
        raise ValueError(f"E must be positive and nu lie between -1 and 0.5, got {E} and {nu}.")
    return from_lame(E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu)))


def from_lame(lmbda: float, mu: float) -> np.ndarray:
    """Return the stiffness (6, 6) of an isotropic material from Lame's constants."""
    D = np.diag([2.0 * mu] * 3 + [1.0 * mu] * 3)
    D[:3, :3] += lmbda
    return D


def strain_operator(point: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return B (6, 24): strain = B u at a point of a voxel, Eq. (18).

    Args:
        point: Place in the voxel (3,), each coordinate from 0 to 1.
        spacing: Edges of the voxel (3,).
    """
    values = np.where(CORNERS == 1, point, 1 - point)  # (8, 3)
    slopes = np.where(CORNERS == 1, 1.0, -1.0) / spacing
    gradient = np.stack([slopes[:, i] * values[:, (i + 1) % 3] * values[:, (i + 2) % 3] for i in range(3)])  # (3, 8)
    B = np.zeros((6, 8, 3))
    for i in range(3):
        B[i, :, i] = gradient[i]
    for row, (i, j) in enumerate(SHEARS, start=3):
        B[row, :, i], B[row, :, j] = gradient[j], gradient[i]
    return B.reshape(6, 24)


def gauss_operators(spacing: np.ndarray) -> tuple[np.ndarray, float]:
    """Return B at the 2 x 2 x 2 Gauss points of a voxel (8, 6, 24), and the weight of each point."""
    points = 0.5 + (CORNERS - 0.5) / np.sqrt(3)
    return np.stack([strain_operator(point, spacing) for point in points]), float(np.prod(spacing)) / 8


def element_stiffness(D: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the stiffness of a voxel (..., 24, 24), Eq. (19), exact for the constant moduli D (..., 6, 6)."""
    B, weight = gauss_operators(spacing)
    return weight * np.einsum("gia,...ij,gjb->...ab", B, D, B)


def affine(spacing: np.ndarray) -> np.ndarray:
    """Return the displacements (24, 6) of a voxel's nodes, first node at the origin, by the six unit strains."""
    x = CORNERS * spacing
    A = np.zeros((8, 3, 6))
    for i in range(3):
        A[:, i, i] = x[:, i]
    for column, (i, j) in enumerate(SHEARS, start=3):
        A[:, i, column], A[:, j, column] = x[:, j] / 2, x[:, i] / 2
    return A.reshape(24, 6)


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
    """Return basis matrices (Q, 6, 6) and coordinates (p, Q) with D = coordinates . basis; see `VoxelOperator`.

    Each phase is divided by its size first, so that soft phases are represented as accurately as stiff ones. Matrices
    of phases serve as the basis: phases that are multiples of the first have one coordinate, exactly.

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
