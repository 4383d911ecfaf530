"""The certificate of a law: is its tangent the derivative, symmetric, positive, does Newton's method work with it, and
does the law agree with itself?

A consistent tangent alone does not make Newton converge with a network. `certify` needs no data: it drives the law
along seeded random strain paths within its range, evaluates it in float64, and solves small patches of elements. The
result is the group `certificate` of the manifest, numbers and flags only, with the settings that reproduce it. What
each entry means: docs/guides/certificate.md.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surrogates.artifact import tangent
from surrogates.artifact.contract import complete, describe
from surrogates.artifact.load import switch_fusion_off
from surrogates.artifact.patch_test import LoadStep, make_patch, pull
from surrogates.artifact.schema import Manifest
from surrogates.artifact.self_consistency import self_consistency

Entries = dict[str, float | bool]
STEPS, EVERY = 12, 3  # of a path; its direction changes, and differences are taken, every third
LOADS = (0.1, 0.2, 0.4, 0.8)  # stretch of the patches relative to the strain of the range
LOAD_STEPS = 3
PAUSE = 1e-9  # of a step without strain, over dt: a law may relax in time, but not without time
SETTINGS = ("strain_max", "dt", "seed", "points", "stress_scale")
# How far a certificate computed elsewhere may be off: (relative, absolute).
TOLERANCES = {
    "tangent_difference": (10.0, 1e-8),
    "asymmetry": (1e-3, 1e-9),
    "eigenvalue_min": (1e-3, 1e-6),
    "virgin_stress": (1e-2, 1e-3),
    "eigenvalue_negative": (0.0, 0.01),
    "zero_increment": (1e-2, 1e-12),
    "zero_increment_stress": (1e-2, 1e-12),
    "newton_order_element": (0.0, 0.3),
    "newton_order_patch": (0.0, 0.3),
    "newton_iterations_element": (0.0, 1.0),
    "newton_iterations_patch": (0.0, 1.0),
    "newton_strain": (1e-6, 0.0),
    "dissipated": (1e-3, 1e-9),
    "kinks": (0.0, 0.01),
    "self_consistency": (1e-2, 1e-9),
    "self_consistency_stress": (0.05, 1e-6),
    "closed_loop": (0.05, 1e-6),
    "self_consistency_uniaxial": (0.05, 1e-6),
}
#: Entries that older certificates lack.
LATER = ("self_consistency", "self_consistency_stress", "closed_loop", "self_consistency_uniaxial")


def certify(
    law: Any, *, strain: str | None = None, dimension: int | None = None, strain_max: float | None = None,
    dt: float | None = None, stress_scale: float | None = None, seed: int = 0, points: int = 24,
    against_itself: bool = False,
) -> Entries:  # fmt: skip
    """Certificate of a law.

    A law of your own describes itself by its attributes (`surrogates.artifact.contract`), so that `certify(law)` is
    enough.

    Args:
        law: anything with the artifact's `initial_state`, `forward` and `tangent`: scripted, loaded or eager; a module
            without `tangent` is differentiated automatically. A module is evaluated in float64, a copy of it; the
            virgin stress as given, too.
        strain: "small" or "finite"; None takes the law's attribute.
        dimension: d, 2 or 3; None takes the law's attribute.
        strain_max: norm of the strain that the law is meant for (of E, or of the logarithmic strain); None takes
            the law's attribute.
        dt: time step, s, of every step taken here; None takes the law's attribute, else 1 s.
        stress_scale: Pa, a stress that counts as one: changes of stress are relative to it; None for 2 G strain_max.
        seed: of the random paths and of the distortion of the patch.
        points: random paths; their amplitudes spread from a thousandth of `strain_max` to all of it.
        against_itself: whether the law is compared with itself as well, in some 5000 steps.

    Returns:
        The entries that docs/guides/certificate.md describes: `tangent_difference`, `kinks`, `asymmetry`, `symmetric`,
        `eigenvalue_min`, `eigenvalue_negative`, `virgin_stress` (Pa), `zero_increment`, `zero_increment_stress`;
        `newton_order_element`, `newton_iterations_element`, the same `_patch`, `newton_strain`, `dissipated`;
        `self_consistency`, `self_consistency_stress`, `closed_loop`, `self_consistency_uniaxial`; and the settings.

    Raises:
        ValueError: an argument does not fit, or the law gives a value that is not finite within its range.
    """
    if strain is None or dimension is None or strain_max is None or dt is None or stress_scale is None:
        about = describe(law)
        strain, dimension = strain or about.strain, dimension or about.dimension
        strain_max = about.strain_max if strain_max is None else strain_max
        dt = about.time_step if dt is None else dt
        stress_scale = 2 * about.shear_modulus * strain_max if stress_scale is None else stress_scale
    if isinstance(law, torch.nn.Module):
        law = complete(law)
    _check(strain, dimension, {"strain_max": strain_max, "dt": dt, "stress_scale": stress_scale, "points": points})
    switch_fusion_off()
    virgin_stress = _virgin_stress(law, dimension, dt)
    if isinstance(law, torch.nn.Module):
        with torch.no_grad():  # otherwise a copy of a scripted module would refer to its original
            law = copy.deepcopy(law).double()
        virgin_stress = max(virgin_stress, _virgin_stress(law, dimension, dt))
    F = random_paths(strain, dimension, strain_max, points=points, seed=seed)
    found: Entries = _along(law, F, dt, strain_max, stress_scale, finite=strain == "finite")
    found["virgin_stress"] = virgin_stress
    found |= _newton(law, dimension, strain_max, dt, seed)
    if against_itself:
        found |= self_consistency(law, strain=strain, dimension=dimension, strain_max=strain_max, dt=dt)
    settings = {"strain_max": strain_max, "dt": dt, "seed": seed, "points": points, "stress_scale": stress_scale}
    for name, value in found.items():
        if not math.isfinite(value):
            raise ValueError(f"The law cannot be certified: its {name} is not finite within its range.")
    return found | settings


def _check(strain: str, dimension: int, positive: Mapping[str, float]) -> None:
    if strain not in ("small", "finite") or dimension not in (2, 3):
        raise ValueError(f"strain must be small or finite and dimension 2 or 3, got {strain!r} and {dimension}.")
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value}.")


def random_paths(strain: str, d: int, strain_max: float, *, points: int, seed: int) -> Tensor:
    """F (T, n, d, d) along paths that start at the identity and turn to a random strain every third step.

    Small strain: F = I + E + W with E in the range and W, a rotation that must not matter, as large. Finite strain:
    F = R exp(H), |H| in the range, its spherical part at most a tenth, R turning by up to one radian.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    knots = STEPS // EVERY
    drawn = rng.normal(size=(2, knots, points, d, d))
    size = rng.uniform(0.3, 1.0, (knots, points, 1, 1)) * np.geomspace(1e-3, 1.0, points)[:, None, None]
    H = 0.5 * (drawn[0] + drawn[0].swapaxes(-1, -2))
    if strain == "finite":
        # Polycrystals, metals and rubber resist volume far more than shape: in use they mainly change shape.
        trace = np.trace(H, axis1=-2, axis2=-1)[..., None, None]
        H = H - trace / d * np.eye(d)
        H = H / np.linalg.norm(H, axis=(-2, -1), keepdims=True) + 0.1 * np.tanh(trace) / math.sqrt(d) * np.eye(d)
    H = strain_max * size * H / np.linalg.norm(H, axis=(-2, -1), keepdims=True)
    W = 0.5 * (drawn[1] - drawn[1].swapaxes(-1, -2))
    W = W / np.linalg.norm(W, axis=(-2, -1), keepdims=True)
    W = W * (1.0 if strain == "finite" else strain_max * size)
    at, s = np.divmod(np.arange(1, STEPS + 1) - 1, EVERY)
    s = ((s + 1) / EVERY)[:, None, None, None]
    H, W = (np.concatenate([0 * A[:1], A]) for A in (H, W))
    H, W = ((1 - s) * A[at] + s * A[at + 1] for A in (H, W))
    if strain == "small":
        return torch.from_numpy(np.eye(d) + H + W)
    return torch.matrix_exp(torch.from_numpy(W)) @ torch.matrix_exp(torch.from_numpy(H))


