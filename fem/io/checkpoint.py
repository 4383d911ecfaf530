"""Checkpoints: named arrays in the order of the input mesh, and scalars, for any number of ranks.

This module does not depend on any solver. A solver describes its state: blocks of rows (nodes, cells, bars), numbered
as in the input, with the rows that each rank has; scalars that are the same on all ranks; and an identity (solver, law,
integration) that must be the same when the state is read again.

The file is HDF5. Rank 0 writes it in pieces under a temporary name; on reading, rank 0 checks the whole file, and every
rank then keeps its own rows only. The file begins with 512 bytes that hold the SHA-256 digest of all that follows
(HDF5 calls this a user block), so that a damaged file is refused before anything in it is used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from mpi4py import MPI

from fem.io.files import check_space, replacing
from fem.parallel import raise_together

SCHEMA = 1
HEADER = 512  # bytes of the user block
MAGIC = b"anvilx checkpoint sha256 "
PIECE = 2**24  # bytes of an array that are gathered and written, or read, at once
CHUNK = 2**16  # bytes of a chunk, the unit of the checksum of HDF5

Scalar = bool | int | float | np.ndarray


@dataclass(frozen=True)
class Block:
    """Rows of one kind that this rank has.

    Attributes:
        numbers: Number of each row in the input, (n,). For writing, each number is on one rank only; for reading, a
            rank names all rows that it needs, ghosts included.
        total: Number of rows of all ranks; the numbers run from 0 to total - 1.
        arrays: Name -> values, (n, ...). For reading, only the shape of a row and the type of the numbers are used.
    """

    numbers: np.ndarray
    total: int
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds for this rank.

    Attributes:
        time: Time, or pseudo-time.
        arrays: Block -> name -> values of the requested rows, (n, ...).
        scalars: Name -> value, of the type given.
    """

    time: float
    arrays: dict[str, dict[str, np.ndarray]]
    scalars: dict[str, Any]


def node_numbers(V: Any) -> np.ndarray:
    """Input number of the node of each local block of a P1 space, ghosts included, (nodes,)."""
    geometry = V.mesh.geometry
    numbers = np.full(V.dofmap.index_map.size_local + V.dofmap.index_map.num_ghosts, -1, dtype=np.int64)
    numbers[V.dofmap.list] = np.asarray(geometry.input_global_indices)[geometry.dofmap]
    return numbers


def cell_numbers(mesh: Any) -> np.ndarray:
    """Input number of the owned cells of a mesh, (cells,)."""
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    return np.asarray(mesh.topology.original_cell_index[:owned])


def gather_rows(comm: MPI.Comm, values: np.ndarray, numbers: np.ndarray) -> np.ndarray | None:
    """Rows of all ranks in the order of their numbers, on rank 0."""
    parts = comm.gather((numbers, values), root=0)
    if parts is None:
        return None
    order = np.argsort(np.concatenate([part[0] for part in parts]))
    return np.concatenate([part[1] for part in parts])[order]


def save(
    path: str | PathLike[str],
    comm: MPI.Comm,
    *,
    time: float,
    blocks: Mapping[str, Block],
    scalars: Mapping[str, Scalar],
    identity: Mapping[str, str | int],
) -> None:
    """Write a checkpoint whole or not at all; collective.

    Args:
        path: The file; its folder must exist.
        comm: Communicator.
        time: Time, or pseudo-time.
        blocks: Name -> rows of this rank. Names, shapes and types are the same on all ranks.
        scalars: Name -> value; those of rank 0 are written.
        identity: What must be the same when the checkpoint is restored, for example the law.

    Raises:
        OSError: On all ranks, if the file cannot be written.
        ValueError: On all ranks, if the rows of all ranks are not 0 to total - 1, each once.
    """
    error: Exception | None = None
    pieces = _gathered(comm, blocks)
    if comm.rank == 0:
        try:
            with replacing(path) as part:
                check_space(part, sum(b.total * _row_bytes(a) for b in blocks.values() for a in b.arrays.values()))
                # In the earliest format a group holds no time of day: equal states give equal files.
                with h5py.File(part, "w", libver="earliest", userblock_size=HEADER) as file:
                    _write_head(file, time, scalars, identity)
                    _write_blocks(file, blocks, pieces)
                stamp(part)
        except Exception as caught:  # HDF5 fails in several ways; the other ranks must learn of each
            error = caught
    for _ in pieces:  # on rank 0 those left after an error, so that the others do not wait for it
        pass
    raise_together(comm, error)


