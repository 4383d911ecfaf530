"""Histories that a PCA-Net maps: strain and stress of whole paths, their principal modes, and random turns of them."""

import torch
from torch import Tensor

from surrogates import tensors
from surrogates.path.data import Samples, mandel, matrices, moduli

GPA = 1e9


def histories(samples: Samples, stress: str, measure: str) -> tuple[Tensor, Tensor]:
    """What the network maps: V = U - I and the stress in GPa, (s, T, 6) in Mandel form, float64."""
    U, sigma = mandel(samples.U), mandel(samples.stress) / GPA
    if stress == "deviator":
        sigma = tensors.deviator(sigma)
    if measure == "isochoric":
        J = tensors.determinant(matrices(samples.U).reshape(-1, 3, 3)).reshape(*U.shape[:2], 1)
        U, sigma = U * J ** (-1 / 3), sigma * J
    return U - torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=U.dtype), sigma


def cauchy(sigma: Tensor, samples: Samples, stress: str, measure: str) -> Tensor:
    """Cauchy stress (s, T, 6), Pa, from what the network gives, with the exact pressure where it gives the deviator."""
    if stress == "full":
        return sigma
    J = tensors.determinant(matrices(samples.U).reshape(-1, 3, 3)).reshape(*sigma.shape[:2], 1)
    sigma = tensors.deviator(sigma)
    if measure == "isochoric":
        sigma = sigma / J
    pressure = moduli(samples)[0] * (J - 1)
    return sigma + pressure * torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=sigma.dtype)


def principal_modes(history: Tensor, modes: int) -> Tensor:
    """Modes (T, 6, d) of histories (s, T, 6): for each component the leading right singular vectors, not centred."""
    columns = []
    for c in range(6):
        # The Gram matrix is T x T, small however many the paths; its eigenvectors are the right singular vectors.
        gram = history[:, :, c].t() @ history[:, :, c]
        _, vectors = torch.linalg.eigh(gram)
        columns.append(vectors.flip(1)[:, :modes])
    return torch.stack(columns, dim=1)


def turns(n: int, generator: torch.Generator) -> Tensor:
    """Random rotations of Mandel vectors, (n, 6, 6), orthogonal."""
    q = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=1)
    w, x, y, z = q.unbind(1)
    Q = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=1,
    ).reshape(n, 1, 3, 3)  # fmt: skip
    basis = tensors.to_matrix(torch.eye(6, dtype=torch.float64))
    turned = torch.matmul(torch.matmul(Q, basis), Q.transpose(2, 3))
    return tensors.to_vector(turned.reshape(-1, 3, 3)).reshape(n, 6, 6).transpose(1, 2).float()
