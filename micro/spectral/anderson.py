"""Anderson acceleration of fixed points, for a batch of problems that do not know of each other.

References:
    Walker and Ni (2011), Anderson acceleration for fixed-point iterations, doi:10.1137/10078356X; for cells: Schneider
    (2021), A review of nonlinear FFT-based computational homogenization methods, doi:10.1007/s00707-021-02962-1.
"""

import torch
from torch import Tensor


class Anderson:
    """History of the last steps of the iterations x <- x + r(x).

    Args:
        problems: Number b of problems.
        unknowns: Real unknowns n of each.
        depth: Steps kept.
        like: Tensor whose device is used.
    """

    def __init__(self, problems: int, unknowns: int, depth: int, like: Tensor) -> None:
        self._dx = torch.zeros(problems, depth, unknowns, dtype=torch.float64, device=like.device)
        self._dr = torch.zeros_like(self._dx)
        self._gram = torch.zeros(problems, depth, depth, dtype=torch.float64, device=like.device)
        self._place = 0

    def store(self, dx: Tensor, dr: Tensor) -> None:
        """Keep one step `dx` (b, n) and the change `dr` (b, n) of the residual, in place of the oldest.

        Steps are scaled so that |dr| = 1; a step that changed nothing counts as none.
        """
        if self._dx.shape[1] == 0:
            return
        size = dr.norm(dim=1, keepdim=True)
        scale = torch.where((size > 0) & torch.isfinite(size), 1 / torch.where(size > 0, size, 1.0), 0.0)
        k = self._place
        self._dx[:, k] = torch.where(scale > 0, dx * scale, 0.0)
        self._dr[:, k] = torch.where(scale > 0, dr * scale, 0.0)
        row = (self._dr @ self._dr[:, k, :, None])[..., 0]
        self._gram[:, k, :], self._gram[:, :, k] = row, row
        self._place = (k + 1) % self._dx.shape[1]

    def step(self, r: Tensor) -> Tensor:
        """Return the step (b, n) that makes the linear model of the residual `r` (b, n) smallest."""
        if self._dx.shape[1] == 0:
            return r
        right = (self._dr @ r[:, :, None])[..., 0]
        # Empty places have zero rows; the shift keeps the system regular where steps are nearly parallel.
        empty = (self._gram.diagonal(dim1=1, dim2=2) == 0).to(r.dtype)
        matrix = self._gram + torch.diag_embed(empty + 1e-13)
        weights = torch.linalg.solve_ex(matrix, right)[0]
        weights = torch.where(torch.isfinite(weights).all(1, keepdim=True), weights, 0.0)
        return r - ((self._dx + self._dr) * weights[:, :, None]).sum(1)

    def forget(self, mask: Tensor) -> None:
        """Drop the history of the problems of `mask` (b,)."""
        self._dx[mask], self._dr[mask], self._gram[mask] = 0.0, 0.0, 0.0

    def keep(self, mask: Tensor) -> None:
        """Go on with the problems of `mask` (b,) alone."""
        self._dx, self._dr, self._gram = self._dx[mask], self._dr[mask], self._gram[mask]
