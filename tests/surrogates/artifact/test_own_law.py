"""A law of one's own: certified from Python, exported with roles, read back, refused where it lacks."""

import json

import pytest
import torch

import surrogates
from surrogates import certificate
from surrogates.artifact import Observable, certify, complete, describe, export_law, load_law, read_manifest, save_law
from surrogates.artifact.load import read_json
from surrogates.artifact.schema import parse_manifest


class Maxwell(torch.nn.Module):
    """Small strain in the plane: a spring beside a spring with a dashpot; it has no tangent of its own."""

    strain, dimension = "small", 2
    density, bulk_modulus, shear_modulus = 1e3, 2.0, 1.5
    strain_max, time_step = 0.05, 0.2
    observed = (Observable("stored", "stored_energy"), "flow", Observable("alpha_12", "internal_variable", 1))

    def __init__(self, slope: float = 1.0) -> None:
        super().__init__()
        self.G, self.relaxation = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64)), 0.5
        self.slope = slope

    def initial_state(self, n: int) -> torch.Tensor:
        return torch.zeros(n, 5, dtype=torch.float64)

    def forward(self, F: torch.Tensor, state: torch.Tensor, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
        E = 0.5 * (F + F.transpose(1, 2)) - torch.eye(2, dtype=torch.float64)
        alpha = state[:, :4].reshape(-1, 2, 2)
        alpha = (alpha + dt / self.relaxation * E) / (1.0 + dt / self.relaxation)
        volume = E.diagonal(dim1=1, dim2=2).sum(dim=1).reshape(-1, 1, 1) * torch.eye(2, dtype=torch.float64)
        P = 2.0 * self.G * E + volume + 1.0 * (E - alpha)
        W = (self.G * (E * E).sum(dim=(1, 2)) + 0.5 * ((E - alpha) ** 2).sum(dim=(1, 2))).reshape(-1, 1)
        return P, torch.cat([alpha.reshape(-1, 4), W], dim=1)

    def observe(self, state: torch.Tensor) -> torch.Tensor:
        return torch.stack([state[:, 4], state[:, 0], state[:, 1]], dim=1)


class Wrong(Maxwell):
    """The same with a tangent that is half of the derivative."""

    def tangent(self, F: torch.Tensor, state: torch.Tensor, dt: float):
        P, new = self.forward(F, state, dt)
        one = torch.eye(2, dtype=torch.float64)
        unit = torch.einsum("ik,jl->ijkl", one, one) + torch.einsum("il,jk->ijkl", one, one)
        return P.detach(), new.detach(), 0.5 * unit.repeat(len(F), 1, 1, 1, 1)


def test_certify_needs_nothing_but_the_law():
    found = certify(Maxwell())
    assert (found["strain_max"], found["dt"], found["stress_scale"]) == (0.05, 0.2, 2 * 1.5 * 0.05)
    assert found["tangent_difference"] < 1e-9 and found["asymmetry"] < 1e-12 and found["virgin_stress"] == 0.0
    assert found["newton_iterations_patch"] <= 2 and found["eigenvalue_negative"] == 0.0
    assert certify(Maxwell(), strain_max=0.02, dt=1.0)["strain_max"] == 0.02
    assert certify(Wrong())["tangent_difference"] > 0.1
    assert surrogates.certify is certify


def test_export_and_back(tmp_path):
    manifest = export_law(tmp_path / "own.pt", Maxwell(), name="my maxwell")
    assert json.loads((tmp_path / "own.json").read_text()) == manifest == read_json(tmp_path / "own.pt")
    law = load_law(tmp_path / "own.pt")
    told = law.manifest
    assert (told.schema, told.kind, told.name, told.strain, told.dimension) == (2, "own", "my maxwell", "small", 2)
    assert (told.density, told.moduli.bulk, told.moduli.shear, told.range.strain_max) == (1e3, 2.0, 1.5, 0.05)
    assert told.observables == (
        Observable("stored", "stored_energy"), Observable("flow"), Observable("alpha_12", "internal_variable", 1),
    )  # fmt: skip
    assert (told.column("stored_energy"), told.column("internal_variable", 1)) == (0, 2)
    assert told.column("dissipation") is None
    assert told.microstructure is None and told.certificate.dt == 0.2
    F = torch.eye(2, dtype=torch.float64) + 0.02 * torch.randn(5, 2, 2, dtype=torch.float64)
    mine = complete(Maxwell())
    found, expected = (one.tangent(F, one.initial_state(5), 0.1) for one in (law.module, mine))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)


