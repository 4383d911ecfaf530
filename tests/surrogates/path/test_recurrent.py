"""The recurrent law: exact properties that hold whatever the weights, and its compiled form."""

import logging

import numpy as np
import pytest
import torch

from micro.build import BuildError
from surrogates.artifact import compiled, evaluator, switch_fusion_off
from surrogates.artifact.compiled import AGREEMENT, compile_law, disagreement, update
from surrogates.artifact.compiled_recurrent import CompiledRecurrentLaw
from surrogates.path.corotated import first_piola, five, from_five, pieces, relative, strain, stretch
from surrogates.path.overlay import Overlay, Sizes
from surrogates.path.recurrent import RecurrentLaw

K, G = 48e9, 25e9
SIZES = Sizes(3, 2, mixed=4, products=3, basis=5, width=12)
EYE = torch.eye(3, dtype=torch.float64)


def make(sizes: Sizes = SIZES, seed: int = 2) -> RecurrentLaw:
    """A law with random weights in single precision."""
    law = RecurrentLaw(Overlay(sizes, seed=1), bulk=K, shear=G)
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return law


@pytest.fixture(scope="module")
def law() -> RecurrentLaw:
    """The same in double precision."""
    return make().double()


def path_of_F(n: int = 5, steps: int = 30) -> torch.Tensor:
    """F (T, n, 3, 3) up to some ten per cent, with rotation and change of volume."""
    direction = 0.1 * torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.matrix_exp(torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None, None, None] * direction)


