"""Effective stiffness of graded cells, of a network or of the homogeniser, computed on all ranks together."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from mpi4py import MPI
from torch.autograd import forward_ad

from fem.command import together
from micro.voxel.cells.graded import GradedCells
from micro.voxel.solver.homogeniser import Homogeniser
from surrogates.cells.networks.multiscale import differentiable_tensor

BATCH = 4  # cells
TOLERANCE = 1e-10  # of the homogeniser
RAMPS = "multigrid"  # eight steps for ramps that end in almost no stiffness; Fourier needs hundreds to this tolerance


class Stiffness:
    """Effective stiffness of the cells of a part, computed on all ranks together; calls are collective.

    Args:
        comm: Communicator.
        family: The cells.
        module: Network in double precision; None for the homogeniser.

    Attributes:
        evaluated: Number of cells evaluated on all ranks.
        seconds: Seconds of this rank.
    """

    def __init__(self, comm: MPI.Comm, family: GradedCells, module: torch.nn.Module | None) -> None:
        self.comm, self.family, self.module = comm, family, module
        self.evaluated, self.seconds = 0, 0.0

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """C (cells, 6, 6) of parameters (cells,); cells that are equal to nine digits are evaluated once."""
        return self._distribute(t, self._tensor)

    def slope(self, t: np.ndarray) -> np.ndarray:
        """dC/dt (cells, 6, 6), by forward differentiation: one parameter per cell, 36 numbers out."""
        return self._distribute(t, self._slope)

    def _distribute(self, t: np.ndarray, work: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        began = time.perf_counter()
        _, first, back = np.unique(np.round(t, 9), return_index=True, return_inverse=True)
        distinct, out = t[first], np.zeros((len(first), 6, 6))

        def evaluate() -> None:
            mine = np.arange(self.comm.rank, len(distinct), self.comm.size)
            for part in np.split(mine, range(BATCH, len(mine), BATCH)):
                if len(part):
                    with torch.no_grad():
                        out[part] = work(torch.from_numpy(distinct[part])).numpy()

        together(self.comm, evaluate)
        self.comm.Allreduce(MPI.IN_PLACE, out)
        self.evaluated += len(distinct)
        self.seconds += time.perf_counter() - began
        return out[back]

    def _tensor(self, t: torch.Tensor) -> torch.Tensor:
        rho = self.family.density(t)
        if self.module is not None:
            C = differentiable_tensor(self.module, rho)
        else:
            C = Homogeniser(rho, preconditioner=RAMPS).solve(tolerance=TOLERANCE).tensor
        if not bool((torch.linalg.eigvalsh(C)[:, 0] > 1e-5).all()):
            raise ValueError("A cell falls into pieces: take another --family or a finer --resolution.")
        return C

    def _slope(self, t: torch.Tensor) -> torch.Tensor:
        with forward_ad.dual_level():
            rho = self.family.density(forward_ad.make_dual(t, torch.ones_like(t)))
            if self.module is not None:
                return forward_ad.unpack_dual(differentiable_tensor(self.module, rho)).tangent
            density, change = forward_ad.unpack_dual(rho)
        cells = Homogeniser(density, preconditioner=RAMPS)
        gradient = cells.gradient(cells.solve(tolerance=TOLERANCE).displacement)
        return torch.einsum("cijxyz,cxyz->cij", gradient, change)
