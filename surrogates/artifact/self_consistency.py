"""A law against itself: one path cut into few and many steps, driven by strain, by its own stress, and by both.

The path loads along one axis, turns into shear and unloads by half. Its duration is fixed, so that the number of steps
must not matter: what changes with it is an error of the law's own integration. Driven by stress, the same path shows
how strongly the law amplifies errors of stress, and whether its stress determines its strain at all. A uniaxial test
prescribes the axial strain and no lateral stress, which has an answer for a perfectly plastic law, too. What each
entry means: docs/guides/certificate.md.

References:
    Kirchhoff stress and logarithmic strain of a stretch without rotation as a conjugate pair: A. Hoger, Int. J. Solids
    Struct. 23 (1987) 1645, doi:10.1016/0020-7683(87)90115-4.
    A tangent that is kept while it serves: C. T. Kelley, Iterative Methods for Linear and Nonlinear Equations, 1995,
    chapter 5.4, doi:10.1137/1.9781611970944.
"""

import math
from typing import Any

import torch
from torch import Tensor

from surrogates.artifact.tangent import strain_basis

CUTS = (50, 200, 800, 3200)  # steps; results are compared at the instants of the coarsest
DRIVEN = (50, 200)  # steps of the path that is driven by stress
UNIAXIAL = 800  # steps of the finest uniaxial test
TESTED = (30, 20)  # of the uniaxial test, in steps of the coarsest cut: compression, unloading by half
LEGS = (20, 20, 10)  # of the path, in steps of the coarsest cut: loading, turn, unloading
SIZES = (0.1, 1.0)  # of the path, relative to the strain of the range
DURATION = 20.0  # of the path, relative to dt
LOST = 1.0  # the value of an entry where nothing is left to compare
TOLERANCE = 1e-9  # residual of the stress, relative to the largest stress of the path
ITERATIONS = 40  # of Newton's method in a step
KEPT = 0.05  # the tangent is kept while the residual falls at least by this factor
SHORTEST = 2.0**-12  # shortest step of the search along the line, of a whole one


def self_consistency(law: Any, *, strain: str, dimension: int, strain_max: float, dt: float) -> dict[str, float]:
    """How much a law differs from itself under another number of steps, and whether its own stress gives its strain.

    Args:
        law: anything with `initial_state`, `forward` and `tangent`, evaluated as it is.
        strain: "small" or "finite".
        dimension: d, 2 or 3.
        strain_max: norm of the largest strain (of E, or of the logarithmic strain).
        dt: the whole path takes `DURATION` times dt, s.

    Returns:
        `self_consistency`, `self_consistency_stress`, `closed_loop`, `self_consistency_uniaxial`: the largest relative
        difference over cuts and `SIZES`, at most `LOST`, which also stands for a path on which the law or Newton's
        method fails.
    """
    path = {steps: cut_path(strain, dimension, strain_max, steps) for steps in CUTS}
    stresses = {steps: _stresses(law, path[steps], DURATION * dt / steps) for steps in CUTS}
    found = {"self_consistency": 0.0, "self_consistency_stress": 0.0, "closed_loop": 0.0}
    finest = stresses[CUTS[-1]]
    for steps in CUTS[:-1]:
        found["self_consistency"] = max(
            found["self_consistency"], _difference(_common(stresses[steps]), _common(finest))
        )
    finite, n = strain == "finite", len(SIZES)
    for steps in DRIVEN:
        F, every = path[steps], CUTS[-1] // steps
        target = torch.cat([stresses[steps], finest[every - 1 :: every]], dim=1)
        target = _conjugate(target, torch.cat([F, F], dim=1), finite=finite)
        driven = _common(_strain(drive_by_stress(law, target, DURATION * dt / steps, finite=finite), finite=finite))
        wanted = _common(_strain(F, finite=finite))
        for name, part in (("closed_loop", driven[:, :n]), ("self_consistency_stress", driven[:, n:])):
            found[name] = max(found[name], _difference(part, wanted))
    scale = _conjugate(finest, path[CUTS[-1]], finite=finite).norm(dim=(2, 3)).amax(dim=0)
    found["self_consistency_uniaxial"] = _uniaxial(law, dimension, strain_max, dt, scale, finite=finite)
    return found


def _uniaxial(law: Any, d: int, strain_max: float, dt: float, scale: Tensor, *, finite: bool) -> float:
    """Difference of strain and of stress of a uniaxial test from that in the finest steps; see `uniaxial_path`."""
    strains, stresses = {}, {}
    for steps in (*DRIVEN, UNIAXIAL):
        axial, h = uniaxial_path(d, strain_max, steps, finite=finite), DURATION * dt / steps
        nothing = torch.zeros(*axial.shape, d, d, dtype=torch.float64)
        F = drive_by_stress(law, nothing, h, finite=finite, axial=axial, scale=scale)
        if not bool(torch.isfinite(F).all()):
            return LOST
        stress = _conjugate(_stresses(law, F, h), F, finite=finite)
        strains[steps], stresses[steps] = _common(_strain(F, finite=finite)), _common(stress)
    pairs = [(found[steps], found[UNIAXIAL]) for found in (strains, stresses) for steps in DRIVEN]
    return max(_difference(found, finest) for found, finest in pairs)


