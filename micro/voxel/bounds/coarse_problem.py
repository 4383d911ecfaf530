"""The coarse problem of rigid motions, whose solution leaves forces in equilibrium on every subdomain.

References:
    Mandel (1993), Balancing domain decomposition, doi:10.1002/cnm.1640090307. Hestenes and Stiefel (1952), Methods of
    conjugate gradients, theorem 6:1 (the energy a step gains), doi:10.6028/jres.049.044.
"""

import math

import numpy as np
import torch
from scipy.sparse import bsr_array, diags_array
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from micro.voxel.bounds.subdomains import NEIGHBOURS, make_subdomains, stencil_rows, stencil_table
from micro.voxel.solver.element import NODES
from micro.voxel.solver.homogeniser import Homogeniser

#: Resultants on the subdomains that may remain, relative to the forces; the bound accounts for their effect.
BALANCED = 1e-5
#: Number of steps without a gain after which the iteration ends.
STALL = 30
#: Last steps of conjugate gradients, whose gains are extrapolated to the energy still to be gained.
DELAY = 4
#: Unknowns up to which a direct solver takes over if conjugate gradients fail, and its stiffness for loose subdomains.
LARGEST, HELD = 8_000, 1e-13
#: Nodes whose rows are made together.
SOME = 1 << 14


