# %% [markdown]
# # The crystal law against NEML2's: the same grains, steps and cores
#
# **Why.** NEML2 (https://github.com/applied-material-modeling/neml2) is an open library of material laws that are
# batched in PyTorch and can be compiled. It is the nearest thing to compare our compiled crystal with.
#
# **Problem.** Both codes solve the same equations: fcc crystals of random orientations share one deformation, with
# F = F_e F_p, the 12 systems {111}<110>, isotropic elasticity, the resolved shear stress tau = G dev(F_e^T F_e) : S
# in the intermediate configuration, and the flow rule rate = rate_0 |tau/s|^n sign(tau) with a constant strength s.
# This is ours with r_0 = 0, tau_0 = s, m = 1/n and no hardening, and NEML2's multiplicative formulation
# (`R2Multiplication`, `GreenLagrangeStrain`, `PowerLawSlipRule`). Where the codes harden, their rules differ (here the
# viscous stress is added to the resistance, there the resistance multiplies it), so no hardening is compared. The
# path is tension with simple shear, F = [[l, g, 0], [0, l^-1/2, 0], [0, 0, l^-1/2]], whose volume is constant, so that
# NEML2's elastic law S = 2 G E + ... gives the same resolved stress as ours. What differs is the way: NEML2 takes one
# step of backward Euler between two instants, with Newton's method for the whole batch; ours takes steps of TR-BDF2
# for each grain as its tolerance asks. Between two instants NEML2 sees only F at their ends; ours takes C linear there.
#
# **Numbers.** Microseconds per grain and given step (the fastest of interleaved rounds), their ratio, and the error of
# the mean Cauchy stress of both against ours at 16 times as many instants and a tenth of the tolerance, relative, in
# the norm over all instants. The stress is G dev(F B B^T F^T) for both, with B = F_p^-1 of either code; that of
# NEML2's own elastic law stands beside it. The error of NEML2 must fall by at least 2.4 with 4 times the
# steps: then both have one limit. On a busy machine the time of the threads is the fairer of the two that are printed.
#
# **NEML2's settings.** Unknown: F_p alone, which is the least that its formulation allows. First guess: linear
# extrapolation. Newton's method with line search, without which steps of 1e-3 of strain fail; its tolerance is 1e-7 on
# F_p, far below the error in time. `--route compiled` uses its own ahead-of-time compilation (`neml2-compile`, kept in
# the output folder), `--route eager` its PyTorch operators. The wheel of NEML2 3.1.0 needs PyTorch 2.12.1: with 2.13
# and 2.14 it reads tensors wrongly, with 2.15 it does not load.

# %%
from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

import numpy as np
import torch

from micro.crystal.compiled import CompiledPolycrystal
from micro.crystal.constants import TOLERANCE
from micro.crystal.materials import CrystalParameters, load_material
from micro.crystal.systems import crystal_systems
from micro.data.cli import Parser, check_count, check_folder
from micro.tensors import random_rotations, to_components

MISSING = "NEML2 is missing: install it beside this project with 'pip install neml2==3.1.0 torch==2.12.1 scipy'."
FINER, THEIRS = 16, 4  # times the steps: for the reference, and for the fall of NEML2's error
LOOSER = (1e-3, 1e-2, 3e-2, 1e-1)  # our tolerances at which cost and error are printed
NEWTON = 1e-7  # NEML2's tolerance on F_p

