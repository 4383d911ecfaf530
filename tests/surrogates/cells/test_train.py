"""Training on voxel cells: every model of the paper trains, resumes to the same weights, and reports true errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from surrogates.cells import data as cells
from surrogates.cells import train as voxels
from surrogates.cells.energy import CellEnergy
from surrogates.cells.evaluate import energy_error, predict, relative_error
from surrogates.cells.networks.equivariant import signed_permutations
from surrogates.cells.networks.file import Shape, load_network, make_network, save_network
from surrogates.cells.networks.paper import PaperNetwork, TensorNetwork
from surrogates.train import main

SMALL = ["--width", "1", "--features", "2", "--steps", "1", "--held-out", "2", "--batch", "3"]
FAST = {"epochs": 12, "augment": False, "learning_rate": 5e-4}
MODELS = {
    "1": ("paper", "energy"), "2": ("paper", "weak"), "3": ("paper", "displacement"), "4": ("tensor", "tensor"),
    "preconditioned": ("paper", "preconditioned"), "ours": ("multiscale", "relative"),
}  # fmt: skip
RATES = {"ours": 1e-3}  # of the small steps of a test


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    rho = np.repeat(np.repeat(np.repeat(random.uniform(size=(8, 4, 4, 4)), 2, 1), 2, 2), 2, 3)
    np.save(tmp_path / "cells.npy", (rho > 0.3).astype(np.float32))
    return tmp_path / "cells.npy"


@pytest.mark.parametrize("model", MODELS)
def test_each_model_of_the_paper_descends_its_loss(model, check_descent):
    network, loss = MODELS[model]
    rho = torch.rand(4, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    train = cells.solve(cells.Cells(rho), fields=True)

    def loss_after(epochs, rate):
        config = voxels.VoxelsConfig(
            network=network, loss=loss, width=1, features=2, steps=1, batch=4, augment=False, epochs=epochs,
            learning_rate=rate, final_rate=rate / 10,
        )  # fmt: skip
        return voxels.fit(voxels.make_network(voxels.Shape(network, 1, 2, 1, 8)), train, train, config)["loss"]

    check_descent(loss_after, RATES.get(model, 1e-6))
    module = voxels.make_network(voxels.Shape(network, 1, 2, 1, 8)).train()
    told = voxels.loss_of(module, CellEnergy(rho), train, loss).item()
    assert loss_after(1, 1e-6) == pytest.approx(told, rel=1e-5)


def test_a_run_that_was_stopped_ends_with_the_same_weights(data, tmp_path, capsys):
    def run(name, epochs, *more):
        words = ["--data", str(data), "--output", str(tmp_path / f"{name}.pt"), *SMALL, "--epochs", str(epochs), *more]
        assert main(["voxels", *words]) == 0
        return torch.load(tmp_path / f"{name}.pt", weights_only=True)["weights"]

    class Stop(Exception):
        pass

    whole = run("whole", 3)
    # stopped after its second epoch: the loss of the third is not computed
    count, loss_of = [0], voxels.loss_of

    def stopping(*arguments):
        count[0] += 1
        if count[0] > 4:  # two batches an epoch
            raise Stop
        return loss_of(*arguments)

    voxels.loss_of = stopping
    try:
        with pytest.raises(Stop):
            run("part", 3, "--checkpoint", str(tmp_path / "c"))
    finally:
        voxels.loss_of = loss_of
    resumed = run("part", 3, "--checkpoint", str(tmp_path / "c"), "--resume")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert main(["voxels", "--data", str(data), "--output", str(tmp_path / "x.pt"), *SMALL, "--epochs", "4",
                        "--checkpoint", str(tmp_path / "c"), "--resume"]) == 2  # fmt: skip
    assert "another configuration" in capsys.readouterr().err


def test_the_manifest_tells_the_errors_that_the_network_has(data, tmp_path):
    output = tmp_path / "n.pt"
    assert main(["voxels", "--data", str(data), "--output", str(output), *SMALL, "--epochs", "1"]) == 0
    network = load_network(output)
    told = json.loads(output.with_suffix(".json").read_text())
    assert network.manifest == told
    _, held = cells.load_cells([data], 2)
    held = cells.solve(held)
    tensor, _ = predict(network.module, held.density)
    assert told["errors"]["mean"] == pytest.approx(float(relative_error(tensor, held.tensor).mean()), rel=1e-3)
    assert told["errors"]["energy_least"] > -1e-6
    assert told["training"]["seed"] == 0 and told["data"]["cells"] == 6
    # and it can be trained on, or measured alone: its weights stay
    assert main(["voxels", "--data", str(data), "--output", str(tmp_path / "m.pt"), *SMALL, "--initial", str(output),
                        "--epochs", "0"]) == 0  # fmt: skip
    again = load_network(tmp_path / "m.pt")
    assert again.manifest["training"]["earlier"] == told["training"]
    assert again.manifest["errors"] == pytest.approx(told["errors"])


def test_the_paper_network_has_its_size_and_shift_equivariance():
    module = PaperNetwork().eval()
    assert sum(p.numel() for p in module.parameters()) == 436522  # the paper's: 437642
    rho = torch.rand(1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        u, v = (module(CellEnergy(torch.roll(rho, shift, 3))) for shift in (0, 1))
    assert torch.allclose(torch.roll(u, 1, 5), v, atol=1e-6)
    assert abs(sum(p.numel() for p in TensorNetwork(40).parameters()) / 592643 - 1) < 0.01


def test_augmentation_turns_labels_with_the_cells():
    rho = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    part = voxels.turned(cells.solve(cells.Cells(rho), fields=True), np.random.default_rng(3))
    again = cells.solve(cells.Cells(part.density.contiguous()))
    assert not torch.equal(part.density, rho)
    assert torch.allclose(part.tensor, again.tensor, atol=1e-6)
    bound = CellEnergy(part.density).certified(part.displacement)
    assert torch.allclose(bound, again.tensor, atol=1e-6)


def test_errors_are_those_of_the_paper_with_absolute_values():
    exact = torch.diag(torch.tensor([2.0, 2, 2, 1, 1, 1], dtype=torch.float64))[None]
    found = exact.clone()
    found[0, 0, 0], found[0, 1, 1], found[0, 0, 1] = 2.2, 1.8, 1e-3  # opposite signs, and one that counts as zero
    assert float(relative_error(found, exact)) == pytest.approx(0.2 / 36)
    least, most = energy_error(exact * 1.01, exact)
    assert float(least) == pytest.approx(0.01, rel=1e-4) == float(most)
    assert float(energy_error(exact * 0.99, exact)[0]) < -0.009
    g = signed_permutations()[13]
    assert torch.allclose(relative_error(g.tensor(found), g.tensor(exact)), relative_error(found, exact))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.ones((4, 4, 4)), "must have shape"),
        (np.full((2, 4, 4, 4), np.nan), "must be finite"),
        (np.full((2, 4, 4, 4), 2.0), "between 0"),
        (np.full((2, 4, 4, 4), "x"), "must be real numbers, got <U1"),
        (np.full((2, 4, 4, 4), 1j), "must be real, got torch.complex128"),
    ],
)
def test_densities_that_are_none_are_refused(tmp_path, capsys, values, sentence):
    np.save(tmp_path / "bad.npy", values)
    assert main(["voxels", "--data", str(tmp_path / "bad.npy"), "--output", str(tmp_path / "x.pt")]) == 2
    assert sentence in capsys.readouterr().err


def test_other_input_that_is_wrong_is_refused(data, tmp_path, capsys):
    output = ["--output", str(tmp_path / "x.pt")]
    np.savez(tmp_path / "many.npz", np.load(data))
    for words, sentence in (
        (["--data", str(tmp_path / "none.npy")], "neither"),
        (["--data", str(tmp_path / "many.npz")], "neither"),
        (["--data", str(data), "--held-out", "8"], "held_out must lie"),
        (["--data", str(data), "--network", "tensor"], "go together"),
        (["--data", str(data), "--resume"], "give --checkpoint"),
        (["--data", str(data), "--initial", str(data)], "not a voxel network"),
        (["--data", str(data), "--device", "abacus"], "device must be cpu, cuda or cuda:N, got abacus."),
        (["--data", str(data), "--seed", "-1"], "seed must be an integer from 0 to"),
        (["--data", str(data), "--learning-rate", "nan"], "learning_rate must be positive and finite, got nan."),
        (["--data", str(data), "--final-rate", "1"], "final_rate must lie between 0 and learning_rate, 0.005, got 1."),
        (["--data", str(data), "--clip", "0"], "clip must be positive, got 0.0."),
    ):
        assert main(["voxels", *words, *output]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1


def test_networks_to_begin_with_have_the_same_shape(data, tmp_path, capsys):
    """What a manifest leaves to the defaults is the default; other widths are refused."""
    save_network(tmp_path / "n.pt", make_network(Shape(steps=2)), {"shape": {"steps": 2}})
    words = ["--data", str(data), "--output", str(tmp_path / "x.pt"), "--initial", str(tmp_path / "n.pt")]
    assert main(["voxels", *words, "--epochs", "0", "--held-out", "2"]) == 0
    capsys.readouterr()
    assert main(["voxels", *words, "--width", "2"]) == 2
    assert "is a network of another shape" in capsys.readouterr().err


def test_cells_of_other_resolutions_are_refused():
    parts = [cells.Cells(torch.ones(2, n, n, n)) for n in (4, 8)]
    with pytest.raises(ValueError, match="must have the same resolution, got"):
        cells.join(parts)
    with pytest.raises(ValueError, match=r"density must have shape \(cells, 8, 8, 8\), got \(2, 4, 4, 4\)"):
        predict(TensorNetwork(8), parts[0].density)


def test_files_that_could_not_be_written_are_refused_before_training(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(voxels, "build", None)
    before = data.read_bytes()
    (tmp_path / "d.pt").mkdir()
    for words, sentence in (
        (["--output", str(tmp_path / "d.pt")], "output must be a file in a folder that exists, got"),
        (["--output", str(tmp_path / "x.json")], "output must end in .pt"),
        (["--output", str(data)], "output must end in .pt"),
        (["--output", str(tmp_path / "x.pt"), "--checkpoint", str(tmp_path)], "checkpoint must be a file in a folder"),
        (["--output", str(tmp_path / "x.pt"), "--checkpoint", str(tmp_path / "x.pt")], "output must be a file of its"),
        (["--output", str(data / "x.pt")], "output must be in a folder that can be made"),
    ):
        assert main(["voxels", "--data", str(data), *words]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    assert data.read_bytes() == before


def test_a_network_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    shape = {"width": 1, "features": 2, "steps": 1}
    save_network(tmp_path / "n.pt", make_network(Shape(**shape)), {"shape": shape})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def broken(stored, path):
        Path(path).write_bytes(b"half of it")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", broken)
        with pytest.raises(OSError, match="No space"):
            save_network(tmp_path / "n.pt", make_network(Shape(**shape), seed=1), {"shape": shape})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    torch.save({"format": "anvilx voxel network 2", "manifest": "{}", "weights": {}}, tmp_path / "later.pt")
    with pytest.raises(ValueError, match="format must be 'anvilx voxel network 1', got 'anvilx voxel network 2'"):
        load_network(tmp_path / "later.pt")


def test_a_loss_that_is_not_finite_stops_the_training_and_spares_the_weights(monkeypatch):
    rho = torch.rand(2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    module = make_network(Shape("multiscale", 1, 2, 1))
    before = [p.detach().clone() for p in module.parameters()]
    loss_of = voxels.loss_of
    monkeypatch.setattr(voxels, "loss_of", lambda *arguments: loss_of(*arguments) * float("nan"))
    with pytest.raises(RuntimeError, match="loss must stay finite, got nan in epoch 1"):
        voxels.fit(module, cells.Cells(rho), cells.Cells(rho), voxels.VoxelsConfig(**FAST))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters()))


def test_a_tensor_network_for_cells_that_its_halvings_use_up_is_refused():
    with pytest.raises(ValueError, match="at least 8 voxels per side, got 7"):
        TensorNetwork(7)


def test_softened_cells_have_ramps_and_keep_what_is_far_from_them():
    rho = torch.zeros(2, 12, 12, 12)
    rho[0, :6], rho[1, :, 4:] = 1.0, 1.0
    soft = voxels.softened(rho, np.random.default_rng(0))
    assert torch.equal(soft[0, 2:4], torch.ones(2, 12, 12)) and torch.equal(soft[0, 8:10], torch.zeros(2, 12, 12))
    assert bool(((soft > 0.01) & (soft < 0.99)).any()) and 0 <= float(soft.min()) and float(soft.max()) <= 1
    shifted = voxels.softened(rho.roll(3, 1), np.random.default_rng(0))
    assert torch.equal(shifted, soft.roll(3, 1))
    with pytest.raises(ValueError, match="soften must be 0 with loss tensor, got 0.5"):
        voxels.VoxelsConfig(network="tensor", loss="tensor", soften=0.5)
