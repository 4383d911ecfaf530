"""The gmsh session: one library-wide state, opened once and closed by whoever opened it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import gmsh


def open_session() -> bool:
    """Start gmsh, silent and without the user's configuration files, unless it already runs.

    Returns:
        True if this call started it, False if it was already running.
    """
    started = not gmsh.isInitialized()
    if started:
        # interruptible=True would install gmsh's own SIGINT handler and make Ctrl-C kill the host silently.
        gmsh.initialize(readConfigFiles=False, interruptible=False)
        gmsh.option.setNumber("General.Terminal", 0)
    return bool(started)


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Run a block inside a gmsh session; close the session afterwards only if this block opened it.

    Under MPI call it on one rank only: the model exists in the memory of that rank.
    """
    started = open_session()
    try:
        yield
    finally:
        if started:
            gmsh.finalize()


def new_model(name: str) -> None:
    """Make an empty current model, in place of a former one of the same name.

    Args:
        name: model name.
    """
    if name in gmsh.model.list():
        gmsh.model.setCurrent(name)
        gmsh.model.remove()
    gmsh.model.add(name)


def save(path: str | os.PathLike[str]) -> Path:
    """Write the current model to a mesh file, whole or not at all.

    Args:
        path: target; the suffix must be `.msh`.

    Returns:
        The path written.

    Raises:
        ValueError: if the suffix is not `.msh` or the folder does not exist.
    """
    target = Path(path)
    if target.suffix != ".msh":
        raise ValueError(f"The mesh file must end in .msh, got {target.name!r}.")
    if not target.parent.is_dir():
        raise ValueError(f"The folder {str(target.parent)!r} for the mesh file does not exist.")
    if target.is_dir():
        raise ValueError(f"The mesh file {str(target)!r} is a folder.")
    part = target.with_name(f".{target.stem}.{os.getpid()}.part.msh")
    try:
        gmsh.option.setNumber("Mesh.MshFileVersion", 4.1)
        # Binary: ASCII rounds coordinates to 16 digits and would break mirror symmetry in the last bit.
        gmsh.option.setNumber("Mesh.Binary", 1)
        gmsh.write(str(part))
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target
