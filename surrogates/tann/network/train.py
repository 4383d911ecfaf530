"""The paper's network: TANN of a lattice as feed-forward networks, trained in the two steps of the paper and a third.

The law is `surrogates.tann.network.law`; here are the encoder, its tied decoder and the training. Internal coordinates
enter without the part that strain explains elastically, so that internal variables do not change where nothing flows.
The initial weights of the encoder are the principal axes of the inputs of each of its layers, with biases at which the
ELU are linear on the data (pre-training by layers); all other weights are random. Stage 1 is Algorithm 1 with Eq. (13),
stage 2 Algorithm 2 with Eq. (12) and the encoder frozen, stage 3 drives the law along short windows of the paths, as a
host does.

References:
    Masi and Stefanou (2022), section III, Eqs. (11) to (13), Algorithms 1 and 2, doi:10.1016/j.cma.2022.115190.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from micro.lattice.data import lattice_of
from micro.threads import small_batches
from surrogates.tann.data import DATA, LatticePaths, load_paths
from surrogates.tann.errors import recall_errors
from surrogates.tann.exact import internal_coordinates, trained_material
from surrogates.tann.internal_variables import elastic_decoder, given, rank, spectrum
from surrogates.tann.model import coordinates_of
from surrogates.tann.network.law import TannNetworkLaw
from surrogates.tann.network.model import (
    Steps,
    TannNetwork,
    Windows,
    first_axes,
    inelastic,
    steps_loss,
    windows_loss,
)
from surrogates.tensors import ORDERS, component_factors, mandel_basis
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_integers, check_network_size, check_rates, check_seed, option
from surrogates.training.epochs import run_epochs
from surrogates.training.kind import Record, write_trained_law

ENCODER = (16, 8, 4, 2, 1)  # widths of its layers over the number of variables: the authors' 352-176-88-44-22


@dataclass(frozen=True)
class TannNetworkConfig:
    """Configuration of the paper's network and its training; a size of 0 takes that of the authors."""

    variables: int = option(0, "internal variables; 0 for all that appear in the internal coordinates")
    internal: Literal["discovered", "given"] = option(
        "discovered", "given: the internal variables are the plastic strains of the bars"
    )
    width: int = option(0, "width of NN_Z; 0 for the authors' 56 in two dimensions, 88 in three")
    units: int = option(0, "units of NN_psi; 0 for the authors' 48 in two dimensions, 96 in three")
    epochs: int = option(60, "epochs of the first training, Algorithm 1")
    tuning: int = option(300, "epochs of the second training, Algorithm 2")
    rolling: int = option(60, "epochs of the third training, along windows of paths")
    window: int = option(20, "steps of a window")
    batch: int = option(200, "steps per batch")
    learning_rate: float = option(3e-3, "first learning rate; falls as a cosine")
    final_rate: float = option(1e-6, "last learning rate")
    grain: float = option(0.3, "strain resolution, in mean steps: half of an error is corrected in such a step")
    threshold: float = option(0.5, "least dissipation per change of Z that is allowed, over the least in the data")
    seed: int = option(0, "seed of the weights and of the order of the steps")

    def __post_init__(self) -> None:
        """Check the fields."""
        check_integers(self, 0, "variables", "width", "units", "epochs", "tuning", "rolling")
        check_integers(self, 1, "window", "batch")
        check_rates(self)
        check_seed(self.seed)
        if not 0.0 <= self.threshold < math.inf:
            raise ValueError(f"threshold must be finite and not negative, got {self.threshold}.")
        if not 0.0 < self.grain < math.inf:
            raise ValueError(f"grain must be positive and finite, got {self.grain}.")


