"""The certificate: right values for laws known in closed form, and each way of spoiling a law caught by its entry."""

import pytest
import torch
from torch import Tensor

from surrogates import tensors
from surrogates.artifact.certify import EVERY, random_paths
from surrogates.certificate import certify, disagreements

G, K = 1.0, 2.0


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are slower on many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Known:
    """Linear elasticity, neo-Hookean, or small-strain plasticity (exact return, kinematic hardening), and its faults.

    The tangent is `slope` times the derivative; `offset` is a stress that is always there; `skew` makes the shear
    stress follow a normal strain, without an energy behind it.
    """

    def __init__(self, kind: str, d: int, *, sign=1.0, slope=1.0, offset=0.0, skew=0.0) -> None:
        self.kind, self.d, self.sign, self.slope, self.offset, self.skew = kind, d, sign, slope, offset, skew

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, self.d**2, dtype=torch.float64)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.d, dtype=torch.float64)
        if self.kind == "neo-hookean":
            # Not torch.linalg: on several threads it is very slow for matrices so small.
            F_3 = torch.nn.functional.pad(F, (0, 3 - self.d, 0, 3 - self.d)) + torch.diag(torch.arange(3) >= self.d)
            J = tensors.determinant(F_3)[:, None, None]
            F_it = tensors.cofactor(F_3)[:, : self.d, : self.d] / J
            P = G * (F - F_it) + K * torch.log(J) * F_it
        else:
            E = 0.5 * (F + F.transpose(1, 2)) - eye
            tr = E.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
            a = state.reshape(F.shape)
            trial = 2 * G * (E - tr / self.d * eye - a)
            if self.kind == "plastic":
                # |s - H a| <= k; H = 0.2 G, k = 0.01 G
                X = trial - 0.2 * G * a
                size = torch.sqrt((X * X).sum(dim=(1, 2)) + 1e-30)[:, None, None]
                da = ((size - 0.01 * G) / (2.2 * G)).clamp(min=0.0) * X / size
                a, trial = a + da, trial - 2 * G * da
            P, state = trial + K * tr * eye, a.reshape(-1, self.d**2).detach()
        shear = torch.zeros_like(P)
        shear[:, 0, 1] = self.skew * (F[:, 0, 0] - 1)
        return self.sign * P + self.offset + shear, state

    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        F = F.detach().requires_grad_(True)
        P, new_state = self.forward(F, state, dt)
        d = self.d
        rows = [torch.autograd.grad(P[:, i, j].sum(), F, retain_graph=True)[0] for i in range(d) for j in range(d)]
        return P.detach(), new_state, self.slope * torch.stack(rows, dim=1).reshape(-1, d, d, d, d)


def of(law: Known, **options) -> dict:
    """Without the entries of the law against itself, which a module of tests of its own holds."""
    strain = "finite" if law.kind == "neo-hookean" else "small"
    given = {"strain_max": 0.2, "dt": 1.0, "stress_scale": G, "points": 8, "against_itself": False, **options}
    return certify(law, strain=strain, dimension=law.d, **given)


@pytest.mark.parametrize("d", [2, 3])
def test_linear_elasticity_is_exact(d):
    found = of(Known("elastic", d))
    assert found["tangent_difference"] < 1e-9
    assert found["asymmetry"] == 0.0 and found["symmetric"] is True and found["kinks"] == 0.0
    assert found["eigenvalue_min"] == pytest.approx(1.0)
    assert found["virgin_stress"] == found["zero_increment"] == found["dissipated"] == 0.0
    for name in ("element", "patch"):
        assert found[f"newton_order_{name}"] == 4.0 and found[f"newton_iterations_{name}"] == 1


@pytest.mark.parametrize("d", [2, 3])
def test_neo_hookean_converges_at_second_order(d):
    found = of(Known("neo-hookean", d))
    assert found["tangent_difference"] < 1e-8
    assert found["asymmetry"] < 1e-14
    assert 0.7 < found["eigenvalue_min"] < 1.0
    assert found["zero_increment"] == 0.0 and abs(found["dissipated"]) < 1e-12
    for name in ("element", "patch"):
        assert found[f"newton_order_{name}"] == pytest.approx(2.0, abs=0.05)
        assert found[f"newton_iterations_{name}"] <= 4


@pytest.mark.parametrize("d", [2, 3])
def test_plastic_flow_is_loaded_until_it_dissipates(d):
    found = of(Known("plastic", d))
    assert found["tangent_difference"] < 1e-6 and found["asymmetry"] < 1e-12
    # Across the flow, H/(2 G + H) = 1/11 of 2 G is left.
    assert found["eigenvalue_min"] == pytest.approx(1 / 11, rel=1e-6)
    assert found["zero_increment"] < 1e-13
    assert found["dissipated"] > 0.1
    for name in ("element", "patch"):
        assert found[f"newton_order_{name}"] > 1.6


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("kind", ["neo-hookean", "plastic"])
def test_wrong_tangent_is_caught_by_difference_and_order(kind, d):
    found = of(Known(kind, d, slope=1.001))
    assert found["tangent_difference"] == pytest.approx(1e-3, rel=0.01)
    for name in ("element", "patch"):
        assert found[f"newton_order_{name}"] < 1.2
        assert found[f"newton_iterations_{name}"] > of(Known(kind, d))[f"newton_iterations_{name}"]


