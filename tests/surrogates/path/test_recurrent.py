"""The recurrent law: exact properties that hold whatever the weights, and training that resumes."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from surrogates import tensors
from surrogates.artifact import switch_fusion_off
from surrogates.path import recurrent
from surrogates.path.data import Samples
from surrogates.path.recurrent import RecurrentConfig, RecurrentLaw, build, fit, increment
from surrogates.training.checkpoint import Checkpoint

K, G = 48e9, 25e9
CONFIG = RecurrentConfig(elastic=2, memory=2, width=12, texture_width=8, epochs=4, batch=4)
EYE = torch.eye(3, dtype=torch.float64)


def paths(n: int = 12, steps: int = 24, seed: int = 0) -> Samples:
    """Random smooth paths with the stress of an isotropic Maxwell law in the unrotated frame, and exact pressure."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, steps + 1)
    waves = np.sin(np.pi * time[None, :, None] * rng.uniform(0.5, 3, size=(n, 1, 6)))
    U = np.array([1.0, 1, 1, 0, 0, 0]) + 0.1 * waves * rng.choice([-1, 1], size=(n, 1, 6))
    full = torch.from_numpy(U[..., [0, 3, 5, 3, 1, 4, 5, 4, 2]].reshape(-1, 3, 3))
    J = tensors.determinant(full)
    U_bar = tensors.isochoric(full, J).reshape(n, steps + 1, 3, 3)
    e = torch.zeros(n, 6, dtype=torch.float64)
    stress = torch.zeros(n, steps + 1, 6, dtype=torch.float64)
    for k in range(1, steps + 1):
        _, D = increment(U_bar[:, k - 1], U_bar[:, k])
        length = D.norm(dim=1, keepdim=True)
        e = (e + D) * torch.exp(-50 * length)
        stress[:, k] = 2 * G * e
    sigma = stress / J.reshape(n, -1, 1)
    sigma[..., :3] += (K * (J - 1)).reshape(n, -1, 1)
    sigma[..., 3:] /= 2**0.5
    return Samples(U, sigma.numpy(), np.full(n, 1e-5), np.tile(time, (n, 1)), np.arange(n))


@pytest.fixture(scope="module")
def law() -> RecurrentLaw:
    """A law with random weights, in float64: the properties hold for every weight."""
    law = build(CONFIG, paths()).double()
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return law


