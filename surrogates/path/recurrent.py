"""The recurrent law with relaxing state: a Markovian surrogate that learns its internal variables.

There is no time window and no stored history, the state is small, and the time step of the solver is free. See
`surrogates.path.relaxation` for the learned step. This module adds the kinematics of a finite-strain law and the
training.

The Kirchhoff deviator of a polycrystal whose grains flow without change of volume depends on the isochoric part of the
history alone, and its pressure is K (J - 1) exactly: the network takes the isochoric history and learns the deviator.

References:
    The learning problem: sections 2, 3 of doi:10.1016/j.jmps.2021.104668; a recurrent law is its outlook (section 5).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.threads import small_batches
from surrogates.artifact.load import load_law, switch_fusion_off
from surrogates.path.data import DATA, Samples, load_samples, mandel, material, matrices, moduli, trained_range
from surrogates.path.errors import relative_errors, resolution_report
from surrogates.path.relaxation import Relaxation
from surrogates.tensors import (
    PointLaw,
    determinant,
    deviator,
    first_piola,
    inverse,
    isochoric,
    rational_strain,
    rotation,
    to_matrix,
    to_vector,
)
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_integers, check_network_size, check_rates, check_seed, option
from surrogates.training.epochs import run_epochs
from surrogates.training.kind import Record, write_trained_law


@dataclass(frozen=True)
class RecurrentConfig:
    """Configuration of the recurrent law and its training; each field is an option of `surrogates.train recurrent`."""

    elastic: int = option(4, "elastic strains in the state")
    memory: int = option(6, "memory tensors in the state")
    width: int = option(96, "width of the isotropic network")
    texture_width: int = option(96, "width of the texture's network")
    epochs: int = option(600, "passes over the training paths")
    batch: int = option(64, "paths per step of the optimiser")
    learning_rate: float = option(3e-3, "first learning rate; falls as a cosine")
    final_rate: float = option(2e-5, "last learning rate")
    seed: int = option(0, "seed of weights, batches and time steps")
    initial: str = option("", "artifact whose weights to start from, none for random ones")

    def __post_init__(self) -> None:
        """Check the fields."""
        check_integers(self, 1, "elastic", "width", "texture_width", "epochs", "batch")
        check_integers(self, 0, "memory")
        check_rates(self)
        check_seed(self.seed)


def increment(U_n: Tensor, U: Tensor) -> tuple[Tensor, Tensor]:
    """Strain half-way through a step and the strain increment over it, in the unrotated frame.

    Args:
        U_n: (n, 3, 3) isochoric stretch at the start of the step.
        U: (n, 3, 3) isochoric stretch at its end.

    Returns:
        E (n, 6), the rational strain of the mean stretch, and D (n, 6) = dev sym(dU U^-1), Mandel vectors.
    """
    mean = 0.5 * (U_n + U)
    L = torch.matmul(U - U_n, inverse(mean))
    return to_vector(rational_strain(mean)), deviator(to_vector(0.5 * (L + L.transpose(1, 2))))


def logarithm_of_rate(D: Tensor, dt: Tensor) -> Tensor:
    """log10 of the strain rate |D|/dt (n,), 1/s, for steps dt (n,), s.

    Rates below 100/s are treated as 100/s: no data are slower, and a bar comes to rest.
    """
    return torch.log10(torch.sqrt((D * D).sum(dim=-1) + 1e-24) / dt + 100.0)


class RecurrentLaw(PointLaw):
    """The recurrent law.

    State, float64: isochoric stretch less the identity at the last step (6, Mandel), tensors h ((M + N) x 6), length of
    the strain path, largest |E| and largest rate (1/s) so far.

    Args:
        relaxation: the learned step.
        bulk: K, Pa.
        shear: G, Pa.
        strain_max: largest |E| of the training data.
        rate_max: largest rate of the training data, 1/s.
    """

    def __init__(
        self, relaxation: Relaxation, *, bulk: float, shear: float, strain_max: float, rate_max: float
    ) -> None:
        super().__init__()
        self.relaxation = relaxation
        self.bulk, self.shear, self.strain_max, self.rate_max = bulk, shear, strain_max, rate_max
        self.tensors = relaxation.tensors

    def describe(self) -> dict[str, Any]:
        """The entries of the manifest for the state, the observed fields and the window (there is none)."""
        end = 6 + 6 * self.tensors
        fields = [("stretch", 0, [6]), ("h", 6, [self.tensors, 6])]
        fields += [(name, end + k, []) for k, name in enumerate(("path_length", "strain_peak", "rate_peak"))]
        return {
            "state": {"size": end + 3, "fields": [{"name": n, "offset": o, "shape": s} for n, o, s in fields]},
            "observe": ["path_length", "strain_used", "rate_used"],
            "time_window": None,
        }

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        """Virgin state (n, k): all zero."""
        return torch.zeros(n, 9 + 6 * self.tensors, dtype=torch.float64, device=self.relaxation.share.device)

    @torch.jit.export
    def step(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with a step dt (n,) of each point's own."""
        J = determinant(F)
        F_bar = isochoric(F, J)
        R = rotation(F_bar)
        U = torch.matmul(R.transpose(1, 2), F_bar)
        U = 0.5 * (U + U.transpose(1, 2))
        eye = torch.eye(3, dtype=F.dtype, device=F.device)
        E, D = increment(to_matrix(state[:, :6]) + eye, U)
        log_rate = logarithm_of_rate(D, dt)
        end = 6 + 6 * self.tensors
        kind = self.relaxation.share.dtype
        h = self.relaxation(
            E.to(kind), D.to(kind), log_rate.to(kind), state[:, 6:end].reshape(-1, self.tensors, 6).to(kind)
        )
        tau_hat = 2.0 * self.shear * self.relaxation.elastic_strain(h).to(F.dtype)
        P = first_piola(F, J, R, to_matrix(tau_hat), self.bulk)
        length = torch.sqrt((D * D).sum(dim=1) + 1e-24)
        seen = torch.stack(
            [
                state[:, end] + length,
                torch.maximum(state[:, end + 1], torch.sqrt((E * E).sum(dim=1) + 1e-24)),
                torch.maximum(state[:, end + 2], length / dt),
            ],
            dim=1,
        )
        return P, torch.cat([to_vector(U - eye), h.reshape(-1, 6 * self.tensors).to(F.dtype), seen], dim=1)

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        """(n, 3): length of the strain path; parts of the trained strain and rate used, above 1 out of range."""
        end = 6 + 6 * self.tensors
        return torch.stack(
            [state[:, end], state[:, end + 1] / self.strain_max, state[:, end + 2] / self.rate_max], dim=1
        )


