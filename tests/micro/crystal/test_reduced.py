"""Reduced polycrystals: the choice of grains and weights, their files, the shipped sets and the command."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from micro import reduce
from micro.crystal import compiled, reduced
from micro.crystal.materials import load_material
from micro.crystal.polycrystal_law import make_grains
from micro.crystal.reduced import Deviations, Histories, choose, smallest
from micro.crystal.reduced_texture import FOLDER, ReducedTexture, read_reduced, write_reduced
from micro.crystal.texture import random_texture, to_euler

needs_compiler = pytest.mark.skipif(not compiled.available(), reason="no C compiler")
SHIPPED = sorted(FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def matrix():
    """A quadratic form of ten candidates whose mean is zero, as that of deviations."""
    a = np.random.default_rng(0).standard_normal((10, 40))
    a -= a.mean(axis=0)
    return a @ a.T / 40


def square(matrix, chosen, weights):
    return weights @ matrix[np.ix_(chosen, chosen)] @ weights


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 6, 10])
def test_weights_are_positive_with_sum_one(matrix, keep):
    chosen, weights = choose(matrix, keep)
    assert len(chosen) <= keep
    assert len(set(chosen.tolist())) == len(chosen)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-14)


def test_all_grains_leave_no_error(matrix):
    assert square(matrix, *choose(matrix, 10)) < 1e-9 * np.trace(matrix)


def test_weights_are_the_best_of_their_grains(matrix):
    chosen, weights = choose(matrix, 4)
    part = matrix[np.ix_(chosen, chosen)]
    other = minimize(
        lambda w: w @ part @ w, np.full(4, 0.25), jac=lambda w: 2 * part @ w, method="SLSQP", bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert square(matrix, chosen, weights) <= other.fun * (1 + 1e-6)


@pytest.mark.parametrize("keep", [2, 3])
def test_the_choice_is_near_the_best_of_all_choices(matrix, keep):
    """Exchange of single grains ends in a local minimum: close to the best set, which few candidates allow to find."""
    values = []
    for rows in combinations(range(10), keep):
        part = matrix[np.ix_(rows, rows)]
        grid = np.linspace(0, 1, 41)
        weights = [np.array([x, 1 - x]) for x in grid] if keep == 2 else [
            np.array([x, y, 1 - x - y]) for x in grid for y in grid if x + y <= 1
        ]  # fmt: skip
        values.append(min(w @ part @ w for w in weights))
    assert square(matrix, *choose(matrix, keep)) <= 1.1 * min(values)


def test_copies_of_one_grain_are_no_obstacle():
    row = np.random.default_rng(1).standard_normal(20)
    matrix = Deviations(np.stack([row, row, -row, -row])[None]).matrix()
    chosen, weights = choose(matrix, 2)
    assert square(matrix, chosen, weights) < 1e-9
    assert sorted((chosen // 2).tolist()) == [0, 1]


def test_the_fewest_grains_for_an_error(matrix):
    chosen, weights = smallest(matrix, 0.4)
    assert square(matrix, chosen, weights) <= 0.4**2
    fewer = choose(matrix, len(chosen) - 1)
    assert square(matrix, *fewer) > 0.4**2


@pytest.mark.parametrize("keep", [0, 11])
def test_bad_numbers_of_grains(matrix, keep):
    with pytest.raises(ValueError, match=f"keep must lie between 1 and the 10 grains, got {keep}"):
        choose(matrix, keep)


def test_bad_histories():
    with pytest.raises(ValueError, match=r"C must have shape \(s, T, 3, 3\)"):
        Histories(np.zeros((2, 3, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="time must increase"):
        Histories(np.tile(np.eye(3), (1, 3, 1, 1)), np.zeros((1, 3)))


@needs_compiler
def test_errors_are_those_of_the_reduced_polycrystal_itself():
    """The quadratic form predicts the error that a run of the reduced polycrystal has."""
    texture, material = random_texture(6, 0), load_material("magnesium")
    o = reduce.make_parser().parse_args(["--output", "x.json", "--keep", "3", "--walks", "2", "--strain", "0.2"])
    paths = reduce.walks(o).training
    grains = make_grains(texture, material)
    found = reduced.deviations(grains, paths, instants=1000)
    chosen, weights = choose(found.matrix(), 3)
    few = make_grains(type(texture)(texture.orientations[chosen], torch.from_numpy(weights)), material)
    C = np.stack([paths.C[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))], axis=-1)

    def deviator(S):
        place = np.array([[0, 3, 5], [3, 1, 4], [5, 4, 2]])
        F = np.swapaxes(np.linalg.cholesky(paths.C), -1, -2)
        sigma = F @ S[..., place] @ np.swapaxes(F, -1, -2) / np.linalg.det(F)[..., None, None]
        return sigma - np.trace(sigma, axis1=-2, axis2=-1)[..., None, None] / 3 * np.eye(3)

    s, t = deviator(grains.solve(C, paths.time).S), deviator(few.solve(C, paths.time).S)
    width = np.diff(paths.time, axis=1)[:, :, None, None]
    error = np.sqrt((width * (s - t)[:, 1:] ** 2).sum((1, 2, 3)) / (width * s[:, 1:] ** 2).sum((1, 2, 3)))
    np.testing.assert_allclose(found.errors(chosen, weights), error, rtol=1e-6)


def test_a_file_is_read_as_it_was_written(tmp_path):
    written = ReducedTexture(
        "magnesium", {"kind": "random", "grains": 9, "seed": 0}, np.array([2, 5]),
        np.array([[10.0, 20, 30], [1, 2, 3]]), np.array([0.25, 0.75]),
        {"walks": {"training": 0.1, "held_out": 0.2}}, {"command": "none"},
    )  # fmt: skip
    write_reduced(tmp_path / "a.json", written)
    read = read_reduced(tmp_path / "a.json")
    for name in ("index", "euler", "weights"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert (read.material, read.source, read.errors) == (written.material, written.source, written.errors)
    assert read.describe() == "2 grains for 9 of magnesium; held-out error 20 % on walks"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(schema=99), "schema must be 1, got 99"),
        (lambda c: c.pop("grains"), "it lacks 'grains'"),
        (lambda c: c["grains"][0].update(weight=-0.1), "weights of a reduced texture must be positive with sum 1"),
        (lambda c: c["grains"][0].update(weight=0.5), "weights of a reduced texture must be positive with sum 1"),
        (lambda c: c["grains"][0].update(euler=[1.0, 2.0]), "is no reduced texture"),
        (lambda c: c["grains"].clear(), "is no reduced texture"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, sentence):
    content = json.loads(SHIPPED[0].read_text())
    change(content)
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=sentence):
        read_reduced(tmp_path / "bad.json")


def test_the_shipped_numbers_of_grains():
    assert {int(path.stem.rpartition("-")[2]) for path in SHIPPED} >= {4, 8, 16, 32, 64}


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_sets_are_grains_of_their_texture(path):
    found, texture = read_reduced(path), random_texture(128, 0)
    assert found.source == {"kind": "random", "grains": 128, "seed": 0}
    assert len(found.weights) == int(path.stem.rpartition("-")[2])
    np.testing.assert_allclose(found.texture.orientations, texture.orientations[found.index], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.euler, to_euler(texture.orientations[found.index]), rtol=0, atol=1e-9)


@needs_compiler
def test_shipped_sets_have_their_stated_error_on_other_walks():
    """On walks of another seed, the errors are those that the files state, up to the scatter of a few walks."""
    o = reduce.make_parser().parse_args(["--output", "x.json", "--keep", "3", "--walks", "6", "--path-seed", "77"])
    grains = make_grains(random_texture(128, 0), load_material("magnesium"))
    found = reduced.deviations(grains, reduce.walks(o).training, instants=40)
    for path in SHIPPED:
        stated = read_reduced(path)
        error = np.sqrt(np.mean(found.errors(stated.index, stated.weights) ** 2))
        assert error < 1.5 * stated.errors["walks"]["held_out"]


@needs_compiler
def test_the_command_writes_what_the_law_reads(tmp_path, capsys):
    pattern = str(tmp_path / "m-{grains}.json")
    words = ["--output", pattern, "--grains", "8", "--keep", "2", "4", "--walks", "2", "--strain", "0.1"]
    assert reduce.main(words) == 0
    few, more = (read_reduced(tmp_path / f"m-{k}.json") for k in (2, 4))
    for kind in ("walks", "impact"):
        assert 0 < more.errors[kind]["training"] < few.errors[kind]["training"]
    assert few.made_by["paths"]["impact"]["drawn"] is True
    assert "2 grains for 8 of magnesium; held-out error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--keep", "2", "--error", "0.1"], "Give either --keep, a number of grains, or --error"),
        ([], "Give either --keep, a number of grains, or --error"),
        (["--keep", "9", "--grains", "8"], "keep must lie between 1 and the 8 grains of the texture, got [9]"),
        (["--keep", "2", "4"], "output must contain {grains} where several numbers are to be kept"),
        (["--keep", "2", "--walks", "0"], "walks must be at least 1, got 0"),
        (["--keep", "2", "--share", "2"], "share must lie between 0 and 1, got 2"),
        (["--keep", "2", "--history", "no.npz"], "no.npz does not exist"),
        (["--keep", "2", "--duration", "1e-5", "1e-6"], "duration must be two positive numbers that increase"),
        (["--error", "7"], "error must lie between 0.0001 and 1, got 7"),
    ],
)
def test_bad_commands(tmp_path, capsys, words, sentence):
    assert reduce.main(["--output", str(tmp_path / "x.json"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
