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
# Every cell of the part has a t of its own; what is designed is its volume fraction phi(t), the mean of rho.
#
# **Equations.** int E(u) : C(t) : E(v) dx = f(v), compliance J = f(u). The effective stiffness C(t) is constant in each
# cell of the part and comes from the network (upper bound of the cell's energy, Eq. (25) of the reference) or from the
# homogeniser (exact two-scale). Cells are distributed over the ranks, each distinct one is evaluated once, in batches;
# there is no table, and nothing is interpolated. The derivative needs no second solve:
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
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dolfinx
import dolfinx.fem
import dolfinx.mesh
import numpy as np
import torch
import ufl
from cell_stiffness import BATCH, Stiffness
from dolfinx.io import XDMFFile
from graded_report import checks, draw, sentence
from mpi4py import MPI
from scipy import ndimage

from fem.command import Parser, Stop, finish, remove, together, write_text
from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.anisotropic import PointStiffness, strain
from fem.mesh import domain_from_mesh, read_mesh
from fem.parallel import abort_when_uncaught
from fem.threads import plan_threads
from meshes.box import box
from meshes.session import session
from micro.data.cli import check_count, check_folder, check_memory
from micro.threads import check_threads
from micro.voxel.cells.frames import FRAMES
from micro.voxel.cells.graded import GradedCells
from micro.voxel.cells.tpms import SURFACES
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import check_size
from surrogates.cells.networks.file import PRETRAINED, CellNetwork, load_network
from surrogates.cells.networks.paper import TensorNetwork