@pytest.mark.parametrize("d", [2, 3])
def test_tangent_too_soft_for_newton_has_order_zero(d):
    assert of(Known("elastic", d, slope=0.4))["newton_order_patch"] == 0.0  # the error grows by 1.5 an iteration


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("kind", ["elastic", "neo-hookean"])
def test_other_faults_are_caught_by_their_entry(kind, d):
    skew = of(Known(kind, d, skew=0.1))
    assert skew["symmetric"] is False and 0.005 < skew["asymmetry"] < 0.05 and skew["tangent_difference"] < 1e-8
    offset = of(Known(kind, d, offset=1e-3))
    assert offset["virgin_stress"] == pytest.approx(1e-3) and offset["tangent_difference"] < 1e-8
    negative = of(Known(kind, d, sign=-1.0))
    assert negative["eigenvalue_min"] < -0.9 and negative["eigenvalue_negative"] == 1.0


def test_law_that_hardly_flows_is_loaded_to_where_it_flows_most():
    options = {"strain_max": 0.009, "dt": 1.0, "stress_scale": G, "points": 4, "against_itself": False}
    found = certify(Known("plastic", 2), strain="small", dimension=2, **options)
    assert found["newton_strain"] == pytest.approx(0.8 * 0.009)
    assert 0.0 < found["dissipated"] < 0.1


def test_state_that_moves_on_without_strain_is_caught():
    class Creeping(Known):
        def forward(self, F, state, dt):
            return super().forward(F, 0 * state, dt)[0] + 0.01 * state[:, :1, None], state + 1.0  # in no time

    found = of(Creeping("elastic", 2))
    assert found["zero_increment_stress"] == pytest.approx(0.01)
    assert found["zero_increment"] == pytest.approx(1 / 12)  # of a state that reaches 12


def test_certificate_is_reproducible_and_depends_on_its_seed():
    law = Known("plastic", 2)
    assert of(law) == of(law)
    other = of(law, seed=1)
    assert other["eigenvalue_min"] == pytest.approx(1 / 11, rel=1e-6)
    assert other["tangent_difference"] != of(law)["tangent_difference"]


def test_tolerances_tell_a_changed_law_from_another_machine():
    found = of(Known("plastic", 2))
    assert disagreements(found, found) == []
    noise = {name: v if isinstance(v, bool) else v * (1 + 1e-10) for name, v in found.items()}
    assert disagreements(noise, found) == []
    changed = {
        "tangent_difference": 1e-6, "asymmetry": 1e-5, "symmetric": False, "eigenvalue_min": 0.092,
        "virgin_stress": 1.0, "zero_increment": 1e-6, "newton_order_element": 1.0, "newton_order_patch": 1.0,
        "strain_max": 0.3,
    }  # fmt: skip
    for name, value in changed.items():
        assert disagreements({**found, name: value}, found) == [name]
        assert disagreements({key: value for key, value in found.items() if key != name}, found) == [name]


def test_paths_stay_in_range_and_turn():
    for d in (2, 3):
        F = random_paths("small", d, 0.1, points=6, seed=0)
        E = 0.5 * (F + F.transpose(2, 3)) - torch.eye(d, dtype=torch.float64)
        assert 0.03 < float(E.norm(dim=(2, 3)).max()) <= 0.1
        assert float((F - F.transpose(2, 3)).abs().max()) > 0.01
        F = random_paths("finite", d, 0.5, points=6, seed=0)
        H = torch.linalg.svdvals(F).log().norm(dim=-1)
        assert 0.15 < float(H.max()) <= 0.5
        assert 0.01 < float(torch.linalg.det(F).log().abs().max()) < 0.1 * d**0.5 * 0.5


def test_each_path_has_its_own_size_and_little_change_of_volume() -> None:
    """At the turns, path i reaches 0.3 to 1 of its share of the range; its spherical part is at most a tenth."""
    share = torch.logspace(-3, 0, 6, dtype=torch.float64)
    for d in (2, 3):
        eye = torch.eye(d, dtype=torch.float64)
        F = random_paths("small", d, 0.1, points=6, seed=1)[EVERY - 1 :: EVERY]
        size = (0.5 * (F + F.mT) - eye).norm(dim=(2, 3)) / (0.1 * share)
        assert bool(((size >= 0.3 - 1e-9) & (size <= 1.0 + 1e-9)).all())
        F = random_paths("finite", d, 0.5, points=6, seed=1)[EVERY - 1 :: EVERY]
        H = torch.linalg.svdvals(F).log()
        size = H.norm(dim=-1) / (0.5 * share)
        assert bool(((size >= 0.3 - 1e-6) & (size <= 1.0 + 1e-6)).all())
        spherical = H.sum(dim=-1).abs() / d**0.5
        assert bool((spherical <= 0.1 * H.norm(dim=-1) + 1e-9).all())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"strain": "large"}, "strain must be small or finite"),
        ({"dimension": 1}, "dimension 2 or 3"),
        ({"strain_max": 0.0}, "strain_max must be positive, got 0.0."),
        ({"dt": float("nan")}, "dt must be positive"),
    ],
)
def test_bad_arguments_are_one_sentence(change, sentence):
    options = {"strain": "small", "dimension": 2, "strain_max": 0.1, "dt": 1.0, "stress_scale": 1.0, **change}
    with pytest.raises(ValueError, match=sentence):
        certify(Known("elastic", 2), **options)


def test_law_that_fails_in_its_range_is_not_certified():
    with pytest.raises(ValueError, match="cannot be certified: its tangent is not finite"):
        of(Known("elastic", 2, skew=float("nan")))
