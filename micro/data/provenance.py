"""Provenance: which code made a data set, and whether it is still the same code."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

# Modules that transport data and do not affect its values: a change in them must not prevent a resume.
CARRIERS = ("micro.data", "micro.generate", "micro.threads")


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


def module_file(name: str) -> Path | None:
    """Return the file of a module or package of `micro` by its dotted name, None if there is none."""
    base = PACKAGE.parent.joinpath(*name.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def with_packages(name: str) -> set[str]:
    """Return a dotted name and those of its packages: Python runs them all on import."""
    parts = name.split(".")
    return {".".join(parts[:k]) for k in range(1, len(parts) + 1)}


def imported_modules(path: Path) -> set[str]:
    """Name the modules of `micro` that a file imports, at its head or inside its functions.

    Args:
        path: a Python file.

    Returns:
        Dotted names, with the packages they lie in, without `CARRIERS`.

    Raises:
        ValueError: a module of `micro` is named that has no file, or is named relatively in a file outside `micro`.
    """
    wanted: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                if PACKAGE not in path.parents:
                    raise ValueError(f"{path}, line {node.lineno}: an import must be absolute to be recorded.")
                parts = ("micro", *path.relative_to(PACKAGE).parts)
                base = ".".join([*parts[: len(parts) - node.level], *([base] if base else [])])
            wanted |= {base} | {f"{base}.{alias.name}" for alias in node.names if module_file(f"{base}.{alias.name}")}
    found: set[str] = set()
    for name in wanted:
        if name == "micro" or name.startswith("micro."):
            if module_file(name) is None:
                raise ValueError(f"{path} imports {name}, but there is no such module.")
            found |= with_packages(name)
    return {name for name in found if not any(name == c or name.startswith(f"{c}.") for c in CARRIERS)}


def content_modules(path: Path) -> dict[str, str]:
    """Hash a source's file and every module of `micro` that it reaches by imports.

    Args:
        path: the file that defines the source of data.

    Returns:
        Hash by dotted name of the module, sorted by name; a file outside `micro` has its stem as a name.

    Raises:
        ValueError: the file does not exist, or an import cannot be recorded; see `imported_modules`.
    """
    path = path.resolve()
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    files = {path.stem: path}
    if PACKAGE in path.parents:
        own = ".".join(("micro", *path.relative_to(PACKAGE).with_suffix("").parts))
        files = {name: file for name in with_packages(own) if (file := module_file(name)) is not None}
    pending = list(files.values())
    while pending:
        for name in imported_modules(pending.pop()):
            if name not in files:
                found = module_file(name)
                assert found is not None  # imported_modules has looked
                files[name] = found
                pending.append(found)
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
