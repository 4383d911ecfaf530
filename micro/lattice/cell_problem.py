"""Auxiliary problem of a lattice cell: periodic displacements in equilibrium, batched over many cells.

The paper joins opposite faces by Lagrange multipliers; here periodicity is built in: u = E x + w, and w is the same at
all images of a node. The node displacements minimise a convex, piecewise quadratic energy, so that Newton's method
ends in finitely many iterations.

References:
    Masi and Stefanou (2022), equations (14), (16), (17) and appendix A, doi:10.1016/j.cma.2022.115190.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from micro.data.cli import check_memory
from micro.lattice.bars import BarLaw
from micro.lattice.geometry import Cell
from micro.threads import small_batches

#: Slope of the energy at the end of a line search, relative to that at its start.
SLOPE = 1e-4


@dataclass(frozen=True)
class LatticeState:
    """State of a batch of cells.

    Attributes:
        bar: State of the bar law (n, b, k); the first number is the plastic strain.
        fluctuation: Periodic displacement w of the independent nodes (n, i, d), m, of zero mean; the next
            iteration begins there; the solution does not depend on it.
    """

    bar: Tensor
    fluctuation: Tensor


@dataclass(frozen=True)
class LatticeStep:
    """A batch of cells at the end of a step; all numbers of a cell that failed are nan.

    Attributes:
        stress: Average stress (n, d, d), Pa.
        psi: Free energy per volume of the cell (n,), J/m^3.
        dissipation: Dissipated in the step per volume of the cell (n,), J/m^3.
        displacement: Displacement of each node (n, m, d), m.
        force: Force of each whole bar (n, b), N, tension positive.
        modulus: Tangent of each bar (n, b), Pa.
        state: State at the end of the step; of a cell that failed that of the start.
        ok: Whether the cell is in equilibrium (n,), bool.
        reason: Why a cell is not in equilibrium, empty where it is; n strings.
    """

    stress: Tensor
    psi: Tensor
    dissipation: Tensor
    displacement: Tensor
    force: Tensor
    modulus: Tensor
    state: LatticeState
    ok: Tensor
    reason: list[str]


@dataclass(frozen=True)
class LatticeHistory:
    """A batch of cells along strain paths; from the step that failed on, all numbers of a path are nan.

    Attributes:
        stress: Average stress (s, T, d, d), Pa.
        psi: Free energy per volume (s, T), J/m^3.
        dissipation: Dissipated since the point before (s, T), J/m^3.
        displacement: Displacement of each node (s, T, m, d), m.
        force: Force of each whole bar (s, T, b), N.
        bar: State of the bars (s, T, b, k).
        ok: Whether the path was solved (s,), bool.
        reason: Why a path was not solved, empty where it was; s strings.
    """

    stress: Tensor
    psi: Tensor
    dissipation: Tensor
    displacement: Tensor
    force: Tensor
    bar: Tensor
    ok: Tensor
    reason: list[str]


def fluctuation_strains(cell: Cell, index: np.ndarray) -> np.ndarray:
    """Return the strain of each bar by the fluctuations (b, D), the first independent node fixed against translation.

    Args:
        cell: The cell.
        index: Number of the independent node of each node (m,), from 0 without gaps.
    """
    B = np.zeros((len(cell.bars), int(index.max()) + 1, cell.dimension))
    bars, slope = np.arange(len(cell.bars)), cell.direction / cell.length[:, None]
    np.add.at(B, (bars, index[cell.bars[:, 1]]), slope)
    np.add.at(B, (bars, index[cell.bars[:, 0]]), -slope)
    return B[:, 1:].reshape(len(cell.bars), -1)


class LatticeCell:
    """A batch of equal cells under average strains.

    Args:
        cell: The cell.
        bar: The law of its bars.
        device: Torch device.
        tolerance: Largest nodal force out of balance, relative to the largest elastic force of a bar in the step.
        iterations: Newton iterations per step.

    Raises:
        ValueError: The cell has mechanisms, fluctuations that strain no bar, or is too large for the memory.
    """

    def __init__(
        self,
        cell: Cell,
        bar: BarLaw,
        device: str | torch.device = "cpu",
        *,
        tolerance: float = 1e-12,
        iterations: int = 50,
    ) -> None:
        self.cell, self.bar = cell, bar
        self.tolerance, self.iterations = tolerance, iterations
        (_, d), b, n = cell.nodes.shape, len(cell.bars), len(np.unique(cell.master))
        entries = (n + b) * d**2  # of the stiffness, at most
        check_memory(f"cells of {b} bars such as {cell.name}", 24.0 * b * (n * d + entries), str(device))
        independent, index = np.unique(cell.master, return_inverse=True)
        index = index.reshape(-1)
        B = fluctuation_strains(cell, index)
        volume = cell.weight * cell.area * cell.length
        eigenvalues = np.linalg.eigvalsh(B.T @ (volume[:, None] * B)) if B.size else np.ones(1)
        loose = int((eigenvalues < 1e-9 * eigenvalues.max()).sum())
        if loose:
            raise ValueError(f"cell {cell.name} must be stable, it has {loose} periodic mechanisms.")
        rows, columns = np.nonzero(np.tril(abs(B).T @ abs(B)))  # entries of the stiffness that bars touch, lower half
        products = volume[:, None] * B[:, rows] * B[:, columns]
        projections = np.einsum("bi,bj->bij", cell.direction, cell.direction).reshape(len(B), -1)
        numbers = (B, projections, products, volume, cell.area, cell.nodes)
        self._B, self._G, self._products, self._volume, self._area, self._x = (
            torch.tensor(array, dtype=torch.float64, device=device) for array in numbers
        )
        self._rows, self._columns, self._index = (
            torch.tensor(array, device=device) for array in (rows, columns, index)
        )
        self._count = len(independent)

    def initial_state(self, n: int) -> LatticeState:
        """Return the state of `n` virgin cells."""
        bar = self._x.new_zeros(n, len(self.cell.bars), self.bar.state_size)
        return LatticeState(bar, self._x.new_zeros(n, self._count, self.cell.dimension))

    def _stiffness(self, modulus: Tensor) -> Tensor:
        """Return the stiffness (n, D, D) of the fluctuations, lower half, for the tangents of the bars (n, b)."""
        K = modulus.new_zeros(len(modulus), self._B.shape[1], self._B.shape[1])
        K[:, self._rows, self._columns] = modulus @ self._products
        return K

    def _equilibrate(self, macro: Tensor, bar: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Find the fluctuations in equilibrium.

        Args:
            macro: Strain of the bars by the average strain alone (n, b).
            bar: State of the bars at the start of the step (n, b, k).
            w: Fluctuations to begin with (n, D), the first node fixed.

        Returns:
            The fluctuations (n, D) and whether they are in equilibrium (n,), bool.
        """
        w = w.clone()
        left = torch.arange(len(w), device=w.device)
        scale = w.new_zeros(len(w))  # the largest elastic force met: at zero strain there is none to compare with
        for iteration in range(self.iterations + 1):
            strain = macro[left] + w[left] @ self._B.T
            stress, _, modulus = self.bar.update(strain, bar[left])
            residual = (stress * self._volume) @ self._B  # Eq. (17)
            force = self._area * (self.bar.modulus * strain.abs() + stress.abs())
            scale[left] = torch.maximum(scale[left], force.amax(1))
            open_ = ~(residual.abs().amax(1) <= self.tolerance * scale[left])  # a residual that is nan is open
            left, residual = left[open_], residual[open_]
            if not len(left) or iteration == self.iterations:
                break
            factor, _ = torch.linalg.cholesky_ex(self._stiffness(modulus[open_]))
            dw = -torch.cholesky_solve(residual[..., None], factor)[..., 0]
            length = self._line_search(strain[open_], dw @ self._B.T, bar[left], (residual * dw).sum(1))
            w[left] += length[:, None] * dw
        ok = torch.ones(len(w), dtype=torch.bool, device=w.device)
        ok[left] = False
        return w, ok

    def _line_search(self, strain: Tensor, dstrain: Tensor, bar: Tensor, slope_0: Tensor) -> Tensor:
        """Return the lengths of steps along the Newton directions (n,): one, or to the minimum of the energy before.

        Whole steps alone may cycle among a few sets of yielding bars once a step exceeds the strain of yield. The
        energy is convex, so that its slope along the direction only rises; its zero is found by Newton's method, and
        by bisection where that leaves the bracket.

        Args:
            strain: Strain of the bars (n, b).
            dstrain: Its change by the whole step (n, b).
            bar: State of the bars at the start of the step (n, b, k).
            slope_0: Slope of the energy at the start of the step (n,), negative.
        """
        t = torch.ones_like(slope_0)
        low, high = torch.zeros_like(t), torch.ones_like(t)
        left = torch.arange(len(t), device=t.device)
        for _ in range(self.iterations):
            stress, _, modulus = self.bar.update(strain[left] + t[left, None] * dstrain[left], bar[left])
            weighted = self._volume * dstrain[left]
            slope, curvature = (stress * weighted).sum(1), (modulus * weighted * dstrain[left]).sum(1)
            over = slope > -SLOPE * slope_0[left]
            under = (slope < SLOPE * slope_0[left]) & (t[left] < 1)
            high[left[over]], low[left[under]] = t[left[over]], t[left[under]]
            open_ = over | under
            left = left[open_]
            if not len(left):
                break
            guess = t[left] - slope[open_] / curvature[open_]
            inside = (guess > low[left]) & (guess < high[left])
            t[left] = torch.where(inside, guess, (low[left] + high[left]) / 2)
        return t

    def step(self, E: Tensor, state: LatticeState) -> LatticeStep:
        """Advance the cells to an average strain.

        Args:
            E: Average strain at the end of the step (n, d, d); its symmetric part counts.
            state: State at the start of the step.

        Returns:
            The cells at the end of the step.

        Raises:
            ValueError: `E` has the wrong shape.
        """
        d = self.cell.dimension
        if E.shape != (len(state.bar), d, d):
            raise ValueError(f"E must have shape {(len(state.bar), d, d)}, got {tuple(E.shape)}.")
        E = (E + E.mT).to(self._x) / 2
        n = len(E)
        macro = E.reshape(n, -1) @ self._G.T
        w = (state.fluctuation[:, 1:] - state.fluctuation[:, :1]).reshape(n, -1)
        if w.shape[1]:
            w, ok = self._equilibrate(macro, state.bar, w)
        else:
            ok = torch.isfinite(macro).all(1)
        strain = macro + w @ self._B.T
        stress, bar, modulus = self.bar.update(strain, state.bar)
        fraction = self._volume / self.cell.volume
        fluctuation = torch.cat([w.new_zeros(n, 1, d), w.reshape(n, -1, d)], 1)
        fluctuation = fluctuation - fluctuation.mean(1, keepdim=True)
        results = {
            "stress": ((stress * fraction) @ self._G).reshape(n, d, d),  # Eq. (14), by the virtual work of E
            "psi": self.bar.energy(strain, bar) @ fraction,
            "dissipation": self.bar.dissipation(state.bar, bar) @ fraction,
            "displacement": self._x @ E + fluctuation[:, self._index],
            "force": stress * self._area,
            "modulus": modulus,
        }
        reason = [""] * n
        lost = torch.nonzero(~ok).flatten()
        for i in lost.tolist():
            reason[i] = f"Newton of the lattice cell did not converge in {self.iterations} iterations"
        for name in results if len(lost) else ():
            results[name][lost] = torch.nan
        bar[lost], fluctuation[lost] = state.bar[lost], state.fluctuation[lost]
        return LatticeStep(**results, state=LatticeState(bar, fluctuation), ok=ok, reason=reason)

    def tangent(self, step: LatticeStep) -> Tensor:
        """Return the homogenised tangent d stress/d E (n, d, d, d, d), Pa, of a step, symmetric in all the usual pairs.

        Args:
            step: The result of `step`.
        """
        d = self.cell.dimension
        weighted = (step.modulus * self._volume)[..., None] * self._G  # (n, b, d^2)
        C = self._G.T @ weighted
        if self._B.shape[1]:
            coupling = self._B.T @ weighted
            factor, _ = torch.linalg.cholesky_ex(self._stiffness(step.modulus))
            C = C - coupling.mT @ torch.cholesky_solve(coupling, factor)
        return C.reshape(-1, d, d, d, d) / self.cell.volume

    @small_batches()
    def solve(self, E: Tensor) -> LatticeHistory:
        """Follow strain paths from the virgin state.

        Args:
            E: Average strains (s, T, d, d).

        Returns:
            The cells along the paths.

        Raises:
            ValueError: `E` has the wrong shape.
        """
        d = self.cell.dimension
        if E.dim() != 4 or E.shape[2:] != (d, d) or not E.shape[1]:
            raise ValueError(f"E must have shape (s, T, {d}, {d}), got {tuple(E.shape)}.")
        state = self.initial_state(len(E))
        names = ("stress", "psi", "dissipation", "displacement", "force", "bar")
        points: dict[str, list[Tensor]] = {name: [] for name in names}
        reason, failed = [""] * len(E), {}
        for t in range(E.shape[1]):
            step = self.step(E[:, t], state)
            state = step.state
            for name in names:
                points[name].append(state.bar if name == "bar" else getattr(step, name))
            for i, text in enumerate(step.reason):
                if text and i not in failed:
                    failed[i], reason[i] = t, f"{text} at point {t}"
        history = {name: torch.stack(values, 1) for name, values in points.items()}
        ok = torch.ones(len(E), dtype=torch.bool, device=self._x.device)
        for i, t in failed.items():
            ok[i] = False
            for values in history.values():
                values[i, t:] = torch.nan
        return LatticeHistory(**history, ok=ok, reason=reason)
