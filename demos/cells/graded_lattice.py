# %% [markdown]
# # A graded part: cells that vary in space, their stiffness from a network at every quadrature point
#
# **Why.** A part printed as a lattice may be dense where it is stressed and light elsewhere. To design it one needs the
# stiffness of every cell, and how it changes with the cell, many times over: the use that a network of cells is for.
#
# **The part.** A thick cantilever of a x b x c cells of edge 1, fixed at the bottom (z = 0), a shear force of 1 spread
# over its top. A cell is a frame or a minimal surface, solid where its distance function d(x) is below a parameter t
# (radius or level), with a ramp of two voxels from void to solid, so that the stiffness is a smooth function of t
# (`micro.voxel.cells.graded`); the solid has E = 1, nu = 0.3.
#
# Every cell of the part has a t of its own; what is designed is its share of solid phi(t), the mean of rho.
#
# **Equations.** int E(u) : C(t) : E(v) dx = f(v), compliance J = f(u). The effective stiffness C(t) is constant in each
# cell of the part and comes from the network (upper bound of the cell's energy, Eq. (25) of the reference) or from the
# homogeniser (exact two-scale). Cells are shared among the ranks, each distinct one evaluated once, in batches; there
# is no table, and nothing is interpolated. The derivative needs no second solve:
#
#     dJ/dt = - int E(u) : dC/dt : E(u) dx,
#
# by autograd through the network and its energy, or through the homogeniser, whose energy is stationary.
#
# **Checks**, each against a number from outside:
#
# 1. J = f(u) is twice the stored energy (Clapeyron, 1e-8);
# 2. no compliance of the network is above the homogeniser's: its stiffness is an upper bound, and so the part's is;
# 3. dJ/dt along a random direction against central differences (1e-4);
# 4. the same part, voxel by voxel: its end is turned aside rigidly, and force and line of deflection are compared with
#    the homogenised part's (20 %: two cells are few for a theory of infinitely many);
# 5. optimisation keeps the volume (1e-9) and lowers J at every step.
#
# Reference: Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional
# neural network, doi:10.1007/s00371-024-03411-5.

# %%
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dolfinx
import dolfinx.fem
import dolfinx.mesh
import matplotlib
import numpy as np
import torch
import ufl
from dolfinx.io import XDMFFile
from mpi4py import MPI
from scipy import ndimage
from torch.autograd import forward_ad

from fem.command import Parser, Stop, finish, remove, together, write_text
from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.anisotropic import PointStiffness, strain
from fem.mesh import domain_from_mesh, read_mesh
from fem.parallel import abort_when_uncaught, plan_threads
from meshes.box import box
from meshes.session import session
from micro.voxel.cells.frames import FRAMES
from micro.voxel.cells.graded import GradedCells
from micro.voxel.cells.tpms import SURFACES
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import Homogeniser
from surrogates.cells.gradient import differentiable_tensor
from surrogates.cells.network import PRETRAINED, load_network
from surrogates.cells.networks.paper import TensorNetwork

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SHARES = (0.2, 0.7)  # of solid, least and most; all surfaces hang together between them
DROPPED = 1e-3  # density below which a voxel of the resolved part is left out
BATCH = 4  # cells
TOLERANCE = 1e-10  # of the homogeniser
RAMPS = "multigrid"  # eight steps where ramps end in next to nothing; Fourier needs hundreds to this tolerance
MOVE = 0.08  # most that a share of solid changes in a step

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="A graded lattice part.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--family", choices=FRAMES + SURFACES, default="gyroid", help="of the cells")
    p.add_argument("--cells", type=int, nargs=3, default=[2, 2, 6], help="of the part, along x y z")
    p.add_argument("--resolution", type=int, default=16, help="voxels along the edge of a cell")
    p.add_argument("--network", default="auto", help='network FILE; "none": the homogeniser; "auto": the one shipped')
    p.add_argument("--elements", type=int, default=2, help="finite elements (hexahedra, degree 2) along a cell's edge")
    p.add_argument("--resolved", type=int, default=10, help="voxels a cell of the part made of voxels; 0: without it")
    p.add_argument("--steps", type=int, default=5, help="of optimisation")
    p.add_argument("--threads", type=int, help="threads a rank; none: the cores it owns")
    p.add_argument("--output", default="results/graded_lattice", help="folder for the results")
    o = p.parse_args(arguments)
    for name, low in (("resolution", 6), ("elements", 1), ("steps", 0)):
        if getattr(o, name) < low:
            raise ValueError(f"--{name} must be at least {low}, got {getattr(o, name)}.")
    if min(o.cells) < 1:
        raise ValueError(f"--cells must be positive, got {o.cells}.")
    if o.resolved != 0 and o.resolved < 6:
        raise ValueError(f"--resolved must be 0 or at least 6, got {o.resolved}.")
    if o.threads is not None and o.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {o.threads}.")
    if Path(o.output).exists() and not Path(o.output).is_dir():
        raise ValueError(f"--output must name a folder, but {o.output!r} is a file.")
    if o.network == "auto":
        o.network = str(PRETRAINED) if PRETRAINED.is_file() else "none"
    return o


