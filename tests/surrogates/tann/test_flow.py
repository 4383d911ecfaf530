"""The flow problem: optimality, closed forms, and an independent solver."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from surrogates.tann.flow import coupled, moved, single


def problem(N, n=40, seed=0, spread=10.0):
    """Random r (n, N), c (n, N), K (N, N) of a condition number, and what `coupled` wants to know of K."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(N, N)))[0]
    K = torch.from_numpy(Q @ np.diag(np.geomspace(1, spread, N)) @ Q.T)
    r, c = torch.from_numpy(rng.normal(size=(n, N))), torch.from_numpy(rng.uniform(0.2, 1.5, (n, N)))
    scale = 1 / torch.sqrt(torch.diagonal(K))
    values = torch.linalg.eigvalsh(K * scale[:, None] * scale)
    root = float(values[-1] / values[0]) ** 0.5
    return r, c, K, (scale, 1 / float(values[-1]), (root - 1) / (root + 1))


@pytest.mark.parametrize("N", [1, 2, 13, 40])
@pytest.mark.parametrize("spread", [1.0, 10.0, 1000.0])
def test_the_increment_is_optimal(N, spread):
    r, c, K, known = problem(N, spread=spread)
    g, sign = coupled(r, c, K, *known)
    assert torch.isfinite(g).all()
    assert 0 < float((sign != 0).double().mean()) < 1
    force = g @ K + r
    assert (force.abs() <= c * (1 + 1e-9)).all()
    moving = sign != 0
    torch.testing.assert_close(-force[moving], (c * sign)[moving], rtol=1e-9, atol=1e-9)
    assert (g * sign >= 0).all()
    assert (g[~moving] == 0).all()
    # Dissipation is what the forces do: it cannot be negative.
    torch.testing.assert_close(-(force * g).sum(1), (c * g.abs()).sum(1), rtol=1e-9, atol=1e-12)


def test_the_increment_is_the_minimiser_that_a_general_solver_finds():
    r, c, K, known = problem(3, n=5)
    g, _ = coupled(r, c, K, *known)
    for i in range(5):
        # |g| as a sum of two parts that are not negative: a smooth problem with bounds
        def potential(x, i=i):
            y = torch.from_numpy(x[:3] - x[3:])
            return float(0.5 * y @ K @ y + r[i] @ y) + float(c[i] @ torch.from_numpy(x[:3] + x[3:]))

        found = minimize(potential, np.full(6, 0.1), bounds=[(0, None)] * 6, options={"ftol": 1e-15, "gtol": 1e-10})
        np.testing.assert_allclose(found.x[:3] - found.x[3:], g[i].numpy(), atol=2e-5)


def test_without_coupling_it_is_the_closed_form():
    r, c, K, _ = problem(6)
    diagonal = torch.diagonal(K).clone()
    g, sign = single(r, c, diagonal)
    h, other = coupled(r, c, torch.diag(diagonal), 1 / diagonal.sqrt(), 1.0, 0.0)
    torch.testing.assert_close(g, h)
    assert torch.equal(sign, other)


def test_points_below_the_thresholds_do_not_move_at_all():
    r, c, K, known = problem(4)
    g, sign = coupled(0.99 * c * torch.sign(r), c, K, *known)
    assert (g == 0).all()
    assert (sign == 0).all()


def test_no_points():
    r, c, K, known = problem(4, n=0)
    assert coupled(r, c, K, *known)[0].shape == (0, 4)
    assert single(r, c, torch.diagonal(K))[0].shape == (0, 4)


def test_the_known_set_is_differentiable():
    r, c, K, known = problem(5, n=3)
    sign = coupled(r, c, K, *known)[1]
    r.requires_grad_(True)
    K.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda r, K: moved(r, c, 0.5 * (K + K.T), sign), (r, K))


def test_a_batch_does_not_change_a_point():
    r, c, K, known = problem(8)
    g, _ = coupled(r, c, K, *known)
    for i in (0, 7):
        alone, _ = coupled(r[i : i + 1], c[i : i + 1], K, *known)
        torch.testing.assert_close(alone[0], g[i], rtol=1e-12, atol=1e-14)