def drive(law: RecurrentLaw, F: torch.Tensor, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Lead points along F (T, n, 3, 3), the first being their virgin state; return all P and the last state."""
    state, stresses = law.initial_state(F.shape[1]), []
    with torch.no_grad():
        for F_k in F[1:]:
            P, state = law(F_k, state, dt)
            stresses.append(P)
    return torch.stack(stresses), state


def test_virgin_stress_is_zero_and_virgin_tangent_elastic(law: RecurrentLaw) -> None:
    P, _, dP_dF = law.tangent(EYE[None], law.initial_state(1), 1e-8)
    assert float(P.abs().max()) == 0.0
    delta = torch.einsum("ik,jl->ijkl", EYE, EYE)
    swapped = torch.einsum("il,jk->ijkl", EYE, EYE)
    volume = torch.einsum("ij,kl->ijkl", EYE, EYE)
    hooke = G * (delta + swapped) + (K - 2 * G / 3) * volume
    torch.testing.assert_close(dP_dF[0], hooke, rtol=0, atol=1e-6 * K)


def test_tangent_is_the_derivative(law: RecurrentLaw) -> None:
    F = path_of_F()
    _, state = drive(law, F[:-1], 1e-7)
    _, _, dP_dF = law.tangent(F[-1], state, 1e-7)
    h = 1e-7
    for k in range(3):
        for l in range(3):
            step = torch.zeros(3, 3, dtype=torch.float64)
            step[k, l] = h
            with torch.no_grad():
                difference = (law(F[-1] + step, state, 1e-7)[0] - law(F[-1] - step, state, 1e-7)[0]) / (2 * h)
            torch.testing.assert_close(dP_dF[..., k, l], difference, rtol=0, atol=1e-6 * K)


def test_frame_indifference(law: RecurrentLaw) -> None:
    """P(Q F) = Q P(F) for a rotation that changes along the path, which the state does not see."""
    F = path_of_F()
    spin = torch.tensor([[0.0, -0.7, 0.3], [0.7, 0.0, -0.2], [-0.3, 0.2, 0.0]], dtype=torch.float64)
    Q = torch.matrix_exp(torch.linspace(0, 2, len(F), dtype=torch.float64)[:, None, None] * spin)[:, None]
    plain, state = drive(law, F, 1e-7)
    turned, turned_state = drive(law, Q @ F, 1e-7)
    torch.testing.assert_close(turned, Q[1:] @ plain, rtol=0, atol=1e-9 * float(plain.abs().max()))
    torch.testing.assert_close(turned_state, state, rtol=1e-9, atol=1e-9)


def test_isotropy(law: RecurrentLaw) -> None:
    """P(F Q) = P(F) Q for a fixed rotation of the reference configuration."""
    F = path_of_F()
    Q = torch.matrix_exp(torch.tensor([[0.0, -0.7, 0.3], [0.7, 0.0, -0.2], [-0.3, 0.2, 0.0]], dtype=torch.float64))
    plain, _ = drive(law, F, 1e-7)
    turned, _ = drive(law, Q @ F @ Q.T, 1e-7)
    torch.testing.assert_close(turned, Q @ plain @ Q.T, rtol=0, atol=1e-9 * float(plain.abs().max()))


def test_corotated_frame_keeps_the_deformation(law: RecurrentLaw) -> None:
    """G^T G = F^T F after any number of steps, and G of a pure stretch without turning axes is that stretch."""
    F = path_of_F(steps=200)
    _, state = drive(law, F, 1e-7)
    found = law.unpack(state)[0]
    torch.testing.assert_close(found.mT @ found, F[-1].mT @ F[-1], rtol=1e-10, atol=1e-10)
    t = torch.linspace(0, 1, 60, dtype=torch.float64)
    stretches = torch.diag_embed(torch.stack([1 + 0.3 * t, 1 - 0.2 * t, 1 + 0.1 * t * t], dim=1)).unsqueeze(1)
    _, state = drive(law, stretches, 1e-7)
    torch.testing.assert_close(law.unpack(state)[0], stretches[-1], rtol=0, atol=1e-9)


def test_increments_add_up_to_the_logarithmic_strain() -> None:
    t = torch.linspace(0, 1, 200, dtype=torch.float64)
    stretches = torch.diag_embed(torch.stack([torch.exp(0.5 * t), torch.exp(-0.3 * t), torch.exp(-0.1 * t)], dim=1))
    found, frame = torch.zeros(5, dtype=torch.float64), EYE[None]
    for F in stretches[1:]:
        D, S = stretch(relative(F[None], frame))
        found, frame = found + D[0], S @ frame
    torch.testing.assert_close(found, five(torch.diag(stretches[-1].diagonal().log())), rtol=1e-8, atol=1e-9)
    b = stretches[-1] @ stretches[-1]
    b = 3 * b / b.trace()
    torch.testing.assert_close(strain(stretches[-1:])[0], five((b - EYE) @ torch.linalg.inv(b + EYE)))


def test_first_piola_is_that_of_the_kirchhoff_stress() -> None:
    """P = tau F^-T with tau = Q tau_hat Q^T + K (J - 1) J I, F = Q G."""
    F = path_of_F()[-1]
    Q, R = torch.linalg.qr(F)
    tau_hat = from_five(1e8 * torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    J = torch.linalg.det(F).reshape(-1, 1, 1)
    tau = Q @ tau_hat @ Q.mT + K * (J - 1) * J * EYE
    torch.testing.assert_close(first_piola(F, R, tau_hat, K), tau @ torch.linalg.inv(F).mT, rtol=1e-9, atol=1.0)


def test_a_large_step_is_cut_as_its_user_would_cut_it(law: RecurrentLaw) -> None:
    C = torch.diag(torch.tensor([1.016, 0.99, 0.995], dtype=torch.float64))
    whole = torch.linalg.cholesky(C).mT[None]
    count = int(pieces(relative(whole, EYE[None]), law.limit))
    assert count > 2
    state = law.initial_state(1)
    with torch.no_grad():
        P, once = law(whole, state, 1e-8 * count)
        for k in range(1, count + 1):
            F = torch.linalg.cholesky(EYE + k / count * (C - EYE)).mT[None]
            cut, state = law(F, state, 1e-8)
    torch.testing.assert_close(cut, P, rtol=1e-8, atol=1.0)
    torch.testing.assert_close(state, once, rtol=1e-8, atol=1e-10)
    assert (
        int(pieces(relative(1e3 * torch.diag(torch.tensor([1.0, 1e-6, 1.0]))[None].double(), EYE[None]), 1e-9))
        == 10_000
    )


def test_points_do_not_depend_on_their_batch(law: RecurrentLaw) -> None:
    """One point takes many pieces, the others one."""
    F = path_of_F()
    F[-1, 0] = F[-1, 0] @ torch.diag(torch.tensor([1.3, 0.9, 0.9], dtype=torch.float64))
    P, state = drive(law, F, 1e-7)
    for k in range(F.shape[1]):
        alone, own = drive(law, F[:, k : k + 1], 1e-7)
        torch.testing.assert_close(alone[:, 0], P[:, k], rtol=1e-9, atol=1.0)
        torch.testing.assert_close(own[0], state[k], rtol=1e-9, atol=1e-10)


def test_energy_balance(law: RecurrentLaw) -> None:
    """Work = stored energy + dissipation along a path, to the order of the steps; dissipation never falls."""
    errors = []
    for steps in (100, 200):
        F, state, P_n = path_of_F(steps=steps), law.initial_state(5), torch.zeros(5, 3, 3, dtype=torch.float64)
        work, lost = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
        for k in range(1, steps + 1):
            P, state = law(F[k], state, 1e-5 / steps)
            work += (0.5 * (P + P_n) * (F[k] - F[k - 1])).sum((1, 2)).detach()
            seen = law.observe(state).detach()
            assert float((seen[:, 1] - lost).min()) >= -1e-9 * float(seen[:, 1].max())
            lost, P_n = seen[:, 1], P
        errors.append(float(((seen[:, 0] + lost - work) / work).abs().max()))
    assert errors[1] < 2e-3 and errors[0] > 1.7 * errors[1]


@pytest.fixture(scope="module")
def scripted() -> torch.jit.ScriptModule:
    switch_fusion_off()
    return torch.jit.script(make())


def compiled_or_skip(module: torch.nn.Module) -> CompiledRecurrentLaw:
    try:
        return CompiledRecurrentLaw(module)
    except BuildError as error:
        pytest.skip(str(error))


def test_compiled_form_agrees(scripted: torch.jit.ScriptModule) -> None:
    assert disagreement(compiled_or_skip(scripted), scripted) < AGREEMENT


@pytest.mark.parametrize("sizes", [Sizes(1, 1, 1, 1, 1, 1), Sizes(4, 6, 8, 8, 10, 64)], ids=["smallest", "default"])
def test_compiled_form_agrees_for_other_sizes(sizes: Sizes) -> None:
    law = make(sizes)
    assert disagreement(compiled_or_skip(law), law, points=5, steps=6) < AGREEMENT


def test_compiled_points_do_not_depend_on_their_batch(scripted: torch.jit.ScriptModule) -> None:
    law, F = compiled_or_skip(scripted), path_of_F(n=41)[-1].numpy()
    P, state = update(law, F, np.zeros((41, 36)), 1e-6)
    for part in (slice(0, 1), slice(3, 20), slice(40, 41), slice(0, 0)):
        cut = np.ascontiguousarray(F[part])
        alone, own = update(law, cut, np.zeros((len(cut), 36)), 1e-6)
        np.testing.assert_array_equal(alone, P[part])
        np.testing.assert_array_equal(own, state[part])


def test_a_compiled_form_that_differs_is_not_used(
    scripted: torch.jit.ScriptModule, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiled_or_skip(scripted)
    assert compile_law(scripted) is not None
    assert compile_law(make().double()) is None, "single precision only"
    assert compile_law(torch.nn.Linear(2, 2)) is None, "no recurrent law"
    monkeypatch.setattr(compiled, "AGREEMENT", 0.0)
    with caplog.at_level(logging.WARNING):
        assert compile_law(scripted) is None
    assert "differs from the artifact" in caplog.text


def test_without_a_compiler_pytorch_evaluates(
    scripted: torch.jit.ScriptModule, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise BuildError("there is no C compiler")

    monkeypatch.setattr(evaluator, "_library", fails)
    with caplog.at_level(logging.WARNING):
        assert compile_law(scripted) is None
    assert "there is no C compiler" in caplog.text
