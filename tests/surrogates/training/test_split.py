"""The split of data sets: by sample id, the same for every kind of data, whatever the order of the samples."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from surrogates.cells.data import Cells, load_cells
from surrogates.path import data as path_data
from surrogates.path.data import Samples
from surrogates.tann.data import LatticePaths
from surrogates.training.split import check_finite, joined_hash, same_size, split, split_each


@dataclass(frozen=True)
class Numbered:
    """Samples that are nothing but their ids."""

    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> "Numbered":
        return Numbered(self.ids[rows])


def test_the_last_ids_are_held_out_whatever_the_order() -> None:
    ids = np.array([7, 3, 40, 12, 5, 1, 30, 8, 2, 9, 11, 6])
    for order in (np.arange(12), np.random.default_rng(0).permutation(12)):
        train, held = split(Numbered(ids[order]), 3)
        assert held.ids.tolist() == [12, 30, 40]
        assert train.ids.tolist() == [1, 2, 3, 5, 6, 7, 8, 9, 11]


def test_a_sample_that_failed_moves_no_other_from_training_to_the_last_ones() -> None:
    whole, some = Numbered(np.arange(100)), Numbered(np.delete(np.arange(100), [3, 50]))
    assert split(whole, 10)[1].ids.tolist() == split(some, 10)[1].ids.tolist() == list(range(90, 100))


@pytest.mark.parametrize(("count", "held"), [(2, 1), (9, 1), (19, 1), (20, 2), (4608, 460)])
def test_a_tenth_is_held_out_by_default(count: int, held: int) -> None:
    assert len(split(Numbered(np.arange(count)))[1]) == held


def test_each_of_several_sets_gives_its_share() -> None:
    train, held = split_each([Numbered(np.arange(20)), Numbered(np.arange(30))], None)
    assert [part.ids.tolist() for part in held] == [[18, 19], [27, 28, 29]]
    assert [len(part) for part in train] == [18, 27]


@pytest.mark.parametrize(("count", "held"), [(1, None), (0, None), (5, 0), (5, 5), (5, -1)])
def test_nothing_left_on_one_side_is_refused(count: int, held: int | None) -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples|held_out must lie between 1 and 4 for 5 samples"):
        split(Numbered(np.arange(count)), held)


def test_every_kind_of_data_is_split_by_the_same_rule(samples: Samples, make_walks, tmp_path) -> None:
    order = np.random.default_rng(1).permutation(60)
    _, held = split(samples[order], 5)
    assert held.ids.tolist() == [55, 56, 57, 58, 59]
    assert np.array_equal(held.U, samples.U[55:])
    paths: LatticePaths = make_walks("square-1", samples=12, steps=5, perturbation=0.0)
    _, last = split(paths[[3, 11, 0, 7, 10]], 2)
    assert last.ids.tolist() == [10, 11] and torch.equal(last.stress, paths.stress[10:])
    density = torch.rand(6, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "cells.npy", density.numpy())
    train, cells = load_cells([tmp_path / "cells.npy"], 2)
    assert torch.equal(cells.density, density[4:]) and torch.equal(train.density, density[:4])
    assert isinstance(cells, Cells)


def test_hashes_and_sizes_of_sets_that_are_joined() -> None:
    assert joined_hash(["a"]) == "a" and joined_hash(["a", "b"]) != joined_hash(["b", "a"])
    same_size([3, 3])
    with pytest.raises(ValueError, match=r"must have the same number of times, got \[3, 4\]."):
        same_size([3, 4])


def test_data_that_are_not_finite_are_refused_by_sample(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"stress": np.zeros((3, 2)), "duration": np.array([1.0, np.inf, np.nan])}
    with pytest.raises(ValueError, match="set: duration must be finite, but that of sample 8 holds nan or infinity."):
        check_finite(values, np.array([4, 8, 9]), "set")
    stress = samples.stress.copy()
    stress[17, 3, 2] = np.nan
    spoiled = replace(samples, stress=stress, meta={})  # type: ignore[arg-type]
    monkeypatch.setattr(path_data, "read_dataset", lambda path, allow_partial: spoiled)
    with pytest.raises(ValueError, match="set: stress must be finite, but that of sample 17 holds nan"):
        path_data.load_samples(["set"])
