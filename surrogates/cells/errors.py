"""Errors of effective tensors: the paper's measure, and the one that the energy knows.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (32) to (34).
"""

import torch
from torch import Tensor

#: Components below this part of the largest one count as zero in Eq. (32); the paper does not give its epsilon. Twice
#: what chance makes of components that are zero on average, in random cells of 20^3 voxels.
NEGLIGIBLE = 2e-3
#: Stiffness of cells that hang together nowhere, of E = 1.
NOTHING = 1e-9


def relative_error(found: Tensor, exact: Tensor, negligible: float = NEGLIGIBLE) -> Tensor:
    """Return the mean relative error of each tensor (cells,), Eqs. (32) and (33), of absolute values.

    As printed Eq. (32) has no absolute value, and errors of opposite sign cancel. Components that are negligible count
    as exact, so that a cell with the symmetry of the cube has 12 of 36 that count.

    Args:
        found: Tensors (cells, 6, 6).
        exact: Tensors (cells, 6, 6).
        negligible: See `NEGLIGIBLE`.
    """
    size = exact.abs()
    counted = size >= (negligible * size.amax((1, 2), keepdim=True)).clamp(min=NOTHING)
    return torch.where(counted, (found - exact).abs() / torch.where(counted, size, 1.0), 0.0).mean((1, 2))


def energy_error(found: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest relative error of the energy over all strains, each (cells,).

    The least is not negative, up to rounding, for a tensor that comes through the energy. Strains that a cell hardly
    resists, below 1e-6 of its stiffest, are measured by that.
    """
    values, vectors = torch.linalg.eigh(exact)
    size = torch.maximum(values, 1e-6 * values[:, -1:]).clamp(min=NOTHING).rsqrt()
    difference = size[:, :, None] * (vectors.mT @ (found - exact) @ vectors) * size[:, None]
    errors = torch.linalg.eigvalsh((difference + difference.mT) / 2)
    return errors[:, 0], errors[:, -1]
