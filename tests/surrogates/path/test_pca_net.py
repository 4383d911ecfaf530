"""PCA-Net: modes, invariances of its training form, what is learned, resume, and the exported law."""

import dataclasses

import numpy as np
import pytest
import torch

from surrogates import tensors
from surrogates.path import errors, pca_net
from surrogates.path.data import mandel
from surrogates.path.pca_net import GPA, PCANetConfig, cauchy, histories, principal_modes, turns
from surrogates.path.trust import states_along
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.split import split

SMALL = PCANetConfig(modes=12, width=48, depth=2, epochs=4, learning_rate=1e-3)


def test_modes_are_orthonormal_and_carry_the_paths(samples):
    V, _ = histories(samples, SMALL.stress, SMALL.measure)
    U = V + torch.tensor([1.0, 1, 1, 0, 0, 0])
    modes = principal_modes(U, 12)
    for c in range(6):
        assert torch.allclose(modes[:, c].t() @ modes[:, c], torch.eye(12, dtype=torch.float64), atol=1e-12)
        kept = U[:, :, c] @ modes[:, c] @ modes[:, c].t()
        s = torch.linalg.svdvals(U[:, :, c])
        residual = (U[:, :, c] - kept).norm() / U[:, :, c].norm()
        assert residual == pytest.approx(float(s[12:].norm() / s.norm()), rel=1e-6)  # Eckart-Young: the best there is
        assert residual < 0.05


def test_turns_are_rotations_of_mandel_vectors():
    Q = turns(5, torch.Generator().manual_seed(0)).double()
    assert torch.allclose(Q @ Q.transpose(1, 2), torch.eye(6, dtype=torch.float64).expand(5, 6, 6), atol=1e-6)
    a = torch.tensor([0.3, -0.1, 0.2, 0.4, -0.5, 0.6], dtype=torch.float64)
    A, turned = tensors.to_matrix(a[None]), tensors.to_matrix(Q @ a)
    assert torch.allclose(torch.linalg.eigvalsh(turned), torch.linalg.eigvalsh(A).expand(5, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(turned), torch.linalg.det(A).expand(5), atol=1e-6)  # not a reflection in 6-D


@pytest.mark.parametrize("measure", ["stretch", "isochoric"])
def test_cauchy_stress_comes_back_from_what_the_network_maps(samples, measure):
    config = dataclasses.replace(SMALL, measure=measure)
    _, target = histories(samples, config.stress, config.measure)
    back = cauchy(target * GPA, samples, config.stress, config.measure)
    assert float(errors.relative_errors(back, mandel(samples.stress)).max()) < 1e-12


def test_isochoric_history_does_not_know_the_volume(samples):
    config = dataclasses.replace(SMALL, measure="isochoric")
    swollen = dataclasses.replace(samples, U=samples.U * 1.1)
    V, V_swollen = (histories(data, config.stress, config.measure)[0] for data in (samples, swollen))
    assert torch.allclose(V, V_swollen, atol=1e-13)


@pytest.mark.parametrize("durations", ["samples", "uneven_samples"])
def test_network_is_silent_for_the_history_that_stays_at_the_identity(durations, request):
    data = request.getfixturevalue(durations)
    model = pca_net.build(SMALL, data)
    assert (model.log_spread > 0) == (durations == "uneven_samples")
    code = torch.zeros(3, 6, 12)
    assert model(code, torch.tensor([1e-6, 2e-6, 4e-6])).abs().max() < 1e-6
    assert model(code + 0.1, torch.tensor([1e-6, 2e-6, 4e-6])).abs().max() > 1e-3


@pytest.mark.parametrize("augment", [False, True])
def test_training_descends(samples, check_descent, monkeypatch, augment):
    """Turned by the same rotations in every epoch, where it turns the paths at all."""
    monkeypatch.setattr(pca_net, "turns", lambda n, _: turns(n, torch.Generator().manual_seed(0)))

    def loss_after(epochs, rate):
        monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.arange(n))
        config = dataclasses.replace(
            SMALL, epochs=epochs, batch=1000, learning_rate=rate, final_rate=rate / 10, augment=augment
        )
        return pca_net.fit(pca_net.build(config, samples), samples, samples[:1], config)["training_loss"]

    check_descent(loss_after, 2e-5)


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_training_fits_the_paths(samples, optimiser):
    rate = {"adam": 3e-3, "muon": 3e-2}[optimiser]
    config = dataclasses.replace(SMALL, epochs=60, learning_rate=rate, final_rate=0.0, optimiser=optimiser)
    found = pca_net.fit(pca_net.build(config, samples), samples, samples[:1], config)
    assert found["updates"] == 60 * 4
    assert found["training_loss"] < 0.35  # 0.98 of a network that gives no stress


