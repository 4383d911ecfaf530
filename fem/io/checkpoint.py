"""Checkpoints: named arrays in the order of the input mesh, and scalars, for any number of ranks.

This module does not depend on any solver. A solver describes its state: blocks of rows (nodes, cells, bars), numbered
as in the input, with the rows that each rank has; scalars that are the same on all ranks; and an identity (solver, law,
integration) that must be the same when the state is read again.

The file is HDF5 with contiguous arrays. Rank 0 lays it out under a temporary name, all ranks write their part of the
arrays at once (`fem.io.rows`), and the file gets its name when it is whole and on the disk: whatever fails or is killed
before, the file that had the name is still there. The file begins with a block that HDF5 leaves alone (its user block)
and that holds where each array lies and its SHA-256 digest, and the digests of all other bytes and of the block itself.
All ranks check these when they read, so that nothing of a damaged file is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from mpi4py import MPI

from fem.io.files import check_space, part_of, put_in_place
from fem.io.rows import Region, digest_of, read_piece, read_rows, region, write_rows
from fem.parallel import raise_together

SCHEMA = 2
HEADER = 2**15  # bytes of the user block
NAME = b"anvilx checkpoint"
MAGIC = NAME + b", schema %d, sha256 " % SCHEMA

Scalar = bool | int | float | np.ndarray
Identity = Mapping[str, str | int | float]


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


# For reading: a block, or a function of the rows in the file (0: there is no such block) that gives it; None skips it.
Wanted = Block | Callable[[int], Block | None]


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
    identity: Identity,
    former: str | PathLike[str] | None = None,
) -> None:
    """Write a checkpoint whole or not at all; collective.

    Args:
        path: The file; its folder must exist.
        comm: Communicator.
        time: Time, or pseudo-time.
        blocks: Name -> rows of this rank. Names, shapes and types are the same on all ranks.
        scalars: Name -> value; those of rank 0 are written.
        identity: What must be the same when the checkpoint is restored, for example the law.
        former: Name under which the checkpoint is kept that has been at `path` until now; None does not keep it.

    Raises:
        OSError: On all ranks, if the file cannot be written.
        ValueError: On all ranks, if the rows of all ranks are not 0 to total - 1, each once.
    """
    path, regions, part = Path(path), dict[str, Region](), Path()
    error: Exception | None = None
    try:
        if comm.rank == 0:
            try:
                part = part_of(path)
                regions = _lay_out(part, time, blocks, scalars, identity)
            except Exception as caught:  # HDF5 fails in several ways; the other ranks must learn of each
                error = caught
        raise_together(comm, error)
        part, regions = comm.bcast((part, regions))
        regions = _write_arrays(comm, part, blocks, regions)
        if comm.rank == 0:
            try:
                _seal(part, regions)
                put_in_place(part, path, former)
            except Exception as caught:
                error = caught
        raise_together(comm, error)
    finally:
        if comm.rank == 0 and part.name:
            part.unlink(missing_ok=True)


def restore(
    path: str | PathLike[str],
    comm: MPI.Comm,
    *,
    blocks: Mapping[str, Wanted],
    scalars: Mapping[str, Scalar],
    identity: Identity,
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
    regions: dict[str, Region] = {}
    found: tuple[float, dict[str, Any]] = (0.0, {})
    if comm.rank == 0:
        try:
            regions = _open_seal(path)
            _check_identity(path, identity)
        except Exception as caught:
            error = _sentence(path, caught)
    raise_together(comm, error)
    regions = comm.bcast(regions)
    chosen = _chosen(blocks, regions)
    if comm.rank == 0:
        try:
            found = _check_content(path, chosen, scalars)
        except Exception as caught:
            error = _sentence(path, caught)
    raise_together(comm, error)
    time, values = comm.bcast(found)
    return Content(time, _read_arrays(comm, path, chosen, regions), values)


def check_same(
    comm: MPI.Comm,
    path: str | PathLike[str],
    what: str,
    numbers: np.ndarray,
    found: np.ndarray,
    present: np.ndarray,
    tolerance: float = 0.0,
) -> None:
    """Check that rows of a checkpoint that describe the mesh are those of the present one; collective.

    Args:
        comm: Communicator.
        path: The file, for the message.
        what: What a row is, for example "position of node".
        numbers: Numbers of the rows, (n,).
        found: Rows of the checkpoint, (n, ...).
        present: Rows of the mesh, (n, ...).
        tolerance: Largest difference that is rounding.

    Raises:
        ValueError: On all ranks, if a row of any differs.
    """
    error: Exception | None = None
    was, now = (np.asarray(values).reshape(len(numbers), -1) for values in (found, present))
    differs = np.flatnonzero((np.abs(was - now) > tolerance).any(axis=1))
    if len(differs):
        texts = [", ".join(f"{float(value):.6g}" for value in values[differs[0]]) for values in (was, now)]
        number = int(numbers[differs[0]])
        error = ValueError(f"{path} does not fit this mesh: the {what} {number} was {texts[0]}, is {texts[1]}.")
    raise_together(comm, error)


def _chosen(blocks: Mapping[str, Wanted], regions: Mapping[str, Region]) -> dict[str, Block]:
    """The blocks to be read."""
    rows = {name.split("/")[0]: place.rows for name, place in regions.items()}
    found = {name: block(rows.get(name, 0)) if callable(block) else block for name, block in blocks.items()}
    return {name: block for name, block in found.items() if block is not None}


def _lay_out(
    part: Path, time: float, blocks: Mapping[str, Block], scalars: Mapping[str, Scalar], identity: Identity
) -> dict[str, Region]:
    """Make the file with all but its arrays; returns where these will lie."""
    if not (np.isfinite(time) and time >= 0.0):
        raise ValueError(f"The time of a checkpoint must be finite and not negative, got {time}.")
    shapes = {
        f"{block_name}/{name}": ((block.total, *array.shape[1:]), array.dtype)
        for block_name, block in blocks.items()
        for name, array in block.arrays.items()
    }
    check_space(part, sum(region(0, *shape).size for shape in shapes.values()))
    regions: dict[str, Region] = {}
    # In the earliest format a group holds no time of day: equal states give equal files.
    with h5py.File(part, "w", libver="earliest", userblock_size=HEADER) as file:
        for name, value in identity.items():
            file.attrs[name] = value
        file["time"] = float(time)
        group = file.create_group("scalars")
        for name, scalar in scalars.items():
            group[name] = np.asarray(scalar)
        for name, (shape, dtype) in shapes.items():
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            made = file.create_dataset(name, shape=shape, dtype=dtype, dcpl=layout, track_times=False)
            if 0 not in shape:
                regions[name] = region(made.id.get_offset(), shape, dtype)
    return regions


def _write_arrays(
    comm: MPI.Comm, part: Path, blocks: Mapping[str, Block], regions: Mapping[str, Region]
) -> dict[str, Region]:
    """Write the arrays, all ranks at once; returns their regions with the digests. Collective."""
    error: Exception | None = None
    file = -1
    try:
        file = os.open(part, os.O_RDWR)
    except OSError as caught:
        error = caught
    found: dict[str, Region] = {}
    for name, place in regions.items():
        block_name, _, array = name.partition("/")
        block = blocks[block_name]
        digest, wrong = write_rows(comm, file, place, block.numbers, block.arrays[array], block_name)
        found[name], error = replace(place, digest=digest), error or wrong
    if file >= 0:
        try:
            os.fsync(file)
        except OSError as caught:
            error = error or caught
        os.close(file)
    raise_together(comm, error)
    return found


def _read_arrays(
    comm: MPI.Comm, path: Path, blocks: Mapping[str, Block], regions: Mapping[str, Region]
) -> dict[str, dict[str, np.ndarray]]:
    """Read the rows of this rank and check the arrays that they are of; collective."""
    error: Exception | None = None
    file = -1
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as caught:
        error = _sentence(path, caught)
    found: dict[str, dict[str, np.ndarray]] = {}
    for block_name, block in blocks.items():
        found[block_name] = {}
        for name, like in block.arrays.items():
            place = regions.get(f"{block_name}/{name}")
            values = np.zeros((len(block.numbers), *like.shape[1:]), dtype=like.dtype)
            if place is not None:
                try:
                    values = read_rows(comm, file, place, block.numbers, like)
                    if values.dtype.kind == "f" and not np.isfinite(values).all():
                        raise ValueError(f"{name} of the {block_name} is not finite")
                except ValueError as caught:
                    error = error or _sentence(path, caught)
            found[block_name][name] = values
    if file >= 0:
        os.close(file)
    raise_together(comm, error)
    return found


def stamp(path: str | PathLike[str]) -> None:
    """Write the digests of a finished file into its user block, by one rank alone."""
    path = Path(path)
    places: dict[str, Region] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and "/" in name and not name.startswith("scalars/") and item.size:
            places[name] = region(item.id.get_offset(), item.shape, item.dtype)

    with h5py.File(path, "r") as content:
        content.visititems(visit)
    file = os.open(path, os.O_RDONLY)
    try:
        _seal(path, {name: replace(place, digest=digest_of(file, place)) for name, place in places.items()})
    finally:
        os.close(file)


def _rest(path: Path, regions: Mapping[str, Region]) -> str:
    """Digest of what lies neither in the user block nor in an array."""
    found, place, size = hashlib.sha256(), HEADER, path.stat().st_size
    spans = sorted((region.offset, region.size) for region in regions.values())
    with open(path, "rb") as file:
        for start, length in [*spans, (size, 0)]:
            found.update(read_piece(file.fileno(), place, start - place))
            place = start + length
    return found.hexdigest()


def _header(path: Path, regions: Mapping[str, Region]) -> bytes:
    arrays = {name: place.as_dict() for name, place in sorted(regions.items())}
    size = path.stat().st_size
    text = json.dumps({"arrays": arrays, "size": size, "rest": _rest(path, regions)}).encode()
    room = HEADER - len(MAGIC) - 65
    if len(text) > room:
        raise ValueError(f"A checkpoint has room for {room} bytes that describe its arrays, got {len(text)}.")
    text = text.ljust(room, b"\0")
    return MAGIC + hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def _seal(path: Path, regions: Mapping[str, Region]) -> None:
    header = _header(path, regions)
    with open(path, "rb+") as file:
        file.write(header)


def _open_seal(path: Path) -> dict[str, Region]:
    """Check all of a file but its arrays, whose regions are returned."""
    if not path.is_file():
        raise FileNotFoundError(f"The checkpoint {path} does not exist.")
    with open(path, "rb") as raw:
        head = raw.read(HEADER)
    if not head.startswith(NAME):
        raise ValueError(f"{path} is not a checkpoint.")
    if not head.startswith(MAGIC):
        raise ValueError(f"The checkpoint {path} is not of schema {SCHEMA}.")
    digest, text = head[len(MAGIC) : len(MAGIC) + 64], head[len(MAGIC) + 65 :]
    damaged = ValueError("its digest is not that of its content")
    if hashlib.sha256(text).hexdigest().encode() != digest or head[len(MAGIC) + 64 : len(MAGIC) + 65] != b"\n":
        raise damaged
    entries = json.loads(text.rstrip(b"\0"))
    regions = {name: Region(**entry) for name, entry in entries["arrays"].items()}
    if path.stat().st_size != entries["size"] or _rest(path, regions) != entries["rest"]:
        raise damaged
    return regions


def _sentence(path: Path, error: Exception) -> Exception:
    """An error as one sentence; HDF5 and h5py raise nearly anything for a file that is damaged."""
    ours = isinstance(error, (ValueError, FileNotFoundError)) and not getattr(error, "errno", 0)
    if ours and str(path) in str(error):
        return error
    if isinstance(error, OSError) and error.errno:
        return ValueError(f"The checkpoint {path} cannot be read: {os.strerror(error.errno)}.")
    return ValueError(f"The checkpoint {path} is damaged or truncated: {' '.join(str(error).split())}.")


def _check_identity(path: Path, identity: Identity) -> None:
    """Check that a file is of the same problem."""
    with h5py.File(path, "r") as file:
        for name, value in identity.items():
            found = file.attrs.get(name, "none")
            if found != value:
                raise ValueError(f'{path} was written with the {name} "{found}", the solver has "{value}".')


def _check_content(
    path: Path, blocks: Mapping[str, Block], scalars: Mapping[str, Scalar]
) -> tuple[float, dict[str, Any]]:
    """Check that a file has all that is wanted; returns time and scalars."""
    with h5py.File(path, "r") as file:
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
        return float(time), {name: _scalar(file["scalars"][name], like) for name, like in scalars.items()}


def _check_field(path: Path, file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    plain = name.split("/")[-1]
    found = file[name] if name in file else None
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"The checkpoint {path} has no field {plain}.")
    if found.shape != shape:
        raise ValueError(f"{path} does not fit this mesh: {plain} has shape {found.shape}, not {shape}.")
    if found.dtype.kind != dtype.kind or (len(shape) > 0 and found.dtype != dtype):
        raise ValueError(f"The checkpoint {path} is damaged: {plain} has the type {found.dtype}, not {dtype}.")


def _scalar(dataset: Any, like: Scalar) -> Any:
    value = dataset[()]
    return np.asarray(value) if isinstance(like, np.ndarray) else np.asarray(value).item()
