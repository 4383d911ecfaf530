"""The studies import what they share from their own folder, as Python does for a script that is run; running one."""

import json
import sys

import pytest
from loading import DEMOS, load_demo
from mpi4py import MPI

sys.path[:0] = [str(DEMOS / "lattices"), str(DEMOS / "crystal"), str(DEMOS / "anvil")]


@pytest.fixture(scope="module")
def demo(request):
    """The module of the file in `demos` that a module of tests names as DEMO."""
    return load_demo(request.module.DEMO)


@pytest.fixture(scope="module")
def run(request, demo):
    """Runs the demo with the words SMALL of the module of tests; returns its summary."""

    def run(folder, *arguments, comm=MPI.COMM_SELF):
        assert demo.main([*request.module.SMALL, "--output", str(folder), *arguments], comm) == 0
        comm.barrier()
        return json.loads((folder / "summary.json").read_text())

    return run
