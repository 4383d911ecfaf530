"""The artifact: what is written comes back, and what does not fit is refused by the name of the field."""

import copy
import json
import zipfile

import pytest
import torch
from torch import Tensor

from surrogates.artifact.export import save_law
from surrogates.artifact.load import MANIFEST_FILE, load_law
from surrogates.tensors import (
    PointLaw,
    determinant,
    deviator,
    first_piola,
    isochoric,
    rational_strain,
    rotation,
    to_matrix,
    to_vector,
)


class Elastic(PointLaw):
    """tau_hat = 2 G E with the stiffness as the one learned number; its state is the strain."""

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.size = size
        self.bulk = 48e9
        self.shear = torch.nn.Parameter(torch.tensor(25.0))

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, self.size, dtype=torch.float64, device=self.shear.device)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        J = determinant(F)
        F_bar = isochoric(F, J)
        R = rotation(F_bar)
        E = to_vector(rational_strain(F_bar))
        tau_hat = (2e9 * self.shear * deviator(E.to(self.shear.dtype))).to(F.dtype)
        return first_piola(F, J, R, to_matrix(tau_hat), self.bulk), E

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        return state[:, 0:1]


class Literal(Elastic):
    """A law that TorchScript 2.6 writes as code it cannot read: the literal becomes an integer."""

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        J = determinant(F)
        return first_piola(F, J, rotation(F), F, 48e9), state


class Shearless(Elastic):
    """A law whose forward returns a stress of the wrong shape."""

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        return F[:, 0:2, 0:2], state


MANIFEST = {
    "schema": 1,
    "kind": "test",
    "name": "elastic",
    "strain": "finite",
    "dimension": 3,
    "units": {"stress": "Pa", "time": "s", "length": "m"},
    "density": 1e4,
    "moduli": {"bulk": 48e9, "shear": 25e9},
    "state": {"size": 6, "fields": [{"name": "E", "offset": 0, "shape": [6]}]},
    "observe": ["E_11"],
    "range": {
        "strain_max": 0.5,
        "rate_min": 1e3,
        "rate_max": 1e6,
        "time_window": None,
        "jacobian_min": 0.9,
        "jacobian_max": 1.1,
    },
    "dtype": "float32",
    "data": {"hash": "0" * 64, "code_version": "0.1.0", "samples": 10, "seed": 1, "command": "none"},
    "errors": {"deviatoric": 0.04},
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
    "training": {"command": "none", "seed": 1, "epochs": 0},
}


def archive(path, manifest):
    """An artifact whose manifest save_law would refuse."""
    torch.jit.save(torch.jit.script(Elastic()), str(path), _extra_files={MANIFEST_FILE: json.dumps(manifest)})
    return path


@pytest.fixture
def law_file(tmp_path):
    save_law(tmp_path / "law.pt", Elastic(), MANIFEST)
    return tmp_path / "law.pt"


def test_what_is_written_comes_back(law_file, tmp_path):
    law = load_law(law_file)
    assert {**law.stored, "hash": ""} == {**MANIFEST, "hash": ""}
    assert len(law.manifest.hash) == 64
    F = torch.eye(3, dtype=torch.float64) + 0.1 * torch.rand(
        4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    eager = Elastic()
    P, state = law.module.forward(F, law.module.initial_state(4), 1e-9)
    P_eager, state_eager = eager.forward(F, eager.initial_state(4), 1e-9)
    assert torch.equal(P, P_eager) and torch.equal(state, state_eager)
    assert list(tmp_path.iterdir()) == [law_file]  # no temporary file is left


def test_same_law_has_the_same_hash(law_file, tmp_path):
    again = save_law(tmp_path / "again.pt", Elastic(), MANIFEST)
    assert again["hash"] == load_law(law_file).manifest.hash


def test_double_precision_runs_the_network_in_float64(law_file):
    single, double = load_law(law_file), load_law(law_file, dtype="float64")
    assert double.manifest.dtype == "float64"
    assert next(double.module.parameters()).dtype == torch.float64
    F = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    F[:, 0, 1] = 0.1
    P = [law.module.forward(F, law.module.initial_state(2), 1e-9)[0] for law in (single, double)]
    assert 0 < (P[0] - P[1]).abs().max() < 1e-6 * P[1].abs().max()


def test_tangent_runs_again_and_again_without_gradients_outside(law_file):
    law = load_law(law_file, dtype="float64").module
    F = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    step = torch.zeros(3, 3, dtype=torch.float64)
    step[0, 1] = 1e-6
    with torch.no_grad():
        for _ in range(4):
            P, _, dP_dF = law.tangent(F, law.initial_state(3), 1e-9)
            assert not P.requires_grad and not torch.is_grad_enabled()
        difference = law(F + step, law.initial_state(3), 1e-9)[0] - law(F - step, law.initial_state(3), 1e-9)[0]
    assert torch.allclose(dP_dF[:, :, :, 0, 1], difference / 2e-6, rtol=1e-6, atol=1e3)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such law file"):
        load_law(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [b"", b"not a law at all", b"PK\x03\x04" + bytes(200)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "law.pt").write_bytes(content)
    with pytest.raises(ValueError, match="not a TorchScript archive"):
        load_law(tmp_path / "law.pt")


def test_weights_without_code_are_refused(tmp_path):
    torch.save(Elastic().state_dict(), tmp_path / "law.pt")
    with pytest.raises(ValueError, match="not a TorchScript archive"):
        load_law(tmp_path / "law.pt")


@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_truncated_file_is_refused(law_file, part):
    content = law_file.read_bytes()
    law_file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match="truncated"):
        load_law(law_file)


def test_bare_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(Elastic()), str(tmp_path / "law.pt"))
    with pytest.raises(ValueError, match=MANIFEST_FILE):
        load_law(tmp_path / "law.pt")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 3),
        ("kind", 3),
        ("strain", "large"),
        ("dimension", 4),
        ("units.stress", "MPa"),
        ("density", -1.0),
        ("density", True),
        ("density", float("nan")),
        ("moduli.bulk", "48 GPa"),
        ("moduli", 48e9),
        ("state.size", 6.0),
        ("state.fields", [{"name": "E", "offset": 3, "shape": [6]}]),
        ("state.fields", [{"name": "E"}]),
        ("observe", "E_11"),
        ("range.strain_max", "much"),
        ("dtype", "float16"),
        ("data.samples", 1.5),
        ("errors.deviatoric", None),
        ("certificate.symmetric", 1),
        ("hash", 5),
    ],
)
def test_mistyped_field_is_refused_by_name(tmp_path, field, value):
    manifest = copy.deepcopy({**MANIFEST, "hash": "0" * 64})
    holder = manifest
    *groups, name = field.split(".")
    for group in groups:
        holder = holder[group]
    holder[name] = value
    with pytest.raises(ValueError, match=f"field {field}"):
        load_law(archive(tmp_path / "law.pt", manifest))


