"""Checks of a tangent dP_dF (n, d, d, d, d): against differences, its symmetry, its smallest eigenvalue."""

import math
from typing import Any

import torch
from torch import Tensor

STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of the differences, relative to the strain of the range


def differences(law: Any, F: Tensor, state: Tensor, dt: float, strain_max: float) -> tuple[Tensor, Tensor]:
    """Derivative of `forward` by central differences, and where it has none.

    Central differences are taken at steps `STEPS`, and each pair of neighbours is extrapolated to fourth order. The
    value of a pair is in doubt by its change to the next pair, and by the part of its one-sided differences that does
    not fall in proportion to the step: a kink within the step, since pairs on both sides of a kink agree with each
    other on the mean of two slopes. For every point and direction the value with the least doubt is kept: the largest
    steps err by curvature, the smallest by round-off, and the choice does not depend on the tangent under test. A
    direction is a kink where that part of the one-sided differences is still above 1e-5 of the derivative.

    Args:
        law: anything with `forward`.
        F: (n, d, d).
        state: (n, k).
        dt: s.
        strain_max: strain that the law was trained to.

    Returns:
        Derivative (n, d, d, d, d) and kink (n, d, d), true where the law has a kink in direction kl of point n.
    """
    n, d = len(F), F.shape[-1]
    unit = torch.eye(d * d, dtype=torch.float64).reshape(1, d * d, d, d)
    # All directions of a point in one call: networks are much faster on many points.
    many = state.repeat_interleave(d * d, dim=0)
    central, bends = [], []
    with torch.no_grad():
        P = law.forward(F, state, dt)[0].unsqueeze(1)
        for step in STEPS:
            h = step * strain_max
            plus, minus = (
                law.forward((F.unsqueeze(1) + sign * h * unit).reshape(-1, d, d), many, dt)[0].reshape(n, d * d, d, d)
                for sign in (1, -1)
            )
            central.append((plus - minus) / (2 * h))
            bends.append((plus - 2 * P + minus) / h)  # of a smooth law in proportion to h
    fourth = torch.stack([(100 * fine - coarse) / 99 for coarse, fine in zip(central, central[1:])])
    jump = torch.stack([(10 * fine - coarse).abs().amax(dim=(2, 3)) / 9 for coarse, fine in zip(bends, bends[1:])])
    change = (fourth[1:] - fourth[:-1]).abs().amax(dim=(3, 4))
    doubt = change + jump[1:]
    best = doubt.argmin(dim=0)
    found = fourth[1:].gather(0, best[None, :, :, None, None].expand(1, n, d * d, d, d))[0]
    size = found.abs().amax(dim=(2, 3))
    kink = jump[1:].gather(0, best[None])[0] > 1e-5 * size
    return found.permute(0, 2, 3, 1).reshape(n, d, d, d, d), kink.reshape(n, d, d)


def difference(dP_dF: Tensor, found: Tensor, kink: Tensor) -> float:
    """Largest |dP_dF - found| but for kinks, relative to the largest entry of the point's own `found`."""
    size = found.abs().amax(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-300)
    relative = ((dP_dF - found).abs() / size).amax(dim=(1, 2))
    return float(relative.masked_fill(kink, 0.0).max())


def asymmetry(dP_dF: Tensor) -> float:
    """Largest |A - A^T| / (2 |A|) over the points, A^T_ijkl = A_klij, Frobenius norms; 0 if an energy exists."""
    skew = 0.5 * (dP_dF - dP_dF.permute(0, 3, 4, 1, 2))
    return float((skew.flatten(1).norm(dim=1) / dP_dF.flatten(1).norm(dim=1).clamp(min=1e-300)).max())


def strain_basis(d: int) -> Tensor:
    """Orthonormal basis (d (d + 1) / 2, d, d) of the symmetric matrices."""
    rows = []
    for i in range(d):
        for j in range(i, d):
            B = torch.zeros(d, d, dtype=torch.float64)
            B[i, j] = B[j, i] = 1.0 if i == j else math.sqrt(0.5)
            rows.append(B)
    return torch.stack(rows)


def smallest_eigenvalue(dP_dF: Tensor, F: Tensor, *, finite: bool) -> Tensor:
    """Smallest eigenvalue (n,), Pa, of the tangent's major-symmetric part on symmetric strains.

    Small strain: of B_a : A : B_b for an orthonormal basis B of the symmetric matrices. Finite strain: of A on the
    changes dF that are orthogonal to all rotations W F of the deformed point (W skew), dF : W F = 0, which are the
    dF = S F^-T with S symmetric; the stress in the material (geometric stiffness) counts.
    """
    n, d = len(F), F.shape[-1]
    basis = strain_basis(d).expand(n, -1, d, d)
    if finite:
        basis = torch.matmul(basis, torch.linalg.inv(F).transpose(1, 2).unsqueeze(1))
    Q, _ = torch.linalg.qr(basis.flatten(2).transpose(1, 2))
    A = dP_dF.reshape(n, d * d, d * d)
    return torch.linalg.eigvalsh(Q.transpose(1, 2) @ (0.5 * (A + A.transpose(1, 2))) @ Q)[:, 0]