def uniaxial_path(d: int, strain_max: float, steps: int, *, finite: bool) -> Tensor:
    """F_dd (steps, sizes) of a compression and of unloading by half, in equal steps.

    The norm of the strain is `strain_max` at its largest where the response is isochoric.
    """
    at = torch.arange(1, steps + 1, dtype=torch.float64) * (CUTS[0] / steps)
    turn, end = TESTED[0], sum(TESTED)
    size = torch.where(at <= turn, at / turn, 1 - 0.5 * (at - turn) / (end - turn))
    strain = -math.sqrt((d - 1) / d) * strain_max * size.unsqueeze(1) * torch.tensor(SIZES, dtype=torch.float64)
    return torch.exp(strain) if finite else 1 + strain


def cut_path(strain: str, d: int, strain_max: float, steps: int) -> Tensor:
    """F (steps, sizes, d, d) of the path in equal steps, without rotation; every instant of a coarser cut is there.

    With the unit tensors N, of isochoric uniaxial strain along the last direction, and M, of shear between the first
    and the last, the strain runs straight from 0 to -N, to (M - N) / sqrt(2), and back to half of that.
    """
    N = -torch.eye(d, dtype=torch.float64) / d
    N[-1, -1] += 1.0
    M = torch.zeros_like(N)
    M[0, -1] = M[-1, 0] = math.sqrt(0.5)
    N = N / N.norm()
    knots = torch.stack([torch.zeros_like(N), -N, math.sqrt(0.5) * (M - N), math.sqrt(0.125) * (M - N)])
    at, leg = torch.arange(1, steps + 1) * CUTS[0], 0
    rows = []
    for k, count in enumerate(LEGS):
        t = (at[(at > leg * steps) & (at <= (leg + count) * steps)].double() / steps - leg) / count
        rows.append(knots[k] + t[:, None, None] * (knots[k + 1] - knots[k]))
        leg += count
    H = torch.cat(rows).unsqueeze(1) * strain_max * torch.tensor(SIZES, dtype=torch.float64)[:, None, None]
    return torch.matrix_exp(H) if strain == "finite" else torch.eye(d, dtype=torch.float64) + H


