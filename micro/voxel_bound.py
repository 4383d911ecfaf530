"""Lower bound of the effective stiffness from stresses in equilibrium, on the same elements.

Let u be any fluctuations and r = -(K u + f) their forces out of balance; r.v = a(e, v) for all v, a the energy product
and e the error. The upper bound U(u) is too large by |e|^2. Let the voxels be cut into bodies with stiffness K_b, and
the forces be shared, r.v = sum_b f_b.v_b, v_b the values of v at the nodes of the body, so that each share f_b is in
equilibrium by itself. Then stresses tau_b = D B w_b with K_b w_b = f_b exist, body by body; D (E + B u) + tau is
in equilibrium as a whole, that is, its nodal forces vanish, and the complementary energy gives

    U(u) - sum_b f_b.K_b^+ f_b  <=  C  <=  U(u),

as quadratic forms of the macroscopic strain. (In short: r.e = sum_b f_b.e_b <= (sum_b f_b.K_b^+ f_b)^1/2 |e|.) Voids
carry nothing, so they need no care; both sides bound the stiffness of the elements, not of the continuum.

Forces are shared by stiffness, f_b = W_b r, at nodes that bodies have in common. The shares are in equilibrium if r has
no resultant on the bodies' rigid motions Z_b, that is, r is orthogonal to the space of W_b Z_b: one Galerkin
correction in this small space, which lowers U as well, sees to it. This is the balancing step of the
Neumann-Neumann method, and its theory says what the bound costs: a factor C (1 + log m)^2 on |e|^2 for blocks of m
voxels, whatever the contrast between bodies; we find 1.1 to 2.5. A step of conjugate gradients buys it back.

References:
    Mandel (1993), Balancing domain decomposition, doi:10.1002/cnm.1640090307. Prager and Synge (1947), Approximations
    in elasticity based on the concept of function space, doi:10.1090/qam/25902.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from micro.homogeniser import NEGLIGIBLE, Homogeniser
from micro.voxel_bodies import Bodies, make_bodies
from micro.voxel_element import NODES

#: Resultants on the bodies that may be left, relative to the forces; steps without a gain that end the iteration.
BALANCED = 1e-7
STALL = 30
#: Voxels assembled at a time.
SOME = 1 << 14
#: Numbers of the bodies' matrices kept at a time.
ROOM = {"cpu": 1 << 24, "cuda": 1 << 28}


@dataclass(frozen=True)
class Bounds:
    """Two-sided bounds of the effective stiffness, in the sense of quadratic forms.

    Attributes:
        lower: Lower bounds (cells, 6, 6); zero where the forces could not be balanced.
        upper: Upper bounds (cells, 6, 6).
        displacement: The fluctuations of the upper bounds, improved (cells, 6, 3, X, Y, Z).
    """

    lower: Tensor
    upper: Tensor
    displacement: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Half the width of each cell's bounds, relative to their middle (cells,).

        The largest over all macroscopic strains, of what the middle resists: middle times (1 +- accuracy) encloses the
        tensor as a quadratic form. Strains that the upper bound resists by less than `NEGLIGIBLE` of the stiffest do
        not count.
        """
        middle, half = (self.upper + self.lower) / 2, (self.upper - self.lower) / 2
        values, vectors = torch.linalg.eigh(middle)
        scale = values.clamp(min=NEGLIGIBLE * values[:, -1:]).clamp(min=torch.finfo(values.dtype).tiny).rsqrt()
        scaled = vectors * scale[:, None]
        return torch.linalg.eigvalsh(scaled.mT @ half @ scaled).amax(1)


