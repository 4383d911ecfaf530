"""Provenance: which code made a data set, and whether it is still the same code."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

# Modules that carry data and decide nothing about its values: a change in them must not forbid a resume.
CARRIERS = frozenset(
    {"dataset", "generate", "job", "lock", "manifest", "progress", "provenance", "ranks", "shards", "source"}
)


def source_hash(path: Path) -> str:
    """Hash the meaning of a Python file: comments, layout and docstrings do not count.

    Args:
        path: a Python file.

    Returns:
        The sha256 of the normalised source, 64 hexadecimal digits.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.body and isinstance(node.body[0], ast.Expr) and ast.get_docstring(node, clean=False) is not None:
                node.body[0] = ast.Expr(ast.Constant(...))
    return hashlib.sha256(ast.unparse(ast.fix_missing_locations(tree)).encode()).hexdigest()


def imported_modules(path: Path) -> set[str]:
    """Name the modules of this package that a file imports, at its head or inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("micro.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if (node.level == 0 and module == "micro") or (node.level == 1 and not module):
                found |= {alias.name for alias in node.names}
            elif node.level == 0 and module.startswith("micro."):
                found.add(module.split(".")[1])
            elif node.level == 1:
                found.add(module.split(".")[0])
    return {name for name in found - CARRIERS if (PACKAGE / f"{name}.py").is_file()}


def content_modules(path: Path) -> dict[str, str]:
    """Hash a source's file and every module of this package that it reaches by imports.

    Args:
        path: the file that defines the source of data.

    Returns:
        Hash by module name, sorted by name.
    """
    pending, files = [path.resolve()], {path.stem: path.resolve()}
    while pending:
        for name in imported_modules(pending.pop()):
            if name not in files:
                files[name] = PACKAGE / f"{name}.py"
                pending.append(files[name])
    return {name: source_hash(files[name]) for name in sorted(files)}


def code_version() -> str:
    """Describe the code: ``git describe`` in a clone, the version of the installed package elsewhere."""
    if (PACKAGE.parent / ".git").exists():
        command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--tags"]
        try:
            environment = dict(os.environ)  # as it was before MPI wrote to it
            answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, env=environment)
            return answer.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass  # no git, no commit yet, or a clone of another owner
    try:
        return importlib.metadata.version("anvilx")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def code_record(path: Path) -> dict:
    """Return the record of the code for a data set: version, hash, and the hash of each module.

    Args:
        path: the file that defines the source of data.
    """
    modules = content_modules(path)
    text = "\n".join(f"{name} {digest}" for name, digest in modules.items())
    return {"version": code_version(), "hash": hashlib.sha256(text.encode()).hexdigest(), "modules": modules}


def environment_record() -> dict[str, str]:
    """Return versions of what computes; recorded, never compared."""
    record = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("numpy", "scipy", "torch", "h5py"):
        if name in sys.modules:
            record[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    return record
