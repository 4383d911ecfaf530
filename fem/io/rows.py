"""Rows of an array that the ranks share, written to one file and read from it by all ranks at once.

Rows are numbered as in the input and lie in the file in this order. They travel between the ranks that have or need
them and the ranks that write or read them in rounds: in each round a rank has one piece of consecutive rows, so that
none ever holds the array of all. The digest of an array is the SHA-256 digest of the digests of its pieces; it does not
depend on the number of ranks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from mpi4py import MPI

PIECE = 2**22  # bytes of a piece


@dataclass(frozen=True)
class Region:
    """Where an array lies in a file.

    Attributes:
        offset: Of its first byte.
        rows: Number of rows. row_bytes: Bytes of a row.
        at_once: Rows of a piece.
        digest: Of the array, once it is known.
    """

    offset: int
    rows: int
    row_bytes: int
    at_once: int
    digest: str = ""

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return self.rows * self.row_bytes

    def as_dict(self) -> dict[str, int | str]:
        """Name -> value, for JSON."""
        return asdict(self)


def region(offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Region:
    """Region of an array of a shape (rows, ...) and type that begins at an offset."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    return Region(offset, shape[0], row_bytes, max(1, PIECE // max(1, row_bytes)))


def write_piece(file: int, piece: np.ndarray, offset: int) -> None:
    """Write bytes at an offset of an open file."""
    rest = piece.reshape(-1).view(np.uint8).data
    while len(rest):
        done = os.pwrite(file, rest, offset)
        rest, offset = rest[done:], offset + done


def read_piece(file: int, offset: int, size: int) -> bytes:
    """Bytes at an offset of an open file; fewer where it ends."""
    parts = []
    while size > 0 and (part := os.pread(file, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def _rounds(comm: MPI.Comm, place: Region, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First rows of the pieces of a round, and where these cut the sorted numbers; both (ranks + 1,)."""
    for low in range(0, place.rows, place.at_once * comm.size):
        edges = np.minimum(low + place.at_once * np.arange(comm.size + 1, dtype=np.int64), place.rows)
        yield edges, np.searchsorted(numbers, edges)


def _send(comm: MPI.Comm, values: np.ndarray, counts: np.ndarray, kind: MPI.Datatype, like: np.ndarray) -> np.ndarray:
    """Send `counts[r]` consecutive rows to each rank r; returns what came, rows by rank, and `like` its counts."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    origin = np.concatenate([[0], np.cumsum(like)[:-1]])
    got = np.empty((int(like.sum()), *values.shape[1:]), dtype=values.dtype)
    comm.Alltoallv([values, (counts, starts), kind], [got, (like, origin), kind])
    return got


def _counts(comm: MPI.Comm, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that go to each rank, and that come from each."""
    sent = np.diff(cuts).astype(np.int32)
    came = np.empty_like(sent)
    comm.Alltoall(sent, came)
    return sent, came


def _joined(comm: MPI.Comm, digests: list[tuple[int, bytes]]) -> str:
    found = sorted(item for part in comm.allgather(digests) for item in part)
    return hashlib.sha256(b"".join(digest for _, digest in found)).hexdigest()


def write_rows(
    comm: MPI.Comm, file: int, place: Region, numbers: np.ndarray, values: np.ndarray, label: str
) -> tuple[str, Exception | None]:
    """Write an array to its region; collective.

    Args:
        comm: Communicator.
        file: Descriptor of the open file; -1 writes nothing, for a rank that could not open it.
        place: The region.
        numbers: Numbers of the rows of this rank, (n,).
        values: These rows, (n, ...).
        label: What the rows are, for the message.

    Returns:
        The digest, and what went wrong on this rank, which must not keep it from taking part.
    """
    error: Exception | None = None
    order = np.argsort(numbers, kind="stable")
    numbers = np.asarray(numbers, dtype=np.int64)[order]
    rows = np.ascontiguousarray(np.asarray(values)[order]).reshape(len(order), -1).view(np.uint8)
    digests: list[tuple[int, bytes]] = []
    if len(numbers) and not (numbers[0] >= 0 and numbers[-1] < place.rows):
        error = ValueError(f"The numbers of the {label} must be 0 to {place.rows - 1}, got {numbers[-1]}.")
    kind = MPI.BYTE.Create_contiguous(place.row_bytes).Commit()
    for edges, cuts in _rounds(comm, place, numbers):
        start, stop = int(edges[comm.rank]), int(edges[comm.rank + 1])
        sent, came = _counts(comm, cuts)
        mine = slice(cuts[0], cuts[-1])
        found = _send(comm, numbers[mine], sent, MPI.INT64_T, came)
        piece = _send(comm, rows[mine], sent, kind, came)
        order = np.argsort(found, kind="stable")
        if not np.array_equal(found[order], np.arange(start, stop)):
            error = error or ValueError(f"The rows {start} to {stop - 1} of the {label} are not on one rank each.")
        elif start < stop:
            piece = piece[order]
            digests.append((start, hashlib.sha256(piece.data).digest()))
            try:
                if file >= 0:
                    write_piece(file, piece, place.offset + start * place.row_bytes)
            except OSError as caught:
                error = error or caught
    kind.Free()
    return _joined(comm, digests), error


def read_rows(comm: MPI.Comm, file: int, place: Region, numbers: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Read some rows of an array from its region and check the whole array; collective.

    Args:
        comm: Communicator.
        file: Descriptor of the open file; -1 reads nothing, for a rank that could not open it.
        place: The region.
        numbers: Numbers of the rows that this rank needs, (n,); several ranks may need the same.
        like: Array of the shape (..., row) and type of the rows.

    Returns:
        The rows, (n, ...).

    Raises:
        ValueError: On all ranks, if the digest is not that of the array.
    """
    order = np.argsort(numbers, kind="stable")
    numbers = np.asarray(numbers, dtype=np.int64)[order]
    rows = np.zeros((len(numbers), place.row_bytes), dtype=np.uint8)
    digests: list[tuple[int, bytes]] = []
    kind = MPI.BYTE.Create_contiguous(place.row_bytes).Commit()
    for edges, cuts in _rounds(comm, place, numbers):
        start, stop = int(edges[comm.rank]), int(edges[comm.rank + 1])
        piece = np.zeros((stop - start, place.row_bytes), dtype=np.uint8)
        if start < stop and file >= 0:
            content = read_piece(file, place.offset + start * place.row_bytes, piece.size)
            piece.reshape(-1)[: len(content)] = np.frombuffer(content, dtype=np.uint8)
            digests.append((start, hashlib.sha256(piece.data).digest()))
        wanted, asked = _counts(comm, cuts)
        mine = slice(cuts[0], cuts[-1])
        found = _send(comm, numbers[mine], wanted, MPI.INT64_T, asked)
        rows[mine] = _send(comm, piece[found - start], asked, kind, wanted)
    kind.Free()
    if _joined(comm, digests) != place.digest:
        raise ValueError("its digest is not that of its content")
    values = np.empty((len(order), *like.shape[1:]), dtype=like.dtype)
    values[order] = rows.view(like.dtype).reshape(values.shape)
    return values


def digest_of(file: int, place: Region) -> str:
    """The digest of a region, by one rank alone."""
    whole = hashlib.sha256()
    for start in range(0, place.rows, place.at_once):
        size = min(place.at_once, place.rows - start) * place.row_bytes
        whole.update(hashlib.sha256(read_piece(file, place.offset + start * place.row_bytes, size)).digest())
    return whole.hexdigest()
