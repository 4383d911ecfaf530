"""The record of the code behind a data set: every module that a source reaches must be in it."""

import subprocess
import sys

import pytest

from micro.data import provenance

SOURCES = ["micro.crystal.source", "micro.lattice.source", "micro.voxel.source"]


def record(source):
    return provenance.content_modules(provenance.module_file(source))


@pytest.mark.parametrize("source", SOURCES)
def test_every_module_that_python_loads_is_recorded(source):
    code = f"import sys, {source}; print(*(name for name in sys.modules if name.split('.')[0] == 'micro'))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in answer.stdout.split() if not name.startswith(provenance.CARRIERS)}
    assert {"micro", source} <= loaded
    assert loaded - record(source).keys() == set()


@pytest.mark.parametrize(
    ("source", "some", "foreign"),
    [
        ("micro.crystal.source", {"micro.crystal.law", "micro.crystal.taylor", "micro.tensors"}, "micro.lattice"),
        ("micro.lattice.source", {"micro.lattice.geometry", "micro.lattice.cell_problem"}, "micro.crystal"),
        ("micro.voxel.source", {"micro.voxel.solver.multigrid", "micro.voxel.cells.frames"}, "micro.lattice"),
    ],
)
def test_a_source_reaches_its_solver_and_no_other(source, some, foreign):
    modules = record(source)
    assert some <= modules.keys()
    assert not [name for name in modules if name.startswith((foreign, "micro.data", "micro.generate"))]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of ours, to be filled with files by name and text."""
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "micro")

    def fill(files):
        for name, text in {"__init__.py": "", "cell/__init__.py": "", **files}.items():
            path = tmp_path / "micro" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "micro"

    return fill


@pytest.mark.parametrize(
    "line",
    [
        "from micro.cell.solver import solve",
        "from micro.cell import solver",
        "import micro.cell.solver",
        "from .cell.solver import solve",
        "from .cell import solver",
        "def later():\n    from micro.cell import solver",
    ],
)
def test_ways_to_import(package, line):
    folder = package({"source.py": line, "cell/solver.py": "solve = 1", "cell/other.py": ""})
    wanted = {"micro", "micro.source", "micro.cell", "micro.cell.solver"}
    assert provenance.content_modules(folder / "source.py").keys() == wanted


def test_a_change_in_a_module_reached_through_a_package_changes_the_record(package):
    files = {"source.py": "from micro.cell import solve", "cell/__init__.py": "from micro.cell.solver import solve"}
    folder = package({**files, "cell/solver.py": "solve = 1"})
    before = provenance.code_record(folder / "source.py")["hash"]
    (folder / "cell" / "solver.py").write_text("solve = 2")
    assert provenance.code_record(folder / "source.py")["hash"] != before


def test_a_module_that_is_not_there_is_refused(package):
    folder = package({"source.py": "from micro.cell.solvr import solve"})
    with pytest.raises(ValueError, match=r"imports micro.cell.solvr, but there is no such module"):
        provenance.content_modules(folder / "source.py")


def test_a_source_outside_the_package_is_recorded_by_its_stem(package, tmp_path):
    package({"cell/solver.py": "solve = 1"})
    (tmp_path / "own.py").write_text("from micro.cell.solver import solve")
    assert provenance.content_modules(tmp_path / "own.py").keys() == {"own", "micro", "micro.cell", "micro.cell.solver"}
