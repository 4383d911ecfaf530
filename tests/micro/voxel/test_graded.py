"""Graded cells: fractions and their derivatives, the frames they smooth, bad input."""

import numpy as np
import pytest
import torch

from micro.voxel.cells.frames import make_frame
from micro.voxel.cells.graded import GradedCells
from micro.voxel.cells.tpms import make_tpms


@pytest.mark.parametrize("name", ["star", "gyroid"])
def test_shares_have_parameters_and_derivatives(name):
    cells = GradedCells(name, 12)
    fraction = np.array([0.2, 0.45, 0.7])
    t = cells.parameter(fraction)
    assert np.allclose(cells.fraction(t), fraction, atol=1e-12)
    ends = [cells.fraction(t + s) for s in (1e-6, -1e-6)]
    assert np.allclose(cells.slope(t), (ends[0] - ends[1]) / 2e-6, rtol=1e-5)


def test_solid_is_where_the_frame_or_the_surface_is():
    assert np.array_equal(GradedCells("star", 12).distance.numpy() <= 0.21, make_frame("star", 12, 0.21))
    assert np.array_equal(GradedCells("primitive", 12).distance.numpy() < -1e-12, make_tpms("primitive", 12))
    half = GradedCells("octet", 10).density(torch.tensor([0.2], dtype=torch.float64))[0].numpy()
    assert np.array_equal(half >= 0.5, GradedCells("octet", 10).distance.numpy() <= 0.2)


def test_what_is_no_cell_is_refused():
    with pytest.raises(ValueError, match="name must be one of .*, got 'foam'"):
        GradedCells("foam", 8)
    with pytest.raises(ValueError, match="n must be one positive number"):
        GradedCells("octet", 0)