def drive_by_stress(
    law: Any, target: Tensor, dt: float, *, finite: bool, axial: Tensor | None = None, scale: Tensor | None = None
) -> Tensor:
    """The deformation of a law under a prescribed history of stress, by Newton's method for all strain components.

    Sought is a symmetric F, that is, a stretch without rotation (small strain: no skew part). Every step starts from
    the last strain. Newton's method takes the law's tangent, keeps it while the residual falls fast, and halves a
    step that does not make the residual smaller.

    Args:
        law: see `self_consistency`.
        target: Symmetric part of the Kirchhoff stress P F^T, Pa, or of P for small strain (T, n, d, d).
        dt: Of a step, s.
        finite: Whether the target is the Kirchhoff stress.
        axial: The last diagonal component of F (T, n), prescribed in place of that of the stress; None for none.
        scale: The stress (n,), Pa, to which the tolerance is relative; None for the largest of the target.

    Returns:
        F (T, n, d, d); nan from the step on in which Newton's method fails.
    """
    T, n, d = target.shape[:3]
    F = torch.eye(d, dtype=torch.float64).repeat(n, 1, 1)
    state = law.initial_state(n)
    tolerance = TOLERANCE * (target.norm(dim=(2, 3)).amax(dim=0) if scale is None else scale)
    free = torch.ones(d * (d + 1) // 2, dtype=torch.float64)
    free[-1] = 1.0 if axial is None else 0.0  # the last tensor of the basis is the axial one
    alive = torch.ones(n, dtype=torch.bool)
    K = torch.zeros(n, d * (d + 1) // 2, d * (d + 1) // 2, dtype=torch.float64)  # singular: is made when needed
    found = torch.full_like(target, math.nan)
    for k in range(T):
        if axial is not None:
            F = F.clone()
            F[:, -1, -1] = axial[k]
        F, state, K, alive = _solve(law, F, state, K, alive, target[k], tolerance, dt, free, finite=finite)
        found[k, alive] = F[alive]
        if not bool(alive.any()):
            break
    return found


def _solve(
    law: Any, F: Tensor, state: Tensor, K: Tensor, alive: Tensor, target: Tensor, tolerance: Tensor, dt: float,
    free: Tensor, *, finite: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One step of `drive_by_stress`: the new F, state, stiffness K (n, m, m), and which points are still alive.

    `free` (m,) is one for the components of strain that are sought, and zero for those that are prescribed.
    """
    basis = strain_basis(F.shape[-1])
    residual, size, new_state = _residual(law, F, state, target, dt, free, finite=finite)
    fresh, whole = torch.zeros_like(alive), torch.ones_like(size)
    for _ in range(ITERATIONS):
        active = alive & ~(size <= tolerance)
        if not bool(active.any()):
            break
        step, info = torch.linalg.solve_ex(K, residual)
        stale = active & ~fresh & ~((info == 0) & torch.isfinite(step).all(dim=1))
        if bool(stale.any()):
            K[stale] = _stiffness(law, F[stale], state[stale], dt, free, finite=finite)
            fresh = fresh | stale
            step, info = torch.linalg.solve_ex(K, residual)
        trial = F - torch.einsum("na,aij->nij", whole[:, None] * step, basis)
        new_residual, new_size, trial_state = _residual(law, trial, state, target, dt, free, finite=finite)
        better = active & (new_size < size)  # false for what is not a number
        slow = better & ~(new_size <= KEPT * size)
        F, size = torch.where(better[:, None, None], trial, F), torch.where(better, new_size, size)
        residual = torch.where(better[:, None], new_residual, residual)
        new_state = torch.where(better[:, None], trial_state, new_state)
        # A step of an old tangent that fails gives a new tangent at the same place, one of a new tangent is halved.
        whole = torch.where(active & ~better & fresh, 0.5 * whole, torch.ones_like(whole))
        renew = (slow & (size > tolerance)) | (active & ~better & ~fresh)
        if bool(renew.any()):
            K[renew] = _stiffness(law, F[renew], state[renew], dt, free, finite=finite)
        fresh = torch.where(better, renew, fresh | renew)
        alive = alive & ~(active & (whole < SHORTEST))
    alive = alive & (size <= tolerance)
    return F, torch.where(alive[:, None], new_state, state), K, alive


def _residual(
    law: Any, F: Tensor, state: Tensor, target: Tensor, dt: float, free: Tensor, *, finite: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Stress less the target, in the basis of symmetric matrices (n, m), its norm (n,), and the new state."""
    with torch.no_grad():
        P, new_state = law.forward(F, state, dt)
    residual = torch.einsum("aij,nij->na", strain_basis(F.shape[-1]), _conjugate(P, F, finite=finite) - target)
    residual = residual * free
    return residual, residual.norm(dim=1), new_state


def _stiffness(law: Any, F: Tensor, state: Tensor, dt: float, free: Tensor, *, finite: bool) -> Tensor:
    """Derivative (n, m, m) of the stress with respect to F, both in the basis; the identity where F is prescribed."""
    basis = strain_basis(F.shape[-1])
    P, _, dP_dF = law.tangent(F, state, dt)
    change = torch.einsum("nijkl,bkl->nbij", dP_dF, basis)
    if finite:  # d(P F^T) = dP F^T + P dF^T
        change = change @ F.mT.unsqueeze(1) + P.unsqueeze(1) @ basis.mT
    return torch.einsum("aij,nbij->nab", basis, change) * torch.outer(free, free) + torch.diag(1 - free)


def _stresses(law: Any, F: Tensor, dt: float) -> Tensor:
    """P (T, n, d, d) along F."""
    P, state = torch.empty_like(F), law.initial_state(F.shape[1])
    with torch.no_grad():
        for k in range(len(F)):
            P[k], state = law.forward(F[k], state, dt)
    return P


def _conjugate(P: Tensor, F: Tensor, *, finite: bool) -> Tensor:
    """Symmetric part of the stress that belongs to the strain: of P F^T, or of P for small strain."""
    stress = P @ F.mT if finite else P
    return 0.5 * (stress + stress.mT)


def _strain(F: Tensor, *, finite: bool) -> Tensor:
    """Strain of a symmetric F: its logarithm, or F - I for small strain; nan where F is nan or not positive."""
    if not finite:
        return F - torch.eye(F.shape[-1], dtype=torch.float64)
    valid = torch.isfinite(F).all(dim=-1).all(dim=-1)[..., None, None]
    value, vector = torch.linalg.eigh(torch.where(valid, F, torch.eye(F.shape[-1], dtype=torch.float64)))
    return torch.where(valid, vector @ (value.log().unsqueeze(-1) * vector.mT), F)


def _common(values: Tensor) -> Tensor:
    """Of values (T, ...) along a cut, those at the instants of the coarsest."""
    every = len(values) // CUTS[0]
    return values[every - 1 :: every]


def _difference(values: Tensor, reference: Tensor) -> float:
    """Largest relative L2 difference over the points of (T, n, d, d), at most `LOST`, which stands for nan as well."""
    change, size = ((x * x).sum(dim=(0, 2, 3)).sqrt() for x in (values - reference, reference))
    relative = torch.where(change == 0, torch.zeros_like(change), change / size)
    return float(torch.where(relative < LOST, relative, torch.full_like(relative, LOST)).max())