@small_batches()
def build(config: TannNetworkConfig, train: LatticePaths) -> TannNetwork:
    """The network with its initial weights, and the sizes of all quantities.

    Raises:
        ValueError: the bars harden isotropically, or there are more variables than the paths determine.
    """
    if train.lattice["bar"]["name"] != "kinematic":
        raise ValueError("tann-network needs bars with kinematic hardening: internal coordinates do not show others.")
    if config.rolling and config.window >= train.strain.shape[1]:
        last = train.strain.shape[1] - 1
        raise ValueError(f"window must be at most the {last} steps of a path, got {config.window}.")
    torch.manual_seed(config.seed)  # of the initial weights
    d = train.dimension
    xi, xi_size = coordinates_of(train)
    scaled, first = xi / xi_size, tuple[int, ...]()
    if config.internal == "given":
        Z, decode_E, decode_Z = given(train.strain, scaled, train.alpha)
        found = Z.shape[-1]
        first = tuple(int((train.alpha - Z[..., i : i + 1]).abs().amax(dim=(0, 1)).argmin()) for i in range(found))
    else:
        decode_E = elastic_decoder(train.strain, scaled, train.dissipation)
        found = rank(spectrum((scaled - train.strain @ decode_E.T).flatten(0, 1))[0])
    if config.variables > found or (config.internal == "given" and 0 < config.variables < found):
        raise ValueError(f"variables must be 0 or at most {found}, as the paths determine, got {config.variables}.")
    N = config.variables or found
    sizes = (N, xi.shape[-1]) if first else (*(k * N for k in ENCODER[::-1]), xi.shape[-1])
    width, units = config.width or (56 if d == 2 else 88), config.units or (48 if d == 2 else 96)
    decoder = sum(a * b for a, b in zip(sizes, sizes[1:]))
    check_network_size(2.0 * width**2 + width * (2.0 * N + 18) + units * (N + 6.0) + decoder)
    law = TannNetworkLaw(d, N, width, units, sizes, internal_coordinates(lattice_of(train.lattice)[0]))
    law.decode_E, law.xi_size = decode_E, xi_size
    law.E_size, law.stress_size = train.strain.std().reshape(1), train.stress.std().reshape(1)
    law.step_size = train.strain.diff(dim=1).norm(dim=-1).mean().reshape(1) / law.E_size
    law.grain = torch.full_like(law.grain, config.grain)
    model = TannNetwork(law, not first)
    with torch.no_grad():
        if first:
            model.given = first
            law.shown.weight.copy_(decode_Z), law.shown.bias.zero_()
            law.shown.requires_grad_(False)
        else:
            first_axes(model, inelastic(train, law).flatten(0, 1))
        Z = model.variables(train)
        law.Z_size = Z.flatten(0, 1).std(dim=0)
        dZ = (Z / law.Z_size).diff(dim=1).flatten(0, 1)
        law.change_size = dZ.std(dim=0)
        steps = train.strain.diff(dim=1).flatten(0, 1).norm(dim=1) / (law.E_size * law.step_size)
        law.reach = 2.0 * (dZ.norm(dim=1) / steps)[steps > 0].max().reshape(1)
    return model.float()  # single precision is enough in training


def least(steps: Steps) -> Tensor:
    """Least dissipation per size of dz, (1,): that of the lowest hundredth of the steps that flow."""
    D, size = steps.dissipation, steps.dZ.norm(dim=1)
    flows = size > 1e-2 * size.mean()
    return torch.quantile((D[flows] / size[flows])[:100000], 0.01).reshape(1)


