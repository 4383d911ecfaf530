"""Fourier preconditioner: the inverse of the discrete stiffness of a homogeneous reference medium.

A periodic grid of equal voxels is invariant to shifts. For each frequency its stiffness is therefore a 3 x 3 matrix,
the transform of a column of the stiffness matrix. A voxel looks the same after inversion at its centre, whatever its
moduli, so this 3 x 3 matrix is real and symmetric. No Green operator of the continuum is used, and the condition number
is that of the moduli relative to the reference medium, whatever the resolution.

References:
    Ladecky, Leute, Falsafi, Pultarova, Pastewka, Junge and Zeman (2023), An optimal preconditioned FFT-accelerated
    finite element solver for homogenization, doi:10.1016/j.amc.2023.127835.
"""

import math

import torch
from torch import Tensor

from micro.tensors import ENGINEERING_ORDER
from micro.voxel.solver.element import NODES
from micro.voxel.solver.operator import VoxelOperator

AXES = (-3, -2, -1)
#: Components of a symmetric matrix, and their places in the rows of the matrix.
PAIRS = ENGINEERING_ORDER.pairs
WHERE = ((0, 5, 4), (5, 1, 3), (4, 3, 2))


def symbol(K: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the stiffness of a homogeneous grid by frequency, components as in `PAIRS` (cells, 6, X, Y, Z // 2 + 1).

    Args:
        K: Stiffness of a voxel (cells, 24, 24).
        shape: Voxels of the cell (X, Y, Z).
    """
    blocks = K.view(-1, 8, 3, 8, 3).permute(0, 2, 4, 1, 3)[:, [i for i, _ in PAIRS], [j for _, j in PAIRS]].flatten(2)
    away = [13 + 9 * (q[0] - p[0]) + 3 * (q[1] - p[1]) + q[2] - p[2] for p in NODES for q in NODES]
    stencil = (
        K.new_zeros(len(K), 6, 27).index_add_(2, torch.tensor(away, device=K.device), blocks).unflatten(2, (3, 3, 3))
    )
    turns = []
    for n, count in zip(shape, (shape[0], shape[1], shape[2] // 2 + 1)):
        angle = 2 * math.pi / n * torch.arange(count, dtype=K.dtype, device=K.device)
        turns.append(torch.polar(torch.ones_like(angle), angle)[:, None] ** torch.arange(-1, 2, device=K.device))
    out = torch.einsum("xi,cmijk->cmxjk", turns[0], stencil.to(turns[0]))
    out = torch.einsum("yj,cmxjk->cmxyk", turns[1], out)
    return torch.einsum("zk,cmxyk->cmxyz", turns[2], out).real


def inverses(S: Tensor) -> Tensor:
    """Return the inverses of symmetric matrices (..., 6, X, Y, Z), components as in `PAIRS`; zero where singular."""
    xx, yy, zz, yz, xz, xy = S.unbind(-4)
    diagonal = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    adjugate = torch.stack([*diagonal, xz * xy - xx * yz, xy * yz - yy * xz, xz * yz - zz * xy], -4)
    determinant = xx * adjugate[..., 0, :, :, :] + xy * adjugate[..., 5, :, :, :] + xz * adjugate[..., 4, :, :, :]
    regular = determinant > 1e-18 * (xx + yy + zz) ** 3
    return adjugate * torch.where(regular, 1 / torch.where(regular, determinant, 1.0), 0.0).unsqueeze(-4)


class FourierPreconditioner:
    """The inverse stiffness of a homogeneous cell with the mean moduli.

    Args:
        operator: The stiffness to precondition.
        dtype: Precision of the transforms.
    """

    def __init__(self, operator: VoxelOperator, dtype: torch.dtype = torch.float32) -> None:
        self.dtype, self.shape = dtype, operator.shape
        mean = torch.einsum("cq,qab->cab", operator.coefficients.mean(dim=AXES), operator.basis)
        factors = inverses(symbol(mean, self.shape))
        factors[..., 0, 0, 0] = 0.0  # translations
        # twice each, for real and imaginary parts; (6, cells, X, Y, 2 (Z // 2 + 1))
        self.factors = factors.to(dtype).transpose(0, 1).repeat_interleave(2, -1)

    @property
    def inverse(self) -> Tensor:
        """The inverse by frequency (cells, 3, 3, X, Y, Z // 2 + 1), complex."""
        full = self.factors[..., ::2][torch.tensor(WHERE)].permute(2, 0, 1, 3, 4, 5)
        return torch.complex(full, torch.zeros_like(full))

    def solve(self, f: Tensor) -> Tensor:
        """Return the displacements of the reference medium under forces, both (loads, 3, cells, X, Y, Z)."""
        found = torch.fft.rfftn(f, dim=AXES)
        F = torch.view_as_real(found).flatten(-2)
        U = torch.empty_like(F)
        for i, row in enumerate(WHERE):
            torch.mul(F[:, 0], self.factors[row[0]], out=U[:, i])
            U[:, i].addcmul_(F[:, 1], self.factors[row[1]]).addcmul_(F[:, 2], self.factors[row[2]])
        return torch.fft.irfftn(torch.view_as_complex(U.unflatten(-1, (-1, 2))), s=self.shape, dim=AXES)

    def apply(self, r: Tensor) -> Tensor:
        """Return the displacements of the reference medium under forces (cells, loads, 3, X, Y, Z)."""
        u = self.solve(r.to(self.dtype).permute(1, 2, 0, 3, 4, 5))
        return u.permute(2, 0, 1, 3, 4, 5).to(r.dtype)
