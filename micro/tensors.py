"""Symmetric tensors and 3x3 kinematics: the orders of components, closed formulas, rotations.

This module defines two things on which data, networks and solvers must agree.

- The order in which the components of a symmetric tensor are listed, as an `Order`:

  ==================  ========================  ==================================================
  `PATH_ORDER`        11, 22, 33, 12, 23, 13    strain paths and stresses (papers 1 and 2), Mandel
  `PLANE_ORDER`       11, 22, 12                the same in two dimensions
  `ENGINEERING_ORDER` 11, 22, 33, 23, 13, 12    stiffness matrices with engineering shear (paper 3)
  ==================  ========================  ==================================================

- Kinematics of ``(..., 3, 3)`` tensors by closed formulas, which are several times faster than the general LAPACK
  routines for such small matrices, run on any device, and can be compiled by TorchScript and differentiated. There is
  no eigendecomposition: its gradient fails at repeated eigenvalues, and every virgin point has three of them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

#: A NumPy array or a PyTorch tensor; what goes in as one comes out as the same.
Array = TypeVar("Array", bound=Any)


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

#: The order of the components in data sets of paths and lattices, by dimension.
ORDERS = {2: PLANE_ORDER, 3: PATH_ORDER}


def to_components(a: Array, order: Order = PATH_ORDER) -> Array:
    """Return the components (..., c) of symmetric tensors `a` (..., d, d), without factors."""
    return a[..., order.rows, order.columns]


def from_components(v: Array, order: Order = PATH_ORDER) -> Array:
    """Return the symmetric tensors (..., d, d) of the components `v` (..., c), the inverse of `to_components`."""
    return v[..., order.places].reshape(*v.shape[:-1], order.dimension, order.dimension)


def mandel_factors(order: Order) -> tuple[float, ...]:
    """Return the factors (c,) from components to a Mandel vector: 1, and sqrt(2) off the diagonal.

    With them the scalar product of two Mandel vectors is the double contraction of their tensors, a . b = A : B.
    """
    return tuple(1.0 if i == j else 2**0.5 for i, j in order.pairs)


def inverse_mandel_factors(order: Order) -> tuple[float, ...]:
    """Return the factors (c,) from a Mandel vector to components: 1, and 1/sqrt(2) off the diagonal."""
    return tuple(1.0 if i == j else 0.5**0.5 for i, j in order.pairs)


def mandel_basis(order: Order) -> Tensor:
    """Return the symmetric unit tensors M (c, d, d), float64: A = a_I M_I, and a_I = M_I : A for any A (d, d)."""
    basis = torch.zeros(len(order.pairs), order.dimension, order.dimension, dtype=torch.float64)
    for row, ((i, j), factor) in enumerate(zip(order.pairs, inverse_mandel_factors(order))):
        basis[row, i, j] = basis[row, j, i] = factor
    return basis


# TorchScript does not see module constants, so the functions that laws compile have their order and numbers written
# out; the tests compare them with PATH_ORDER.


def mandel_vector(A: Tensor) -> Tensor:
    """Return the Mandel vectors (n, 6) of symmetric tensors `A` (n, 3, 3), in `PATH_ORDER`."""
    s = 1.4142135623730951  # sqrt(2)
    return torch.stack(
        [A[:, 0, 0], A[:, 1, 1], A[:, 2, 2], s * A[:, 0, 1], s * A[:, 1, 2], s * A[:, 0, 2]], dim=1
    )  # fmt: skip


def mandel_matrix(v: Tensor) -> Tensor:
    """Return the symmetric tensors (n, 3, 3) of Mandel vectors `v` (n, 6), the inverse of `mandel_vector`."""
    s = 0.7071067811865475  # 1/sqrt(2), cut: exported laws compute with this number
    a, b, c = s * v[:, 3], s * v[:, 4], s * v[:, 5]
    return torch.stack([v[:, 0], a, c, a, v[:, 1], b, c, b, v[:, 2]], dim=1).reshape(-1, 3, 3)


def mandel_deviator(v: Tensor) -> Tensor:
    """Return the deviatoric part of Mandel vectors `v` (..., 6)."""
    mean = v[..., 0:3].mean(dim=-1, keepdim=True)
    return torch.cat([v[..., 0:3] - mean, v[..., 3:6]], dim=-1)


def identity_like(a: Tensor) -> Tensor:
    """Return the 3x3 identity in the type and on the device of `a`."""
    return torch.eye(3, dtype=a.dtype, device=a.device)


def deviator(a: Tensor) -> Tensor:
    """Return a - tr(a)/3 I for tensors `a` (..., 3, 3)."""
    trace = a.diagonal(dim1=-2, dim2=-1).sum(-1)
    return a - trace.unsqueeze(-1).unsqueeze(-1) / 3 * identity_like(a)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a b of tensors (..., 3, 3).

    A sum of three broadcast products: PyTorch's batched matrix product costs a microsecond per matrix on a CPU, because
    it loops over small matrices one by one.
    """
    return a[..., :, 0:1] * b[..., 0:1, :] + a[..., :, 1:2] * b[..., 1:2, :] + a[..., :, 2:3] * b[..., 2:3, :]


