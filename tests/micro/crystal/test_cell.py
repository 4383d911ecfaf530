"""Polycrystals in periodic cells: one orientation is uniform, the Taylor average lies above, the data source."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from micro.crystal import cell_source
from micro.crystal.cell import CrystalPoints, grain_orientations, polycrystal_cells, random_cell
from micro.crystal.cell_source import CellConfig, CellSource
from micro.crystal.compiled import available
from micro.crystal.materials import load_material
from micro.crystal.paths import random_walk
from micro.data.dataset import read_arrays, read_dataset
from micro.generate import run
from micro.tensors import determinant, from_components

BACKENDS = ["torch", *(["compiled"] if available() else [])]


def ramp(steps: int, last: tuple[float, ...], duration: float) -> tuple[torch.Tensor, torch.Tensor]:
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    start = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    return (start + t[:, None] * torch.tensor(last, dtype=torch.float64))[None], duration * t[None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("shape", "material", "duration"), [((5, 4), "two-slip-2d", 1.0), ((3, 3, 2), "magnesium", 1e-6)]
)
def test_a_cell_of_one_orientation_is_uniform(backend: str, shape: tuple, material: str, duration: float) -> None:
    _, turns = random_cell(3, shape, 1, 0)
    U, time = ramp(3, (0.03, -0.02, 0.0, 0.01, 0.0, 0.0), duration)
    grain = np.zeros((1, *shape), dtype=int)
    cells = polycrystal_cells(grain, turns[None, 2:], load_material(material), backend=backend)
    result = cells.solve(U, time, store=[3])
    law = CrystalPoints(load_material(material), backend=backend)
    state = law.oriented(turns[2:])
    for k in range(1, 4):
        P, state = law.update(from_components(U[:, k]), state, time[:, k] - time[:, k - 1])
    assert (result.P.flatten(1, -3) - P).abs().max() < 1e-7 * P.abs().max()
    assert result.iterations[0].tolist() == [0, 1, 1, 1]
    assert float(law.slip(state).max()) > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_step_of_a_squeezed_crystal_is_solved_as_it_is(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crystals that take finer steps than their neighbours have a stress that jumps with F, and no equilibrium."""
    law = CrystalPoints(load_material("two-slip-2d"), backend=backend)
    finer = "_laws" if backend == "compiled" else "_others"
    first = 1 if backend == "compiled" else 0
    monkeypatch.setattr(law._grains, finer, getattr(law._grains, finer)[:first])  # without them
    state = law.oriented(grain_orientations(64, 2, np.random.default_rng(0)))
    dt, F = torch.full((64,), 5e-3, dtype=torch.float64), torch.eye(3, dtype=torch.float64).repeat(64, 1, 1)
    for k in range(1, 11):
        F[:, 0, 0] = F[:, 1, 1] = 1 - 0.035 * k
        F[:, 0, 1] = 0.05 * k
        P, state = law.update(F, state, dt)
        assert P.isfinite().all()
    F[:, 0, 1] += 0.2
    F[:, 1, 0] += 0.1
    assert law.update(F, state, dt)[0].isfinite().all()


def test_the_taylor_average_does_more_work_than_the_cell() -> None:
    """Equal strain is one of the compatible fields; the work of a monotonic path is least for the true one."""
    grain, turns = random_cell(8, (16, 16), 4, 0)
    U, time = ramp(8, (0.04, -0.04, 0.0, 0.02, 0.0, 0.0), 1.0)
    material = load_material("two-slip-2d")
    result = polycrystal_cells(grain[None], turns[None], material).solve(U, time)
    law, weights = CrystalPoints(material), torch.from_numpy(np.bincount(grain.ravel(), minlength=8) / grain.size)
    state, work = law.oriented(turns), {"taylor": 0.0, "cell": 0.0}
    for k in range(1, 9):
        mean, dU = from_components(U[0, k]), from_components(U[0, k] - U[0, k - 1])
        P, state = law.update(mean.expand(8, 3, 3), state, (time[0, k] - time[0, k - 1]).expand(8))
        work["taylor"] += float(((weights[:, None, None] * P).sum(0) * dU).sum())
        P = determinant(mean) * from_components(result.stress[0, k]) @ torch.linalg.inv(mean)
        work["cell"] += float((P * dU).sum())
    assert 0 < work["cell"] < 0.9 * work["taylor"]


def test_two_dimensional_grains_keep_the_third_axis() -> None:
    _, turns = random_cell(50, (8, 8), 0, 3)
    assert torch.allclose(turns[:, 2], torch.tensor([0.0, 0, 1]).to(turns).expand(50, 3))
    angle = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
    assert angle.min() < -2 and angle.max() > 2


