"""Lower bound of the effective stiffness from stresses in equilibrium, on the same elements.

Let u be any fluctuations and r = -(K u + f) their forces out of balance; r.v = a(e, v) for all v, a the energy product
and e the error. The upper bound U(u) is too large by |e|^2. Let the voxels be cut into subdomains with stiffness K_b,
and the forces be distributed, r.v = sum_b f_b.v_b, v_b the values of v at the nodes of subdomain b, so that each part
f_b is in equilibrium by itself. Then stresses tau_b = D B w_b with K_b w_b = f_b exist, subdomain by subdomain;
D (E + B u) + tau is in equilibrium as a whole, that is, its nodal forces vanish, and the complementary energy gives

    U(u) - sum_b f_b.K_b^+ f_b  <=  C  <=  U(u),

as quadratic forms of the macroscopic strain. (In short: r.e = sum_b f_b.e_b <= (sum_b f_b.K_b^+ f_b)^1/2 |e|.) Voids
carry no load and need no special treatment; both sides bound the stiffness of the elements, not of the continuum.

At nodes of several subdomains, forces are distributed by stiffness, f_b = W_b r. The parts are in equilibrium
if r has no resultant on the rigid motions Z_b of the subdomains, that is, if r is orthogonal to the coarse space of
W_b Z_b. One Galerkin correction in this space ensures it, and lowers U as well. This is the balancing step of the
Neumann-Neumann method, and its theory gives the quality of the bound: a factor C (1 + log m)^2 on |e|^2 for blocks of m
voxels, whatever the contrast between subdomains; the factors found are 1.1 to 2.5. One step of conjugate gradients
compensates for it.

References:
    Mandel (1993), Balancing domain decomposition, doi:10.1002/cnm.1640090307. Prager and Synge (1947), Approximations
    in elasticity based on the concept of function space, doi:10.1090/qam/25902.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from micro.threads import single
from micro.voxel.bounds.coarse_problem import CoarseProblem
from micro.voxel.bounds.subdomains import Subdomains, stencil_rows, stencil_table
from micro.voxel.solver.homogeniser import NEGLIGIBLE, Homogeniser

#: Numbers of the subdomains' matrices stored together; on a CPU few, so that memory is reused.
ROOM = {"cpu": 1 << 19, "cuda": 1 << 28}
#: Largest factor by which distributing a residual over subdomains raises its energy; the factors found are 1.1 to 2.5.
DISTRIBUTING = 10.0


@dataclass(frozen=True)
class Bounds:
    """Two-sided bounds of the effective stiffness, in the sense of quadratic forms.

    Attributes:
        lower: Lower bounds (cells, 6, 6); zero where the coarse problem could not be solved.
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
        tensor as a quadratic form. Strains that the upper bound resists by less than `NEGLIGIBLE` of the stiffest are
        ignored.
        """
        middle, half = (self.upper + self.lower) / 2, (self.upper - self.lower) / 2
        values, vectors = torch.linalg.eigh(middle)
        scale = values.clamp(min=NEGLIGIBLE * values[:, -1:]).clamp(min=torch.finfo(values.dtype).tiny).rsqrt()
        scaled = vectors * scale[:, None]
        return torch.linalg.eigvalsh(scaled.mT @ half @ scaled).amax(1)


def cholesky_factors(subdomains: Subdomains, patterns: Tensor, inside: Tensor, keep: Tensor, table: Tensor) -> Tensor:
    """Return Cholesky factors (p, 3 k, 3 k) of subdomains, their rigid motions fixed; nan where rounding prevents it.

    Args:
        subdomains: All subdomains.
        patterns: Coefficients of the voxels of the subdomains to factor (p, Q, m^3).
        inside: Which local nodes are theirs (p, N), bool.
        keep: The nodes to take (p, k): all of these, and some without solid.
        table: Of the stencils, see `micro.voxel.bounds.subdomains.stencil_table`.
    """
    most, (first, second, number) = keep.shape[1], subdomains.pairs.T
    coefficients = torch.nn.functional.pad(patterns, (0, 1))  # around nodes at the faces of a block there is nothing
    rows = stencil_rows(coefficients, subdomains.around, table).flatten(1, 2)
    slot = torch.full_like(inside, most, dtype=torch.long)
    slot.scatter_(1, keep, torch.arange(most, device=keep.device).expand_as(keep))
    slot = torch.where(inside, slot, most)  # nodes without solid go to a row that is thrown away
    axis = torch.arange(3, device=keep.device)
    row, column = (3 * slot[:, node, None] + axis for node in (first, second))
    place = row[..., :, None] * (3 * most + 3) + column[..., None, :]
    K = patterns.new_zeros(len(patterns), (3 * most + 3) ** 2)
    K.scatter_(1, place.flatten(1), rows[:, 27 * first + number].flatten(1))
    K = K.view(-1, 3 * most + 3, 3 * most + 3)[:, :-3, :-3]
    solid = inside.gather(1, keep)
    scale = K.diagonal(dim1=1, dim2=2).amax(1)
    # springs at the corners of one voxel: the forces are orthogonal to rigid motions, so that the springs carry no load
    voxel = (patterns != 0).any(1).to(torch.uint8).argmax(1)
    corners = torch.nonzero((subdomains.around[None] == voxel[:, None, None]).any(2))[:, 1].view(-1, 8)
    springs = subdomains.modes[corners].flatten(1, 2)  # (p, 24, 6)
    springs = scale[:, None, None] * springs @ springs.mT
    place = (3 * slot.gather(1, corners)[..., None] + axis).flatten(1)
    K[torch.arange(len(K), device=K.device)[:, None, None], place[..., None], place[:, None]] += springs
    K.diagonal(dim1=1, dim2=2).add_(torch.where(solid, 0.0, scale[:, None]).repeat_interleave(3, dim=1))
    L, failed = torch.linalg.cholesky_ex(K)
    if bool((failed > 0).any()):
        L[failed > 0] = torch.nan
    return L


def subdomain_energies(subdomains: Subdomains, basis: Tensor, f: Tensor) -> Tensor:
    """Return f_b.K_b^+ f_b of each subdomain (b, loads, loads).

    Subdomains of the same voxels have one common factor. Nodes without solid are left out: subdomains are taken in the
    order of their size, so that those of a batch have about the same number of nodes.

    Args:
        subdomains: The subdomains.
        basis: Basis matrices (Q, 24, 24).
        f: Forces in equilibrium (b, N, 3, loads).
    """
    loads = f.shape[-1]
    out = f.new_zeros(len(f), loads, loads)
    patterns, which, counts = torch.unique(
        subdomains.coefficients.flatten(1), dim=0, return_inverse=True, return_counts=True
    )
    patterns = patterns.view(-1, *subdomains.coefficients.shape[1:])
    order = torch.argsort(which, stable=True)
    starts = counts.cumsum(0) - counts
    inside = subdomains.weights[order[starts]] > 0  # (p, N)
    size = inside.sum(1)
    by_size = torch.argsort(size, descending=True)
    table = stencil_table(basis)
    room, low = ROOM["cpu" if f.device.type == "cpu" else "cuda"], 0
    while low < len(patterns):
        most = int(size[by_size[low]])
        part = by_size[low : low + max(1, room // (3 * most) ** 2)]
        low += len(part)
        keep = torch.argsort(~inside[part], dim=1, stable=True)[:, :most]  # solid nodes first
        L = cholesky_factors(subdomains, patterns[part], inside[part], keep, table)
        alone = counts[part] == 1
        if bool(alone.any()):
            b = order[starts[part[alone]]]
            y = torch.linalg.solve_triangular(L[alone], f[b[:, None], keep[alone]].flatten(1, 2), upper=False)
            out[b] = y.mT @ y
        for p in torch.nonzero(~alone).flatten().tolist():  # all subdomains with this pattern at once
            b = order[starts[part[p]] : starts[part[p]] + counts[part[p]]]
            F = f[b][:, keep[p]].flatten(1, 2).permute(1, 0, 2)
            y = torch.linalg.solve_triangular(L[p], F.flatten(1), upper=False).view(F.shape).permute(1, 0, 2)
            out[b] = y.mT @ y
    return out


def cost_of_rest(gap: Tensor, rest: Tensor) -> Tensor:
    """Return what must be added to the gap because the coarse problem was not solved exactly (cells, 6, 6).

    With its exact solution the fluctuations would differ by v, |v|^2 = `rest`, and the forces by those of K v. So the
    gap would be at most (gap^1/2 + (`DISTRIBUTING` rest)^1/2)^2 + rest for each strain, which is at most
    (1 + t) gap + (1 + 1 / t) `DISTRIBUTING` rest + rest for any t > 0.

    Args:
        gap: Without it (cells, 6, 6).
        rest: Energies of v for the six unit strains (cells, 6).
    """
    # |sum x_k v_k|^2 <= (sum |x_k| |v_k|)^2 <= sum |v_k| sum x_k^2 |v_k|
    norms = rest.clamp(min=0).sqrt()
    whole = torch.diag_embed(norms * norms.sum(1, keepdim=True))
    least, most = (matrix.diagonal(dim1=1, dim2=2).sum(1) for matrix in (DISTRIBUTING * whole, gap))
    t = (least / most.clamp(min=torch.finfo(gap.dtype).tiny)).sqrt().clamp(min=1e-12, max=1.0)[:, None, None]
    return t * gap + (DISTRIBUTING * (1 + 1 / t) + 1) * whole


def bounds(cell: Homogeniser, u: Tensor, residual: Tensor | None = None, *, size: int = 4) -> Bounds:
    """Return two-sided bounds of the effective stiffness of the elements, from any fluctuations.

    Args:
        cell: The cells.
        u: Fluctuations (cells, 6, 3, X, Y, Z), the better the closer the bounds.
        residual: Their forces out of balance, if known.
        size: About the number of voxels per side of a block.
    """
    with torch.no_grad(), single():  # subdomains are too small for BLAS threads: two are eight times slower
        u = u.to(cell.load)
        r = cell.residual(u) if residual is None else residual
        if not bool((cell.voigt != 0).any()):
            return Bounds(cell.voigt, cell.voigt, u)
        coarse = CoarseProblem(cell, size)
        u, r, rest, balanced = coarse.correct(u, r)
        upper = cell.tensor(u, r)
        energies = subdomain_energies(coarse.subdomains, cell.operator.basis, coarse.subdomains.restrict(r))
        gap = torch.zeros_like(upper).index_add_(0, coarse.subdomains.cell, energies) / cell.volume
        gap = gap + cost_of_rest(gap, rest / cell.volume)
        # where no forces in equilibrium, or no energies, were found: the bound that is always valid
        known = (balanced & gap.isfinite().all((1, 2)))[:, None, None]
        return Bounds(torch.where(known, upper - gap, 0.0), upper, u)
