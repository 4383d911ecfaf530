"""The cache of compiled code: an edit of a function is seen by the functions of other files that call it."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fem.laws import kernels

ROOT = Path(__file__).resolve().parents[3]
CODE = "import numpy as np; from fem.laws.neo_hookean import NeoHookean as L; F = np.eye(3)[None] * 1.1; print(float(" \
    "L(1.0, 2.0, density=1.0).update(F, np.zeros((1, 0)), 1.0)[0][0, 0, 0]))"  # fmt: skip


def run(folder: Path) -> float:
    """Stress of the law in a copy of the package, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.fixture
def copy(tmp_path):
    for package in ("fem", "surrogates"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pt")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return tmp_path


def test_an_edit_of_a_callee_in_another_file_is_seen(copy):
    before = run(copy)
    stored = {path: path.stat().st_mtime_ns for path in (copy / "cache").rglob("*.nb?")}
    assert stored and run(copy) == before
    assert {path: path.stat().st_mtime_ns for path in (copy / "cache").rglob("*.nb?")} == stored  # nothing compiled
    path = copy / "fem" / "laws" / "kernels.py"
    source = path.read_text()
    edited = source.replace("out[i, j] = tau[i, 0]", "out[i, j] = 3.0 * tau[i, 0]")
    assert edited != source
    path.write_text(edited)
    # P_11 = sum_j tau_1j F^-1_1j, of which only the first term is there for a stretch in all directions.
    assert run(copy) == pytest.approx(3.0 * before, rel=1e-14)


def test_functions_that_others_call_stand_where_their_sources_are_hashed():
    """A cached function calls functions of its own file and of `fem.laws` only, and then by `compiled`."""
    found = 0
    for path in sorted((ROOT / "fem").rglob("*.py")):
        tree = ast.parse(path.read_text())
        cached = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                marks = {ast.unparse(mark).split("(")[0] for mark in node.decorator_list}
                if marks & {"njit", "compiled", "numba.njit"}:
                    cached[node] = marks
        imported = {
            alias.asname or alias.name: node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fem")
            for alias in node.names
        }
        for function, marks in cached.items():
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                name = ast.unparse(call.func)
                if name in imported:
                    found += 1
                    assert marks == {"compiled"}, f"{path}: {function.name} calls {name}"
                    callee = importlib.import_module(imported[name])
                    assert callee.__name__.startswith("fem.laws.") and "@compiled" in Path(callee.__file__).read_text()
    assert found > 5


def test_a_folder_that_cannot_be_written_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernels.numba.config, "CACHE_DIR", str(tmp_path / "file"))
    assert kernels.cache_folder() is None
    monkeypatch.setattr(kernels.numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(kernels, "HERE", tmp_path / "file")
    monkeypatch.setattr(kernels, "sources_hash", lambda: "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert kernels.cache_folder() == str(tmp_path / "user" / "anvilx" / "kernels-0")