# %% [markdown]
# ## Parameters


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    p = Parser(description="Our crystal against NEML2's.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--grains", nargs="+", type=int, default=[128, 1024, 4096], help="grains, the batch of NEML2")
    p.add_argument("--steps", type=int, default=100, help="given steps of the path")
    p.add_argument("--strain", type=float, default=0.1, help="logarithmic strain, and shear, at the end of the path")
    p.add_argument("--rate", type=float, default=1.0, help="strain rate, 1/s")
    p.add_argument("--strength", type=float, default=80e6, help="strength of the slip systems, Pa")
    p.add_argument("--exponent", type=float, default=11.0, help="rate exponent n")
    p.add_argument("--threads", type=int, default=1, help="threads of both codes")
    p.add_argument("--rounds", type=int, default=3, help="interleaved rounds, the fastest of each code counts")
    p.add_argument("--route", choices=("compiled", "eager"), default="compiled", help="how NEML2 is evaluated")
    p.add_argument("--output", default="results/bench_neml2", help="folder for the results")
    o = p.parse_args(arguments)
    for name in ("steps", "threads", "rounds"):
        check_count(f"--{name}", getattr(o, name))
    if min(o.grains) < o.threads:
        raise ValueError(f"--grains must be at least the number of threads, {o.threads}, got {min(o.grains)}.")
    for name in ("strain", "rate", "strength", "exponent"):
        if not 0.0 < getattr(o, name) < np.inf:
            raise ValueError(f"--{name} must be positive and finite, got {getattr(o, name)}.")
    check_folder("--output", o.output)
    return o


def material(o: argparse.Namespace) -> CrystalParameters:
    """The fcc crystal: moduli of steel 316L, constant strength."""
    p = load_material("steel-316l")
    changes = {"r_0": 0.0, "h": 0.0, "sigma_inf": 0.0, "h_latent": 0.0, "rate_0": 1.0}
    return replace(p, slip=(replace(p.slip[0], tau_0=o.strength, m=1.0 / o.exponent, **changes),))


def path(o: argparse.Namespace, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Deformation gradients (steps + 1, 3, 3) and instants (steps + 1,), s."""
    x = np.linspace(0.0, o.strain, steps + 1)
    F = np.zeros((steps + 1, 3, 3))
    F[:, 0, 0], F[:, 1, 1], F[:, 2, 2], F[:, 0, 1] = np.exp(x), np.exp(-x / 2), np.exp(-x / 2), x
    return F, x / o.rate


# %% [markdown]
# ## Ours


# %%
@dataclass(frozen=True)
class Ours:
    """The compiled law; the grains are divided among the threads."""

    parameters: CrystalParameters
    rotations: np.ndarray
    threads: int
    tolerance: float = TOLERANCE

    def solve(self, F: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return F_p^-1 (instants, g, 3, 3) without the first instant, in the frame of the sample."""
        C = to_components(np.swapaxes(F, 1, 2) @ F)[None]
        parts = np.array_split(self.rotations, self.threads)
        systems = crystal_systems(self.parameters)

        def one(q: np.ndarray) -> np.ndarray:
            law = CompiledPolycrystal(systems, q, np.full(len(q), 1 / len(q)), tolerance=self.tolerance)
            result = law.solve(C, t[None], history=True)
            if not result.ok.all() or result.history is None:
                raise RuntimeError(f"Our law failed with the status {result.status[0]}.")
            return q @ law.unpack_grains(result.history[0])["B"] @ np.swapaxes(q, -1, -2)

        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(one, parts)), axis=1)


# %% [markdown]
# ## NEML2


# %%
def block(section: str, **objects: str) -> str:
    """A section of NEML2's input; each object is its settings, separated by semicolons."""
    lines = [f"[{section}]"]
    for name, settings in objects.items():
        lines += [f"  [{name}]", *(f"    {s.strip()}" for s in settings.split(";")), "  []"]
    return "\n".join([*lines, "[]", ""])


