"""The optimiser: it descends, a rotation of the weights does not matter to it, and it resumes."""

import copy

import pytest
import torch

from surrogates.training.soap import Soap


def quadratic(rotate: torch.Tensor | None = None, steps: int = 200, every: int = 1) -> tuple[list[float], torch.Tensor]:
    """Losses of a badly conditioned quadratic of a matrix, W A with a spread of 1e4, and the last weights."""
    A = torch.diag(torch.logspace(0, 4, 6, dtype=torch.float64))
    A = A if rotate is None else rotate @ A @ rotate.T
    target = (
        torch.ones(4, 6, dtype=torch.float64) if rotate is None else torch.ones(4, 6, dtype=torch.float64) @ rotate.T
    )
    W = torch.nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    optimiser, losses = Soap([W], lr=0.03, every=every, warm_up=0, clip=1e9), []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (((W - target) @ A) * (W - target)).sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, W.detach()


def test_it_does_not_feel_a_rotation_of_the_weights() -> None:
    """Adam does: in rotated axes a badly conditioned problem takes it far longer."""
    Q = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    plain, turned = quadratic()[0], quadratic(Q)[0]
    assert plain[-1] < 1e-3 * plain[0]
    assert turned[-1] < 1e-3 * turned[0]
    W = torch.nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    A, target = Q @ torch.diag(torch.logspace(0, 4, 6, dtype=torch.float64)) @ Q.T, torch.ones(4, 6).double() @ Q.T
    adam = torch.optim.Adam([W], lr=0.03, betas=(0.9, 0.99))
    for _ in range(200):
        adam.zero_grad()
        loss = (((W - target) @ A) * (W - target)).sum()
        loss.backward()
        adam.step()
    assert loss.item() > 3 * turned[-1]


def test_vectors_take_adam() -> None:
    """The first step of Adam is the learning rate in every component."""
    w = torch.nn.Parameter(torch.zeros(5))
    w.grad = torch.tensor([1.0, -2.0, 3.0, 1e-3, -5.0])
    Soap([w], lr=0.1, warm_up=0).step()
    torch.testing.assert_close(w.detach(), -0.1 * w.grad.sign(), rtol=1e-4, atol=0)


def test_a_long_gradient_is_shortened_and_one_that_is_not_finite_left_out() -> None:
    w = torch.nn.Parameter(torch.zeros(2))
    optimiser = Soap([w], lr=0.1, betas=(0.0, 0.0), warm_up=0, clip=2.0)
    for _ in range(5):
        w.grad = torch.tensor([1.0, 0.0])
        optimiser.step()
    before = w.detach().clone()
    w.grad = torch.tensor([float("nan"), 0.0])
    optimiser.step()
    assert bool((w == before).all())
    w.grad = torch.tensor([1e6, 0.0])
    optimiser.step()
    assert optimiser.state[w]["mean"][0] == pytest.approx(2.0)


def test_a_stored_state_continues_alike() -> None:
    def run(steps: int, kept: dict | None = None, start: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
        W = torch.nn.Parameter(torch.ones(3, 4) if start is None else start.clone())
        optimiser = Soap([W], every=2)
        if kept:
            optimiser.load_state_dict(kept)
        for _ in range(steps):
            optimiser.zero_grad()
            (W.sin() * torch.arange(12.0).reshape(3, 4)).sum().backward()
            optimiser.step()
        return W.detach(), copy.deepcopy(optimiser.state_dict())

    whole, _ = run(7)
    half, state = run(3)
    resumed, _ = run(4, state, half)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="SOAP needs lr > 0"):
        Soap([torch.nn.Parameter(torch.zeros(2))], lr=0.0)
