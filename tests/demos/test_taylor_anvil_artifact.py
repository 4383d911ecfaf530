"""The Taylor anvil demo with an exported law: the same run as the compiled law, and refusals of spoilt artifacts."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from mpi4py import MPI
from torch import Tensor

from surrogates.artifact import save_law
from surrogates.tensors import PointLaw

ROOT = Path(__file__).resolve().parents[2]
DEMO = "taylor_anvil.py"
SMALL = ["--cells", "4", "--length", "1e-3", "--until", "1e-6", "--frames", "1", "--quarter"]


class NeoHookean(PointLaw):
    """W = G/2 (tr(F^T F) J^(-2/3) - 3) + lambda_e (J - 1)^2, the elastic energy of every law here."""

    def __init__(self) -> None:
        super().__init__()
        self.shear = torch.nn.Parameter(torch.tensor(25e9, dtype=torch.float64))
        self.bulk = torch.nn.Parameter(torch.tensor(48e9, dtype=torch.float64))

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        J = torch.linalg.det(F).unsqueeze(1).unsqueeze(2)
        inverse = torch.linalg.inv(F).transpose(1, 2)
        shear, bulk = self.shear.to(F.dtype), self.bulk.to(F.dtype)
        C = (F * F).sum(dim=[1, 2], keepdim=True)
        P = shear * torch.pow(J, -2.0 / 3.0) * (F - C / 3.0 * inverse) + bulk * (J - 1.0) * J * inverse
        return P, state + dt

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        return state


MANIFEST = {
    "schema": 1,
    "kind": "test",
    "name": "exported neo-Hookean",
    "strain": "finite",
    "dimension": 3,
    "units": {"stress": "Pa", "time": "s", "length": "m"},
    "density": 1e4,
    "moduli": {"bulk": 48e9, "shear": 25e9},
    "state": {"size": 1, "fields": [{"name": "age", "offset": 0, "shape": [1]}]},
    "observe": ["age"],
    "range": {
        "strain_max": 0.03,
        "rate_min": 1.0,
        "rate_max": 1e9,
        "time_window": None,
        "jacobian_min": 0.5,
        "jacobian_max": 2.0,
    },
    "dtype": "float64",
    "data": {"hash": "0" * 64, "code_version": "0", "samples": 0, "seed": 0, "command": "none"},
    "errors": {},
    "certificate": {
        "tangent_difference": 1e-8,
        "asymmetry": 0.0,
        "symmetric": True,
        "eigenvalue_min": 1.0,
        "virgin_stress": 0.0,
        "zero_increment": 0.0,
        "newton_order_element": 2.0,
        "newton_order_patch": 2.0,
    },
    "training": {"command": "none", "seed": 0, "epochs": 0},
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("law") / "law.pt"
    save_law(path, NeoHookean(), MANIFEST)
    return path


@pytest.fixture(scope="module")
def exported(artifact, tmp_path_factory, run):
    return run(tmp_path_factory.mktemp("exported"), "--law", str(artifact))


def test_exported_law_runs_as_the_compiled_one(exported, tmp_path, run):
    compiled = run(tmp_path, "--law", "magnesium-neo-hookean")
    for key in ("steps", "dt", "final_length", "final_radius", "kinetic_energy", "internal_energy"):
        assert exported[key] == pytest.approx(compiled[key], rel=1e-11), key


def test_range_report_counts_the_points_that_left(exported):
    report = exported["range"]
    assert exported["law"] == "exported neo-Hookean"
    assert report["limits"]["strain_max"] == 0.03
    assert report["met"]["strain"] > 0.03
    assert 0.0 < report["fraction_outside_range"]["strain_max"] <= 1.0
    assert report["fraction_outside_range"]["rate_max"] == report["fraction_outside_range"]["jacobian_min"] == 0.0


def rewrite(source, target, change):
    """Copy an archive, passing every file in it through `change(name, data)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry, change(entry.filename, old.read(entry)))


def truncated(source, target):
    target.write_bytes(source.read_bytes()[:-2000])


def edited(old, new):
    """Change the text of the manifest."""

    def spoil(source, target):
        rewrite(source, target, lambda name, d: d.replace(old, new) if name.endswith("manifest.json") else d)

    return spoil


def other_weights(source, target):
    """Flip the last bit of every stored tensor."""
    rewrite(source, target, lambda name, d: d[:-1] + bytes([d[-1] ^ 1]) if re.search(r"/data/\d+$", name) else d)


def python_only(source, target):
    torch.save({"weights": torch.zeros(3)}, target)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (truncated, "truncated|not a TorchScript archive"),
        (edited(b'"schema": 1', b'"schema": 7'), "schema"),
        (other_weights, "hash"),
        (edited(b"10000.0", b"20000.0"), "hash"),
        (python_only, "TorchScript|manifest"),
    ],
)
def test_spoilt_artifact_is_refused_with_one_sentence(demo, artifact, tmp_path, capsys, spoil, word):
    spoilt = tmp_path / "spoilt.pt"
    spoil(artifact, spoilt)
    assert demo.main([*SMALL, "--law", str(spoilt), "--output", str(tmp_path / "out")], MPI.COMM_SELF) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert re.search(word, said.err), said.err
    assert not (tmp_path / "out").exists()


def test_unspoilt_copy_is_taken(demo, artifact, tmp_path):
    """The rewriting of an archive is not what is refused."""
    rewrite(artifact, tmp_path / "copy.pt", lambda name, data: data)
    shutil.copy(tmp_path / "copy.pt", tmp_path / "same.pt")
    assert demo.make_law(demo.parse(["--law", str(tmp_path / "same.pt")])).name == "exported neo-Hookean"


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_pretrained_law_gives_the_same_summary_on_any_number_of_ranks(tmp_path, dtype, tolerance):
    """1, 2, 3 and 8 ranks; in single precision the rounding of the network depends on how its batches are cut."""
    command = [sys.executable, str(ROOT / "demos" / "taylor_anvil.py"), *SMALL, "--dtype", dtype, "--output"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    summaries = {}
    for ranks in (1, 2, 3, 8):
        folder = tmp_path / str(ranks)
        subprocess.run(
            ["mpirun", "-n", str(ranks), *command, str(folder)], check=True, env=environment, timeout=300
        )
        summaries[ranks] = json.loads((folder / "summary.json").read_text())
    names = ("final_length", "final_radius", "kinetic_energy", "internal_energy", "contact_loss")
    worst = max(abs(summaries[n][k] / summaries[1][k] - 1) for n in (2, 3, 8) for k in names)
    print(f"largest relative difference of {dtype}: {worst:.1e}")
    assert worst < tolerance
