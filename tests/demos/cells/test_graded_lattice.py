"""The graded part, small: what it writes, its checks, the network's derivative, ranks."""

import json
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from surrogates.cells.networks.file import Shape, make_network, save_network

DEMO = "cells/graded_lattice.py"
SMALL = ["--cells", "1", "1", "2", "--resolution", "8", "--elements", "1", "--resolved", "0", "--steps", "1"]


def run(demo, folder, *arguments, comm=MPI.COMM_SELF):
    assert demo.main([*SMALL, "--threads", "1", "--output", str(folder), *arguments], comm) == 0
    comm.barrier()
    return json.loads((folder / "summary.json").read_text())


def test_part_of_the_homogeniser_and_of_voxels(demo, tmp_path):
    s = run(demo, tmp_path, "--network", "none", "--cells", "2", "1", "3", "--resolved", "6")
    assert set(s["checks"]) == {"clapeyron", "derivative", "voxels", "line", "volume", "descent"}
    assert s["derivative"]["error"] < 1e-5
    assert s["network_against_homogeniser"] is None and s["against_voxels"]["voxels"] > 400
    assert {entry.name for entry in tmp_path.iterdir()} == {"summary.json", "graded.png", "fields.xdmf", "fields.h5"}


def test_part_of_a_network_that_knows_little_is_too_stiff(demo, tmp_path):
    save_network(tmp_path / "net.pt", make_network(Shape(features=4)), {"shape": {"features": 4}})
    s = run(demo, tmp_path / "out", "--network", str(tmp_path / "net.pt"), "--family", "grid")
    assert -0.5 < s["network_against_homogeniser"]["compliance_error"] < -1e-4
    assert s["derivative"]["error"] < 1e-5


def test_next_fractions_keep_the_volume_and_the_limits(demo):
    fraction = np.array([0.2, 0.3, 0.5, 0.7])
    new = demo.next_fractions(fraction, np.array([1.0, 4.0, 1.0, 2.0]), 0.05)
    assert new.mean() == pytest.approx(fraction.mean(), rel=1e-12)
    assert np.all(new >= 0.2) and np.all(new <= 0.7) and np.all(abs(new - fraction) <= 0.05 + 1e-12) and new[1] > 0.3


@pytest.mark.mpi
def test_ranks_do_not_change_the_results(demo, tmp_path_factory):
    comm = MPI.COMM_WORLD
    folder = Path(comm.bcast(str(tmp_path_factory.mktemp("ranks"))))
    words = ["--network", "none", "--cells", "2", "1", "3", "--resolved", "6"]
    shared = run(demo, folder / "all", *words, comm=comm)
    alone = run(demo, folder / f"{comm.rank}", *words)
    assert shared["compliance"] == pytest.approx(alone["compliance"], rel=1e-8)
    assert shared["against_voxels"]["voxels"] == alone["against_voxels"]["voxels"]
    for key in ("compliance_voxels", "line_voxels", "line_homogenised"):
        assert shared["against_voxels"][key] == pytest.approx(alone["against_voxels"][key], rel=1e-4)


def test_bad_input_is_one_sentence(demo, tmp_path, capsys):
    assert demo.main(["--family", "foam"], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err.startswith("Argument --family: invalid choice: 'foam'")
    assert demo.main(["--resolution", "2"], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err == "--resolution must be at least 6, got 2.\n"
    assert demo.main(["--network", str(tmp_path / "none.pt"), "--output", str(tmp_path)], MPI.COMM_SELF) == 2
    assert capsys.readouterr().err.endswith("none.pt does not exist.\n")