# %% [markdown]
# ## Stiffness
# Of the network (`surrogates.cells.gradient`, whose derivative is complete) or of the homogeniser.


# %%
class Stiffness:
    """Effective stiffness of the cells of a part, shared among the ranks; calls are collective.

    Args:
        comm: Communicator.
        family: The cells.
        module: Network in double precision; None for the homogeniser.

    Attributes:
        evaluated: Cells evaluated on all ranks. seconds: Of this rank.
    """

    def __init__(self, comm: MPI.Comm, family: GradedCells, module: torch.nn.Module | None) -> None:
        self.comm, self.family, self.module = comm, family, module
        self.evaluated, self.seconds = 0, 0.0

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """C (cells, 6, 6) of parameters (cells,); cells alike to nine digits are evaluated once."""
        return self._share(t, self._tensor)

    def slope(self, t: np.ndarray) -> np.ndarray:
        """dC/dt (cells, 6, 6), by forward autograd: one parameter a cell, 36 numbers out."""
        return self._share(t, self._slope)

    def _share(self, t: np.ndarray, work: Any) -> np.ndarray:
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


# %% [markdown]
# ## The part
# The mesh comes from gmsh; its hexahedra lie within the cells of the lattice. For each cell the sum of
# E(u) x E(u) over its quadrature points is all that the derivative wants.


# %%
class Part:
    """The cantilever and its lattice; the constructor and all methods are collective.

    Attributes:
        where: Cell of the lattice of each finite element that this rank owns (elements,).
        solver: The last solver.
    """

    def __init__(self, comm: MPI.Comm, cells: Sequence[int], elements: int) -> None:
        self.comm, self.counts = comm, np.array(cells)
        if comm.rank:
            self.domain = read_mesh(None, comm)
        else:
            with session():
                model = box([float(m) for m in cells], 1.0 / elements, kind="hexahedra")
                self.domain = read_mesh(model, comm)
        self.where = cell_of(middles(self.domain.mesh), self.counts)
        self.solver: ImplicitSolver | None = None

    @property
    def number(self) -> int:
        """Cells of the lattice."""
        return int(np.prod(self.counts))

    def solve(self, C: np.ndarray, moved: bool = False) -> float:
        """Solve for stiffness C (cells, 6, 6) and return J; `moved` turns the end aside rigidly by 1 instead."""
        per_cell = 27  # quadrature points of a hexahedron of degree 2
        law = PointStiffness(np.repeat(C[self.where], per_cell, axis=0), density=1.0)  # statics: no inertia
        clamp = [Dirichlet("bottom", i) for i in range(3)]
        if moved:
            clamp += [Dirichlet("top", i, float(i == 0)) for i in range(3)]
        pull = ufl.as_vector([1.0 / float(self.counts[0] * self.counts[1]), 0.0, 0.0])
        ds = ufl.Measure("ds", domain=self.domain.mesh, subdomain_data=self.domain.facet_tags)
        ds = ds(self.domain.tag("top"))
        self.solver = solver = ImplicitSolver(self.domain, law, prescribed=clamp, degree=2, linear="direct")
        if not moved:
            solver.external += solver.time_constant * ufl.inner(pull, solver.test_function) * ds
        solver.run(1.0, step=1.0).finish()
        if moved:
            return 1.0 / float(self.solver.reaction("top")[0])
        local = dolfinx.fem.assemble_scalar(dolfinx.fem.form(ufl.inner(pull, self.solver.u) * ds))
        return float(self.comm.allreduce(local))

    def work(self) -> np.ndarray:
        """Integral of E x E over each cell of the lattice (cells, 6, 6), of the last solution."""
        assert self.solver is not None
        points = self.solver.points
        E = strain(points.gather(self.solver.u))
        cell = np.repeat(self.where, points.per_cell)
        out = np.zeros((self.number, 6, 6))
        np.add.at(out, cell, np.einsum("n,na,nb->nab", points.volume, E, E))
        self.comm.Allreduce(MPI.IN_PLACE, out)
        return out

    def displacement(self) -> np.ndarray:
        """A copy of the displacement of this rank's nodes (n, 3), of the last solution."""
        assert self.solver is not None
        V = self.solver.points.V
        return self.solver.u.x.array.reshape(-1, 3)[: V.dofmap.index_map.size_local].copy()


