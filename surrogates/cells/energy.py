"""Energy of displacement fields in periodic voxel cells, which networks minimise: a finite-element basis, no labels.

Lengths are in voxels and moduli those of a solid with E = 1, so that a network sees the same numbers at any resolution.
The fluctuation u of a unit strain e_k (the paper's is -u) is the displacement minus the affine one; with K the
stiffness of the elements, f_k the forces of e_k and V the volume,

    U_kl = (sum of K_A + f_k.u_l + u_k.f_l + u_k.K u_l) / V                                              Eq. (25)

is a tensor that is never below the effective one: for every combination c of the six strains c.U c is the energy of an
admissible displacement, and the effective energy is the least of those. U - C = (u - u*).K (u - u*) / V is quadratic
in the error of the fields.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (19) to (25).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.voxel.solver.homogeniser import Homogeniser
from micro.voxel.solver.operator import VoxelOperator

#: Directions of a subspace whose part of the largest eigenvalue is below this are taken to be dependent.
DEPENDENT = {torch.float32: 1e-5, torch.float64: 1e-11}


class StiffnessProduct(torch.autograd.Function):
    """K u, differentiable: K is its own transpose."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, operator: VoxelOperator) -> Tensor:
        """Return K u for u (cells, loads, 3, X, Y, Z)."""
        ctx.operator = operator
        return operator.apply(u)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return K times the gradient."""
        return StiffnessProduct.apply(gradient.contiguous(), ctx.operator), None


class CellEnergy:
    """Energy of a batch of cells of one material.

    Args:
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 to 1.
        dtype: Precision of the fields.

    Attributes:
        load: Forces f of the unit strains (cells, 6, 3, X, Y, Z).
        voigt: Tensors of u = 0 (cells, 6, 6).
        volume: Voxels of a cell.
    """

    def __init__(self, density: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.exact = Homogeniser(density, spacing=np.ones(3))
        self.density = density.to(dtype)
        self.operator = self.exact.operator.to(dtype)
        self.load = self.exact.load.to(dtype)
        self.voigt, self.volume = self.exact.voigt.to(dtype), self.exact.volume

    def product(self, u: Tensor) -> Tensor:
        """Return K u (cells, loads, 3, X, Y, Z), differentiable in u."""
        return StiffnessProduct.apply(u, self.operator)

    def residual(self, u: Tensor) -> Tensor:
        """Return the forces K u + f (cells, 6, 3, X, Y, Z): the gradient of the energy, Eq. (28)."""
        return self.product(u) + self.load

    def tensor(self, u: Tensor) -> Tensor:
        """Return the upper bounds (cells, 6, 6) of fluctuations (cells, 6, 3, X, Y, Z), differentiable, Eq. (25)."""
        work = (self.residual(u) + self.load).flatten(2) @ u.flatten(2).mT
        return self.voigt + (work + work.mT) / (2 * self.volume)

    def certified(self, u: Tensor) -> Tensor:
        """Return the upper bounds (cells, 6, 6) in double precision, whatever the precision of the fields."""
        return self.exact.tensor(u.double())


def energy_loss(cells: CellEnergy, u: Tensor) -> Tensor:
    """Return the mean energy of the cells, Eqs. (22) and (24), per volume, and shifted so that it is never negative.

    With u = -mu it is the paper's loss; the shift is half the Voigt energy, which no network changes.
    """
    return cells.tensor(u).diagonal(dim1=1, dim2=2).sum(1).mean() / 2


def relative_loss(cells: CellEnergy, u: Tensor) -> Tensor:
    """Return the mean of log det U: the energy, each cell and each strain measured by its own.

    Its gradient is that of tr(U^-1 dU). Thin frames and soft strains (C44 of a grid is 2 % of its C11) count as much
    as stiff ones, unlike in the plain sum of energies. det U >= det C, since U - C is never negative.
    """
    U = cells.tensor(u)
    floor = 1e-5 * cells.voigt.diagonal(dim1=1, dim2=2).mean(1) + 1e-12  # strains with little resistance
    return torch.logdet(U + floor[:, None, None] * torch.eye(6).to(U)).mean() / 6


def weak_loss(cells: CellEnergy, u: Tensor) -> Tensor:
    """Return the mean square of the residual, Eq. (21), per volume."""
    return cells.residual(u).square().sum((1, 2, 3, 4, 5)).mean() / cells.volume


def displacement_loss(cells: CellEnergy, u: Tensor, label: Tensor) -> Tensor:
    """Return the mean square of the difference to displacements given, Eq. (36), per volume.

    Translations and the nodes that no solid touches are left out: the energy does not depend on them.
    """
    solid = (cells.operator.diagonal().diagonal(dim1=-2, dim2=-1).sum(-1) > 0).to(u)[:, None, None]
    count = solid.sum((-3, -2, -1), keepdim=True).clamp(min=1)  # a void cell has no such node, and no loss
    difference = u - label
    mean = (solid * difference).sum((-3, -2, -1), keepdim=True) / count
    return (solid * (difference - mean)).square().sum((1, 2, 3, 4, 5)).mean() / cells.volume


def preconditioned_loss(cells: CellEnergy, u: Tensor) -> Tensor:
    """Return a number whose gradient by u is M^-1 (K u + f) / V, M^-1 the homogeniser's preconditioner.

    The gradient of the energy is K u + f = K (u - u*), whose condition number grows as the square of the
    resolution: smooth parts are learned last. The steepest direction depends on the norm. In the norm |v|^2 = v.M v the
    gradient of the same energy is g = M^-1 (K u + f), because dE = (K u + f).v = (M g).v. It vanishes where the other
    does, M^-1 being positive definite, and its condition number is that of M^-1 K, bounded by the contrast whatever the
    resolution; with M = K it is u - u*, the gradient that labels would give, without a label. Where u is a network's
    output the gradient by the weights is then g . du/dw: back-propagation with K u + f replaced by g. The value is
    |g|^2 / 2V.
    """
    with torch.no_grad():
        gradient = cells.exact.precondition(cells.residual(u))
    return (u - (u.detach() - gradient)).square().sum((1, 2, 3, 4, 5)).mean() / (2 * cells.volume)


def ritz(fields: Tensor, products: Tensor, load: Tensor) -> Tensor:
    """Return the coefficients of least energy of a subspace, the same for all six strains.

    Args:
        fields: Directions v_i (cells, m, ...).
        products: K v_i, of the same shape.
        load: Forces f_k (cells, 6, ...).

    Returns:
        c (cells, 6, m): u_k = sum_i c_ki v_i has the least energy in the span. By the envelope theorem the derivative
        of that energy by the v_i is the one at fixed coefficients, which are therefore no part of the graph.
    """
    with torch.no_grad():
        v = fields.flatten(2)
        G = (v @ products.flatten(2).mT).double()
        G, b = (G + G.mT) / 2, (v @ load.flatten(2).mT).double()
        size = G.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        scale = torch.where(size > 0, 1 / size, 0.0)
        values, vectors = torch.linalg.eigh(scale[:, :, None] * G * scale[:, None])
        keep = values > DEPENDENT[fields.dtype] * values[:, -1:].clamp(min=1e-300)
        inverse = torch.where(keep, 1 / torch.where(keep, values, 1.0), 0.0)
        c = -scale[:, :, None] * (vectors @ (inverse[:, :, None] * (vectors.mT @ (scale[:, :, None] * b))))
    return c.mT.to(fields.dtype)


def combine(coefficients: Tensor, fields: Tensor) -> Tensor:
    """Return sum_i c_ki v_i (cells, 6, ...) of coefficients (cells, 6, m) and fields (cells, m, ...)."""
    return (coefficients @ fields.flatten(2)).unflatten(2, fields.shape[2:])
