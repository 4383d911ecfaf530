"""Hidden coordinates: the form they need, and the same flow and tangent as without them."""

import pytest
import torch

from micro.lattice.bars import KinematicBar
from micro.lattice.condensation import condense
from micro.lattice.geometry import make_cell
from surrogates.tann.flow import (
    CoupledFlow,
    HiddenFlow,
    SeparateFlow,
    coupled,
    make_flow,
    pairs,
    relaxed,
    split_stiffness,
)


def problem(N=20, h=4, n=60, seed=0):
    """A stiffness of the form, and forces and thresholds of many points."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(N, h, dtype=torch.float64, generator=g)
    D = 1.02 * torch.linalg.eigvalsh(W @ W.T)[-1] * (0.95 + torch.rand(N, dtype=torch.float64, generator=g))
    r = 2 * torch.randn(n, N, dtype=torch.float64, generator=g)
    c = 0.2 + torch.rand(n, N, dtype=torch.float64, generator=g)
    shape = torch.randn(7, h, dtype=torch.float64, generator=g) @ W.T
    return torch.diag(D) - W @ W.T, D, W, shape, r, c


def test_a_stiffness_is_split_into_what_it_was_made_of():
    K, D, W, shape, _, _ = problem()
    found = split_stiffness(K, shape)
    assert found is not None
    torch.testing.assert_close(found[0], D, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1] @ found[1].T, W @ W.T, rtol=1e-9, atol=1e-9)


def test_a_stiffness_of_another_form_is_not_split():
    K, _, _, shape, _, _ = problem()
    B = torch.randn(20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert split_stiffness(K + 0.01 * B @ B.T, shape) is None
    assert split_stiffness(K, shape[:0]) is None
    assert split_stiffness(K, torch.eye(20, dtype=torch.float64)) is None


@pytest.mark.parametrize("size", [0.3, 1.0, 30.0])
def test_the_flow_is_the_same_as_without_hidden_coordinates(size):
    K, D, W, _, r, c = problem()
    r = size * r
    g, sign = relaxed(r, c, D, W, pairs(W, W) / D[:, None])
    assert torch.isfinite(g).all()
    scale = 1 / torch.diagonal(K).sqrt()
    values = torch.linalg.eigvalsh(K * scale[:, None] * scale)
    root = float(values[-1] / values[0]) ** 0.5
    other, signs = coupled(r, c, K, scale, 1 / float(values[-1]), (root - 1) / (root + 1))
    torch.testing.assert_close(g, other, rtol=1e-9, atol=1e-11)
    assert torch.equal(sign, signs)
    force = g @ K + r
    torch.testing.assert_close(-force[sign != 0], (c * sign)[sign != 0], rtol=1e-10, atol=1e-11)
    assert (force.abs() <= c * (1 + 1e-10)).all()


def test_a_perturbed_cell_has_the_hidden_coordinates_of_its_free_nodes():
    cell = make_cell("square-2", perturbation=0.2)
    form = condense(cell, KinematicBar())
    found = split_stiffness(torch.from_numpy(form.K), torch.from_numpy(form.displacement_alpha))
    assert found is not None
    free = len(set(cell.master.tolist())) - 1
    assert found[1].shape == (16, 2 * free)
    # What is left of a bar is its own modulus and hardening, whatever its neighbours are.
    torch.testing.assert_close(found[0] / torch.from_numpy(form.k), torch.full((16,), 3.3, dtype=torch.float64))


def test_the_motion_suits_the_stiffness_and_takes_the_same_off_the_tangent():
    K, _, _, shape, r, c = problem()
    G = torch.randn(20, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    one, other = make_flow(K, G, shape), CoupledFlow(K, G)
    assert isinstance(one, HiddenFlow)
    assert isinstance(make_flow(K, G, shape[:0]), CoupledFlow)
    assert isinstance(make_flow(torch.diag(torch.diagonal(K)), G, shape), SeparateFlow)
    moves = one(r, c)[1].abs()
    assert 0 < float(moves.mean()) < 1
    torch.testing.assert_close(one.softening(moves), other.softening(moves), rtol=1e-9, atol=1e-11)
    few = moves * (torch.arange(len(moves)) % 3 == 0)[:, None]
    torch.testing.assert_close(one.softening(few), other.softening(few), rtol=1e-9, atol=1e-11)


def test_no_points_and_resting_points():
    _, D, W, _, r, c = problem()
    products = pairs(W, W) / D[:, None]
    assert relaxed(r[:0], c[:0], D, W, products)[0].shape == (0, 20)
    g, sign = relaxed(0.9 * c * torch.sign(r), c, D, W, products)
    assert (g == 0).all()
    assert (sign == 0).all()
