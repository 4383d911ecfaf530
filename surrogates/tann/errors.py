"""Errors of a lattice law driven from the virgin state along strain paths, against the lattice cell itself.

The reference for each load is the auxiliary problem of `micro.lattice.cell_problem`, solved with the same steps.
"""

from typing import Any

import torch
from torch import Tensor

from micro.lattice.cell_problem import LatticeCell
from micro.lattice.data import lattice_of
from micro.threads import small_batches
from surrogates.tann.data import LatticePaths
from surrogates.tensors import ORDERS, mandel_basis

Truth = dict[str, Tensor]


def recall(law: Any, strain: Tensor) -> Truth:
    """Drive a law along strain paths step by step, as a host does.

    Args:
        law: the law; observes psi and dissipation first, then its internal variables, then forces and displacements.
        strain: strain tensors (s, T, d, d), the first one zero.

    Returns:
        stress (s, T, d, d), psi (s, T), dissipation of each step (s, T), and xi (s, T, x), forces before displacements.
    """
    eye = torch.eye(strain.shape[-1], dtype=torch.float64)
    state = law.initial_state(len(strain))
    stress, seen = [], []
    with torch.no_grad():
        for k in range(strain.shape[1]):
            P, state = law.forward(eye + strain[:, k], state, 1.0)
            stress.append(P)
            seen.append(law.observe(state))
    observed = torch.stack(seen, dim=1)
    D = observed[..., 1].diff(dim=1, prepend=torch.zeros_like(observed[:, :1, 1]))
    return {"stress": torch.stack(stress, 1), "psi": observed[..., 0], "dissipation": D, "xi": observed[..., 2:]}


def solved(cell: LatticeCell, strain: Tensor) -> Truth:
    """The same quantities of the lattice cell.

    Raises:
        RuntimeError: the auxiliary problem of a path was not solved.
    """
    history = cell.solve(strain)
    if not bool(history.ok.all()):
        raise RuntimeError(f"The lattice cell failed on a path to test on: {next(r for r in history.reason if r)}.")
    names = ("stress", "psi", "dissipation")
    found = {name: getattr(history, name) for name in names}
    return {**found, "force": history.force, "displacement": history.displacement.flatten(2)}


def compare(found: Truth, truth: Truth) -> dict[str, float]:
    """Relative errors: norms along each path, averaged over paths; for dissipation the sum of those of all steps."""
    count = truth["force"].shape[-1]
    x = count + truth["displacement"].shape[-1]
    shown = found["xi"][..., -x:]
    pairs = {
        "stress": (found["stress"], truth["stress"]),
        "psi": (found["psi"], truth["psi"]),
        "force": (shown[..., :count], truth["force"]),
        "displacement": (shown[..., count:], truth["displacement"]),
    }
    result = {}
    for name, (value, true) in pairs.items():
        error = (value - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)
        result[name] = float(error.mean())
    wrong, lost = (found["dissipation"] - truth["dissipation"]).abs().sum(), truth["dissipation"].sum()
    result["dissipation"] = float(wrong / lost) if float(wrong) > 0 else 0.0
    return result


def divided(strain: Tensor, parts: int) -> Tensor:
    """The same paths (s, T, d, d) with every step cut in equal parts."""
    start, change = strain[:, :-1], strain.diff(dim=1)
    ways = torch.arange(1, parts + 1, dtype=strain.dtype) / parts
    inner = start[:, :, None] + ways[:, None, None] * change[:, :, None]
    return torch.cat([strain[:, :1], inner.flatten(1, 2)], dim=1)


def cycles(d: int, kind: str, *, amplitudes: tuple[float, ...] = (0.3, 0.6, 0.9), steps: int = 40) -> Tensor:
    """Cyclic strain of growing amplitude (1, T, d, d): "uniaxial" 11, "shear" 12, or "combined": 11 with 12 growing.

    Figures 7a, 8a and 11a of the paper, over strains that make the bars yield in both senses.
    """
    corners = [0.0]
    for amplitude in amplitudes:
        corners += [amplitude, -amplitude]
    corners.append(0.0)
    pieces = [
        torch.linspace(a, b, steps + 1, dtype=torch.float64)[1:] for a, b in zip(corners, corners[1:], strict=False)
    ]
    level = torch.cat([torch.zeros(1, dtype=torch.float64), *pieces])
    E = torch.zeros(1, len(level), d, d, dtype=torch.float64)
    if kind == "shear":
        E[0, :, 0, 1] = E[0, :, 1, 0] = level
    else:
        E[0, :, 0, 0] = level
    if kind == "combined":
        E[0, :, 0, 1] = E[0, :, 1, 0] = torch.linspace(0.0, amplitudes[-1], len(level), dtype=torch.float64)
    return E


@small_batches()
def cycle_errors(law: Any, cell: LatticeCell) -> dict[str, float]:
    """Errors on the cycles: of stress, psi, dissipation, force and displacement, named after the cycle."""
    found: dict[str, float] = {}
    for kind in ("uniaxial", "shear", "combined"):
        path = cycles(cell.cell.dimension, kind)
        found |= {f"{name}_{kind}": value for name, value in compare(recall(law, path), solved(cell, path)).items()}
    return found


@small_batches()
def recall_errors(law: Any, held_out: LatticePaths, *, some: int = 8) -> dict[str, float]:
    """Errors on held-out paths, on some of them with steps ten times smaller and two times larger, and on cycles.

    Returns:
        For each of stress, psi, dissipation, force and displacement its error on the paths, with `_tenth` and `_double`
        appended for the other steps, and the errors on the cycles.
    """
    cell = LatticeCell(*lattice_of(held_out.lattice))
    strain = torch.einsum("stc,cij->stij", held_out.strain, mandel_basis(ORDERS[held_out.dimension]))
    short = strain[:some]
    found: dict[str, float] = {}
    for suffix, path in (("", strain), ("_tenth", divided(short, 10)), ("_double", 2.0 * short)):
        errors = compare(recall(law, path), solved(cell, path))
        found |= {f"{name}{suffix}": value for name, value in errors.items()}
    return found | cycle_errors(law, cell)
