"""Finite trusses: elastoplastic bars between nodes, small strains, any number of ranks.

Equilibrium in load steps by Newton's method with the tangent of the bar law; steps, conditions and checkpoints are
those of `fem.statics.driver`, as for bodies. A lattice of n x n x n cells solved here is what a homogenised law is
measured against.

References:
    Masi and Stefanou (2022), section V, doi:10.1016/j.cma.2022.115190.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from fem.discretisation.dirichlet import Dirichlet, Where
from fem.errors import ConvergenceError
from fem.io.checkpoint import Block, Scalar, check_same, gather_rows
from fem.laws.digest import law_digest
from fem.statics.driver import QuasiStatic
from fem.statics.linear_solver import near_nullspace
from fem.statics.newton import Convergence, Newton, check_options
from fem.truss.assembly import TrussAssembly
from fem.truss.bars import BarLaw, Bars
from fem.truss.partition import distribute, truss_nodes

PHASES = ("law", "assemble", "solve")
DIRECT_BELOW = {2: 20_000, 3: 1_500}  # unknowns, by dimension: above, multigrid is faster (docs/guides/lattices.md)
# A node is a block, and a lattice is well conditioned: one sweep of block Jacobi per level is the cheapest.
MULTIGRID = {"mg_levels_pc_type": "pbjacobi", "mg_levels_ksp_max_it": 1}
SAVED = ("strain", "stress", "state", "state_before", "dissipated")  # of the bars, in a checkpoint


class TrussSolver(QuasiStatic):
    """Static equilibrium of a truss in pseudo-time; the constructor and all methods are collective.

    `prescribe`, `release`, `run`, `save` and `restore` are those of `fem.statics.driver.QuasiStatic`; nodes are given
    by their numbers in the input, or by a function of their coordinates.

    Args:
        nodes: Positions, (N, d), d = 2 or 3, m; on rank 0, elsewhere ignored, as bars and area.
        bars: Nodes of each bar, (B, 2), int.
        area: Cross-section of each bar, (B,), or one number, m^2 (per thickness in two dimensions).
        bar_law: The law of all bars.
        prescribed: Prescribed displacements, the same on all ranks, as by `prescribe`.
        linear: "direct" (MUMPS, Cholesky), "iterative" (CG with GAMG) or "auto", by the number of unknowns.
        comm: Communicator.
        rtol: Newton's tolerance (`fem.statics.newton`), as atol, maximum, line_search. Whole steps ("basic") cycle
            where many bars yield at once; backtracking ("bt") costs nothing where they do not.
        options: PETSc options of SNES and KSP, without prefix, that override.
        output: Folder for the checkpoint of a failed run; None writes none.

    Attributes:
        part: What this rank owns, with the input numbers.
        force_n: Forces of the bars on the owned nodes at the last time committed, (n, d), N.
        bars: Strain, stress and state of the owned bars (`fem.truss.bars`).
        external_work: Of the supports, by the trapezoid rule over the steps, J.

    Raises:
        ValueError: On all ranks, if the arrays make no truss or an argument does not fit.
    """

    def __init__(
        self,
        nodes: Any,
        bars: Any,
        area: Any,
        bar_law: BarLaw,
        *,
        prescribed: Sequence[Dirichlet] = (),
        linear: Literal["direct", "iterative", "auto"] = "auto",
        comm: MPI.Comm = MPI.COMM_WORLD,
        rtol: float = 1e-10,
        atol: float = 0.0,
        maximum: int = 20,
        line_search: str = "bt",
        options: Mapping[str, Any] | None = None,
        output: str | PathLike[str] | None = None,
    ) -> None:
        check_options(linear, line_search, maximum, rtol=rtol, atol=atol)
        self.bar_law, self.part = bar_law, distribute(comm, nodes, bars, area)
        super().__init__(truss_nodes(self.part, comm), PHASES, output)
        self.assembly = TrussAssembly(self.part, comm)
        self._newton_arguments: dict[str, Any] = {
            "symmetric": True,
            "direct_below": DIRECT_BELOW[self.assembly.d],
            "linear": linear,
            "rtol": rtol,
            "atol": atol,
            "maximum": maximum,
            "line_search": line_search,
            "options": (MULTIGRID if linear != "direct" else {}) | dict(options or {}),
        }
        self.bars = Bars(bar_law, self.part.area * self.assembly.length, self.part.total_bars, comm)
        self._b, self._A = self.assembly.create_vector(), self.assembly.create_matrix()
        self._modes = near_nullspace(self._b, self.part.x[: self.assembly.n])
        self.force_n = np.zeros_like(self.u_n)
        self._u, self._force = self.u_n, self.force_n
        self.external_work = 0.0
        self._prescribe(*prescribed)

    # What the driver requires of a truss.

    def _evaluate(self, u: np.ndarray) -> None:
        assembly = self.assembly
        self._u = u
        with self.clock("assemble"):
            strain = assembly.strain(assembly.with_ghosts(u))
        with self.clock("law"):
            self.bars.evaluate(strain)
        with self.clock("assemble"):
            self._force = assembly.forces(self.bars.trial_stress)

    def _forces(self) -> np.ndarray:
        return self._force.ravel()

    def _lifted(self, change: np.ndarray) -> np.ndarray:
        assembly = self.assembly
        strain = assembly.strain(assembly.with_ghosts(change.reshape(self.u_n.shape)))
        return assembly.forces(self.bars.tangent * strain).ravel()

    def _diagonal(self) -> float:
        return self.assembly.diagonal(self.bars.tangent)

    def _jacobian(self, x: PETSc.Vec, A: PETSc.Mat) -> None:
        with self.clock("assemble"):
            self.assembly.stiffness(self.bars.tangent, A)

    def _make_newton(self) -> Newton:
        self.assembly.constrain(self._rows)
        arguments = self._newton_arguments
        return Newton(
            self._b,
            self._A,
            self._residual,
            self._jacobian,
            prescribed=self._rows,
            near_nullspace=self._modes,
            **arguments,
        )

    def _keep(self) -> None:
        step, force = self._u - self.u_n, 0.5 * (self._force + self.force_n)
        self.external_work += self.comm.allreduce(float(np.einsum("ni,ni->", step, force)))
        self.u_n, self.force_n = self._u, self._force
        self.bars.commit()

    def _return(self) -> None:
        self._u, self._force = self.u_n, self.force_n
        self.bars.roll_back()

    def solve(self) -> Convergence:
        """Find equilibrium at the time set; the state stays as committed.

        Raises:
            ConvergenceError: On all ranks; `roll_back` then returns to the last state committed.
        """
        try:
            return super().solve()
        except ConvergenceError as error:
            raise ConvergenceError(self.bars.failure or str(error)) from error

    def _content(self) -> tuple[dict[str, Block], dict[str, Scalar], dict[str, str | int | float]]:
        part = self.part
        nodes = {**self._component_arrays(), "force_n": self.force_n, "x": part.x[: len(part.nodes)]}
        bars = {name: getattr(self.bars, name) for name in SAVED}
        bars |= {"ends": np.concatenate([part.nodes, part.ghost_nodes])[part.ends].astype(np.int64), "area": part.area}
        blocks = {
            "nodes": Block(part.nodes, part.total_nodes, nodes), "bars": Block(part.bars, part.total_bars, bars)
        }
        scalars: dict[str, Scalar] = {
            "external_work": self.external_work,
            "bar_calls": self.bar_calls,
            "scale": self.assembly.scale,
        }
        identity: dict[str, str | int | float] = {"solver": "truss", "law": self.bar_law.name}
        identity["law digest"] = law_digest(self.bar_law)
        return blocks, scalars, identity

    def _check_mesh(
        self, path: str | PathLike[str], here: Mapping[str, Block], found: Mapping[str, Mapping[str, np.ndarray]]
    ) -> None:
        part = self.part
        size = self.comm.allreduce(float(np.abs(part.x).max(initial=0.0)), op=MPI.MAX)
        for what, block, name, tolerance in (
            ("position of node", "nodes", "x", 1e-9 * size), ("ends of bar", "bars", "ends", 0.0),
            ("area of bar", "bars", "area", 1e-9 * float(part.area.max(initial=0.0))),
        ):  # fmt: skip
            present = here[block]
            was, now = found[block][name], present.arrays[name]
            check_same(self.comm, path, what, present.numbers, was, now, tolerance)

    def _adopt(self, arrays: Mapping[str, Mapping[str, np.ndarray]], scalars: Mapping[str, Any]) -> None:
        nodes = arrays["nodes"]
        self._adopt_components(nodes, nodes["released"], scalars)
        self.force_n = nodes["force_n"].copy()
        self._u, self._force = self.u_n, self.force_n
        self.external_work, self.assembly.scale = float(scalars["external_work"]), float(scalars["scale"])
        try:
            self.bars.restore(arrays["bars"], int(scalars["bar_calls"]))
        except ConvergenceError:
            self._kept = False  # the next step evaluates the law again, from the state committed

    # Results.

    @property
    def bar_calls(self) -> int:
        """Calls of the bar law so far, all ranks: bars times evaluations."""
        return self.bars.calls

    def stored_energy(self) -> float:
        """Stored energy at the last time committed, J."""
        return self.bars.stored_energy()

    def dissipation(self) -> float:
        """Energy dissipated up to the last time committed, J."""
        return self.bars.dissipation()

    def reaction(self, where: Where) -> np.ndarray:
        """Force of the supports on some nodes, (d,), N, at the last time committed; else zero.

        What is left of the forces of released supports is in it.

        Args:
            where: The nodes, as for `prescribe`.
        """
        return self.comm.allreduce(self.force_n[self.supports.nodes.find(where)].sum(axis=0))

    def displacement(self) -> np.ndarray | None:
        """Displacement of all nodes in the order of the input, (N, d), m, on rank 0; None elsewhere."""
        return gather_rows(self.comm, self.u_n, self.part.nodes)

    def bar_stress(self) -> np.ndarray | None:
        """Stress of all bars in the order of the input, (B,), Pa, on rank 0; None elsewhere."""
        return gather_rows(self.comm, self.bars.stress, self.part.bars)

    def bar_state(self) -> np.ndarray | None:
        """State of all bars in the order of the input, (B, k), on rank 0; None elsewhere."""
        return gather_rows(self.comm, self.bars.state, self.part.bars)
