"""Training of a TANN: what it finds, what training improves, and the errors it reports."""

import copy

import pytest
import torch

from micro.lattice.cell_problem import LatticeCell
from micro.lattice.data import lattice_of
from surrogates.tann import data as data_module
from surrogates.tann.data import join
from surrogates.tann.errors import compare, cycles, divided, recall, solved
from surrogates.tann.exact import lattice_law
from surrogates.tann.model import Steps, coordinates_of, steps_loss
from surrogates.tann.train import TannConfig, build, errors, export, fit
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.split import split

NAMES = ("stress", "psi", "dissipation", "force", "displacement")


@pytest.fixture(scope="module")
def walks(make_walks):
    """LatticePaths of a perturbed cell, to train on and held out."""
    return split(make_walks(samples=150), 10)


def test_a_whole_training_gives_a_law_within_the_errors_that_it_reports(walks):
    train, held = walks
    config = TannConfig(epochs=1, tuning=1)
    model = build(config, train)
    found = fit(model, train, held, config)
    assert found["variables"] == 16
    law = torch.jit.script(export(model, train, config))
    told = errors(model, law, held, config)
    kinds = ("", "_tenth", "_double", "_uniaxial", "_shear", "_combined")
    assert set(told) == {name + kind for name in NAMES for kind in kinds}
    # What is left is rounding, amplified: no more in recall than in single steps, and nothing beside one variable less.
    fewer = build(TannConfig(variables=15), train)
    with torch.no_grad():
        tests = Steps(held, fewer)
        lost = float(steps_loss(fewer, tests, torch.arange(len(tests)), 2))
    assert max(told.values()) < 3 * found["loss_2"] < 1e-3 * lost
    exact = lattice_law(*lattice_of(train.lattice))
    strain = cycles(2, "shear")
    other = compare(recall(law, strain), solved(LatticeCell(*lattice_of(train.lattice)), strain))
    assert other == pytest.approx({name: told[f"{name}_shear"] for name in NAMES}, abs=1e-9)
    assert compare(recall(exact, strain), solved(LatticeCell(*lattice_of(train.lattice)), strain))["stress"] < 1e-10


@pytest.mark.parametrize("stage", [1, 2])
def test_a_small_step_lowers_the_loss_of_a_stage_by_its_slope(walks, first_order_gain, jolt, stage):
    """One step with all data at once, of fewer variables than there are: what the slopes promise."""
    some, rate = walks[0][:20], 1e-9
    config = TannConfig(
        variables=9, epochs=int(stage == 1), tuning=int(stage == 2), batch=10**6, learning_rate=rate, final_rate=0.0
    )
    model = build(config, walks[0])
    jolt(model)
    for decoder in (model.decode_E, model.decode_Z):
        decoder.requires_grad_(stage == 1)
    steps = Steps(some, model)
    gain = first_order_gain(
        lambda: steps_loss(model, steps, torch.arange(len(steps)), stage), model.parameters(), rate
    )
    found = fit(model, some, some, config)
    assert found["variables"] == 9
    first, last = found[f"loss_first_{stage}"], found[f"loss_{stage}"]
    assert gain > 1e-11 * first
    # NAdam's first step looks ahead: it is 1.056 times as long as Adam's.
    assert first - last == pytest.approx(1.056 * gain, rel=0.02)
    assert found[f"epoch_{stage}"] == 1


def test_a_training_of_fewer_variables_keeps_the_best_of_both_stages(walks):
    train, held = walks
    config = TannConfig(variables=9, epochs=4, tuning=4, learning_rate=2e-3)
    model = build(config, train)
    found = fit(model, train[:60], held, config)
    for stage in (1, 2):
        assert 0 < found[f"loss_{stage}"] <= found[f"loss_first_{stage}"]
        assert 0 <= found[f"epoch_{stage}"] <= 4
    tests = Steps(held, model)
    with torch.no_grad():  # the numbers that stay are those whose loss is told
        again = float(steps_loss(model, tests, torch.arange(len(tests)), 2))
    assert again == pytest.approx(found["loss_2"], rel=1e-9)