def restore(
    path: str | PathLike[str],
    comm: MPI.Comm,
    *,
    blocks: Mapping[str, Block],
    scalars: Mapping[str, Scalar],
    identity: Mapping[str, str | int],
) -> Content:
    """Read a checkpoint, written on any number of ranks; collective.

    Args:
        path: The file.
        comm: Communicator.
        blocks: Name -> rows that this rank needs, with arrays of the shapes and types expected.
        scalars: Name -> any value of the type and shape expected.
        identity: As for `save`.

    Raises:
        FileNotFoundError: On all ranks, if the file is not there.
        ValueError: On all ranks, if it is no checkpoint of such a solver and mesh, or damaged.
    """
    path = Path(path)
    error: Exception | None = None
    content = Content(0.0, {}, {})
    if comm.rank == 0:
        error = _caught(path, lambda: _check(path, blocks, scalars, identity))
    raise_together(comm, error)
    try:
        with _file(path) as file:
            content = Content(
                float(file["time"][()]),
                {name: _read_block(file[name], block) for name, block in blocks.items()},
                {name: _scalar(file["scalars"][name], like) for name, like in scalars.items()},
            )
        for name, arrays in content.arrays.items():
            for key, values in arrays.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(f"The checkpoint {path} is damaged: {key} of the {name} is not finite.")
    except Exception as caught:
        error = _sentence(path, caught)
    raise_together(comm, error)
    return content


def stamp(path: str | PathLike[str]) -> None:
    """Write the digest of a finished file into its user block."""
    digest = _digest(Path(path))
    with open(path, "rb+") as file:
        file.write(_header(digest))


def _header(digest: str) -> bytes:
    return (MAGIC + digest.encode() + b"\n").ljust(HEADER, b"\0")


