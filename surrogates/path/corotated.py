"""Kinematics of the recurrent law: a corotated frame that needs no polar decomposition, and the pieces of a step.

With F = Q G and Q the rotation of the corotated frame, the state holds G, the identity at first. A step to a new F
gives B = G^-T C G^-1 with C = F^T F, the stretch of the step in the corotated frame. The frame turns with the rotation
of F F_n^-1, so that G <- sqrt(B) G is all that moves: vectors and tensors in this frame are never turned, the logarithm
of sqrt(B) is their increment of strain, and a superposed rotation changes nothing. The new G satisfies G^T G = C to
rounding, whatever happened before. Between the two ends of a step C is linear in time, and a step that is larger than
a limit is cut into equal pieces.

Deviators are vectors of five components: (11 - 22)/sqrt 2, (2 33 - 11 - 22)/sqrt 6, sqrt 2 times 12, 23, 13. All is
plain batched arithmetic that TorchScript and autograd accept.
"""

import math

import torch
from torch import Tensor

from surrogates.tensors import cofactor, determinant, inverse


def five(A: Tensor) -> Tensor:
    """Five components (..., 5) of the deviator of a symmetric (..., 3, 3)."""
    a, b, c = A[..., 0, 0], A[..., 1, 1], A[..., 2, 2]
    r = math.sqrt(2.0)
    x, y = (a - b) / r, (2 * c - a - b) / math.sqrt(6.0)
    return torch.stack([x, y, r * A[..., 0, 1], r * A[..., 1, 2], r * A[..., 0, 2]], dim=-1)


def from_five(v: Tensor) -> Tensor:
    """The deviator (..., 3, 3) of five components."""
    x, y = v[..., 0] / math.sqrt(2.0), v[..., 1] / math.sqrt(6.0)
    p, q, r = (v[..., 2:] / math.sqrt(2.0)).unbind(-1)
    return torch.stack([x - y, p, r, p, -x - y, q, r, q, 2 * y], dim=-1).reshape(v.shape[:-1] + (3, 3))


def relative(F: Tensor, G: Tensor) -> Tensor:
    """B (n, 3, 3) = G^-T F^T F G^-1."""
    A = torch.matmul(F, inverse(G))
    return torch.matmul(A.transpose(1, 2), A)


def pieces(B: Tensor, limit: float) -> Tensor:
    """Number of pieces (n,), float64, of a step, so that the strain of each is at most `limit`; at most 10 000."""
    fixed = B.detach()
    mean = (fixed[:, 0, 0] + fixed[:, 1, 1] + fixed[:, 2, 2]) / 3
    size = five(fixed).square().sum(1).sqrt() / (2 * mean)
    return torch.nan_to_num(torch.ceil(size / limit), nan=1.0).clamp(1.0, 10_000.0)


def stretch(B: Tensor) -> tuple[Tensor, Tensor]:
    """Strain increment D (n, 5) = dev log sqrt(B), and sqrt(B) (n, 3, 3), for B near a multiple of the identity.

    By series in Y = 3 B / tr B - I up to Y^4; pieces of 0.3 % keep the first term left out below 1e-12.
    """
    mean = (B[:, 0, 0] + B[:, 1, 1] + B[:, 2, 2]).reshape(-1, 1, 1) / 3
    eye = torch.eye(3, dtype=B.dtype, device=B.device)
    Y = B / mean - eye
    Y2 = torch.matmul(Y, Y)
    Y3, Y4 = torch.matmul(Y2, Y), torch.matmul(Y2, Y2)
    logarithm = Y - Y2 / 2 + Y3 / 3 - Y4 / 4
    return 0.5 * five(logarithm), torch.sqrt(mean) * (eye + Y / 2 - Y2 / 8 + Y3 / 16 - Y4 * (5.0 / 128))


def strain(G: Tensor) -> Tensor:
    """Deviator (n, 5) of (b - I)(b + I)^-1 with b = 3 G G^T / tr(G G^T): the rational strain in the corotated frame."""
    b = torch.matmul(G, G.transpose(1, 2))
    mean = (b[:, 0, 0] + b[:, 1, 1] + b[:, 2, 2]).reshape(-1, 1, 1) / 3
    eye = torch.eye(3, dtype=G.dtype, device=G.device)
    return five(-2 * inverse(b / mean + eye))


def first_piola(F: Tensor, G: Tensor, tau: Tensor, bulk: float) -> Tensor:
    """P (n, 3, 3) = F S + K (J - 1) cof F with S = G^-1 tau G^-T.

    The crystals deform inelastically without change of volume, so the pressure of the polycrystal is that of its
    elastic energy, exactly; only the deviator is learned.

    Args:
        F: (n, 3, 3) deformation gradient.
        G: (n, 3, 3) the same in the corotated frame.
        tau: (n, 3, 3) Kirchhoff deviator in the corotated frame, Pa.
        bulk: K, Pa, 2 lambda_e of Eq. (A.3) of doi:10.1016/j.jmps.2021.104668.
    """
    G_inverse = inverse(G)
    S = torch.matmul(torch.matmul(G_inverse, tau), G_inverse.transpose(1, 2))
    return torch.matmul(F, S) + (bulk * (determinant(F) - 1.0)).reshape(-1, 1, 1) * cofactor(F)
