"""Multiplicative von Mises plasticity: radial return on the isochoric elastic strain, with its exact tangent.

State of a point, seven numbers: the inverse plastic metric C_p^-1 (11, 22, 33, 12, 23, 13; determinant 1) in the
reference configuration, then the equivalent plastic strain e. A law with adiabatic heating adds the temperature T, K.

    b = F_bar C_p^-1 F_bar^T,  F_bar = J^(-1/3) F          trial isochoric elastic strain
    s = G dev b,  q = sqrt(3/2) |s|                        trial stress, Kirchhoff
    q - 3 (G tr b / 3) De - Y(e_n + De, De/dt) = 0         consistency, solved by a safeguarded Newton iteration
    s <- s (1 - 3 (G tr b / 3) De / q)

The new b has deviator s/G and the trace that makes its determinant 1 (Simo keeps the trial trace, which lets the
determinant drift). Flow stress:

    Y = H(e) (1 + C ln(max(De/(dt r), 1))) (1 - theta^m),      H(e) = Y0 + B e^N + Q (1 - exp(-d e))

with the homologous temperature theta = (T - T_0)/(T_m - T_0) at the end of the step, T = T_n + eta Y De/(rho c_p).
Y is compared with the Kirchhoff stress, or, at choice, with the Cauchy stress: then J Y takes the place of Y.

References:
    Simo (1988), 10.1016/0045-7825(88)90076-X; Simo and Hughes (1998), box 9.1 and section 9.3.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fem.laws.kernels import compiled, energy, invert, pull_back, push, stress_rate
from fem.laws.law import check

STATE_SIZE = 7
MECHANICAL = 7  # parameters of the flow stress without heating; four follow with it
_PAIRS = np.array([[0, 0], [1, 1], [2, 2], [0, 1], [1, 2], [0, 2]])
ITERATIONS = 80


class Constants(Protocol):
    """What this update requires of a law: moduli in Pa, and the parameters p of `flow_stress`."""

    shear_modulus: float
    bulk_modulus: float
    parameters: np.ndarray
    state_size: int
    cauchy: bool


def virgin(n: int) -> np.ndarray:
    """Virgin state of n points, (n, 7)."""
    state = np.zeros((n, STATE_SIZE))
    state[:, :3] = 1.0
    return state


@compiled
def flow_stress(e: float, De: float, dt: float, p: np.ndarray) -> tuple[float, float]:
    """Flow stress Y (Pa) at plastic strain e reached by an increment De in dt, and its total derivative to De.

    Args:
        e: Equivalent plastic strain at the end of the step.
        De: Its increment.
        dt: Time step, s; 0 switches the rate off.
        p: Y0, B, N, Q, d, C, r.
    """
    Y0, B, N, Q, d, C, r = p[0], p[1], p[2], p[3], p[4], p[5], p[6]
    hardening = Y0
    slope = 0.0
    if B != 0.0:
        if e > 0.0:
            power = B * e**N
            hardening += power
            slope += N * power / e
        else:
            slope = B if N == 1.0 else np.inf
    if Q != 0.0:
        decay = np.exp(-d * e)
        hardening += Q * (1.0 - decay)
        slope += Q * d * decay
    if C > 0.0 and dt > 0.0 and De > r * dt:
        factor = 1.0 + C * np.log(De / (r * dt))
        return hardening * factor, slope * factor + hardening * C / De
    return hardening, slope


@compiled
def heated_flow_stress(e: float, De: float, dt: float, p: np.ndarray, T: float) -> tuple[float, float]:
    """As `flow_stress`, softened by the heat of the step.

    Args:
        e: Equivalent plastic strain at the end of the step.
        De: Its increment.
        dt: Time step, s.
        p: Parameters of `flow_stress`, then, for a law with heating, m, eta/(rho c_p) (m^3 K/J), T_0 and T_m - T_0 (K).
        T: Temperature at the start of the step, K; without heating it has no effect.
    """
    Y, slope = flow_stress(e, De, dt, p)
    if p.shape[0] == MECHANICAL:
        return Y, slope
    m, heat, T_0, span = p[7], p[8], p[9], p[10]
    found, softer, change = Y, 1.0, 0.0
    for _ in range(50):  # found = Y (1 - theta(found)^m): the left side grows, the right side falls
        theta = (T - T_0 + heat * found * De) / span
        softer, change = 1.0, 0.0
        if theta >= 1.0:
            softer = 0.0
        elif theta > 0.0:
            power = theta**m
            softer, change = 1.0 - power, m * power / theta * heat / span
        step = (Y * softer - found) / (1.0 + Y * change * De)
        found = max(found + step, 0.0)
        if abs(step) <= 1e-15 * Y:
            break
    return found, (slope * softer - Y * change * found) / (1.0 + Y * change * De)


@compiled
def plastic_increment(q: float, G3: float, e: float, dt: float, p: np.ndarray, T: float = 0.0) -> float:
    """Root De of q - G3 De - Y(e + De, De/dt) = 0 for a trial stress q above the flow stress; nan if there is none.

    Without heating the left side falls strictly, from q - Y > 0 at De = 0 to at most 0 at (q - Y)/G3: a bracket. With
    heating Y may fall, and the bracket ends at q/G3. Newton steps that leave it (the slope of e^N is infinite at e = 0)
    are replaced by bisection.
    """
    low = 0.0
    De = (q - heated_flow_stress(e, 0.0, dt, p, T)[0]) / G3
    high = De if p.shape[0] == MECHANICAL else q / G3
    residual = np.inf
    for _ in range(ITERATIONS):
        Y, slope = heated_flow_stress(e + De, De, dt, p, T)
        residual = q - G3 * De - Y
        if abs(residual) <= 1e-15 * q:
            return De
        if residual > 0.0:
            low = De
        else:
            high = De
        new = De + residual / (G3 + slope)
        if not (new > low and new < high):
            new = np.sqrt(max(low, 1e-8 * high) * high)  # geometric: a root of e^N may lie many decades down
        if abs(new - De) <= 2e-16 * new:
            return new
        De = new
    return De if abs(residual) <= 1e-10 * q else np.nan


@compiled
def isochoric_mean(s: np.ndarray, G: float, start: float) -> float:
    """The x that gives det(s/G + x I) = 1 for a deviator s: largest root of x^3 - |s/G|^2 x / 2 + det(s/G) = 1."""
    half = 0.0
    for i in range(3):
        for j in range(3):
            half += 0.5 * (s[i, j] / G) ** 2
    det = (
        s[0, 0] * (s[1, 1] * s[2, 2] - s[1, 2] * s[2, 1])
        - s[0, 1] * (s[1, 0] * s[2, 2] - s[1, 2] * s[2, 0])
        + s[0, 2] * (s[1, 0] * s[2, 1] - s[1, 1] * s[2, 0])
    ) / G**3
    x = start  # the trial mean is above the root, and the cubic is convex there: Newton converges to it monotonically
    for _ in range(50):
        step = ((x * x - half) * x + det - 1.0) / (3.0 * x * x - half)
        x -= step
        if abs(step) <= 1e-15 * abs(x):
            break
    return x


@compiled
def evaluate(
    F: np.ndarray,
    state: np.ndarray,
    dt: float,
    G: float,
    K: float,
    p: np.ndarray,
    P: np.ndarray,
    new: np.ndarray,
    dP_dF: np.ndarray,
    cauchy: bool = False,
) -> None:
    """Fill P (n, 3, 3) and the new state (n, 7 or 8), and dP_dF (n, 3, 3, 3, 3) unless it is empty."""
    Fbar, F_inv, Fb_inv, M = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    b, s, flow, tau = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    L, db, d_tau, dP = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    with_tangent = dP_dF.shape[0] > 0
    for n in range(F.shape[0]):
        J = invert(F[n], F_inv)
        scale = J ** (-1.0 / 3.0)
        for i in range(3):
            for j in range(3):
                Fbar[i, j] = scale * F[n, i, j]
                Fb_inv[i, j] = F_inv[i, j] / scale
        for a in range(6):
            i, j = _PAIRS[a, 0], _PAIRS[a, 1]
            M[i, j] = state[n, a]
            M[j, i] = state[n, a]
        push(Fbar, M, b)
        mean = (b[0, 0] + b[1, 1] + b[2, 2]) / 3.0
        square = 0.0
        for i in range(3):
            for j in range(3):
                s[i, j] = G * (b[i, j] - (mean if i == j else 0.0))
                square += s[i, j] * s[i, j]
        q = np.sqrt(1.5 * square)
        e = state[n, 6]
        T = state[n, 7] if state.shape[1] > STATE_SIZE else 0.0
        De = 0.0
        scaled = J if cauchy else 1.0
        if q > scaled * heated_flow_stress(e, 0.0, dt, p, T)[0]:
            De = plastic_increment(q / scaled, 3.0 * G * mean / scaled, e, dt, p, T)
        pressure = K * (J - 1.0) * J
        shrink = 1.0
        if De == 0.0:
            for a in range(state.shape[1]):
                new[n, a] = state[n, a]
        else:
            shrink = 1.0 - 3.0 * G * mean * De / q
            for i in range(3):
                for j in range(3):
                    flow[i, j] = s[i, j] / q  # |flow|^2 = 2/3
                    s[i, j] *= shrink
            x = isochoric_mean(s, G, mean)
            for i in range(3):
                for j in range(3):
                    M[i, j] = s[i, j] / G + (x if i == j else 0.0)
            push(Fb_inv, M, db)
            for a in range(6):
                new[n, a] = db[_PAIRS[a, 0], _PAIRS[a, 1]]
            new[n, 6] = e + De
            if state.shape[1] > STATE_SIZE:
                new[n, 7] = T + p[8] * shrink * q * De
        for i in range(3):
            for j in range(3):
                tau[i, j] = s[i, j] + (pressure if i == j else 0.0)
        pull_back(tau, F_inv, P[n])
        if not with_tangent:
            continue
        Y, slope = heated_flow_stress(e + De, De, dt, p, T)
        for k in range(3):
            for m in range(3):
                # dF = e_k e_m^T, so L = dF F^-1 has one row; db is the change of the trial strain.
                for i in range(3):
                    for j in range(3):
                        L[i, j] = F_inv[m, j] if i == k else 0.0
                volume = F_inv[m, k]
                for i in range(3):
                    for j in range(3):
                        db[i, j] = (
                            L[i, 0] * b[0, j] + L[i, 1] * b[1, j] + L[i, 2] * b[2, j]
                            + b[i, 0] * L[j, 0] + b[i, 1] * L[j, 1] + b[i, 2] * L[j, 2]
                            - 2.0 / 3.0 * volume * b[i, j]
                        )
                d_mean = (db[0, 0] + db[1, 1] + db[2, 2]) / 3.0
                for i in range(3):
                    db[i, i] -= d_mean
                change = 0.0
                if De != 0.0:
                    dq = 0.0
                    for i in range(3):
                        for j in range(3):
                            dq += 1.5 * flow[i, j] * G * db[i, j]
                    dDe = dq - 3.0 * G * d_mean * De - (J * Y * volume if cauchy else 0.0)
                    dDe /= 3.0 * G * mean + scaled * slope
                    # change of the factor `shrink`
                    change = -3.0 * G * (d_mean * De + mean * dDe - mean * De * dq / q) / q
                for i in range(3):
                    for j in range(3):
                        d_tau[i, j] = shrink * G * db[i, j]
                        if De != 0.0:
                            d_tau[i, j] += change * q * flow[i, j]
                    d_tau[i, i] += K * (2.0 * J - 1.0) * J * volume
                stress_rate(tau, d_tau, L, F_inv, dP)
                for i in range(3):
                    for j in range(3):
                        dP_dF[n, i, j, k, m] = dP[i, j]


@compiled
def stored(F: np.ndarray, state: np.ndarray, G: float, K: float, W: np.ndarray) -> None:
    """Fill W (n,) with the elastic energy, J/m^3."""
    Fbar, F_inv, M, b = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for n in range(F.shape[0]):
        J = invert(F[n], F_inv)
        for i in range(3):
            for j in range(3):
                Fbar[i, j] = J ** (-1.0 / 3.0) * F[n, i, j]
        for a in range(6):
            M[_PAIRS[a, 0], _PAIRS[a, 1]] = state[n, a]
            M[_PAIRS[a, 1], _PAIRS[a, 0]] = state[n, a]
        push(Fbar, M, b)
        W[n] = energy(b, J, G, K)


def respond(
    law: Constants, F: np.ndarray, state: np.ndarray, dt: float, *, tangent: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P (n, 3, 3), new state (n, k) and dP_dF (n, 3, 3, 3, 3; empty without `tangent`) of a law with this update."""
    F, state = check(F, state, law.state_size)
    P, new, dP_dF = np.empty_like(F), np.empty_like(state), np.empty((len(F) if tangent else 0, 3, 3, 3, 3))
    evaluate(F, state, float(dt), law.shear_modulus, law.bulk_modulus, law.parameters, P, new, dP_dF, law.cauchy)
    return P, new, dP_dF