def test_the_source_makes_the_same_samples_in_any_block(tmp_path: Path) -> None:
    options = {"samples": 3, "shape": (8, 8), "grains": 4, "steps": 5, "strain": 0.02}
    run("cell", output=tmp_path / "a", block=3, **options)
    run("cell", output=tmp_path / "b", block=1, **options)
    (one, _, _), (other, _, _) = (read_arrays(tmp_path / name) for name in "ab")
    a, b = one["stress"], other["stress"]
    assert a.shape == (3, 6, 6) and np.isfinite(a).all() and np.abs(a[:, -1]).max() > 1e6
    assert np.abs(a - b).max() < 1e-6 * np.abs(a).max()
    assert np.array_equal(one["U"], other["U"])
    assert (one["U"][..., 2] == 1).all() and (one["U"][..., 4:] == 0).all()


def test_a_set_of_cells_can_be_continued(tmp_path: Path) -> None:
    words = {"shape": (3, 3), "grains": 2, "steps": 4, "strain": 0.01, "seed": 3, "block": 2}
    for samples in (2, 4):
        run("cell", output=tmp_path / "set", samples=samples, **words)
    run("cell", output=tmp_path / "whole", samples=4, **words)
    assert read_dataset(tmp_path / "set").hash == read_dataset(tmp_path / "whole").hash


def test_local_fields_on_request_average_to_the_stress() -> None:
    config = CellConfig(shape=(8, 8), grains=4, strain=(0.02, 0.02), steps=4, substeps=2, tolerance=1e-5)
    source = CellSource(0, config)
    ids = np.array([1])
    result, U = source.respond(ids, store=(-1,)), torch.from_numpy(source.paths(ids).U)
    mean = from_components(U[:, -1])
    sigma = result.P[:, 0].mean((1, 2)) @ mean / determinant(mean)[:, None, None]
    assert torch.allclose(from_components(result.stress[:, -1]), sigma, rtol=1e-3, atol=1e-4 * float(sigma.abs().max()))


def test_paths_of_a_protocol_stay_in_the_plane_and_walks_are_those_of_space() -> None:
    ids = np.arange(3)
    fixed = CellSource(4, CellConfig(shape=(4, 4), intervals="fixed", steps=20)).paths(ids)
    walk = random_walk(ids, 4, strain=0.1, steps=20, intervals="fixed", duration=(1.0, 1.0))
    assert np.array_equal(fixed.U[..., (0, 1, 3)], walk.U[..., (0, 1, 3)]) and (fixed.U[..., 2] == 1).all()
    stretch = CellSource(4, CellConfig(shape=(4, 4), protocols=("uniaxial",), steps=20)).paths(ids).U
    assert np.allclose(stretch[..., 0] * stretch[..., 1], 1, atol=1e-12) and np.allclose(stretch[:, -1, 0], 1.1)


def test_samples_with_one_cell_differ_by_their_paths_alone() -> None:
    options = {"shape": (6, 6), "grains": 3, "steps": 3, "strain": (0.02, 0.02), "protocols": ("uniaxial",)}
    ids = np.array([0, 1])
    common = CellSource(1, CellConfig(cell_seed=5, **options)).solve(ids).arrays["stress"]
    other = CellSource(2, CellConfig(cell_seed=5, **options)).solve(ids[:1]).arrays["stress"]
    own = CellSource(1, CellConfig(**options)).solve(ids).arrays["stress"]
    assert np.allclose(common[0], common[1], rtol=1e-9, atol=1.0) and np.allclose(other[0], common[0], atol=1.0)
    assert np.abs(own[0] - own[1]).max() > 1e6  # the same path in two cells


@pytest.mark.parametrize(("cell_seed", "cells"), [(5, 1), (-1, 2)])
def test_a_block_draws_its_paths_and_each_cell_once(
    cell_seed: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"draw_paths": 0, "random_cell": 0}

    def counted(name: str) -> Callable[..., object]:
        original = getattr(cell_source, name)

        def call(*arguments: object) -> object:
            calls[name] += 1
            return original(*arguments)

        return call

    for name in calls:
        monkeypatch.setattr(cell_source, name, counted(name))
    config = CellConfig(shape=(3, 3), grains=2, steps=1, strain=(0.01, 0.01), cell_seed=cell_seed)
    CellSource(0, config).solve(np.array([0, 1]))
    assert calls == {"draw_paths": 1, "random_cell": cells}
