"""Forces and tangent stiffness of a truss in PETSc: a node is a block, a bar adds four blocks.

With direction t and length l of a bar from node i to node j, small strains:

    eps = t . (u_j - u_i) / l,      r_j = -r_i = A sigma t,      K_ii = K_jj = -K_ij = -K_ji = A C / l  t t^T

Rows and columns of prescribed components keep their place in the matrix, filled with zeros and one number on the
diagonal, so that the matrix stays symmetric and definite and its blocks stay whole: conjugate gradients need the one,
the aggregates of GAMG and the kernels for blocks the other.
"""

from __future__ import annotations

import ctypes

import numpy as np
from mpi4py import MPI
from numba import njit
from petsc4py import PETSc

from fem.truss.partition import Part

# petsc4py (3.22) does not offer the assembly from coordinate lists in one call: PETSc sorts the coordinates once, sums
# repeated ones and sends those of other ranks' rows; after that an assembly is one pass over the values.
_library = ctypes.CDLL(PETSc.__file__)  # its symbols include those of the PETSc it is linked to
_library.MatSetPreallocationCOO.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p]
_library.MatSetValuesCOO.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]


@njit(cache=True, error_model="numpy")
def _strain(u: np.ndarray, ends: np.ndarray, axis: np.ndarray, length: np.ndarray, out: np.ndarray) -> None:
    for b in range(ends.shape[0]):
        i, j = ends[b]
        elongation = 0.0
        for c in range(axis.shape[1]):
            elongation += axis[b, c] * (u[j, c] - u[i, c])
        out[b] = elongation / length[b]


@njit(cache=True, error_model="numpy")
def _add_forces(force: np.ndarray, ends: np.ndarray, axis: np.ndarray, out: np.ndarray) -> None:
    for b in range(ends.shape[0]):
        i, j = ends[b]
        for c in range(axis.shape[1]):
            out[i, c] -= force[b] * axis[b, c]
            out[j, c] += force[b] * axis[b, c]


@njit(cache=True, error_model="numpy")
def _add_stiffness(
    stiffness: np.ndarray, ends: np.ndarray, axis: np.ndarray, free: np.ndarray, off: np.ndarray, own: np.ndarray
) -> None:
    """Blocks (i, j) and (j, i) of each bar into off (b, 2, d, d); blocks (i, i) summed into own (nodes, d, d)."""
    d = axis.shape[1]
    for b in range(ends.shape[0]):
        i, j = ends[b]
        for c in range(d):
            for e in range(d):
                k = stiffness[b] * axis[b, c] * axis[b, e]
                off[b, 0, c, e] = -k * free[i, c] * free[j, e]
                off[b, 1, c, e] = -k * free[j, c] * free[i, e]
                own[i, c, e] += k * free[i, c] * free[i, e]
                own[j, c, e] += k * free[j, c] * free[j, e]


