"""Laws by name: parameter sets, shipped laws, artifacts, and laws of one's own as modules, callables and files."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws import FINITE, SETS, SMALL, as_law, load_law
from fem.laws.johnson_cook import read_parameters
from fem.laws.neo_hookean import NeoHookean
from micro.build import BuildError, compiler
from surrogates.artifact import Observable, export_law, shipped
from surrogates.artifact.compiled import AGREEMENT

OWN = '''"""A law of one's own in a file: neo-Hookean by its energy, with a state that counts."""

import torch


class Rubber(torch.nn.Module):
    strain, dimension = "finite", 3
    density, bulk_modulus, shear_modulus = 1e3, 48.0, 25.0

    def initial_state(self, n: int) -> torch.Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)

    def forward(self, F: torch.Tensor, state: torch.Tensor, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
        J = torch.linalg.det(F)[:, None, None]
        F_it = torch.linalg.inv(F).transpose(1, 2)
        square = (F * F).sum(dim=(1, 2))[:, None, None]
        return 25.0 * J ** (-2.0 / 3.0) * (F - square / 3.0 * F_it) + 48.5 * (J - 1.0) * J * F_it - 0.5 * (
            J - 1.0
        ) * J * F_it, state + 1.0


def stiff(factor=1.0):
    law = Rubber()
    law.name = "stiff rubber"
    return law


def none():
    return 5
'''
EXACT = NeoHookean(25.0, 48.0, density=1e3)


class ByEnergy(torch.nn.Module):
    """Neo-Hookean whose stress is the derivative of its energy, taken inside `forward`; it observes that energy."""

    strain, dimension = "finite", 3
    density, bulk_modulus, shear_modulus = 1e3, 48.0, 25.0
    observed = (Observable("W", "stored_energy"),)

    def initial_state(self, n):
        return torch.zeros(n, 1, dtype=torch.float64)

    def forward(self, F, state, dt):
        with torch.enable_grad():
            F = F if F.requires_grad else F.detach().requires_grad_(True)
            J = torch.linalg.det(F)
            W = 12.5 * ((F * F).sum(dim=(1, 2)) * J ** (-2 / 3) - 3) + 24.0 * (J - 1) ** 2
            (P,) = torch.autograd.grad(W.sum(), F, create_graph=True)
        return P, W[:, None]

    def observe(self, state):
        return state


@pytest.fixture
def gradients():
    return np.eye(3) + np.random.default_rng(0).uniform(-0.2, 0.2, (9, 3, 3))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "my_law.py").write_text(OWN)
    return tmp_path / "my_law.py"


def agrees(law, F):
    """The law is `EXACT`, stress and tangent."""
    P, _, dP_dF = law.tangent(F, law.initial_state(len(F)), 1.0)
    P_exact, _, exact = EXACT.tangent(F, EXACT.initial_state(len(F)), 1.0)
    np.testing.assert_allclose(P, P_exact, rtol=0, atol=1e-12 * np.abs(P_exact).max())
    np.testing.assert_allclose(law.update(F, law.initial_state(len(F)), 1.0)[0], P_exact, rtol=0, atol=1e-10)
    np.testing.assert_allclose(dP_dF, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("name", ["neo-hookean", "j2", "johnson-cook", "linear-elastic"])
def test_a_classical_law_without_constants_names_its_parameter_sets(name):
    with pytest.raises(ValueError, match=f"The law {name} needs .* by its name: magnesium-{name}"):
        load_law(name)


def test_constants_may_be_given_and_replaced():
    law = load_law("neo-hookean", shear_modulus=1.0, bulk_modulus=2.0, density=3.0)
    assert (law.shear_modulus, law.bulk_modulus, law.density) == (1.0, 2.0, 3.0)
    law = load_law("magnesium-neo-hookean", density=1738.0)
    assert (law.shear_modulus, law.bulk_modulus, law.density) == (25e9, 48e9, 1738.0)
    with pytest.raises(ValueError, match="neo-hookean takes the options .*, got lame_modulus"):
        load_law("magnesium-neo-hookean", lame_modulus=1.0)


def test_every_number_of_a_parameter_set_has_a_source():
    assert {*FINITE, *SMALL} >= set(SETS)
    for chosen in SETS.values():
        for constant in chosen.constants.values():
            assert len(constant.source) > 10


def test_constants_of_a_file_replace_those_of_the_set_and_options_both(tmp_path):
    (tmp_path / "jc.json").write_text('{"A": 1e8, "B": 2e8, "n": 0.5, "C": 0.0, "rate_0": 1.0, "lame_modulus": 3e9}')
    law = load_law("magnesium-johnson-cook", parameters=tmp_path / "jc.json", B=0.0)
    assert law.flow_stress(0.3, 1.0) == 1e8
    assert (law.bulk_modulus, law.shear_modulus) == (6e9, 25e9)  # older files have half of the bulk modulus
    assert "lame_modulus" not in read_parameters(tmp_path / "jc.json")


def test_fitted_constants_are_those_of_the_shipped_file():
    file = next(entry.file for entry in shipped() if entry.name == "polycrystal-johnson-cook")
    law, values = load_law("polycrystal-johnson-cook"), read_parameters(file)
    assert law.flow_stress(1.0, 1.0) == pytest.approx(values["A"] + values["B"], rel=1e-15)
    assert law.bulk_modulus == values["bulk_modulus"] == 48e9


@pytest.mark.parametrize("name", ["magnesium-recurrent", "magnesium-pca-net"])
def test_shipped_path_laws_are_evaluated_in_compiled_form(name):
    try:
        compiler()
    except BuildError as error:
        pytest.skip(str(error))
    law, plain = load_law(name), load_law(name, compiled=False)
    assert (law.compiled is not None, plain.compiled) == (True, None)
    rng = np.random.default_rng(1)
    F, state = np.eye(3) + 0.02 * rng.standard_normal((30, 3, 3)), law.initial_state(30)
    P, expected = law.update(F, state, 1e-7)[0].copy(), plain.update(F, state, 1e-7)[0]
    assert np.abs(P - expected).max() < AGREEMENT * np.abs(expected).max()
    assert "compiled" in law.summary()


@pytest.mark.parametrize("name", ["magnesium-recurrent", "recurrent", "recurrent.pt"])
def test_a_shipped_law_is_found_by_its_name_and_by_that_of_its_file(name):
    law = load_law(name, dtype="float64")
    assert (law.name, law.strain, law.manifest.dtype) == ("recurrent", "finite", "float64")


def test_roles_of_a_shipped_law_lead_to_its_columns():
    law = load_law("lattice-square-1")
    assert law.observed[law.column("bar_force", 2)] == "force_3"
    assert law.observed[law.column("node_displacement", 1, 1)] == "u_2y"
    assert law.column("bar_force", 6) is None
    F = np.eye(2) + np.array([[[1.5, 0.2], [0.2, -0.3]]])
    _, state = law.update(F, law.initial_state(1), 1.0)
    observed = law.observe(state)[0]
    assert law.stored_energy(F, state)[0] == observed[law.observed.index("psi")] > 0.0
    assert law.dissipation(state)[0] == observed[law.observed.index("dissipation")] > 0.0


def test_a_module_of_ones_own_is_a_law(own, gradients, monkeypatch):
    monkeypatch.syspath_prepend(own.parent)
    agrees(load_law("my_law:Rubber"), gradients)
    assert load_law("my_law:stiff", factor=2.0).name == "stiff rubber"
    agrees(load_law(f"{own}:Rubber"), gradients)
    with pytest.raises(ValueError, match="got an unexpected keyword argument 'fctor'"):
        load_law("my_law:stiff", fctor=2.0)
    with pytest.raises(ValueError, match="got int, which lacks name, strain, dimension"):
        load_law("my_law:none")


def test_a_law_may_differentiate_its_energy_inside(gradients):
    law = as_law(ByEnergy())
    agrees(law, gradients)
    _, state = law.update(gradients, law.initial_state(9), 1.0)
    np.testing.assert_allclose(
        law.stored_energy(gradients, state), EXACT.stored_energy(gradients, np.zeros((9, 0))), rtol=1e-10, atol=1e-12
    )
    assert law.dissipation(state) is None


def test_a_law_of_ones_own_is_exported_and_runs_the_same(own, gradients, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(own.parent)
    import my_law

    manifest = export_law(tmp_path / "own.pt", my_law.Rubber())
    assert manifest["kind"] == "own" and manifest["schema"] == 2 and manifest["certificate"]["asymmetry"] < 1e-12
    law = load_law(tmp_path / "own.pt")
    agrees(law, gradients)
    assert (law.density, law.name) == (1e3, "Rubber")


def test_a_solver_takes_a_law_of_ones_own(own, cells):
    press = [Dirichlet("foot", i) for i in range(3)] + [Dirichlet("top", 2, lambda x, t: -0.1 * t + 0 * x[0])]
    found = []
    for law in (EXACT, load_law(f"{own}:Rubber")):
        solver = ImplicitSolver(cells("hexahedron", 2), law, prescribed=press)
        solver.run(1.0, step=1.0).finish()
        found.append(solver.u.x.array.copy())
    assert np.abs(found[0]).max() > 0.09
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"density": None}, "Lacking: a law needs the attributes .*; density is missing"),
        ({"strain": "large"}, "strain must be finite or small"),
        ({"bulk_modulus": -1.0}, "bulk_modulus must be a positive number, got -1"),
        ({"forward": lambda self, F, state, dt: (F[:, :, :1], state)}, "forward must return"),
        ({"observed": ("a", "b")}, "observe must return"),
    ],
)
def test_a_module_that_lacks_something_is_refused(changes, words):
    attributes = {name: value for name, value in {**vars(ByEnergy), **changes}.items() if value is not None}
    lacking = type("Lacking", (torch.nn.Module,), attributes)
    with pytest.raises(ValueError, match=words):
        as_law(lacking())


def test_laws_pass_as_they_are():
    assert as_law(EXACT) is EXACT and load_law(EXACT) is EXACT
    with pytest.raises(ValueError, match="must be a name, a law or a PyTorch module, got list, which lacks name"):
        as_law([1.0])


def test_names_need_neither_training_code_nor_solvers_of_micro():
    """Of micro only what compiles a C file, which needs the standard library alone."""
    code = "import sys, fem.laws; fem.laws.load_law('magnesium-recurrent'); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.split(".")[0] in ("micro", "surrogates")}
    builder = {"micro", "micro.build", "micro.data", "micro.data.files", "micro.threads"}
    rest = {name for name in ours if name != "surrogates" and not name.startswith("surrogates.artifact")}
    assert ours and rest <= builder
