"""The lattice source: real samples through the data job, small."""

import logging

import numpy as np
import pytest
import torch

from micro import generate
from micro.data import provenance
from micro.lattice.bars import IsotropicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.data import read_lattice_set
from micro.lattice.geometry import make_cell
from micro.lattice.source import LatticeSource, strain_walk

SMALL = ["--seed=5", "--cell=square-2", "--perturbation=0.2", "--cell-seed=1", "--steps=12", "--bar=isotropic"]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """Seven paths of 12 steps in shards of three."""
    path = tmp_path_factory.mktemp("lattice") / "set"
    assert generate.main(["lattice", f"--output={path}", "--samples=7", "--block=3", *SMALL]) == 0
    return read_lattice_set(path)


def test_set_is_whole(small_set):
    assert small_set.ids.tolist() == list(range(7))
    assert small_set.strain.shape == small_set.stress.shape == (7, 13, 3)
    assert small_set.psi.shape == small_set.dissipation.shape == (7, 13)
    assert small_set.displacement.shape == (7, 13, 9, 2)
    assert small_set.force.shape == (7, 13, 20)
    assert small_set.bar_state.shape == (7, 13, 20, 2)
    for name in ("strain", "stress", "psi", "dissipation", "displacement", "force", "bar_state"):
        np.testing.assert_array_equal(getattr(small_set, name)[:, 0], 0.0)
    alpha, p = small_set.bar_state[..., 0], small_set.bar_state[..., 1]
    assert alpha.any() and (p >= abs(alpha)).all()


def test_set_is_the_solution_of_its_manifest(small_set):
    """Cell and law are rebuilt from the manifest, and everything follows from the strain."""
    a, b, c = np.moveaxis(small_set.strain, -1, 0)
    E = np.stack([a, c, c, b], axis=-1).reshape(7, 13, 2, 2)
    history = LatticeCell(small_set.cell, small_set.bar).solve(torch.from_numpy(E))
    np.testing.assert_allclose(small_set.stress[..., 0], history.stress[..., 0, 0], atol=1e-12)
    np.testing.assert_allclose(small_set.stress[..., 1], history.stress[..., 1, 1], atol=1e-12)
    np.testing.assert_allclose(small_set.stress[..., 2], history.stress[..., 0, 1], atol=1e-12)
    np.testing.assert_allclose(small_set.psi, history.psi, atol=1e-12)
    np.testing.assert_allclose(small_set.dissipation, history.dissipation, atol=1e-12)
    np.testing.assert_allclose(small_set.displacement, history.displacement, atol=1e-12)
    np.testing.assert_allclose(small_set.force, history.force, atol=1e-12)
    np.testing.assert_allclose(small_set.bar_state, history.bar, atol=1e-12)


def test_first_and_second_law(small_set):
    work = np.array([1, 1, 2]) * np.diff(small_set.strain, axis=1)
    gain = np.diff(small_set.psi, axis=1) + small_set.dissipation[:, 1:]
    # D = sum of (stress - H alpha) d alpha over the bars, by their forces; here isotropic: stress d alpha - H p dp
    cell, bar, change = small_set.cell, small_set.bar, np.diff(small_set.bar_state, axis=1)
    stress = small_set.force[:, 1:] / cell.area
    lost = stress * change[..., 0] - bar.hardening * small_set.bar_state[:, 1:, :, 1] * change[..., 1]
    done = (lost * cell.weight * cell.area * cell.length).sum(-1) / cell.volume
    np.testing.assert_allclose(small_set.dissipation[:, 1:], done, rtol=1e-9, atol=1e-12)
    assert done.min() > -1e-12 and done.max() > 1e-3
    assert (gain <= (small_set.stress[:, 1:] * work).sum(-1) + 1e-12).all()
    assert (gain >= (small_set.stress[:, :-1] * work).sum(-1) - 1e-12).all()


def test_zero_increments_change_nothing():
    """With a probability of one half about half of the increments are zero, in all components at once."""
    walks = [strain_walk(i, 3, components=3, steps=100, increment=(0.1, 0.1), zero=0.5) for i in range(20)]
    still = np.diff(walks, axis=1) == 0
    np.testing.assert_array_equal(still.any(axis=-1), still.all(axis=-1))
    assert still.mean() == pytest.approx(0.5, abs=0.05)


