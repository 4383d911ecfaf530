"""Training of the recurrent law: windows, gradients of the compiled form, and trainings that learn and resume."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from micro.build import BuildError
from surrogates.artifact.shipped import locate
from surrogates.path import recurrent_training as training
from surrogates.path.compiled_windows import CompiledWindows
from surrogates.path.data import Samples, matrices
from surrogates.path.errors import follow, refined, relative_errors
from surrogates.path.overlay import Overlay, Sizes
from surrogates.path.recurrent import RecurrentLaw
from surrogates.path.recurrent_training import RecurrentConfig, Sets, Trainer, build, fit, window_loss
from surrogates.path.trust import states_along
from surrogates.path.windows import COLUMNS, GIVEN, aligned, batches, block, prepare
from surrogates.tensors import deviator
from surrogates.training.checkpoint import Checkpoint

K, G = 48e9, 25e9
CONFIG = RecurrentConfig(
    elements=2, memory=1, width=8, mixed=3, products=2, basis=3, epochs=4, batch=6, window=20, learning_rate=1e-2
)


def paths(n: int = 12, steps: int = 40, seed: int = 0) -> Samples:
    """Random smooth paths with the stress of another recurrent law, the teacher."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, steps + 1)
    waves = np.sin(np.pi * time[None, :, None] * rng.uniform(0.5, 2, size=(n, 1, 6)))
    U = np.array([1.0, 1, 1, 0, 0, 0]) + 0.05 * waves * rng.choice([-1, 1], size=(n, 1, 6))
    teacher = RecurrentLaw(Overlay(Sizes(3, 1, width=4), seed=9).double(), bulk=K, shear=G)
    samples = Samples(U, np.zeros_like(U), np.full(n, 2e-5), np.tile(time, (n, 1)), np.arange(n))
    stress = follow(teacher, samples).numpy()
    stress[..., 3:] /= 2**0.5
    return dataclasses.replace(samples, stress=stress)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return paths()


@pytest.fixture(scope="module")
def sets(samples: Samples) -> Sets:
    """Two sets with different numbers of steps."""
    return Sets((samples, paths(6, 25, seed=1)))


def windows_or_skip(sizes: Sizes, window: int, *, double: bool = False) -> CompiledWindows:
    try:
        return CompiledWindows(sizes, window, double=double)
    except BuildError as error:
        pytest.skip(str(error))


def test_rows_lead_the_step_to_the_stress_of_the_law(samples: Samples) -> None:
    """The rows of `prepare`, fed to the learned step, give what the law gives along the same paths."""
    law = build(CONFIG, Sets((samples,))).double()
    rows = prepare(samples, G, law.limit)
    sigma = deviator(follow(law, samples))
    assert max(len(path.values) for path in rows) > 60, "some steps are cut"
    for i, path in enumerate(rows):
        e = torch.zeros(1, 2, 5, dtype=torch.float64)
        m, found = torch.zeros(1, 1, 5, dtype=torch.float64), []
        for row in torch.from_numpy(path.values).double():
            e, m, _, _ = law.overlay(e, m, row[None, 5:10], row[16:17], row[None, :5], row[15:16])
            if row[GIVEN] > 0:
                found.append(law.overlay.stress(e)[0])
        norm = torch.stack(found).norm(dim=1) * 2 * G * 0.01
        J = torch.linalg.det(matrices(samples.U[i]))[1:]
        torch.testing.assert_close(norm, J * sigma[i, 1:].norm(dim=1), rtol=1e-4, atol=1e3)
        truth = deviator(training_stress(samples, i)).norm(dim=1)[1:] * J
        stresses = path.values[path.values[:, GIVEN] > 0, 10:15]
        np.testing.assert_allclose(np.linalg.norm(stresses, axis=1) * 2 * G * 0.01, truth, rtol=1e-5)


def training_stress(samples: Samples, i: int) -> torch.Tensor:
    """Mandel vectors (T, 6) of the stress of a path."""
    return torch.from_numpy(samples.stress[i] * np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5]))


