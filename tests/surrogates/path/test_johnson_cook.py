"""Johnson-Cook: the batched law, its agreement with the compiled one, and constants found again."""

import json

import numpy as np
import pytest
import torch

from micro.crystal.paths import random_walk
from surrogates import tensors, train
from surrogates.path import johnson_cook
from surrogates.path.data import Samples, mandel, matrices
from surrogates.path.errors import coarsen, relative_errors
from surrogates.path.sets import Sets

CONSTANTS = torch.tensor([3e8, 4e8, 0.4, 0.05], dtype=torch.float64)
G, K = 25e9, 48e9


@pytest.fixture(scope="module")
def jc_samples():
    """Paths whose stress is that of the law itself."""
    paths = random_walk(range(24), 5, strain=0.2, steps=40, duration=(1e-6, 1e-4))
    bare = Samples(paths.U, np.zeros_like(paths.U), paths.duration, paths.time, np.arange(24))
    stress = johnson_cook.drive(bare, CONSTANTS, G, K)
    stress[..., 3:] /= 2**0.5
    return Samples(paths.U, stress.numpy(), paths.duration, paths.time, np.arange(24))


def test_flow_stress_is_the_formula():
    e, rate = torch.tensor([0.25], dtype=torch.float64), torch.tensor([1e5], dtype=torch.float64)
    value = johnson_cook.flow_stress(e, rate, CONSTANTS).item()
    assert value == pytest.approx((3e8 + 4e8 * 0.25**0.4) * (1 + 0.05 * np.log(100)))
    slow = johnson_cook.flow_stress(e, torch.tensor([1.0], dtype=torch.float64), CONSTANTS).item()
    assert slow == pytest.approx(3e8 + 4e8 * 0.25**0.4)


def test_flowing_stress_is_on_the_yield_surface_and_inelastic_flow_keeps_the_volume():
    F = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    C_inv, e, dt = F.clone(), torch.zeros(2, dtype=torch.float64), torch.full((2,), 1e-8, dtype=torch.float64)
    for k in range(1, 30):
        F[0, 0, 1] = 0.005 * k
        F[1, 0, 0] = 1 + 0.005 * k
        tau, C_inv, e_new = johnson_cook.update(F, C_inv, e, dt, CONSTANTS, G)
        q = 1.5**0.5 * tau.flatten(1).norm(dim=1)
        flows = e_new > e
        Y = johnson_cook.flow_stress(e_new, (e_new - e) / dt, CONSTANTS)
        assert torch.allclose(q[flows], Y[flows], rtol=1e-9)
        assert torch.allclose(torch.linalg.det(C_inv), torch.ones(2, dtype=torch.float64), rtol=1e-10)
        e = e_new
    assert bool((e > 0.05).all())


def test_small_strain_is_elastic():
    F = torch.eye(3, dtype=torch.float64).repeat(1, 1, 1)
    F[0, 0, 1] = 1e-4
    C_inv, e = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, dtype=torch.float64)
    tau, new, e_new = johnson_cook.update(F, C_inv, e, torch.tensor([1e-8], dtype=torch.float64), CONSTANTS, G)
    assert tau[0, 0, 1].item() == pytest.approx(G * 1e-4, rel=1e-6)
    assert torch.equal(new, C_inv) and e_new.item() == 0.0


def test_agrees_with_the_compiled_law_of_the_macro_solver(jc_samples):
    laws = pytest.importorskip("fem.laws")
    A, B, n, C = CONSTANTS.tolist()
    law = laws.load_law("magnesium-johnson-cook", A=A, B=B, n=n, C=C, rate_0=johnson_cook.RATE_0)
    one = jc_samples[3:4]
    F = matrices(one.U).numpy()
    dt = np.diff(one.time[0]) * one.duration[0]
    state = law.initial_state(1)
    C_inv, e = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, dtype=torch.float64)
    for k in range(1, 41):
        P, state = law.update(F[:, k], state, dt[k - 1])
        step = torch.tensor([dt[k - 1]], dtype=torch.float64)
        _, C_inv, e = johnson_cook.update(torch.from_numpy(F[:, k]), C_inv, e, step, CONSTANTS, G)
        # The state of the compiled law holds its plastic metric in the order of the paths.
        assert np.allclose(state[:, :6], tensors.to_components(C_inv, tensors.PATH_ORDER).numpy(), rtol=1e-8)
        sigma = P @ np.swapaxes(F[:, k], 1, 2) / np.linalg.det(F[:, k])
        expected = one.stress[0, k, [0, 3, 5, 3, 1, 4, 5, 4, 2]].reshape(3, 3)
        assert np.allclose(sigma[0], expected, rtol=1e-9, atol=1e-8 * np.abs(expected).max())