def middles(mesh: Any) -> np.ndarray:
    """Middles (n, 3) of the finite elements that this rank knows, ghosts last."""
    index_map = mesh.topology.index_map(3)
    every = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    return dolfinx.mesh.compute_midpoints(mesh, 3, every)


def cell_of(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Number of the cell, z fastest, of places (n, 3)."""
    index = np.clip(np.floor(x).astype(int), 0, counts - 1)
    return np.ravel_multi_index(tuple(index.T), tuple(counts))


# %% [markdown]
# ## The part in voxels
# Voxels of density below 1e-3 are left out, and so is what does not hang on the clamped face by faces of voxels.


# %%
def tiled(rho: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Densities of the part (X, Y, Z) from those of its cells (cells, n, n, n)."""
    a, b, c = counts
    n = rho.shape[1]
    return rho.reshape(a, b, c, n, n, n).transpose(0, 3, 1, 4, 2, 5).reshape(a * n, b * n, c * n)


def resolved(comm: MPI.Comm, rho: np.ndarray, counts: np.ndarray) -> tuple[ImplicitSolver, int]:
    """Solve the part voxel by voxel, its end turned aside by 1 (collective); returns the solver and its voxels."""
    n = rho.shape[1]
    whole = tiled(rho, counts)
    label, _ = ndimage.label(whole > DROPPED)
    kept = np.isin(label, np.setdiff1d(np.unique(label[:, :, 0]), [0]))
    grid = dolfinx.mesh.create_box(
        comm, [np.zeros(3), counts.astype(float)], (counts * n).tolist(), dolfinx.mesh.CellType.hexahedron
    )
    solid = kept[tuple(np.floor(middles(grid) * n).astype(int).T)]
    mesh = dolfinx.mesh.create_submesh(grid, 3, np.flatnonzero(solid).astype(np.int32))[0]
    owned = mesh.topology.index_map(3).size_local
    voxel = np.floor(middles(mesh)[:owned] * n).astype(int)
    factor = np.repeat(whole[tuple(voxel.T)], 8)  # Gauss points of a hexahedron of degree 1
    height = float(counts[2])
    domain = domain_from_mesh(mesh)
    supports = [Dirichlet(lambda x: np.isclose(x[2], 0.0), i) for i in range(3)]
    supports += [Dirichlet(lambda x: np.isclose(x[2], height), i, float(i == 0)) for i in range(3)]
    law = PointStiffness(factor[:, None, None] * isotropic(), density=1.0)
    solver = ImplicitSolver(domain, law, prescribed=supports, linear="iterative", symmetric=True, rtol=1e-6)
    solver.run(1.0, step=1.0).finish()
    return solver, int(kept.sum())


def line(solver: ImplicitSolver, counts: np.ndarray) -> np.ndarray:
    """Mean of u_x over the nodes of the cross-sections between the cells (c - 1,) (collective)."""
    V = solver.points.V
    owned = V.dofmap.index_map.size_local
    x, u = V.tabulate_dof_coordinates()[:owned], solver.u.x.array.reshape(-1, 3)[:owned, 0]
    sums = np.array([[u[on].sum(), on.sum()] for on in (np.isclose(x[:, 2], k) for k in range(1, counts[2]))])
    solver.domain.comm.Allreduce(MPI.IN_PLACE, sums)
    return sums[:, 0] / sums[:, 1]


# %% [markdown]
# ## Optimisation
# Optimality criteria in the shares of solid: phi <- phi sqrt(-dJ/dphi / lambda), at most 0.08 a step, with lambda from
# the volume by bisection. A step that does not lower J is tried again with half the move.


# %%
def next_shares(share: np.ndarray, gain: np.ndarray, move: float) -> np.ndarray:
    """Shares of solid (cells,) of the same mean, more where the gain -dJ/dphi (cells,) is large."""
    wanted = share.mean()
    low, high = np.maximum(SHARES[0], share - move), np.minimum(SHARES[1], share + move)
    gain = np.maximum(gain, 1e-12 * gain.max()) / gain.mean()

    def tried(log: float) -> np.ndarray:
        return np.clip(share * np.sqrt(gain * np.exp(log)), low, high)

    least, most = -30.0, 30.0
    for _ in range(100):
        log = 0.5 * (least + most)
        least, most = (log, most) if tried(log).mean() < wanted else (least, log)
    return tried(0.5 * (least + most))


def gains(part: Part, stiffness: Stiffness, t: np.ndarray) -> np.ndarray:
    """-dJ/dt (cells,) at parameters t, those of the last solution."""
    return np.einsum("cij,cij->c", part.work(), stiffness.slope(t))


def optimise(part: Part, stiffness: Stiffness, share: np.ndarray, steps: int) -> tuple[np.ndarray, list[float]]:
    """Some steps from shares of solid (cells,); returns the shares and J at the start and after every step."""
    family = stiffness.family
    t = family.parameter(share)
    history, move = [part.solve(stiffness(t))], MOVE
    for _ in range(steps):
        gain = gains(part, stiffness, t) / family.slope(t)  # -dJ/dphi
        for _ in range(4):
            new = next_shares(share, gain, move)
            trial = family.parameter(new)
            J = part.solve(stiffness(trial))
            if J < history[-1]:
                break
            move *= 0.5
        else:
            part.solve(stiffness(t))
            break
        share, t = new, trial
        history.append(J)
    return share, history


# %% [markdown]
# ## Derivative
# Against central differences along one direction that moves all cells at random.


# %%
def check_slope(part: Part, stiffness: Stiffness, t: np.ndarray) -> dict[str, float]:
    """The derivative of J along a direction, by autograd and by differences; the last solution is at t."""
    direction = np.random.default_rng(1).choice([-1.0, 1.0], len(t)) * np.random.default_rng(2).uniform(0.5, 1, len(t))
    found = -float(gains(part, stiffness, t) @ direction)
    step = 1e-3 / stiffness.family.n  # of a voxel
    ends = [part.solve(stiffness(t + s * step * direction)) for s in (1.0, -1.0)]
    wanted = (ends[0] - ends[1]) / (2.0 * step)
    return {"autograd": found, "differences": wanted, "error": abs(found / wanted - 1.0)}


# %% [markdown]
# ## Figure
# Above, the middle of a cell cut lengthwise, at the start and at the end; below, shares of solid and J.


# %%
def draw(
    family: GradedCells, counts: np.ndarray, shares: Sequence[np.ndarray], history: Sequence[float], path: Path
) -> None:
    """Densities of the part at the start and at the end, shares of solid, compliance by step."""
    figure, axes = plt.subplots(3, 2, figsize=(10, 7), layout="constrained")
    for column, (share, name) in enumerate(zip(shares, ("start", "end"), strict=True)):
        whole = tiled(family.density(torch.from_numpy(family.parameter(share))).numpy(), counts)
        y = family.n // 2
        extent = (0.0, counts[2], 0.0, counts[0])
        axes[0, column].imshow(whole[:, y], cmap="Greys", origin="lower", extent=extent, vmin=0, vmax=1)
        axes[0, column].set(title=name, ylabel="x")
        picture = axes[1, column].imshow(
            share.reshape(counts).mean(1), cmap="viridis", origin="lower", extent=extent, vmin=SHARES[0], vmax=SHARES[1]
        )
        axes[1, column].set(xlabel="z, clamped at 0", ylabel="x")
    figure.colorbar(picture, ax=axes[1, 1], label="share of solid")
    axes[2, 0].plot(history, "o-", color="#023047")
    axes[2, 0].set(xlabel="step", ylabel="compliance")
    gap = axes[2, 1]
    for share, name, colour in zip(shares, ("start", "end"), ("#8ecae6", "#fb8500"), strict=True):
        gap.plot(np.arange(counts[2]) + 0.5, share.reshape(counts).mean((0, 1)), "o-", color=colour, label=name)
    gap.set(xlabel="z", ylabel="share of solid, mean")
    gap.legend(frameon=False)
    hidden = path.with_name(f".{path.name}.part.png")
    figure.savefig(hidden, dpi=130)
    plt.close(figure)
    hidden.replace(path)


def write_fields(part: Part, shares: Sequence[np.ndarray], path: Path) -> None:
    """Displacement and shares of solid for ParaView (collective)."""
    assert part.solver is not None
    mesh = part.domain.mesh
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,))), name="displacement")
    u.interpolate(part.solver.u)
    with XDMFFile(mesh.comm, path, "w") as file:
        file.write_mesh(mesh)
        file.write_function(u)
        for share, name in zip(shares, ("share_start", "share_end"), strict=True):
            field = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)), name=name)
            field.x.array[:] = share[part.where]
            file.write_function(field)