def test_compiled_gradient_is_that_of_automatic_differentiation() -> None:
    sizes, count = Sizes(3, 3, 3, 2, 4, 10), 12
    compiled = windows_or_skip(sizes, count, double=True)
    rng, n = np.random.default_rng(1), compiled.lanes
    overlay = Overlay(sizes, seed=3).double()
    with torch.no_grad():
        for parameter in overlay.parameters():
            parameter.add_(torch.from_numpy(0.1 * rng.normal(size=parameter.shape)))
    values = aligned((count, COLUMNS, n), np.float64)
    values[:, :5], values[:, 5:10] = 0.15 * rng.normal(size=(count, 5, n)), 0.3 * rng.normal(size=(count, 5, n))
    values[:, 10:15], values[:, 15] = rng.normal(size=(count, 5, n)), 10 ** rng.uniform(-3, 0, (count, n))
    values[:, 16], values[:, GIVEN] = 0.01 * rng.normal(size=(count, n)), rng.random((count, n)) < 0.7
    scale, state = aligned((2, n), np.float64), compiled.initial_state()
    scale[0], scale[1] = rng.random(n) + 1, rng.random(n)
    state[:] = 0.2 * rng.normal(size=state.shape)
    start, gradient = state.copy(), np.zeros(sizes.parameters())
    weights = torch.cat([getattr(overlay, name).detach().flatten() for name in sizes.shapes()]).numpy().copy()
    stress = aligned((count, 5, n), np.float64)
    found = compiled.run(weights, values, state, scale, gradient=gradient, stress=stress)
    loss, last = window_loss(overlay, sizes, *(torch.from_numpy(a) for a in (values, start, scale)))
    loss.backward()
    expected = torch.cat([getattr(overlay, name).grad.flatten() for name in sizes.shapes()]).numpy()
    assert found == pytest.approx(loss.item(), rel=1e-10)
    np.testing.assert_allclose(state, last.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert compiled.run(weights, values, start.copy(), scale) == found, "the loss alone"


def test_pytorch_and_the_compiled_form_train_alike(sets: Sets) -> None:
    windows_or_skip(CONFIG.sizes, CONFIG.window)
    law = build(CONFIG, sets)
    rows = [path for part in sets.parts for path in prepare(part, G, law.limit)]
    gradients = []
    for compiled in (True, False):
        trainer, one = Trainer(law, rows, CONFIG, compiled=compiled), []
        for loss in trainer.windows(np.arange(len(rows))):
            one.append(torch.cat([p.grad.flatten() for p in trainer.parameters]).clone())
            assert np.isfinite(loss)
        gradients.append(one)
    assert len(gradients[0]) == len(gradients[1]) >= 2
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3 * float(b.abs().max()))


