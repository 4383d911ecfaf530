"""The sets of paper 1: each configuration fits its source, and no two share a random stream."""

from pathlib import Path
from types import ModuleType

import pytest
from loading import DEMOS

from micro.crystal.source import TaylorSource
from micro.data.config import read_config
from micro.data.ranks import Ranks
from micro.generate import prepare, standard_sources

DEMO = "crystal/make_sets.py"
SETS = sorted((DEMOS / "crystal" / "sets").glob("*.toml"))
KNOWN = {source.name for source in standard_sources()}


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_every_set_fits_its_source(path: Path, tmp_path: Path) -> None:
    if read_config(path)["source"] not in KNOWN:
        pytest.skip("this installation lacks the source")
    words = [str(path), f"--output={tmp_path}/set", "--block=1"]
    arguments, source = prepare(words, standard_sources(), Ranks())
    assert arguments.samples == read_config(path)["samples"]
    assert not isinstance(source, TaylorSource) or source.paths.steps >= 200


def test_seeds_differ() -> None:
    seeds = [read_config(path)["seed"] for path in SETS]
    assert len(set(seeds)) == len(seeds) > 10


def test_the_list_names_every_set(demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--output", str(tmp_path / "sets"), "--samples", "3", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(":")[0] for line in lines} == {path.stem for path in SETS}
    assert all(" 3 samples of " in line for line in lines)
    assert not (tmp_path / "sets").exists()
