"""Paths as the training of the recurrent law sees them: pieces of steps in the corotated frame, in blocks of lanes.

A row of a path has 18 numbers: the strain increment D of a piece (5, per cent), the strain E at its start (5), the
deviator of the Kirchhoff stress over 2 G at its end (5, per cent), its duration (us), J - 1 at its start, and 1 where
the data give a stress (the end of a step), else 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from surrogates.path.corotated import five, pieces, relative, strain, stretch
from surrogates.path.data import Samples, matrices
from surrogates.tensors import determinant, inverse

COLUMNS = 18
GIVEN = 17
TOGETHER = 512  # paths prepared at once


@dataclass(frozen=True)
class Rows:
    """One path.

    Attributes:
        values: (T, 18), float32; see the head of this file.
        square: Mean square of its stress.
    """

    values: np.ndarray
    square: float


def prepare(samples: Samples, shear: float, limit: float) -> list[Rows]:
    """The rows of all paths; steps are cut into pieces of at most `limit` of strain.

    Args:
        samples: Strain paths and stresses.
        shear: G, Pa.
        limit: Strain of a piece.
    """
    found: list[Rows] = []
    for start in range(0, len(samples), TOGETHER):
        found += _prepare(samples[start : start + TOGETHER], shear, limit)
    return found


def _prepare(samples: Samples, shear: float, limit: float) -> list[Rows]:
    U = matrices(samples.U)
    J = determinant(U.reshape(-1, 3, 3)).reshape(U.shape[:2])
    tau = J[..., None, None] * matrices(samples.stress) * (100.0 / (2 * shear))
    dt = torch.from_numpy(np.diff(samples.time, axis=1) * samples.duration[:, None]) * 1e6
    n, T = U.shape[:2]
    eye = torch.eye(3, dtype=torch.float64)
    G, rows, owner = eye.repeat(n, 1, 1), [], []
    for k in range(1, T):
        G_n, B = G, relative(U[:, k], G)
        count = pieces(B, limit)
        for j in range(1, int(count.max()) + 1):
            at = torch.nonzero(count >= j).flatten()
            B_j = eye + (j / count[at]).reshape(-1, 1, 1) * (B[at] - eye)
            if j > 1:
                M = G_n[at] @ inverse(G[at])
                B_j = M.mT @ B_j @ M
            D, S = stretch(B_j)
            volume = determinant(G[at]) - 1.0
            E = strain(G[at])
            moved = S @ G[at]
            G = G.index_copy(0, at, moved)
            last = count[at] == j
            # F = Q G with F = U: the stress in the corotated frame is Q^T tau Q.
            Q = U[at, k] @ inverse(moved)
            stress = five(Q.mT @ tau[at, k] @ Q) * last.unsqueeze(1)
            row = [
                100.0 * D,
                E,
                stress,
                (dt[at, k - 1] / count[at]).unsqueeze(1),
                volume.unsqueeze(1),
                last.unsqueeze(1),
            ]
            rows.append(torch.cat([part.double() for part in row], dim=1).float())
            owner.append(at)
    values, path = torch.cat(rows).numpy(), torch.cat(owner).numpy()
    order = np.argsort(path, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(path, minlength=n))[:-1])
    return [Rows(part, float((part[part[:, GIVEN] > 0, 10:15] ** 2).sum(1).mean())) for part in parts]


@dataclass(frozen=True)
class Block:
    """Paths side by side, as the compiled form takes them.

    Attributes:
        values: (T, 18, lanes), float32, zero beyond the end of a path; T is a multiple of the window.
        scale: (2, lanes), float32: one over the mean square of the stress; 1 for a path, 0 for an empty lane.
    """

    values: np.ndarray
    scale: np.ndarray


def block(paths: list[Rows], lanes: int, window: int) -> Block:
    """A block of at most `lanes` paths."""
    length = -(-max(len(path.values) for path in paths) // window) * window
    values, scale = aligned((length, COLUMNS, lanes)), aligned((2, lanes))
    scale[0] = 1.0
    for lane, path in enumerate(paths):
        values[: len(path.values), :, lane] = path.values
        scale[0, lane], scale[1, lane] = 1.0 / max(path.square, 1e-12), 1.0
    return Block(values, scale)


def batches(lengths: np.ndarray, size: int, window: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of the paths of each batch of one pass over the data, in random order; paths of similar length meet."""
    order = np.argsort(np.ceil(lengths / window) + 0.5 * rng.normal(size=len(lengths)))
    starts = np.arange(-int(rng.integers(size)) if len(order) > size else 0, len(order), size)
    for start in rng.permutation(starts):
        rows = order[max(0, start) : start + size]
        if len(rows):
            yield rng.permutation(rows)


def aligned(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Zeros whose first number lies at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
