"""Multiscale network: displacement fields from density by learned cycles over coarser and coarser grids.

A step maps the forces out of balance r = K u + f to a direction, z = N(density) r, linear in r, by a U-shaped network.
Its layers are isotropic convolutions between vector fields; on every grid, the result is multiplied at every node by
gates, numbers that a second network computes from the density around the node. The fields are those of least energy in
the span of all directions so far (`surrogates.cells.energy.ritz`); then the forces are computed anew. The advantages:

- Equivariance by construction: a signed permutation of the density permutes loads, components and places alike. The
  same holds for a shift by a voxel of the coarsest grid; smaller shifts move the grids and change the fields a little.
- One network for the six loads, linear in them, and one set of weights for all grids except the finest: a cell of 80^3
  voxels uses the weights of 20^3 with two more grids. A coarse voxel is a voxel: with lengths in voxels of its grid,
  forces are halved from one grid to the next, since K of a cube of side h is h times that of the unit cube.
- The tensor is computed from the energy, so it is never below that of the elements, whatever the weights.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (22), (25) and (28), and section 4.4 for the network that this
    one replaces.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, gelu

from micro.voxel.solver.fourier import FourierPreconditioner
from micro.voxel.solver.multigrid import prolong, restrict
from micro.voxel.solver.operator import VoxelOperator
from surrogates.cells.energy import CellEnergy, combine, ritz
from surrogates.cells.networks.equivariant import ScalarConv, VectorConv, to_nodes
from surrogates.cells.networks.paper import TensorNetwork

#: Grids are halved as long as their sides are even and the halves have at least this many voxels per side.
SMALLEST = 4
#: Density below which the stiffness of a node is not distinguished from a void.
SOFT = 0.02


def halvings(shape: tuple[int, ...]) -> int:
    """Return how many times a grid can be halved."""
    count = 0
    while all(n % 2 == 0 and n // 2 >= SMALLEST for n in shape):
        shape, count = tuple(n // 2 for n in shape), count + 1
    return count


class Bottom:
    """The coarsest grid, solved as a homogeneous one: forces (n, 3, X, Y, Z) to displacements."""

    def __init__(self, cells: CellEnergy, shape: tuple[int, ...]) -> None:
        solid = cells.operator.coefficients.new_ones(1, cells.operator.rank, *shape)
        self.inverse = FourierPreconditioner(VoxelOperator(cells.operator.basis, solid), cells.load.dtype).inverse

    def __call__(self, r: Tensor) -> Tensor:
        """Return the displacements; written out, because gradients pass through it."""
        f = torch.fft.rfftn(r, dim=(-3, -2, -1))
        u = torch.einsum("ijxyz,njxyz->nixyz", self.inverse[0], f)
        return torch.fft.irfftn(u, s=r.shape[-3:], dim=(-3, -2, -1))


class Gates(torch.nn.Module):
    """Network from the density to the gates of the nodes of a grid.

    Args:
        features: Number of features per voxel.
        gates: Number of gates per node.
    """

    def __init__(self, features: int, gates: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = ScalarConv(1 + features, features, generator)
        self.second = ScalarConv(features, features, generator)
        self.hidden = ScalarConv(2 + features, 2 * features, generator)
        self.gates = ScalarConv(2 * features, gates, generator)
        with torch.no_grad():
            self.gates.weight.mul_(0.1)
            self.gates.bias.fill_(1.0)

    def forward(self, density: Tensor, finer: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the voxels and gates of the nodes (cells, ., X, Y, Z).

        Args:
            density: Of this grid (cells, 1, X, Y, Z).
            finer: Features of the finer grid's voxels, averaged (cells, features, X, Y, Z).
        """
        phi = gelu(self.first(torch.cat([density, finer], 1)))
        phi = phi + gelu(self.second(phi))
        node = to_nodes(density)
        known = torch.cat([node, SOFT / (node + SOFT), to_nodes(phi)], 1)
        return phi, self.gates(gelu(self.hidden(known)))