@pytest.mark.parametrize("stress", ["full", "deviator"])
def test_loss_of_codes_is_the_error_of_the_decoded_stress(samples, stress):
    config = dataclasses.replace(SMALL, stress=stress)
    model = pca_net.build(config, samples)
    V, sigma = (x.float() for x in histories(samples, config.stress, config.measure))
    pairs = pca_net.pair(model, V, sigma, torch.from_numpy(samples.duration).float())
    code = pairs.stress + 0.1 * torch.randn(pairs.stress.shape, generator=torch.Generator().manual_seed(2))
    decoded = torch.einsum("scd,tcd->stc", code, model.psi)
    assert float(pairs.rest.min()) > 0  # part of the stress is outside the modes
    expected = errors.relative_errors(decoded, sigma).mean()
    assert torch.allclose(pca_net.relative_loss(code, pairs), expected, rtol=1e-4)
    best = pca_net.relative_loss(pairs.stress, pairs)
    kept = torch.einsum("scd,tcd->stc", pairs.stress, model.psi)
    assert torch.allclose(best, errors.relative_errors(kept, sigma).mean(), rtol=1e-3)


@pytest.mark.parametrize("continuation", ["hold", "linear", "fading"])
def test_training_continues_a_history_as_the_law_on_line_does(samples, continuation):
    config = dataclasses.replace(SMALL, continuation=continuation)
    model = pca_net.build(config, samples).double()
    law = pca_net.export(model, samples, config)
    V = histories(samples, config.stress, config.measure)[0]
    cut = torch.tensor([1, 7, 20, 39, 40]).repeat(12)
    continued = pca_net.continued_history(V, cut, law.horizon)
    code = pca_net.encode(continued, model.phi)
    expected = code.flatten(1) @ model.layers[0].weight.t() / model.scales[0]
    state, found = law.initial_state(60), torch.zeros(60, config.width, dtype=torch.float64)
    for k in range(1, 41):
        now = state[:, -2] + 1e-6 / 40
        first, padded = law.encode(V[:, k], state, now)
        state = torch.cat([first, V[:, k], now[:, None], now[:, None]], dim=1)
        found[cut == k] = padded[cut == k]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(continued[cut == 40], V[cut == 40])


def test_loss_of_a_cut_path_is_the_error_of_the_stress_at_the_cut(samples):
    model = pca_net.build(SMALL, samples)
    V, sigma = (x.float() for x in histories(samples, SMALL.stress, SMALL.measure))
    code = model(model.encode(V), torch.full((60,), 1e-6))
    cut = torch.arange(60) % 40 + 1
    now = (torch.arange(41) == cut[:, None])[..., None]
    wrong = torch.where(now, model.decode(code), 1e3)  # at all other times the stress may be anything
    expected = (wrong - sigma).mul(now).flatten(1).norm(dim=1) / sigma.flatten(1).norm(dim=1) * 41**0.5
    assert torch.allclose(pca_net.loss_now(model, code, sigma, cut), expected.mean(), rtol=1e-5)


def test_a_share_of_each_batch_is_cut_anywhere(samples, monkeypatch):
    config = dataclasses.replace(SMALL, continued=0.25, batch=60, stress="full")
    model = pca_net.build(config, samples)
    V, sigma = (x.float() for x in histories(samples, config.stress, config.measure))
    known = pca_net.pair(model, V, sigma, torch.full((60,), 1e-6))
    found = []
    original = pca_net.loss_now
    monkeypatch.setattr(pca_net, "loss_now", lambda *args: found.append(args[3]) or original(*args))
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        assert [n for n, _ in pca_net.losses(model, V, sigma, known, config, generator)] == [60]
    assert {len(cut) for cut in found} == {15}
    times = torch.cat(found)
    assert times.min() == 1 and times.max() == 40 and 19 < float(times.float().mean()) < 22


def test_training_on_continued_histories_lowers_the_error_on_line(samples):
    """The same updates from the same weights: with the future known in training, it is missed on-line."""
    train, held_out = split(samples)
    found = {}
    for share in (0.0, 0.7):
        config = dataclasses.replace(
            SMALL, epochs=80, learning_rate=2e-2, final_rate=1e-3, optimiser="muon", measure="isochoric",
            continued=share,
        )  # fmt: skip
        model = pca_net.build(config, train)
        pca_net.fit(model, train, held_out, config)
        found[share] = pca_net.evaluate(model, held_out, config)["deviatoric"]
    assert found[0.7] < 0.8 * found[0.0]


