"""Shard: one HDF5 file with the samples of one block, whole or not there."""

import hashlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from micro.data.source import Field

SCHEMA = 1
OWN_FIELDS = {
    "sample": Field("1", (), "sample id"),
    "status": Field("1", (), "0 ok, 1 failed"),
    "reason": Field("", (), "why the sample failed, empty where it is ok"),
}


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:04d}.h5"


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def part_name(path: Path) -> Path:
    """Return the name under which this process writes a file until it is whole."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")


def publish(part: Path, path: Path) -> None:
    """Give a finished file its name: it is on disk before the name is, so a name means a whole file."""
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(part, path)
    sync_directory(path.parent)


def array_bytes(array: np.ndarray) -> bytes:
    """Return the bytes of an array, little-endian in C order; texts as UTF-8, each ended by a zero."""
    if array.dtype.kind in "OUT":
        return b"".join(str(text).encode() + b"\0" for text in array)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def content_hash(shards: Iterable[dict[str, np.ndarray]]) -> str:
    """Hash the arrays of samples in the order given; how they are cut into shards does not count.

    Args:
        shards: arrays (s, ...) by name, the same names in each.

    Returns:
        The sha256 of names, types, sample shapes and values, 64 hexadecimal digits.
    """
    hashers: dict[str, Any] = {}
    for arrays in shards:
        for name, array in arrays.items():
            if name not in hashers:
                kind = "text" if array.dtype.kind in "OUT" else array.dtype.newbyteorder("<").str
                hashers[name] = hashlib.sha256(f"{name} {kind} {array.shape[1:]}\n".encode())
            hashers[name].update(array_bytes(array))
    return hashlib.sha256("".join(hashers[name].hexdigest() for name in sorted(hashers)).encode()).hexdigest()


def write_shard(path: Path, arrays: dict[str, np.ndarray], fields: dict[str, Field], parameter_hash: str) -> str:
    """Write a shard in one stroke: either the whole file has its name, or the name is not there.

    Args:
        path: the shard's file.
        arrays: arrays (s, ...) by name, with ``sample``, ``status`` and ``reason``.
        fields: what the source's arrays are.
        parameter_hash: hash of the parameters that made the samples.

    Returns:
        The content hash of the shard.
    """
    digest, part = content_hash([arrays]), part_name(path)
    try:
        with h5py.File(part, "w") as file:
            file.attrs["schema"] = SCHEMA
            file.attrs["parameter_hash"] = parameter_hash
            file.attrs["hash"] = digest
            for name, array in arrays.items():
                field = (OWN_FIELDS | fields)[name]
                if name == "reason":
                    data = file.create_dataset(name, data=[str(text) for text in array], dtype=h5py.string_dtype())
                else:
                    data = file.create_dataset(name, data=array)
                data.attrs["units"] = field.units
                data.attrs["shape"] = np.asarray(array.shape, dtype=np.int64)
                data.attrs["axes"] = f"sample, {field.axes}" if field.shape else "sample"
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)
    return digest


def read_shard(path: Path, fields: dict[str, Field], parameter_hash: str, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Read a shard and hold it to what the set says of it.

    Args:
        path: the shard's file.
        fields: what the source's arrays are.
        parameter_hash: hash of the parameters of the set.
        ids: the sample ids that belong in the shard (s,).

    Returns:
        Arrays by name, with ``sample``, ``status`` and ``reason``.

    Raises:
        ValueError: the file is not there, is damaged, or is of another set; one sentence says which.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing.")
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise ValueError(f"{path.name} is truncated or not an HDF5 file.") from None
    with file:
        try:
            return _read_open_shard(file, path.name, OWN_FIELDS | fields, parameter_hash, ids)
        except (OSError, KeyError, RuntimeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name} is damaged and cannot be read ({error}).") from None


def _read_open_shard(
    file: h5py.File, label: str, fields: dict[str, Field], parameter_hash: str, ids: np.ndarray
) -> dict[str, np.ndarray]:
    if file.attrs.get("schema") != SCHEMA:
        raise ValueError(f"{label} has schema {file.attrs.get('schema')}, this reader knows {SCHEMA}.")
    if file.attrs.get("parameter_hash") != parameter_hash:
        raise ValueError(f"{label} was made with other parameters than this set (parameter_hash differs).")
    if set(file) != set(fields):
        wanted, found = ", ".join(sorted(fields)), ", ".join(sorted(file)) or "nothing"
        raise ValueError(f"{label} must hold {wanted}, it holds {found}.")
    arrays: dict[str, np.ndarray] = {}
    for name, field in fields.items():
        data, shape = file[name], (len(ids), *field.shape)
        if data.attrs.get("units") != field.units:
            raise ValueError(f"{name} in {label} must have units {field.units!r}, got {data.attrs.get('units')!r}.")
        stated = tuple(int(n) for n in np.atleast_1d(data.attrs.get("shape", ())))
        if data.shape != shape or stated != shape:
            raise ValueError(f"{name} in {label} must have shape {shape}, got {data.shape} (stated {stated}).")
        arrays[name] = data.asstr()[()] if name == "reason" else data[()]
    if not np.array_equal(arrays["sample"], ids):
        raise ValueError(f"sample in {label} must hold the ids {ids[0]} to {ids[-1]} in order.")
    if content_hash([arrays]) != file.attrs.get("hash"):
        raise ValueError(f"{label} does not have the content it was written with (hash differs).")
    return arrays
