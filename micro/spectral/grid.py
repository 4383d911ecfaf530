"""Periodic grid: gradient and equilibrium of fields on voxels, by fast Fourier transforms.

A deformation gradient is F(x) = F_mean + grad u(x) with a periodic displacement u. At the frequency k its transform is
F_k = u_k (x) xi(k), where the vector xi(k) is the symbol of the discrete gradient, and a stress P is in equilibrium if
P_k conj(xi(k)) = 0. Only the direction n = xi/|xi| matters for either: with y = |xi| u as the unknown

    F_k = y_k (x) n(k),        s_k = P_k conj(n(k)),

so that |y| is the root mean square of F - F_mean, and |s| that of the part of P that does work on compatible fields,
which vanishes in equilibrium. The field F is compatible and has the mean F_mean by construction, up to round-off.

Two discretisations are at hand. "rotated" takes differences along the diagonals of a voxel, which is the trilinear
(bilinear) finite element with one integration point per voxel; voids and very stiff phases converge with it.
"fourier" differentiates the trigonometric polynomial through the voxel centres; it is more accurate for smooth
fields, oscillates at sharp interfaces and does not converge with voids.

References:
    Willot (2015), Fourier-based schemes for computing the mechanical response of composites with accurate local
    fields, doi:10.1016/j.crme.2014.12.005; Moulinec and Suquet (1998), doi:10.1016/S0045-7825(97)00218-1.
"""

import math
from typing import Any

import torch
from torch import Tensor

SCHEMES = ("rotated", "fourier")


