"""Cells: frames, minimal surfaces, random voxels; periodic, symmetric where they should be, at any resolution."""

import numpy as np
import pytest

from micro.voxel.cells.frames import FRAMES, frame_struts, make_frame, voxelise
from micro.voxel.cells.random import make_random, strata
from micro.voxel.cells.tpms import SURFACES, make_tpms, tpms_function

STRUTS = dict(zip(FRAMES, (12, 4, 16, 12, 24, 36, 16, 32, 36)))
EDGE, FACE, BODY = 1.0, 2**0.5, 3**0.5
LENGTHS = {
    "grid": {EDGE: 12},
    "x": {BODY: 4},
    "star": {EDGE: 12, BODY: 4},
    "face_center": {FACE: 12},
    "octet": {FACE: 12, FACE / 2: 12},
    "grid_octet": {EDGE: 12, FACE: 12, FACE / 2: 12},
    "x_cross_grid": {FACE: 12, BODY: 4},
    "tesseract": {EDGE: 12, EDGE / 2: 12, BODY / 4: 8},
    "vintiles": {FACE / 4: 36},
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name):
    """Cubic symmetry, and the same cell from struts moved into the neighbours."""
    struts = frame_struts(name)
    assert len(struts) == STRUTS[name]
    assert len(frame_struts(name, edges=True)) == STRUTS[name] + (
        0 if name in ("grid", "star", "grid_octet", "tesseract") else 12
    )
    solid = make_frame(name, 16, 0.08)
    cubic = np.roll(solid, 8, axis=2) if name == "vintiles" else solid  # the published place of Kelvin's cells
    for same in (cubic.transpose(1, 2, 0), cubic.transpose(1, 0, 2), cubic[::-1]):
        np.testing.assert_array_equal(same, cubic)
    rng = np.random.default_rng(0)
    moved = struts + rng.integers(-1, 2, (len(struts), 1, 3))
    np.testing.assert_array_equal(voxelise(moved, 16, 0.08), solid)


@pytest.mark.parametrize("name", FRAMES)
def test_lengths_of_struts(name):
    """So many struts of each length, as the definitions say; none twice, all in the cell."""
    struts = frame_struts(name)
    length = np.linalg.norm(struts[:, 1] - struts[:, 0], axis=1)
    assert {l: int((abs(length - l) < 1e-12).sum()) for l in LENGTHS[name]} == LENGTHS[name]
    assert struts.min() >= 0 and struts.max() <= 1
    assert len({frozenset(map(tuple, np.round(4 * strut).astype(int))) for strut in struts}) == len(struts)


def test_vintiles_are_a_foam_of_kelvin_cells():
    """Twelve joints of four struts and 24 struts a cell; joints where Dong, Tang and Zhao have them."""
    struts = np.round(4 * frame_struts("vintiles")).astype(int)
    assert ([0, 2, 1] == struts).all(-1).any() and ([1, 2, 2] == struts).all(-1).any()
    ends = {}
    for a, b in struts % 4:  # in the periodic cell; directions tell images of a strut apart
        ends.setdefault(tuple(a), set()).add(tuple(b))
        ends.setdefault(tuple(b), set()).add(tuple(a))
    assert len(ends) == 12 and all(len(joined) == 4 for joined in ends.values())


def test_thin_frames_have_the_volume_of_their_struts():
    """Struts that belong to several cells counted once."""
    for name, length in (("grid", 3.0), ("x", 4 * 3**0.5), ("vintiles", 24 * 0.5**0.5 / 2), ("octet", 24 * 0.5**0.5)):
        r = 0.05
        volume = make_frame(name, 80, r).mean()
        assert 0.7 * np.pi * r**2 * length < volume < np.pi * r**2 * length