FRACTIONS = (0.2, 0.7)  # least and largest volume fraction; all surfaces are connected between them
DROPPED = 1e-3  # density below which a voxel of the resolved part is left out
MOVE = 0.08  # largest change of a volume fraction in a step
ELEMENT, VOXEL = 400e3, 20e3  # memory, bytes: of an element with its factors, of a voxel of the resolved part
SECONDS = 2e-5  # of one rank per voxel of a cell, to evaluate it

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line (local; the same on every rank)."""
    p = Parser(description="A graded lattice part.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--family", choices=FRAMES + SURFACES, default="gyroid", help="of the cells")
    p.add_argument("--cells", type=int, nargs=3, default=[2, 2, 6], help="of the part, along x y z")
    p.add_argument("--resolution", type=int, default=16, help="voxels per edge of a cell")
    p.add_argument("--network", default="auto", help='network FILE; "none": the homogeniser; "auto": the one shipped')
    p.add_argument("--elements", type=int, default=2, help="finite elements (hexahedra, degree 2) per edge of a cell")
    p.add_argument("--resolved", type=int, default=10, help="voxels per edge of a cell in the resolved part, or 0")
    p.add_argument("--steps", type=int, default=5, help="of optimisation")
    p.add_argument("--threads", type=int, help="threads per rank; none: the cores it owns")
    p.add_argument("--output", default="results/graded_lattice", help="folder for the results")
    o = p.parse_args(arguments)
    for name, low in (("resolution", 6), ("elements", 1), ("steps", 0)):
        check_count(f"--{name}", getattr(o, name), least=low)
    if min(o.cells) < 1:
        raise ValueError(f"--cells must be positive, got {o.cells}.")
    if o.resolved != 0 and o.resolved < 6:
        raise ValueError(f"--resolved must be 0 or at least 6, got {o.resolved}.")
    if o.threads is not None:
        check_threads(o.threads, "--threads")
    check_folder("--output", o.output)
    if o.network == "auto":
        o.network = str(PRETRAINED) if PRETRAINED.is_file() else "none"
    return o


def check_sizes(comm: MPI.Comm, o: argparse.Namespace) -> None:
    """Check that the part fits the memory, and that its cells take less than a day (collective).

    Raises:
        ValueError: On all ranks; the sentence holds the estimate.
    """
    shared = comm.Split_type(MPI.COMM_TYPE_SHARED)
    here = comm.allreduce(shared.size / comm.size, op=MPI.MAX)  # of the part, on the machine that holds most
    shared.Free()
    cells = math.prod(o.cells)
    check_size("--resolution", (BATCH * o.resolution, o.resolution, o.resolution))
    elements, voxels = cells * o.elements**3, cells * o.resolved**3
    check_memory(f"{elements} finite elements", here * ELEMENT * elements, name="--cells or --elements")
    check_memory(f"{voxels} voxels of the resolved part", here * VOXEL * voxels, name="--cells or --resolved")
    hours = cells * (o.steps + 6) * o.resolution**3 * SECONDS / 3600 / comm.size
    if hours > 24:
        raise ValueError(f"--cells must be smaller: {cells} cells of {o.resolution}^3 voxels take {hours:.2g} hours.")


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
# Optimality criteria in the volume fractions: phi <- phi sqrt(-dJ/dphi / lambda), at most 0.08 a step, with lambda from
# the volume by bisection. A step that does not lower J is tried again with half the move.


# %%
def next_fractions(fraction: np.ndarray, gain: np.ndarray, move: float) -> np.ndarray:
    """Volume fractions (cells,) of the same mean, more where the gain -dJ/dphi (cells,) is large."""
    wanted = fraction.mean()
    low, high = np.maximum(FRACTIONS[0], fraction - move), np.minimum(FRACTIONS[1], fraction + move)
    gain = np.maximum(gain, 1e-12 * gain.max()) / gain.mean()

    def tried(log: float) -> np.ndarray:
        return np.clip(fraction * np.sqrt(gain * np.exp(log)), low, high)

    least, most = -30.0, 30.0
    for _ in range(100):
        log = 0.5 * (least + most)
        least, most = (log, most) if tried(log).mean() < wanted else (least, log)
    return tried(0.5 * (least + most))


def gains(part: Part, stiffness: Stiffness, t: np.ndarray) -> np.ndarray:
    """-dJ/dt (cells,) at parameters t, those of the last solution."""
    return np.einsum("cij,cij->c", part.work(), stiffness.slope(t))


def optimise(part: Part, stiffness: Stiffness, fraction: np.ndarray, steps: int) -> tuple[np.ndarray, list[float]]:
    """Some steps from volume fractions (cells,); returns the fractions and J at the start and after every step."""
    family = stiffness.family
    t = family.parameter(fraction)
    history, move = [part.solve(stiffness(t))], MOVE
    for _ in range(steps):
        gain = gains(part, stiffness, t) / family.slope(t)  # -dJ/dphi
        for _ in range(4):
            new = next_fractions(fraction, gain, move)
            trial = family.parameter(new)
            J = part.solve(stiffness(trial))
            if J < history[-1]:
                break
            move *= 0.5
        else:
            part.solve(stiffness(t))
            break
        fraction, t = new, trial
        history.append(J)
    return fraction, history


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
# ## Fields


# %%
def write_fields(part: Part, fractions: Sequence[np.ndarray], path: Path) -> None:
    """Displacement and volume fractions for ParaView (collective)."""
    assert part.solver is not None
    mesh = part.domain.mesh
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,))), name="displacement")
    u.interpolate(part.solver.u)
    with XDMFFile(mesh.comm, path, "w") as file:
        file.write_mesh(mesh)
        file.write_function(u)
        for fraction, name in zip(fractions, ("fraction_start", "fraction_end"), strict=True):
            field = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)), name=name)
            field.x.array[:] = fraction[part.where]
            file.write_function(field)


# %% [markdown]
# ## Main


# %%
def start(counts: np.ndarray) -> np.ndarray:
    """Volume fractions (cells,): from dense at the clamp to light at the end, and denser outside in x."""
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


def with_voxels(part: Part, o: argparse.Namespace, fraction: np.ndarray) -> dict[str, Any]:
    """The homogenised part against the same made of voxels, its end turned aside (collective)."""
    family = GradedCells(o.family, o.resolved)
    t = family.parameter(fraction)
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


def read(comm: MPI.Comm, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, CellNetwork | None]:
    """Read command line and network, None for the homogeniser (collective); all ranks raise the same ValueError."""
    o = parse(arguments)
    check_sizes(comm, o)
    if o.network == "none":
        return o, None
    network = together(comm, lambda: load_network(o.network))
    if isinstance(network.module, TensorNetwork):
        raise ValueError("--network must predict displacements: one of kind tensor has no energy.")
    return o, network


def run(comm: MPI.Comm, o: argparse.Namespace, network: CellNetwork | None) -> None:
    """Network against homogeniser, derivative, voxels, optimisation, figures, checks (collective)."""
    began, plan, folder = time.perf_counter(), plan_threads(comm, o.threads), Path(o.output)
    module, manifest = None, None
    if network is not None:
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
    fraction = start(counts)
    t = family.parameter(fraction)
    versus = None if module is None else compare(part, learned, exact, t)
    J = part.solve(learned(t))
    assert part.solver is not None
    clapeyron = abs(2.0 * part.solver.stored_energy() / J - 1.0)
    derivative = check_slope(part, learned, t)
    voxels = with_voxels(part, o, fraction) if o.resolved else None
    even = part.solve(learned(family.parameter(np.full(part.number, fraction.mean()))))
    best, history = optimise(part, learned, fraction, o.steps)
    after = family.parameter(best)
    exact_end = history[-1] if module is None else part.solve(exact(after))
    write_fields(part, (fraction, best), folder / "fields.xdmf")
    summary: dict[str, Any] = {
        "family": o.family, "cells": o.cells, "resolution": o.resolution, "elements": o.elements, "ranks": comm.size,
        "stiffness_from": "homogeniser" if module is None else Path(o.network).name,
        "network_errors": None if manifest is None else manifest.get("errors"),
        "network_against_homogeniser": versus, "derivative": derivative, "clapeyron": clapeyron,
        "against_voxels": voxels, "compliance_even": even, "compliance": history, "compliance_end_exact": exact_end,
        "volume": [float(family.fraction(x).mean()) for x in (t, after)],
        "fractions": [fraction.tolist(), best.tolist()],
        "cells_evaluated": {"network": 0 if module is None else learned.evaluated, "homogeniser": exact.evaluated},
        "seconds": {
            "network": 0.0 if module is None else learned.seconds, "homogeniser": exact.seconds,
            "wall": time.perf_counter() - began,
        },
    }  # fmt: skip
    summary["checks"] = checks(summary)

    def write() -> None:
        wholes = [tiled(family.density(torch.from_numpy(x)).numpy(), counts) for x in (t, after)]
        sections = [whole[:, family.n // 2] for whole in wholes]
        draw(sections, [x.reshape(counts) for x in (fraction, best)], history, folder / "graded.png")
        write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        sys.stdout.write(f"{plan}\n{sentence(summary)}")

    together(comm, write, root=True)
    failed = [f"{name}: {entry}" for name, entry in summary["checks"].items() if not entry["passed"]]
    if failed:
        raise Stop(f"The run does not pass its check of {'; '.join(failed)}.")


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the study (collective): 0 done, 2 bad input, 1 where a solve or a check fails; the same on every rank."""
    asked: list[tuple[argparse.Namespace, CellNetwork | None]] = []
    if finish(comm, lambda: asked.append(read(comm, arguments))):
        return 2
    return finish(comm, lambda: run(comm, *asked[0]))


if __name__ == "__main__":
    abort_when_uncaught(MPI.COMM_WORLD)
    sys.exit(main())
