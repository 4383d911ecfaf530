"""Active learning, one small round: the most novel histories are solved, and the law is trained on with them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import micro.generate
import surrogates.train
from micro.data.dataset import read_arrays
from surrogates import active
from surrogates.artifact import load_law
from surrogates.artifact.shipped import locate

TINY = {"elements": 2, "memory": 1, "width": 6, "mixed": 3, "products": 2, "basis": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a law, and a run of 12 points: strains of 0.1 % to 120 %."""
    made = tmp_path_factory.mktemp("active")
    micro.generate.run(
        "taylor", output=made / "data", samples=12, grains=4, texture="even", steps=60, strain=(0.05, 0.1)
    )
    surrogates.train.run("recurrent", data=made / "data", output=made / "law.pt", held_out=2, epochs=3, batch=8, **TINY)
    time = np.linspace(0, 1e-5, 31)
    size = np.geomspace(1e-3, 1.2, 12)[:, None] * time / time[-1]
    F = np.zeros((12, 31, 3, 3))
    F[..., 0, 0] = F[..., 1, 1] = np.exp(size / 2)
    F[..., 2, 2] = np.exp(-size)
    np.savez(made / "paths.npz", F=F, time=time, cell=np.arange(12), X=np.zeros((12, 3)))
    return made


def test_novelty_grows_beyond_the_data(folder: Path) -> None:
    with np.load(folder / "paths.npz") as run:
        found = active.largest_along(load_law(folder / "law.pt"), run["F"], run["time"], "novelty")[:, 0]
    assert found.shape == (12,)
    assert found[-1] == found.max() > 1.0 > found[0]


def test_a_round_adds_the_most_novel_histories(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "law.pt"), "--history", str(folder / "paths.npz"), "--data", str(folder / "data")]
    words += ["--store", str(folder / "round"), "--output", str(folder / "new.pt"), "--paths", "4", "--held-out", "3"]
    assert active.main([*words, "--epochs", "2", "--steps", "25"]) == 0
    found = json.loads(capsys.readouterr().out)
    with np.load(folder / "paths.npz") as run, np.load(folder / "round" / "round-1" / "new.npz") as chosen:
        novelty = active.largest_along(load_law(folder / "law.pt"), run["F"], run["time"], "novelty")[:, 0]
        rows, held = active.chosen(novelty, 12, 4, 3, 0)
        np.testing.assert_array_equal(chosen["F"], run["F"][rows])
    with np.load(folder / "round" / "round-1" / "held-out.npz") as others:
        assert others["F"].shape == (3, 31, 3, 3) and not set(rows) & set(held)
    new, manifest, _ = read_arrays(folder / "round" / "round-1" / "new")
    assert new["U"].shape[:2] == (4, 26)
    assert manifest["parameters"]["grains"] == 4 and manifest["parameters"]["texture"] == "even"
    law = load_law(folder / "new.pt")
    assert law.manifest.training.details["config"]["initial"] == str(folder / "law.pt")
    (entry,) = found["rounds"]
    assert found["errors"] == [entry["error_before"], entry["error_after"]] and min(found["errors"]) > 0
    old, weights = load_law(folder / "law.pt").module.state_dict(), law.module.state_dict()
    assert any(not torch.equal(old[name], weights[name]) for name in old)


def test_the_most_novel_that_are_not_held_out_are_chosen() -> None:
    novelty = np.random.default_rng(3).random(30)
    rows, held = active.chosen(novelty, 30, 5, 6, 1)
    assert len(set(rows) | set(held)) == 11
    left = [row for row in range(30) if row not in set(rows) | set(held)]
    assert novelty[rows].min() > novelty[left].max()
    other, same = active.chosen(None, 30, 5, 6, 1)
    assert list(same) == list(held) and set(other) != set(rows)


def test_every_round_makes_a_run_with_the_law_of_the_round_before(folder: Path) -> None:
    """The run is a copy of the histories, strained further by the second law, and notes its law."""
    script = folder / "simulate.py"
    script.write_text(
        "import sys, shutil, pathlib\n"
        "law, source, place = sys.argv[1:]\n"
        "shutil.copy(source, pathlib.Path(place) / 'paths.npz')\n"
        "(pathlib.Path(place) / 'law.txt').write_text(law)\n"
    )
    command = f"{sys.executable} {script} {{law}} {folder / 'paths.npz'} {{folder}}"
    found = active.run(
        folder / "law.pt", simulation=command, rounds=2, data=[folder / "data"], store=folder / "rounds",
        output=folder / "last.pt", paths=3, held_out=2, copies=2, epochs=1, steps=25, choice="uncertain",
    )  # fmt: skip
    assert len(found["errors"]) == 3 and len(found["rounds"]) == 2
    assert (folder / "rounds/round-2/run/law.txt").read_text() == str(folder / "rounds/round-1/law.pt")
    assert found["rounds"][1]["error_after"] == pytest.approx(found["errors"][2], rel=0.5)
    law = load_law(folder / "last.pt")
    assert law.manifest.data.samples == 11 + 2 * 2 * 2  # two of three new paths, twice, in two rounds
    assert law.manifest.errors["held_out_paths"] == 1 + 2  # and the third of each round once
    with pytest.raises(RuntimeError, match="simulate failed with exit code 1"):
        active.simulate(f"{sys.executable} -c 'raise SystemExit(1)'", folder / "law.pt", folder / "y")
    with pytest.raises(RuntimeError, match="must write"):
        active.simulate(f"{sys.executable} -c 'pass'", folder / "law.pt", folder / "y")


def test_bad_input_is_refused(folder: Path) -> None:
    options = {
        "history": folder / "paths.npz",
        "data": [folder / "data"],
        "store": folder / "x",
        "output": folder / "x.pt",
    }
    with pytest.raises(ValueError, match="at most the 12 histories, got 10 and 5"):
        active.run(folder / "law.pt", **options, paths=10, held_out=5)
    with pytest.raises(ValueError, match="Either history or simulation must be given"):
        active.run(folder / "law.pt", **options, rounds=2)
    with pytest.raises(ValueError, match="choice must be one of novel, uncertain, random, got any"):
        active.run(folder / "law.pt", **options, choice="any")
    with pytest.raises(ValueError, match="law must be a recurrent law, and pca_net is of the kind pca"):
        active.run("magnesium-pca-net", **options, paths=2, held_out=2)
    with pytest.raises(ValueError, match=r"law must observe novelty, and lattice_square_1 observes \w+"):
        active.largest_along(load_law(locate("lattice-square-1")), np.zeros((1, 2, 3, 3)), np.zeros(2), "novelty")