class Grid(torch.nn.Module):
    """One grid of a step: forces to displacements, linear, which includes the correction of the coarser grid.

    Args:
        width: Vector fields between its layers.
        features: Number of features per voxel.
    """

    def __init__(self, width: int, features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = width
        self.enter = VectorConv(1, width, 0.2, generator, identity=True)
        self.down = VectorConv(width, 1, 0.02, generator)
        self.lift = VectorConv(1, width, 0.2, generator)
        self.middle = VectorConv(width, width, 0.2, generator, identity=True)
        self.leave = VectorConv(width, 1, 0.2, generator, identity=True)
        self.read = Gates(features, 3 * width + 3, generator)

    def spread(self, gates: Tensor, loads: int) -> list[Tensor]:
        """Return the gates, for all loads and components: three of `width` fields and three of one."""
        gates = gates.repeat_interleave(loads, 0).repeat_interleave(3, 1)
        return list(gates.split([3 * self.width] * 3 + [3] * 3, 1))


class MultiscaleNetwork(torch.nn.Module):
    """Density to the six fluctuations.

    Args:
        width: Vector fields of the finest grid; the coarser ones have twice as many.
        features: Number of features per voxel of the network of the gates.
        steps: Directions per load, three for instance.
        seed: Of the initial weights.
    """

    def __init__(self, width: int = 4, features: int = 12, steps: int = 3, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.features, self.steps = features, steps
        self.fine = Grid(width, features, generator)
        self.coarse = Grid(2 * width, features, generator)

    def gates(self, density: Tensor, loads: int) -> list[tuple[list[Tensor], Tensor]]:
        """Return, for every grid from the finest on, the gates and the nodes' stiffness scale."""
        out: list[tuple[list[Tensor], Tensor]] = []
        rho = density[:, None]
        phi = rho.new_zeros(len(rho), self.features, *rho.shape[2:])
        for level in range(halvings(tuple(density.shape[1:])) + 1):
            grid = self.coarse if level else self.fine
            if level:
                rho, phi = avg_pool3d(rho, 2), avg_pool3d(phi, 2)
            phi, gates = grid.read(rho, phi)
            scale = (to_nodes(rho) + SOFT).sqrt().repeat_interleave(loads, 0)
            out.append((grid.spread(gates, loads), scale))
        return out

    def cycle(self, r: Tensor, gates: list[tuple[list[Tensor], Tensor]], level: int, bottom: Bottom) -> Tensor:
        """Return the displacements (n, 3, X, Y, Z) of a grid and those below it under forces r."""
        grid = self.coarse if level else self.fine
        (enter, lift, middle, down, jump, near), scale = gates[level]
        r = r / scale
        h = grid.enter(r) * enter
        force = scale * (r * down + grid.down(h))
        if level + 1 < len(gates):
            below = prolong(self.cycle(restrict(force) / 2, gates, level + 1, bottom), tuple(r.shape[-3:]))
        else:
            below = bottom(force)
        below = scale * below
        h = h + grid.lift(below) * lift
        h = h + grid.middle(h) * middle  # only the gates are nonlinear, and only in the density: linear in the load
        return (grid.leave(h) + below * jump + r * near) / scale

    def directions(self, r: Tensor, gates: list[tuple[list[Tensor], Tensor]], bottom: Bottom) -> Tensor:
        """Return the directions (cells, 6, 3, X, Y, Z) for forces of that shape."""
        return self.cycle(r.flatten(0, 1), gates, 0, bottom).view(r.shape)

    def sequence(self, cells: CellEnergy, steps: int | None = None) -> list[Tensor]:
        """Return the fluctuations (cells, 6, 3, X, Y, Z) after each step."""
        shape = tuple(cells.density.shape[1:])
        gates = self.gates(cells.density, cells.load.shape[1])
        bottom = Bottom(cells, tuple(n >> halvings(shape) for n in shape))
        r, fields, products, out = cells.load, [], [], []
        for _ in range(steps or self.steps):
            fields.append(self.directions(r, gates, bottom))
            with torch.no_grad():
                products.append(cells.operator.apply(fields[-1]))
            v, Kv = torch.cat(fields, 1), torch.cat(products, 1)
            c = ritz(v.detach(), Kv, cells.load)
            out.append(combine(c, v))
            with torch.no_grad():
                r = cells.load + combine(c, Kv)
        return out

    def forward(self, cells: CellEnergy) -> Tensor:
        """Return the fluctuations (cells, 6, 3, X, Y, Z)."""
        return self.sequence(cells)[-1]


def differentiable_tensor(module: torch.nn.Module, density: Tensor) -> Tensor:
    """Return the upper bounds (cells, 6, 6) of a network, Eq. (25), differentiable by densities, forward and backward.

    For a multiscale network the fields are those of `MultiscaleNetwork.sequence`, written out: in training, the
    combination that each step takes of its directions is no part of the graph (the envelope theorem); by the density
    everything counts: gates, forces, stiffness and combinations.

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