@pytest.mark.parametrize("field", ["density", "moduli", "units.time", "range.time_window", "data.hash", "hash"])
def test_missing_field_is_refused_by_name(tmp_path, field):
    manifest = copy.deepcopy({**MANIFEST, "hash": "0" * 64})
    *groups, name = field.split(".")
    del (manifest[groups[0]] if groups else manifest)[name]
    with pytest.raises(ValueError, match=f"field {field} is missing"):
        load_law(archive(tmp_path / "law.pt", manifest))


@pytest.mark.parametrize("field", ["colour", "moduli.young"])
def test_unknown_field_is_refused_by_name(tmp_path, field):
    manifest = copy.deepcopy({**MANIFEST, "hash": "0" * 64})
    *groups, name = field.split(".")
    (manifest[groups[0]] if groups else manifest)[name] = 1.0
    with pytest.raises(ValueError, match=f"field {field} is unknown"):
        load_law(archive(tmp_path / "law.pt", manifest))


def test_edited_weights_are_refused(law_file):
    law = load_law(law_file)
    with torch.no_grad():
        law.module.shear.mul_(1.001)
    torch.jit.save(law.module, str(law_file), _extra_files={MANIFEST_FILE: json.dumps(law.stored)})
    with pytest.raises(ValueError, match="field hash"):
        load_law(law_file)


def test_edited_manifest_is_refused(law_file):
    law = load_law(law_file)
    edited = {**law.stored, "density": 1738.0}
    torch.jit.save(law.module, str(law_file), _extra_files={MANIFEST_FILE: json.dumps(edited)})
    with pytest.raises(ValueError, match="field hash"):
        load_law(law_file)


def test_edited_code_is_refused(law_file, tmp_path):
    with zipfile.ZipFile(law_file) as source, zipfile.ZipFile(tmp_path / "edited.pt", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if "/code/" in name and name.endswith(".py"):
                content = content.replace(b"2000000000.", b"3000000000.")
            target.writestr(name, content)
    with pytest.raises(ValueError, match="field hash"):
        load_law(tmp_path / "edited.pt")


@pytest.mark.parametrize(
    ("module", "change", "words"),
    [
        (Elastic(size=7), {}, "initial_state must return .* by field state.size"),
        (Shearless(), {}, "forward must return .* by field dimension"),
        (Elastic(), {"observe": ["a", "b"]}, "observe must return .* by field observe"),
        (Literal(), {}, "cannot read back what it wrote: .* 'float' for argument 'bulk'"),
        (torch.nn.Linear(1, 1), {}, "no method initial_state"),
    ],
)
def test_law_that_does_not_do_what_its_manifest_says_is_not_written(tmp_path, module, change, words):
    with pytest.raises(ValueError, match=words):
        save_law(tmp_path / "law.pt", module, {**MANIFEST, **change})
    assert list(tmp_path.iterdir()) == []


def test_unknown_dtype_is_refused(law_file):
    with pytest.raises(ValueError, match="dtype must be one of float32, float64"):
        load_law(law_file, dtype="float16")


def test_archive_holds_no_folder_of_the_machine_that_made_it(law_file):
    source = determinant.__code__.co_filename.encode()
    with zipfile.ZipFile(law_file) as whole:
        assert not any(source in whole.read(name) for name in whole.namelist())
