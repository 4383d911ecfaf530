"""Finite lattices: what their bars and nodes add up to, and that cells find their own in them."""

import numpy as np
import pytest

from micro.lattice.bars import KinematicBar
from micro.lattice.geometry import custom_cell, make_cell
from micro.lattice.tiling import tile

CELLS = [
    (make_cell("square-1"), (3, 2)),
    (make_cell("square-4", perturbation=0.2, seed=1), (2, 3)),
    (make_cell("cube-1"), (3, 2, 4)),
    (make_cell("cube-2", perturbation=0.2, seed=1), (2, 1, 2)),
    (custom_cell([[0, 0], [2, 0], [1, 1], [0, 2]], [[0, 2], [2, 3], [1, 2]], [2.0, 2.0], [1.0, 2.0, 3.0]), (3, 3)),
]


def lengths(truss):
    return np.linalg.norm(truss.nodes[truss.bars[:, 1]] - truss.nodes[truss.bars[:, 0]], axis=1)


@pytest.mark.parametrize(("cell", "counts"), CELLS, ids=lambda x: getattr(x, "name", ""))
def test_volume_of_the_bars(cell, counts):
    size = 0.7
    truss = tile(cell, counts, size)
    scale = size / cell.box[0]
    one = (cell.weight * cell.area * cell.length).sum() * scale**cell.dimension
    assert (truss.area * lengths(truss)).sum() == pytest.approx(np.prod(counts) * one, rel=1e-13)


@pytest.mark.parametrize(("cell", "counts"), CELLS, ids=lambda x: getattr(x, "name", ""))
def test_cells_find_their_nodes_and_bars(cell, counts):
    truss = tile(cell, counts, 2.0)
    scale = 2.0 / cell.box[0]
    expected = truss.origin[:, None] + scale * cell.nodes
    np.testing.assert_allclose(truss.nodes[truss.cell_nodes], expected, atol=1e-13)
    expected = truss.origin[:, None] + scale * cell.reference
    np.testing.assert_allclose(truss.reference[truss.cell_nodes], expected, atol=1e-13)
    ours = np.sort(truss.bars[truss.cell_bars], axis=-1)
    np.testing.assert_array_equal(ours, np.sort(truss.cell_nodes[:, cell.bars], axis=-1))
    np.testing.assert_array_equal(truss.cell_bars[truss.cell, truss.cell_bar], np.arange(len(truss.bars)))


@pytest.mark.parametrize(("cell", "counts"), CELLS, ids=lambda x: getattr(x, "name", ""))
def test_nothing_is_listed_twice(cell, counts):
    truss = tile(cell, counts, 1.0)
    assert len(np.unique(np.sort(truss.bars, axis=1), axis=0)) == len(truss.bars)
    assert len(np.unique(truss.nodes.round(9), axis=0)) == len(truss.nodes)
    np.testing.assert_array_equal(np.unique(truss.bars), np.arange(len(truss.nodes)))


def test_areas_of_the_cube_inside_and_outside():
    """A bar inside carries the whole cross-section, one in a face of the lattice half, on an edge a quarter."""
    truss = tile(make_cell("cube-1"), (3, 3, 3), 2.0)
    ends = truss.nodes[truss.bars]
    faces = sum((ends[:, :, i] == side).all(axis=1).astype(int) for i in range(3) for side in (0.0, 6.0))
    np.testing.assert_allclose(truss.area, 4.0 * 0.5**faces)
    assert set(faces) == {0, 1, 2}


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("name", ["square-2", "cube-1", "cube-2"])
def test_homogeneous_energy_does_not_depend_on_the_number_of_cells(name, n):
    """Elastic and plastic, of a box of edge 10 under an affine displacement."""
    cell, law = make_cell(name), KinematicBar()
    d = cell.dimension
    E = np.array([[0.3, 0.1, 0.05], [0.1, -0.5, 0.2], [0.05, 0.2, 0.4]])[:d, :d]
    truss = tile(cell, (n,) * d, 10.0 / n)
    u = truss.nodes @ E
    n_bar = (truss.nodes[truss.bars[:, 1]] - truss.nodes[truss.bars[:, 0]]) / lengths(truss)[:, None]
    strain = ((u[truss.bars[:, 1]] - u[truss.bars[:, 0]]) * n_bar).sum(-1) / lengths(truss)
    _, state, _ = law.update(strain, np.zeros((len(strain), 1)))
    energy = (truss.area * lengths(truss) * law.energy(strain, state)).sum()
    affine = ((cell.direction @ E) * cell.direction).sum(-1)
    state = law.update(affine, np.zeros((len(affine), 1)))[1]
    density = (cell.weight * cell.length * law.energy(affine, state)).sum() / cell.volume
    assert energy == pytest.approx(10.0**d * density, rel=1e-12)
    assert np.any(state != 0)


@pytest.mark.parametrize(
    ("counts", "size", "sentence"),
    [
        ((2, 2), 1.0, r"counts must be 3 integers of at least 1, got \[2, 2\]."),
        ((2, 2, 0), 1.0, r"counts must be 3 integers of at least 1, got \[2, 2, 0\]."),
        ((2, 2, 2), 0.0, "size must be positive, got 0.0."),
    ],
)
def test_bad_counts(counts, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        tile(make_cell("cube-1"), counts, size)
