"""Merging: the samples of all sets, traceable, under one hash; sets that differ are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from micro.data import provenance
from micro.data.dataset import read_arrays, read_dataset
from micro.data.shards import content_hash
from micro.merge import main, merge


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make_set: Callable[..., int]) -> dict[str, Path]:
    """Sets of 20, 10 and 5 samples with seeds 3, 4, 5; samples 7 and 8 of the first two have failed."""
    folder = tmp_path_factory.mktemp("sets")
    for name, options in (("a", {}), ("b", {"seed": 4, "samples": 10, "block": 3}), ("c", {"seed": 5, "samples": 5})):
        assert make_set(folder / name, **options) == 0
    return {name: folder / name for name in "abc"}


def test_merged_set_has_the_samples_of_all(sets: dict[str, Path], tmp_path: Path) -> None:
    made = merge([sets["a"], sets["b"]], tmp_path / "ab")
    arrays, manifest, digest = read_arrays(tmp_path / "ab")
    assert made == manifest and manifest["complete"] and manifest["samples"] == 30
    np.testing.assert_array_equal(arrays["sample"], np.arange(30))
    parts = [read_arrays(sets[name])[0] for name in "ab"]
    for name in ("U", "stress", "time", "duration", "status", "reason"):
        np.testing.assert_array_equal(arrays[name], np.concatenate([part[name] for part in parts]))
    np.testing.assert_array_equal(arrays["source_set"], [0] * 20 + [1] * 10)
    np.testing.assert_array_equal(arrays["source_sample"], [*range(20), *range(10)])
    assert manifest["failed"] == 4
    hashes = [json.loads((sets[name] / "dataset.json").read_text())["hash"] for name in "ab"]
    assert manifest["arrays"]["source_set"]["names"] == hashes
    assert [entry["seed"] for entry in manifest["parameters"]["merged"]] == [3, 4]
    assert digest == manifest["hash"] == content_hash([arrays])
    assert len(read_dataset(tmp_path / "ab").ids) == 26


def test_merging_in_two_steps_gives_the_same_content(sets: dict[str, Path], tmp_path: Path) -> None:
    merge([sets["a"], sets["b"]], tmp_path / "ab")
    two, one = merge([tmp_path / "ab", sets["c"]], tmp_path / "two"), merge(list(sets.values()), tmp_path / "one")
    assert two["hash"] == one["hash"]
    assert two["parameters"] == one["parameters"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "seed must differ, .* both have 3: they hold the same samples"),
        ({"seed": 9, "stiffness": 2.5}, r"parameters.stiffness must be the same in all sets, \S* has 2.5, \S* 2.0"),
        ({"seed": 9, "steps": 5}, "arrays.U must be the same|parameters.steps must be the same in all sets"),
    ],
)
def test_sets_that_differ_are_refused(
    sets: dict[str, Path], tmp_path: Path, make_set: Callable[..., int], options: dict, sentence: str
) -> None:
    assert make_set(tmp_path / "other", **options) == 0
    with pytest.raises(ValueError, match=sentence):
        merge([sets["a"], tmp_path / "other"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_sets_of_other_code_are_refused(
    sets: dict[str, Path], tmp_path: Path, make_set: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "source_hash", lambda path: "0" * 64)
        assert make_set(tmp_path / "other", seed=9) == 0
    with pytest.raises(ValueError, match="code must be the same in all sets"):
        merge([sets["a"], tmp_path / "other"], tmp_path / "merged")


def test_what_cannot_be_merged_is_refused(sets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="merge needs at least two sets, got 1"):
        merge([sets["a"]], tmp_path / "merged")
    with pytest.raises(ValueError, match="output must be a new or empty directory"):
        merge([sets["a"], sets["b"]], sets["c"])
    damaged = shutil.copytree(sets["b"], tmp_path / "damaged")
    with open(damaged / "shard-0001.h5", "r+b") as file:
        file.truncate(3000)
    with pytest.raises(ValueError, match="shard-0001.h5 is damaged"):
        merge([sets["a"], damaged], tmp_path / "merged")
    content = json.loads((sets["b"] / "dataset.json").read_text())
    unfinished = shutil.copytree(sets["b"], tmp_path / "unfinished")
    (unfinished / "dataset.json").write_text(json.dumps(content | {"complete": False}))
    with pytest.raises(ValueError, match="unfinished is not finished"):
        merge([sets["a"], unfinished], tmp_path / "again")


def test_command(sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sets["a"]), str(sets["b"]), "--output", str(tmp_path / "ab")]) == 0
    assert capsys.readouterr().out.startswith("30 samples, 4 failed, hash ")
    assert main([str(sets["a"]), str(sets["a"]), "--output", str(tmp_path / "aa")]) == 2
    assert "they hold the same samples" in capsys.readouterr().err
