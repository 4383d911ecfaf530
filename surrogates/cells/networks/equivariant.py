"""The 48 signed permutations of the axes, and convolutions over voxels and nodes that commute with them.

A signed permutation is x'_a = sign_a x_p(a). A cell turned by it has the voxels of the old one at their new places. The
fluctuation of the unit strain k' of the new cell is that of the old strain, turned: components, nodes and the number of
the strain all change.

A kernel of 3 x 3 x 3 that maps scalars to scalars has four numbers (centre, faces, edges, corners). One that maps
vectors to vectors is, at the offset o, a matrix that commutes with the symmetries of o: a multiple of 1 at the centre;
o o' and 1 - o o' at faces and corners; o o', k k' and the rest at edges, k the axis on which o is zero: eight numbers.
Padding is periodic.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv3d, pad

from micro.tensors import ENGINEERING_ORDER

OFFSETS = tuple(itertools.product((-1, 0, 1), repeat=3))


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
        """Q (6, 6), orthogonal: engineering strains are turned to Q e, stiffnesses to Q C Q'."""
        R = self.matrix
        Q = torch.zeros(6, 6, dtype=torch.float64)
        for row, (i, j) in enumerate(ENGINEERING_ORDER.pairs):
            for column, (k, l) in enumerate(ENGINEERING_ORDER.pairs):
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


def scalar_basis() -> Tensor:
    """Return the four kernels (4, 3, 3, 3), each with the mean of its offsets."""
    basis = torch.zeros(4, 27)
    for place, o in enumerate(OFFSETS):
        basis[sum(map(abs, o)), place] = 1.0
    return (basis / basis.sum(1, keepdim=True)).view(4, 3, 3, 3)


def vector_basis() -> Tensor:
    """Return the eight kernels (8, 3, 3, 3, 3, 3): out, in, then the offset."""
    basis = torch.zeros(8, 3, 3, 27)
    one = torch.eye(3)
    for place, offset in enumerate(OFFSETS):
        o = torch.tensor(offset, dtype=torch.float32)
        kind = int(o.abs().sum())
        along = torch.outer(o, o) / max(kind, 1)
        across = torch.diag((o == 0).float())
        parts: tuple[tuple[int, Tensor], ...] = {
            0: ((0, one),),
            1: ((1, along), (2, one - along)),
            2: ((3, along), (4, across), (5, one - along - across)),
            3: ((6, along), (7, one - along)),
        }[kind]
        for number, matrix in parts:
            basis[number, :, :, place] = matrix / (1, 6, 12, 8)[kind]
    return basis.view(8, 3, 3, 3, 3, 3)


class ScalarConv(torch.nn.Module):
    """Isotropic convolution of scalars (n, inputs, X, Y, Z) -> (n, outputs, X, Y, Z)."""

    basis: Tensor

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        size = inputs**-0.5
        self.weight = torch.nn.Parameter(size * torch.randn(outputs, inputs, 4, generator=generator))
        self.bias = torch.nn.Parameter(torch.zeros(outputs))
        self.register_buffer("basis", scalar_basis(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        kernel = torch.einsum("oiq,qxyz->oixyz", self.weight, self.basis)
        return conv3d(wrap(x), kernel, self.bias)


class VectorConv(torch.nn.Module):
    """Isotropic linear convolution of vectors (n, 3 inputs, X, Y, Z) -> (n, 3 outputs, X, Y, Z)."""

    basis: Tensor

    def __init__(self, inputs: int, outputs: int, size: float, generator: torch.Generator, identity: bool = False):
        super().__init__()
        weight = size * inputs**-0.5 * torch.randn(outputs, inputs, 8, generator=generator)
        if identity:
            weight[..., 0] += torch.eye(outputs, inputs) if min(outputs, inputs) > 1 else 1.0 / inputs
        self.weight = torch.nn.Parameter(weight)
        self.register_buffer("basis", vector_basis(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        outputs, inputs, _ = self.weight.shape
        kernel = torch.einsum("oiq,qabxyz->oaibxyz", self.weight, self.basis)
        return conv3d(wrap(x), kernel.reshape(3 * outputs, 3 * inputs, 3, 3, 3))


def wrap(x: Tensor) -> Tensor:
    """Return fields (n, c, X, Y, Z) with one layer of their periodic images all around."""
    return pad(x, (1, 1, 1, 1, 1, 1), mode="circular")


def to_nodes(x: Tensor) -> Tensor:
    """Return the means at nodes of the eight voxels (n, c, X, Y, Z) around; node i is between voxels i - 1 and i."""
    for axis in (-3, -2, -1):
        x = (x + torch.roll(x, 1, axis)) / 2
    return x
