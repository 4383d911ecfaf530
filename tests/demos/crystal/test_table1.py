"""The learning study of paper 1, small: on paths of a closed-form law, so that no test waits for the polycrystal."""

import json
from pathlib import Path

import learning
import numpy as np
import pytest
import table1
import torch

from micro.crystal.paths import random_walk
from micro.tensors import from_components
from surrogates.path import pca_net
from surrogates.path.data import Samples

BULK = 48e9
WORDS = ["--strains", "10", "--updates", "30", "--batch", "16", "--width", "16", "--modes", "10", "--rate", "3e-2"]


def closed_form(seed: int, count: int) -> Samples:
    """An elastic law with a small shear modulus, on walks of 10 %."""
    walks = random_walk(range(count), seed, strain=0.1, steps=40)
    strain = walks.U - np.array([1.0, 1, 1, 0, 0, 0])
    mean = strain[..., :3].mean(-1, keepdims=True) * np.array([1.0, 1, 1, 0, 0, 0])
    J = np.linalg.det(from_components(walks.U))[..., None]
    stress = 2e9 * (strain - mean) + BULK * (J - 1) * np.array([1.0, 1, 1, 0, 0, 0])
    return Samples(walks.U, stress, walks.duration, walks.time, np.arange(count), str(seed) * 64)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder whose sets are those of the closed-form law; those of the cavity and of the cell are missing."""
    for seed, protocol in enumerate(learning.PROTOCOLS):
        if protocol in ("R", "F", "U", "L-U"):
            (tmp_path / "sets" / learning.set_name(protocol, 10)).mkdir(parents=True)
            (tmp_path / "sets" / learning.set_name(protocol, 10) / "dataset.json").write_text(str(seed))

    def load(paths: list[Path], held: int, *, allow_partial: bool) -> tuple[Samples, Samples]:
        samples = closed_form(int((paths[0] / "dataset.json").read_text()) + 1, 40)
        return samples[:-held], samples[-held:]

    monkeypatch.setattr(learning, "load_samples", load)
    return tmp_path / "sets"


def test_table_pictures_and_summary_are_written_and_kept(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    words = ["--data", str(data), *WORDS, "--sizes", "8", "--extra", "paper", "--output", str(tmp_path / "out")]
    assert table1.main(words) == 0
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["missing"][:3] == ["taylor-10-cavity", "taylor-10-exponent-5", "cell-10-coarse"]
    assert [(net["protocol"], net["paths"], net["route"]) for net in summary["networks"].values()] == [
        ("R", 32, "paper"), ("R", 32, "turned"), ("R", 32, "isochoric"), ("F", 32, "paper"), ("R", 8, "paper"),
    ]  # fmt: skip
    for net in summary["networks"].values():
        assert set(net["tests"]) == {"R", "F", "U", "L-U"}
        assert net["updates"] == 30 and net["training"]["full"] < 0.9
    isochoric, paper = (summary["networks"][f"10-R-3200-10-16-{route}-30"] for route in ("isochoric", "paper"))
    assert isochoric["tests"]["R"]["full"] < 0.2 * paper["tests"]["R"]["full"]  # its pressure is exact
    table = (out / "table.md").read_text()
    assert "| 11 | 10 % | R, R | 3200 | 32 | 0.18, 0.46 |" in table and "| 50 %" not in table
    assert {path.suffix for path in out.iterdir() if path.is_file()} == {".md", ".json", ".png"}
    assert summary["properties"]["polycrystal"]["held"] < 1e-9

    def fail(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", fail)
    assert table1.main(words) == 0  # the networks are kept
    assert (out / "table.md").read_text() == table
    assert "full" in capsys.readouterr().out


def test_a_stopped_network_continues_and_another_configuration_has_its_own(data: Path, tmp_path: Path) -> None:
    out = ["--data", str(data), "--output", str(tmp_path / "out")]
    network = learning.Network(10, "R", 3200, 10, 16, "paper", 30)
    whole = learning.Study(table1.parse([*out, *WORDS])).result(network)
    assert whole is not None
    (file,) = (tmp_path / "out" / "networks").glob("*.json")
    file.unlink()  # as if it had been stopped after the last checkpoint
    again = learning.Study(table1.parse([*out, *WORDS])).result(network)
    assert again is not None and again[0]["tests"] == whole[0]["tests"]
    other = learning.Study(table1.parse([*out, *WORDS, "--batch", "8"])).result(network)
    assert other is not None and other[0]["training_loss"] != whole[0]["training_loss"]
    assert len(list(file.parent.glob("*.json"))) == 2


def test_networks_of_the_cell_are_tested_on_the_cell_alone(data: Path, tmp_path: Path) -> None:
    (data / "cell-10-coarse").mkdir()
    (data / "cell-10-coarse" / "dataset.json").write_text("7")
    o = table1.parse(["--data", str(data), "--output", str(tmp_path / "out"), *WORDS, "--modes", "40"])
    cell = table1.standard(o, 10, "2D-R", "paper")
    assert cell in table1.networks(o) and cell.modes == 32 and cell.steps == 30
    study = learning.Study(o)
    assert study.protocols(cell) == ["2D-R"]
    assert study.protocols(table1.standard(o, 10, "R", "paper")) == ["R", "F", "U", "L-U"]
    found = study.result(cell)
    assert found is not None and set(found[0]["tests"]) == {"2D-R"}


def test_other_networks_differ_in_one_thing_each(tmp_path: Path) -> None:
    words = ["--updates", "90", "--extra-updates", "30", "--lengths", "60", "--sizes", "9", "--extra", "isochoric"]
    found = table1.networks(table1.parse([*words, "--output", str(tmp_path)]))
    base = table1.standard(table1.parse(words), 50, "R", "isochoric")
    assert base in found  # that of the table, of 90 updates
    others = {(n.paths, n.steps) for n in found if n.strain == 50 and n.route == "isochoric"}
    assert others == {(4000, 90), (9, 30), (4000, 30), (4000, 60)}


def test_every_row_has_the_network_that_it_names(tmp_path: Path) -> None:
    """Also those of the large set, by the numbers of paths that are asked for; row 20 has fewer modes."""
    o = table1.parse(["--large", "16000", "30000", "500", "500", "--paths", "900", "--output", str(tmp_path)])
    found = table1.networks(o)
    large = {(n.paths, n.modes, n.route) for n in found if n.protocol == "R+"}
    assert large == {
        (paths, modes, route)
        for paths, modes in ((500, 100), (16000, 100), (30000, 100), (30000, 60))
        for route in learning.ROUTES
    }
    assert all(table1.network_of(o, row, "paper") in found for row in table1.rows(o) if row.case != 17)
    assert {n.paths for n in found if n.protocol != "R+"} == {900}
    assert "R+" not in {n.protocol for n in table1.networks(table1.parse(["--output", str(tmp_path)]))}
    own = {"input_strain": 0.1, "output": 0.1, "deviatoric": 0.1}
    results = {"networks": {
        learning.named(n): {
            "tests": {test: own | {"full": n.modes / 1000 + n.paths / 1e6} for test in ("R+", "C")}, "paths": n.paths,
            "training": {"full": 0.1},
        } for n in found if n.protocol == "R+"
    }}  # fmt: skip
    lines = [line.split(" | ") for line in table1.table(results, o).splitlines() if " | R+, " in line]
    assert [(line[0], line[2], line[3], line[4], line[10]) for line in lines] == [
        ("| 18", "R+, R+", "16000", "16000", "12"), ("| 19", "R+, R+", "30000", "30000", "13"),
        ("| 20", "R+, R+", "30000", "30000", "9"), ("| 24", "R+, C", "30000", "30000", "13"),
        ("| -", "R+, R+", "-", "500", "10"),
    ]  # fmt: skip


@pytest.mark.parametrize(("modes", "width"), [(10, 16), (7, 33)])
def test_weights_are_counted(modes: int, width: int) -> None:
    network = learning.Network(10, "R", 10, modes, width, "paper", 30)
    config = pca_net.PCANetConfig(modes=modes, width=width, stress="full")
    model = pca_net.build(config, closed_form(1, 5))
    weights, operations = learning.operations(network, config.depth)
    assert weights == sum(p.numel() for p in model.parameters())
    assert operations == 2 * (weights - 12 * modes * width - config.depth * width + 18 * width)


def test_modes_errors_are_those_of_the_singular_values(data: Path, tmp_path: Path) -> None:
    study = learning.Study(table1.parse(["--data", str(data), "--output", str(tmp_path), *WORDS]))
    samples = closed_form(1, 40)
    config = pca_net.PCANetConfig(modes=10, stress="full")
    found = study.mode_errors(pca_net.build(config, samples), samples, config)
    exact = [np.linalg.svd(samples.U[..., c] * (1 if c < 3 else 2**0.5))[1] for c in range(6)]
    lost = sum((s[10:] ** 2).sum() for s in exact) / sum((s**2).sum() for s in exact)
    assert 0.5 * lost**0.5 < found["input"] < 2 * lost**0.5  # a mean of ratios beside the ratio of the means
    assert found["input"] < found["input_strain"] and found["best"] == pytest.approx(found["output"], rel=1e-3)


def test_bad_options_are_refused(tmp_path: Path, capsys) -> None:
    for words, text in (
        (["--data", str(tmp_path)], "must be a folder with sets of make_sets.py"),
        (["--rate", "2"], "--rate must lie between 0 and 1, got 2.0"),
        (["--paths", "-1"], "--paths must not be negative, got -1"),
    ):
        assert table1.main([*words, "--output", str(tmp_path / "out")]) == 2
        assert text in capsys.readouterr().err


@pytest.mark.slow
def test_the_trial_runs(tmp_path: Path) -> None:
    assert table1.main(["--output", str(tmp_path)]) == 0
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {case} |" in table for case in (11, 12, 13, 14, 15, 16))
    assert "| - | 50 % | R, C |" in table and "| 24 |" not in table, "row 24 needs the large set"
