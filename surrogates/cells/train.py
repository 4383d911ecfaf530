"""Train a network on voxel cells, with or without labels, and write it with its errors on held-out cells.

    python3 -m surrogates.train voxels --data DIR --output FILE.pt [--held-out N --epochs N --seed S --device cuda]
    python3 -m surrogates.train voxels --data DIR --output FILE.pt --network paper --loss energy

The models of the paper's section 5 are configurations of this one command:

    1     --network paper --loss energy          label-free, the energy in the basis of the elements, Eq. (22)
    1-A   --initial MODEL1.pt                    model 1, trained further with other cells
    2     --network paper --loss weak            label-free, the residual of the weak form, Eq. (21)
    3     --network paper --loss displacement    labels: the exact displacements, Eq. (36)
    4     --network tensor --loss tensor         labels: the exact tensors, Eq. (4)

and --loss preconditioned is model 1 with the gradient of the energy preconditioned. The default is the multiscale
network with the relative energy (`surrogates.cells.networks.multiscale`, `surrogates.cells.energy.relative_loss`),
without labels.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 5.
"""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from surrogates.cells import data as cells
from surrogates.cells import energy
from surrogates.cells.data import DATA, Cells, load_cells
from surrogates.cells.energy import CellEnergy
from surrogates.cells.evaluate import errors_of
from surrogates.cells.networks.equivariant import draw
from surrogates.cells.networks.file import Shape, load_network, make_network, save_network
from surrogates.cells.networks.multiscale import MultiscaleNetwork
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_integers, check_network_size, check_rates, check_seed, option
from surrogates.training.epochs import run_epochs
from surrogates.training.kind import Record

LABELLED = ("displacement", "tensor")
#: Largest number of training cells whose errors are measured as well.
TESTED = 512


@dataclass(frozen=True)
class VoxelsConfig:
    """Configuration of a network on voxel cells and its training."""

    network: Literal["multiscale", "paper", "tensor"] = option("multiscale", "network")
    loss: Literal["relative", "energy", "preconditioned", "weak", "displacement", "tensor"] = option(
        "relative", "loss; the last two need labels, which are computed first"
    )
    width: int = option(4, "vector fields on the finest grid of the multiscale network")
    features: int = option(12, "features of a voxel from which the gates are computed")
    steps: int = option(3, "steps of the multiscale network")
    augment: bool = option(True, "transform each cell by a random signed permutation")
    soften: float = option(0.0, "fraction of the batches whose densities are blurred from void to solid")
    epochs: int = option(20, "passes over the training cells")
    batch: int = option(4, "cells per batch")
    learning_rate: float = option(5e-3, "first learning rate; falls as a cosine")
    final_rate: float = option(1e-4, "last learning rate")
    clip: float = option(1.0, "largest norm of the gradient")
    seed: int = option(0, "seed of weights and order")
    initial: str = option("", "network whose weights to start from, of the same shape; none for random ones")

    def __post_init__(self) -> None:
        """Check the fields."""
        check_integers(self, 1, "width", "features", "steps", "batch")
        check_integers(self, 0, "epochs")
        check_rates(self)
        check_seed(self.seed)
        if not self.clip > 0:
            raise ValueError(f"clip must be positive, got {self.clip}.")
        if not 0 <= self.soften <= 1:
            raise ValueError(f"soften must lie between 0 and 1, got {self.soften}.")
        if self.soften and self.loss in LABELLED:
            raise ValueError(f"soften must be 0 with loss {self.loss}, got {self.soften}: labels are of hard cells.")
        if (self.network == "tensor") != (self.loss == "tensor"):
            raise ValueError("network tensor and loss tensor go together: the others give fields, and it gives none.")


def loss_of(module: torch.nn.Module, batch: CellEnergy, labels: Cells, loss: str) -> Tensor:
    """Return the loss of a batch of cells; a multiscale network's is the mean over its steps."""
    if loss == "tensor":
        assert labels.tensor is not None
        return (module(batch) - labels.tensor.to(batch.load)).square().sum((1, 2)).mean()  # Eq. (4)
    fields = module.sequence(batch) if isinstance(module, MultiscaleNetwork) else [module(batch)]
    if loss == "displacement":
        assert labels.displacement is not None
        label = labels.displacement.to(batch.load)
        return torch.stack([energy.displacement_loss(batch, u, label) for u in fields]).mean()
    value = {
        "relative": energy.relative_loss, "energy": energy.energy_loss,
        "preconditioned": energy.preconditioned_loss, "weak": energy.weak_loss,
    }[loss]  # fmt: skip
    return torch.stack([value(batch, u) for u in fields]).mean()


def turned(part: Cells, random: np.random.Generator) -> Cells:
    """Return cells turned by one of the 48 signed permutations, labels too; not if their sides differ."""
    if len(set(part.density.shape[1:])) > 1:
        return part
    g = draw(random)
    tensor = None if part.tensor is None else g.tensor(part.tensor)
    field = None if part.displacement is None else g.displacement(part.displacement)
    return Cells(g.density(part.density), tensor, field)


