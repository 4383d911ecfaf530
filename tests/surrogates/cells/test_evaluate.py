"""The table of errors: of sets with and without tensors, of networks with and without fields."""

import json

import numpy as np
import pytest
import torch

from micro import generate
from surrogates.cells import data as cells
from surrogates.cells import evaluate
from surrogates.cells.evaluate import predict, relative_error
from surrogates.cells.networks.file import Shape, load_network, make_network, save_network
from surrogates.evaluate import main


@pytest.fixture
def networks(tmp_path):
    """A multiscale network of two steps and a tensor network, untrained."""
    for name, shape in (("fields", Shape("multiscale", 1, 2, 2)), ("numbers", Shape("tensor", side=8))):
        save_network(tmp_path / f"{name}.pt", make_network(shape), {"shape": vars(shape)})
    return [str(tmp_path / "fields.pt"), str(tmp_path / "numbers.pt")]


@pytest.fixture
def data(tmp_path):
    """The same cells with tensors and without."""
    words = ["voxels", "--output", str(tmp_path / "set"), "--samples", "4", "--resolution", "8", "--tolerance", "1e-8"]
    assert generate.main([*words, "--radius", "0.13", "0.2"]) == 0
    np.save(tmp_path / "plain.npy", cells.read_cells(tmp_path / "set").density.numpy())
    return [str(tmp_path / "set"), str(tmp_path / "plain.npy")]


def test_the_table_has_every_network_step_and_set(networks, data, tmp_path, capsys):
    assert main([*networks, "--data", data[0], "--data", data[1], "--all", "--json", str(tmp_path / "t")]) == 0
    rows = json.loads((tmp_path / "t").read_text())
    assert list(rows) == ["fields, 1 step", "fields, 2 steps", "numbers"]
    assert rows["numbers"]["set"]["samples"] == rows["numbers"]["plain.npy"]["samples"] == 4
    shown = capsys.readouterr().out
    assert all(f"{100 * row['set']['mean']:.2f}" in shown for row in rows.values())
    for row in rows.values():
        assert row["set"] == pytest.approx(row["plain.npy"], rel=1e-4, abs=1e-6)
    assert rows["fields, 2 steps"]["set"]["energy_least"] > -1e-6  # fields: never below the elements
    known = cells.read_cells(data[0])
    tensor, _ = predict(load_network(networks[0]).module, known.density, steps=1)
    assert rows["fields, 1 step"]["set"]["worst"] == pytest.approx(float(relative_error(tensor, known.tensor).max()))


def test_tensors_of_another_solid_are_not_taken(tmp_path):
    words = ["voxels", "--output", str(tmp_path / "s"), "--samples", "1", "--resolution", "8", "--radius", "0.2"]
    assert generate.main([*words, "--modulus", "7"]) == 0
    found = cells.read_cells(tmp_path / "s")
    assert found.tensor is None
    assert float(cells.solve(found).tensor.max()) < 2  # of E = 1


def test_what_is_known_is_not_solved_for(data, monkeypatch):
    known = cells.read_cells(data[0])
    monkeypatch.setattr(cells, "Homogeniser", None)
    assert cells.solve(known) is known
    assert torch.equal(cells.join([known, known]).tensor, torch.cat([known.tensor] * 2))
    assert cells.join([known, cells.read_cells(data[1])]).tensor is None


def test_bad_input_is_refused_in_one_sentence(networks, data, tmp_path, capsys):
    for words, sentence in (
        ([networks[0], "--data", data[0], "--held-out", "0"], "held_out must lie between 1 and 3"),
        ([networks[0], "--data", data[0], "--held-out", "1", "--all"], "held_out must not be given together"),
        ([networks[0], "--data", str(tmp_path / "none")], "neither a data set nor"),
        ([str(tmp_path / "none.pt"), "--data", data[0]], "does not exist"),
        ([networks[0], networks[0], "--data", data[0]], "files must have names that differ, got fields, fields."),
        ([networks[0], "--data", data[0], "--data", data[0]], "data must have names that differ, got set, set."),
        ([networks[0], "--data", data[0], "--device", "abacus"], "device must be cpu, cuda or cuda:N, got abacus."),
        ([networks[0], "--data", data[0], "--json", str(tmp_path)], "json must be a file in a folder that exists"),
        ([networks[0], "--data", data[0], "--json", networks[0]], "json must be a file of its own"),
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    with pytest.raises(ValueError, match="solved before"):
        evaluate.errors_of(load_network(networks[0]).module, cells.read_cells(data[1]))
