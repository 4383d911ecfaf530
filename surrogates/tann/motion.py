"""Motion: the flow of the internal variables of a law and what it takes off the tangent, in the form that K allows.

A module each for a diagonal K, for K = diag(D) - W W' (`surrogates.tann.hidden`) and for any K. All have
- `forward(r (n, N), c (n, N)) -> (g (n, N), sign (n, N))`, the minimiser of `surrogates.tann.flow`;
- `relief(moves (n, N)) -> (n, d^4)`: G_S K_SS^-1 G_S' of the moving variables S (ones in `moves`), Pa, by which flow
  lowers the tangent dP_dF; `coupling` (N, d d) is G' on the Mandel basis.
"""

from typing import final

import torch
from torch import Tensor

from surrogates.tann.flow import coupled, moving_stiffness, single
from surrogates.tann.hidden import relaxed, split_stiffness


def make_motion(K: Tensor, coupling: Tensor, shape: Tensor) -> torch.nn.Module:
    """The module that suits a stiffness.

    Args:
        K: stiffness (N, N), symmetric positive definite, Pa.
        coupling: G' on the Mandel basis (N, d d), Pa.
        shape: displacements that the variables cause (m, N), m = 0 where they are not known.
    """
    D = torch.diagonal(K).clone()
    if bool((K - torch.diag(D)).abs().max() <= 1e-14 * D.max()):
        return SeparateMotion(D, coupling)
    parts = split_stiffness(K, shape)
    return CoupledMotion(K, coupling) if parts is None else RelaxedMotion(*parts, coupling)


@final
class SeparateMotion(torch.nn.Module):
    """Every variable by itself; D (N,)."""

    D: Tensor
    reliefs: Tensor

    def __init__(self, D: Tensor, coupling: Tensor) -> None:
        super().__init__()
        self.register_buffer("D", D)
        self.register_buffer("reliefs", pairs(coupling, coupling) / D[:, None])

    def forward(self, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """See the head of this file."""
        return single(r, c, self.D)

    @torch.jit.export
    def relief(self, moves: Tensor) -> Tensor:
        """See the head of this file."""
        return torch.mm(moves, self.reliefs)


@final
class RelaxedMotion(torch.nn.Module):
    """Variables coupled by hidden coordinates; D (N,), W (N, h)."""

    D: Tensor
    W: Tensor
    products: Tensor
    reliefs: Tensor
    crossed: Tensor

    def __init__(self, D: Tensor, W: Tensor, coupling: Tensor) -> None:
        super().__init__()
        self.register_buffer("D", D)
        self.register_buffer("W", W)
        self.register_buffer("products", pairs(W, W) / D[:, None])
        self.register_buffer("reliefs", pairs(coupling, coupling) / D[:, None])
        self.register_buffer("crossed", pairs(W, coupling) / D[:, None])

    def forward(self, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """See the head of this file."""
        return relaxed(r, c, self.D, self.W, self.products)

    @torch.jit.export
    def relief(self, moves: Tensor) -> Tensor:
        """See the head of this file; K_SS^-1 by Sherman, Morrison and Woodbury."""
        h = self.W.shape[1]
        taken = torch.mm(moves, self.reliefs)
        rows = torch.nonzero(moves.any(dim=1)).flatten()
        some = moves[rows]
        H = torch.eye(h, dtype=moves.dtype, device=moves.device) - torch.mm(some, self.products).reshape(-1, h, h)
        R = torch.mm(some, self.crossed).reshape(-1, h, self.crossed.shape[1] // h)
        X = torch.cholesky_solve(R, torch.linalg.cholesky_ex(H)[0])
        taken[rows] += torch.bmm(R.transpose(1, 2), X).flatten(1)
        return taken


@final
class CoupledMotion(torch.nn.Module):
    """Any stiffness K (N, N)."""

    K: Tensor
    coupling: Tensor
    scale: Tensor

    def __init__(self, K: Tensor, coupling: Tensor) -> None:
        super().__init__()
        scale = 1.0 / torch.diagonal(K).sqrt()
        values = torch.linalg.eigvalsh(K * scale[:, None] * scale)
        root = float(values[-1] / values[0]) ** 0.5
        self.pace, self.momentum = 1.0 / float(values[-1]), (root - 1.0) / (root + 1.0)
        self.register_buffer("K", K)
        self.register_buffer("coupling", coupling)
        self.register_buffer("scale", scale)

    def forward(self, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """See the head of this file."""
        return coupled(r, c, self.K, self.scale, self.pace, self.momentum)

    @torch.jit.export
    def relief(self, moves: Tensor) -> Tensor:
        """See the head of this file."""
        G = moves[:, :, None] * self.coupling
        X = torch.linalg.solve(moving_stiffness(self.K, moves), G)
        return torch.bmm(G.transpose(1, 2), X).flatten(1)


def pairs(a: Tensor, b: Tensor) -> Tensor:
    """Products of all columns of a (N, p) and b (N, q) row by row, (N, p q)."""
    return (a[:, :, None] * b[:, None, :]).flatten(1)
