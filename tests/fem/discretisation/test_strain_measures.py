"""Scalar measures against closed forms."""

import numpy as np
import pytest

from fem.discretisation import strain_measures


def test_von_mises_of_known_states():
    sigma = np.stack([np.diag([3.0, 0.0, 0.0]), np.diag([-5.0, -5.0, -5.0]), np.zeros((3, 3))])
    sigma[2, 0, 1] = sigma[2, 1, 0] = 2.0
    np.testing.assert_allclose(strain_measures.von_mises(sigma), [3.0, 0.0, 2.0 * np.sqrt(3.0)], atol=1e-14)


def test_cauchy_stress_of_a_hydrostatic_state(rotations):
    Q = rotations(4)
    F = 1.1 * Q
    P = -7.0 * 1.1**2 * Q  # p J F^-T
    np.testing.assert_allclose(strain_measures.cauchy_stress(F, P), np.tile(-7.0 * np.eye(3), (4, 1, 1)), atol=1e-13)


def test_strains_see_shape_and_volume_apart(rotations):
    Q = rotations(3)
    assert strain_measures.deviatoric_strain(1.2 * Q) == pytest.approx(0.0, abs=1e-14)
    np.testing.assert_allclose(strain_measures.volume_strain(1.2 * Q), 1.2**3 - 1.0)
    F = np.diag([2.0, 1.0, 1.0])[None]
    # det F = 2, F^T F = diag(4, 1, 1).
    assert strain_measures.deviatoric_strain(F, exponent=2.0)[0] == pytest.approx(0.5 * np.sqrt(2.0 * 0.75**2))
    assert strain_measures.volume_strain(F)[0] == pytest.approx(1.0)
    small = np.eye(3) + 1e-6 * np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert strain_measures.deviatoric_strain(small[None])[0] == pytest.approx(1e-6 / np.sqrt(2.0), rel=1e-5)
