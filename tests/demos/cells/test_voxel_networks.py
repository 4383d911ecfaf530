"""The race of networks and solver, small: table, times, figure, and the bound that is checked."""

import json

import pytest
import torch

from micro.voxel.source import FAMILIES
from surrogates.cells import evaluate
from surrogates.cells.networks.file import Shape, make_network, save_network

DEMO = "cells/voxel_networks.py"


@pytest.fixture
def arguments(tmp_path):
    shape = {"width": 2, "features": 4, "steps": 2}
    save_network(tmp_path / "n.pt", make_network(Shape(**shape)), {"shape": shape})
    return tmp_path


def words_of(folder, *more):
    words = ["--n", "6", "--cells", "2", "--timed", "1", "--network", str(folder / "n.pt"), "--output", str(folder)]
    return [*words, *more]


def test_table_times_and_figure_are_written(demo, arguments):
    assert demo.main(words_of(arguments)) == 0
    summary = json.loads((arguments / "summary.json").read_text())
    assert list(summary["networks"]) == ["n, 1 step", "n, 2 steps"]
    for family in FAMILIES:
        assert summary["networks"]["n, 2 steps"][family]["energy_least"] > -1e-5
        solver = [error for error, _ in summary["seconds"][family]["solver, multigrid"]]
        assert solver[-1] < 1e-3 and solver[-1] <= solver[0]
    assert (arguments / "race.png").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--n", "1"], "--n must be at least 2, got 1."),
        (["--cells", "0"], "--cells must be at least 1, got 0."),
        (["--timed", "3"], "--timed must lie between 1 and --cells, 2, got 3."),
        (["--timed", "0"], "--timed must lie between 1 and --cells, 2, got 0."),
        (["--network", "none.pt"], "none.pt does not exist."),
        (["--network", "n.pt", "n.pt"], "--network must be files whose names differ, got n.pt, n.pt."),
        (["--network", "t.pt"], "--network must begin with a multiscale network, which is timed, got t.pt."),
        (["--network", "n.pt", "t.pt"], "--n must be 8 for t.pt, a tensor network, got 6."),
        (["--output", "n.pt"], "--output must name a folder, but 'n.pt' is a file."),
        (["--cells", "many"], "Argument --cells: invalid int value: 'many'."),
    ],
)
def test_bad_input_is_one_sentence(demo, arguments, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(arguments)
    shape = {"network": "tensor", "side": 8}
    save_network(arguments / "t.pt", make_network(Shape(**shape)), {"shape": shape})
    assert demo.main(words_of(arguments, *words)) == 2
    assert capsys.readouterr().err == f"{sentence}\n"
    assert not (arguments / "summary.json").exists()


def test_a_tensor_below_that_of_the_elements_fails_the_demo(demo, arguments, monkeypatch):
    def softer(module, density, steps):
        tensors, u = predict_steps(module, density, steps)
        return [tensor * 0.5 for tensor in tensors], u

    predict_steps = evaluate.predict_steps
    monkeypatch.setattr(evaluate, "predict_steps", softer)
    with pytest.raises(AssertionError, match="below"):
        demo.main(words_of(arguments))
    assert torch.get_num_threads() == 1