def test_strut_in_any_box():
    solid = voxelise(np.array([[[0.5, 0.5, -3.0], [0.5, 0.5, 4.0]]]), (10, 20, 3), [0.2])
    x, y = (np.arange(10) + 0.5) / 10 - 0.5, (np.arange(20) + 0.5) / 20 - 0.5
    np.testing.assert_array_equal(solid, np.repeat((x[:, None] ** 2 + y**2 <= 0.04)[..., None], 3, axis=2))


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces(name):
    I = tpms_function(name, 12)
    np.testing.assert_allclose(I, I.transpose(1, 2, 0), atol=1e-12)
    above, below = make_tpms(name, 12, 0.3), make_tpms(name, 12, 0.3, above=False)
    assert (above ^ below).all() and above.any() and below.any()
    assert make_tpms(name, 12, -0.5).sum() > above.sum()
    coarse = tpms_function(name, (4, 12, 12))  # every third place
    np.testing.assert_allclose(coarse, I[1::3], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "formula", "centring"),
    [
        ("primitive", lambda X, Y, Z: np.cos(X) + np.cos(Y) + np.cos(Z), (0, 0, 0)),
        ("gyroid", lambda X, Y, Z: np.sin(X) * np.cos(Y) + np.sin(Y) * np.cos(Z) + np.sin(Z) * np.cos(X), (1, 1, 1)),
        (
            "diamond",  # the other way to write it: the four sums of three phases
            lambda X, Y, Z: (
                np.cos(X + Y) * np.cos(Z) / 2
                + np.cos(X - Y) * np.cos(Z) / 2
                - (np.cos(X - Y) - np.cos(X + Y)) * np.sin(Z) / 2
            ),
            (1, 1, 0),
        ),
        (
            "iwp",
            lambda X, Y, Z: (
                (np.cos(X) + np.cos(Y) + np.cos(Z)) ** 2 - 3 * (np.cos(X) ** 2 + np.cos(Y) ** 2 + np.cos(Z) ** 2) + 3
            ),
            (1, 1, 1),
        ),
        (
            "frd",
            lambda X, Y, Z: (
                4 * np.cos(X) * np.cos(Y) * np.cos(Z)
                - ((np.cos(2 * X) + np.cos(2 * Y) + np.cos(2 * Z)) ** 2 - np.cos(2 * X) ** 2) / 2
                + (np.cos(2 * Y) ** 2 + np.cos(2 * Z) ** 2) / 2
            ),
            (1, 1, 0),
        ),
    ],
)
def test_formulas_of_the_surfaces(name, formula, centring):
    """Schoen's and Schwarz's surfaces by trigonometric identities, and the lattice that each belongs to."""
    I = tpms_function(name, (4, 6, 8))
    X, Y, Z = np.meshgrid(*(2 * np.pi * (np.arange(m) + 0.5) / m - np.pi for m in (4, 6, 8)), indexing="ij")
    np.testing.assert_allclose(I, formula(X, Y, Z), atol=1e-12)
    half = [m // 2 * c for m, c in zip((4, 6, 8), centring)]
    np.testing.assert_allclose(np.roll(I, half, (0, 1, 2)), I, atol=1e-12)
    if name == "primitive":  # the shift by half a cell exchanges the sides
        np.testing.assert_allclose(np.roll(I, (2, 3, 4), (0, 1, 2)), -I, atol=1e-12)


def test_known_fractions():
    """Half the space for the balanced surfaces, exactly; ties at centres go one way."""
    for name in ("gyroid", "diamond", "primitive"):
        assert make_tpms(name, 21).mean() == pytest.approx(0.5, abs=0.02)
    assert make_tpms("primitive", 4).sum() + make_tpms("primitive", 4, above=False).sum() == 64


@pytest.mark.parametrize("count", [1, 2, 7, 64, 100])
def test_strata_are_permutations(count):
    keys = np.random.default_rng(0).integers(0, 2**64, 20, dtype=np.uint64)
    taken = np.array([strata(i, count, keys) for i in range(count)])
    np.testing.assert_array_equal(np.sort(taken, axis=0), np.repeat(np.arange(count)[:, None], 20, axis=1))
    if count > 50:
        assert len({tuple(column) for column in taken.T}) == 20
        assert abs(np.corrcoef(taken.T)[np.triu_indices(20, 1)]).max() < 0.5


def test_latin_hypercube():
    """Every part of the range of every voxel is taken once; samples are reproducible, alone, and differ."""
    cells = np.stack([make_random(3, i, 5, count=40)[0] for i in range(40)])
    assert (np.sort((cells * 40).astype(int), axis=0) == np.arange(40)[:, None, None, None]).all()
    np.testing.assert_array_equal(make_random(3, 17, 5, count=40)[0], cells[17])
    assert (make_random(3, 17, 6, count=40)[0] != cells[17]).all()
    assert cells.min() >= 1e-9 and cells.max() <= 1


def test_penalised_samples():
    pairs = [make_random(2, i, 5, count=300, penalised=True) for i in range(300)]
    exponents = np.array([exponent for _, exponent in pairs])
    assert exponents.min() >= 0 and np.mean(exponents**2) == pytest.approx(1.2**2, rel=0.2)
    np.testing.assert_allclose(pairs[3][0], make_random(2, 3, 5, count=300)[0] ** exponents[3])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: make_frame("cube", 8, 0.1), f"name must be one of {', '.join(FRAMES)}, got 'cube'."),
        (lambda: make_frame("grid", 8, 0.0), "radius must be positive, got 0.0."),
        (lambda: make_frame("grid", 0, 0.1), "n must be one positive number of voxels or three, got 0."),
        (lambda: voxelise(np.zeros((2, 3)), 8, 0.1), "struts must have shape (m, 2, 3), got (2, 3)."),
        (lambda: make_tpms("plane", 8), f"name must be one of {', '.join(SURFACES)}, got 'plane'."),
        (lambda: make_tpms("gyroid", 8, float("nan")), "level must be finite, got nan."),
        (lambda: make_random(4, 9, 0, count=9), "sample must lie between 0 and 8, got 9."),
        (lambda: make_random(4, 0, 0, least=1.0), "least must be at least 0 and below 1, got 1.0."),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == sentence
