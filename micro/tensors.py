"""Batched 3x3 tensors: components of symmetric tensors, cofactor inverse, deviator, exponential.

Closed formulas on ``(..., 3, 3)`` arrays are several times faster than the general LAPACK routines for such small
matrices, and run on any device.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Order:
    """The order in which the independent components of a symmetric tensor are listed.

    Attributes:
        pairs: Row and column of each component, counted from 0.
    """

    pairs: tuple[tuple[int, int], ...]

    @property
    def dimension(self) -> int:
        """Number of space dimensions d, 2 or 3."""
        return 2 if len(self.pairs) == 3 else 3

    @property
    def names(self) -> str:
        """The components as they are printed, for instance "11 22 12"."""
        return " ".join(f"{i + 1}{j + 1}" for i, j in self.pairs)

    @cached_property
    def rows(self) -> list[int]:
        """Row of each component (c,)."""
        return [i for i, _ in self.pairs]

    @cached_property
    def columns(self) -> list[int]:
        """Column of each component (c,)."""
        return [j for _, j in self.pairs]

    @cached_property
    def places(self) -> list[int]:
        """The component that stands at each entry of the matrix, row by row (d * d,)."""
        d = self.dimension
        return [self.pairs.index((min(i, j), max(i, j))) for i in range(d) for j in range(d)]


PATH_ORDER = Order(((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)))
PLANE_ORDER = Order(((0, 0), (1, 1), (0, 1)))
ENGINEERING_ORDER = Order(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)))

#: Order of the components of a symmetric tensor in data files: 11, 22, 33, 12, 23, 13.
COMPONENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))
_FULL = (0, 3, 5, 3, 1, 4, 5, 4, 2)
_ROWS = [i for i, _ in COMPONENTS]
_COLUMNS = [j for _, j in COMPONENTS]


def to_components(a: Tensor) -> Tensor:
    """Return the six components (..., 6) of symmetric tensors `a` (..., 3, 3), order 11, 22, 33, 12, 23, 13."""
    return a[..., _ROWS, _COLUMNS]


def from_components(v: Tensor) -> Tensor:
    """Return the symmetric tensors (..., 3, 3) of the components `v` (..., 6), the inverse of `to_components`."""
    return v[..., list(_FULL)].reshape(*v.shape[:-1], 3, 3)


def identity_like(a: Tensor) -> Tensor:
    """Return the 3x3 identity in the type and on the device of `a`."""
    return torch.eye(3, dtype=a.dtype, device=a.device)


def deviator(a: Tensor) -> Tensor:
    """Return a - tr(a)/3 I for tensors `a` (..., 3, 3)."""
    trace = a.diagonal(dim1=-2, dim2=-1).sum(-1)
    return a - trace[..., None, None] / 3 * identity_like(a)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a b of tensors (..., 3, 3).

    A sum of three broadcast products: PyTorch's batched matrix product costs a microsecond a matrix on a CPU, because
    it loops over small matrices one by one.
    """
    return a[..., :, 0:1] * b[..., 0:1, :] + a[..., :, 1:2] * b[..., 1:2, :] + a[..., :, 2:3] * b[..., 2:3, :]


def matmul_last(a: Tensor, b: Tensor) -> Tensor:
    """Return a b of tensors (3, 3, n) whose batch axis is the last."""
    return a[:, 0:1] * b[0:1] + a[:, 1:2] * b[1:2] + a[:, 2:3] * b[2:3]


def _cofactor(a: Tensor) -> Tensor:
    """Return the cofactor matrix of `a` (..., 3, 3): its rows are cross products of the other two rows."""
    rows = a.unbind(-2)
    return torch.stack([torch.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3)], dim=-2)


def determinant(a: Tensor) -> Tensor:
    """Return det a (...) of tensors `a` (..., 3, 3)."""
    return (a[..., 0, :] * torch.linalg.cross(a[..., 1, :], a[..., 2, :])).sum(-1)


def inverse(a: Tensor) -> Tensor:
    """Return the inverses of tensors `a` (..., 3, 3) by cofactors; a singular tensor gives non-finite entries."""
    cofactor = _cofactor(a)
    det = (a[..., 0, :] * cofactor[..., 0, :]).sum(-1)
    return cofactor.mT / det[..., None, None]


def isochoric_exponential(a: Tensor, terms: int = 5) -> Tensor:
    """Return exp(a) of small trace-free tensors `a` (..., 3, 3), with det exp(a) = 1 to round-off.

    The power series is cut after `terms` terms, which leaves an error of |a|^(terms+1) / (terms+1)!; the determinant,
    the one property that must not drift over thousands of steps, is then restored by scaling.
    """
    identity = identity_like(a)
    result = identity + a / terms
    for k in range(terms - 1, 0, -1):
        result = identity + matmul(a, result) / k
    return result * determinant(result)[..., None, None] ** (-1 / 3)
