"""Builds a C library with the compiler of the machine, once, and keeps it.

The library lies in the cache folder of the user (``$XDG_CACHE_HOME/anvilx`` or ``~/.cache/anvilx``) under a name that
contains a digest of the sources, of the options, and of all that the compiler defines for this processor, its version
included. Several processes may build at once: each writes a file of its own, and renames it when it is complete.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from micro.data.files import whole_file

logger = logging.getLogger(__name__)

#: Contraction to fused multiplications and additions; nothing that changes the meaning of not-a-number.
OPTIONS = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
NATIVE = "-march=native"
#: Seconds after which a compiler counts as broken.
PATIENCE = 300


class BuildError(RuntimeError):
    """The library cannot be built or loaded here; the text says why."""


def cache_folder() -> Path:
    """Return the folder in which libraries are kept.

    Raises:
        BuildError: There is no home directory.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given) / "anvilx"
    try:
        return Path.home() / ".cache" / "anvilx"
    except RuntimeError as error:
        raise BuildError("there is no home directory for the cache; set XDG_CACHE_HOME") from error


def compiler() -> str:
    """Return the path of the C compiler: ``$CC`` where it is set, otherwise cc, gcc or clang.

    Raises:
        BuildError: There is none.
    """
    asked = os.environ.get("CC", "").split()
    for name in asked[:1] or ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return found
    raise BuildError(f"there is no C compiler ({asked[0] if asked else 'cc, gcc, clang'})")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, input="", capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} does not run: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


@cache
def _target(command: str) -> tuple[tuple[str, ...], str]:
    """Return the options of a compiler and all macros that it predefines with them."""
    for options in ((*OPTIONS, NATIVE), OPTIONS):
        try:
            return options, _run([command, *options, "-dM", "-E", "-x", "c", "-"])
        except BuildError as error:
            failure = error
    raise failure


def digest(options: tuple[str, ...], macros: str, folders: tuple[Path, ...]) -> str:
    """Return the digest that names a library: of the sources in some folders, the options and the compiler's macros."""
    content = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix in (".c", ".h"):
            content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    content.update("\0".join(options).encode() + macros.encode())
    return content.hexdigest()[:20]


@cache
def build(main: Path, defines: tuple[str, ...], headers: tuple[Path, ...] = ()) -> ctypes.CDLL:
    """Return the library of a C file; it is built if it is missing.

    Args:
        main: The file; it may include all others of its folder.
        defines: Macro definitions, such as ``("N_SLIP=12",)``.
        headers: Further folders with files that it includes.

    Raises:
        BuildError: It cannot be built or loaded.
    """
    command = compiler()
    options, macros = _target(command)
    options = (*options, *(f"-D{define}" for define in defines))
    path = cache_folder() / f"{main.stem}-{digest(options, macros, (main.parent, *headers))}.so"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                found = [f"-I{folder}" for folder in headers]
                _run([command, *options, *found, str(main), "-o", str(part), "-lm"])
            logger.info("compiled %s: %s", main.name, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path.name} cannot be built or loaded: {error}") from error
