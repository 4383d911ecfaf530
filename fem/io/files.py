"""Files that are written whole or not at all, and the removal of results."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside a path; it takes the path's name if the block ends well, else it is deleted.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The temporary file, to be written and closed in the block. It has the suffix of `path`.

    Raises:
        OSError: If it cannot be written.
    """
    path = Path(path)
    part = part_of(path, str(os.getpid()))
    try:
        yield part
        put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: str | PathLike[str], mark: str = "") -> Path:
    """The temporary file beside a path, of its suffix; a mark tells those of several writers apart.

    Raises:
        OSError: If the folder is not there, or the path is one itself.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder", str(path.parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "The file to write is a folder", str(path))
    return path.with_name(f".{path.stem}.{mark}.part{path.suffix}" if mark else f".{path.stem}.part{path.suffix}")


def put_in_place(part: Path, path: str | PathLike[str], former: str | PathLike[str] | None = None) -> None:
    """Give a finished temporary file its name, once it is on the disk; at every moment a whole file has that name.

    Args:
        part: The temporary file.
        path: Its name, in the same folder.
        former: Name under which the file that has been there until now is kept; None does not keep it.
    """
    path = Path(path)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    if former is not None and path.is_file():
        link = part_of(former)
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError:  # a file system without links
            shutil.copyfile(path, link)
        os.replace(link, former)
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name itself
    finally:
        os.close(folder)


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text)


def write_arrays(path: str | PathLike[str], values: Mapping[str, Any]) -> None:
    """Write arrays to an `.npz` file whole or not at all."""
    with replacing(path) as part, open(part, "wb") as file:
        np.savez(file, **values)


def remove(path: Path) -> None:
    """Delete a file or a folder of results, if there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_space(path: str | PathLike[str], size: int) -> None:
    """Check, before a file is begun, that it fits on its device.

    Args:
        path: The file; its folder must exist.
        size: Bytes that it takes, at least.

    Raises:
        OSError: If the device has less space.
    """
    folder = Path(path).parent
    free = shutil.disk_usage(folder).free
    if free < size:
        sentence = f"No space left on device, {size / 2**20:.1f} MiB are needed and {free / 2**20:.1f} MiB free"
        raise OSError(errno.ENOSPC, sentence, str(path))