def test_derivative_to_the_constants_matches_differences(jc_samples):
    some = jc_samples[:4]

    def size(p: torch.Tensor) -> torch.Tensor:
        return tensors.deviator(johnson_cook.drive(some, p, G, K)).square().sum()

    p = CONSTANTS.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(size(p), p)
    for i in range(4):
        h = torch.zeros(4, dtype=torch.float64)
        h[i] = 1e-5 * CONSTANTS[i]
        with torch.no_grad():
            difference = (size(CONSTANTS + h) - size(CONSTANTS - h)) / (2 * h[i])
        assert gradient[i].item() == pytest.approx(difference.item(), rel=1e-3)


def test_constants_are_found_again(jc_samples):
    config = johnson_cook.JohnsonCookConfig(paths=24, stride=1, epochs=30)
    sets = Sets((jc_samples,))
    model = johnson_cook.build(config, sets)
    error = johnson_cook.fit(model, sets, sets, config)["training_loss"]
    assert error < 0.02
    e, rate = torch.tensor([0.02, 0.1, 0.4], dtype=torch.float64), torch.tensor([1e4, 1e5, 1e6], dtype=torch.float64)
    assert torch.allclose(
        johnson_cook.flow_stress(e, rate, model.best), johnson_cook.flow_stress(e, rate, CONSTANTS), rtol=0.05
    )


def test_sets_of_different_lengths_count_alike(jc_samples):
    coarse = coarsen(jc_samples[:6], 2)
    sets = Sets((jc_samples, coarse))
    config = johnson_cook.JohnsonCookConfig(paths=8, stride=4, epochs=1)
    parts = johnson_cook.drawn(config, sets)
    assert [part.U.shape[:2] for part in parts] == [(4, 11), (4, 6)]
    model = johnson_cook.build(config, sets)
    truths = [tensors.deviator(mandel(part.stress)) for part in parts]
    with torch.no_grad():
        p = model.constants()
        each = [
            relative_errors(tensors.deviator(johnson_cook.drive(part, p, G, K)), truth).mean()
            for part, truth in zip(parts, truths, strict=True)
        ]
    found = johnson_cook.fit(model, sets, sets, config)
    assert found["paths"] == 8
    assert found["training_loss"] == pytest.approx(float(sum(each)) / 2)
    errors = johnson_cook.errors(model, model, sets, config)
    assert errors["deviatoric"] == pytest.approx(errors["deviatoric_walk"])  # sets without a protocol are walks


def test_command_writes_constants_that_the_law_reads(jc_samples, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(johnson_cook, "load", lambda *_, **__: (Sets((jc_samples[:20],)), Sets((jc_samples[20:],))))
    output = tmp_path / "jc.json"
    words = ["--data", "set", "--output", str(output), "--paths", "4", "--epochs", "2", "--stride", "4"]
    assert train.main(["johnson-cook", *words]) == 0
    content = json.loads(output.read_text())
    assert content["units"]["A"] == "Pa" and content["parameters"]["rate_0"] == 1e3
    assert content["errors"]["held_out_paths"] == 4 and content["errors"]["deviatoric"] < 1
    assert json.loads(capsys.readouterr().out)["parameters"] == content["parameters"]
    laws = pytest.importorskip("fem.laws")
    p = torch.tensor([content["parameters"][key] for key in ("A", "B", "n", "C")], dtype=torch.float64)
    e, rate = torch.tensor([0.1, 1e5], dtype=torch.float64)
    expected = johnson_cook.flow_stress(e, rate, p).item()
    law = laws.load_law("johnson-cook", parameters=output)  # the file holds all constants, moduli and density too
    assert law.flow_stress(0.1, 1e5) == pytest.approx(expected)
    assert law.bulk_modulus == content["parameters"]["bulk_modulus"]
