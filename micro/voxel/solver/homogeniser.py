"""Effective stiffness of periodic voxel cells, batched over cells and the six unit strains.

The displacement is E x + u, u periodic; with e_k the unit strains and V the volume, the energy

    U_kl = 1/V int (e_k + sym grad u_k) : D : (e_l + sym grad u_l) dV                                      Eq. (25)

is an upper bound of the effective stiffness of the elements for any u, in the sense of quadratic forms, and its error
is quadratic in the error of u. Voids are voxels of density zero: they carry no stress, and the displacements of nodes
without solid, of islands and of hinges belong to the kernel of the stiffness. The load is orthogonal to that kernel, so
conjugate gradients never enter it.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; equations (19) to (29).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from micro.data.cli import check_memory
from micro.threads import single
from micro.voxel.solver.element import (
    affine,
    check_stiffness,
    decompose,
    element_stiffness,
    isotropic,
    strain_operator,
)
from micro.voxel.solver.operator import VoxelOperator
from micro.voxel.solver.pcg import PRECONDITIONERS, MixedPrecisionPCG

logger = logging.getLogger(__name__)

#: Effective stiffness below this part of the Voigt average counts as zero where a relative accuracy is required.
NEGLIGIBLE = 1e-5
#: Memory of one cell while it is solved, bytes per voxel; measured on gyroids of 80^3 and 128^3 voxels.
BYTES = 1000


@dataclass(frozen=True)
class Homogenised:
    """Effective stiffness of a batch of cells.

    Attributes:
        tensor: Upper bounds (cells, 6, 6) in the order 11, 22, 33, 23, 13, 12, engineering shear.
        left: Estimated error of the diagonal (cells, 6), in the unit of the tensor.
        displacement: Fluctuations u of the six unit strains (cells, 6, 3, X, Y, Z).
        iterations: Steps of conjugate gradients (cells,).
        converged: Whether the required accuracy was reached (cells,), bool.
    """

    tensor: Tensor
    left: Tensor
    displacement: Tensor
    iterations: Tensor
    converged: Tensor


def as_batch(name: str, values: np.ndarray | Tensor) -> Tensor:
    """Return voxel values (X, Y, Z) or (cells, X, Y, Z) as a batch; raises a ValueError for another shape."""
    batch = values if isinstance(values, Tensor) else torch.tensor(values)
    if batch.ndim not in (3, 4) or 0 in batch.shape:
        raise ValueError(f"{name} must have shape (cells, X, Y, Z) or (X, Y, Z), got {tuple(batch.shape)}.")
    return batch[None] if batch.ndim == 3 else batch


def check_cells(
    density: np.ndarray | Tensor | None,
    stiffness: np.ndarray | None,
    phase: np.ndarray | Tensor | None,
    device: str | torch.device | None,
) -> tuple[Tensor | None, Tensor | None, np.ndarray]:
    """Return densities, phases (cells, X, Y, Z) and the moduli of the phases (p, 6, 6); see `Homogeniser`.

    Raises:
        ValueError: An argument has the wrong shape or values.
    """
    D = check_stiffness(isotropic() if stiffness is None else stiffness)
    if density is None and phase is None:
        raise ValueError("density or phase must be given.")
    rho = None if density is None else as_batch("density", density).to(device=device, dtype=torch.float64)
    if rho is not None and not bool((torch.isfinite(rho) & (rho >= 0)).all()):
        raise ValueError("density must be finite and at least 0.")
    index = None if phase is None else as_batch("phase", phase).to(device=device)
    if index is not None:
        if index.is_floating_point() or index.is_complex():
            raise ValueError(f"phase must be integers, got {index.dtype}.")
        index = index.long()
        if rho is not None and rho.shape != index.shape:
            raise ValueError(f"phase must have the shape of density, {tuple(rho.shape)}, got {tuple(index.shape)}.")
        if bool(((index < 0) | (index >= len(D))).any()):
            raise ValueError(f"phase must lie between 0 and {len(D) - 1}.")
    elif len(D) > 1:
        raise ValueError(f"phase must be given for {len(D)} phases.")
    return rho, index, D


def check_size(name: str, shape: Sequence[int]) -> None:
    """Check that a cell (X, Y, Z) can be solved in the memory of this machine.

    Args:
        name: Of the option that decides the size.
        shape: Voxels (X, Y, Z).

    Raises:
        ValueError: It cannot; the sentence holds the estimate.
    """
    check_memory(f"{' x '.join(map(str, shape))} voxels", BYTES * math.prod(map(int, shape)), name=name)


class Homogeniser:
    """A batch of periodic cells.

    Args:
        density: Factors of the moduli (cells, X, Y, Z) or (X, Y, Z), at least 0; zero is a void. Ones when None.
        stiffness: Moduli (6, 6) of the material, or (p, 6, 6) of the phases; E = 1, nu = 0.3 when None.
        phase: Phase of each voxel, of the shape of `density`, integers from 0 to p - 1; zeros when None.
        spacing: Edges of a voxel (3,); cubes, the longest side of the cell being 1, when None.
        preconditioner: "fourier", "multigrid", "none", or "auto": the first, then the second for cells that
            the first has not solved in `PATIENCE` steps.
        precision: Of the passes of conjugate gradients, see `micro.voxel.solver.pcg`; everything else is float64.
        device: Torch device; that of `density` when None.

    Raises:
        ValueError: An argument has the wrong shape or values.
    """

    def __init__(
        self,
        density: np.ndarray | Tensor | None = None,
        stiffness: np.ndarray | None = None,
        phase: np.ndarray | Tensor | None = None,
        *,
        spacing: np.ndarray | None = None,
        preconditioner: str = "auto",
        precision: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
    ) -> None:
        if preconditioner not in PRECONDITIONERS:
            raise ValueError(f"preconditioner must be one of {', '.join(PRECONDITIONERS)}, got {preconditioner!r}.")
        self.preconditioner = preconditioner
        with single():  # all of this takes less time than starting threads
            self._set_up(*check_cells(density, stiffness, phase, device), spacing, precision)

    def _set_up(
        self,
        rho: Tensor | None,
        index: Tensor | None,
        D: np.ndarray,
        spacing: np.ndarray | None,
        precision: torch.dtype,
    ) -> None:
        """Make the operator, the load and the solver of checked densities and phases."""
        shape = (rho if rho is not None else index).shape  # type: ignore[union-attr]
        basis, coordinates = decompose(D)
        where = (rho if rho is not None else index).device  # type: ignore[union-attr]
        table = torch.tensor(coordinates, dtype=torch.float64, device=where)
        self.table = table[index].permute(0, 4, 1, 2, 3) if index is not None else table[0].view(1, -1, 1, 1, 1)
        coefficients = self.table.expand(shape[0], -1, *shape[1:]) if rho is None else self.table * rho[:, None]
        self.spacing = np.ones(3) / max(shape[1:]) if spacing is None else np.asarray(spacing, dtype=float)
        if self.spacing.shape != (3,) or not (self.spacing > 0).all():
            raise ValueError(f"spacing must be three positive numbers, got {spacing}.")
        self.moduli = torch.tensor(basis, dtype=torch.float64, device=where)
        K = torch.tensor(element_stiffness(basis, self.spacing), dtype=torch.float64, device=where)
        self.operator = VoxelOperator(K, coefficients.contiguous())
        self.volume = float(np.prod(self.spacing)) * shape[1] * shape[2] * shape[3]
        self.affine = torch.tensor(affine(self.spacing), dtype=torch.float64, device=where)
        self.load = self.operator.force(self.affine)
        self._pcg = MixedPrecisionPCG(self.operator, self.load, self.preconditioner, precision)

    @property
    def voigt(self) -> Tensor:
        """The volume averages of the moduli (cells, 6, 6): the tensor of u = 0."""
        return torch.einsum("cqxyz,qij->cij", self.operator.coefficients, self.moduli) / math.prod(self.operator.shape)

    def precondition(self, r: Tensor) -> Tensor:
        """Return displacements that approximately balance the forces `r` (cells, loads, 3, X, Y, Z)."""
        name = "fourier" if self.preconditioner == "auto" else self.preconditioner
        return self._pcg.part(name, torch.arange(len(r), device=r.device)).precondition(r)

    def residual(self, u: Tensor) -> Tensor:
        """Return the forces out of balance -(K u + f), (cells, 6, 3, X, Y, Z)."""
        return -self.operator.apply(u) - self.load

    def tensor(self, u: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the upper bounds (cells, 6, 6) of fluctuations u (cells, 6, 3, X, Y, Z), Eq. (25)."""
        r = self.residual(u) if residual is None else residual
        flat = u.flatten(2)
        with single():
            work = (self.load - r).flatten(2) @ flat.mT  # f_k.u_l - r_k.u_l: f.u + u.f + u.K u with K u = -f - r
        return self.voigt + (work + work.mT) / (2 * self.volume)

    def solve(self, u: Tensor | None = None, *, tolerance: float = 1e-4, iterations: int = 500) -> Homogenised:
        """Return the effective stiffness.

        Args:
            u: Fluctuations to begin with (cells, 6, 3, X, Y, Z), zero when None.
            tolerance: Error of the tensor's diagonal, relative to it; it is estimated from the gains of the steps.
            iterations: Largest number of steps.

        Raises:
            ValueError: An argument is out of its range.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}.")
        shape = self.load.shape
        if u is not None and u.shape != shape:
            raise ValueError(f"u must have shape {tuple(shape)}, got {tuple(u.shape)}.")
        with torch.no_grad():
            with single():
                voigt = self.voigt.diagonal(dim1=1, dim2=2) * self.volume
            solution = self._pcg.run(u, tolerance, voigt, NEGLIGIBLE * voigt, iterations)
            with single():
                tensor = self.tensor(solution.u, solution.residual)
        if not bool(solution.converged.all()):
            logger.warning(
                "%d of %d cells did not converge in %d iterations.",
                int((~solution.converged).sum()),
                shape[0],
                iterations,
            )
        left = solution.left / self.volume
        return Homogenised(tensor, left, solution.u, solution.iterations, solution.converged)

    def strain(self, u: Tensor) -> Tensor:
        """Return the strains averaged over each voxel (cells, 6, 6, X, Y, Z): unit strain, then component.

        Args:
            u: Fluctuations (cells, 6, 3, X, Y, Z).
        """
        centre = strain_operator(np.full(3, 0.5), self.spacing)  # trilinear: the value there is the average
        return self.operator.project(torch.tensor(centre).to(u), u, self.affine)

    def stress(self, u: Tensor) -> Tensor:
        """Return the stresses averaged over each voxel, laid out like `strain`."""
        strain = self.strain(u)
        out = torch.zeros_like(strain)
        for q, D in enumerate(self.moduli):
            out += self.operator.coefficients[:, q, None, None] * torch.einsum("ij,ckjxyz->ckixyz", D, strain)
        return out

    def gradient(self, u: Tensor) -> Tensor:
        """Return the derivatives of the tensor by the density of each voxel (cells, 6, 6, X, Y, Z).

        The energy is stationary in u, so that only the explicit dependence counts: no second problem is solved.

        Args:
            u: Fluctuations in equilibrium (cells, 6, 3, X, Y, Z).
        """
        energies = self.operator.energies(u, self.affine)  # (cells, Q, 6, 6, X, Y, Z)
        return (self.table[:, :, None, None] * energies).sum(1) / self.volume


def homogenise(
    density: np.ndarray | Tensor, stiffness: np.ndarray | None = None, *, tolerance: float = 1e-4, **options: object
) -> Homogenised:
    """Return the effective stiffness of cells; see `Homogeniser` and `Homogeniser.solve`."""
    return Homogeniser(density, stiffness, **options).solve(tolerance=tolerance)  # type: ignore[arg-type]
