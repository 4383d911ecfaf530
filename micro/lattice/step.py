"""Response of lattice cells: their state, the end of a step, the history along paths."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LatticeState:
    """State of a batch of cells.

    Attributes:
        bar: State of the bar law (n, b, k); the first number is the plastic strain.
        fluctuation: Periodic displacement w of the independent nodes (n, i, d), m, of zero mean; where the next
            iteration begins, the solution does not depend on it.
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
        reason: Why not, empty where it is; n strings.
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
        reason: Why not, empty where it was; s strings.
    """

    stress: Tensor
    psi: Tensor
    dissipation: Tensor
    displacement: Tensor
    force: Tensor
    bar: Tensor
    ok: Tensor
    reason: list[str]
