"""TANN: thermodynamics-based network of a lattice, with internal variables that it finds or that are given.

Free energy and dissipation potential are those of `surrogates.tann.law`; encoder and decoder are one set of weights:
the decoder is linear, and the encoder is its exact inverse on its range (the pseudo-inverse, which is the
transpose where the columns are orthonormal). A linear decoder is enough: with linear elastic bars the plastic strains
are linear in displacements and forces. Initial coefficients come from `surrogates.tann.internal_variables`; then follow
the two trainings of the paper, by Algorithm 1 with the encoder in the loop, and by Algorithm 2 on the variables that
the frozen encoder finds. The coefficients that are best on held-out steps are kept, the initial ones included.

References:
    Masi and Stefanou (2022), section III, Eqs. (11) to (13), Algorithms 1 and 2, doi:10.1016/j.cma.2022.115190.
"""

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
from surrogates.tann.internal_variables import discover, given, identify, merge
from surrogates.tann.law import TannLaw
from surrogates.tann.model import Steps, Tann, coordinates_of, steps_loss
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_integers, check_rates, check_seed, option
from surrogates.training.epochs import run_epochs
from surrogates.training.kind import Record, write_trained_law


@dataclass(frozen=True)
class TannConfig:
    """Configuration of a TANN and its training."""

    variables: int = option(0, "internal variables; 0 for all that appear in the internal coordinates")
    internal: Literal["discovered", "given"] = option(
        "discovered", "given: the internal variables are the plastic strains of the bars"
    )
    epochs: int = option(10, "epochs of the first training, Algorithm 1")
    tuning: int = option(10, "epochs of the second training, Algorithm 2")
    batch: int = option(256, "steps per batch")
    learning_rate: float = option(1e-4, "first learning rate; falls as a cosine")
    final_rate: float = option(1e-6, "last learning rate")
    seed: int = option(0, "seed of the order of the steps and of merging")
    decouple: float = option(
        1e-8, "couplings of internal variables below this fraction of their stiffness are dropped", export=True
    )

    def __post_init__(self) -> None:
        """Check the fields."""
        check_integers(self, 0, "variables", "epochs", "tuning")
        check_integers(self, 1, "batch")
        check_rates(self)
        check_seed(self.seed)
        if not 0 <= self.decouple < 1:
            raise ValueError(f"decouple must lie in [0, 1), got {self.decouple}.")


@small_batches()
def build(config: TannConfig, train: LatticePaths) -> Tann:
    """The initial coefficients, identified on the training paths; fewer variables by merging the most similar ones."""
    xi, size = coordinates_of(train)
    xi = xi / size
    if config.internal == "given":
        variables = given(train.strain, xi, train.alpha)
    else:
        variables = discover(train.strain, xi, train.dissipation)
    hardens = train.lattice["bar"]["name"] == "isotropic"
    numbers = identify(train.strain, train.stress, train.dissipation, variables, hardens=hardens)
    found = numbers.G.shape[1]
    if config.variables > found:
        raise ValueError(f"variables must be at most the {found} that the paths determine, got {config.variables}.")
    if 0 < config.variables < found:
        numbers = merge(numbers, config.variables, config.seed)
    return Tann(numbers, size, hardens)


@small_batches()
def fit(
    model: Tann, train: LatticePaths, held_out: LatticePaths, config: TannConfig, *, progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Both trainings; the best coefficients on held-out steps stay in `model`.

    Returns:
        The number of internal variables and, for each training, the held-out loss (Eqs. 13 and 12, each term relative
        to its mean size) of its first and its best coefficients, and the epoch of the best; the lattice learned.
    """
    found: dict[str, Any] = {"variables": model.factor.shape[0] - model.c}
    for stage, epochs in ((1, config.epochs), (2, config.tuning)):
        model.decode_E.requires_grad_(stage == 1)  # in the second training the encoder is frozen
        model.decode_Z.requires_grad_(stage == 1)
        steps, tests = Steps(train, model), Steps(held_out, model)
        rows = torch.arange(len(tests), device=model.size.device)[:: max(1, len(tests) // 4000)]
        generator = torch.Generator().manual_seed(config.seed + stage)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.NAdam(trained, lr=config.learning_rate)
        with torch.no_grad():
            first = float(steps_loss(model, tests, rows, stage))
        model.best_loss = torch.full_like(model.best_loss, float("inf"))
        model.consider(first, 0)

        def epoch(
            number: int, steps: Steps = steps, tests: Steps = tests, stage: int = stage, rows: Tensor = rows,
            generator: torch.Generator = generator, optimiser: torch.optim.Optimizer = optimiser,
        ) -> dict[str, float]:  # fmt: skip
            total = 0.0
            for part in torch.randperm(len(steps), generator=generator).split(config.batch):
                loss = steps_loss(model, steps, part.to(rows.device), stage)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                total += loss.item() * len(part)
            with torch.no_grad():
                tested = float(steps_loss(model, tests, rows, stage))
            model.consider(tested, number + 1)
            return {"train": total / len(steps), "held out": tested}

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


def export(model: Tann, train: LatticePaths, config: TannConfig) -> TannLaw:
    """The law of the trained coefficients, with the decoder."""
    return model.law(internal_coordinates(lattice_of(train.lattice)[0]), config.decouple).cpu()


def errors(model: Tann, law: Any, held_out: LatticePaths, config: TannConfig) -> dict[str, float]:
    """Errors of the law along held-out paths and loads of other kinds; see `surrogates.tann.errors`."""
    return recall_errors(law, held_out)


def write(output: Path, law: TannLaw, train: LatticePaths, config: TannConfig, record: Record) -> dict[str, Any]:
    """Write the law as an artifact."""
    return write_trained_law(output, law, train, trained_material(train), record)


Config, SUFFIX, load = TannConfig, ".pt", load_paths
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