def softened(density: Tensor, random: np.random.Generator) -> Tensor:
    """Return densities (n, X, Y, Z) with ramps at surfaces; voxels far from a surface keep their density."""
    for axis in (1, 2, 3):
        density = (density.roll(1, axis) + 2 * density + density.roll(-1, axis)) / 4
    low, high = random.uniform(0.0, 0.3), random.uniform(0.7, 1.0)
    x = ((density - low) / (high - low)).clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def fit(
    model: torch.nn.Module, train: Cells, held_out: Cells, config: VoxelsConfig, *, progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train in place; labels, where the loss needs them, are computed first.

    Returns:
        The seconds that training took (of this call), and the mean loss of the last epoch, if there was one.

    Raises:
        RuntimeError: The loss is not finite; the weights and the last checkpoint are those of the epoch before.
    """
    device = device_of(model)
    if config.loss in LABELLED:
        train = cells.solve(train, fields=config.loss == "displacement", device=device)
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    began = time.monotonic()

    def epoch(number: int) -> dict[str, float]:
        random = np.random.default_rng([config.seed, number])  # one stream per epoch: resuming changes nothing
        total = 0.0
        for rows in torch.from_numpy(random.permutation(len(train))).split(config.batch):
            part = turned(train[rows], random) if config.augment else train[rows]
            if config.soften and random.uniform() < config.soften:
                part = Cells(softened(part.density, random))
            loss = loss_of(model, CellEnergy(part.density.to(device)), part, config.loss)
            if not math.isfinite(value := loss.item()):
                raise RuntimeError(f"loss must stay finite, got {value} in epoch {number + 1}; try a lower rate.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            total += value * len(rows)
        return {"train": total / len(train)}

    last = run_epochs(
        model, optimiser, config.epochs, epoch, final_rate=config.final_rate, checkpoint=checkpoint, progress=progress
    )
    model.eval()
    return {"seconds": time.monotonic() - began} | ({"loss": last} if config.epochs else {})


def build(config: VoxelsConfig, train: Cells) -> torch.nn.Module:
    """A network with its initial weights, or with those of the network `initial`.

    Raises:
        ValueError: The initial network has another shape.
    """
    shape = shape_of(config, train)
    width, features = config.width, config.features
    check_network_size(50.0 * width**2 + 60.0 * width * features + 40.0 * features**2)
    module = make_network(shape, config.seed)
    if config.initial:
        stored = load_network(config.initial)
        steps = {"steps": shape.steps}  # no weights of its own
        if dataclasses.asdict(Shape(**stored.manifest["shape"])) | steps != dataclasses.asdict(shape):
            raise ValueError(f"{config.initial} is a network of another shape: {stored.manifest['shape']}.")
        module.load_state_dict(stored.module.state_dict())
    return module


def shape_of(config: VoxelsConfig, train: Cells) -> Shape:
    """The shape of the network of a configuration; a tensor network is made for one resolution."""
    side = int(train.density.shape[1]) if config.network == "tensor" else 0
    return Shape(config.network, config.width, config.features, config.steps, side)


def export(model: torch.nn.Module, train: Cells, config: VoxelsConfig) -> torch.nn.Module:
    """The network itself, ready to predict."""
    return model.eval()


def errors(model: torch.nn.Module, law: torch.nn.Module, held_out: Cells, config: VoxelsConfig) -> dict[str, float]:
    """Errors on held-out cells, those of fewer steps too; see `surrogates.cells.evaluate.errors_of`."""
    device = device_of(law)
    *fewer, own = errors_of(law, cells.solve(held_out, device=device), device)
    named = {f"{name}_step_{k}": error for k, row in enumerate(fewer, 1) for name, error in row.items()}
    return {**own, **named}


def write(
    output: Path, law: torch.nn.Module, train: Cells, config: VoxelsConfig, record: Record
) -> dict[str, Any]:
    """Write the network with its manifest, and the errors on cells that it was trained on beside the held-out ones."""
    device, seen = device_of(law), train[:TESTED]
    own = errors_of(law, cells.solve(seen, device=device), device)[-1]
    initial = Path(config.initial).name
    manifest = {
        "name": record.name or output.stem,
        "shape": dataclasses.asdict(shape_of(config, train)),
        "data": {
            "hash": train.hash, "cells": len(train), "resolution": list(train.density.shape[1:]),
            "command": "; ".join(str(meta.get("command", "")) for meta in train.meta),
        },
        "training": {
            **record.training, "initial": initial,
            "earlier": load_network(config.initial).manifest.get("training") if initial else None,
        },
        "errors": {
            **record.errors, "held_out_cells": record.held_out,
            "train_mean": own["mean"], "train_worst": own["worst"], "train_cells": len(seen),
        },
    }  # fmt: skip
    save_network(output, law, manifest)
    return manifest


def device_of(module: torch.nn.Module) -> str:
    """The device that a network is on."""
    return str(next(module.parameters()).device)


Config, SUFFIX, load = VoxelsConfig, ".pt", load_cells
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
