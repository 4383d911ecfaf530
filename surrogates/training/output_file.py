"""Files that a command writes: refused before the work where they could not be, and written whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def check_output(name: str, path: Path, others: Sequence[Path] = ()) -> None:
    """Refuse a file that could not be written, or that would take the place of another one.

    Args:
        name: Of the option, for the sentence.
        path: The file to write.
        others: Files that the command reads, or writes as well.

    Raises:
        ValueError: The folder is not there, the path is a folder, or it is one of the others.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {path}.")
    if path.resolve() in [other.resolve() for other in others]:
        raise ValueError(f"{name} must be a file of its own, got {path}, which this command reads or writes as well.")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the path of a part beside, of the same ending; it takes the name of the file if the block ends well."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