class Balance:
    """The small problem of rigid bodies: makes the forces on every body balance.

    Args:
        cell: The cells.
        size: About the voxels a side of a block.
    """

    def __init__(self, cell: Homogeniser, size: int) -> None:
        self.cell = cell
        self.bodies = make_bodies(cell.operator, cell.spacing, size)
        self.rows = self._assemble()
        self.matrix: Tensor | None = None
        if cell.load.device.type != "cpu":  # SciPy is several times faster than PyTorch on a CPU
            entries = self.rows.tocoo()
            index, values = torch.tensor(np.stack([entries.row, entries.col])), torch.tensor(entries.data)
            self.matrix = torch.sparse_coo_tensor(index, values, entries.shape).to(cell.load.device)
        entries = self.rows.tocoo()
        own = entries.row // 6 == entries.col // 6
        diagonal = np.zeros((len(self.bodies), 6, 6))
        diagonal[entries.row[own] // 6, entries.row[own] % 6, entries.col[own] % 6] = entries.data[own]
        self.diagonal = torch.tensor(diagonal, device=cell.load.device)
        values, vectors = torch.linalg.eigh(self.diagonal)
        keep = values > 1e-10 * values[:, -1:].clamp(min=1e-8 * float(values.max()))
        self.inverse = (vectors * torch.where(keep, 1 / torch.where(keep, values, 1.0), 0.0)[:, None]) @ vectors.mT

    def _assemble(self) -> csr_array:
        """Return the stiffness of the rigid motions (6 b, 6 b): the Galerkin product, in sparse matrices."""
        bodies, operator = self.bodies, self.cell.operator
        count, dofs = 6 * len(bodies), 3 * operator.cells * math.prod(operator.shape)
        nodes, weights, modes = (array.cpu().numpy() for array in (bodies.nodes, bodies.weights, bodies.modes))
        values = weights[:, :, None, None] * modes  # (b, N, 3, 6)
        body, node, direction, mode = np.nonzero(values)
        motions = csr_array(
            (values[body, node, direction, mode], (3 * nodes[body, node] + direction, 6 * body + mode)),
            shape=(dofs, count),
        )
        number = np.arange(dofs // 3).reshape(operator.cells, *operator.shape)
        corners = np.stack([np.roll(number, [-i for i in corner], (1, 2, 3)).ravel() for corner in NODES], 1)
        coefficients = operator.coefficients.transpose(0, 1).flatten(1).cpu().numpy()  # (Q, voxels)
        solid, basis = np.flatnonzero(coefficients.any(0)), operator.basis.cpu().numpy()
        forces = csr_array((dofs, count))
        for voxels in np.array_split(solid, max(1, len(solid) // SOME)):
            place = (3 * corners[voxels][:, :, None] + np.arange(3)).reshape(-1, 24)
            entries = np.einsum("qv,qij->vij", coefficients[:, voxels], basis)
            rows, columns = np.repeat(place, 24, axis=1).ravel(), np.tile(place, (1, 24)).ravel()
            forces = forces + csr_array((entries.ravel(), (rows, columns)), shape=(dofs, dofs)) @ motions
        return (motions.T @ forces).tocsr()

    def multiply(self, q: Tensor) -> Tensor:
        """Return the resultants (b, 6, loads) that rigid motions q cause."""
        if self.matrix is not None:
            return torch.sparse.mm(self.matrix, q.flatten(0, 1)).view(q.shape)
        return torch.from_numpy(self.rows @ q.flatten(0, 1).numpy()).view(q.shape)

    def solve(self, g: Tensor, tolerance: float = 1e-5, iterations: int = 1000) -> Tensor:
        """Return rigid motions (b, 6, loads) under resultants g (b, 6, loads), by conjugate gradients.

        The matrix is singular where bodies are loose, or so small that their motions depend on each other; then
        rounding limits what can be reached. The best motions met are returned, and `correct` goes on from these.
        """
        q, r = torch.zeros_like(g), g.clone()
        z = self.inverse @ r
        p, rz = z.clone(), (r * z).sum((0, 1))
        goal = tolerance**2 * rz
        best, least, since = q.clone(), rz.clone(), 0
        for _ in range(iterations):
            if bool((least <= goal).all()) or since > STALL:
                break
            Ap = self.multiply(p)
            pAp = (p * Ap).sum((0, 1))
            alpha = torch.where((pAp > 0) & (rz > goal), rz / pAp, 0.0)
            q = q + alpha * p
            r -= alpha * Ap
            z = self.inverse @ r
            new = (r * z).sum((0, 1))
            p = z + torch.where(rz > 0, new / rz, 0.0) * p
            better = new < least
            since = 0 if bool((better & (least > goal)).any()) else since + 1
            best, least = torch.where(better, q, best), torch.where(better, new, least)
            rz = new
        return best

    def correct(self, u: Tensor, residual: Tensor, passes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
        """Take the resultants on the bodies out of the residual.

        Returns:
            Better fluctuations, their residual, and which cells are balanced (cells,), bool.
        """
        resultants = self.bodies.resultants(residual)
        for _ in range(passes):
            balanced = self._balanced(resultants, residual)
            if bool(balanced.all()):
                break
            u = u + self.bodies.extend(self.solve(resultants), u.shape)
            residual = self.cell.residual(u)
            resultants = self.bodies.resultants(residual)
        return u, residual, self._balanced(resultants, residual)

    def _balanced(self, resultants: Tensor, residual: Tensor) -> Tensor:
        """Return whether the resultants are zero, up to `BALANCED` (cells,), bool."""
        left = torch.zeros(len(residual), dtype=residual.dtype, device=residual.device)
        left.index_add_(0, self.bodies.cell, (resultants**2).sum((1, 2)))
        # of a field at rest nothing but rounding is left, in the forces and in their resultants
        stress = self.cell.voigt.flatten(1).amax(1)
        voxels = residual.shape[3] * residual.shape[4] * residual.shape[5]
        floor = 1e-13 * stress * float(self.cell.spacing.prod() / self.cell.spacing.min()) * voxels**0.5
        return left.sqrt() <= BALANCED * residual.flatten(1).norm(dim=1) + floor


def body_energies(bodies: Bodies, basis: Tensor, f: Tensor) -> Tensor:
    """Return f_b.K_b^+ f_b of each body (b, loads, loads).

    Args:
        bodies: The bodies.
        basis: Basis matrices (Q, 24, 24).
        f: Forces in equilibrium (b, N, 3, loads).
    """
    unknowns, loads = 3 * bodies.nodes.shape[1], f.shape[-1]
    out = f.new_zeros(len(f), loads, loads)
    patterns, which = torch.unique(bodies.coefficients.flatten(1), dim=0, return_inverse=True)
    patterns = patterns.view(-1, *bodies.coefficients.shape[1:])
    order = torch.argsort(which, stable=True)
    counts = torch.bincount(which, minlength=len(patterns))
    starts = counts.cumsum(0) - counts
    inside = (bodies.weights > 0).repeat_interleave(3, dim=1)
    some = max(1, ROOM["cpu" if f.device.type == "cpu" else "cuda"] // unknowns**2)
    for low in range(0, len(patterns), some):
        c = patterns[low : low + some]
        K = f.new_zeros(len(c), unknowns, unknowns)
        for voxel, d in enumerate(bodies.dofs):
            K[:, d[:, None], d] += torch.einsum("bq,qij->bij", c[:, :, voxel], basis)
        scale = K.diagonal(dim1=1, dim2=2).amax(1)
        solid = inside[order[starts[low : low + some]]]
        Z = bodies.modes.flatten(0, 1) * solid[:, :, None]
        K += scale[:, None, None] * (Z @ Z.mT)  # rigid motions, to which f is orthogonal
        K.diagonal(dim1=1, dim2=2).add_(torch.where(solid, 0.0, scale[:, None]))
        factor = torch.linalg.cholesky(K)
        most = int(counts[low : low + some].max())
        for turn in range(most):
            alive = torch.nonzero(counts[low : low + some] > turn).flatten()
            if len(alive) <= most - turn and len(alive) <= 4:
                # few patterns that many bodies have: all their bodies at once
                for pattern in alive.tolist():
                    rest = order[starts[low + pattern] + turn : starts[low + pattern] + counts[low + pattern]]
                    F = f[rest].flatten(1, 2)
                    columns = F.permute(1, 0, 2).flatten(1)
                    X = torch.cholesky_solve(columns, factor[pattern]).view(unknowns, len(rest), loads)
                    out[rest] = F.mT @ X.permute(1, 0, 2)
                break
            rows = order[starts[low + alive] + turn]
            F = f[rows].flatten(1, 2)
            out[rows] = F.mT @ torch.cholesky_solve(F, factor[alive] if len(alive) < len(factor) else factor)
    return out


def bounds(cell: Homogeniser, u: Tensor, residual: Tensor | None = None, *, size: int = 4) -> Bounds:
    """Return two-sided bounds of the effective stiffness of the elements, from any fluctuations.

    Args:
        cell: The cells.
        u: Fluctuations (cells, 6, 3, X, Y, Z), the better the closer the bounds.
        residual: Their forces out of balance, if known.
        size: About the voxels a side of a block.
    """
    with torch.no_grad():
        u = u.to(cell.load)
        r = cell.residual(u) if residual is None else residual
        if not bool((cell.voigt != 0).any()):
            return Bounds(cell.voigt, cell.voigt, u)
        balance = Balance(cell, size)
        u, r, balanced = balance.correct(u, r)
        upper = cell.tensor(u, r)
        energies = body_energies(balance.bodies, cell.operator.basis, balance.bodies.restrict(r))
        gap = torch.zeros_like(upper).index_add_(0, balance.bodies.cell, energies) / cell.volume
        # no shares in equilibrium were found: the bound that always holds
        return Bounds(torch.where(balanced[:, None, None], upper - gap, 0.0), upper, u)
