"""The patch: exact for uniform strain, its stiffness the derivative of its forces, orders observed as defined."""

import pytest
import torch

from surrogates.artifact.patch_test import ORDER_CAP, LoadStep, forces, gradients, make_patch, stiffness


@pytest.mark.parametrize("d", [2, 3])
def test_distorted_patch_fills_the_box_and_gives_a_uniform_gradient(d):
    patch = make_patch(d, 2, distortion=0.2, seed=1)
    assert float((patch.nodes - make_patch(d, 2).nodes).abs().max()) > 0.02
    assert float(patch.weights.min()) > 0
    assert float(patch.weights.sum()) == pytest.approx(1.0, abs=1e-14)
    H = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    F = gradients(patch, patch.nodes @ H.T + 0.3)
    torch.testing.assert_close(F, (torch.eye(d, dtype=torch.float64) + H).expand_as(F), rtol=0, atol=1e-13)


@pytest.mark.parametrize("d", [2, 3])
def test_uniform_stress_is_in_equilibrium_inside_and_pulls_at_the_top(d):
    patch = make_patch(d, 2, distortion=0.2, seed=1)
    P = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f, size = forces(patch, P.repeat(patch.weights.numel(), 1, 1))
    inside = ((patch.nodes > 0) & (patch.nodes < 1)).all(dim=1)
    assert int(inside.sum()) == 1
    assert float(f[inside].abs().max()) < 1e-15 * size
    torch.testing.assert_close(torch.einsum("ai,aj->ij", f, patch.nodes), P)  # the virial of a box of volume 1


@pytest.mark.parametrize("d", [2, 3])
def test_stiffness_is_the_derivative_of_the_forces(d):
    patch = make_patch(d, 2, distortion=0.2, seed=1)
    generator = torch.Generator().manual_seed(2)
    A = torch.randn(patch.weights.numel(), d, d, d, d, generator=generator, dtype=torch.float64)
    u = torch.randn(patch.nodes.shape, generator=generator, dtype=torch.float64)
    H = gradients(patch, u) - torch.eye(d, dtype=torch.float64)
    f, _ = forces(patch, torch.einsum("nijkl,nkl->nij", A, H))
    torch.testing.assert_close((stiffness(patch, A) @ u.reshape(-1)).reshape(f.shape), f, rtol=1e-12, atol=1e-12)


def test_one_element_leaves_the_top_free_across_its_height():
    for d, free in ((2, 2), (3, 8)):
        patch = make_patch(d, 1)
        assert int(patch.free.sum()) == free
        assert not patch.free[patch.nodes[:, -1] == 0].any() and not patch.free[:, -1].any()


@pytest.mark.parametrize(
    ("residuals", "order"),
    [
        ((1e-1, 1e-2, 1e-4, 1e-8, 1e-16), 2.0),
        ((1e-1, 1e-2, 1e-3, 1e-4, 1e-5), 1.0),
        ((1e-1, 1e-3, 1e-9), 3.0),
        ((1e-1, 1e-2, 0.0), ORDER_CAP),  # exact after two iterations
        ((1e-1, 1e-16), ORDER_CAP),  # exact after one
        ((1e-16,), ORDER_CAP),  # nothing to do
        ((1e-2, 3e-2, 1e-16), ORDER_CAP),
    ],
)
def test_order_is_read_off_the_last_residuals(residuals, order):
    assert LoadStep(residuals, True).order == pytest.approx(order)
    assert LoadStep(residuals, False).order == 0.0
    assert LoadStep(residuals, True).iterations == len(residuals) - 1
