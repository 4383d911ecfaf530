"""Johnson-Cook fitted to polycrystal data: the traditional law with which a learned one is compared.

    python3 -m surrogates.train johnson-cook --data DIR [--data DIR ...] --output constants.json

The law is multiplicative J2 plasticity with the neo-Hookean elasticity of the crystals and the flow stress

    Y = (A + B e^n) (1 + C ln(max(rate/rate_0, 1))),    rate_0 = 1000 /s,

a Kirchhoff stress of the equivalent plastic strain e and its rate. It is integrated here as `fem` integrates it (radial
return on the isochoric elastic strain, implicit in e and its rate), batched over paths in PyTorch, and A, B, n, C
minimise the relative error of the deviatoric stress, averaged over training paths. The start is a regression of the
von Mises stress on accumulated strain and rate. Of several data sets each gives as many paths to the fit, so that none
counts more than another.

References:
    Johnson and Cook (1983), 7th Int. Symp. Ballistics. Simo (1988), doi:10.1016/0045-7825(88)90076-X.
    Paper 1, section 4.3, Table 2 ("traditional constitutive law"), doi:10.1016/j.jmps.2021.104668.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micro.data.files import whole_file
from micro.threads import small_batches
from surrogates import tensors
from surrogates.path.data import DENSITY, Samples, crystal_constant, mandel, matrices, moduli
from surrogates.path.errors import coarsen, relative_errors, report
from surrogates.path.sets import DATA, Sets, errors_of_kinds, load_sets
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_integers, check_seed, option
from surrogates.training.epochs import run_epochs
from surrogates.training.kind import Record

RATE_0 = 1e3  # 1/s, below the rates of the data, so that the logarithm acts throughout
UNITS = {"A": "Pa", "B": "Pa", "n": "1", "C": "1", "rate_0": "1/s", "shear_modulus": "Pa", "bulk_modulus": "Pa",
         "density": "kg/m^3"}  # fmt: skip


def flow_stress(e: Tensor, rate: Tensor, p: Tensor) -> Tensor:
    """Flow stress, Pa, at plastic strain e and rate (1/s); p holds A, B (Pa), n, C."""
    e, rate = e.clamp(min=1e-14), (rate / RATE_0).clamp(min=1.0)
    return (p[0] + p[1] * e ** p[2]) * (1 + p[3] * rate.log())


def plastic_increment(q: Tensor, stiffness: Tensor, e: Tensor, dt: Tensor, p: Tensor) -> Tensor:
    """Root De >= 0 of q - stiffness De = Y(e + De, De/dt); zero below the flow stress.

    Bisection, which needs no derivative, then one Newton step, through which the derivatives by q and p are taken.
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