# %% [markdown]
# ## Main


# %%
def start(counts: np.ndarray) -> np.ndarray:
    """Shares of solid (cells,): from dense at the clamp to light at the end, and denser outside in x."""
    a, _, c = counts
    x, _, z = np.meshgrid(*((np.arange(m) + 0.5) / m for m in counts), indexing="ij")
    along = 0.6 - 0.25 * z if c > 1 else 0.0 * z + 0.5
    return (along + (0.1 * abs(2 * x - 1) if a > 2 else 0.0)).ravel()


def compare(part: Part, learned: Stiffness, exact: Stiffness, t: np.ndarray) -> dict[str, float]:
    """The network against the homogeniser, on the part of parameters t; ends with the network's solution."""
    C = exact(t)
    J = part.solve(C)
    u = part.displacement()
    C_learned = learned(t)
    J_learned = part.solve(C_learned)
    sums = part.comm.allreduce(np.array([((part.displacement() - u) ** 2).sum(), (u**2).sum()]))
    size = np.linalg.norm(C, axis=(1, 2))
    excess = np.linalg.eigvalsh(C_learned - C)[:, 0] / size
    return {
        "compliance_exact": J, "compliance_learned": J_learned, "compliance_error": J_learned / J - 1.0,
        "displacement_error": float(np.sqrt(sums[0] / sums[1])),
        "tensor_error_worst": float((np.linalg.norm(C_learned - C, axis=(1, 2)) / size).max()),
        "energy_least": float(excess.min()),
    }  # fmt: skip