def matmul_last(a: Tensor, b: Tensor) -> Tensor:
    """Return a b of tensors (3, 3, n) whose batch axis is the last."""
    return a[:, 0:1] * b[0:1] + a[:, 1:2] * b[1:2] + a[:, 2:3] * b[2:3]


def cofactor(F: Tensor) -> Tensor:
    """Return the cofactor matrices det(F) F^-T of `F` (..., 3, 3): each row is a cross product of the other two."""
    a, b, c = F[..., 0, :], F[..., 1, :], F[..., 2, :]
    rows = [torch.linalg.cross(b, c, dim=-1), torch.linalg.cross(c, a, dim=-1), torch.linalg.cross(a, b, dim=-1)]
    return torch.stack(rows, dim=-2)


def determinant(F: Tensor) -> Tensor:
    """Return the determinants (...) of tensors `F` (..., 3, 3)."""
    return (F[..., 0, :] * torch.linalg.cross(F[..., 1, :], F[..., 2, :], dim=-1)).sum(dim=-1)


def inverse(F: Tensor) -> Tensor:
    """Return the inverses of tensors `F` (..., 3, 3) by cofactors; those of a singular tensor are not finite."""
    cof = cofactor(F)
    J = (F[..., 0, :] * cof[..., 0, :]).sum(dim=-1)
    return cof.transpose(-2, -1) / J.unsqueeze(-1).unsqueeze(-1)


def isochoric(F: Tensor, J: Tensor) -> Tensor:
    """Return J^(-1/3) F for `F` (..., 3, 3) of determinant `J` (...); not finite where J is not positive."""
    return torch.pow(J, -1.0 / 3.0).unsqueeze(-1).unsqueeze(-1) * F


def isochoric_exponential(a: Tensor, terms: int = 5) -> Tensor:
    """Return exp(a) of small trace-free tensors `a` (..., 3, 3), with det exp(a) = 1 to round-off.

    The power series is cut after `terms` terms, which leaves an error of |a|^(terms+1) / (terms+1)!; the determinant,
    the one property that must not drift over thousands of steps, is then restored by scaling.
    """
    identity = identity_like(a)
    result = identity + a / terms
    for k in range(terms - 1, 0, -1):
        result = identity + matmul(a, result) / k
    return isochoric(result, determinant(result))


def polar_rotation(F_bar: Tensor) -> Tensor:
    """Return the rotation R of F = R U by Newton's iteration R <- (R + R^-T)/2 from the isochoric F (..., 3, 3).

    The number of iterations is fixed, so that the result is one smooth function of F: eight reach round-off for
    isochoric stretches between 1/10 and 10.

    References:
        N. J. Higham, Computing the polar decomposition with applications, 1986, doi:10.1137/0907079.
    """
    R = F_bar
    for _ in range(8):
        cof = cofactor(R)
        J = (R[..., 0, :] * cof[..., 0, :]).sum(dim=-1)
        R = 0.5 * (R + cof / J.unsqueeze(-1).unsqueeze(-1))
    return R


def rational_strain(F_bar: Tensor) -> Tensor:
    """Return the strain E = (C_bar - I)(C_bar + I)^-1 (..., 3, 3), symmetric, without unit, of isochoric `F_bar`.

    In principal axes it is tanh(log lambda): the logarithmic strain to third order, bounded by one, and cheap.
    """
    C = torch.matmul(F_bar.transpose(-2, -1), F_bar)
    eye = identity_like(F_bar)
    E = torch.matmul(C - eye, inverse(C + eye))
    return 0.5 * (E + E.transpose(-2, -1))


def quaternion_rotations(q: Tensor) -> Tensor:
    """Return the rotation matrices (..., 3, 3) of unit quaternions `q` (..., 4), scalar part first."""
    w, x, y, z = q.unbind(-1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=-1,
    ).reshape(*q.shape[:-1], 3, 3)  # fmt: skip


def random_rotations(n: int, seed: int) -> Tensor:
    """Return `n` rotations (n, 3, 3), uniform on SO(3) (Haar measure), as float64.

    A normalised vector of four independent normal numbers is uniform on the unit quaternions. The same `seed` gives
    the same rotations on every platform (counter-based Philox generator).

    Raises:
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}.")
    q = np.random.Generator(np.random.Philox(key=seed)).standard_normal((n, 4))
    return quaternion_rotations(torch.from_numpy(q / np.linalg.norm(q, axis=-1, keepdims=True)))


def rotation_about(axis: Tensor, angle: float) -> Tensor:
    """Return the rotation (3, 3) by `angle` (radian) about the vector `axis` (3,), right-handed, as float64.

    Raises:
        ValueError: `axis` is not a non-zero vector of three components.
    """
    if axis.shape != (3,) or float(axis.norm()) == 0.0:
        raise ValueError(f"axis must be a non-zero vector of shape (3,), got {axis.tolist()}.")
    half = torch.as_tensor(angle / 2, dtype=torch.float64)
    unit = axis.to(torch.float64)
    unit = unit / unit.norm()  # a norm in single precision would leave an error of 1e-8 in the rotation
    return quaternion_rotations(torch.cat([half.cos()[None], half.sin() * unit]))
