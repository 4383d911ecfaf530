"""Lattice cells: counts, stiffness in closed form, periodicity, and the sentences of bad input."""

import numpy as np
import pytest

from micro.lattice.geometry import SHORTEST, SLIVER, corners, custom_cell, make_cell

REGULAR = ["square-1", "square-2", "square-4", "square-6", "cube-1", "cube-2"]
PERTURBED = ["square-2", "square-4", "square-6", "cube-2"]


def stiffness(cell):
    """Sum of weight area length n n n n over the bars and the volume, for E = 1."""
    n = cell.direction
    return np.einsum("b,bi,bj,bk,bl->ijkl", cell.weight * cell.area * cell.length, n, n, n, n) / cell.volume


@pytest.mark.parametrize(
    ("name", "nodes", "bars", "sets"),
    [
        ("square-1", 4, 6, 4),
        ("square-2", 9, 20, 16),
        ("square-4", 25, 72, 64),
        ("square-6", 49, 156, 144),
        ("cube-1", 8, 28, 13),
        ("cube-2", 27, 158, 104),
    ],
)
def test_counts(name, nodes, bars, sets):
    cell = make_cell(name)
    assert (len(cell.nodes), len(cell.bars), cell.bar_class.max() + 1) == (nodes, bars, sets)
    assert len(np.unique(cell.master)) == cell.volume  # one independent node a unit
    assert cell.weight.sum() == pytest.approx(sets)


def test_moduli_of_the_cube():
    C = stiffness(make_cell("cube-1"))
    assert C[0, 0, 0, 0] == pytest.approx(3.18401392, abs=5e-9)
    assert C[0, 0, 1, 1] == pytest.approx(1.47690714, abs=5e-9)
    assert C[0, 1, 0, 1] == pytest.approx(1.47690714, abs=5e-9)
    assert C[0, 0, 0, 0] == pytest.approx(1 + np.sqrt(2) + 4 / 9 * np.sqrt(3), abs=1e-14)


@pytest.mark.parametrize("name", REGULAR)
def test_regular_cells_have_the_moduli_of_one_unit(name):
    unit = make_cell(name[:-1] + "1")
    np.testing.assert_allclose(stiffness(make_cell(name)), stiffness(unit), atol=1e-13)


@pytest.mark.parametrize("name", REGULAR)
def test_weights_are_one_over_the_cells_that_share(name):
    """1/2 in a face of the box, 1/4 on an edge of a box in three dimensions, 1 inside."""
    cell = make_cell(name)
    ends = cell.nodes[cell.bars]
    faces = sum(
        ((ends[:, :, i] == side).all(axis=1)).astype(int) for i in range(cell.dimension) for side in (0, cell.box[i])
    )
    np.testing.assert_array_equal(cell.weight, 0.5**faces)


@pytest.mark.parametrize("name", PERTURBED)
def test_perturbed_cell_is_periodic(name):
    cell = make_cell(name, perturbation=0.2, seed=4)
    images = cell.nodes[cell.master] + cell.offset * cell.box
    np.testing.assert_allclose(cell.nodes, images, atol=1e-14)
    for number in range(cell.bar_class.max() + 1):
        group = np.flatnonzero(cell.bar_class == number)
        np.testing.assert_allclose(abs(cell.vector[group] @ cell.vector[group[0]]), cell.length[group] ** 2, atol=1e-12)
        assert cell.weight[group].sum() == pytest.approx(1.0)
    found = custom_cell(cell.nodes, cell.bars, cell.box)
    np.testing.assert_array_equal(found.master, cell.master)
    np.testing.assert_array_equal(found.weight, cell.weight)


def test_perturbation_has_its_deviation_and_its_seed():
    spread = [
        (cell.nodes - cell.reference)[cell.master == np.arange(len(cell.nodes))]
        for cell in (make_cell("square-6", perturbation=0.1, seed=seed) for seed in range(30))
    ]
    assert np.std(spread) == pytest.approx(0.1, rel=0.05)
    assert abs(np.mean(spread)) < 0.01
    again = make_cell("square-6", perturbation=0.1, seed=7)
    np.testing.assert_array_equal((again.nodes - again.reference)[again.master == np.arange(49)], spread[7])
    assert not np.array_equal(spread[7], spread[8])