def flowing(samples: Samples, shear: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where the paths flow: strain so far, von Mises stress (Pa), logarithm of the rate over rate_0, each (k,)."""
    truth = tensors.deviator(mandel(samples.stress))
    U = matrices(samples.U).reshape(-1, 3, 3)
    J = tensors.determinant(U)
    E = tensors.to_vector(tensors.rational_strain(tensors.isochoric(U, J))).reshape(truth.shape)
    q = 1.5**0.5 * truth.norm(dim=-1) * J.reshape(truth.shape[:2])
    step = (2 / 3) ** 0.5 * tensors.deviator(E).diff(dim=1).norm(dim=-1)
    dt = torch.from_numpy(samples.time).diff(dim=1) * torch.from_numpy(samples.duration)[:, None]
    e = step.cumsum(dim=1) - q[:, 1:] / (3 * shear)
    # Plastic flow: well past the first yield, and not where the stress reverses.
    flows = (e > 0.01) & (q[:, 1:] > 0.7 * q.mean(dim=1, keepdim=True))
    return e[flows], q[:, 1:][flows], (step / dt / RATE_0).clamp(min=1.0).log()[flows]


def regress(parts: list[Samples], shear: float) -> Tensor:
    """A, B, n, C that fit the von Mises stress of the data over accumulated strain and rate, to start from."""
    e, q, log = (torch.cat(columns) for columns in zip(*(flowing(part, shear) for part in parts), strict=True))
    best, found = float("inf"), torch.tensor([1e8, 1e8, 0.5, 0.1], dtype=torch.float64)
    for n in torch.linspace(0.1, 1.0, 10, dtype=torch.float64):
        for C in torch.linspace(0.0, 1.0, 51, dtype=torch.float64):
            columns = torch.stack([1 + C * log, e**n * (1 + C * log)], dim=1)
            A, B = torch.linalg.lstsq(columns, q[:, None]).solution[:, 0].clamp(min=1e6)
            error = float((columns @ torch.stack([A, B]) - q).square().mean())
            if error < best:
                best, found = error, torch.stack([A, B, n, C.clamp(min=1e-3)])
    return found


@dataclass(frozen=True)
class JohnsonCookConfig:
    """Configuration of the fit."""

    paths: int = option(256, "training paths drawn for the fit, in equal parts of the data sets")
    stride: int = option(2, "every N-th time of a path in the fit")
    epochs: int = option(60, "steps of the minimisation")
    learning_rate: float = option(0.1, "first learning rate; falls to zero as a cosine")
    seed: int = option(0, "seed of the draw")

    def __post_init__(self) -> None:
        """Check the fields."""
        check_integers(self, 1, "paths", "stride", "epochs")
        check_seed(self.seed)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}.")


class JohnsonCookFit(torch.nn.Module):
    """The constants A, B (Pa), n, C of the law under training.

    Args:
        start: The constants (4,) to start from.
        shear: G, Pa.
        bulk: K, Pa.
    """

    best: Tensor
    best_loss: Tensor

    def __init__(self, start: Tensor, shear: float, bulk: float) -> None:
        super().__init__()
        # Logarithms keep A, B, C positive; the logistic function keeps n below 1.
        raw = torch.stack([start[0].log(), start[1].log(), torch.logit(start[2].clamp(max=0.98)), start[3].log()])
        self.raw = torch.nn.Parameter(raw)
        self.shear, self.bulk = shear, bulk
        # The constants with the least loss so far: kept with the parameters, so that a resumed run has them.
        self.register_buffer("best", start.clone())
        self.register_buffer("best_loss", torch.full((), float("inf"), dtype=torch.float64))

    def constants(self) -> Tensor:
        """A, B, n, C (4,) now."""
        raw = self.raw
        return torch.stack([raw[0].exp(), raw[1].exp(), torch.sigmoid(raw[2]), raw[3].exp()])


def build(config: JohnsonCookConfig, train: Sets) -> JohnsonCookFit:
    """The constants to start from, by regression on the paths drawn.

    Raises:
        ValueError: The crystals of the data sets have different moduli.
    """
    found = {moduli(part) for part in train.parts}
    if len(found) > 1:
        raise ValueError(f"Data sets fitted together must have the same moduli, got {sorted(found)}.")
    bulk, shear = found.pop()
    return JohnsonCookFit(regress(drawn(config, train), shear), shear, bulk)


def drawn(config: JohnsonCookConfig, train: Sets) -> list[Samples]:
    """The paths and times of the fit, of each set."""
    parts, each = [], -(-config.paths // len(train.parts))
    for part in train.parts:
        rows = torch.randperm(len(part), generator=torch.Generator().manual_seed(config.seed))[:each]
        parts.append(coarsen(part[rows.numpy()], config.stride))
    return parts


@small_batches()
def fit(
    model: JohnsonCookFit, train: Sets, held_out: Sets, config: JohnsonCookConfig, *, progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Minimise the mean relative error of the deviatoric stress; the best constants stay in `model.best`.

    Returns:
        The least error and the number of paths drawn.
    """
    parts = drawn(config, train)
    truths = [tensors.deviator(mandel(part.stress)) for part in parts]
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def epoch(number: int) -> dict[str, float]:
        p = model.constants()
        found = [
            relative_errors(tensors.deviator(drive(part, p, model.shear, model.bulk)), truth)
            for part, truth in zip(parts, truths, strict=True)
        ]
        loss = torch.cat(found).mean()
        if loss.item() < float(model.best_loss):
            model.best, model.best_loss = p.detach(), loss.detach()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"train": loss.item()}

    run_epochs(model, optimiser, config.epochs, epoch, final_rate=0.0, checkpoint=checkpoint, progress=progress)
    return {"training_loss": float(model.best_loss), "paths": sum(map(len, parts))}


def export(model: JohnsonCookFit, train: Sets, config: JohnsonCookConfig) -> JohnsonCookFit:
    """The fitted model itself, its best constants in `best`."""
    return model


@torch.no_grad()
def errors(model: JohnsonCookFit, law: JohnsonCookFit, held_out: Sets, config: JohnsonCookConfig) -> dict[str, float]:
    """Errors of the law along the held-out paths: of all, and of each kind of set."""
    return errors_of_kinds(held_out, lambda part: report(drive(part, law.best, law.shear, law.bulk), part))


def write(output: Path, law: JohnsonCookFit, train: Sets, config: JohnsonCookConfig, record: Record) -> dict[str, Any]:
    """Write the constants with their units, errors and origin as JSON."""
    constants = [*law.best.tolist(), RATE_0, law.shear, law.bulk, crystal_constant(train.parts[0], "density", DENSITY)]
    content: dict[str, Any] = {
        "law": "Johnson-Cook: (A + B e^n) (1 + C ln(max(rate/rate_0, 1))), Kirchhoff, isothermal",
        "parameters": dict(zip(UNITS, constants, strict=True)),
        "units": UNITS,
        "errors": {
            **record.errors, "training": record.training["training_loss"], "held_out_paths": record.held_out,
        },
        "data": {
            "hash": train.hash,
            "samples": record.training["paths"],
            "commands": [meta.get("command") for meta in train.meta],
        },
        "training": {"command": record.training["command"], "seed": config.seed},
    }  # fmt: skip
    with whole_file(output) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content


Config, SUFFIX, load = JohnsonCookConfig, ".json", load_sets
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