def model_text(p: CrystalParameters) -> str:
    """NEML2's input: an implicit update of F_p, named model."""
    f, K = p.slip[0], 2 * p.lambda_e
    young, poisson = 9 * K * p.G / (3 * K + p.G), (3 * K - 2 * p.G) / (2 * (3 * K + p.G))
    indices = lambda hkl: f"type = Python; expr = 'MillerIndex(torch.tensor({list(hkl)}))'"
    tensors = block(
        "Tensors", a="type = Python; expr = 'Scalar(1.0)'", direction=indices(f.direction), plane=indices(f.plane)
    )
    crystal = block(
        "Data",
        crystal_geometry="type = CubicCrystal; lattice_parameter = a; slip_directions = direction; slip_planes = plane",
    )
    parts = {
        "turn": "type = RotationMatrix; from = q; to = orientation_matrix",
        "elastic": "type = R2Multiplication; A = F; B = Fp; invert_B = true; to = Fe",
        "strain": "type = GreenLagrangeStrain; deformation_gradient = Fe; strain = E",
        "stress": "type = LinearIsotropicElasticity; coefficient_types = 'YOUNGS_MODULUS POISSONS_RATIO'; "
        f"coefficients = '{young!r} {poisson!r}'; strain = E; stress = S",
        "shears": "type = ResolvedShear; stress = S",
        "strengths": f"type = SingleSlipStrengthMap; constant_strength = {f.tau_0!r}",
        "rates": f"type = PowerLawSlipRule; n = {1 / f.m!r}; gamma0 = {f.rate_0!r}",
        "flow": "type = PlasticSpatialVelocityGradient",
        "growth": "type = R2Multiplication; A = plastic_spatial_velocity_gradient; B = Fp; to = Fp_rate",
        "step": "type = R2BackwardEulerTimeIntegration; variable = Fp",
    }
    models = block(
        "Models",
        **parts,
        residual=f"type = ComposedModel; models = '{' '.join(parts)}'",
        guess="type = LinearExtrapolationPredictor; unknowns_R2 = Fp",
        model="type = ImplicitUpdate; equation_system = system; solver = newton; predictor = guess",
    )
    system = block(
        "EquationSystems", system="type = NonlinearSystem; model = residual; unknowns = Fp; residuals = Fp_residual"
    )
    newton = (
        "type = NewtonWithLineSearch; linear_solver = lu; max_linesearch_iterations = 5; "
        f"abs_tol = {NEWTON}; rel_tol = {NEWTON}; max_its = 50"
    )
    return tensors + crystal + models + system + block("Solvers", lu="type = DenseLU", newton=newton)


def load_neml2(o: argparse.Namespace, text: str) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    """Return NEML2's update: from its inputs by name to F_p (g, 3, 3)."""
    import neml2

    torch.set_num_threads(o.threads)  # the compiled code keeps the number that it was compiled with
    name = hashlib.sha256(f"{text}{neml2.__version__}{torch.__version__}{max(o.grains)}".encode()).hexdigest()[:12]
    folder = Path(o.output) / f"neml2-{name}-{o.threads}"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "crystal.i"
    source.write_text(text, encoding="utf-8")
    if o.route == "compiled":
        from neml2.aoti import Model

        if not (folder / "aoti" / "metadata.json").exists():
            print("NEML2 is being compiled; this takes minutes, once.", flush=True)
            shape = f"({max(o.grains)},)"
            neml2.export_model_for_aoti(source, "model", folder / "aoti", example_batch_shape=shape)
        compiled = Model(str(folder / "aoti"), "cpu", "float64")
        names = compiled.input_names
        return lambda values: compiled.forward({n: values[n] for n in names})["Fp"]
    model = neml2.load_model(source, "model")
    kinds = dict(model.input_spec)
    return lambda values: model(*(kind(values[n]) for n, kind in kinds.items()))[0].data


