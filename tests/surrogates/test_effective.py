"""Certified stiffness: bounds enclose the elements' tensor, network or not; the command and its refusals."""

import json

import numpy as np
import pytest
import torch

from micro.homogeniser import Homogeniser
from micro.voxel_element import isotropic
from micro.voxel_frames import make_frame
from surrogates.cell_network import CellNetwork, Shape, make_network, save_network
from surrogates.effective import effective, main


def exact(rho):
    return Homogeniser(np.asarray(rho, dtype=float), preconditioner="multigrid").solve(tolerance=1e-12).tensor


@pytest.fixture(scope="module")
def rho():
    random = np.random.default_rng(0)
    return np.stack([make_frame("star", 8, 0.15), random.uniform(size=(8, 8, 8)), np.ones((8, 8, 8))]).astype(float)


@pytest.fixture(scope="module")
def network():
    return CellNetwork(make_network(Shape(width=2, features=4, steps=2)).eval(), {})


@pytest.mark.parametrize("accuracy", [0.3, 1e-3])
def test_the_bounds_enclose_the_tensor_of_the_elements(rho, network, accuracy):
    C = exact(rho)
    for start in (None, network):
        found = effective(rho, accuracy, network=start)
        assert bool(found.reached.all())
        assert torch.equal(found.tensor, found.upper)
        for above in (found.upper - C, C - found.lower):
            assert float(torch.linalg.eigvalsh(above).min()) > -1e-7
        gap = (found.upper - found.lower).diagonal(dim1=1, dim2=2)
        assert bool((gap <= accuracy * found.upper.diagonal(dim1=1, dim2=2) * (1 + 1e-12)).all())
        assert torch.allclose(found.upper[2], torch.tensor(isotropic()), atol=1e-9)
        assert set(found.seconds) == ({"solver", "bounds"} if start is None else {"network", "solver", "bounds"})


def test_a_good_field_saves_iterations(rho):
    class Answer(torch.nn.Module):
        def forward(self, cells):
            return Homogeniser(cells.density.double(), spacing=np.ones(3)).solve(tolerance=1e-9).displacement.float()

    alone, helped = (effective(rho[1:2], 1e-3, network=n) for n in (None, CellNetwork(Answer(), {})))
    assert int(helped.iterations[0]) < int(alone.iterations[0])
    assert torch.allclose(alone.tensor, helped.tensor, rtol=2e-3, atol=1e-4)


def test_the_command_writes_tensor_bounds_and_picture(tmp_path, monkeypatch, capsys, network):
    monkeypatch.chdir(tmp_path)
    cell = make_frame("tesseract", 8, 0.2)
    np.save("cell.npy", cell)
    save_network(tmp_path / "n.pt", network.module, {"shape": {"width": 2, "features": 4, "steps": 2}})
    assert main(["cell.npy", "--accuracy", "1e-2", "--json", "out.json", "--network", "n.pt"]) == 0
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["order"] == ["11", "22", "33", "23", "13", "12"]
    tensor, lower, upper = (np.array(said[name]) for name in ("tensor", "lower", "upper"))
    C = exact(cell[None])[0].numpy()
    assert tensor == pytest.approx(C, abs=1e-2 * C.max())
    assert np.linalg.eigvalsh(upper - C).min() > -1e-9 and np.linalg.eigvalsh(C - lower).min() > -1e-9
    assert said["constants"]["E_1"] == pytest.approx(1 / np.linalg.inv(tensor)[0, 0])
    assert said["iterations"] >= 0 and set(said["seconds"]) == {"network", "solver", "bounds"}
    assert (tmp_path / "cell_stiffness.png").stat().st_size > 10_000
    assert "lower" in capsys.readouterr().out
    assert main(["cell.npy", "--solver-only", "--picture", "p.svg"]) == 0
    assert (tmp_path / "p.svg").is_file()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.ones((4, 4, 5)), "cube"),
        (np.ones((4, 4)), "cube"),
        (np.full((4, 4, 4), np.nan), "finite"),
        (np.full((4, 4, 4), 2.0), "between 0 (void) and 1 (solid)"),
        (np.full((4, 4, 4), -0.1), "between 0 (void) and 1 (solid)"),
        (np.full((4, 4, 4), "x"), "real numbers"),
        (np.zeros((4, 4, 4)), "some solid"),
    ],
)
def test_a_cell_that_is_none_is_refused_in_one_sentence(tmp_path, capsys, values, sentence):
    np.save(tmp_path / "cell.npy", values)
    assert main([str(tmp_path / "cell.npy"), "--solver-only"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "text.npy").write_text("no numbers")
    np.save(tmp_path / "cell.npy", np.ones((4, 4, 4)))
    for words, sentence in (
        (["missing.npy"], "is not there"),
        ([str(tmp_path / "text.npy")], "not a .npy file"),
        ([str(tmp_path / "cell.npy"), "--accuracy", "0"], "accuracy must be positive"),
        ([str(tmp_path / "cell.npy"), "--network", str(tmp_path / "no.pt")], "is not there"),
        ([str(tmp_path / "cell.npy"), "--network", str(tmp_path / "text.npy")], "not a voxel network"),
    ):
        assert main(words + ([] if "--network" in words else ["--solver-only"])) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