def test_gradients_do_not_depend_on_the_number_of_threads(sets: Sets) -> None:
    windows_or_skip(CONFIG.sizes, CONFIG.window)
    law = build(CONFIG, sets)
    rows = [path for part in sets.parts for path in prepare(part, G, law.limit)] * 3
    found, threads = [], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        trainer = Trainer(law, rows, CONFIG)
        for _ in trainer.windows(np.arange(len(rows))):
            found.append(torch.cat([p.grad.flatten() for p in trainer.parameters]).clone())
    torch.set_num_threads(threads)
    half = len(found) // 2
    for a, b in zip(found[:half], found[half:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_training_learns_and_resumes(sets: Sets, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=20)

    def error(law: RecurrentLaw) -> float:
        samples = sets.parts[0]
        truth = torch.stack([training_stress(samples, i) for i in range(len(samples))])
        return float(relative_errors(deviator(follow(law, samples)), deviator(truth)).mean())

    law = build(config, sets)
    before = error(law)
    fit(law, sets, sets, config)
    assert law.overlay.W1.dtype == torch.float32
    assert error(law) < 0.7 * before

    class Stopped(Exception):
        pass

    class Once(Checkpoint):
        def save(self, state):  # type: ignore[no-untyped-def]
            super().save(state)
            if state["epoch"] == 10 and not self.resume:
                raise Stopped

    other = build(config, sets)
    with pytest.raises(Stopped):
        fit(other, sets, sets, config, checkpoint=Once(tmp_path / "c", every=5))
    fit(other, sets, sets, config, checkpoint=Checkpoint(tmp_path / "c", every=5, resume=True))
    for name, value in law.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [True, False])
def test_history_tells_the_error_of_the_held_out_paths(
    sets: Sets, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled:
        windows_or_skip(CONFIG.sizes, CONFIG.window)
    monkeypatch.setattr(training, "Trainer", functools.partial(Trainer, compiled=compiled))
    config = dataclasses.replace(CONFIG, epochs=4, report=2)
    law = build(config, sets)
    history = fit(law, sets, sets, config)["history"]
    assert [row[1] for row in history] == [2, 4] and 0 < history[0][0] < history[1][0]
    found = []
    for samples in sets.parts:
        truth = torch.stack([training_stress(samples, i) for i in range(len(samples))])
        found.append(relative_errors(deviator(follow(law, samples)), deviator(truth)))
    # In the history J stands with the stress, and the mean square is that of the instants after the first.
    assert history[-1][3] == pytest.approx(float(torch.cat(found).mean()), rel=0.05)
    assert "history" not in fit(law, sets, sets, CONFIG)


def test_the_first_paths_of_each_set_can_be_chosen(sets: Sets) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, paths=2)
    few = Sets(tuple(part[:2] for part in sets.parts))
    laws = build(config, sets), build(config, sets)
    fit(laws[0], sets, sets, config)
    fit(laws[1], few, few, dataclasses.replace(config, paths=0))
    for a, b in zip(*(law.state_dict().values() for law in laws), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    with pytest.raises(ValueError, match="paths must be an integer from 0"):
        dataclasses.replace(CONFIG, paths=-1)


def test_the_law_cuts_its_steps_as_its_training_did(sets: Sets) -> None:
    fine = dataclasses.replace(CONFIG, limit=0.0005, epochs=1)
    coarse = dataclasses.replace(CONFIG, limit=0.004, epochs=1)
    laws = {config.limit: build(config, sets) for config in (fine, coarse)}
    pieces = {law.limit: fit(law, sets, sets, config)["pieces"] for config, law in zip((fine, coarse), laws.values())}
    assert set(pieces) == {0.0005, 0.004} and pieces[0.0005] > 4 * pieces[0.004]
    with pytest.raises(ValueError, match="limit must lie between 1e-5 and 0.1, got 0"):
        dataclasses.replace(CONFIG, limit=0.0)


def test_batches_hold_every_path_once() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 500, 45)
    found = list(batches(lengths, 8, 20, rng))
    assert sorted(np.concatenate(found)) == list(range(45))
    assert max(map(len, found)) == 8


def test_a_block_repeats_nothing(samples: Samples) -> None:
    rows = prepare(samples, G, 0.003)[:3]
    made = block(rows, 4, 32)
    assert made.values.shape[1:] == (COLUMNS, 4) and made.values.shape[0] % 32 == 0
    for lane, path in enumerate(rows):
        np.testing.assert_array_equal(made.values[: len(path.values), :, lane], path.values)
        assert not made.values[len(path.values) :, :, lane].any()
    assert list(made.scale[1]) == [1, 1, 1, 0]


def test_novelty_is_one_at_the_edge_of_the_training(sets: Sets) -> None:
    law = training.export(build(CONFIG, sets), sets, CONFIG)
    states, _ = states_along(law, sets.parts[0])
    inside = law.observe(states)[:, 3]
    assert 0.9 < float(inside.max()) < 1.1 and float(inside.median()) < 0.8
    far = dataclasses.replace(sets.parts[0], U=sets.parts[0].U + 4 * (sets.parts[0].U - sets.parts[0].U[:, :1]))
    assert float(law.observe(states_along(law, far)[0])[:, 3].max()) > 1.5


def test_expected_error_is_that_of_the_training(sets: Sets) -> None:
    law = training.export(build(CONFIG, sets), sets, CONFIG)
    states, errors = states_along(law, sets.parts[0])
    assert errors.shape == (len(states),) and float(errors[: len(sets.parts[0])].abs().max()) == 0, "virgin states"
    expected = law.observe(states)[:, 4]
    assert float(expected.mean()) == pytest.approx(float(errors.mean()), rel=0.2)
    assert float(torch.corrcoef(torch.stack([expected, errors]))[0, 1]) > 0.5


def test_refined_paths_pass_through_the_given_instants(samples: Samples) -> None:
    fine = refined(samples, 3)
    np.testing.assert_allclose(fine.U[:, ::3], samples.U, rtol=1e-12)
    np.testing.assert_allclose(fine.time[:, ::3], samples.time, rtol=1e-12)
    C = matrices(fine.U) @ matrices(fine.U)
    torch.testing.assert_close(C[:, 1], (2 * C[:, 0] + C[:, 3]) / 3, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="factor must be at least 1"):
        refined(samples, 0)


@pytest.mark.parametrize("name", ["magnesium-pca-net", "magnesium-recurrent"], ids=["another kind", "other sizes"])
def test_a_training_starts_from_a_law_of_the_same_sizes(name: str, sets: Sets) -> None:
    config = dataclasses.replace(CONFIG, initial=str(locate(name)))
    with pytest.raises(ValueError, match="initial must be an artifact with the same sizes"):
        build(config, sets)


def test_sets_of_different_materials_are_refused(samples: Samples) -> None:
    other = dataclasses.replace(samples, meta=({"parameters": {"crystal": {"G": 26e9}}},))
    with pytest.raises(ValueError, match="same moduli"):
        build(CONFIG, Sets((dataclasses.replace(samples, meta=({},)), other)))
