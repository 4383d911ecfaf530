"""Effective stiffness of a network with its whole derivative by the density.

The fields are those of `MultiscaleNetwork.sequence`, written out: there, for training, the combination that each step
takes of its directions is no part of the graph (the envelope theorem); by the density everything counts: gates, forces,
stiffness and combinations.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equation (25).
"""

import torch
from torch import Tensor

from surrogates.cells.energy import CellEnergy, combine
from surrogates.cells.networks.multiscale import Bottom, MultiscaleNetwork, halvings
from surrogates.cells.networks.paper import TensorNetwork


def differentiable_tensor(module: torch.nn.Module, density: Tensor) -> Tensor:
    """Return the upper bounds (cells, 6, 6) of a network, differentiable by the densities, forward and backward.

    Args:
        module: A network in double precision that gives fields.
        density: Factors of the solid's moduli (cells, X, Y, Z), from 0 to 1, float64.

    Raises:
        ValueError: The network gives no fields.
    """
    if isinstance(module, TensorNetwork):
        raise ValueError("network must give displacements: one of kind tensor has no energy.")
    cells = CellEnergy(density, torch.float64)
    if not isinstance(module, MultiscaleNetwork):
        return cells.exact.tensor(module(cells))
    shape = tuple(density.shape[1:])
    gates = module.gates(cells.density, 6)
    bottom = Bottom(cells, tuple(m >> halvings(shape) for m in shape))
    r, fields, products = cells.load, [], []
    for _ in range(module.steps):
        fields.append(module.directions(r, gates, bottom))
        products.append(cells.operator.apply(fields[-1]))
        v, Kv = torch.cat(fields, 1), torch.cat(products, 1)
        G, b = v.flatten(2) @ Kv.flatten(2).mT, v.flatten(2) @ cells.load.flatten(2).mT
        scale = 1.0 / G.diagonal(dim1=1, dim2=2).sqrt()
        G = scale[:, :, None] * (G + G.mT) / 2 * scale[:, None] + 1e-12 * torch.eye(G.shape[1], dtype=G.dtype)
        c = -(scale[:, :, None] * torch.linalg.solve(G, scale[:, :, None] * b)).mT
        u, r = combine(c, v), cells.load + combine(c, Kv)
    return cells.exact.tensor(u, -r)