def _waves(shape: tuple[int, ...], device: str | torch.device) -> list[Tensor]:
    """Return the phase angle per voxel along each axis, by frequency, in the layout of a real transform."""
    angles = []
    for axis, n in enumerate(shape):
        count = torch.arange(n // 2 + 1 if axis == len(shape) - 1 else n, dtype=torch.float64, device=device)
        count = torch.where(count > n // 2, count - n, count)
        view = [1] * len(shape)
        view[axis] = -1
        angles.append((2 * math.pi / n * count).reshape(view))
    return angles


def _symbol(shape: tuple[int, ...], scheme: str, device: str | torch.device) -> Tensor:
    """Return xi (d, K...), complex; the edge of a voxel is the unit of length."""
    angles = _waves(shape, device)
    if scheme == "fourier":
        # An even number of voxels has a frequency, the highest, whose derivative is not a real field: left out.
        xi = [torch.where(angle.abs() > math.pi * (1 - 1e-12), 0.0, angle) * 1j for angle in angles]
        return torch.stack(list(torch.broadcast_tensors(*xi)))
    turns = [torch.polar(torch.ones_like(angle), angle) for angle in angles]
    # At the highest frequency the turn is -1; its sine is round-off, which must not become a direction.
    turns = [torch.where(angle.abs() > math.pi * (1 - 1e-12), -1.0 + 0j, turn) for angle, turn in zip(angles, turns)]
    xi = []
    for axis in range(len(shape)):
        factor = torch.ones((), dtype=torch.complex128, device=device)
        for other, turn in enumerate(turns):
            factor = factor * ((turn - 1) if other == axis else (turn + 1) / 2)
        xi.append(factor)
    return torch.stack(list(torch.broadcast_tensors(*xi)))


class Grid:
    """A periodic grid of equal cubic voxels (square ones in two dimensions).

    Args:
        shape: Voxels along each axis (d,), d = 2 or 3.
        scheme: "rotated" or "fourier".
        device: Torch device.

    Attributes:
        n: Direction of the symbol (d, K...), complex, zero where the gradient vanishes (the mean, hourglass modes).
        weight: Number of frequencies (K...) that an entry of the real transform stands for, 1 or 2.

    Raises:
        ValueError: The shape has not two or three axes, an axis is empty, or the scheme is unknown.
    """

    def __init__(self, shape: tuple[int, ...], scheme: str = "rotated", device: str | torch.device = "cpu") -> None:
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"shape must be two or three positive numbers of voxels, got {shape}.")
        if scheme not in SCHEMES:
            raise ValueError(f"scheme must be 'rotated' or 'fourier', got '{scheme}'.")
        self.shape, self.scheme = shape, scheme
        xi = _symbol(shape, scheme, device)
        length = xi.abs().square().sum(0).sqrt()
        self.n = torch.where(length > 0, xi / torch.where(length > 0, length, 1.0), 0.0)
        last = torch.full((shape[-1] // 2 + 1,), 2.0, dtype=torch.float64, device=device)
        last[0] = 1.0
        if shape[-1] % 2 == 0:
            last[-1] = 1.0
        self.weight = last.expand(self.n.shape[1:])
        self._root, self._back = self.weight.sqrt(), self.n.conj().resolve_conj()
        self._axes = tuple(range(-len(shape), 0))

    @property
    def dimension(self) -> int:
        """Number of axes, 2 or 3."""
        return len(self.shape)

    def zeros(self, cells: int) -> Tensor:
        """Return the unknowns y (cells, 3, K...) of homogeneous cells, complex."""
        return self.n.new_zeros((cells, 3, *self.n.shape[1:]))

    def gradient(self, y: Tensor) -> Tensor:
        """Return the gradient (b, r, d, N...) of the unknowns `y` (b, r, K...) of r components."""
        waves = (y / self._root)[:, :, None] * self.n
        return torch.fft.irfftn(waves, s=self.shape, dim=self._axes, norm="forward")

    def divergence(self, columns: Tensor) -> Tensor:
        """Return the imbalance (b, r, K...) of r rows of a stress, `columns` (b, r, d, N...); see `imbalance`."""
        waves = torch.fft.rfftn(columns, dim=self._axes, norm="forward")
        return (waves * self._back).sum(2) * self._root

    def deformation(self, y: Tensor, F_mean: Tensor) -> Tensor:
        """Return the deformation gradient (b, N..., 3, 3) of the unknowns `y` (b, 3, K...) and its mean (b, 3, 3)."""
        field = self.gradient(y)
        F = F_mean.reshape(-1, *[1] * self.dimension, 3, 3).expand(-1, *self.shape, 3, 3).clone()
        F[..., : self.dimension] += field.permute(0, *range(3, 3 + self.dimension), 1, 2)
        return F

    def imbalance(self, P: Tensor) -> Tensor:
        """Return s (b, 3, K...), Pa, of a stress `P` (b, N..., 3, 3): what equilibrium requires to vanish.

        Its Euclidean norm is the root mean square of the projection of P on compatible fields.
        """
        return self.divergence(P[..., : self.dimension].permute(0, -2, -1, *range(1, 1 + self.dimension)))

    def incompatibility(self, F: Tensor) -> Tensor:
        """Return the root mean square (b,) of the part of `F` (b, N..., 3, 3) that is no gradient and no mean."""
        columns = F[..., : self.dimension].permute(0, -2, -1, *range(1, 1 + self.dimension))
        waves = torch.fft.rfftn(columns, dim=self._axes, norm="forward")
        rest = waves - (waves * self.n.conj()).sum(2, keepdim=True) * self.n
        rest[(..., *[0] * self.dimension)] = 0.0
        return (rest.abs().square() * self.weight).flatten(1).sum(1).sqrt()

    def preconditioner(self, F_mean: Tensor, shear: Tensor, rest: Tensor) -> "Reference":
        """Return the inverse stiffness of a homogeneous medium that is deformed by `F_mean`; see `Reference`."""
        return Reference(self.n, F_mean, shear, rest)


class Reference:
    """Inverse stiffness of a homogeneous isotropic medium in the unknowns y, by frequency.

    The elastic medium is carried along with the mean deformation: with q = F_mean^-T n its acoustic tensor is
    mu |q|^2 1 + (lam + mu) q (x) q, so that large mean strains do not spoil the conditioning.

    Args:
        n: Directions (d, K...), complex.
        F_mean: Mean deformation gradient (b, 3, 3).
        shear: The modulus mu (b,), Pa.
        rest: The modulus lam + mu (b,), Pa.
    """

    def __init__(self, n: Tensor, F_mean: Tensor, shear: Tensor, rest: Tensor) -> None:
        d = len(n)
        back = torch.linalg.inv(F_mean).mT[:, :, :d].to(n.dtype)  # F^-T, whose columns act on n
        q = torch.einsum("bij,j...->bi...", back, n)
        square = q.abs().square().sum(1, keepdim=True)
        safe = torch.where(square > 0, square, 1.0)
        ones: Any = [1] * d
        self._q = q
        self._first = torch.where(square > 0, 1 / safe, 0.0) / shear.reshape(-1, 1, *ones)
        self._second = (rest / (rest + shear)).reshape(-1, 1, *ones) / safe

    def solve(self, s: Tensor) -> Tensor:
        """Return K^-1 s for `s` (b, 3, K...), without unit."""
        along = (self._q.conj() * s).sum(1, keepdim=True)
        return self._first * (s - self._second * along * self._q)

    def rows(self, mask: Tensor) -> "Reference":
        """Return the preconditioner of the cells of `mask` (b,)."""
        part = object.__new__(Reference)
        part._q, part._first, part._second = self._q[mask], self._first[mask], self._second[mask]
        return part