def stored_energy(law: Constants, F: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Elastic energy of the points of a law with this update, (n,), J/m^3."""
    F, state = check(F, state, law.state_size)
    W = np.empty(len(F))
    stored(F, state, law.shear_modulus, law.bulk_modulus, W)
    return W


class PlasticLaw:
    """Abstract multiplicative plasticity; a final law adds its constants and its name.

    Args:
        parameters: Constants of the flow stress, (7,) or (11,), in the order of `heated_flow_stress`.
        shear_modulus: G, Pa.
        bulk_modulus: K, Pa.
        density: Reference density, kg/m^3.
    """

    strain, dimension = "finite", 3
    state_size, cauchy = STATE_SIZE, False
    observed: tuple[str, ...] = ("equivalent_plastic_strain",)

    def __init__(
        self, parameters: list[float], *, shear_modulus: float, bulk_modulus: float, density: float
    ) -> None:
        self.shear_modulus = float(shear_modulus)
        self.bulk_modulus = float(bulk_modulus)
        self.density = float(density)
        self.parameters = np.array(parameters, dtype=np.float64)
        if len(parameters) > MECHANICAL:
            self.state_size, self.observed = STATE_SIZE + 1, (*self.observed, "temperature")

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, 7); (n, 8) with the temperature T_0 (K) of a law with heating."""
        state = virgin(n)
        return state if self.state_size == STATE_SIZE else np.column_stack([state, np.full(n, self.parameters[9])])

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and the new state, for F (n, 3, 3) reached in dt (s)."""
        P, new, _ = respond(self, F, state, dt, tangent=False)
        return P, new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, 3, 3, 3, 3), Pa, with dP_dF[n, i, j, k, l] = dP_ij / dF_kl."""
        return respond(self, F, state, dt, tangent=True)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Equivalent plastic strain, (n, 1), and the temperature (K) of a law with heating, (n, 2)."""
        return state[:, 6:]

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Elastic energy at each point, (n,), J/m^3 (nothing is stored by hardening)."""
        return stored_energy(self, F, state)

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Plastic work (n,), J/m^3, where the state alone gives it; a law with a rate effect returns None."""
        return None