def _digest(path: Path) -> str:
    """SHA-256 of all that follows the user block."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(HEADER)
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()


def _row_bytes(array: np.ndarray) -> int:
    return int(np.prod(array.shape[1:])) * array.dtype.itemsize


def _rows_at_once(array: np.ndarray) -> int:
    return max(1, PIECE // max(1, _row_bytes(array)))


def _gathered(comm: MPI.Comm, blocks: Mapping[str, Block]) -> Iterator[tuple[str, str, int, np.ndarray, np.ndarray]]:
    """Block, name, first row, and on rank 0 the numbers and values of the rows that follow; each item is collective."""
    for block_name, block in blocks.items():
        order = np.argsort(block.numbers, kind="stable")
        numbers = np.asarray(block.numbers)[order]
        for name, array in block.arrays.items():
            at_once = _rows_at_once(array)
            for start in range(0, max(block.total, 1), at_once):
                mine = slice(*np.searchsorted(numbers, (start, start + at_once)))
                parts = comm.gather((numbers[mine], array[order[mine]]), root=0) or [(numbers[:0], array[:0])]
                joined = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
                yield block_name, name, start, *joined


def _write_head(file: Any, time: float, scalars: Mapping[str, Scalar], identity: Mapping[str, str | int]) -> None:
    if not (np.isfinite(time) and time >= 0.0):
        raise ValueError(f"The time of a checkpoint must be finite and not negative, got {time}.")
    file.attrs["schema"] = SCHEMA
    for name, value in identity.items():
        file.attrs[name] = value
    file["time"] = float(time)
    group = file.create_group("scalars")
    for name, scalar in scalars.items():
        group[name] = np.asarray(scalar)


def _write_blocks(file: Any, blocks: Mapping[str, Block], pieces: Iterator[Any]) -> None:
    for block_name, block in blocks.items():
        group = file.create_group(block_name)
        for name, array in block.arrays.items():
            shape = (block.total, *array.shape[1:])
            if 0 in shape:
                group.create_dataset(name, shape=shape, dtype=array.dtype)
            else:
                rows = min(block.total, max(1, CHUNK // _row_bytes(array)))
                chunks = (rows, *array.shape[1:])
                group.create_dataset(name, shape=shape, dtype=array.dtype, chunks=chunks, fletcher32=True)
    for block_name, name, start, numbers, values in pieces:
        total = blocks[block_name].total
        stop = min(start + _rows_at_once(values), total)
        if not np.array_equal(np.sort(numbers), np.arange(start, stop)):
            raise ValueError(f"The rows {start} to {stop - 1} of the {block_name} are not on one rank each.")
        if values.size:
            file[block_name][name][start:stop] = values[np.argsort(numbers)]


def _file(path: Path) -> Any:
    return h5py.File(path, "r")


def _sentence(path: Path, error: Exception) -> Exception:
    """An error as one sentence; HDF5 and h5py raise nearly anything for a file that is damaged."""
    ours = isinstance(error, (ValueError, FileNotFoundError)) and not getattr(error, "errno", 0)
    if ours and str(path) in str(error):
        return error
    if isinstance(error, OSError) and error.errno:
        return ValueError(f"The checkpoint {path} cannot be read: {os.strerror(error.errno)}.")
    return ValueError(f"The checkpoint {path} is damaged: {' '.join(str(error).split())}.")


def _caught(path: Path, work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except Exception as caught:
        return _sentence(path, caught)
    return None


def _check(
    path: Path, blocks: Mapping[str, Block], scalars: Mapping[str, Scalar], identity: Mapping[str, str | int]
) -> None:
    """Check that a file is complete and belongs to this solver and mesh."""
    if not path.is_file():
        raise FileNotFoundError(f"The checkpoint {path} does not exist.")
    with open(path, "rb") as raw:
        head = raw.read(HEADER)
    if not head.startswith(MAGIC):
        raise ValueError(f"{path} is not a checkpoint.")
    if head != _header(_digest(path)):
        raise ValueError(f"The checkpoint {path} is damaged or truncated: its digest is not that of its content.")
    with _file(path) as file:
        if int(file.attrs.get("schema", -1)) != SCHEMA:
            raise ValueError(f"The checkpoint {path} is not of schema {SCHEMA}.")
        for name, value in identity.items():
            found = file.attrs.get(name, "none")
            if found != value:
                raise ValueError(f'{path} was written with the {name} "{found}", the solver has "{value}".')
        time = file["time"][()] if "time" in file else np.nan
        if np.shape(time) != () or not (np.isfinite(time) and time >= 0.0):
            raise ValueError(f"The checkpoint {path} is damaged: its time must be finite and not negative, got {time}.")
        for name, like in scalars.items():
            _check_field(path, file, f"scalars/{name}", np.shape(like), np.asarray(like).dtype)
            if np.isnan(np.asarray(file["scalars"][name][()], dtype=float)).any():
                raise ValueError(f"The checkpoint {path} is damaged: {name} is not a number.")
        for block_name, block in blocks.items():
            for name, array in block.arrays.items():
                shape = (block.total, *array.shape[1:])
                _check_field(path, file, f"{block_name}/{name}", shape, array.dtype)


def _check_field(path: Path, file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    plain = name.split("/")[-1]
    found = file[name] if name in file else None
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"The checkpoint {path} has no field {plain}.")
    if found.shape != shape:
        raise ValueError(f"{path} does not fit this mesh: {plain} has shape {found.shape}, not {shape}.")
    if found.dtype.kind != dtype.kind:
        raise ValueError(f"The checkpoint {path} is damaged: {plain} has the type {found.dtype}, not {dtype}.")


def _scalar(dataset: Any, like: Scalar) -> Any:
    value = dataset[()]
    return np.asarray(value) if isinstance(like, np.ndarray) else np.asarray(value).item()


def _read_block(group: Any, block: Block) -> dict[str, np.ndarray]:
    """The rows of this rank, read piece by piece, so that no rank holds the arrays of all."""
    order = np.argsort(block.numbers, kind="stable")
    numbers = np.asarray(block.numbers)[order]
    found: dict[str, np.ndarray] = {}
    for name, array in block.arrays.items():
        values = np.empty((len(numbers), *array.shape[1:]), dtype=array.dtype)
        at_once = _rows_at_once(array)
        first = 0
        while values.size and first < len(numbers):
            low = int(numbers[first])
            last = int(np.searchsorted(numbers, low + at_once))
            rows = group[name][low : int(numbers[last - 1]) + 1]
            values[order[first:last]] = rows[numbers[first:last] - low]
            first = last
        found[name] = values
    return found
