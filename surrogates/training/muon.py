"""Muon: an optimiser whose step of a matrix of weights has singular values near one.

The momentum M of the gradient of a matrix (r, c) is replaced by its nearest orthogonal matrix U V^T, M = U S V^T, so
that all directions of the matrix learn at one pace, not only the steep ones:

    M <- m M + G,    W <- W - lr sqrt(max(1, r/c)) orthogonal(G + m M)

A fully connected network then needs several times fewer updates than with Adam. An update costs some five pairs of
matrix products more, so that large batches pay. Vectors (biases) take steps of Adam with a tenth of the rate.

References:
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024, kellerjordan.github.io/posts/muon:
    momentum and the coefficients of the iteration.
    Higham, Functions of Matrices (2008), section 8.3: Newton-Schulz iteration for the polar factor.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 5
#: Odd polynomial a x + b x^3 + c x^5, steep at zero: five times in a row it takes [0.01, 1] into about [0.7, 1.2].
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
#: Learning rate of vectors, relative to that of matrices; the two decay rates of Adam, and its epsilon.
VECTOR_RATE = 0.1
DECAYS = (0.9, 0.999)
EPSILON = 1e-8


def orthogonal(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """A matrix (r, c) with the singular vectors of `matrix` and singular values between about 0.7 and 1.2.

    Those that are smaller than a hundredth of the Frobenius norm stay smaller; zero stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    X = matrix.t() if tall else matrix
    X = X / (X.norm() + 1e-30)
    for _ in range(iterations):
        gram = X @ X.t()
        X = a * X + (b * gram + c * gram @ gram) @ X
    return X.t() if tall else X


class Muon(torch.optim.Optimizer):
    """Muon for matrices, Adam for everything else.

    Args:
        parameters: the parameters to train.
        lr: learning rate of matrices: the norm of the step of a direction; 1e-2 is usual.

    Raises:
        ValueError: lr is not positive.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}.")
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; a closure, if given, is evaluated first, and its value returned."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    move = self._matrix_step if p.dim() == 2 else self._vector_step
                    move(p, p.grad, self.state[p], group["lr"])
        return value

    def _matrix_step(self, p: Tensor, gradient: Tensor, state: dict[str, Any], lr: float) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].mul_(MOMENTUM).add_(gradient)
        direction = orthogonal(gradient + MOMENTUM * state["momentum"])
        p.sub_(direction, alpha=lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)

    def _vector_step(self, p: Tensor, gradient: Tensor, state: dict[str, Any], lr: float) -> None:
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - DECAYS[0])
        state["square"].lerp_(gradient.square(), 1 - DECAYS[1])
        mean = state["mean"] / (1 - DECAYS[0] ** state["step"])
        square = state["square"] / (1 - DECAYS[1] ** state["step"])
        p.sub_(mean / (square.sqrt() + EPSILON), alpha=VECTOR_RATE * lr)