class CoarseProblem:
    """The coarse problem of the subdomains' rigid motions: it brings the forces on every subdomain into equilibrium.

    Args:
        cell: The cells.
        size: About the number of voxels per side of a block.
    """

    def __init__(self, cell: Homogeniser, size: int) -> None:
        self.cell = cell
        self.subdomains = make_subdomains(cell.operator, cell.spacing, size)
        self.rows = self._assemble()
        self._factors: SuperLU | None = None
        self.matrix: Tensor | None = None
        entries = self.rows.tocoo()
        if cell.load.device.type != "cpu":  # SciPy is several times faster than PyTorch on a CPU
            index, values = torch.tensor(np.stack([entries.row, entries.col])), torch.tensor(entries.data)
            self.matrix = torch.sparse_coo_tensor(index, values, entries.shape).to(cell.load.device)
        own = entries.row // 6 == entries.col // 6
        diagonal = np.zeros((len(self.subdomains), 6, 6))
        diagonal[entries.row[own] // 6, entries.row[own] % 6, entries.col[own] % 6] = entries.data[own]
        self.diagonal = torch.tensor(diagonal, device=cell.load.device)
        values, vectors = torch.linalg.eigh(self.diagonal)
        keep = values > 1e-10 * values[:, -1:].clamp(min=1e-8 * float(values.max()))
        self.inverse = (vectors * torch.where(keep, 1 / torch.where(keep, values, 1.0), 0.0)[:, None]) @ vectors.mT

    def _assemble(self) -> bsr_array:
        """Return the stiffness of the rigid motions (6 b, 6 b): the Galerkin product, in sparse matrices of blocks."""
        subdomains, operator = self.subdomains, self.cell.operator
        count, shape = 6 * len(subdomains), (operator.cells, *operator.shape)
        places = math.prod(shape)
        index = np.int32 if 27 * places < 1 << 31 else np.int64
        arrays = (subdomains.nodes, subdomains.weights, subdomains.modes)
        nodes, weights, modes = (array.cpu().numpy() for array in arrays)
        owner, local = np.nonzero(weights)
        order = np.argsort(nodes[owner, local], kind="stable")
        owner, local = owner[order].astype(index), local[order]
        start = np.searchsorted(nodes[owner, local], np.arange(places + 1)).astype(index)  # of each node's subdomains
        blocks = weights[owner, local, None, None] * modes[local]  # (entries, 3, 6)
        motions = bsr_array((blocks, owner, start), shape=(3 * places, count))

        used = np.flatnonzero(np.diff(start))
        at = np.stack(np.unravel_index(used, shape))
        flat, table = operator.coefficients.transpose(0, 1).flatten(1).cpu(), stencil_table(operator.basis.cpu())

        def moved(place: np.ndarray, by: tuple[int, int, int]) -> np.ndarray:
            inside = ((place[1:] + np.array(by)[:, None]).T % shape[1:]).T
            return np.ravel_multi_index((place[0], *inside), shape)

        out = bsr_array((count, count), blocksize=(6, 6))
        for low in range(0, len(used), SOME):
            place, mine = at[:, low : low + SOME], used[low : low + SOME]
            around = np.stack([moved(place, (-i, -j, -k)) for i, j, k in NODES], 1)
            stencil = stencil_rows(flat, torch.from_numpy(around), table).flatten(0, 1).numpy()
            there = np.stack([moved(place, by) for by in NEIGHBOURS], 1).ravel().astype(index)
            ends = 27 * np.arange(len(mine) + 1, dtype=index)
            K = bsr_array((stencil, there, ends), shape=(3 * len(mine), 3 * places))
            first, last = start[mine[0]], start[mine[-1] + 1]  # nodes between have no subdomain
            ends = np.append(start[mine], last) - first
            part = bsr_array((blocks[first:last], owner[first:last], ends), shape=(3 * len(mine), count))
            out = out + part.T @ (K @ motions)
        return out

    def multiply(self, q: Tensor) -> Tensor:
        """Return the resultants (b, 6, loads) that rigid motions q cause."""
        if self.matrix is not None:
            return torch.sparse.mm(self.matrix, q.flatten(0, 1)).view(q.shape)
        return torch.from_numpy(self.rows @ q.flatten(0, 1).numpy()).view(q.shape)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the products of (b, 6, loads) with each other, cell by cell (cells, loads)."""
        out = a.new_zeros(self.cell.operator.cells, a.shape[-1])
        return out.index_add_(0, self.subdomains.cell, (a * b).sum(1))

    def solve(self, g: Tensor, tolerance: float = 3e-6, iterations: int = 1000) -> tuple[Tensor, Tensor]:
        """Solve for the rigid motions under resultants g (b, 6, loads), by conjugate gradients.

        The matrix is singular where subdomains are loose, or so small that their motions depend on each other; rounding
        then limits the accuracy. The best motions found are returned, and `correct` continues from these.

        Returns:
            Motions (b, 6, loads), and an estimate of the energy of their error (cells, loads).
        """
        cell, q, r = self.subdomains.cell, torch.zeros_like(g), g.clone()
        z = self.inverse @ r
        p, rz = z.clone(), self.dot(r, z)
        recent = torch.full((DELAY, *rz.shape), torch.inf, dtype=rz.dtype, device=rz.device)
        gained, best, least, since = torch.zeros_like(rz), q.clone(), rz.clone(), 0
        for _ in range(iterations):
            going = recent.sum(0) > tolerance**2 * gained
            if not bool(going.any()) or since > STALL:
                break
            Ap = self.multiply(p)
            pAp = self.dot(p, Ap)
            alpha = torch.where(going & (pAp > 0), rz / pAp, 0.0)
            recent = torch.where(going, torch.cat([recent[1:], (alpha * rz)[None]]), recent)
            gained += alpha * rz
            q = q + alpha[cell][:, None] * p
            r -= alpha[cell][:, None] * Ap
            z = self.inverse @ r
            new = self.dot(r, z)
            p = z + torch.where(rz > 0, new / rz, 0.0)[cell][:, None] * p
            better = new < least
            since = 0 if bool((better & going).any()) else since + 1
            best, least = torch.where(better[cell][:, None], q, best), torch.where(better, new, least)
            rz = new
        return best, recent.sum(0)

    def solve_directly(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Solve as `solve` does, but by sparse factors, for subdomains that are barely connected.

        Motions that no other subdomain resists are fixed by a negligible stiffness; their resultants are zero.
        """
        if self._factors is None:
            rows = self.rows.tocsc()
            held = diags_array(HELD * np.maximum(rows.diagonal(), HELD * rows.diagonal().max()))
            self._factors = splu(rows + held.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        q = torch.from_numpy(self._factors.solve(g.flatten(0, 1).cpu().numpy())).to(g).view(g.shape)
        return q, self.dot(g, q)

    def correct(self, u: Tensor, residual: Tensor, passes: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Remove the resultants on the subdomains from the residual.

        Returns:
            Better fluctuations, their residual, an estimate of the energy still to be gained (cells, loads), and which
            cells are in equilibrium (cells,), bool.
        """
        rest = residual.new_zeros(residual.shape[:2])
        resultants = self.subdomains.resultants(residual)
        solvers = [self.solve] * passes + [self.solve_directly] * (3 if self.rows.shape[0] <= LARGEST else 0)
        for turn, solve in enumerate(solvers):
            if bool(self._balanced(resultants, residual).all()):
                break
            q, rest = solve(resultants)
            u = u + self.subdomains.extend(q, u.shape)
            residual = self.cell.residual(u)
            resultants = self.subdomains.resultants(residual)
            if turn >= passes:
                rest = solve(resultants)[1].clamp(min=0)
        return u, residual, rest, self._balanced(resultants, residual)

    def _balanced(self, resultants: Tensor, residual: Tensor) -> Tensor:
        """Return whether the resultants are zero, up to `BALANCED` (cells,), bool."""
        left = torch.zeros(len(residual), dtype=residual.dtype, device=residual.device)
        left.index_add_(0, self.subdomains.cell, (resultants**2).sum((1, 2)))
        # in equilibrium only rounding remains, in the forces and in their resultants
        stress = self.cell.voigt.flatten(1).amax(1)
        voxels = residual.shape[3] * residual.shape[4] * residual.shape[5]
        floor = 1e-13 * stress * float(self.cell.spacing.prod() / self.cell.spacing.min()) * voxels**0.5
        return left.sqrt() <= BALANCED * residual.flatten(1).norm(dim=1) + floor