class TrussAssembly:
    """Geometry, distributed vectors and matrix of a truss.

    Attributes:
        n: Owned nodes.
        d: Dimension.
        axis: Directions of the owned bars, (b, d).
        length: Their lengths, (b,), m.
        scale: Diagonal of prescribed rows, N/m; 0 before the first call of `diagonal`.
        free: 1 where a component is free, 0 where prescribed; owned nodes, then ghosts, (n + g, d).
    """

    def __init__(self, part: Part, comm: MPI.Comm) -> None:
        self.comm, self.part = comm, part
        self.n, self.d = len(part.nodes), part.x.shape[1]
        step = part.x[part.ends[:, 1]] - part.x[part.ends[:, 0]]
        self.length = np.sqrt(np.einsum("bi,bi->b", step, step))
        self.axis = np.ascontiguousarray(step / self.length[:, None])
        self._ends = np.ascontiguousarray(part.ends)
        self._ghosted = PETSc.Vec().createGhost(
            part.ghosts.astype(PETSc.IntType), (self.n * self.d, part.total_nodes * self.d), bsize=self.d, comm=comm
        )
        self.free = np.ones((self.n + len(part.ghosts), self.d))
        self.scale = 0.0
        self._coo: np.ndarray | None = None

    def create_vector(self) -> PETSc.Vec:
        """A vector of the owned components, in blocks of one node."""
        return PETSc.Vec().createMPI((self.n * self.d, self.part.total_nodes * self.d), bsize=self.d, comm=self.comm)

    def with_ghosts(self, owned: np.ndarray) -> np.ndarray:
        """Values of owned nodes, then of ghosts, (n + g, d); collective.

        Args:
            owned: Values of the owned nodes, (n, d).
        """
        with self._ghosted.localForm() as local:
            local.array_w[: self.n * self.d] = owned.ravel()
        self._ghosted.ghostUpdate(PETSc.InsertMode.INSERT, PETSc.ScatterMode.FORWARD)
        with self._ghosted.localForm() as local:
            return local.array_r.reshape(-1, self.d).copy()

    def strain(self, u: np.ndarray) -> np.ndarray:
        """Strains of the owned bars, (b,), of displacements with ghosts (n + g, d), m."""
        out = np.empty(len(self._ends))
        _strain(u, self._ends, self.axis, self.length, out)
        return out

    def forces(self, stress: np.ndarray) -> np.ndarray:
        """Forces that the bars need at the owned nodes, (n, d), N; collective.

        Args:
            stress: Stresses of the owned bars, (b,), Pa.
        """
        with self._ghosted.localForm() as local:
            out = local.array_w.reshape(-1, self.d)
            out[:] = 0.0
            _add_forces(self.part.area * stress, self._ends, self.axis, out)
        self._ghosted.ghostUpdate(PETSc.InsertMode.ADD, PETSc.ScatterMode.REVERSE)
        return self._ghosted.array_r.reshape(-1, self.d).copy()

    def constrain(self, rows: np.ndarray) -> None:
        """Set which components of the owned nodes are prescribed, node * d + component, (p,); collective."""
        free = np.ones((self.n, self.d))
        free.reshape(-1)[rows] = 0.0
        self.free = self.with_ghosts(free)

    def create_matrix(self) -> PETSc.Mat:
        """The matrix with its pattern, all blocks whole; collective."""
        part, d = self.part, self.d
        number = np.concatenate([part.first + np.arange(self.n), part.ghosts])
        i, j = number[self._ends].T
        rows = np.concatenate([np.stack([i, j], axis=1).ravel(), number])
        columns = np.concatenate([np.stack([j, i], axis=1).ravel(), number])
        inner, outer = np.tile(np.arange(d), d), np.repeat(np.arange(d), d)
        entries = [(d * block[:, None] + within).ravel() for block, within in ((rows, outer), (columns, inner))]
        size = (self.n * d, part.total_nodes * d)
        A = PETSc.Mat().create(self.comm)
        A.setSizes((size, size))
        A.setBlockSize(d)
        A.setType(PETSc.Mat.Type.AIJ)
        preallocate(A, *entries)
        A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        A.setOption(PETSc.Mat.Option.SYMMETRY_ETERNAL, True)
        A.setOption(PETSc.Mat.Option.SPD, True)
        self._coo = np.empty(len(entries[0]))
        return A

    def stiffness(self, tangent: np.ndarray, A: PETSc.Mat) -> None:
        """Assemble the tangent stiffness, N/m; collective.

        Args:
            tangent: d sigma / d eps of the owned bars, (b,), Pa.
            A: Of `create_matrix`.
        """
        assert self._coo is not None, "create_matrix comes first"
        d, bars = self.d, len(self._ends)
        off = self._coo[: bars * 2 * d * d].reshape(bars, 2, d, d)
        own = self._coo[bars * 2 * d * d :].reshape(-1, d, d)
        own[:] = 0.0
        _add_stiffness(self.part.area * tangent / self.length, self._ends, self.axis, self.free, off, own)
        node, component = np.nonzero(self.free[: self.n] == 0.0)
        own[node, component, component] = self.diagonal(tangent)
        set_values(A, self._coo)

    def diagonal(self, tangent: np.ndarray) -> float:
        """Diagonal of prescribed rows, N/m: the mean stiffness at the first call, ever after the same; collective.

        Args:
            tangent: d sigma / d eps of the owned bars, (b,), Pa.
        """
        if self.scale == 0.0:
            total = self.comm.allreduce(float(np.sum(self.part.area * np.abs(tangent) / self.length)))
            self.scale = 2.0 * total / (self.part.total_nodes * self.d) or 1.0
        return self.scale


def preallocate(A: PETSc.Mat, rows: np.ndarray, columns: np.ndarray) -> None:
    """Set the pattern of a matrix; collective.

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
