"""Active learning, one small round: the most novel histories are solved, and the law is trained on with them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import micro.generate
import surrogates.train
from micro.data.dataset import read_arrays
from surrogates import active
from surrogates.artifact import load_law

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
        found = active.novelty_along(load_law(folder / "law.pt"), run["F"], run["time"])
    assert found.shape == (12,)
    assert found[-1] == found.max() > 1.0 > found[0]


def test_a_round_adds_the_most_novel_histories(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "law.pt"), "--history", str(folder / "paths.npz"), "--data", str(folder / "data")]
    words += ["--store", str(folder / "round"), "--output", str(folder / "new.pt"), "--paths", "4", "--held-out", "3"]
    assert active.main([*words, "--epochs", "2", "--steps", "25"]) == 0
    found = json.loads(capsys.readouterr().out)
    with np.load(folder / "paths.npz") as run, np.load(folder / "round" / "new.npz") as chosen:
        novelty = active.novelty_along(load_law(folder / "law.pt"), run["F"], run["time"])
        np.testing.assert_array_equal(chosen["F"], run["F"][np.argsort(-novelty)[:4]])
    new, manifest, _ = read_arrays(folder / "round" / "new")
    assert new["U"].shape[:2] == (4, 26)
    assert manifest["parameters"]["grains"] == 4 and manifest["parameters"]["texture"] == "even"
    law = load_law(folder / "new.pt")
    assert law.manifest.training.details["config"]["initial"] == str(folder / "law.pt")
    assert found["error_before"] > 0 and found["error_after"] > 0
    old, weights = load_law(folder / "law.pt").module.state_dict(), law.module.state_dict()
    assert any(not torch.equal(old[name], weights[name]) for name in old)


def test_bad_input_is_refused(folder: Path) -> None:
    options = {
        "history": folder / "paths.npz",
        "data": [folder / "data"],
        "store": folder / "x",
        "output": folder / "x.pt",
    }
    with pytest.raises(ValueError, match="at most the 12 histories, got 10 and 5"):
        active.run(folder / "law.pt", **options, paths=10, held_out=5)
    with pytest.raises(ValueError, match="law must observe its novelty"):
        active.run("magnesium-pca-net", **options, paths=2, held_out=2)
