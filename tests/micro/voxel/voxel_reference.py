"""An independent homogeniser of periodic voxels: sparse assembly and a direct solve with SciPy.

It shares no code with the package: the stiffness is integrated from tensor products of one-dimensional hat functions.
"""

import itertools

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

SHEAR = ((1, 2), (0, 2), (0, 1))
NODES = list(itertools.product((0, 1), repeat=3))


def voxel_matrices(D, h):
    """Stiffness (24, 24) of a voxel of edges h, from exact integrals over the edges, for the moduli D (6, 6)."""
    C = np.zeros((3, 3, 3, 3))
    index = {(0, 0): 0, (1, 1): 1, (2, 2): 2}
    index |= {pair: 3 + k for k, (i, j) in enumerate(SHEAR) for pair in ((i, j), (j, i))}
    for (i, j), a in index.items():
        for (k, l), b in index.items():
            C[i, j, k, l] = D[a, b]
    values = np.array([[1 / 3, 1 / 6], [1 / 6, 1 / 3]])  # int N_a N_b over an edge of length 1
    mixed = np.array([[-0.5, -0.5], [0.5, 0.5]])  # int N_a' N_b
    slopes = np.array([[1.0, -1.0], [-1.0, 1.0]])  # int N_a' N_b'
    K = np.zeros((8, 3, 8, 3))
    for (a, na), (b, nb) in itertools.product(enumerate(NODES), repeat=2):
        for j, l in itertools.product(range(3), repeat=2):
            integral = np.prod(h)
            for axis in range(3):
                pair = na[axis], nb[axis]
                if axis == j and axis == l:
                    integral *= slopes[pair] / h[axis] ** 2
                elif axis == j:
                    integral *= mixed[pair] / h[axis]
                elif axis == l:
                    integral *= mixed[pair[::-1]] / h[axis]
                else:
                    integral *= values[pair]
            K[a, :, b, :] += integral * C[:, j, :, l]
    return K.reshape(24, 24)


def unit_displacements(h):
    """Displacements (24, 6) of the nodes under the unit strains."""
    A = np.zeros((8, 3, 6))
    for a, node in enumerate(NODES):
        x = np.array(node) * h
        for i in range(3):
            A[a, i, i] = x[i]
        for k, (i, j) in enumerate(SHEAR):
            A[a, i, 3 + k], A[a, j, 3 + k] = x[j] / 2, x[i] / 2
    return A.reshape(24, 6)


def assemble(density, phases, phase, h):
    """Stiffness (D, D), loads (D, 6), degrees of freedom of the voxels (n, 24) and their matrices (n, 24, 24)."""
    shape = density.shape
    number = np.arange(density.size).reshape(shape)
    nodes = [np.roll(number, [-s for s in node], (0, 1, 2)).ravel() for node in NODES]
    dofs = (3 * np.stack(nodes, 1)[:, :, None] + np.arange(3)).reshape(-1, 24)
    table = np.stack([voxel_matrices(D, h) for D in phases])
    matrices = density.ravel()[:, None, None] * table[phase.ravel()]
    rows, columns = np.repeat(dofs, 24, axis=1).ravel(), np.tile(dofs, (1, 24)).ravel()
    K = scipy.sparse.csc_matrix((matrices.ravel(), (rows, columns)), shape=(3 * density.size,) * 2)
    f = np.zeros((3 * density.size, 6))
    np.add.at(f, dofs, matrices @ unit_displacements(h))
    return K, f, dofs, matrices


def effective_tensor(density, phases, phase=None, h=None):
    """Effective stiffness (6, 6) of a cell without floating parts, by a direct solve."""
    h = np.ones(3) / max(density.shape) if h is None else np.asarray(h)
    phase = np.zeros(density.shape, int) if phase is None else phase
    K, f, dofs, matrices = assemble(density, phases, phase, h)
    free = np.flatnonzero(K.diagonal() > 0)[3:]  # one node held
    u = np.zeros_like(f)
    u[free] = -scipy.sparse.linalg.splu(K[free][:, free]).solve(f[free])
    total = u[dofs] + unit_displacements(h)
    return np.einsum("eak,eab,ebl->kl", total, matrices, total) / (np.prod(h) * density.size)