def test_same_seed_gives_the_same_network_and_another_does_not(samples):
    train, held_out = split(samples)
    weights = []
    for seed in (1, 1, 2):
        config = dataclasses.replace(SMALL, epochs=2, seed=seed)
        model = pca_net.build(config, train)
        pca_net.fit(model, train, held_out, config)
        weights.append(model.output.weight.detach())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_interrupted_training_resumes_to_the_same_network(samples, tmp_path, monkeypatch):
    train, held_out = split(samples)
    config = dataclasses.replace(SMALL, epochs=5, augment=True)
    whole = pca_net.build(config, train)
    pca_net.fit(whole, train, held_out, config)

    checkpoint = Checkpoint(tmp_path / "run.ckpt", every=2, resume=True, fingerprint="a")
    broken = pca_net.build(config, train)
    save, calls = Checkpoint.save, []

    def save_once(self, state):
        save(self, state)
        calls.append(state["epoch"])
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_once)
    with pytest.raises(KeyboardInterrupt):
        pca_net.fit(broken, train, held_out, config, checkpoint=checkpoint)
    monkeypatch.setattr(Checkpoint, "save", save)
    assert calls == [2]
    resumed = pca_net.build(config, train)
    pca_net.fit(resumed, train, held_out, config, checkpoint=checkpoint)
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("measure", ["stretch", "isochoric"])
@pytest.mark.parametrize("continuation", ["hold", "linear", "fading"])
def test_exported_law_gives_the_errors_reported(samples, measure, continuation):
    train, held_out = split(samples)
    config = dataclasses.replace(SMALL, measure=measure, continuation=continuation)
    model = pca_net.build(config, train)
    pca_net.fit(model, train, held_out, config)
    law = pca_net.export(model, train, config)
    online = errors.report(errors.follow(law, held_out), held_out)
    assert online == pytest.approx(pca_net.evaluate(model, held_out, config), rel=1e-4)


def test_exported_window_carries_the_duration(uneven_samples):
    longest = int(np.argmax(uneven_samples.duration))
    config = dataclasses.replace(SMALL, window=float(uneven_samples.duration[longest]))
    model = pca_net.build(config, uneven_samples)
    one = uneven_samples[longest : longest + 1]
    online = errors.report(errors.follow(pca_net.export(model, uneven_samples, config), one), one)
    assert online["deviatoric"] == pytest.approx(pca_net.evaluate(model, one, config)["deviatoric"], rel=1e-4)
    other = pca_net.export(model, uneven_samples, dataclasses.replace(config, window=1e-6))
    assert other.describe()["time_window"] == 1e-6
    assert not torch.equal(other.hidden[0].base, pca_net.export(model, uneven_samples, config).hidden[0].base)


def test_full_stress_as_in_the_paper_learns_the_pressure_too(samples):
    config = dataclasses.replace(SMALL, stress="full")
    _, target = histories(samples, config.stress, config.measure)
    assert torch.allclose(target * 1e9, mandel(samples.stress))
    law = pca_net.export(pca_net.build(config, samples), samples, config)
    P, _ = law.forward(1.1 * torch.eye(3, dtype=torch.float64)[None], law.initial_state(1), 1e-7)
    assert P.abs().max() < 47e9 * (1.1**3 - 1)  # untrained: no exact pressure is added


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modes": 0}, "modes must be an integer from 1"),
        ({"final_rate": 1.0}, "final_rate must lie between"),
        ({"continued": 1.5}, "continued must lie between 0 and 1, got 1.5"),
        ({"horizon": 0.0}, "horizon must be positive and finite, got 0.0"),
        ({"window": -1.0}, "window must be finite and not negative"),
        ({"stress": "full", "measure": "isochoric"}, "needs measure stretch"),
    ],
)
def test_bad_configuration_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **change)


def test_data_that_does_not_fit_is_refused(samples):
    with pytest.raises(ValueError, match="modes must not exceed the 41 times"):
        pca_net.build(dataclasses.replace(SMALL, modes=42), samples)
    uneven = dataclasses.replace(samples, time=samples.time**2)
    with pytest.raises(ValueError, match="evenly spaced"):
        pca_net.build(SMALL, uneven)


def test_export_calibrates_novelty_and_expected_error(samples):
    law = pca_net.export(pca_net.build(SMALL, samples), samples, SMALL)
    states, found = states_along(law, samples)
    novelty, expected = law.observe(states)[:, 2:].T
    assert 0.9 < novelty.max() < 1.1 and novelty.median() < 0.8
    assert float(expected.mean()) == pytest.approx(float(found.clamp(max=1).mean()), rel=0.3)  # untrained: large
    far = dataclasses.replace(samples, U=1.5 * samples.U - 0.5 * samples.U[:, :1])
    beyond = law.observe(states_along(law, far)[0])[:, 2]
    assert beyond[beyond.isfinite()].max() > 1.2  # some are stretched beyond what a stretch can be
