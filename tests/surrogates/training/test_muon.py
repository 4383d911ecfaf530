"""Muon: its orthogonal directions, and steps that do not depend on the scale of the loss."""

import pytest
import torch

from surrogates.training.muon import MOMENTUM, VECTOR_RATE, Muon, orthogonal


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4)])
def test_singular_vectors_stay_and_singular_values_come_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    U, _, V = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    S = torch.logspace(0, -1.7, min(shape), dtype=torch.float64)
    core = U.t() @ orthogonal((U * S) @ V) @ V.t()
    values = core.diagonal()
    assert torch.allclose(core, torch.diag(values), atol=1e-12)
    assert values.min() > 0.65 and values.max() < 1.25
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))


def parameters():
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((6, 4), (6,))]


def moved(scale: float, steps: int = 3) -> list[torch.Tensor]:
    """Change of a matrix and a vector after some steps down a scaled quadratic."""
    W, b = parameters()
    optimiser, before = Muon([W, b], 1e-2), [W.detach().clone(), b.detach().clone()]
    for _ in range(steps):
        optimiser.zero_grad()
        (scale * (W @ torch.arange(1.0, 5.0) + b).square().sum()).backward()
        optimiser.step()
    return [p.detach() - old for p, old in zip((W, b), before, strict=True)]


def test_steps_do_not_depend_on_the_scale_of_the_loss():
    for one, other in zip(moved(1.0), moved(1e3), strict=True):
        assert one.abs().max() > 1e-4
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-7)


def test_first_step_of_a_matrix_and_of_a_vector():
    W, b = parameters()
    loss = (W @ torch.ones(4) * torch.arange(1.0, 7.0)).square().sum() + 3.0 * b.square().sum()
    loss.backward()
    old, gradients = [W.detach().clone(), b.detach().clone()], [W.grad.clone(), b.grad.clone()]
    Muon([W, b], 0.1).step()
    expected = -0.1 * (6 / 4) ** 0.5 * orthogonal((1 + MOMENTUM) * gradients[0])
    assert torch.allclose(W - old[0], expected, atol=1e-6)
    assert torch.allclose(b - old[1], -0.1 * VECTOR_RATE * gradients[1].sign(), atol=1e-6)  # as Adam begins


def test_a_stored_state_continues_to_the_same_numbers():
    def descend(p, optimiser, steps):
        for _ in range(steps):
            optimiser.zero_grad()
            sum(x.square().sum() for x in p).backward()
            optimiser.step()

    whole = parameters()
    descend(whole, Muon(whole, 1e-2), 5)
    first = parameters()
    optimiser = Muon(first, 1e-2)
    descend(first, optimiser, 2)
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    other = Muon(second, 1e-2)
    other.load_state_dict(optimiser.state_dict())
    descend(second, other, 3)
    for a, b in zip(whole, second, strict=True):
        assert torch.equal(a, b)


def test_learning_rate_must_be_positive():
    with pytest.raises(ValueError, match="lr must be positive, got 0"):
        Muon(parameters(), 0.0)
