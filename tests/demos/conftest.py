"""The studies import what they share from their own folder, as Python does for a script that is run; running one."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from mpi4py import MPI

DEMOS = Path(__file__).resolve().parents[2] / "demos"
sys.path[:0] = [str(DEMOS / "lattices"), str(DEMOS / "crystal"), str(DEMOS / "anvil")]


def _load(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, DEMOS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(request):
    """The module of the file in `demos` that a module of tests names as DEMO."""
    return _load(request.module.DEMO)


@pytest.fixture(scope="module")
def run(request, demo):
    """Runs the demo with the words SMALL of the module of tests; returns its summary."""

    def run(folder, *arguments, comm=MPI.COMM_SELF):
        assert demo.main([*request.module.SMALL, "--output", str(folder), *arguments], comm) == 0
        comm.barrier()
        return json.loads((folder / "summary.json").read_text())

    return run
