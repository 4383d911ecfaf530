"""The network of the package on frames that it has not seen, at its resolution and at another."""

import json

import pytest
import torch

from micro.voxel.cells.frames import make_frame
from micro.voxel.cells.tpms import make_tpms
from surrogates.cells.data import Cells, solve
from surrogates.cells.evaluate import energy_error, predict, relative_error
from surrogates.cells.networks.file import PRETRAINED, load_network


@pytest.fixture(scope="module")
def network():
    return load_network()


@pytest.mark.parametrize("n", [12, 16])
def test_fields_of_other_cells_are_bounds_and_near(network, n):
    cells = [make_frame("octet", n, 0.13), make_frame("star", n, 0.15), make_tpms("gyroid", n, 0.1)]
    exact = solve(Cells(torch.stack([torch.from_numpy(cell) for cell in cells]).float()))
    tensor, _ = predict(network.module, exact.density)
    least, _ = energy_error(tensor, exact.tensor)
    assert float(least.min()) > -1e-5
    assert float(relative_error(tensor, exact.tensor).mean()) < 0.02


def test_the_manifest_says_what_it_was_trained_on_and_stands_beside(network):
    assert json.loads(PRETRAINED.with_suffix(".json").read_text()) == network.manifest
    assert network.manifest["errors"]["energy_least"] > -1e-5
    assert network.manifest["errors"]["mean"] < network.manifest["errors"]["mean_step_1"]
    assert "surrogates.voxels" in network.manifest["training"]["command"]
    assert PRETRAINED.stat().st_size < 1e6
