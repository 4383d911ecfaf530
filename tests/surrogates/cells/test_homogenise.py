"""Certified stiffness: bounds enclose the elements' tensor, network or not; the command and its refusals."""

import json

import numpy as np
import pytest
import torch

from micro.voxel.cells.frames import make_frame
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import Homogeniser
from surrogates.cells.networks.file import CellNetwork, Shape, make_network, save_network
from surrogates.homogenise import effective, main, run


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
            assert float(torch.linalg.eigvalsh(above).min()) > -1e-13
        gap = (found.upper - found.lower).diagonal(dim1=1, dim2=2)
        assert bool((gap <= accuracy * found.upper.diagonal(dim1=1, dim2=2) * (1 + 1e-12)).all())
        assert torch.allclose(found.upper[2], torch.tensor(isotropic()), atol=1e-9)
        assert set(found.seconds) == ({"solver", "bounds"} if start is None else {"network", "solver", "bounds"})


def test_the_tensor_scales_with_the_modulus_and_bounds_hold_with_any_poisson_ratio(rho, network):
    """The network knows nu = 0.3 only: its fields are as admissible with any other."""
    unit, stiff = (effective(rho[:1], 1e-2, network=network, modulus=E) for E in (1.0, 2.1e11))
    assert torch.allclose(stiff.tensor, 2.1e11 * unit.tensor, rtol=1e-6, atol=1e3)
    assert torch.allclose(stiff.lower, 2.1e11 * unit.lower, rtol=1e-6, atol=1e3)
    for nu in (-0.4, 0.45):
        cell = Homogeniser(rho[:2], isotropic(3.0, nu), preconditioner="multigrid")
        C = cell.solve(tolerance=1e-12).tensor
        for start in (None, network):
            found = effective(rho[:2], 1e-2, network=start, modulus=3.0, poisson=nu)
            assert bool(found.reached.all())
            for above in (found.upper - C, C - found.lower):
                assert float(torch.linalg.eigvalsh(above).min()) > -1e-9


