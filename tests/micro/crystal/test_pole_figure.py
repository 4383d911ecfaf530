"""Pole figures: their mean, the uniform limit, single crystals and the projection."""

import math

import numpy as np
import pytest
import torch

from micro.crystal.materials import load_material
from micro.crystal.pole_figure import disc, pole_density, pole_figure, poles, project
from micro.crystal.texture import fibre_texture, from_euler, random_texture, uniform_weights
from micro.tensors import random_rotations

#: Points that cover the sphere evenly (Fibonacci).
N = 4000
_z = 1 - (2 * np.arange(N) + 1) / N
_angle = np.pi * (1 + 5**0.5) * np.arange(N)
SPHERE = np.stack([np.sqrt(1 - _z**2) * np.cos(_angle), np.sqrt(1 - _z**2) * np.sin(_angle), _z], axis=1)


@pytest.mark.parametrize("half_width", [5.0, 10.0, 30.0])
def test_the_mean_over_the_sphere_is_one(half_width: float) -> None:
    density = pole_density(SPHERE, random_texture(3, 1), (0, 0, 0, 1), half_width=half_width)
    assert density.mean() == pytest.approx(1.0, abs=2e-3)
    assert density.min() >= 0


def test_the_kernel_has_its_half_width() -> None:
    texture = uniform_weights(torch.eye(3, dtype=torch.float64)[None])
    a = math.radians(12.0)
    top, half = pole_density(
        np.array([[0, 0, 1.0], [math.sin(a), 0, math.cos(a)]]), texture, (0, 0, 0, 1), half_width=12
    )
    assert half / top == pytest.approx(0.5, rel=1e-9)


def test_a_random_texture_is_uniform_within_the_sampling_error() -> None:
    """The variance of the mean of g kernels is (mean of f^2 - 1) / g, and the mean of f^2 is known for this kernel."""
    g, alpha = 2000, 20.0
    kappa = math.log(2) / (1 - math.cos(math.radians(alpha)))
    single = kappa / math.tanh(kappa) / 2 + kappa**2 / math.sinh(kappa) ** 2 / 2  # mean of the square, both signs
    expected = math.sqrt((single - 1) / g)
    density = pole_density(SPHERE, random_texture(g, 2), (0, 0, 0, 1), half_width=alpha)
    assert density.std() == pytest.approx(expected, rel=0.35)
    assert abs(density - 1).max() < 6 * expected


def test_a_kernel_on_the_sphere_has_the_known_mean_square() -> None:
    alpha = 20.0
    kappa = math.log(2) / (1 - math.cos(math.radians(alpha)))
    single = kappa / math.tanh(kappa) / 2 + kappa**2 / math.sinh(kappa) ** 2 / 2
    density = pole_density(SPHERE, random_texture(1, 0), (0, 0, 0, 1), half_width=alpha)
    assert (density**2).mean() == pytest.approx(single, rel=1e-2)


def test_the_sign_of_a_pole_does_not_matter() -> None:
    texture = random_texture(20, 3)
    up = pole_density(SPHERE, texture, (1, 0, -1, 1))
    np.testing.assert_allclose(pole_density(-SPHERE, texture, (1, 0, -1, 1)), up, rtol=1e-12)
    np.testing.assert_allclose(pole_density(SPHERE, texture, (-1, 0, 1, -1)), up, rtol=1e-12)
    np.testing.assert_allclose(pole_density(SPHERE, texture, (0, 1, -1, 1)), up, rtol=1e-12)  # an equivalent


def test_the_crystal_symmetry_does_not_show() -> None:
    q = random_rotations(5, 4)
    turn = from_euler(torch.tensor([0.0, 0.0, 60.0], dtype=torch.float64))  # six-fold about c
    a = pole_density(SPHERE, uniform_weights(q), (1, 0, -1, 1))
    b = pole_density(SPHERE, uniform_weights(q @ turn), (1, 0, -1, 1))
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_a_fibre_lies_in_the_middle_and_its_prism_planes_on_the_rim() -> None:
    texture = fibre_texture(500, 0)
    x, _, basal = pole_figure(texture, (0, 0, 0, 1), points=41)
    assert np.nanargmax(basal) == 20 * 41 + 20 and np.nanmax(basal) > 20
    prism = pole_figure(texture, (1, 0, -1, 0), points=41)[2]
    radius = np.hypot(*np.meshgrid(x, x))
    assert np.nanmean(prism[radius < 0.5]) < 1e-2 < 2 < np.nanmean(prism[(radius > 0.97) & (radius <= 1)])


def test_poles_of_a_cubic_crystal() -> None:
    texture, steel = uniform_weights(torch.eye(3, dtype=torch.float64)[None]), load_material("steel-316l")
    found, weights = poles(texture, (1, 1, 1), steel)
    assert found.shape == (4, 3) and float(weights.sum()) == pytest.approx(1.0)
    np.testing.assert_allclose(found.abs().numpy(), np.full((4, 3), 3**-0.5), rtol=1e-12)
    with pytest.raises(ValueError, match="plane must be 3 integers"):
        poles(texture, (1, 0, -1, 0), steel)


def test_the_projection_keeps_areas() -> None:
    """Of directions that cover the sphere evenly, the share within the radius r is r^2."""
    r = np.linalg.norm(project(SPHERE), axis=1)
    for radius in (0.3, 0.6, 0.9, 1.0):
        assert (r <= radius + 1e-12).mean() == pytest.approx(radius**2, abs=5e-3)
    np.testing.assert_allclose(project(-SPHERE), project(SPHERE), atol=1e-12)


def test_the_grid_on_the_disc_is_the_inverse_of_the_projection() -> None:
    x, y, directions = disc(21)
    inside = np.isfinite(directions).all(-1)
    np.testing.assert_allclose(np.linalg.norm(directions[inside], axis=1), 1.0, rtol=1e-12)
    X, Y = np.meshgrid(x, y)
    np.testing.assert_allclose(project(directions[inside]), np.stack([X[inside], Y[inside]], axis=1), atol=1e-7)


def test_bad_arguments() -> None:
    texture = random_texture(2)
    with pytest.raises(ValueError, match="half_width must lie between 1 and 90 degrees, got 0"):
        pole_density(SPHERE, texture, (0, 0, 0, 1), half_width=0)
    with pytest.raises(ValueError, match="directions must be unit vectors"):
        pole_density(2 * SPHERE, texture, (0, 0, 0, 1))
    with pytest.raises(ValueError, match="points must be at least 2, got 1"):
        pole_figure(texture, (0, 0, 0, 1), points=1)
