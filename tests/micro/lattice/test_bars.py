"""Bar laws: closed forms, thermodynamics, tangents, and one code for both array libraries."""

import numpy as np
import pytest
import torch

from micro.lattice.bars import PRINTED, IsotropicBar, KinematicBar

LAWS = [KinematicBar(), IsotropicBar(), KinematicBar(2.0, 0.7, 0.2), IsotropicBar(2.0, 0.7, 0.2)]


def walk(law, strains):
    """Stress, state, tangent after each strain of a path, from the virgin state."""
    state, out = np.zeros((*strains.shape[1:], law.state_size)), []
    for strain in strains:
        stress, new, tangent = law.update(strain, state)
        out.append((stress, new, tangent, law.dissipation(state, new)))
        state = new
    return [np.array(column) for column in zip(*out)]


def random_states(law, n=200):
    """States that a random walk reaches."""
    rng = np.random.default_rng(1)
    return walk(law, rng.uniform(-0.6, 0.6, size=(12, n)))[1][-1]


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_first_loading_is_bilinear(law):
    E, H, k = law.modulus, law.hardening, law.strength
    yielding = k / E
    strain = np.array([0.5, 0.999, 1.5, 4.0]) * yielding * np.array([1, -1, 1, -1])
    stress, state, tangent = law.update(strain, np.zeros((4, law.state_size)))
    beyond = np.clip(abs(strain) - yielding, 0, None)
    exact = np.sign(strain) * (np.minimum(abs(strain) * E, k) + E * H / (E + H) * beyond)
    np.testing.assert_allclose(stress, exact, rtol=1e-14)
    np.testing.assert_allclose(tangent, [E, E, E * H / (E + H), E * H / (E + H)], rtol=1e-14)
    assert np.all(state[:2] == 0) and np.all(state[2:, 0] != 0)


def test_kinematic_bar_keeps_its_elastic_range_and_isotropic_widens_it():
    """After loading to a stress s, reverse yield comes at s - 2 k (kinematic) and at -s (isotropic)."""
    for law, reverse in ((KinematicBar(), lambda s: s - 2 / 3), (IsotropicBar(), lambda s: -s)):
        path = np.concatenate([np.linspace(0, 1, 11), np.linspace(1, -1, 2001)])
        stress, state, _, _ = walk(law, path)
        top = stress[10]
        turned = 11 + np.argmax(np.diff(state[11:, 0]) != 0)
        assert stress[turned] == pytest.approx(reverse(top), abs=2e-3)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_step_does_not_depend_on_its_division(law):
    """The return is exact along a strain that does not turn."""
    state, target = random_states(law), np.random.default_rng(2).uniform(-1, 1, size=200)
    start = np.zeros(200) + law.update(np.zeros(200), state)[1][..., 0]
    state = law.update(start, state)[1]
    stress, whole, _ = law.update(target, state)
    for strain in np.linspace(start, target, 8)[1:]:
        parts, state, _ = law.update(strain, state)
    np.testing.assert_allclose(parts, stress, atol=1e-14)
    np.testing.assert_allclose(state, whole, atol=1e-14)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_tangent_is_the_derivative(law):
    state, strain = random_states(law), np.random.default_rng(3).uniform(-1, 1, size=200)
    h = 1e-6
    difference = (law.update(strain + h, state)[0] - law.update(strain - h, state)[0]) / (2 * h)
    np.testing.assert_allclose(law.update(strain, state)[2], difference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_first_and_second_law(law):
    """D = -T . d(state) >= 0, and the work of a step lies where the convexity of the incremental energy puts it.

    psi + D of a step is a convex function of the strain whose derivative is the stress.
    """
    strains = np.concatenate([np.zeros((1, 50)), np.random.default_rng(4).normal(0, 0.4, size=(40, 50)).cumsum(axis=0)])
    stress, state, _, dissipation = walk(law, strains)
    gain = np.diff(law.energy(strains, state), axis=0) + dissipation[1:]
    step = np.diff(strains, axis=0)
    end = torch.tensor(state[1:], requires_grad=True)
    (T,) = torch.autograd.grad(law.energy(torch.from_numpy(strains[1:]), end).sum(), end)
    done = -(T.numpy() * np.diff(state, axis=0)).sum(axis=-1)
    np.testing.assert_allclose(dissipation[1:], done, rtol=1e-12, atol=1e-14)
    assert done.min() > -1e-14 and done.max() > 0.1 * law.strength
    assert np.all(gain <= stress[1:] * step + 1e-14)
    assert np.all(gain >= stress[:-1] * step - 1e-14)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_stress_is_the_derivative_of_the_energy(law):
    state, strain = random_states(law), np.linspace(-1, 1, 200)
    h = 1e-5
    difference = (law.energy(strain + h, state) - law.energy(strain - h, state)) / (2 * h)
    np.testing.assert_allclose(difference, law.modulus * (strain - state[:, 0]), atol=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_numpy_and_torch_agree(law):
    state, strain = random_states(law), np.random.default_rng(5).uniform(-1, 1, size=200)
    numpy = law.update(strain, state)
    tensors = law.update(torch.from_numpy(strain), torch.from_numpy(state))
    for a, b in zip(numpy, tensors):
        assert isinstance(b, torch.Tensor) and b.dtype == torch.float64
        np.testing.assert_array_equal(a, b.numpy())
    energy = law.energy(torch.from_numpy(strain), tensors[1])
    np.testing.assert_array_equal(law.energy(strain, numpy[1]), energy.numpy())
    loss = law.dissipation(torch.from_numpy(state), tensors[1])
    np.testing.assert_array_equal(law.dissipation(state, numpy[1]), loss.numpy())


def test_update_leaves_its_input_alone():
    for law in LAWS:
        state = random_states(law)
        before = state.copy()
        law.update(np.full(len(state), 2.0), state)
        np.testing.assert_array_equal(state, before)


def test_printed_parameters_scale_the_default():
    """A law with E and H a thousand times larger and the strain of yield of its own has the same shape."""
    strain = np.linspace(-5, 5, 101)
    scale = PRINTED.strength / PRINTED.modulus
    default = KinematicBar(1.0, 0.1, 1.0)
    ours = PRINTED.update(strain * scale, np.zeros((101, 1)))[0] / PRINTED.strength
    np.testing.assert_allclose(ours, default.update(strain, np.zeros((101, 1)))[0], atol=1e-12)


def test_bad_parameters():
    with pytest.raises(ValueError, match="hardening must be positive, got 0.0."):
        KinematicBar(hardening=0.0)
    with pytest.raises(ValueError, match="strength must be positive, got nan."):
        IsotropicBar(strength=float("nan"))
