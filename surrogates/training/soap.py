"""The optimiser SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

For a matrix of weights with the gradient G, L and R are running means of G G^T and G^T G. Adam is applied to
Q_L^T G Q_R with the eigenvectors Q_L, Q_R of L and R, which are renewed every few steps by one step of orthogonal
iteration. Vectors take Adam as it is.

References:
    Vyas et al. (2024), SOAP: improving and stabilizing Shampoo using Adam, arXiv:2409.11321, algorithm 3.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Soap(torch.optim.Optimizer):
    """SOAP with a warm-up and a bound on the length of the gradient.

    Args:
        parameters: Vectors and matrices; gradients of higher order are taken as vectors.
        lr: Learning rate.
        betas: Decay of the running means of the gradient, and of its squares and the preconditioners.
        every: Steps between two renewals of the eigenvectors.
        warm_up: Steps over which the learning rate rises to its value.
        clip: Bound on the length of the gradient, over its running geometric mean; infinite for none.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float = 3e-3, betas: tuple[float, float] = (0.9, 0.99),
        every: int = 10, warm_up: int = 100, clip: float = 1.5,
    ) -> None:  # fmt: skip
        if not (lr > 0 and clip > 0 and every >= 1 and warm_up >= 0 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(
                "SOAP needs lr > 0, clip > 0, every >= 1, warm_up >= 0 and betas in [0, 1), "
                f"got {lr}, {clip}, {every}, {warm_up}, {betas}."
            )
        defaults = {
            "lr": lr,
            "betas": betas,
            "every": every,
            "warm_up": warm_up,
            "clip": clip,
            "length": 0.0,
            "count": 0,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with the gradients of the parameters; one whose gradient is not finite is left out."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            length = float(torch.stack([p.grad.square().sum() for p in weights if p.grad is not None]).sum().sqrt())
            if not length < float("inf"):
                continue
            group["count"] += 1
            mean = group["length"] or length
            factor = min(1.0, group["clip"] * mean / length) if length > 0 else 1.0
            # The geometric mean, which a few long gradients hardly change.
            group["length"] = mean * (max(length, 1e-30) / max(mean, 1e-30)) ** max(0.01, 1 / group["count"])
            rate = group["lr"] * min(1.0, group["count"] / max(1, group["warm_up"]))
            for p in weights:
                assert p.grad is not None
                p.sub_(rate * self._direction(p.grad * factor, self.state[p], group))
        return loss

    def _direction(self, G: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """The step over the learning rate."""
        first, second = group["betas"]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(G), "square": torch.zeros_like(G)}
            if G.ndim == 2:
                state |= {"L": torch.zeros_like(G @ G.T), "R": torch.zeros_like(G.T @ G)}
        state["step"] += 1
        state["mean"].lerp_(G, 1 - first)
        mean, turned = state["mean"], G
        if G.ndim == 2:
            state["L"].lerp_(G @ G.T, 1 - second)
            state["R"].lerp_(G.T @ G, 1 - second)
            if "Q_L" not in state:
                state["Q_L"], state["Q_R"] = (_eigenvectors(state[name]) for name in ("L", "R"))
            elif state["step"] % group["every"] == 0:
                for axis, name in enumerate("LR"):
                    state["Q_" + name], state["square"] = _renewed(
                        state[name], state["Q_" + name], state["square"], axis
                    )
            turned, mean = (state["Q_L"].T @ A @ state["Q_R"] for A in (G, mean))
        state["square"].mul_(second).addcmul_(turned, turned, value=1 - second)
        corrected = (state["square"] / (1 - second ** state["step"])).sqrt() + 1e-9
        direction = mean / (1 - first ** state["step"]) / corrected
        return state["Q_L"] @ direction @ state["Q_R"].T if G.ndim == 2 else direction


def _eigenvectors(A: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix, the largest eigenvalue first."""
    return torch.linalg.eigh(A)[1].flip(1)


def _renewed(A: Tensor, Q: Tensor, square: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors after one step of orthogonal iteration, and the squares in their order."""
    product = A @ Q
    order = torch.argsort((Q * product).sum(0), descending=True, stable=True)
    return torch.linalg.qr(product[:, order])[0], square.index_select(axis, order)
