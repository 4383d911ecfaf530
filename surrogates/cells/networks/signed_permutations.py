"""The 48 signed permutations of the axes, and what they do to densities, displacements, unit strains and tensors.

x'_a = sign_a x_p(a). A cell turned by g has the voxels of the old one at their new places; the fluctuation of the unit
strain k' of the new cell is that of the old strain, turned: components, nodes and the number of the strain all change.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from micro.voxel.solver.element import SHEARS


@dataclass(frozen=True)
class SignedPermutation:
    """An element of the cubic group.

    Attributes:
        axes: Old axis of each new one, a permutation of 0, 1, 2.
        signs: 1 or -1 for each new axis.
    """

    axes: tuple[int, int, int]
    signs: tuple[int, int, int]

    @property
    def matrix(self) -> Tensor:
        """R (3, 3) with x' = R x."""
        R = torch.zeros(3, 3, dtype=torch.float64)
        for new, (old, sign) in enumerate(zip(self.axes, self.signs)):
            R[new, old] = sign
        return R

    @property
    def voigt(self) -> Tensor:
        """Q (6, 6), orthogonal: engineering strains turn as Q e, stiffnesses as Q C Q'."""
        R = self.matrix
        pairs = ((0, 0), (1, 1), (2, 2), *SHEARS)
        Q = torch.zeros(6, 6, dtype=torch.float64)
        for row, (i, j) in enumerate(pairs):
            for column, (k, l) in enumerate(pairs):
                Q[row, column] = R[i, k] * R[j, l] + (R[i, l] * R[j, k] if k != l else 0.0)
        return Q

    def density(self, rho: Tensor) -> Tensor:
        """Turn voxel values (..., X, Y, Z)."""
        return torch.flip(self._permuted(rho), self._mirrored())

    def nodes(self, values: Tensor) -> Tensor:
        """Turn nodal values (..., X, Y, Z): node 0 stays where it is."""
        turned = torch.flip(self._permuted(values), self._mirrored())
        return torch.roll(turned, [1] * len(self._mirrored()), self._mirrored()) if self._mirrored() else turned

    def displacement(self, u: Tensor) -> Tensor:
        """Turn the fluctuations of the six unit strains (cells, 6, 3, X, Y, Z)."""
        turned = torch.einsum("ab,ckbxyz->ckaxyz", self.matrix.to(u), self.nodes(u))
        return torch.einsum("kl,claxyz->ckaxyz", self.voigt.to(u), turned)

    def tensor(self, C: Tensor) -> Tensor:
        """Turn stiffnesses (..., 6, 6)."""
        Q = self.voigt.to(C)
        return Q @ C @ Q.mT

    def _permuted(self, values: Tensor) -> Tensor:
        kept = values.ndim - 3
        return values.permute(*range(kept), *(kept + a for a in self.axes))

    def _mirrored(self) -> list[int]:
        return [axis - 3 for axis in range(3) if self.signs[axis] < 0]


def signed_permutations() -> list[SignedPermutation]:
    """Return all 48, the identity first."""
    signs = list(itertools.product((1, -1), repeat=3))
    return [SignedPermutation(a, s) for a in itertools.permutations((0, 1, 2)) for s in signs]  # type: ignore[arg-type]


def draw(random: np.random.Generator) -> SignedPermutation:
    """Return one of the 48."""
    return signed_permutations()[int(random.integers(48))]