@pytest.mark.parametrize("name", PERTURBED)
def test_perturbed_cell_has_no_slivers(name):
    for seed in range(10):
        cell = make_cell(name, perturbation=0.3, seed=seed)
        units = corners(cell.reference.astype(int))
        volumes = np.linalg.det(cell.nodes[units[:, 1:]] - cell.nodes[units[:, :1]])
        assert len(units) == cell.volume * 2**cell.dimension
        assert volumes.min() >= SLIVER and cell.length.min() >= SHORTEST


def test_custom_cell_finds_images():
    """A brick pattern of which one copy of each strut is listed has whole struts only; with copies, shares."""
    nodes = [[0, 0], [2, 0], [1, 1], [3, 1], [0, 2]]
    one = custom_cell(nodes, [[0, 2], [2, 4], [1, 3]], [2.0, 2.0], area=[1.0, 2.0, 1.0])
    np.testing.assert_array_equal(one.master, [0, 0, 2, 2, 0])
    np.testing.assert_array_equal(one.weight, [0.5, 1, 0.5])
    np.testing.assert_array_equal(one.bar_class, [0, 1, 0])
    np.testing.assert_array_equal(one.bar_offset[2] - one.bar_offset[0], [1, 0])


def test_image_of_a_bar_may_be_listed_backwards():
    nodes = [[0, 0], [1, 0], [0, 1], [1, 1]]
    cell = custom_cell(nodes, [[0, 1], [3, 2], [0, 2], [1, 3], [0, 3], [2, 1]], [1.0, 1.0])
    np.testing.assert_array_equal(cell.weight, [0.5, 0.5, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(stiffness(cell), stiffness(make_cell("square-1")), atol=1e-15)


SQUARE = [[0, 0], [1, 0], [0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[0, 0, 0, 0]], [[0, 0]], [1]), r"nodes must be finite of shape \(m, 2\) or \(m, 3\), got shape \(1, 4\)."),
        ((SQUARE, [[0, 1]], [1, 1, 1]), r"box must hold 2 positive edges, got \[1.0, 1.0, 1.0\]."),
        ((SQUARE, [[0, 1.5]], [1, 1]), "bars must be integers of shape"),
        ((SQUARE, [[0, 4]], [1, 1]), "bars must name nodes 0 to 3, got 0 to 4."),
        ((SQUARE, [[0, 1], [2, 2]], [1, 1]), "bars must join two nodes, bar 1 joins one to itself."),
        ((SQUARE, [[0, 1], [1, 0]], [1, 1]), "bars must be listed once each, one pair of nodes comes twice."),
        ((SQUARE, [[0, 1]], [1, 1], -1.0), r"area must be positive, one number or 1, got shape \(\)."),
        ((SQUARE, [[0, 1]], [1, 2]), "nodes must have bars, node 2 has none."),
        (([[0, 0], [1, 0], [0, 0]], [[0, 1], [1, 2]], [1, 1]), "nodes must be distinct, 0 and 2 coincide."),
    ],
)
def test_bad_struts(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        custom_cell(*arguments)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("hexagon-2", {}, "name must be square-k or cube-k, for instance square-6, got 'hexagon-2'."),
        ("square-0", {}, "name must be square-k"),
        ("cube-1", {"perturbation": 0.2}, "perturbation of a cell of one independent node only shifts it"),
        ("square-2", {"perturbation": -0.2}, "perturbation must lie between 0 and 1, in edges of a unit, got -0.2."),
        ("square-2", {"perturbation": 0.2, "seed": -1}, "seed must not be negative, got -1."),
    ],
)
def test_bad_names(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_cell(name, **options)
