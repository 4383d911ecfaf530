"""Files that are written whole or not at all: a file has its name only when all of it is on the disk."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def part_name(path: Path) -> Path:
    """Return the name under which this process writes a file until it is complete, with the same suffix."""
    return path.with_name(f".{path.stem}.{socket.gethostname()}-{os.getpid()}.part{path.suffix}")


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(part: Path, path: Path) -> None:
    """Give a finished file its name, after its content is on the disk: a file with that name is complete."""
    sync(part)
    os.replace(part, path)
    sync(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside a file; it takes the name of the file if the block succeeds, else it is deleted.

    Args:
        path: the file to write.

    Raises:
        OSError: the file cannot be written, because the disk is full for instance; the sentence gives the reason.
    """
    part = part_name(path)
    try:
        yield part
        publish(part, path)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"{path.name} cannot be written to {path.parent}: {why}.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; a text is written as UTF-8.

    Raises:
        OSError: as `whole_file`.
    """
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
