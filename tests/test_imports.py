"""The house: who imports whom, wherever in a module the import stands, and the shape of the files."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fem", "meshes", "micro", "surrogates")

# What a package may import: of the libraries that decide where it runs, and of ours. CONTRIBUTING.md has the picture.
ALLOWED = {
    "meshes": {"gmsh", "numpy"},
    "micro": {"torch", "numpy", "scipy", "h5py", "tqdm"},
    "surrogates": {"micro", "torch", "numpy", "scipy", "h5py", "tqdm"},
    "fem": {
        *("surrogates.artifact", "dolfinx", "ufl", "basix", "ffcx", "petsc4py", "mpi4py", "torch"),
        *("numba", "numpy", "scipy", "threadpoolctl", "tqdm"),
    },
}
# What one module may import beyond its package: the data jobs share samples among ranks; a .msh file is read by gmsh;
# a picture is drawn; images and surfaces are read by what is installed.
ALSO = {
    "micro.data.ranks": {"mpi4py"},
    "micro.generate": {"mpi4py"},
    "micro.voxel.cells.files": {"PIL"},
    "micro.voxel.cells.surface": {"gmsh", "pyvista"},
    "fem.mesh": {"gmsh"},
    "surrogates.cells.stiffness_picture": {"matplotlib"},
}
# What fem loads with a law: needs nothing but torch, and brings no training code along.
LIGHT: dict[str, set[str]] = {
    "surrogates": {"surrogates.artifact"},
    "surrogates.artifact.schema": set(),
    "surrogates.artifact.shipped": set(),
    "surrogates.artifact": {"surrogates.artifact"},
    "surrogates.artifact.load": {"torch", "surrogates.artifact"},
    "surrogates.artifact.contract": {"torch", "surrogates.artifact.schema"},
    "surrogates.artifact.tangent": {"torch"},
    "surrogates.artifact.patch_test": {"torch", "numpy"},
    "surrogates.artifact.certify": {"torch", "numpy", "surrogates.artifact"},
    "surrogates.artifact.export": {"torch", "surrogates.artifact"},
}


def module_name(path: Path) -> str:
    """Dotted name of a file of ours."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported in a file: at its top, in functions, or by import_module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def allowed(name: str, granted: set[str]) -> bool:
    """Whether a dotted name lies in one of those granted, or in the standard library."""
    parts = name.split(".")
    inside = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
    return bool(inside & granted) or parts[0] in sys.stdlib_module_names


def breaches(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a source that the table does not grant to its module."""
    package = module.split(".")[0]
    granted = LIGHT.get(module, ALLOWED[package] | {package}) | ALSO.get(module, set())
    found = imports(ast.parse(source), module, is_package)
    return [f"line {line}: {module} imports {name}" for line, name in found if not allowed(name, granted)]


def sources() -> list[Path]:
    """The files of the packages."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def python_files() -> list[Path]:
    """The files of packages, demos and tests."""
    return sources() + sorted(path for name in ("demos", "tests") for path in (ROOT / name).rglob("*.py"))


def label(path: Path) -> str:
    """A file as pytest shows it."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=label)
def test_imports_follow_the_table(path: Path) -> None:
    assert breaches(path.read_text(), module_name(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("micro.crystal", "import dolfinx"),
        ("micro.crystal", "def f():\n    from dolfinx import fem"),
        ("micro.crystal", "from mpi4py import MPI"),
        ("micro.crystal", "import importlib\nimportlib.import_module('surrogates.train')"),
        ("surrogates.train", "from fem import points"),
        ("surrogates.artifact", "import h5py"),
        ("surrogates.artifact", "from . import train"),
        ("fem.laws.torchscript", "from surrogates import train"),
        ("fem.laws.torchscript", "from micro.crystal import taylor"),
        ("fem.discretisation.quadrature", "import gmsh"),
        ("meshes.taylor_bar", "import torch"),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    assert len(breaches(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fem.laws.torchscript", "from surrogates.artifact import load_law"),
        ("fem.laws.torchscript", "from ..points import points\nfrom . import j2"),
        ("surrogates.train", "from micro.data.dataset import read_dataset\nimport json"),
        ("micro.generate", "def f():\n    from mpi4py import MPI"),
    ],
)
def test_what_the_table_grants_is_no_breach(module: str, source: str) -> None:
    assert breaches(source, module) == []


def test_every_package_is_looked_at() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in sources()}
    assert found == set(PACKAGES)
    assert all(importlib.util.find_spec(package) is not None for package in PACKAGES)


@pytest.mark.parametrize("path", sources(), ids=label)
def test_packages_do_not_print(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert prints == [], "packages log; they do not print"


@pytest.mark.parametrize("path", python_files(), ids=label)
def test_files_are_small_and_ascii(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [f"line {n}: {line}" for n, line in enumerate(text.splitlines(), 1) if not line.isascii()] == []
    # A demo is one story in one file, without helper modules, and most of it text.
    if "demos" not in path.relative_to(ROOT).parts[0]:
        assert len(text.splitlines()) <= 500
        assert ast.get_docstring(ast.parse(text)), "no docstring"
