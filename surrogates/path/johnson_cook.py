"""Johnson-Cook fitted to polycrystal data: the traditional law against which a learned one is measured.

    python3 -m surrogates.path.johnson_cook --data DIR --output surrogates/pretrained/johnson_cook.json

The law is multiplicative J2 plasticity with the neo-Hookean elasticity of the crystals and the flow stress

    Y = (A + B e^n) (1 + C ln(max(rate/rate_0, 1))),    rate_0 = 1000 /s,

a Kirchhoff stress of the equivalent plastic strain e and its rate. It is integrated here as `fem` integrates it (radial
return on the isochoric elastic strain, implicit in e and its rate), batched over paths in PyTorch, and A, B, n, C
minimise the relative error of the deviatoric stress, averaged over training paths. The start is a regression of the
von Mises stress on accumulated strain and rate.

References:
    Johnson and Cook (1983), 7th Int. Symp. Ballistics. Simo (1988), doi:10.1016/0045-7825(88)90076-X.
    Paper 1, section 4.3, Table 2 ("traditional constitutive law"), doi:10.1016/j.jmps.2021.104668.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micro.threads import add_threads_option, limit_threads, small_batches, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

import torch
from torch import Tensor
from tqdm import tqdm

from surrogates import tensors
from surrogates.path.data import DENSITY, Samples, crystal_constant, load_samples, mandel, matrices, moduli
from surrogates.path.errors import coarsen, relative_errors, report

RATE_0 = 1e3  # 1/s, below the rates of the data, so that the logarithm acts throughout
UNITS = {"A": "Pa", "B": "Pa", "n": "1", "C": "1", "rate_0": "1/s", "shear_modulus": "Pa", "lame_modulus": "Pa",
         "density": "kg/m^3"}  # fmt: skip


def flow_stress(e: Tensor, rate: Tensor, p: Tensor) -> Tensor:
    """Flow stress, Pa, at plastic strain e and rate (1/s); p holds A, B (Pa), n, C."""
    e, rate = e.clamp(min=1e-14), (rate / RATE_0).clamp(min=1.0)
    return (p[0] + p[1] * e ** p[2]) * (1 + p[3] * rate.log())


def plastic_increment(q: Tensor, stiffness: Tensor, e: Tensor, dt: Tensor, p: Tensor) -> Tensor:
    """Root De >= 0 of q - stiffness De = Y(e + De, De/dt); zero below the flow stress.

    Bisection, which needs no slope, then one Newton step whose numbers carry the derivative to q and p.
    """
    with torch.no_grad():
        low = torch.zeros_like(q)
        high = ((q - flow_stress(e, low, p)) / stiffness).clamp(min=0.0)
        flows = high > 0
        for _ in range(50):
            middle = 0.5 * (low + high)
            above = q - stiffness * middle > flow_stress(e + middle, middle / dt, p)
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        De = 0.5 * (low + high)
        h = 1e-6 * De + 1e-14
        slope = (flow_stress(e + De + h, (De + h) / dt, p) - flow_stress(e + De, De / dt, p)) / h
    residual = q - stiffness * De - flow_stress(e + De, De / dt, p)
    return torch.where(flows, De + residual / (stiffness + slope), torch.zeros_like(De)).clamp(min=0.0)


def spherical_part(s: Tensor, mean: Tensor) -> Tensor:
    """The x (n,) for which det(s + x I) = 1, from above: s (n, 3, 3) is a deviator over G, `mean` where to start."""
    half, det = 0.5 * (s * s).sum(dim=(1, 2)), tensors.determinant(s)
    with torch.no_grad():
        x = mean
        for _ in range(12):
            x = x - ((x * x - half) * x + det - 1) / (3 * x * x - half)
    return x - ((x * x - half) * x + det - 1) / (3 * x * x - half).detach()


def update(F: Tensor, C_inv: Tensor, e: Tensor, dt: Tensor, p: Tensor, shear: float) -> tuple[Tensor, Tensor, Tensor]:
    """One implicit step of n points.

    Args:
        F: (n, 3, 3) deformation gradient at the end of the step.
        C_inv: (n, 3, 3) inverse plastic metric at its start, determinant 1.
        e: (n,) equivalent plastic strain.
        dt: (n,) time step, s.
        p: A, B (Pa), n, C.
        shear: G, Pa.

    Returns:
        Kirchhoff deviator (n, 3, 3), Pa; new inverse plastic metric; new plastic strain.
    """
    F_bar = tensors.isochoric(F, tensors.determinant(F))
    b = F_bar @ C_inv @ F_bar.transpose(1, 2)
    mean = torch.diagonal(b, dim1=1, dim2=2).mean(dim=1)
    eye = torch.eye(3, dtype=F.dtype)
    s = b - mean[:, None, None] * eye
    q = shear * torch.sqrt(1.5 * (s * s).sum(dim=(1, 2)) + 1e-30)
    De = plastic_increment(q, 3 * shear * mean, e, dt, p)
    s = s * (1 - 3 * shear * mean * De / q)[:, None, None]
    F_inv = tensors.inverse(F_bar)
    grown = F_inv @ (s + spherical_part(s, mean)[:, None, None] * eye) @ F_inv.transpose(1, 2)
    return shear * s, torch.where((De > 0)[:, None, None], grown, C_inv), e + De


def drive(samples: Samples, p: Tensor, shear: float, bulk: float) -> Tensor:
    """Cauchy stress (s, T, 6) (Mandel, Pa) along the paths."""
    F = matrices(samples.U)
    dt = torch.from_numpy(samples.time).diff(dim=1) * torch.from_numpy(samples.duration)[:, None]
    C_inv = torch.eye(3, dtype=torch.float64).repeat(len(F), 1, 1)
    e = torch.zeros(len(F), dtype=torch.float64)
    identity = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    stress = [torch.zeros(len(F), 6, dtype=torch.float64)]
    for k in range(1, F.shape[1]):
        tau, C_inv, e = update(F[:, k], C_inv, e, dt[:, k - 1], p, shear)
        J = tensors.determinant(F[:, k])[:, None]
        stress.append(tensors.to_vector(tau) / J + bulk * (J - 1) * identity)
    return torch.stack(stress, dim=1)


def regress(samples: Samples, shear: float) -> Tensor:
    """A, B, n, C that fit the von Mises stress of the data over accumulated strain and rate, to start from."""
    truth = tensors.deviator(mandel(samples.stress))
    U = matrices(samples.U).reshape(-1, 3, 3)
    J = tensors.determinant(U)
    E = tensors.to_vector(tensors.rational_strain(tensors.isochoric(U, J))).reshape(truth.shape)
    q = 1.5**0.5 * truth.norm(dim=-1) * J.reshape(truth.shape[:2])
    step = (2 / 3) ** 0.5 * tensors.deviator(E).diff(dim=1).norm(dim=-1)
    dt = torch.from_numpy(samples.time).diff(dim=1) * torch.from_numpy(samples.duration)[:, None]
    e = step.cumsum(dim=1) - q[:, 1:] / (3 * shear)
    # Flow: well past the first yield, and not while the stress turns round.
    flows = (e > 0.01) & (q[:, 1:] > 0.7 * q.mean(dim=1, keepdim=True))
    e, q, log = e[flows], q[:, 1:][flows], (step / dt / RATE_0).clamp(min=1.0).log()[flows]
    best, found = float("inf"), torch.tensor([1e8, 1e8, 0.5, 0.1], dtype=torch.float64)
    for n in torch.linspace(0.1, 1.0, 10, dtype=torch.float64):
        for C in torch.linspace(0.0, 1.0, 51, dtype=torch.float64):
            columns = torch.stack([1 + C * log, e**n * (1 + C * log)], dim=1)
            A, B = torch.linalg.lstsq(columns, q[:, None]).solution[:, 0].clamp(min=1e6)
            error = float((columns @ torch.stack([A, B]) - q).square().mean())
            if error < best:
                best, found = error, torch.stack([A, B, n, C.clamp(min=1e-3)])
    return found


@small_batches()
def fit(train: Samples, shear: float, bulk: float, *, iterations: int, progress: bool = False) -> tuple[Tensor, float]:
    """A, B, n, C with the least mean relative error of the deviatoric stress on the paths, and that error."""
    truth = tensors.deviator(mandel(train.stress))
    start = regress(train, shear)
    # Logarithms keep A, B, C positive; the logistic function keeps n below 1.
    raw = torch.stack([start[0].log(), start[1].log(), torch.logit(start[2].clamp(max=0.98)), start[3].log()])
    raw.requires_grad_(True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    best, found = float("inf"), start
    for _ in (bar := tqdm(range(iterations), disable=not progress, unit="step")):
        p = torch.stack([raw[0].exp(), raw[1].exp(), torch.sigmoid(raw[2]), raw[3].exp()])
        loss = relative_errors(tensors.deviator(drive(train, p, shear, bulk)), truth).mean()
        if loss.item() < best:
            best, found = loss.item(), p.detach()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(error=f"{loss.item():.4f}")
    return found, best


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 2 where the input is refused."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="surrogates.path.johnson_cook", description="Fit Johnson-Cook to a data set.")
    parser.add_argument("--data", action="append", required=True, metavar="DIR", help="data set; repeat for more")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    parser.add_argument("--paths", type=int, default=256, metavar="N", help="training paths drawn for the fit")
    parser.add_argument("--stride", type=int, default=2, metavar="N", help="every N-th time of a path in the fit")
    parser.add_argument("--iterations", type=int, default=60, metavar="N", help="steps of the minimisation")
    parser.add_argument("--held-out", type=int, metavar="N", help="paths held out of each set (default: 10 %%)")
    parser.add_argument("--allow-partial", action="store_true", help="accept a data set whose job has not finished")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    add_threads_option(parser)
    options = parser.parse_args(words)
    try:
        for name in ("paths", "stride", "iterations"):
            if getattr(options, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(options, name)}.")
        use_threads(options.threads)
        train, held_out = load_samples(options.data, options.held_out, allow_partial=options.allow_partial)
        bulk, shear = moduli(train)
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(options.seed))[: options.paths]
        some = coarsen(train[drawn.numpy()], options.stride)
        p, training_error = fit(some, shear, bulk, iterations=options.iterations, progress=sys.stderr.isatty())
        with torch.no_grad():
            errors = report(drive(held_out, p, shear, bulk), held_out)
        constants = [*p.tolist(), RATE_0, shear, bulk / 2, crystal_constant(train, "density", DENSITY)]
        content: dict[str, Any] = {
            "law": "Johnson-Cook: (A + B e^n) (1 + C ln(max(rate/rate_0, 1))), Kirchhoff, isothermal",
            "parameters": dict(zip(UNITS, constants, strict=True)),
            "units": UNITS,
            "errors": {**errors, "training": training_error, "held_out_paths": len(held_out)},
            "data": {
                "hash": train.hash,
                "samples": len(some),
                "commands": [meta.get("command") for meta in train.meta],
            },
            "training": {"command": "python3 -m surrogates.path.johnson_cook " + " ".join(words), "seed": options.seed},
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        part = options.output.with_name(options.output.name + ".part")
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(part, options.output)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps({"parameters": content["parameters"], "errors": content["errors"]}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