def drive(law: RecurrentLaw, F: torch.Tensor, dt: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Lead points along F (T, n, 3, 3), the first being their virgin state; return all P and the last state."""
    state, stresses = law.initial_state(F.shape[1]), []
    with torch.no_grad():
        for F_k in F[1:]:
            P, state = law(F_k, state, dt)
            stresses.append(P)
    return torch.stack(stresses), state


def path_of_F(n: int = 5, steps: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    direction = 0.2 * torch.randn(n, 3, 3, generator=generator, dtype=torch.float64)
    return torch.matrix_exp(torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None, None, None] * direction)


def test_virgin_stress_is_zero_and_virgin_tangent_elastic(law: RecurrentLaw) -> None:
    state = law.initial_state(1)
    P, _, dP_dF = law.tangent(EYE[None], state, 1e-8)
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
    h = 1e-6
    for k in range(3):
        for l in range(3):
            step = torch.zeros(3, 3, dtype=torch.float64)
            step[k, l] = h
            with torch.no_grad():
                difference = (law(F[-1] + step, state, 1e-7)[0] - law(F[-1] - step, state, 1e-7)[0]) / (2 * h)
            torch.testing.assert_close(dP_dF[..., k, l], difference, rtol=0, atol=1e-6 * K)


def test_frame_indifference(law: RecurrentLaw) -> None:
    """P(Q F) = Q P(F) for a rotation that changes along the path."""
    F = path_of_F()
    spin = torch.tensor([[0.0, -0.7, 0.3], [0.7, 0.0, -0.2], [-0.3, 0.2, 0.0]], dtype=torch.float64)
    Q = torch.matrix_exp(torch.linspace(0, 2, len(F), dtype=torch.float64)[:, None, None] * spin)[:, None]
    plain, state = drive(law, F, 1e-7)
    turned, turned_state = drive(law, Q @ F, 1e-7)
    torch.testing.assert_close(turned, Q[1:] @ plain, rtol=0, atol=1e-10 * float(plain.abs().max()))
    torch.testing.assert_close(turned_state, state, rtol=1e-10, atol=1e-10)


def test_without_texture_the_law_is_isotropic(law: RecurrentLaw) -> None:
    isotropic = build(CONFIG, paths()).double()
    isotropic.load_state_dict(law.state_dict())
    with torch.no_grad():
        for parameter in isotropic.relaxation.texture[-1].parameters():
            parameter.zero_()
    F = path_of_F()
    Q = torch.matrix_exp(torch.tensor([[0.0, -0.7, 0.3], [0.7, 0.0, -0.2], [-0.3, 0.2, 0.0]], dtype=torch.float64))
    plain, _ = drive(isotropic, F, 1e-7)
    turned, _ = drive(isotropic, Q @ F @ Q.T, 1e-7)
    torch.testing.assert_close(turned, Q @ plain @ Q.T, rtol=0, atol=1e-10 * float(plain.abs().max()))
    assert float((drive(law, Q @ F @ Q.T, 1e-7)[0] - Q @ drive(law, F, 1e-7)[0] @ Q.T).abs().max()) > 1e-6 * K


def test_without_a_target_memory_fades_at_its_rate_and_elastic_strains_by_their_size(law: RecurrentLaw) -> None:
    """h exp(-a g Delta) in closed form; g = |h|^2 / (1 + |h|^2) of the elastic strains, 1 of the memory."""
    step = copy.deepcopy(law.relaxation).double()
    with torch.no_grad():
        for network in (step.isotropic, step.texture):
            for parameter in network[-1].parameters():
                parameter.zero_()
    length, m = 2e-3, step.elastic
    D = torch.tensor([[1.0, -1.0, 0, 0, 0, 0]], dtype=torch.float64) * (length / 2**0.5)
    E, log_rate = torch.zeros(1, 6, dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
    rates = step.rates.double() * np.log(2.0)  # softplus(0)
    for size in (0.1, 1.0, 10.0):
        h = torch.randn(1, step.tensors, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        h = size * h / h.norm(dim=2, keepdim=True)
        start = h.clone()
        start[:, :m] -= D / step.scale  # so that the elastic strains have this size after the predictor
        gate = torch.ones(step.tensors, dtype=torch.float64)
        gate[:m] = size**2 / (1 + size**2)
        with torch.no_grad():
            new = step(E, D, log_rate, start)
        torch.testing.assert_close(new, h * torch.exp(-rates * gate * length)[:, None], rtol=1e-6, atol=0)


def test_zero_increment_changes_nothing(law: RecurrentLaw) -> None:
    F = path_of_F()
    P, state = drive(law, F, 1e-7)
    with torch.no_grad():
        P_again, state_again = law(F[-1], state, 1e-7)
    torch.testing.assert_close(P_again, P[-1], rtol=0, atol=1e-9 * K)
    torch.testing.assert_close(state_again[:, :-3], state[:, :-3], rtol=0, atol=1e-9)


def test_stress_is_continuous_when_straining_turns(law: RecurrentLaw) -> None:
    """After ever smaller steps in two opposite directions the stress is the same: the jump is of first order."""
    F = path_of_F()
    _, state = drive(law, F, 1e-7)
    direction = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    jumps = []
    for size in (1e-4, 1e-5, 1e-6):
        with torch.no_grad():
            forth, back = (law(F[-1] + s * direction, state, 1e-7 * size / 1e-4)[0] for s in (size, -size))
        jumps.append(float((forth - back).abs().max()))
    assert jumps[0] / jumps[1] == pytest.approx(10, rel=0.5) and jumps[1] / jumps[2] == pytest.approx(10, rel=0.5)


def test_pressure_is_exact(law: RecurrentLaw) -> None:
    F = path_of_F() * torch.linspace(1, 1.1, 31, dtype=torch.float64)[:, None, None, None]
    P, _ = drive(law, F, 1e-7)
    J = torch.linalg.det(F[-1])
    mean = torch.einsum("nij,nij->n", P[-1], F[-1]) / (3 * J)
    torch.testing.assert_close(mean, K * (J - 1), rtol=1e-10, atol=1e-3)


def test_scripted_equals_eager_and_batches_do_not_matter(law: RecurrentLaw, tmp_path: Path) -> None:
    switch_fusion_off()
    scripted = torch.jit.script(law)
    F = path_of_F()
    plain, state = drive(law, F, 1e-7)
    other, other_state = drive(scripted, F, 1e-7)
    torch.testing.assert_close(other, plain, rtol=1e-12, atol=1e-3)
    torch.testing.assert_close(other_state, state, rtol=1e-12, atol=1e-12)
    order = torch.tensor([3, 1, 4])
    some, some_state = drive(law, F[:, order], 1e-7)
    torch.testing.assert_close(some, plain[:, order], rtol=1e-10, atol=1e-3)
    torch.testing.assert_close(some_state, state[order], rtol=1e-10, atol=1e-12)
    assert drive(law, F[:, :0], 1e-7)[0].shape == (30, 0, 3, 3)


def test_training_descends(check_descent: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """On all times of the paths in every epoch."""
    monkeypatch.setattr(recurrent, "_times", lambda rng, steps: np.arange(steps + 1))
    data = paths()

    def loss_after(epochs: int, rate: float) -> float:
        config = dataclasses.replace(CONFIG, epochs=epochs, batch=12, learning_rate=rate, final_rate=rate / 10)
        return fit(build(config, data), data, data, config)["training_loss"]

    check_descent(loss_after, 1e-5)


def test_a_stopped_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    data = paths()
    config = dataclasses.replace(CONFIG, epochs=40)
    whole = build(config, data)
    fit(whole, data, data, config)

    class Interrupted(Exception):
        pass

    class Stops(Checkpoint):
        def save(self, state: dict) -> None:
            super().save(state)
            if state["epoch"] == 24:
                raise Interrupted

    file = tmp_path / "checkpoint"
    with pytest.raises(Interrupted):
        fit(build(config, data), data, data, config, checkpoint=Stops(file, 8, True, "x"))
    resumed = build(config, data)
    fit(resumed, data, data, config, checkpoint=Checkpoint(file, 8, True, "x"))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("field", "value"), [("elastic", 0), ("memory", -1), ("epochs", 0), ("final_rate", 1.0)])
def test_bad_configuration_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        RecurrentConfig(**{field: value})