def _virgin_stress(law: Any, d: int, dt: float) -> float:
    F = torch.eye(d, dtype=torch.float64).repeat(3, 1, 1)
    with torch.no_grad():
        return float(law.forward(F, law.initial_state(3), dt)[0].abs().max())


def _finite(dP_dF: Tensor) -> Tensor:
    if not bool(torch.isfinite(dP_dF).all()):
        raise ValueError("The law cannot be certified: its tangent is not finite within its range.")
    return dP_dF


def _along(law: Any, F: Tensor, dt: float, strain_max: float, stress_scale: float, *, finite: bool) -> Entries:
    """Entries that are found along the random paths F (T, n, d, d)."""
    T, n, d = F.shape[:3]
    eye = torch.eye(d, dtype=torch.float64).repeat(1, 1, 1)
    virgin = _finite(law.tangent(eye, law.initial_state(1), dt)[2])
    elastic = float(tangent.smallest_eigenvalue(virgin, eye, finite=finite))
    worst, skew, kinks, stress_change = 0.0, tangent.asymmetry(virgin), 0.0, 0.0
    eigenvalues, states, changes = [torch.tensor([elastic], dtype=torch.float64)], [], []
    state = law.initial_state(n)
    for k in range(T):
        P, new_state, dP_dF = law.tangent(F[k], state, dt)
        skew = max(skew, tangent.asymmetry(_finite(dP_dF)))
        eigenvalues.append(tangent.smallest_eigenvalue(dP_dF, F[k], finite=finite))
        if k % EVERY == EVERY - 1:
            found, kink = tangent.differences(law, F[k], state, dt, strain_max)
            worst = max(worst, tangent.difference(dP_dF, found, kink))
            kinks += float(kink.double().mean()) * EVERY / T
        with torch.no_grad():
            again, last = law.forward(F[k], new_state, PAUSE * dt)
        stress_change = max(stress_change, float((again - P).abs().max()) / stress_scale)
        states.append(new_state.abs().amax(dim=0))
        changes.append((last - new_state).abs().amax(dim=0))
        state = new_state
    size = torch.stack(states).amax(dim=0)
    change = torch.stack(changes).amax(dim=0) / torch.where(size > 0, size, torch.ones_like(size))
    eigenvalue = torch.cat(eigenvalues)
    return {
        "tangent_difference": worst,
        "kinks": kinks,
        "asymmetry": skew,
        "symmetric": skew < 1e-6,
        "eigenvalue_min": float(eigenvalue.min()) / max(abs(elastic), 1e-12 * float(virgin.abs().max()), 1e-300),
        "eigenvalue_negative": float((eigenvalue < 0).double().mean()),
        "zero_increment": max([stress_change, *change.tolist()]),
        "zero_increment_stress": stress_change,
    }


