"""The shape of the code: sizes of files and functions, docstrings, and one home for what all parts need."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fem", "meshes", "micro", "surrogates")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

LONGEST_FILE, LONGEST_FUNCTION, SHORTEST_FILE = 500, 60, 50  # lines
# Functions that may be longer, with the reason.
LONG = {"fem/laws/von_mises.py: evaluate": "one compiled loop over the points, whose intermediate values are arrays"}
# Modules that may be shorter, with the reason; an `__init__` may be of any length.
SHORT = {
    "fem/discretisation/strain_measures.py": "plain NumPy, used by both solvers for their output",
    "fem/errors.py": "imports nothing, so that every other module can import it",
    "fem/implicit.py": "the import path of the implicit solver that users know",
    "surrogates/effective.py": "the former name of a command",
    "surrogates/pretrained/__main__.py": "makes the package a command",
}
# Home of each of these, by a pattern of its source: files in which it may occur.
HOMES = {
    "argument parser": (
        r"\(argparse\.ArgumentParser\):",
        {"fem/command.py", "meshes/arguments.py", "micro/data/cli.py"},
    ),
    "atomic writing": (
        r"os\.replace\(|os\.rename\(|\.replace\(path\)|\.replace\(self\.path\)",
        {"fem/io/fields.py", "fem/io/files.py", "meshes/session.py", "micro/data/files.py"}
        | {"surrogates/artifact/export.py"},
    ),
    "memory of the machine": (r"SC_PHYS_PAGES|MemAvailable", {"meshes/arguments.py", "micro/data/cli.py"}),
    "HDF5 files": (
        r"h5py\.File\(",
        {"fem/io/checkpoint.py", "micro/crystal/paths/recorded.py", "micro/data/shards.py"}
        | {"micro/voxel/cells/files.py"},
    ),
    "field writer": (r"VTXWriter\(|XDMFFile\(", {"fem/io/fields.py"}),
    "Dirichlet condition": (r"\bclass (Dirichlet|Prescribed|Condition)\w*", {"fem/discretisation/dirichlet.py"}),
    "load stepping": (
        r"tqdm\(",
        {"fem/statics/load_steps.py", "micro/crystal/reduced.py", "micro/data/job.py", "surrogates/training/epochs.py"},
    ),
    "split of data": (r"\bdef split\(", {"surrogates/training/split.py"}),
}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """All functions and methods of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_setter(node: ast.AST) -> bool:
    """Whether a function sets a property, whose docstring is that of the getter."""
    found = getattr(node, "decorator_list", [])
    return any(isinstance(item, ast.Attribute) and item.attr == "setter" for item in found)


def without_docstring(node: ast.AST, name: str = "") -> Iterator[str]:
    """Public functions and classes below a node that have no docstring; functions inside functions do not count."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from without_docstring(child, name)
        elif not child.name.startswith("_"):
            if not ast.get_docstring(child) and not is_setter(child):
                yield name + child.name
            if isinstance(child, ast.ClassDef):
                yield from without_docstring(child, f"{name}{child.name}.")


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_files_are_neither_long_nor_short(path: Path) -> None:
    name, lines = str(path.relative_to(ROOT)), len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE
    assert lines >= SHORTEST_FILE or path.name == "__init__.py" or name in SHORT


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_functions_are_short(path: Path) -> None:
    name, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))
    lengths = {f"{name}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for node in functions(tree)}
    assert {key: lines for key, lines in lengths.items() if lines > LONGEST_FUNCTION and key not in LONG} == {}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert list(without_docstring(tree)) == []


def test_a_missing_docstring_is_seen() -> None:
    source = '''
def public(): ...
def _private(): ...
class A:
    """A."""
    def method(self):
        def inside(): ...
    @property
    def value(self):
        """Value."""
    @value.setter
    def value(self, new): ...
'''
    assert list(without_docstring(ast.parse(source))) == ["public", "A.method"]


def test_exceptions_are_needed() -> None:
    for name in SHORT:
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < SHORTEST_FILE, name
    for key in LONG:
        file, _, function = key.partition(": ")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        lengths = [(node.end_lineno or 0) - node.lineno + 1 for node in functions(tree) if node.name == function]
        assert max(lengths, default=0) > LONGEST_FUNCTION, key


def test_files_that_are_not_python_are_part_of_the_package() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        data = tomllib.load(stream)["tool"]["setuptools"]["package-data"]
    folders = {ROOT / name.replace(".", "/"): patterns for name, patterns in data.items()}
    packed = {path for folder, patterns in folders.items() for each in patterns for path in folder.glob(each)}
    kernels = {path for package in PACKAGES for end in ("c", "h") for path in (ROOT / package).rglob(f"*.{end}")}
    assert kernels and kernels <= packed


@pytest.mark.parametrize("noun", HOMES)
def test_each_has_its_home(noun: str) -> None:
    pattern, homes = HOMES[noun]
    found = {
        name
        for name, path in zip(NAMES, SOURCES, strict=True)
        if re.search(pattern, path.read_text(encoding="utf-8"))
    }  # fmt: skip
    assert found == homes
