"""The command that renews certificates: shows, stores, and reads artifacts of before."""

import json
import re
import zipfile

import pytest
import torch
from torch import Tensor

from surrogates import certificate
from surrogates.artifact.certify import LATER
from surrogates.artifact.export import save_law
from surrogates.artifact.load import MANIFEST_FILE, content_hash, load_law, read_json
from surrogates.artifact.schema import parse_manifest
from surrogates.certificate import certify, disagreements


class Spring(torch.nn.Module):
    """P = 2 G (E + tr E I), E = sym(F - I), in two dimensions, float32 inside as networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.stiffness = torch.nn.Parameter(torch.tensor(2.0))

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 0, dtype=torch.float64)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        E = 0.5 * (F + F.transpose(1, 2)) - torch.eye(2, dtype=torch.float64)
        E = E + E.diagonal(dim1=1, dim2=2).sum(dim=1).reshape(-1, 1, 1) * torch.eye(2, dtype=torch.float64)
        return (self.stiffness * E.to(self.stiffness.dtype)).to(F.dtype), state

    @torch.jit.export
    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        P, new_state = self.forward(F, state, dt)
        eye = torch.eye(2, dtype=torch.float64)
        unit = 0.5 * (torch.einsum("ik,jl->ijkl", eye, eye) + torch.einsum("il,jk->ijkl", eye, eye))
        unit = unit + torch.einsum("ij,kl->ijkl", eye, eye)
        return P.detach(), new_state, self.stiffness.detach().to(F.dtype) * unit.repeat(len(F), 1, 1, 1, 1)

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        return state


MANIFEST = {
    "schema": 1, "kind": "test", "name": "spring", "strain": "small", "dimension": 2,
    "units": {"stress": "Pa", "time": "s", "length": "m"}, "density": 1.0, "moduli": {"bulk": 1.0, "shear": 1.0},
    "state": {"size": 0, "fields": []}, "observe": [],
    "range": {"strain_max": 0.1, "rate_min": None, "rate_max": None, "time_window": None, "jacobian_min": None,
              "jacobian_max": None},
    "dtype": "float32", "data": {"hash": "", "code_version": "", "samples": 0, "seed": 0, "command": ""}, "errors": {},
    "training": {"command": "", "seed": 0, "epochs": 0},
}  # fmt: skip


def typed(manifest):
    """The manifest of a law that is not certified yet."""
    return parse_manifest({"certificate": {}, "hash": "", **manifest}, "law.pt", certified=False)


@pytest.fixture
def law_file(tmp_path):
    manifest = {**MANIFEST, "certificate": {}}
    stored = certify(torch.jit.script(Spring()), **certificate.settings(typed(manifest)))
    save_law(tmp_path / "law.pt", Spring(), {**manifest, "certificate": stored})
    return tmp_path / "law.pt"


def without(path, *names):
    """Take entries out of the certificate of an artifact, as an older one lacks them; its hash is right again."""
    manifest = read_json(path)
    for name in names:
        del manifest["certificate"][name]
    rewrite(path, {**manifest, "hash": content_hash(path, manifest)})


def rewrite(path, manifest):
    """Put another manifest into an artifact, whatever it says."""
    old = path.rename(path.with_suffix(".old"))
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.namelist():
            target.writestr(entry, json.dumps(manifest) if entry.endswith(MANIFEST_FILE) else source.read(entry))
    old.unlink()


def test_network_is_certified_in_double_precision(law_file):
    stored = load_law(law_file).stored["certificate"]
    assert stored["tangent_difference"] < 1e-9 and stored["newton_iterations_patch"] == 1


def test_command_finds_the_stored_certificate(law_file, tmp_path, capsys):
    before = law_file.read_bytes()
    assert certificate.main([str(law_file), "--json", str(tmp_path / "new.json")]) == 0
    assert "differs" not in capsys.readouterr().out
    assert disagreements(read_json(law_file)["certificate"], json.loads((tmp_path / "new.json").read_text())) == []
    assert law_file.read_bytes() == before


def test_older_artifact_is_refused_and_renewed(law_file, capsys):
    whole = load_law(law_file)
    without(law_file, "newton_order_patch", "zero_increment", "seed")
    with pytest.raises(ValueError, match=r"certificate.zero_increment is missing; python3 -m .*law.pt --renew"):
        load_law(law_file)
    assert certificate.main([str(law_file)]) == 1  # shown, not stored
    said = capsys.readouterr().out
    assert re.search(r"zero_increment +0.0 +stored None  differs", said)
    assert certificate.main([str(law_file), "--renew"]) == 0
    again = load_law(law_file)
    renewed = again.stored["certificate"]
    assert set(renewed) == {*whole.stored["certificate"], *LATER}
    assert disagreements(whole.stored["certificate"], renewed) == []
    assert json.loads(law_file.with_suffix(".json").read_text()) == again.stored
    assert sorted(file.name for file in law_file.parent.iterdir()) == ["law.json", "law.pt"]
    F = torch.eye(2, dtype=torch.float64).repeat(3, 1, 1) * 1.1
    state = again.module.initial_state(3)
    assert torch.equal(again.module.forward(F, state, 1.0)[0], whole.module.forward(F, state, 1.0)[0])


def test_spoilt_artifact_is_not_renewed(law_file, capsys):
    rewrite(law_file, {**read_json(law_file), "density": 2.0})
    content = law_file.read_bytes()
    assert certificate.main([str(law_file), "--renew"]) == 2
    assert "field hash does not match" in capsys.readouterr().err
    assert law_file.read_bytes() == content


def test_law_of_unknown_range_needs_one(tmp_path, capsys):
    manifest = {**MANIFEST, "range": {**MANIFEST["range"], "strain_max": None}, "certificate": {}}
    with pytest.raises(ValueError, match=r"field range.strain_max must be positive"):
        certificate.settings(typed(manifest))
    stored = certify(Spring(), strain="small", dimension=2, strain_max=0.1, dt=1.0, stress_scale=1.0, points=2)
    save_law(tmp_path / "law.pt", Spring(), {**manifest, "certificate": stored})
    without(tmp_path / "law.pt", "asymmetry", "points")
    assert certificate.main([str(tmp_path / "law.pt"), "--renew"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert certificate.main([str(tmp_path / "law.pt"), "--renew", "--strain-max", "0.2"]) == 0
    assert load_law(tmp_path / "law.pt").manifest.certificate.strain_max == 0.2


def test_steps_of_the_settings_fit_window_and_rates():
    limits = MANIFEST["range"]
    assert certificate.settings(typed(MANIFEST))["dt"] == 1.0
    window = certificate.settings(typed({**MANIFEST, "range": {**limits, "time_window": 1e-6}}))
    assert 15 * window["dt"] < 1e-6
    rates = certificate.settings(typed({**MANIFEST, "range": {**limits, "rate_min": 1e2, "rate_max": 1e4}}))
    assert 0.1 * 0.1 / rates["dt"] == pytest.approx(1e3)
