"""Comparison: a homogenised run against the finite lattice, at the control point, in the whole, and bar by bar.

References:
    Masi and Stefanou (2022), sections V.A to V.E, doi:10.1016/j.cma.2022.115190.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from load_cases import LoadCase
from loaded import LoadedBox, LoadedLattice, Row
from two_scale import CellShape, Lattice, TwoScale, bars_at, relative

ERRORS = ("displacement_error", "energy_error", "dissipation_error", "bar_stress_error")
ELASTIC = 1e-3  # dissipation over energy of a load that does not yield, or hardly


@dataclass(frozen=True)
class Outcome:
    """What a run says of a lattice.

    Attributes:
        rows: As `demos.lattices.loaded.follow` records them.
        u: Displacement of the nodes at the end, (N, d), m.
        stress: Stress of the bars at the end, (B,), Pa.
    """

    rows: list[Row]
    u: np.ndarray
    stress: np.ndarray

    def history(self, name: str) -> np.ndarray:
        """A column of the rows: (T,), or (T, 3) for the displacement of the control point."""
        return np.array([row[name] for row in self.rows])


def of_lattice(loaded: LoadedLattice) -> Outcome | None:
    """Outcome of a lattice, on rank 0; None elsewhere; collective."""
    u, stress = loaded.solver.displacement(), loaded.solver.bar_stress()
    return None if u is None or stress is None else Outcome(loaded.rows, u, stress)


def of_box(loaded: LoadedBox, cell: CellShape, lattice: Lattice | None, size: float, node: int) -> Outcome | None:
    """Outcome of finite elements for a lattice (rank 0's) of cells of an edge, on rank 0; None elsewhere; collective.

    The control point's displacement of the last row is the one of its node, `node`, epsilon u_1 included.
    """
    scales = TwoScale(loaded.solver, cell, lattice, size)
    u, stress = scales.displacement(), scales.bar_stress()
    rows = [*loaded.rows[:-1], {**loaded.rows[-1], "displacement": u[node].tolist()}]
    return Outcome(rows, u, stress) if loaded.comm.rank == 0 else None


def errors(value: Outcome, reference: Outcome, case: LoadCase, lattice: Lattice, node: int) -> dict[str, float]:
    """Relative errors of an outcome against another of the same lattice.

    Displacement is the paper's component at the control point, bar stress the mean error of the bars that end there
    over their mean stress; "_all": L2 over all nodes, over the volume of all bars. Of a load that goes back and forth
    errors are largest differences over largest values of the path, of the others those at the end. A dissipation of
    less than a thousandth of the energy (`ELASTIC`) is as good as none: its error is the difference over the energy.

    Returns:
        `ERRORS`, and "displacement_error_all", "bar_stress_error_all".
    """
    monotone = len(case.path) == 2

    def path(name: str) -> tuple[np.ndarray, np.ndarray]:
        a, b = value.history(name), reference.history(name)
        if name == "displacement":
            a, b = a[:, case.component], b[:, case.component]
        return (a[-1:], b[-1:]) if monotone else (a, b)

    found, energy = {}, np.abs(path("psi")[1]).max()
    for name, key in (("displacement", "displacement"), ("energy", "psi"), ("dissipation", "dissipation")):
        a, b = path(key)
        size = np.abs(b).max()
        if name == "dissipation" and size < ELASTIC * energy:
            size = energy
        found[f"{name}_error"] = ratio(np.abs(a - b).max(), size)
    there = bars_at(lattice.bars, node)
    difference = np.abs(value.stress - reference.stress)
    found["bar_stress_error"] = ratio(difference[there].mean(), np.abs(reference.stress[there]).mean())
    length = np.linalg.norm(lattice.nodes[lattice.bars[:, 1]] - lattice.nodes[lattice.bars[:, 0]], axis=1)
    found["displacement_error_all"] = relative(value.u, reference.u)
    found["bar_stress_error_all"] = relative(value.stress, reference.stress, lattice.area * length)
    return found


def ratio(difference: float, size: float) -> float:
    """difference / size, 0 where there is no difference at all."""
    return float(difference / size) if difference > 0.0 else 0.0


def newton_summary(rows: list[Row]) -> dict[str, Any]:
    """Most iterations of a load step, and the residuals of the last step that dissipated (of the last, if none did)."""
    before = [0.0, *(row["dissipation"] for row in rows)]
    plastic = [row for row, D in zip(rows, before) if row["dissipation"] > D] or rows
    return {
        "newton_iterations_max": max(row["iterations"] for row in rows),
        "newton_residuals": plastic[-1]["residuals"],
        "load_steps_cut": sum(row["steps"] > 1 for row in rows),
    }


def costs(box: LoadedBox, lattice: LoadedLattice) -> dict[str, Any]:
    """Cost of the lattice over that of the finite elements, in calls of the laws as the paper counts and in seconds."""
    a, b = box.rows[-1], lattice.rows[-1]
    return {
        "cost_ratio_calls": b["calls"] / a["calls"],
        "cost_ratio_seconds": b["seconds"] / a["seconds"],
        "cost_ratio_cpu_seconds": b["cpu_seconds"] / a["cpu_seconds"],
        "cost_ratio_seconds_with_setup": (b["seconds"] + lattice.setup) / (a["seconds"] + box.setup),
        "calls": {"fem": a["calls"], "lattice": b["calls"]},
        "seconds": {
            "fem": a["seconds"], "fem_setup": box.setup, "lattice": b["seconds"], "lattice_setup": lattice.setup,
            "fem_cpu": a["cpu_seconds"], "lattice_cpu": b["cpu_seconds"],
        },
    }  # fmt: skip


def values(outcome: Outcome, row: int = -1) -> dict[str, Any]:
    """The end of a run, or another row: displacement of the control point (3), m, psi and dissipation, J."""
    return {name: outcome.rows[row][name] for name in ("displacement", "psi", "dissipation")}


def imbalance(rows: list[Row], scale: float | None = None) -> float:
    """How far psi + dissipation at the end lies outside the bounds of the work done, relative to it (or to `scale`)."""
    last = rows[-1]
    stored, (low, high) = last["psi"] + last["dissipation"], last["work"]
    size = scale if scale is not None else max(abs(stored), abs(high))
    return max(low - stored, stored - high, 0.0) / size if size > 0.0 else 0.0