def dissipated_fraction(law: Any, d: int, shear: float, dt: float) -> float:
    """Work of a simple shear and its reversal, as a fraction of the work of the shear.

    By the trapezoidal rule in `LOAD_STEPS` steps each way, so that a law without memory gives 0.
    """
    F, state, last = torch.eye(d, dtype=torch.float64).repeat(1, 1, 1), law.initial_state(1), 0.0
    work = []
    with torch.no_grad():
        for k in [*range(1, LOAD_STEPS + 1), *range(LOAD_STEPS - 1, -1, -1)]:
            new = F.clone()
            new[0, 0, -1] = shear * k / LOAD_STEPS
            P, state = law.forward(new, state, dt)
            work.append(0.5 * (last + float(P[0, 0, -1])) * float(new[0, 0, -1] - F[0, 0, -1]))
            F, last = new, float(P[0, 0, -1])
    put_in = abs(sum(work[:LOAD_STEPS]))
    return sum(work) / put_in if put_in > 0 else 0.0


def _newton(law: Any, d: int, strain_max: float, dt: float, seed: int) -> Entries:
    """Entries that come from Newton's method on an element and on a patch.

    The load is the first of `LOADS` under which the law dissipates a tenth of the work, else the one under which it
    dissipates most, the first if none does. Where Newton fails it is halved, at most thrice.
    """
    fractions = {load: dissipated_fraction(law, d, load * strain_max, dt) for load in LOADS}
    most = max(LOADS, key=lambda load: fractions[load]) if max(fractions.values()) > 1e-6 else LOADS[0]
    load = next((load for load in LOADS if fractions[load] > 0.1), most)
    patches = {"element": make_patch(d, 1), "patch": make_patch(d, 2, distortion=0.2, seed=seed)}
    taken: dict[str, list[LoadStep]] = {}
    for _ in range(4):
        taken = {name: pull(patch, law, load * strain_max, LOAD_STEPS, dt) for name, patch in patches.items()}
        if all(steps[-1].converged for steps in taken.values()):
            break
        load /= 2
    else:
        load *= 2
    found: Entries = {"newton_strain": load * strain_max}
    found["dissipated"] = dissipated_fraction(law, d, load * strain_max, dt)
    for name, steps in taken.items():
        whole = steps[-1].converged
        found[f"newton_order_{name}"] = float(np.median([step.order for step in steps])) if whole else 0.0
        found[f"newton_iterations_{name}"] = max(step.iterations for step in steps)
    return found


def settings(manifest: Manifest, strain_max: float | None = None) -> dict[str, Any]:
    """Arguments of `certify` for a law with this manifest: those of its certificate, else such that fit its range.

    A step of the paths is then a twentieth of the window of a law that has one, else such that a tenth of the largest
    strain takes it at the mean (geometric) of the rates; 1 s for a law without rates.

    Args:
        manifest: Its manifest.
        strain_max: Largest strain of a certificate that is not there yet; None for that of the range.

    Raises:
        ValueError: the manifest does not state the strain that the law is meant for.
    """
    limits, chosen = manifest.range, {"strain": manifest.strain, "dimension": manifest.dimension}
    stored = {name: getattr(manifest.certificate, name) for name in SETTINGS}
    if None not in stored.values():
        return chosen | stored
    strain_max, dt = strain_max or limits.strain_max, 1.0
    if not strain_max or strain_max <= 0:
        raise ValueError(f"field range.strain_max must be positive for a certificate, got {strain_max}.")
    if limits.time_window:
        dt = limits.time_window / 20
    elif limits.rate_max:
        dt = 0.1 * strain_max / math.sqrt(limits.rate_max * (limits.rate_min or 1e-4 * limits.rate_max))
    return chosen | {"strain_max": strain_max, "dt": dt, "stress_scale": 2 * manifest.moduli.shear * strain_max}


def disagreements(stored: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Entries of a stored certificate that differ from those found by more than `TOLERANCES`, or are not there.

    Those of `LATER` may be missing: a certificate of before is still one.
    """
    wrong = []
    for name, value in found.items():
        if name in LATER and name not in stored:
            continue
        relative, absolute = TOLERANCES.get(name, (1e-9, 0.0))
        other = stored.get(name, math.nan)
        if not abs(value - other) <= max(absolute, relative * min(abs(value), abs(other))):
            wrong.append(name)
    return wrong
