"""Fourier preconditioner: the inverse of the discrete stiffness of a homogeneous reference medium.

A periodic grid of equal voxels is invariant to shifts, so that its stiffness is, frequency by frequency, a Hermitian
3 x 3 matrix: the transform of the column of the matrix itself. No Green operator of the continuum enters, and the
condition number is that of the moduli against the reference, whatever the resolution.

References:
    Ladecky, Leute, Falsafi, Pultarova, Pastewka, Junge and Zeman (2023), An optimal preconditioned FFT-accelerated
    finite element solver for homogenization, doi:10.1016/j.amc.2023.127835.
"""

import torch
from torch import Tensor

from micro.voxel_operator import VoxelOperator

AXES = (-3, -2, -1)


class FourierPreconditioner:
    """Solve with the volume average of the cell in place of the cell.

    Args:
        operator: The stiffness to precondition.
        dtype: Precision of the transforms.
    """

    def __init__(self, operator: VoxelOperator, dtype: torch.dtype = torch.float32) -> None:
        self.dtype, self.shape = dtype, operator.shape
        mean = operator.coefficients.mean(dim=AXES, keepdim=True)
        reference = VoxelOperator(operator.basis, mean.expand(-1, -1, *self.shape))
        impulse = mean.new_zeros(operator.cells, 3, 3, *self.shape)
        for c in range(3):
            impulse[:, c, c, 0, 0, 0] = 1.0
        symbol = torch.fft.rfftn(reference.apply(impulse), dim=AXES).permute(0, 3, 4, 5, 2, 1)
        symbol[:, 0, 0, 0] = torch.eye(3).to(symbol)  # translations: taken out below
        inverse = torch.linalg.inv(symbol)
        inverse[:, 0, 0, 0] = 0.0
        complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.inverse = inverse.permute(0, 4, 5, 1, 2, 3).to(complex_dtype).contiguous()  # (cells, 3, 3, X, Y, Zh)

    def apply(self, r: Tensor) -> Tensor:
        """Return the displacements of the reference medium under forces (cells, loads, 3, X, Y, Z)."""
        f = torch.fft.rfftn(r.to(self.dtype), dim=AXES)
        u = torch.zeros_like(f)
        for i in range(3):
            for j in range(3):
                u[:, :, i].addcmul_(self.inverse[:, None, i, j], f[:, :, j])
        return torch.fft.irfftn(u, s=self.shape, dim=AXES).to(r.dtype)