def test_the_command_takes_an_exported_law(tmp_path, capsys):
    export_law(tmp_path / "own.pt", Maxwell())
    assert certificate.main([str(tmp_path / "own.pt")]) == 0
    assert "differs" not in capsys.readouterr().out
    export_law(tmp_path / "wrong.pt", Wrong())
    assert read_manifest(tmp_path / "wrong.pt").certificate.tangent_difference > 0.1


def test_derivative_by_hand_and_automatic_are_the_same():
    F = torch.eye(2, dtype=torch.float64).repeat(3, 1, 1)
    law = complete(Maxwell())
    state = law.initial_state(3)
    dP_dF = law.tangent(F, state, 0.5)[2]
    one = torch.eye(2, dtype=torch.float64)
    symmetric = 0.5 * (torch.einsum("ik,jl->ijkl", one, one) + torch.einsum("il,jk->ijkl", one, one))
    expected = (2.0 + 1.0 - 0.5) * symmetric + torch.einsum("ij,kl->ijkl", one, one)  # dt = relaxation: half flows
    torch.testing.assert_close(dP_dF, expected.repeat(3, 1, 1, 1, 1), rtol=1e-13, atol=1e-14)


def test_what_is_complete_stays_as_it_is():
    class Whole(Wrong):
        pass

    law = Whole()
    assert complete(law) is law
    assert describe(complete(Maxwell())).state_size == 5
    with pytest.raises(ValueError, match="Linear: the module has no method initial_state"):
        complete(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="Linear: a law needs the attributes .* strain is missing"):
        describe(torch.nn.Linear(1, 1))


def test_code_that_torchscript_does_not_accept_is_one_sentence(tmp_path):
    class Odd(Maxwell):
        def forward(self, F, state, dt: float):
            return {**{}}, state

    with pytest.raises(ValueError, match="Odd: TorchScript does not accept the law"):
        export_law(tmp_path / "odd.pt", Odd())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("observe", "words"),
    [
        ([{"name": "a"}], "must list objects with name and quantity"),
        (["a", "b", "c"], "must list objects with name and quantity"),
        ([{"name": "a", "quantity": "heat"}], "field observe.quantity must be one of 'stored_energy'"),
        ([{"name": "a", "quantity": "bar_force"}], "index and component do not fit"),
        ([{"name": "a", "quantity": "bar_force", "index": 0, "component": 1}], "index and component do not fit"),
        ([{"name": "a", "quantity": "node_displacement", "index": -1, "component": 1}], "index and component do not"),
        ([{"name": "a", "quantity": "other"}] * 2, "lists a name twice"),
    ],
)
def test_roles_that_do_not_fit_are_refused(tmp_path, observe, words):
    manifest = export_law(tmp_path / "own.pt", Maxwell())
    with pytest.raises(ValueError, match=words):
        parse_manifest({**manifest, "observe": observe}, "own.pt")
    with pytest.raises(ValueError, match=words):
        save_law(tmp_path / "other.pt", complete(Maxwell()), {**manifest, "observe": observe})
    assert not (tmp_path / "other.pt").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("bar"), "field microstructure: bar does not fit"),
        (lambda s: s["bar"].update(modulus="1"), "field microstructure: bar.modulus does not fit"),
        (lambda s: s["cell"].update(nodes=[[0.0]]), "field microstructure: cell.nodes does not fit"),
        (lambda s: s["cell"].update(bars=[[0, 99]]), "field microstructure: cell.bars does not fit"),
        (lambda s: s["cell"].update(bars=[[0, 0.5]]), "field microstructure: cell.bars does not fit"),
        (lambda s: s["cell"].update(box=[1.0]), "field microstructure: cell.box does not fit"),
        (lambda s: s["cell"].update(name=1), "field microstructure: cell does not fit"),
    ],
)
def test_a_microstructure_that_does_not_fit_is_refused(tmp_path, change, words):
    manifest = export_law(tmp_path / "own.pt", Maxwell())
    structure = {
        "cell": {"name": "line-1", "perturbation": 0.0, "seed": 0, "nodes": [[0.0, 0.0], [1.0, 0.0]], "bars": [[0, 1]],
                 "box": [1.0, 1.0]},
        "bar": {"name": "kinematic", "modulus": 1.0, "hardening": 0.1, "strength": 0.3},
    }  # fmt: skip
    typed = parse_manifest({**manifest, "microstructure": structure}, "own.pt")
    assert typed.microstructure.parameters() == structure
    change(structure)
    with pytest.raises(ValueError, match=words):
        parse_manifest({**manifest, "microstructure": structure}, "own.pt")
