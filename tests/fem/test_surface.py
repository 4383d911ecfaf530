"""The public surface of fem: its names, and that it loads without DOLFINx."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fem

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", fem.__all__)
def test_every_name_is_there(name):
    assert getattr(fem, name).__name__ == name
    assert name in dir(fem)


def test_type_checkers_see_the_same_homes():
    tree = ast.parse((ROOT / "fem" / "__init__.py").read_text())
    seen = {alias.name: n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert {name: seen[name] for name in fem.__all__} == fem._HOMES
    assert sorted(fem._HOMES) == fem.__all__


def test_other_names_are_no_attributes():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fem.nothing


def test_the_package_and_its_errors_need_no_dolfinx():
    code = "import sys; sys.modules['dolfinx'] = sys.modules['torch'] = None; import fem; fem.SolverError; dir(fem)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
