"""TANN: thermodynamics-based network of a lattice, with internal variables that it finds or that are given.

Free energy and dissipation potential are those of `surrogates.tann.law`; encoder and decoder are one set of weights:
the decoder is linear, and the encoder is its exact inverse on what it can show (the pseudo-inverse, which is the
transpose where the columns are orthonormal). Linear is enough: with linear elastic bars the plastic strains are linear
in displacements and forces. First numbers come from `surrogates.tann.identify`; then follow the paper's two
trainings, by
Algorithm 1 with the encoder in the loop, and by Algorithm 2 on the variables that the frozen encoder finds. Of all
epochs the numbers that do best on held-out steps are kept, those of the beginning among them.

References:
    Masi and Stefanou (2022), section III, Eqs. (11) to (13), Algorithms 1 and 2, doi:10.1016/j.cma.2022.115190.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from micro.lattice.condensation import condense
from micro.lattice.parameters import lattice_of
from surrogates.artifact.export import Material
from surrogates.tann.data import Walks, load_walks
from surrogates.tann.errors import recall_errors
from surrogates.tann.exact import internal_coordinates, lattice_material
from surrogates.tann.identify import discover, given, identify
from surrogates.tann.law import TannLaw
from surrogates.tann.merge import merge
from surrogates.tann.model import Steps, Tann, coordinates_of, steps_loss
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.epochs import run_epochs


@dataclass(frozen=True)
class TannConfig:
    """Configuration of a TANN and its training."""

    variables: int = 0  # internal variables; 0 for all that the internal coordinates show
    internal: Literal["discovered", "given"] = "discovered"  # given: the plastic strains of the bars, the older form
    epochs: int = 10  # of the first training, Algorithm 1
    tuning: int = 10  # of the second training, Algorithm 2
    batch: int = 256
    learning_rate: float = 1e-4
    final_rate: float = 1e-6
    seed: int = 0
    # Couplings of internal variables below this part of their stiffness are dropped: without any the law is explicit.
    decouple: float = field(default=1e-8, metadata={"export": True})

    def __post_init__(self) -> None:
        """Refuse what no training can use."""
        for name in ("variables", "epochs", "tuning"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}.")
        if not 0 <= self.decouple < 1:
            raise ValueError(f"decouple must lie in [0, 1), got {self.decouple}.")


def build(config: TannConfig, train: Walks) -> Tann:
    """The first numbers, identified on the training walks; fewer variables than there are by merging the most alike."""
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
        raise ValueError(f"variables must be at most the {found} that the walks show, got {config.variables}.")
    if 0 < config.variables < found:
        numbers = merge(numbers, config.variables, config.seed)
    return Tann(numbers, size, hardens)


def fit(
    model: Tann, train: Walks, held_out: Walks, config: TannConfig, *, progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Both trainings; the best numbers on held-out steps stay in `model`.

    Returns:
        The number of internal variables and, for each training, the held-out loss (Eqs. 13 and 12, each term relative
        to its mean size) of its first and its best numbers, and the epoch of the best; the lattice learned.
    """
    found: dict[str, Any] = {"variables": model.factor.shape[0] - model.c}
    for stage, epochs in ((1, config.epochs), (2, config.tuning)):
        model.decode_E.requires_grad_(stage == 1)  # the second training knows the variables: the encoder is frozen
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


def export(model: Tann, train: Walks, config: TannConfig) -> TannLaw:
    """The law of the trained numbers, with the decoder."""
    return model.law(internal_coordinates(lattice_of(train.lattice)[0]), config.decouple).cpu()


load = load_walks


def material(train: Walks) -> Material:
    """What the manifest says of the lattice: a lattice has no density, 1 kg/m^3 stands for it."""
    strain_max = float(train.strain.norm(dim=-1).max())
    return lattice_material(condense(*lattice_of(train.lattice)).C, strain_max, train.lattice)


def errors(model: Tann, law: Any, held_out: Walks, config: TannConfig) -> dict[str, float]:
    """Errors of the law in recall along held-out walks and loads of other kinds; see `surrogates.tann.errors`."""
    return recall_errors(law, held_out)
