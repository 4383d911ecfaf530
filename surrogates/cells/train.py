"""Train a network on voxel cells, with or without labels, and write it with its errors on cells held out.

    python3 -m surrogates.cells.train --data DIR --output FILE.pt [--held-out N --epochs N --seed S --device cuda]
    python3 -m surrogates.cells.train --data DIR --output FILE.pt --network paper --loss energy --checkpoint FILE --resume

The models of the paper's section 5 are configurations of this one command:

    1     --network paper --loss energy          label-free, the energy in the basis of the elements, Eq. (22)
    1-A   --initial MODEL1.pt                    model 1, trained on with other cells
    2     --network paper --loss weak            label-free, the residual of the weak form, Eq. (21)
    3     --network paper --loss displacement    labels: the exact displacements, Eq. (36)
    4     --network tensor --loss tensor         labels: the exact tensors, Eq. (4)

and --loss preconditioned is model 1 with the gradient of the energy preconditioned. The default is the multiscale
network with the relative energy (`surrogates.cells.networks.multiscale`, `surrogates.cells.energy.relative_loss`), without labels.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 5.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from micro.threads import add_threads_option, check_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

import numpy as np
import torch
from torch import Tensor

from surrogates.cells import data as cells
from surrogates.cells import energy
from surrogates.cells.data import Cells
from surrogates.cells.energy import CellEnergy
from surrogates.cells.evaluate import errors_of
from surrogates.cells.networks.equivariant import draw
from surrogates.cells.networks.file import Shape, load_network, make_network, save_network
from surrogates.cells.networks.multiscale import MultiscaleNetwork
from surrogates.train import add_config
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.device import check_device
from surrogates.training.epochs import run_epochs
from surrogates.training.output_file import check_output

LABELLED = ("displacement", "tensor")
#: Most cells trained on whose errors are measured as well.
TESTED = 512


@dataclass(frozen=True)
class VoxelsConfig:
    """Configuration of a network on voxel cells and its training."""

    network: Literal["multiscale", "paper", "tensor"] = "multiscale"
    loss: Literal["relative", "energy", "preconditioned", "weak", "displacement", "tensor"] = "relative"
    width: int = 4
    features: int = 12
    steps: int = 3
    augment: bool = True  # turn each cell by a signed permutation drawn anew: nothing new to the multiscale network
    soften: float = 0.0  # part of the batches whose densities are blurred: cells with ramps from void to solid
    epochs: int = 20
    batch: int = 4
    learning_rate: float = 5e-3
    final_rate: float = 1e-4
    clip: float = 1.0  # largest norm of the gradient
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training can use."""
        for name in ("width", "features", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("epochs", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}.")
        if not 0 <= self.final_rate <= self.learning_rate:
            raise ValueError(
                f"final_rate must lie between 0 and learning_rate, {self.learning_rate}, got {self.final_rate}."
            )
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
    """Return densities (n, X, Y, Z) with ramps: blurred, then stretched so that what is far from a surface stays."""
    for axis in (1, 2, 3):
        density = (density.roll(1, axis) + 2 * density + density.roll(-1, axis)) / 4
    low, high = random.uniform(0.0, 0.3), random.uniform(0.7, 1.0)
    x = ((density - low) / (high - low)).clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def fit(
    module: torch.nn.Module, train: Cells, config: VoxelsConfig, *, device: str = "cpu",
    checkpoint: Checkpoint | None = None, progress: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Train in place.

    Returns:
        The seconds that training took (of this call), and the mean loss of the last epoch, if there was one.

    Raises:
        RuntimeError: The loss is not finite; the weights, and the last checkpoint, are those before.
    """
    module.train()
    optimiser = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    began = time.monotonic()

    def epoch(number: int) -> dict[str, float]:
        random = np.random.default_rng([config.seed, number])  # an epoch's own: a resumed run is the same run
        total = 0.0
        for rows in torch.from_numpy(random.permutation(len(train))).split(config.batch):
            part = turned(train[rows], random) if config.augment else train[rows]
            if config.soften and random.uniform() < config.soften:
                part = Cells(softened(part.density, random))
            loss = loss_of(module, CellEnergy(part.density.to(device)), part, config.loss)
            if not math.isfinite(value := loss.item()):
                raise RuntimeError(f"loss must stay finite, got {value} in epoch {number + 1}; try a lower rate.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), config.clip)
            optimiser.step()
            total += value * len(rows)
        return {"train": total / len(train)}

    last = run_epochs(
        module, optimiser, config.epochs, epoch, final_rate=config.final_rate, checkpoint=checkpoint, progress=progress
    )
    module.eval()
    return {"seconds": time.monotonic() - began} | ({"loss": last} if config.epochs else {})


def errors(module: torch.nn.Module, held: Cells, device: str = "cpu") -> dict[str, float]:
    """Return the errors on cells held out, those of fewer steps too; see `surrogates.cells.evaluate.errors_of`."""
    *fewer, own = errors_of(module, held, device)
    return own | {f"{name}_step_{k}": error for k, row in enumerate(fewer, 1) for name, error in row.items()}


def train_network(
    config: VoxelsConfig, train: Cells, held: Cells, output: Path, *, initial: Path | None = None, device: str = "cpu",
    checkpoint: Checkpoint | None = None, command: str = "", progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Build or read, fit, test and write one network.

    Returns:
        The manifest written.

    Raises:
        ValueError: The initial network has another shape.
    """
    side = int(train.density.shape[1]) if config.network == "tensor" else 0
    shape = Shape(config.network, config.width, config.features, config.steps, side)
    module, earlier = make_network(shape, config.seed).to(device), None
    if initial is not None:
        stored = load_network(initial)
        steps = {"steps": shape.steps}  # no weights of its own
        if dataclasses.asdict(Shape(**stored.manifest["shape"])) | steps != dataclasses.asdict(shape):
            raise ValueError(f"{initial} is a network of another shape: {stored.manifest['shape']}.")
        module.load_state_dict(stored.module.state_dict())
        earlier = stored.manifest.get("training")
    if config.loss in LABELLED:
        train = cells.solve(train, fields=config.loss == "displacement", device=device)
    fitted = fit(module, train, config, device=device, checkpoint=checkpoint, progress=progress)
    found = errors(module, cells.solve(held, device=device), device)
    seen = train[:TESTED]
    own = errors_of(module, cells.solve(seen, device=device), device)[-1]
    manifest = {
        "shape": dataclasses.asdict(shape),
        "data": {
            "hash": train.hash, "cells": len(train), "resolution": list(train.density.shape[1:]),
            "command": "; ".join(str(meta.get("command", "")) for meta in train.meta),
        },
        "training": {
            "command": command, "config": dataclasses.asdict(config), "seed": config.seed, **fitted,
            "parameters": sum(p.numel() for p in module.parameters()),
            "initial": "" if initial is None else initial.name, "earlier": earlier,
        },
        "errors": {
            **found, "held_out_cells": len(held),
            "train_mean": own["mean"], "train_worst": own["worst"], "train_cells": len(seen),
        },
    }  # fmt: skip
    save_network(output, module, manifest)
    return manifest


def prepare_outputs(options: dict[str, Any]) -> None:
    """Make the folders of what training writes at its end, and refuse, before it begins, what could not be written."""
    output, checkpoint = options["output"], options["checkpoint"]
    if output.suffix == ".json":
        raise ValueError(f"output must not end in .json, its manifest does, got {output}.")
    read = [Path(path) for path in options["data"]]
    for name, path, others in (
        ("output", output, [*read, *([] if checkpoint is None else [checkpoint])]),
        ("output's manifest", output.with_suffix(".json"), read),
        ("checkpoint", checkpoint, [*read, *([] if options["initial"] is None else [options["initial"]])]),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_output(name, path, others)


def make_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(prog="surrogates.cells.train", description="Train a network on voxel cells.")
    parser.add_argument("--data", action="append", required=True, metavar="DIR", help="data set or .npy; may repeat")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="network; its manifest goes beside")
    parser.add_argument("--initial", type=Path, metavar="FILE", help="network to begin with, of the same shape")
    parser.add_argument("--held-out", type=int, metavar="N", help="cells held out (default: a seventh)")
    parser.add_argument("--allow-partial", action="store_true", help="accept a data set whose job has not finished")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_threads_option(parser)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="where training keeps its state")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="epochs between checkpoints (default: 1)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint if it is there")
    add_config(parser, VoxelsConfig)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 2 where the input is refused."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = vars(make_parser().parse_args(words))
    try:
        config = VoxelsConfig(**{entry.name: options[entry.name] for entry in dataclasses.fields(VoxelsConfig)})
        check_threads(options["threads"])
        if options["every"] < 1:
            raise ValueError(f"every must be at least 1, got {options['every']}.")
        if options["resume"] and options["checkpoint"] is None:
            raise ValueError("resume needs the checkpoint to go on from: give --checkpoint FILE.")
        check_device(options["device"])
        use_threads(options["threads"])
        data = cells.join([cells.read_cells(path, allow_partial=options["allow_partial"]) for path in options["data"]])
        train, held = cells.split(data, options["held_out"], config.seed)
        prepare_outputs(options)
        checkpoint = None
        if options["checkpoint"] is not None:
            belongs = json.dumps([dataclasses.asdict(config), data.hash, len(train), str(options["initial"])])
            fingerprint = hashlib.sha256(belongs.encode()).hexdigest()
            checkpoint = Checkpoint(options["checkpoint"], options["every"], options["resume"], fingerprint)
        manifest = train_network(
            config, train, held, options["output"], initial=options["initial"], device=options["device"],
            checkpoint=checkpoint, command=" ".join(["python3 -m surrogates.cells.train", *words]),
            progress=sys.stderr.isatty(),
        )  # fmt: skip
    except (ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(manifest["errors"], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
