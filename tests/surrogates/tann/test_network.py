"""The paper's network as a law: thermodynamics whatever its weights are, its tangent, its trainings."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from micro.lattice.bars import IsotropicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.data import lattice_of
from surrogates.artifact import load_law
from surrogates.artifact.schema import Observable
from surrogates.artifact.tangent import difference, differences
from surrogates.tann.errors import compare, cycles, recall, solved
from surrogates.tann.network.law import TannNetworkLaw
from surrogates.tann.network.model import Steps, Windows, inelastic, steps_loss, windows_loss
from surrogates.tann.network.train import TannNetworkConfig, build, errors, export, fit
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.split import split

FOLDER = Path(__file__).resolve().parents[3] / "surrogates" / "pretrained"
SMALL = {"width": 16, "units": 24}


@pytest.fixture(scope="module")
def walks(make_walks):
    """LatticePaths of a perturbed cell, to train on and held out."""
    return split(make_walks(samples=30, steps=60, increment=(0.05, 0.4)), 4)


def random_law(dimension=2, N=5, seed=0, kappa=0.1):
    """A law of random weights and sizes, large enough for every term to count."""
    generator = torch.Generator().manual_seed(seed)
    law = TannNetworkLaw(dimension, N, 12, 20, (N, 9, 7), tuple(Observable(f"x_{i}") for i in range(7)))
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
        for name in ("E_size", "stress_size", "Z_size", "change_size", "step_size"):
            buffer = getattr(law, name)
            buffer.copy_(0.5 + torch.rand(buffer.shape, dtype=torch.float64, generator=generator))
        law.kappa.fill_(kappa)
    return law.requires_grad_(False)


def random_states(law, n, seed=1):
    """States (n, k) that no history led to, and deformation gradients (n, d, d), rotations included."""
    generator = torch.Generator().manual_seed(seed)
    d = law.dimension
    size = 10 ** (4 * torch.rand(n, 1, dtype=torch.float64, generator=generator) - 3)
    state = size * torch.randn(n, law.initial_state(1).shape[1], dtype=torch.float64, generator=generator)
    state[:, -1] = 0.0
    H = size[:, :, None] * torch.randn(n, d, d, dtype=torch.float64, generator=generator)
    return state, torch.eye(d) + H


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kappa", [0.0, 0.1])
def test_dissipation_is_never_negative_whatever_the_weights_are(dimension, kappa, conjugate_power):
    for seed in range(2):
        law = random_law(dimension, seed=seed, kappa=kappa)
        state, F = random_states(law, 25000)
        _, new = law.forward(F, state, 1.0)
        assert torch.isfinite(new).all()
        done, terms = conjugate_power(law, law.describe()["state"]["fields"], F, state, new)
        assert bool(((new[:, -1] - done).abs() <= 1e-6 * terms).all())  # D = -T . dZ, T from the energy
        assert bool((done >= -1e-6 * terms).all())
        assert 0.05 < float((terms > 0).double().mean()) < 0.95  # the second law refuses some, not all
        e, z = law.strain(F) / law.E_size, state[:, : law.variables]
        d = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        d = d * z.norm(dim=1, keepdim=True)
        dz, D = law.admit(e, z, d)
        assert 0.05 < float((D > 0).double().mean()) < 0.95
        # D = -T . dz at the end of the step, Eq. (9c), up to what is lost in differences of terms
        end = (z + dz).requires_grad_(True)
        (T,) = torch.autograd.grad(law.potential(e, end)[0].sum(), end)
        x = torch.cat([e.abs() + d.abs().sum(dim=1, keepdim=True), z.abs()], dim=1).sum(dim=1)
        lost = 1e-11 * (x**3 + x) * dz.norm(dim=1)
        assert bool((D - kappa * dz.norm(dim=1) >= -lost).all())
        assert bool(((D + (T * dz).sum(dim=1)).abs() <= lost).all())


def test_every_step_that_the_network_proposes_rightly_is_kept():
    law = random_law()
    e, z = torch.randn(2000, 3, dtype=torch.float64), torch.randn(2000, 5, dtype=torch.float64)
    T = law.potential(e, z)[1][:, 3:]
    d = -1e-9 * T / T.norm(dim=1, keepdim=True)  # short, down the slope: dissipates
    flows = T.norm(dim=1) > 0.2
    dz, D = law.admit(e, z, d)
    assert flows.double().mean() > 0.9
    torch.testing.assert_close(dz[flows], d[flows])
    torch.testing.assert_close(D[flows], 1e-9 * T.norm(dim=1)[flows], rtol=1e-3, atol=0)
    assert float(law.admit(e, z, -d)[0].abs().max()) == 0


def test_internal_variables_cannot_run_away_however_far_strain_goes():
    law = random_law()
    e_n, z = 100.0 * torch.randn(5000, 3, dtype=torch.float64), 100.0 * torch.randn(5000, 5, dtype=torch.float64)
    de = torch.randn(5000, 3, dtype=torch.float64)
    most = law.reach * de.norm(dim=1) / law.step_size
    size = law.propose(e_n, de, z).norm(dim=1)
    assert bool((size <= most * (1 + 1e-9)).all())
    assert float((size > 0.99 * most).double().mean()) > 0.5  # the stress that is fed in grows with the third power


@pytest.mark.parametrize("dimension", [2, 3])
def test_virgin_state_and_steps_of_no_strain_to_the_bit(dimension):
    law = torch.jit.script(random_law(dimension))
    eye = torch.eye(dimension, dtype=torch.float64).repeat(50, 1, 1)
    P, state = law.forward(eye, law.initial_state(50), 1.0)
    assert float(P.abs().max()) == 0
    assert float(state.abs().max()) == 0
    assert float(law.decode(state).abs().max()) < 1e-14
    state, F = random_states(random_law(dimension), 2000)
    P, state = law.forward(F, state, 1.0)
    again, new = law.forward(F, state, 1.0)
    assert torch.equal(new[:, : law.variables], state[:, : law.variables])
    assert torch.equal(new[:, -1], state[:, -1])
    torch.testing.assert_close(again, P, rtol=1e-12, atol=0)


def test_stress_and_forces_are_derivatives_of_the_energy():
    law = random_law()
    x = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    psi, gradient = law.potential(x[:, :3], x[:, 3:])
    torch.testing.assert_close(torch.autograd.grad(psi.sum(), x)[0], gradient)
    powers = ((x @ law.W.T + law.b) ** 4 - law.b**4 - 4 * law.b**3 * (x @ law.W.T)) @ law.w  # as the paper has it
    torch.testing.assert_close(psi, powers)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_tangent_is_the_derivative_and_scripting_changes_nothing(dimension):
    law = random_law(dimension)
    state, F = random_states(law, 60)
    F, state = F[:20], law.forward(F[:20], state[:20], 1.0)[1]
    F = F + 0.3 * torch.randn(F.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    P, new, dP_dF = law.tangent(F, state, 1.0)
    same = law.forward(F, state, 1.0)
    torch.testing.assert_close(P, same[0], rtol=1e-13, atol=0)
    torch.testing.assert_close(new, same[1], rtol=1e-13, atol=0)
    found, kink = differences(law, F, state, 1.0, 1e-2)
    assert float(kink.double().mean()) < 0.3
    assert difference(dP_dF, found, kink) < 1e-6
    scripted = torch.jit.script(law)
    for a, b in zip((P, new, dP_dF), scripted.tangent(F, state, 1.0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scripted.observe(state), law.observe(state), rtol=1e-12, atol=1e-12)
    assert scripted.observe(state).shape[1] == len(law.describe()["observe"])
    single = torch.jit.script(copy.deepcopy(law).float())
    assert single.forward(F, state, 1.0)[0].dtype == torch.float64
    torch.testing.assert_close(single.observe(state), law.observe(state), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("internal", ["discovered", "given"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_small_step_lowers_the_loss_of_a_stage_by_its_slope(walks, first_order_gain, jolt, stage, internal):
    """One step with all data at once, in double precision: what the slopes promise, whatever the processor."""
    some, rate = walks[0][:4], 1e-9
    epochs = {"epochs": int(stage == 1), "tuning": int(stage == 2), "rolling": int(stage == 3)}
    config = TannNetworkConfig(
        internal=internal, window=6, batch=10**6, threshold=0.0, learning_rate=rate, final_rate=0.0, **epochs, **SMALL
    )
    model = build(config, some).double()
    jolt(model)
    if stage > 1:
        for parameter in (*model.bias.parameters(), *model.law.decoder.parameters(), *model.law.shown.parameters()):
            parameter.requires_grad_(False)
    if stage == 3:
        windows = Windows(some, model, config.window)
        gain = first_order_gain(
            lambda: windows_loss(model, windows, torch.arange(len(windows))), model.parameters(), 0.1 * rate
        )
    else:
        steps = Steps(some, model)
        gain = first_order_gain(
            lambda: steps_loss(model, steps, torch.arange(len(steps)), stage), model.parameters(), rate
        )
    found = fit(model, some, some, config)
    first, last = found[f"loss_first_{stage}"], found[f"loss_{stage}"]
    assert gain > 1e-11 * first
    # NAdam's first step looks ahead: it is 1.056 times as long as Adam's.
    assert first - last == pytest.approx(1.056 * gain, rel=0.02)
    assert found[f"epoch_{stage}"] == 1


def test_a_whole_training_keeps_the_best_of_every_stage_and_exports_its_law(walks):
    train, held = walks
    config = TannNetworkConfig(epochs=3, tuning=3, rolling=4, window=6, batch=50, learning_rate=5e-3, **SMALL)
    model = build(config, train)
    found = fit(model, train, held, config)
    for stage, epochs in ((1, 3), (2, 3), (3, 4)):
        assert 0 < found[f"loss_{stage}"] <= found[f"loss_first_{stage}"], stage
        assert 0 <= found[f"epoch_{stage}"] <= epochs
    windows = Windows(held, model, config.window)
    with torch.no_grad():  # the numbers that stay are those whose loss is told
        again = float(windows_loss(model, windows, torch.arange(len(windows))))
    assert again == pytest.approx(found["loss_3"], rel=1e-4)
    law = torch.jit.script(export(model, train, config))
    told = errors(model, law, held, config)
    assert {"stress", "psi_tenth", "dissipation_double", "force_shear", "displacement_combined"} < set(told)
    path = cycles(2, "shear")
    truth = solved(LatticeCell(*lattice_of(train.lattice)), path)
    expected = {f"{name}_shear": error for name, error in compare(recall(law, path), truth).items()}
    assert {name: told[name] for name in expected} == pytest.approx(expected)
    for trained, exported in zip(model.law.parameters(), law.parameters(), strict=True):
        assert torch.equal(trained.double(), exported)
    state = law.initial_state(3)
    assert state.shape == (3, model.law.variables + 5)


def test_the_best_numbers_are_kept_and_not_the_last(walks):
    config = TannNetworkConfig(epochs=1, tuning=0, rolling=0, learning_rate=100.0, **SMALL)  # a rate that spoils
    model = build(config, walks[0])
    before = model.flat()
    found = fit(model, walks[0][:4], walks[1], config)
    assert found["epoch_1"] == 0
    assert torch.equal(model.flat(), before)


def test_encoder_and_decoder_share_their_weights_and_begin_as_each_others_inverse(walks):
    train, held = walks
    model = build(TannNetworkConfig(**SMALL), train)
    assert model.law.variables == 16
    xi = inelastic(held, model.law).flatten(0, 1)
    shown = model.law.show(model.encode(xi))
    torch.testing.assert_close(shown, xi, rtol=0, atol=1e-4)
    before = model.encode(xi)
    assert float(before.abs().max()) > 0.5
    with torch.no_grad():
        model.law.shown.weight *= 1.1  # a weight of the decoder: the encoder has it, too
    assert float((model.encode(xi) - before).abs().max()) > 0.01
    assert float(model.encode(torch.zeros(2, xi.shape[1])).abs().max()) < 1e-4
    names = [name for name, _ in model.named_parameters() if "decoder" in name or "shown" in name or "bias." in name]
    assert sum("weight" in name for name in names) == 5  # once for both


def test_the_variables_may_be_given(walks):
    train, held = walks
    config = TannNetworkConfig(internal="given", epochs=2, tuning=0, rolling=0, learning_rate=5e-3, **SMALL)
    model = build(config, train)
    alpha = train.alpha.flatten(0, 1).float()
    Z = model.variables(train).flatten(0, 1) * model.law.Z_size
    assert Z.shape[1] == 16  # of 20 bars, 4 of them images
    assert all(float((alpha - Z[:, i : i + 1]).abs().amax(dim=0).min()) < 1e-6 for i in range(16))
    shown = model.law.show(model.variables(held).flatten(0, 1))
    torch.testing.assert_close(shown, inelastic(held, model.law).flatten(0, 1), rtol=0, atol=1e-4)
    found = fit(model, train, held, config)
    assert found["loss_1"] <= found["loss_first_1"]
    torch.testing.assert_close(model.variables(train).flatten(0, 1) * model.law.Z_size, Z)  # given ones stay


def test_the_losses_see_every_weight(walks):
    train, _ = walks
    model = build(TannNetworkConfig(**SMALL), train)
    steps, windows = Steps(train[:4], model), Windows(train[:4], model, 5)
    steps_loss(model, steps, torch.arange(100), 1).backward()
    for name, parameter in model.named_parameters():
        # the last bias of each side cancels: variables and coordinates are zero at rest
        last = name in ("law.shown.bias", "bias.4")
        assert last or float(parameter.grad.abs().max()) > 0, name
    model.zero_grad()
    windows_loss(model, windows, torch.arange(10)).backward()
    assert all(float(p.grad.abs().max()) > 0 for p in (model.law.W, model.law.b, model.law.w, model.law.step_in.weight))


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(walks, tmp_path):
    train, held = walks
    config = TannNetworkConfig(epochs=2, tuning=3, rolling=1, window=6, batch=200, **SMALL)
    first = build(config, train)
    whole, stopped, resumed = (copy.deepcopy(first) for _ in range(3))
    told = fit(whole, train, held, config)

    class Stop(Exception):
        """Ends a training in its second stage."""

    class Stopping(Checkpoint):
        """A checkpoint after which the power fails."""

        def save(self, state):
            super().save(state)
            if state["stage"] == 2 and state["epoch"] == 1:
                raise Stop

    with pytest.raises(Stop):
        fit(stopped, train, held, config, checkpoint=Stopping(tmp_path / "d", 1))
    again = fit(resumed, train, held, config, checkpoint=Checkpoint(tmp_path / "d", 1, True))
    # NAdam's factors come back in the precision of the weights: not to the bit.
    torch.testing.assert_close(resumed.flat(), whole.flat(), rtol=1e-3, atol=1e-4)
    assert again["loss_3"] == pytest.approx(told["loss_3"], rel=1e-2)
    assert again["epoch_2"] == told["epoch_2"]


@pytest.mark.parametrize("bad", [{"variables": -1}, {"window": 0}, {"grain": 0.0}, {"threshold": -1.0}])
def test_bad_configurations_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must"):
        TannNetworkConfig(**bad)


def test_what_cannot_be_learned_is_refused(walks, make_walks):
    with pytest.raises(ValueError, match="at most 16, as the paths determine"):
        build(TannNetworkConfig(variables=17), walks[0])
    with pytest.raises(ValueError, match="kinematic hardening"):
        build(TannNetworkConfig(), make_walks(samples=2, steps=3, bar=IsotropicBar()))
    with pytest.raises(ValueError, match="sizes must lead"):
        TannNetworkLaw(2, 5, 8, 8, (4, 7), tuple(map(Observable, "abcdefg")))
    assert dataclasses.asdict(TannNetworkConfig())["internal"] == "discovered"


@pytest.mark.parametrize("name", ["tann_network_square_2", "tann_network_cube_1"])
def test_the_pretrained_networks_err_as_they_say_and_dissipate(name, conjugate_power):
    law = load_law(FOLDER / f"{name}.pt")
    told = law.manifest.errors
    assert told["stress"] < 3e-3  # the paper's
    assert told["psi"] < 3e-3
    assert told["dissipation"] < 2e-2
    cell = LatticeCell(*lattice_of(law.manifest.microstructure.parameters()))
    path = cycles(law.manifest.dimension, "shear")
    found = compare(recall(law.module, path), solved(cell, path))
    assert found == pytest.approx({key: told[f"{key}_shear"] for key in found}, rel=1e-3)
    state, F = random_states(law.module, 50000)
    with torch.no_grad():
        new = law.module.forward(F, state, 1.0)[1]
    done, terms = conjugate_power(law.module, law.stored["state"]["fields"], F, state, new)
    assert bool(((new[:, -1] - done).abs() <= 1e-6 * terms).all())
    assert bool((done >= -1e-6 * terms).all())
    assert float((terms > 0).double().mean()) > 0.1