@dataclass(frozen=True)
class Theirs:
    """NEML2's law; all grains are one batch."""

    update: Callable[[dict[str, torch.Tensor]], torch.Tensor]
    rotations: np.ndarray

    def solve(self, F: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return F_p^-1 (instants, g, 3, 3) without the first instant, in the frame of the sample."""
        from scipy.spatial.transform import Rotation

        g = len(self.rotations)
        q = torch.from_numpy(Rotation.from_matrix(self.rotations).as_mrp())
        column = lambda value: torch.full((g,), float(value), dtype=torch.float64)
        old = older = torch.eye(3, dtype=torch.float64).repeat(g, 1, 1)
        values = {"q": q, "slip_hardening": column(0.0)}
        found = []
        with torch.no_grad():
            for k in range(1, len(t)):
                values |= {"F": torch.from_numpy(F[k]).repeat(g, 1, 1), "Fp~1": old, "Fp~2": older}
                values |= {"t": column(t[k]), "t~1": column(t[k - 1]), "t~2": column(t[max(k - 2, 0)])}
                older, old = old, self.update(values).contiguous()
                found.append(old)
            return torch.linalg.inv(torch.stack(found)).numpy()


# %% [markdown]
# ## Compare


# %%
def mean_stress(F: np.ndarray, B: np.ndarray, p: CrystalParameters) -> np.ndarray:
    """Mean Cauchy stress (instants, 3, 3), Pa, of our elastic law at constant volume."""
    Fe = F[1:, None] @ B
    b = (Fe @ np.swapaxes(Fe, -1, -2)).mean(1)
    return p.G * (b - np.eye(3) * np.trace(b, axis1=1, axis2=2)[:, None, None] / 3)


def own_stress(F: np.ndarray, B: np.ndarray, p: CrystalParameters) -> np.ndarray:
    """Mean Cauchy stress (instants, 3, 3), Pa, of NEML2's elastic law."""
    Fe = F[1:, None] @ B
    E = (np.swapaxes(Fe, -1, -2) @ Fe - np.eye(3)) / 2
    trace = np.trace(E, axis1=-2, axis2=-1)[..., None, None]
    S = 2 * p.G * E + (2 * p.lambda_e - 2 * p.G / 3) * trace * np.eye(3)
    return (Fe @ S @ np.swapaxes(Fe, -1, -2)).mean(1)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Relative difference of the deviators of two histories of stress."""
    deviator = lambda s: s - np.eye(3) * np.trace(s, axis1=1, axis2=2)[:, None, None] / 3
    return float(np.linalg.norm(deviator(a) - deviator(b)) / np.linalg.norm(deviator(b)))


def timed(work: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Seconds of one call by the clock and of its threads together, and what it returns."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


def measure(o: argparse.Namespace, p: CrystalParameters, update: Callable[..., torch.Tensor], g: int) -> dict[str, Any]:
    """Time both codes in turn; the first round, in which memory and caches are set up, does not count."""
    F, t = path(o, o.steps)
    rotations = random_rotations(g, 0).numpy()
    ours, theirs = Ours(p, rotations, o.threads), Theirs(update, rotations)
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "neml2": []}
    for _ in range(o.rounds + 1):
        for name, code in (("ours", ours), ("neml2", theirs)):
            took, B = timed(lambda code=code: code.solve(F, t))  # type: ignore[misc]
            seconds[name].append(took)
            if name == "ours":
                a = mean_stress(F, B, p)
            else:
                b = mean_stress(F, B, p)
    (ours_wall, ours_cpu), (their_wall, their_cpu) = (
        1e6 / (g * o.steps) * np.min(seconds[name][1:], axis=0) for name in ("ours", "neml2")
    )
    return {
        "grains": g, "us_ours": ours_wall, "us_neml2": their_wall, "ratio": their_wall / ours_wall,
        "us_ours_cpu": ours_cpu, "us_neml2_cpu": their_cpu, "ratio_cpu": their_cpu / ours_cpu,
        "stress_ours": (a[-1] / 1e6).tolist(), "stress_neml2": (b[-1] / 1e6).tolist(), "difference": difference(b, a),
    }  # fmt: skip


def errors(o: argparse.Namespace, p: CrystalParameters, update: Callable[..., torch.Tensor], g: int) -> dict[str, Any]:
    """Errors of both codes for the same grains, and seconds and error of NEML2 with more steps."""
    rotations = random_rotations(g, 0).numpy()
    ours, theirs = Ours(p, rotations, o.threads), Theirs(update, rotations)
    F, t = path(o, o.steps)
    F_fine, t_fine = path(o, FINER * o.steps)
    fine = mean_stress(F_fine, replace(ours, tolerance=TOLERANCE / 10).solve(F_fine, t_fine), p)[FINER - 1 :: FINER]
    F_theirs, t_theirs = path(o, THEIRS * o.steps)
    (_, cpu), B = timed(lambda: theirs.solve(F_theirs, t_theirs))
    their_fine = mean_stress(F_theirs, B, p)[THEIRS - 1 :: THEIRS]
    B_ours, B_theirs = ours.solve(F, t), theirs.solve(F, t)
    loose = []
    for tolerance in LOOSER:
        code = replace(ours, tolerance=tolerance)
        runs = [timed(lambda code=code: code.solve(F, t)) for _ in range(o.rounds)]  # type: ignore[misc]
        us = 1e6 * min(seconds[1] for seconds, _ in runs) / (g * o.steps)
        loose.append((tolerance, us, difference(mean_stress(F, runs[0][1], p), fine)))
    return {
        "tolerances": loose,
        "ours": difference(mean_stress(F, B_ours, p), fine), "neml2": difference(mean_stress(F, B_theirs, p), fine),
        "neml2_own_elasticity": difference(own_stress(F, B_theirs, p), fine),
        "neml2_finer": difference(their_fine, fine),
        "us_neml2_finer_cpu": 1e6 * cpu / (g * o.steps),  # per given step, in which it takes THEIRS steps
    }  # fmt: skip


# %% [markdown]
# ## Run


# %%
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write them; 2 without NEML2 or for a wrong option, 1 if the codes disagree."""
    try:
        o = parse(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if importlib.util.find_spec("neml2") is None:
        print(MISSING, file=sys.stderr)
        return 2
    import neml2

    p = material(o)
    try:
        update = load_neml2(o, model_text(p))
    except ImportError as error:
        print(f"NEML2's compiled code cannot be loaded ({error}); {MISSING[18:]}", file=sys.stderr)
        return 2
    print(f"NEML2 {neml2.__version__.lstrip('v')} ({o.route}), PyTorch {torch.__version__}, threads {o.threads}")
    print("microseconds per grain and step, by the clock and of the threads' time:")
    print(f"{'grains':>7} {'steps':>6} {'NEML2':>9} {'ours':>8} {'ratio':>6}", end="")
    print(f" {'NEML2':>9} {'ours':>8} {'ratio':>6} {'difference of stress':>21}")
    rows = []
    for g in o.grains:
        r = measure(o, p, update, g)
        rows.append(r)
        print(f"{g:7d} {o.steps:6d} {r['us_neml2']:9.2f} {r['us_ours']:8.3f} {r['ratio']:6.1f}", end="")
        print(f" {r['us_neml2_cpu']:9.2f} {r['us_ours_cpu']:8.3f} {r['ratio_cpu']:6.1f}", end="")
        print(f" {r['difference']:21.2e}", flush=True)
    e = errors(o, p, update, o.grains[0])
    s = {name: np.array(rows[0][f"stress_{name}"]) for name in ("ours", "neml2")}
    print(f"mean Cauchy stress at the end, {o.grains[0]} grains, MPa (11, 22, 33, 12, 23, 13):")
    for name, value in s.items():
        print(f"  {name:6s}" + " ".join(f"{x:9.3f}" for x in to_components(value)))
    print(f"error with {o.steps} steps: ours {e['ours']:.2e}, NEML2 {e['neml2']:.2e}", end="")
    print(f" (with the stress of its own elastic law {e['neml2_own_elasticity']:.2e})")
    print(f"NEML2 with {THEIRS} times the steps: error {e['neml2_finer']:.2e}, ", end="")
    print(f"{e['us_neml2_finer_cpu']:.1f} us of the threads' time per given step")
    for tolerance, us, error in e["tolerances"]:
        print(f"ours with the tolerance {tolerance:.0e}: error {error:.2e}, {us:.2f} us of the threads' time", end="")
        print(" per given step")
    agree = e["neml2_finer"] < e["neml2"] / (0.6 * THEIRS)
    print("one limit: " + ("yes" if agree else "NO, the error of NEML2 does not fall with its steps"))
    out = Path(o.output)
    record = {"neml2": neml2.__version__, "torch": torch.__version__, "options": vars(o), "rows": rows, "errors": e}
    (out / f"bench_neml2-{o.route}-{o.threads}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
