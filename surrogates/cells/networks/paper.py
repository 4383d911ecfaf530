"""The paper's convolutional networks: density to the 18 displacement components, or to nine components of the tensor.

The text gives four blocks (1, 9), (9, 18), (18, 36), (36, 72), each batch normalisation, two convolutions, batch
normalisation, leaky ReLU, one convolution; then two more convolutions, 14 in all; 437 642 parameters. It does not give
the inner widths; with the narrowest inside the blocks and 46 between the last two there are 436 522. Padding is
periodic, not zero as in the paper: a periodic cell has no boundary, and zeros there break the symmetry under shifts.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 4.4, figures 7 and 11.
"""

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, max_pool3d

from surrogates.cells.energy import CellEnergy

CHANNELS = ((1, 9), (9, 18), (18, 36), (36, 72))
#: Components that the tensor network predicts: 11, 22, 33, 12, 13, 23, 44, 55, 66.
COMPONENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), (3, 3), (4, 4), (5, 5))


def convolution(inputs: int, outputs: int) -> torch.nn.Conv3d:
    """Return a 3 x 3 x 3 convolution with periodic padding."""
    return torch.nn.Conv3d(inputs, outputs, 3, padding=1, padding_mode="circular")


def block(inputs: int, outputs: int) -> torch.nn.Sequential:
    """Return one Conv3D block."""
    return torch.nn.Sequential(
        torch.nn.BatchNorm3d(inputs), convolution(inputs, inputs), convolution(inputs, outputs),
        torch.nn.BatchNorm3d(outputs), torch.nn.LeakyReLU(0.01), convolution(outputs, outputs),
    )  # fmt: skip


class PaperNetwork(torch.nn.Module):
    """Density to the six fluctuations, figure 7 of the paper."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = torch.nn.Sequential(
                *(block(*pair) for pair in CHANNELS), convolution(72, 46), convolution(46, 18)
            )

    def forward(self, cells: CellEnergy) -> Tensor:
        """Return the fluctuations (cells, 6, 3, X, Y, Z), in voxels."""
        return self.layers(cells.density[:, None]).unflatten(1, (6, 3))


class TensorNetwork(torch.nn.Module):
    """Density to the tensor, figure 11 of the paper: without a field or a bound, for one resolution.

    Args:
        side: Voxels per side of the cells that it is for.
        seed: Of the initial weights.

    Raises:
        ValueError: The cells are too small for three halvings of their grid.
    """

    def __init__(self, side: int, seed: int = 0) -> None:
        super().__init__()
        if side < 8:
            raise ValueError(f"cells of a tensor network must have at least 8 voxels per side, got {side}.")
        self.side = side
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.blocks = torch.nn.ModuleList(block(*pair) for pair in CHANNELS[:3])
            widths = [36 * (side // 8) ** 3, 112, 48, 24, len(COMPONENTS)]
            self.dense = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, cells: CellEnergy) -> Tensor:
        """Return the tensors (cells, 6, 6).

        Raises:
            ValueError: The cells have another resolution than the network.
        """
        rho = cells.density
        if tuple(rho.shape[1:]) != (self.side,) * 3:
            n = self.side
            raise ValueError(f"density must have shape (cells, {n}, {n}, {n}), got {tuple(rho.shape)}.")
        x = rho[:, None]
        for part in self.blocks:
            x = max_pool3d(part(x), 2)
        x = x.flatten(1)
        for layer in self.dense[:-1]:
            x = leaky_relu(layer(x), 0.01)
        values = self.dense[-1](x)
        tensor = values.new_zeros(len(values), 6, 6)
        for k, (i, j) in enumerate(COMPONENTS):
            tensor[:, i, j] = tensor[:, j, i] = values[:, k]
        return tensor
