"""The polycrystal as a law: objectivity, equality with the crystal's own update, purity, energies and tangent."""

import numpy as np
import pytest
import torch

from micro.crystal import compiled
from micro.crystal.materials import load_material
from micro.crystal.paths import random_walk
from micro.crystal.polycrystal_law import EXTRA, make_grains, right_cauchy_green, taylor_polycrystal
from micro.crystal.texture import Texture, random_texture
from micro.tensors import from_components, random_rotations

pytestmark = pytest.mark.skipif(not compiled.available(), reason="no C compiler")
POINTS, STEPS = 3, 20


@pytest.fixture(scope="module")
def law():
    return taylor_polycrystal(6, reduced=False)


@pytest.fixture(scope="module")
def walk():
    """Stretches (T, n, 3, 3) and the duration of a step, s."""
    paths = random_walk(range(POINTS), 3, strain=0.2, steps=STEPS, duration=(2e-6, 2e-6))
    return np.swapaxes(from_components(paths.U), 0, 1), 2e-6 / STEPS


@pytest.fixture(scope="module")
def driven(law, walk):
    """Stress and state at the end of the walk."""
    U, dt = walk
    return follow(law, U, dt)


def follow(law, F, dt):
    state = law.initial_state(F.shape[1])
    for F_k in F[1:]:
        P, state = law.update(F_k, state, dt)
    return P, state


def test_a_superposed_rotation_turns_the_stress_and_nothing_else(law, walk, driven):
    U, dt = walk
    R = random_rotations(len(U), 5).numpy()  # another one at every instant
    P, state = follow(law, R[:, None] @ U, dt)
    np.testing.assert_allclose(P, R[-1] @ driven[0], rtol=0, atol=1e-7 * np.abs(P).max())
    np.testing.assert_allclose(law.observe(state), law.observe(driven[1]), rtol=1e-7, atol=1e-10)


def test_a_turned_texture_turns_the_response(walk):
    U, dt = walk
    texture, R = random_texture(5, 2), random_rotations(1, 7)
    material = load_material("magnesium")
    turned = taylor_polycrystal(texture=Texture(R @ texture.orientations, texture.weights), material=material)
    P, _ = follow(taylor_polycrystal(texture=texture, material=material), U, dt)
    Q = R[0].numpy()
    P_turned, _ = follow(turned, Q @ U @ Q.T, dt)
    # The components of C are rounded differently, so the steps are chosen by errors that differ in the last digits.
    np.testing.assert_allclose(P_turned, Q @ P @ Q.T, rtol=0, atol=1e-6 * np.abs(P).max())


def test_stress_and_state_are_those_of_the_grains(law, walk, driven):
    U, dt = walk
    grains = make_grains(random_texture(6, 0), load_material("magnesium"))
    state = grains.initial_state(POINTS)
    for U_k in U[1:]:
        result = grains.update(right_cauchy_green(U_k), state, dt)
        state = result.state
    S = from_components(result.S)
    np.testing.assert_allclose(driven[0], U[-1] @ S, rtol=1e-12, atol=1e-3)
    np.testing.assert_array_equal(driven[1][:, :-EXTRA], state)


def test_nothing_is_kept_and_the_state_is_left_as_it_is(law, walk, driven):
    U, dt = walk
    state = driven[1].copy()
    first = law.update(1.01 * U[-1], state, dt)
    law.tangent(U[0], law.initial_state(POINTS), dt)
    second = law.update(1.01 * U[-1], state, dt)
    np.testing.assert_array_equal(state, driven[1])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_points_do_not_depend_on_each_other(law, walk, driven):
    U, dt = walk
    whole = law.update(1.01 * U[-1], driven[1], dt)
    for k in range(POINTS):
        single = law.update(1.01 * U[-1, k : k + 1], driven[1][k : k + 1], dt)
        np.testing.assert_allclose(single[0][0], whole[0][k], rtol=1e-12, atol=1e-3)
        np.testing.assert_allclose(single[1][0], whole[1][k], rtol=1e-10, atol=1e-12 * np.abs(whole[1][k]).max())


def test_no_points(law):
    P, state, dP_dF = law.tangent(np.zeros((0, 3, 3)), law.initial_state(0), 1e-8)
    assert P.shape == (0, 3, 3)
    assert state.shape == (0, law.state_size)
    assert dP_dF.shape == (0, 3, 3, 3, 3)
    assert law.observe(state).shape == (0, len(law.observed))
    assert law.stored_energy(np.zeros((0, 3, 3)), state).shape == law.dissipation(state).shape == (0,)


@pytest.mark.parametrize("grains", [8, 16])
def test_the_elastic_response_of_a_reduced_set_is_exact(grains):
    """All orientations have the same isotropic elasticity, so weights with sum one leave nothing of the choice."""
    law = taylor_polycrystal(grains)
    rng = np.random.default_rng(0)
    F = np.eye(3) + 0.05 * rng.standard_normal((4, 3, 3))
    P, state = law.update(F, law.initial_state(4), 0.0)
    J, C = np.linalg.det(F)[:, None, None], np.swapaxes(F, 1, 2) @ F
    G, K = law.shear_modulus, law.bulk_modulus
    F_it = np.swapaxes(np.linalg.inv(F), 1, 2)
    exact = G * J ** (-2 / 3) * (F - np.trace(C, axis1=1, axis2=2)[:, None, None] / 3 * F_it) + K * (J - 1) * J * F_it
    np.testing.assert_allclose(P, exact, rtol=0, atol=1e-9 * G)
    energy = 0.5 * G * (J[:, 0, 0] ** (-2 / 3) * np.trace(C, axis1=1, axis2=2) - 3) + 0.5 * K * (J[:, 0, 0] - 1) ** 2
    np.testing.assert_allclose(law.stored_energy(F, state), energy, rtol=1e-9)
    assert not law.observe(state).any()