def estimated_parameters(config: RecurrentConfig) -> float:
    """Number of parameters of the two networks, estimated from the widths of their layers."""
    tensors = config.elastic + config.memory
    scalars = 0.5 * tensors**2 + 6.0 * tensors
    isotropic = config.width * (scalars + config.width + tensors * (tensors + 6))
    return isotropic + config.texture_width * (scalars + config.texture_width + 12.0 * (tensors + 1))


@small_batches()
def build(config: RecurrentConfig, train: Samples) -> RecurrentLaw:
    """A law with fresh weights for the material and the range of the training data."""
    check_network_size(estimated_parameters(config))
    torch.manual_seed(config.seed)
    bulk, shear = moduli(train)
    seen = trained_range(train)
    assert seen["strain_max"] is not None and seen["rate_max"] is not None
    relaxation = Relaxation(config.elastic, config.memory, config.width, config.texture_width)
    law = RecurrentLaw(relaxation, bulk=bulk, shear=shear, strain_max=seen["strain_max"], rate_max=seen["rate_max"])
    if config.initial:
        try:
            law.load_state_dict(load_law(config.initial).module.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"initial must be an artifact of the same sizes (elastic, memory, width, texture_width), "
                f"got {config.initial}."
            ) from error
    return law


@small_batches()
def fit(
    model: RecurrentLaw,
    train: Samples,
    held_out: Samples,
    config: RecurrentConfig,
    *,
    progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, float]:
    """Train by back-propagation through the paths; the state of the last epoch stays in `model`.

    The law must not depend on the step of its data: each batch takes its paths at 25 to all of their times, evenly
    spaced or drawn at random. The loss is the mean relative error of the deviatoric Cauchy stress.

    Returns:
        The mean training loss of the last epoch.
    """
    switch_fusion_off()  # the fuser would compile a kernel for every number of steps
    paths = _Paths(train, model.relaxation.share.device)
    relaxation = torch.jit.script(model.relaxation)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def epoch(number: int) -> dict[str, float]:
        # One stream per epoch: a resumed run draws the same numbers as an uninterrupted one.
        rng = np.random.Generator(np.random.Philox(key=config.seed, counter=[0, 0, 0, number]))
        total = 0.0
        for rows in np.array_split(rng.permutation(len(train)), max(1, len(train) // config.batch)):
            at = _times(rng, paths.U.shape[1] - 1)
            loss = paths.error(relaxation, model.shear, rows, at).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            total += loss.item() * len(rows)
        return {"train": total / len(train)}

    loss = run_epochs(
        model, optimiser, config.epochs, epoch, final_rate=config.final_rate, checkpoint=checkpoint, progress=progress
    )
    return {"training_loss": loss}


def _times(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Indices of the times of a path in a batch, the first and the last among them."""
    n = int(np.ceil(steps / rng.choice([8, 4, 2, 1], p=[0.4, 0.35, 0.2, 0.05])))
    if rng.random() < 0.5:
        inner = rng.choice(np.arange(1, steps), size=n - 1, replace=False)
    else:
        inner = np.arange(steps, 0, -int(np.ceil(steps / n)))
    return np.unique(np.concatenate([[0, steps], inner]))


class _Paths:
    """Isochoric stretches and deviatoric stresses of a set of paths, on the device that trains."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        n, T = samples.U.shape[:2]
        U = matrices(samples.U).reshape(-1, 3, 3)
        J = determinant(U)
        self.U = isochoric(U, J).reshape(n, T, 3, 3).to(device)
        self.J = J.reshape(n, T).to(device)
        self.stress = deviator(mandel(samples.stress)).to(device)
        self.time = torch.from_numpy(samples.time * samples.duration[:, None]).to(device)

    def error(self, relaxation: Any, shear: float, rows: np.ndarray, at: np.ndarray) -> Tensor:
        """Relative error (rows,) of the deviatoric Cauchy stress along the paths `rows` at the times `at`."""
        pick, k = torch.from_numpy(rows).to(self.U.device), torch.from_numpy(at).to(self.U.device)
        U, t, s = self.U[pick][:, k], self.time[pick][:, k], len(rows)
        E, D = increment(U[:, :-1].reshape(-1, 3, 3), U[:, 1:].reshape(-1, 3, 3))
        log_rate = logarithm_of_rate(D, (t[:, 1:] - t[:, :-1]).reshape(-1))
        E, D, log_rate = E.float().reshape(s, -1, 6), D.float().reshape(s, -1, 6), log_rate.float().reshape(s, -1)
        h = torch.zeros(s, relaxation.tensors, 6, device=self.U.device)
        strains = []
        for i in range(E.shape[1]):
            h = relaxation(E[:, i], D[:, i], log_rate[:, i], h)
            strains.append(relaxation.elastic_strain(h))
        J = self.J[pick][:, k[1:], None].float()
        return relative_errors(2 * shear * torch.stack(strains, dim=1) / J, self.stress[pick][:, k[1:]].float())


def export(model: RecurrentLaw, train: Samples, config: RecurrentConfig) -> RecurrentLaw:
    """The model, which is the law."""
    return model


def errors(model: RecurrentLaw, law: RecurrentLaw, held_out: Samples, config: RecurrentConfig) -> dict[str, float]:
    """Errors of the law driven along the held-out paths, at all times, every second and every fourth."""
    return resolution_report(law, held_out)


def write(output: Path, law: RecurrentLaw, train: Samples, config: RecurrentConfig, record: Record) -> dict[str, Any]:
    """Write the law as an artifact."""
    return write_trained_law(output, law, train, material(train), record)


Config, SUFFIX, load = RecurrentConfig, ".pt", load_samples
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
