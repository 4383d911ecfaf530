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
        *("numba", "numpy", "scipy", "h5py", "threadpoolctl", "tqdm"),
    },
}
# What one module may import beyond its package: the data jobs share samples among ranks; a .msh file is read by gmsh;
# a picture is drawn; images and surfaces are read by what is installed.
ALSO = {
    "micro.data.ranks": {"mpi4py"},
    "micro.generate": {"mpi4py"},
    "micro.inspect": {"matplotlib"},
    "micro.voxel.cells.files": {"PIL"},
    "micro.voxel.cells.surface": {"gmsh", "pyvista"},
    "fem.mesh": {"gmsh"},
    "surrogates.cells.stiffness": {"matplotlib"},
}
# Between the subpackages of a package imports run one way: what each may import beside itself. A module at the root of
# a package is a part of its own; parts that are not named here (commands, the public surface) may import all of them.
BASE = {"errors", "parallel", "threads", "compat", "steps"}
LAYERS: dict[str, dict[str, set[str]]] = {
    "fem": {
        **{part: BASE - {part} for part in BASE},
        "errors": set(),
        "mesh": BASE,
        "io": {"errors", "parallel"},
        "failure": BASE | {"io", "mesh"},
        "command": BASE | {"io"},
        "laws": BASE,
        "discretisation": BASE | {"mesh", "laws"},
        "explicit": BASE | {"mesh", "io", "failure", "laws", "discretisation"},
        "statics": BASE | {"mesh", "io", "failure", "laws", "discretisation"},
        "truss": BASE | {"mesh", "io", "failure", "laws", "discretisation", "statics"},
        "implicit": {"discretisation", "errors", "statics"},
    },
    "micro": {
        "threads": set(),
        "tensors": set(),
        "build": {"data"},
        "data": {"tensors", "threads"},
        "spectral": {"tensors", "threads"},
        "crystal": {"tensors", "threads", "data", "spectral", "build"},
        "lattice": {"tensors", "threads", "data"},
        "voxel": {"tensors", "threads", "data"},
    },
    "surrogates": {"artifact": {"tensors"}, "training": {"artifact", "tensors"}},
}
# Commands that stand in a subpackage and call one at the root.
ABOVE = {"micro.voxel.sets": {"generate"}}
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
    "surrogates.artifact.self_consistency": {"torch", "surrogates.artifact.tangent"},
    "surrogates.artifact.certify": {"torch", "numpy", "surrogates.artifact"},
    "surrogates.artifact.compiled": {"torch", "numpy", "micro.build", "surrogates.artifact"},
    "surrogates.artifact.compiled_pca": {"torch", "numpy", "surrogates.artifact.evaluator"},
    "surrogates.artifact.compiled_recurrent": {"torch", "numpy", "surrogates.artifact.evaluator"},
    "surrogates.artifact.evaluator": {"micro.build"},
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


def part(module: str) -> str:
    """Subpackage of a module, or the module itself if it stands at the root of its package."""
    return (module.split(".") + [""])[1]


def wrong_way(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a source that run against the order of the subpackages."""
    package, own = module.split(".")[0], part(module)
    granted = LAYERS.get(package, {}).get(own)
    if granted is None:
        return []
    granted = granted | {own, ""} | ABOVE.get(module, set())
    found = ((line, name) for line, name in imports(ast.parse(source), module, is_package) if name.startswith(package))
    return [f"line {line}: {module} imports {name}" for line, name in found if part(name) not in granted]


def needed(source: str, module: str, is_package: bool, known: set[str]) -> set[str]:
    """Modules of ours that a source imports, those for type checkers left out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = (name for _, name in imports(tree, module, is_package))
    found = {name if name in known else name.rpartition(".")[0] for name in names}
    return {name for name in found if name in known} - {module}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            place = stack.index(node)
            group = stack[place:]
            del stack[place:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(found)


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


@pytest.mark.parametrize("path", sources(), ids=label)
def test_imports_run_one_way_between_subpackages(path: Path) -> None:
    assert wrong_way(path.read_text(), module_name(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fem.io.fields", "from fem.statics.implicit import ImplicitSolver"),
        ("fem.io.checkpoint", "def f():\n    from fem import mesh"),
        ("fem.laws.j2", "from fem.discretisation import quadrature"),
        ("fem.explicit.solver", "from fem.statics import driver"),
        ("fem.statics.driver", "from fem.truss.solver import TrussSolver"),
        ("fem.errors", "from fem.parallel import raise_together"),
        ("micro.voxel.source", "from micro.lattice.bars import KinematicBar"),
        ("micro.crystal.law", "from ..voxel import source"),
        ("micro.data.job", "from micro.crystal import source"),
        ("micro.spectral.solver", "from micro.crystal.law import Crystal"),
    ],
)
def test_an_import_against_the_order_is_seen(module: str, source: str) -> None:
    assert len(wrong_way(source, module)) == 1


def test_no_modules_import_each_other() -> None:
    known = {module_name(path) for path in sources()}
    graph = {
        module_name(path): needed(path.read_text(), module_name(path), path.name == "__init__.py", known)
        for path in sources()
    }
    assert cycles(graph) == []


def test_cycles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set(), "f": {"g"}, "g": {"f"}}
    assert cycles(graph) == [["a", "b", "c"], ["f", "g"]]
    source = "from fem import mesh\nif TYPE_CHECKING:\n    import fem.x\ndef f():\n    from fem.io.files import remove"
    assert needed(source, "fem.y", False, {"fem.mesh", "fem.io.files", "fem.x"}) == {"fem.mesh", "fem.io.files"}


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


@pytest.mark.parametrize("path", python_files(), ids=label)
def test_what_is_imported_of_ours_is_there(path: Path) -> None:
    missing = []
    for line, name in imports(ast.parse(path.read_text()), module_name(path), path.name == "__init__.py"):
        parts = name.split(".")
        if parts[0] in PACKAGES and not any(
            ((ROOT.joinpath(*parts[:k]) / "__init__.py").is_file() and k >= len(parts) - 1)
            or ROOT.joinpath(*parts[:k]).with_suffix(".py").is_file()
            for k in range(1, len(parts) + 1)
        ):
            missing.append(f"line {line}: {name}")
    assert missing == []


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