def test_oblong_boxes_and_voxels(network):
    """A grid that is no cube, with the network; voxels that are none, and fields in their unit."""
    rho = np.random.default_rng(1).uniform(0.1, 1, size=(1, 4, 6, 8))
    C = exact(rho)[0]
    found = effective(rho, 1e-3, network=network)
    assert "network" in found.seconds
    assert (
        float(torch.linalg.eigvalsh(found.upper[0] - C).min())
        > -1e-9
        < float(torch.linalg.eigvalsh(C - found.lower[0]).min())
    )
    assert torch.allclose(effective(rho, 1e-3, network=network, spacing=(0.1,) * 3).tensor, found.tensor, rtol=1e-6)
    oblong = effective(rho, 1e-4, network=network, spacing=(0.2, 0.1, 0.1))
    assert "network" not in oblong.seconds
    double = effective(np.repeat(rho, 2, axis=1), 1e-4)  # the same cell on cubes: a finer grid, so a softer one
    assert float(torch.linalg.eigvalsh(oblong.upper[0] - double.lower[0]).min()) > 0
    assert torch.allclose(oblong.tensor, double.tensor, rtol=0.1, atol=0.02)


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
    assert said["iterations"] == int(effective(cell[None], 1e-2, network=network).iterations[0])
    assert set(said["seconds"]) == {"network", "solver", "bounds"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cell.npy", "n.json", "n.pt", "out.json"]
    assert "lower" in capsys.readouterr().out
    assert {"accuracy", "reached", "voxels", "spacing", "modulus", "poisson"} <= set(said)
    np.save("many.npy", np.stack([np.zeros((8, 8, 8)), 255 * cell]).astype(np.uint8))
    words = [
        "many.npy",
        "--sample",
        "1",
        "--threshold",
        "127",
        "--json",
        "steel.json",
        "--modulus",
        "2e11",
        "--network",
    ]
    assert main([*words, "n.pt", "--accuracy", "1e-2"]) == 0
    steel = json.loads((tmp_path / "steel.json").read_text())
    assert np.array(steel["tensor"]) == pytest.approx(2e11 * tensor, rel=1e-3, abs=1e5)
    assert steel["constants"]["nu_12"] == pytest.approx(said["constants"]["nu_12"], rel=1e-3)
    assert main(["cell.npy", "--solver-only", "--picture", "p.svg"]) == 0
    assert (tmp_path / "p.svg").is_file()
    assert main(["cell.npy", "--solver-only", "--picture", "p.png"]) == 0
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_run_is_the_command_from_python(tmp_path, monkeypatch, capsys):
    """The same answer from a file and from an array; nothing is written unless a file is named."""
    monkeypatch.chdir(tmp_path)
    cell = make_frame("tesseract", 8, 0.2)
    np.save("cell.npy", cell)
    answers = [run(source, 1e-2, network=None, poisson=0.2) for source in ("cell.npy", cell)]
    assert [path.name for path in tmp_path.iterdir()] == ["cell.npy"]
    assert main(["cell.npy", "--accuracy", "1e-2", "--poisson", "0.2", "--solver-only", "--json", "out.json"]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    for answer in answers:
        for name in ("tensor", "lower", "upper", "constants", "iterations", "reached"):
            assert answer[name] == written[name]
    assert answers[0]["cell"] == "cell.npy" and not capsys.readouterr().err
    with pytest.raises(ValueError, match="shape must not be given for an array"):
        run(cell, network=None, shape=(8, 8, 8))
    with pytest.raises(ValueError, match="spacing must be three positive numbers, from 1e-30 to 1e.30, got"):
        run(cell, network=None, spacing=(1e-320, 1, 1))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.ones((4, 4)), "(X, Y, Z)"),
        (np.ones((2, 4, 4, 4)), "sample must be given"),
        (np.full((4, 4, 4), np.nan), "finite numbers"),
        (np.full((4, 4, 4), 2.0), "between 0 (void) and 1 (solid)"),
        (np.full((4, 4, 4), -0.1), "between 0 (void) and 1 (solid)"),
        (np.full((4, 4, 4), "x"), "numbers, got (4, 4, 4) <U1"),
        (np.zeros((4, 4, 4)), "some solid"),
    ],
)
def test_a_cell_that_is_none_is_refused_in_one_sentence(tmp_path, capsys, values, sentence):
    np.save(tmp_path / "cell.npy", values)
    files = ["--json", str(tmp_path / "out.json"), "--picture", str(tmp_path / "out.png")]
    assert main([str(tmp_path / "cell.npy"), "--solver-only", *files]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["cell.npy"]


def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "text.npy").write_text("no numbers")
    np.save(tmp_path / "cell.npy", np.ones((4, 4, 4)))
    for words, sentence in (
        (["missing.npy"], "does not exist"),
        ([str(tmp_path / "text.npy")], "not a .npy file"),
        ([str(tmp_path / "cell.npy"), "--accuracy", "0"], "accuracy must be positive"),
        ([str(tmp_path / "cell.npy"), "--accuracy", "nan"], "accuracy must be positive"),
        ([str(tmp_path / "cell.npy"), "--device", "abacus"], "device must be cpu, cuda or cuda:N, got abacus"),
        ([str(tmp_path / "cell.npy"), "--device", "cuda:x"], "device must be cpu, cuda or cuda:N, got cuda:x"),
        ([str(tmp_path / "cell.npy"), "--json", str(tmp_path / "cell.npy")], "json must be a file of its own, got"),
        ([str(tmp_path / "cell.npy"), "--modulus", "0"], "modulus must be positive"),
        ([str(tmp_path / "cell.npy"), "--poisson", "0.5"], "poisson lie between -1 and 0.5"),
        ([str(tmp_path / "cell.npy"), "--spacing", "1", "0", "1"], "spacing must be three positive numbers"),
        ([str(tmp_path / "cell.npy"), "--json", str(tmp_path / "no" / "out.json")], "json must be a file in a folder"),
        ([str(tmp_path / "cell.npy"), "--picture", str(tmp_path / "out.xyz")], "picture must end in one of"),
        ([str(tmp_path / "cell.npy"), "--network", str(tmp_path / "no.pt")], "does not exist"),
        ([str(tmp_path / "cell.npy"), "--network", str(tmp_path / "text.npy")], "not a voxel network"),
    ):
        assert main(words + ([] if "--network" in words else ["--solver-only"])) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
