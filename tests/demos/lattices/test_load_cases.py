"""Load cases: paths, values by hand, and the same loads for elements and lattices."""

import numpy as np
import pytest
from load_cases import CASES, conditions, load_case, prescribed

from micro.lattice.geometry import make_cell
from micro.lattice.tiling import tile

CORNERS = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [10.0, 10.0, 0.0]])


def test_path_of_the_cyclic_load_is_the_papers():
    case = load_case("lcH")
    turns = [0, 10, 20, 30, 20, 10, 0, -10, -20, -30, -40, -50, -40, -30, -20, -10, 0, 10, 20, 30, 40, 50, 60]
    assert list(case.path) == turns
    assert (case.loaded, case.end) == (22.0, 23.0)
    assert case.times(1) == [*map(float, range(1, 24))]
    assert case.times(2)[:4] == [0.5, 1.0, 1.5, 2.0]
    assert case.times(2)[-2:] == [22.0, 23.0]


@pytest.mark.parametrize("name", [name for name in CASES if name != "lcH"])
def test_other_loads_end_at_time_one_as_loaded(name):
    case = load_case(name)
    assert case.times(4) == [0.25, 0.5, 0.75, 1.0]
    assert not case.released


@pytest.mark.parametrize(("name", "t", "degrees"), [("lcT1", 0.5, 20.0), ("lcT2", 1.0, 60.0), ("lcH", 10.5, -45.0)])
def test_top_turns_about_the_axis_as_a_rigid_body(name, t, degrees):
    case = load_case(name)
    x = CORNERS + [0.0, 0.0, 20.0]
    given = {(p.where, p.component): p.value for p in prescribed(case)}
    moved = x[:, :2] + np.stack([given["top", i](x.T, t) for i in range(2)], axis=1) - 5.0
    before = x[:, :2] - 5.0
    assert ("top", 2) not in given
    assert np.allclose(np.hypot(*moved.T), np.hypot(*before.T), rtol=1e-14)
    angle = np.arctan2(moved[:, 1], moved[:, 0]) - np.arctan2(before[:, 1], before[:, 0])
    assert np.allclose(np.exp(1j * angle), np.exp(1j * np.radians(degrees)), rtol=1e-14)


@pytest.mark.parametrize("name", list(CASES))
def test_lattice_and_elements_are_given_the_same(name):
    case = load_case(name)
    lattice = tile(make_cell("cube-1"), [2, 2, int(2 * case.box[2] / 10)], 5.0)
    x = lattice.nodes
    expected = {}
    for p in prescribed(case):
        if isinstance(p.where, str):
            inside = np.isclose(x[:, 2], 0.0 if p.where == "bottom" else case.box[2])
        else:
            inside = p.where(x.T)
            assert inside.sum() == 1
        for t in (0.3, 1.0, 1.7):
            expected |= {(k, p.component, t): v for k, v in zip(np.flatnonzero(inside), p.value(x[inside].T, t))}
    found = {}
    for c in conditions(case, x):
        for t in (0.3, 1.0, 1.7):
            found |= {(k, c.component, t): v for k, v in zip(c.where, c.value(x[c.where].T, t))}
    assert found == expected and any(x[k, 2] > 1.0 for k, *_ in found)


def test_compression_presses_in_proportion_and_leaves_the_sides():
    given = {(p.where, p.component): p.value for p in prescribed(load_case("lcC2")) if isinstance(p.where, str)}
    assert set(given) == {("bottom", 0), ("bottom", 1), ("bottom", 2), ("top", 2)}
    assert np.allclose(given["top", 2](CORNERS.T, 0.4), -2.0)
    assert np.all(given["bottom", 0](CORNERS.T, 0.4) == 0.0)


def test_control_points_are_corners_of_the_top():
    for name, case in CASES.items():
        assert case.control == case.box
        assert case.component == (2 if name in ("lcT1", "lcT2", "lcH") else 0)


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="no load case 'lcX'; there are lcU1, lcU2, lcC1, lcC2, lcT1, lcT2, lcH"):
        load_case("lcX")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0."):
        load_case("lcH").times(0)
    with pytest.raises(ValueError, match="The lattice has no node at top."):
        conditions(load_case("lcC1"), CORNERS)
