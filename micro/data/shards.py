"""Shard: one HDF5 file with the samples of one block, complete or absent."""

import hashlib
import io
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from micro.data.files import write_whole
from micro.data.source import Field

#: Text between the end of a shard and the hash of its bytes.
TRAILER = b"\nsha256 of the bytes above: "
SCHEMA = 1
OWN_FIELDS = {
    "sample": Field("1", (), "sample id"),
    "status": Field("1", (), "0 ok, 1 failed"),
    "reason": Field("", (), "why the sample failed, empty where it is ok"),
}

#: Reads every array and attribute of the files named on its input, and prints the name of each that it has read.
PROBE = """
import sys, h5py
def read(name, item):
    list(item.attrs.items())
    if isinstance(item, h5py.Dataset):
        item[()]
for path in sys.stdin.read().splitlines():
    with h5py.File(path, "r") as file:
        read("", file)
        file.visititems(read)
    print(path, flush=True)
"""
PROBE_SECONDS, PROBE_SPEED = 20.0, 5e6  # to begin with, and bytes/s at least


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:04d}.h5"


def shard_number(name: str) -> int:
    """Return the number of a shard by its file name."""
    return int(name.removeprefix("shard-").removesuffix(".h5"))


def is_shard_of(name: str, count: int) -> bool:
    """Return whether a file name is that of one of the first `count` shards."""
    return shard_number(name) < count and name == shard_name(shard_number(name))


def array_bytes(array: np.ndarray) -> bytes:
    """Return the bytes of an array, little-endian in C order; texts as UTF-8, each ended by a zero."""
    if array.dtype.kind in "OUT":
        return b"".join(str(text).encode() + b"\0" for text in array)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def content_hash(shards: Iterable[dict[str, np.ndarray]]) -> str:
    """Hash the arrays of samples in the order given; the division into shards has no effect.

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
    """Write a shard whole or not at all.

    The file is made in memory, because the HDF5 library ends the process where it cannot write to a full disk. The
    hash of its bytes is appended to the file, where the library ignores it: see `probe`.

    Args:
        path: the shard's file.
        arrays: arrays (s, ...) by name, with ``sample``, ``status`` and ``reason``.
        fields: units and shapes of the arrays of the source.
        parameter_hash: hash of the parameters that made the samples.

    Returns:
        The content hash of the shard.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    digest, image = content_hash([arrays]), io.BytesIO()
    with h5py.File(image, "w") as file:
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
            if field.names:
                data.attrs["names"] = list(field.names)
    write_whole(path, image.getvalue() + TRAILER + hashlib.sha256(image.getbuffer()).hexdigest().encode())
    return digest


def has_hash(path: Path) -> bool:
    """Return whether the hash of its bytes is appended to a shard, as by `write_shard`.

    Raises:
        ValueError: it is, and the bytes have changed.
    """
    content = path.read_bytes()
    end = content.rfind(TRAILER)
    if end < 0:
        return False
    if hashlib.sha256(memoryview(content)[:end]).hexdigest().encode() != content[end + len(TRAILER) :]:
        raise ValueError(f"{path.name} is damaged: its bytes are not those that were written.")
    return True


def probe(paths: Sequence[Path]) -> None:
    """Check that the bytes of shards are those that were written, before the HDF5 library reads them.

    A damaged file can crash that library or make it run for ever. Files without a hash, of earlier versions, are
    therefore read in a process of their own first.

    Args:
        paths: shards.

    Raises:
        ValueError: a file is damaged; the sentence names it.
    """
    old = [path for path in paths if path.is_file() and not has_hash(path)]
    if not old:
        return
    seconds = PROBE_SECONDS + sum(path.stat().st_size for path in old) / PROBE_SPEED
    names = "".join(f"{path.absolute()}\n" for path in old)
    process = subprocess.Popen(
        [sys.executable, "-c", PROBE], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    )
    try:
        said, _ = process.communicate(names, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    done = set(said.splitlines())
    for path in old:
        if str(path.absolute()) not in done:
            raise ValueError(f"{path.name} is damaged, truncated or not an HDF5 file.")


def read_shard(path: Path, fields: dict[str, Field], parameter_hash: str, ids: range) -> dict[str, np.ndarray]:
    """Read a shard that `probe` has accepted and compare it with the description of the set.

    Args:
        path: the shard's file.
        fields: units and shapes of the arrays of the source.
        parameter_hash: hash of the parameters of the set.
        ids: the sample ids that belong in the shard.

    Returns:
        Arrays by name, with ``sample``, ``status`` and ``reason``.

    Raises:
        ValueError: the file is not there, is damaged, or is of another set; the sentence names it.
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
        except (OSError, KeyError, RuntimeError, UnicodeDecodeError, TypeError, AttributeError, MemoryError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path.name} is damaged and cannot be read ({why}).") from None


def _read_open_shard(
    file: h5py.File, label: str, fields: dict[str, Field], parameter_hash: str, ids: range
) -> dict[str, np.ndarray]:
    if file.attrs.get("schema") != SCHEMA:
        raise ValueError(f"{label} has schema {file.attrs.get('schema')}, this reader knows {SCHEMA}.")
    if file.attrs.get("parameter_hash") != parameter_hash:
        raise ValueError(f"{label} was made with other parameters than this set (parameter_hash differs).")
    if set(file) != set(fields):
        wanted, found = ", ".join(sorted(fields)), ", ".join(sorted(map(str, file))) or "nothing"
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
    if not np.array_equal(arrays["sample"], np.arange(ids.start, ids.stop)):
        raise ValueError(f"sample in {label} must hold the ids {ids.start} to {ids.stop - 1} in order.")
    if content_hash([arrays]) != file.attrs.get("hash"):
        raise ValueError(f"{label} does not have the content it was written with (hash differs).")
    return arrays