def with_voxels(part: Part, o: argparse.Namespace, share: np.ndarray) -> dict[str, Any]:
    """The homogenised part against the same made of voxels, its end turned aside (collective)."""
    family = GradedCells(o.family, o.resolved)
    t = family.parameter(share)
    J = part.solve(Stiffness(part.comm, family, None)(t), moved=True)
    assert part.solver is not None
    ours = line(part.solver, part.counts)
    began = time.perf_counter()
    rho = family.density(torch.from_numpy(t)).numpy()
    solver, voxels = resolved(part.comm, rho, part.counts)
    force = np.array([solver.reaction(lambda x: np.isclose(x[2], float(part.counts[2])))[0]])
    theirs = line(solver, part.counts)
    return {
        "voxels": voxels, "unknowns": int(solver.u.function_space.dofmap.index_map.size_global * 3),
        "seconds": time.perf_counter() - began,
        "compliance_homogenised": J, "compliance_voxels": 1.0 / float(force[0]), "compliance_error": J * force[0] - 1.0,
        "line_homogenised": ours.tolist(), "line_voxels": theirs.tolist(),
        "displacement_error": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)) if len(ours) else 0.0,
    }  # fmt: skip


def checks(s: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hold a summary to independent numbers; every entry says what was found, what was asked and whether it held."""
    out: dict[str, dict[str, Any]] = {}

    def hold(name: str, found: float, high: float) -> None:
        out[name] = {"found": found, "high": high, "holds": bool(found <= high)}

    hold("clapeyron", s["clapeyron"], 1e-8)
    hold("derivative", s["derivative"]["error"], 1e-4)
    if s["network_against_homogeniser"] is not None:
        hold("upper_bound_of_the_part", s["network_against_homogeniser"]["compliance_error"], 1e-8)
        hold("upper_bound_of_the_cells", -s["network_against_homogeniser"]["energy_least"], 1e-6)
    if s["against_voxels"] is not None:
        hold("voxels", abs(s["against_voxels"]["compliance_error"]), 0.2)
        hold("line", s["against_voxels"]["displacement_error"], 0.2)
    J = s["compliance"]
    hold("volume", abs(s["volume"][1] / s["volume"][0] - 1.0), 1e-9)
    hold("descent", max(np.diff(J), default=-1.0), 0.0)
    return out


def run(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Network against homogeniser, derivative, voxels, optimisation, figures, checks (collective)."""
    began, plan, folder = time.perf_counter(), plan_threads(comm, o.threads), Path(o.output)
    module, manifest = None, None
    if o.network != "none":
        network = together(comm, lambda: load_network(o.network))
        if isinstance(network.module, TensorNetwork):
            raise Stop("--network must give displacements: one of kind tensor has no energy.")
        module, manifest = network.module.double().requires_grad_(False), network.manifest

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "graded.png", "fields.xdmf", "fields.h5"):
            remove(folder / name)

    together(comm, prepare, root=True)
    part, family = Part(comm, o.cells, o.elements), GradedCells(o.family, o.resolution)
    counts = part.counts
    exact = Stiffness(comm, family, None)
    learned = exact if module is None else Stiffness(comm, family, module)
    share = start(counts)
    t = family.parameter(share)
    versus = None if module is None else compare(part, learned, exact, t)
    J = part.solve(learned(t))
    assert part.solver is not None
    clapeyron = abs(2.0 * part.solver.stored_energy() / J - 1.0)
    derivative = check_slope(part, learned, t)
    voxels = with_voxels(part, o, share) if o.resolved else None
    even = part.solve(learned(family.parameter(np.full(part.number, share.mean()))))
    best, history = optimise(part, learned, share, o.steps)
    after = family.parameter(best)
    exact_end = history[-1] if module is None else part.solve(exact(after))
    write_fields(part, (share, best), folder / "fields.xdmf")
    summary: dict[str, Any] = {
        "family": o.family, "cells": o.cells, "resolution": o.resolution, "elements": o.elements, "ranks": comm.size,
        "stiffness_from": "homogeniser" if module is None else Path(o.network).name,
        "network_errors": None if manifest is None else manifest.get("errors"),
        "network_against_homogeniser": versus, "derivative": derivative, "clapeyron": clapeyron,
        "against_voxels": voxels, "compliance_even": even, "compliance": history, "compliance_end_exact": exact_end,
        "volume": [float(family.share(x).mean()) for x in (t, after)], "shares": [share.tolist(), best.tolist()],
        "cells_evaluated": {"network": 0 if module is None else learned.evaluated, "homogeniser": exact.evaluated},
        "seconds": {
            "network": 0.0 if module is None else learned.seconds, "homogeniser": exact.seconds,
            "wall": time.perf_counter() - began,
        },
    }  # fmt: skip
    summary["checks"] = checks(summary)

    def write() -> None:
        draw(family, counts, (share, best), history, folder / "graded.png")
        write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        sys.stdout.write(f"{plan}\n{sentence(summary)}")

    together(comm, write, root=True)
    failed = [f"{name}: {entry}" for name, entry in summary["checks"].items() if not entry["holds"]]
    if failed:
        raise Stop(f"The run does not pass its check of {'; '.join(failed)}.")