def test_increments_are_uniform_in_their_range():
    walks = np.array([strain_walk(i, 3, components=6, steps=200, increment=(0.1, 0.1), zero=0.0) for i in range(50)])
    dE = np.diff(walks, axis=1)
    assert abs(dE).max() <= 0.1 * (1 + 1e-12)
    assert dE.std() == pytest.approx(0.1 / 3**0.5, rel=0.01)
    assert abs(np.corrcoef(dE.reshape(-1, 6).T) - np.eye(6)).max() < 0.05
    sizes = [
        abs(np.diff(strain_walk(i, 3, components=6, steps=200, increment=(0.01, 0.1), zero=0.0), axis=0)).max()
        for i in range(200)
    ]
    assert 0.0099 < min(sizes) < 0.012 and 0.085 < max(sizes) <= 0.1
    assert np.median(sizes) == pytest.approx(0.01**0.5 * 0.1**0.5, rel=0.2)


def test_sample_does_not_depend_on_its_block(small_set, tmp_path):
    assert generate.main(["lattice", f"--output={tmp_path}/set", "--samples=7", "--block=7", *SMALL]) == 0
    other = read_lattice_set(tmp_path / "set")
    np.testing.assert_array_equal(other.strain, small_set.strain)
    np.testing.assert_allclose(other.stress, small_set.stress, rtol=0, atol=1e-11)
    np.testing.assert_allclose(other.bar_state, small_set.bar_state, rtol=0, atol=1e-11)


def test_failed_path_is_told(monkeypatch):
    arguments = generate.make_parser([LatticeSource]).parse_args(["lattice", "--output=x", "--samples=2", *SMALL])
    source = LatticeSource.from_arguments(arguments)
    monkeypatch.setattr(source.lattice, "iterations", 0)
    block = source.solve(np.arange(2))
    assert block.reason == ["Newton of the lattice cell did not converge in 0 iterations at point 1"] * 2
    assert np.isnan(block.arrays["stress"][:, 1:]).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cell", "hexagon"], "name must be square-k or cube-k, for instance square-6, got 'hexagon'"),
        (
            ["--cell", "cube-1", "--perturbation", "0.2"],
            "perturbation of a cell of one independent node only shifts it",
        ),
        (["--perturbation", "nan"], "perturbation must be finite, got nan"),
        (["--cell-seed", "-1", "--perturbation", "0.2"], "seed must not be negative, got -1"),
        (["--bar", "odd"], "Argument --bar: invalid choice: 'odd'"),
        (["--strength", "0"], "strength must lie between 1e-30 and 1e+30, got 0"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--increment", "0.2", "0.1"], "increment must be one positive number or two that increase, got 0.2 0.1"),
        (["--zero", "1.5"], "zero must lie between 0 and 1, got 1.5"),
    ],
)
def test_bad_options(tmp_path, caplog, options, sentence):
    with caplog.at_level(logging.ERROR):
        assert generate.main(["lattice", f"--output={tmp_path}/set", "--samples=5", *options]) == 2
    assert sentence in caplog.text
    assert caplog.text.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_code_reaches_the_bars():
    modules = provenance.content_modules(provenance.PACKAGE / "lattice" / "source.py")
    assert {f"micro.lattice.{name}" for name in ("source", "bars", "cell_problem", "geometry")} <= modules.keys()
    assert not [name for name in modules if name.startswith(("micro.data", "micro.crystal", "micro.voxel"))]
    with pytest.raises(ValueError, match=r"lattice_source.py does not exist\.$"):
        provenance.content_modules(provenance.PACKAGE / "lattice_source.py")


def test_cell_and_law_of_the_set(small_set):
    cell = make_cell("square-2", perturbation=0.2, seed=1)
    for name in ("nodes", "bars", "weight", "box", "master", "reference"):
        np.testing.assert_array_equal(getattr(small_set.cell, name), getattr(cell, name))
    assert small_set.bar == IsotropicBar()


def test_a_set_of_another_source_is_refused(tmp_path, make_set):
    assert make_set(tmp_path / "set") == 0
    with pytest.raises(ValueError, match="must be a set of the source lattice, got fake."):
        read_lattice_set(tmp_path / "set")