def test_the_best_numbers_are_kept_and_not_the_last(walks):
    train, held = walks
    config = TannConfig(epochs=2, tuning=0, learning_rate=0.3)  # a rate that spoils
    model = build(config, train)
    before = model.flat()
    found = fit(model, train[:20], held, config)
    assert found["epoch_1"] == 0
    assert torch.equal(model.flat(), before)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(walks, tmp_path):
    train, held = walks
    config = TannConfig(variables=6, epochs=2, tuning=3, learning_rate=1e-3)
    first, train = build(config, train), train[:60]
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
    torch.testing.assert_close(resumed.flat(), whole.flat(), rtol=1e-4, atol=1e-5)
    assert again["loss_2"] == pytest.approx(told["loss_2"], rel=1e-4)
    assert again["epoch_2"] == told["epoch_2"]


def test_the_encoder_is_the_exact_inverse_of_the_decoder(walks):
    train, _ = walks
    model = build(TannConfig(), train)
    Z = torch.randn(5, 16, dtype=torch.float64)
    E = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(model.encode(model.decode(Z, E), E), Z)
    xi = coordinates_of(train)[0] / model.size
    shown = model.decode(model.encode(xi, train.strain), train.strain)
    torch.testing.assert_close(shown, xi, rtol=0, atol=1e-8)


def test_the_loss_is_differentiable_in_every_number(walks):
    train, _ = walks
    model = build(TannConfig(variables=5), train)
    loss = steps_loss(model, Steps(train[:3], model), torch.arange(200), 1)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert float(parameter.grad.abs().max()) > 0, name


def test_errors_tell_a_law_that_is_off(walks):
    train, _ = walks
    law = lattice_law(*lattice_of(train.lattice))
    cell = LatticeCell(*lattice_of(train.lattice))
    strain = cycles(2, "combined")
    law.k *= 1.1
    told = compare(recall(law, strain), solved(cell, strain))
    assert 0.01 < told["stress"] < 0.2
    assert told["dissipation"] > 0.02


def test_paths_are_divided_and_cycled_as_asked():
    strain = cycles(3, "uniaxial", amplitudes=(0.2,), steps=5)
    assert strain[0, :, 0, 0].max() == pytest.approx(0.2)
    assert strain[0, :, 0, 0].min() == pytest.approx(-0.2)
    assert float(strain[0, :, 1:].abs().max()) == 0
    fine = divided(strain, 4)
    torch.testing.assert_close(fine[:, ::4], strain, rtol=0, atol=1e-15)
    torch.testing.assert_close(fine[:, 1::4], 0.75 * strain[:, :-1] + 0.25 * strain[:, 1:])


def test_sets_of_different_cells_are_not_mixed(make_walks, monkeypatch):
    one, other = make_walks(samples=3, steps=3), make_walks("square-1", samples=3, steps=3, perturbation=0.0)
    assert one.lattice != other.lattice
    monkeypatch.setattr(data_module, "_read", lambda path, allow_partial: {"one": one, "other": other}[path])
    assert len(data_module.load_paths(["one", "one"])[0]) == 4
    with pytest.raises(ValueError, match="must be of the same cell and bars"):
        data_module.load_paths(["one", "other"])
    both = join([one, one])
    assert len(both) == 6
    with pytest.raises(ValueError, match="held_out must lie between"):
        split(one, 3)
    with pytest.raises(ValueError, match="same number of times"):
        join([one, make_walks(samples=3, steps=4)])


@pytest.mark.parametrize("bad", [{"variables": -1}, {"epochs": -1}, {"batch": 0}])
def test_bad_configurations_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must"):
        TannConfig(**bad)


def test_more_variables_than_there_are_are_refused(walks):
    with pytest.raises(ValueError, match="at most the 16"):
        build(TannConfig(variables=17), walks[0])
