"""A reference for the crystal: its rate equations in plain NumPy, integrated by SciPy's Radau method, grain by grain.

Nothing here is fast, and nothing here is shared with the law that is measured against it: the state holds F_in itself,
all domains of a grain slip whatever their volume, the scheme is the three-stage Radau IIA method of order five, and the
step is governed by tight tolerances on every component of the state. It takes the directions and the normals of the
systems as arrays, so that a test can choose them.

The equations (M is the Mandel stress, d = 0 the parent of volume w_0 = 1 - sum lambda, d = b the twin b of volume
lambda_b, S_ad the Schmid tensor of slip system a in the domain d):

    Fdot_in F_in^-1 = L_p + L_t                                                                     Eq. (A.9)
    C_e = F_in^-T C F_in^-1,  M = G dev(C_e) / det(C_e)^(1/3)                                       Eq. (A.3), (A.8)
    L_p = sum_d w_d sum_a gdot_ad S_ad,  L_t = sum_b lambdadot_b gamma_t s_b (x) m_b                Eq. (A.10), (A.11)
    |M : S_ad| = r_a + tau_0 (|gdot_ad| / rate_0)^m                                                 Eq. (A.12)
    gamma_t M : s_b (x) m_b = r_b + tau_0 (lambdadot_b / rate_0)^m,  lambdadot_b >= 0               Eq. (A.13)
    edot_a = sum_d w_d |gdot_ad|                                                                    Eq. (A.1)

with r_a = r_0 + sigma_inf (1 - exp(-h e_a / sigma_inf)) + sum_b v_a v_b e_b (b != a) and
r_b = h lambda_b + 2 k sum_c lambda_c (c != b). Between two given instants C = F^T F is linear in time.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668; Hairer and Wanner (1996), Solving ordinary
    differential equations II, section IV.8, doi:10.1007/978-3-642-05221-7.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

#: How slip in parent and twins is modelled; see `ReferenceCrystal`.
SLIPS = ("domains", "common", "parent")
#: Default tolerances; ten times tighter ones change the mean deviator of a walk by less than 1e-5 of itself.
RTOL = 1e-6
ATOL_F, ATOL_E, ATOL_LAM = 1e-8, 1e-8, 1e-9
_COMPONENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))


@dataclass(frozen=True)
class ReferenceCrystal:
    """Directions, normals and constants of a crystal, SI units.

    Attributes:
        s, m: Unit directions and normals of the slip systems (n, 3).
        twin_s, twin_m: Those of the twins (n_t, 3), each signed so that the twin grows under a positive shear stress.
        tau_0, rate_0, h, sigma_inf, r_0, v: Constants of each slip system (n,); v is the root of the latent modulus.
        exponent: 1/m of slip.
        twin_shear: Shear of a twin.
        twin_tau_0, twin_rate_0, twin_h, twin_k, twin_exponent: Constants of twinning.
        G, lambda_e: Elastic moduli, Pa.
    """

    s: np.ndarray
    m: np.ndarray
    twin_s: np.ndarray
    twin_m: np.ndarray
    tau_0: np.ndarray
    rate_0: np.ndarray
    h: np.ndarray
    sigma_inf: np.ndarray
    r_0: np.ndarray
    v: np.ndarray
    exponent: float
    twin_shear: float
    twin_tau_0: float
    twin_rate_0: float
    twin_h: float
    twin_k: float
    twin_exponent: float
    G: float
    lambda_e: float


@dataclass(frozen=True)
class ReferenceGrain:
    """History of one grain at the given instants.

    Attributes:
        F_in: Inelastic deformation gradient (T, 3, 3), in the crystal's frame.
        e: Accumulated slip (T, n).
        lam: Twin fractions (T, n_t).
        evaluations: Evaluations of the rates.
    """

    F_in: np.ndarray
    e: np.ndarray
    lam: np.ndarray
    evaluations: int


@dataclass(frozen=True)
class ReferenceResult:
    """Response of a polycrystal to one strain path.

    Attributes:
        stress: Mean Cauchy stress (T, 6), Pa, in the frame of the stretch; order 11, 22, 33, 12, 23, 13.
        grains: Histories of the grains.
    """

    stress: np.ndarray
    grains: list[ReferenceGrain]


def reference_crystal(systems: Any) -> ReferenceCrystal:
    """Return the constants of `micro.crystal.systems.crystal_systems` for the reference.

    Only directions, normals and material constants are taken: a Schmid tensor of the parent is s (x) m, from which a
    singular value decomposition returns s and m (their common sign does not matter).

    Args:
        systems: The constants of a crystal.
    """

    def array(name: str) -> np.ndarray:
        return np.asarray(getattr(systems, name), dtype=float)

    def factors(tensors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        u, size, vt = np.linalg.svd(tensors.reshape(len(tensors), 3, 3))
        return u[:, :, 0], vt[:, 0, :], size[:, 0]

    s, m, _ = factors(array("slip")[:, 0])
    twin_s, twin_m, shear = factors(array("twin"))
    return ReferenceCrystal(
        s,
        m,
        twin_s,
        twin_m,
        array("tau_0"),
        array("rate_0"),
        array("h"),
        array("sigma_inf"),
        array("r_0"),
        array("v"),
        exponent=float(systems.slip_exponent),
        twin_shear=float(shear[0]) if len(shear) else 0.0,
        twin_tau_0=float(systems.twin_tau_0),
        twin_rate_0=float(systems.twin_rate_0),
        twin_h=float(systems.twin_h),
        twin_k=float(systems.twin_k),
        twin_exponent=float(systems.twin_exponent),
        G=float(systems.parameters.G),
        lambda_e=float(systems.parameters.lambda_e),
    )


def domain_schmid(crystal: ReferenceCrystal) -> np.ndarray:
    """Return the Schmid tensors (1 + n_t, n, 3, 3) of slip in the parent and in the twins.

    The lattice of a twin is that of the parent turned by 180 degrees about the normal of the twin plane.
    """
    parent = np.einsum("ai,aj->aij", crystal.s, crystal.m)
    turns = 2 * np.einsum("bi,bj->bij", crystal.twin_m, crystal.twin_m) - np.eye(3)
    return np.concatenate([parent[None], np.einsum("bij,ajk,blk->bail", turns, parent, turns)])


def cooperating_signs(schmid: np.ndarray) -> np.ndarray:
    """Return a sign (1 + n_t, n) per twin and system with which the shears of parent and twin have a positive product.

    Only the slip model "common" depends on these signs; they are one choice among several.
    """
    symmetric = (schmid + np.swapaxes(schmid, -1, -2)) / 2
    return np.where(np.einsum("daij,aij->da", symmetric, symmetric[0]) < 0, -1.0, 1.0)


def rate_equations(
    crystal: ReferenceCrystal, slip: str = "domains", signs: np.ndarray | None = None, threshold: float = 0.0
) -> Callable[[np.ndarray, np.ndarray, bool], np.ndarray]:
    """Return the function (C, y, full) -> dy/dt of one grain.

    Its state y (9 + n + n_t, k) holds F_in, e and lambda in k columns, C (3, 3) is in the crystal's frame, and `full`
    says that the crystal has twinned completely, so that no twin grows any more.

    Args:
        crystal: Directions and constants.
        slip: "domains": parent and twins slip at their own rates; "common": one rate for all, as (A.10) is printed;
            "parent": as "common", but the twinned volume keeps the lattice of the parent.
        signs: Signs (1 + n_t, n) of the slip directions in the twins, for "common"; `cooperating_signs` by default.
        threshold: Fraction below which a twin does not slip, for "domains"; it shows what such a rule costs.

    Raises:
        ValueError: `slip` is not one of the three.
    """
    if slip not in SLIPS:
        raise ValueError(f"slip must be 'domains', 'common' or 'parent', got {slip!r}.")
    n, n_t = len(crystal.s), len(crystal.twin_s)
    schmid = domain_schmid(crystal)
    if slip == "common":
        schmid = schmid * (cooperating_signs(schmid) if signs is None else signs)[:, :, None, None]
    if slip == "parent":
        schmid = np.broadcast_to(schmid[:1], schmid.shape)
    schmid9 = schmid.reshape((1 + n_t) * n, 9)
    twin9 = crystal.twin_shear * np.einsum("bi,bj->bij", crystal.twin_s, crystal.twin_m).reshape(n_t, 9)
    tau_0, rate_0, h, sigma_inf, r_0, v = (
        a[:, None] for a in (crystal.tau_0, crystal.rate_0, crystal.h, crystal.sigma_inf, crystal.r_0, crystal.v)
    )
    own = slip == "domains"

    def rates(C: np.ndarray, y: np.ndarray, full: bool) -> np.ndarray:
        k = y.shape[1]
        F_in, e, lam = y[:9].T.reshape(k, 3, 3), y[9 : 9 + n], y[9 + n :]
        B = np.linalg.inv(F_in)
        C_e = np.swapaxes(B, 1, 2) @ C @ B
        C_e = C_e / np.linalg.det(C_e)[:, None, None] ** (1 / 3)
        M = crystal.G * C_e.reshape(k, 9).T  # its trace does no work on any trace-free tensor
        total = lam.sum(0)
        w = np.concatenate([1 - total[None], lam])
        force = (schmid9 @ M).reshape(1 + n_t, n, k)
        r = r_0 + sigma_inf * (1 - np.exp(-h * e / sigma_inf)) + v * ((v * e).sum(0) - v * e)
        if own:
            gdot = rate_0 * (np.maximum(np.abs(force) - r, 0) / tau_0) ** crystal.exponent * np.sign(force)
            volume = w if threshold == 0 else np.concatenate([w[:1], lam * (lam > threshold)])
            flow = volume[:, None] * gdot
            edot = np.abs(flow).sum(0)
        else:
            force = (w[:, None] * force).sum(0)
            gdot = rate_0 * (np.maximum(np.abs(force) - r, 0) / tau_0) ** crystal.exponent * np.sign(force)
            flow, edot = w[:, None] * gdot, np.abs(gdot)
        r_t = crystal.twin_h * lam + 2 * crystal.twin_k * (total - lam)
        y_t = np.maximum(twin9 @ M - r_t, 0) / crystal.twin_tau_0
        lamdot = crystal.twin_rate_0 * y_t**crystal.twin_exponent * (not full)
        L = (schmid9.T @ flow.reshape((1 + n_t) * n, k) + twin9.T @ lamdot).T.reshape(k, 3, 3)
        return np.concatenate([(L @ F_in).reshape(k, 9).T, edot, lamdot])

    return rates


def right_side(
    rates: Callable[[np.ndarray, np.ndarray, bool], np.ndarray],
    begin: np.ndarray,
    end: np.ndarray,
    T: float,
    full: bool,
) -> Callable[[float, np.ndarray], np.ndarray]:
    """Return dy/dt over one segment of a path, in which C goes from `begin` to `end` (3, 3) while t goes from 0 to 1.

    Args:
        rates: The function of `rate_equations`.
        begin: C at the start of the segment.
        end: C at its end.
        T: Duration of the segment, s.
        full: Whether the crystal has twinned completely.
    """

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        now = begin + t * (end - begin)
        return T * rates(now, y, full) if y.ndim == 2 else T * rates(now, y[:, None], full)[:, 0]

    return rhs


def solve_grain(
    crystal: ReferenceCrystal,
    C: np.ndarray,
    time: np.ndarray,
    *,
    slip: str = "domains",
    signs: np.ndarray | None = None,
    threshold: float = 0.0,
    rtol: float = RTOL,
    method: str = "Radau",
) -> ReferenceGrain:
    """Integrate one grain, virgin at the first instant.

    Args:
        crystal: Directions and constants.
        C: F^T F (T, 3, 3) at the given instants, in the crystal's frame, the identity at the first.
        time: The instants (T,), s.
        slip: Model of slip in twins; see `rate_equations`.
        signs: Signs of slip in twins, for "common".
        threshold: Fraction below which a twin does not slip.
        rtol: Relative tolerance; the absolute ones shrink with it where it is below the default.
        method: Implicit method of `scipy.integrate.solve_ivp`: "Radau" or "BDF".

    Raises:
        ValueError: The shapes of C and time do not fit together.
        RuntimeError: The integration stopped before the last instant.
    """
    if C.ndim != 3 or C.shape[1:] != (3, 3) or time.shape != C.shape[:1]:
        raise ValueError(f"C must have shape (T, 3, 3) and time (T,), got {C.shape}, {time.shape}.")
    n, n_t, rates = len(crystal.s), len(crystal.twin_s), rate_equations(crystal, slip, signs, threshold)
    atol = np.concatenate([np.full(9, ATOL_F), np.full(n, ATOL_E), np.full(n_t, ATOL_LAM)]) * min(1.0, rtol / RTOL)
    y = np.concatenate([np.eye(3).ravel(), np.zeros(n + n_t)])

    def untwinned(t: float, y: np.ndarray) -> float:
        return 1.0 - y[9 + n :].sum()

    untwinned.terminal = True  # type: ignore[attr-defined]
    history, full, evaluations, step = [y], n_t == 0, 0, 0.0
    for k in range(1, len(time)):
        T, begin, end = time[k] - time[k - 1], C[k - 1], C[k]
        at = 0.0
        while at < 1.0:
            rhs = right_side(rates, begin, end, T, full)
            options: dict[str, Any] = {"rtol": rtol, "atol": atol, "first_step": min(step / T, 1.0 - at) or None}
            events = None if full else untwinned
            # A trial state of the iteration may lie beyond all bounds; the method then takes a smaller step.
            with np.errstate(over="ignore", invalid="ignore"):
                solution = solve_ivp(rhs, (at, 1.0), y, method, vectorized=True, events=events, **options)
            if solution.status < 0:
                raise RuntimeError(f"The reference stopped in step {k} of the path: {solution.message}")
            evaluations += solution.nfev
            y, at = solution.y[:, -1], float(solution.t[-1])
            full = full or solution.status == 1
            step = T * float(np.diff(solution.t)[-2:].max())  # the last one is cut by the end of the segment
        history.append(y)
    rows = np.array(history)
    return ReferenceGrain(rows[:, :9].reshape(-1, 3, 3), rows[:, 9 : 9 + n], rows[:, 9 + n :], evaluations)


def cauchy(crystal: ReferenceCrystal, F: np.ndarray, F_in: np.ndarray) -> np.ndarray:
    """Return the Cauchy stress (T, 3, 3), Pa, of the deformation F (T, 3, 3), Eqs. (A.3), (A.8)."""
    A = F @ np.linalg.inv(F_in)
    J = np.linalg.det(A)[:, None, None]
    b = A @ np.swapaxes(A, 1, 2)
    mean = np.trace(b, axis1=1, axis2=2)[:, None, None] / 3
    return crystal.G * J ** (-5 / 3) * (b - mean * np.eye(3)) + 2 * crystal.lambda_e * (J - 1) * np.eye(3)


def full_tensor(components: np.ndarray) -> np.ndarray:
    """Return symmetric tensors (..., 3, 3) of components (..., 6) in the order 11, 22, 33, 12, 23, 13."""
    tensor = np.empty((*components.shape[:-1], 3, 3))
    for a, (i, j) in enumerate(_COMPONENTS):
        tensor[..., i, j] = tensor[..., j, i] = components[..., a]
    return tensor


def solve_polycrystal(
    crystal: ReferenceCrystal,
    orientations: np.ndarray,
    U: np.ndarray,
    time: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    slip: str = "domains",
    signs: np.ndarray | None = None,
    threshold: float = 0.0,
    rtol: float = RTOL,
    method: str = "Radau",
) -> ReferenceResult:
    """Return the Taylor mean of the grains along one path of the stretch.

    Args:
        crystal: Directions and constants.
        orientations: Rotations (g, 3, 3) from the frames of the crystals to that of the sample.
        U: Right stretch (T, 6), the identity at the first instant; order 11, 22, 33, 12, 23, 13.
        time: Instants (T,), s.
        weights: Weights of the grains (g,), summing to one; equal by default.
        slip, signs, threshold, rtol, method: See `solve_grain`.
    """
    F = full_tensor(U)
    weights = np.full(len(orientations), 1 / len(orientations)) if weights is None else weights
    grains, stress = [], np.zeros((len(U), 3, 3))
    for q, weight in zip(orientations, weights, strict=True):
        F_c = q.T @ F @ q
        C = np.swapaxes(F_c, 1, 2) @ F_c
        grain = solve_grain(crystal, C, time, slip=slip, signs=signs, threshold=threshold, rtol=rtol, method=method)
        grains.append(grain)
        stress += weight * (q @ cauchy(crystal, F_c, grain.F_in) @ q.T)
    return ReferenceResult(np.stack([stress[:, i, j] for i, j in _COMPONENTS], axis=-1), grains)