@small_batches()
def fit(
    model: TannNetwork, train: LatticePaths, held_out: LatticePaths, config: TannNetworkConfig, *,
    progress: bool = False, checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The three trainings; each begins with the weights of the one before that were best on held-out steps.

    Returns:
        The number of internal variables; for each stage the held-out loss of its first and of its best weights, and the
        epoch of the best; the lattice learned.
    """
    law = model.law
    found: dict[str, Any] = {"variables": law.variables}
    plan = ((1, config.epochs, 1.0), (2, config.tuning, 1.0), (3, config.rolling, 0.1))
    for stage, epochs, pace in plan:
        if stage > 1:  # the variables are given from here on: encoder and decoder are frozen
            for parameter in (*model.bias.parameters(), *law.decoder.parameters(), *law.shown.parameters()):
                parameter.requires_grad_(False)
        if stage == 3:  # with untrained networks a threshold forbids all flow
            law.kappa = config.threshold * least(Steps(train, model))
        loss_of, count, test = _work(model, train, held_out, config, stage)
        generator = torch.Generator().manual_seed(config.seed + stage)
        batch = config.batch if stage < 3 else max(1, config.batch // 4)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.NAdam(trained, lr=pace * config.learning_rate)
        with torch.no_grad():
            first = float(test())
        model.best_loss = torch.full_like(model.best_loss, float("inf"))
        model.consider(first, 0)

        def epoch(
            number: int, loss_of: Callable[[Tensor], Tensor] = loss_of, count: int = count, batch: int = batch,
            test: Callable[[], Tensor] = test, generator: torch.Generator = generator,
            optimiser: torch.optim.Optimizer = optimiser, trained: list[Any] = trained,
        ) -> dict[str, float]:  # fmt: skip
            total = 0.0
            for part in torch.randperm(count, generator=generator).split(batch):
                loss = loss_of(part.to(law.b.device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 10.0)
                optimiser.step()
                total += loss.item() * len(part)
            with torch.no_grad():
                tested = float(test())
            model.consider(tested, number + 1)
            return {"train": total / count, "held out": tested}

        run_epochs(
            model, optimiser, epochs, epoch, final_rate=config.final_rate, checkpoint=checkpoint, progress=progress,
            generator=generator, stage=stage,
        )  # fmt: skip
        torch.nn.utils.vector_to_parameters(model.best.clone(), model.parameters())
        found |= {
            f"loss_first_{stage}": first, f"loss_{stage}": float(model.best_loss),
            f"epoch_{stage}": float(model.best_epoch),
        }  # fmt: skip
    return found


def _work(
    model: TannNetwork, train: LatticePaths, held_out: LatticePaths, config: TannNetworkConfig, stage: int
) -> tuple[Callable[[Tensor], Tensor], int, Callable[[], Tensor]]:
    """Loss of some rows of a stage's training data, their number, and the held-out loss."""
    if stage == 3:
        windows, others = Windows(train, model, config.window), Windows(held_out, model, config.window)
        every = torch.arange(len(others))
        return (
            lambda rows: windows_loss(model, windows, rows), len(windows),
            lambda: windows_loss(model, others, every),
        )  # fmt: skip
    steps, tests = Steps(train, model), Steps(held_out, model)
    some = torch.arange(len(tests))[:: max(1, len(tests) // 4000)]
    return (
        lambda rows: steps_loss(model, steps, rows, stage), len(steps),
        lambda: steps_loss(model, tests, some, stage),
    )  # fmt: skip


def export(model: TannNetwork, train: LatticePaths, config: TannNetworkConfig) -> TannNetworkLaw:
    """The trained law with the decoder, in double precision: Newton's method converges further than it is accurate."""
    law = copy.deepcopy(model.law).cpu().double().requires_grad_(False)
    law.M = mandel_basis(ORDERS[law.dimension]).reshape(law.c, -1)
    law.components = component_factors(law.dimension)
    return law


def errors(model: TannNetwork, law: Any, held_out: LatticePaths, config: TannNetworkConfig) -> dict[str, float]:
    """Errors of the law along held-out paths and loads of other kinds; see `surrogates.tann.errors`."""
    return recall_errors(law, held_out)


def write(
    output: Path, law: TannNetworkLaw, train: LatticePaths, config: TannNetworkConfig, record: Record
) -> dict[str, Any]:
    """Write the law as an artifact."""
    return write_trained_law(output, law, train, trained_material(train), record)


Config, SUFFIX, load = TannNetworkConfig, ".pt", load_paths
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