def sentence(s: dict[str, Any]) -> str:
    """The summary in a few lines."""
    J, versus, voxels = s["compliance"], s["network_against_homogeniser"], s["against_voxels"]
    lines = [f"{s['family']}, {' x '.join(map(str, s['cells']))} cells, stiffness from {s['stiffness_from']}."]
    if versus is not None:
        lines.append(
            f"  network against homogeniser: compliance {100 * versus['compliance_error']:.3g} %, displacement "
            f"{100 * versus['displacement_error']:.3g} %, worst tensor {100 * versus['tensor_error_worst']:.3g} %"
        )
    if voxels is not None:
        lines.append(
            f"  homogenised against {voxels['voxels']} voxels: compliance {100 * voxels['compliance_error']:.3g} %, "
            f"line of deflection {100 * voxels['displacement_error']:.3g} %"
        )
    lines.append(f"  derivative against differences: {s['derivative']['error']:.2g}")
    lines.append(f"  compliance {J[0]:.5g} -> {J[-1]:.5g}, cells all alike {s['compliance_even']:.5g}; same volume")
    return "\n".join(lines) + f"\n  {s['seconds']['wall']:.0f} s.\n"


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the demo (collective); returns the exit status, the same on every rank."""
    return finish(comm, lambda: run(comm, parse(arguments)))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