def test_work_is_stored_or_dissipated_at_second_order(law):
    """Refining the steps brings the dissipation to its limit with second order, and it never falls."""
    F_end = np.array([[[1.06, 0.05, 0.0], [0.0, 0.98, 0.02], [0.01, 0.0, 0.97]]])
    C = np.swapaxes(F_end, 1, 2) @ F_end
    found = []
    for steps in (20, 40, 80, 640):
        state, dissipation = law.initial_state(1), [0.0]
        for k in range(1, steps + 1):
            F = np.swapaxes(np.linalg.cholesky(np.eye(3) + k / steps * (C - np.eye(3))), 1, 2)
            _, state = law.update(F, state, 1e-6 / steps)
            dissipation.append(float(law.dissipation(state)[0]))
        if steps == 640:
            assert (np.diff(dissipation) > -1e-6 * dissipation[-1]).all()
        found.append(dissipation[-1])
    errors = np.abs(np.array(found[:3]) - found[3])
    assert found[3] > 0
    assert errors[2] < 0.12 * errors[0]  # 1/16 at second order
    assert errors[2] < 2e-3 * found[3]


def test_the_tangent_is_the_derivative_of_the_stress(law, walk, driven):
    """Central differences of P over F with another step, and extrapolated, against the tangent.

    Where the integrator of a grain takes another number of steps, P jumps by some 1e-6 to 1e-5 of its size.
    """
    U, dt = walk
    change = 2e-4 * np.random.default_rng(1).standard_normal((3, 3, 3))
    F = random_rotations(1, 9).numpy() @ U[-1] @ (np.eye(3) + change)
    P, new, tangent = law.tangent(F, driven[1], dt)
    np.testing.assert_array_equal(P, law.update(F, driven[1], dt)[0])
    np.testing.assert_array_equal(new, law.update(F, driven[1], dt)[1])

    def differences(step):
        result = np.empty_like(tangent)
        for k in range(3):
            for m in range(3):
                change = np.zeros((3, 3))
                change[k, m] = step
                sides = [law.update(F + sign * change, driven[1], dt)[0] for sign in (1.0, -1.0)]
                result[..., k, m] = (sides[0] - sides[1]) / (2 * step)
        return result

    step = 3e-8
    extrapolated = (4 * differences(step) - differences(2 * step)) / 3
    error = np.linalg.norm((tangent - extrapolated).reshape(POINTS, -1), axis=1)
    assert (error < 1e-4 * np.linalg.norm(tangent.reshape(POINTS, -1), axis=1)).all()


def test_a_point_that_fails_has_no_stress_and_the_others_have(law, driven, walk):
    U, dt = walk
    F = U[-1].copy()
    F[1, 0, 0] = np.nan
    P, _ = law.update(F, driven[1], dt)
    assert np.isnan(P[1]).all()
    assert np.isfinite(P[[0, 2]]).all()


def test_fields_are_means_over_the_grains_with_their_weights(walk):
    U, dt = walk
    texture = random_texture(2, 0)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    singles = [Texture(texture.orientations[k : k + 1], torch.ones(1, dtype=torch.float64)) for k in (0, 1)]
    fields = [(law := taylor_polycrystal(texture=one)).observe(follow(law, U, dt)[1]) for one in singles]
    both = taylor_polycrystal(texture=Texture(texture.orientations, weights))
    _, state = follow(both, U, dt)
    np.testing.assert_allclose(both.observe(state), 0.3 * fields[0] + 0.7 * fields[1], rtol=1e-10, atol=1e-12)
    assert both.observed == ("slip_basal", "slip_prismatic", "slip_pyramidal", "twin_fraction")
    assert (both.observe(state) >= 0).all()
    assert (both.observe(state)[:, -1] <= 1).all()


@pytest.mark.parametrize("material", ["magnesium"])
def test_moduli_are_those_of_the_material(material):
    law, parameters = taylor_polycrystal(3, reduced=False, material=material), load_material(material)
    assert law.bulk_modulus == 2 * parameters.lambda_e
    assert (law.shear_modulus, law.density) == (parameters.G, parameters.density)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"grains": 0}, "grains must be a positive whole number, got 0"),
        ({"grains": 2.5}, "grains must be a positive whole number, got 2.5"),
        ({"grains": True}, "grains must be a positive whole number"),
        ({"grains": 17}, "There is no reduced set of 17 grains of magnesium .* shipped are .*16 of magnesium"),
        ({"grains": 16, "seed": 1}, "There is no reduced set of 16 grains of magnesium with the seed 1"),
        ({"reduced": True}, "reduced must be False or the file of a reduced set"),
        ({"reduced": "no/such.json"}, "There is no reduced texture no/such.json"),
        ({"grains": 4, "reduced": False, "slip": "never"}, "slip must be 'domains'"),
        ({"grains": 4, "reduced": False, "tolerance": -1.0}, "tolerance must be positive"),
    ],
)
def test_bad_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        taylor_polycrystal(**options)


def test_bad_arrays(law):
    with pytest.raises(ValueError, match=r"F must have shape \(n, 3, 3\), got \(2, 2, 2\)"):
        law.update(np.zeros((2, 2, 2)), law.initial_state(2), 1e-8)
    with pytest.raises(ValueError, match="state must have shape"):
        law.update(np.tile(np.eye(3), (2, 1, 1)), law.initial_state(3), 1e-8)
    with pytest.raises(ValueError, match="dt must not be negative"):
        law.update(np.tile(np.eye(3), (2, 1, 1)), law.initial_state(2), -1e-8)
