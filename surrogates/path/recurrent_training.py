"""Training of the recurrent law: truncated backpropagation through windows of the paths, with carried states.

Many paths are advanced side by side. The state at the end of a window is the start of the next, without its derivative.
The loss of a path in a window is the relative error of its deviator: root mean square error over that of the stress of
the whole path. Loss and gradient come from the compiled form, or from PyTorch on a GPU and where there is no compiler.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.build import BuildError
from micro.threads import small_batches
from surrogates.artifact.export import Material
from surrogates.artifact.load import load_law, switch_fusion_off
from surrogates.path.compiled_windows import CompiledWindows
from surrogates.path.data import DENSITY, Samples, crystal_constant, moduli, trained_range
from surrogates.path.errors import follow, refined, report
from surrogates.path.overlay import Overlay, Sizes
from surrogates.path.recurrent import LIMIT, RecurrentLaw
from surrogates.path.sets import DATA, Sets, errors_of_kinds, load_sets
from surrogates.path.trust import calibrate, training_states
from surrogates.path.windows import GIVEN, Block, Rows, aligned, batches, block, prepare
from surrogates.tensors import deviator
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import check_integers, check_network_size, check_rates, check_seed, option
from surrogates.training.epochs import run_epochs
from surrogates.training.kind import Record, write_trained_law
from surrogates.training.soap import Soap

SUFFIX = ".pt"
#: Part of the paths of a batch below which its last windows are left out: few paths make a poor gradient.
FEWEST = 0.5


@dataclass(frozen=True)
class RecurrentConfig:
    """Configuration of the recurrent law and its training; each field is an option of `surrogates.train recurrent`."""

    elements: int = option(4, "viscoplastic elements in the state")
    memory: int = option(6, "memory tensors in the state")
    width: int = option(64, "width of the network")
    mixed: int = option(8, "combinations of the tensors of the state whose products are invariants")
    products: int = option(8, "products of two such combinations")
    basis: int = option(10, "tensors of which back strains and targets are combined")
    epochs: int = option(600, "passes over the training paths")
    batch: int = option(128, "paths per step of the optimiser")
    window: int = option(80, "pieces of steps per window")
    limit: float = option(LIMIT, "largest strain of a piece of a step; the law cuts longer steps")
    learning_rate: float = option(3e-3, "first learning rate; falls as a cosine")
    final_rate: float = option(1e-5, "last learning rate")
    seed: int = option(0, "seed of weights and batches")
    paths: int = option(0, "largest number of training paths of each data set, its first ones; 0 for all")
    report: int = option(0, "epochs between two entries of the history of errors against minutes; 0 for none")
    initial: str = option("", "artifact whose weights to start from, none for random ones")

    def __post_init__(self) -> None:
        """Check the fields."""
        sizes = ("elements", "memory", "width", "mixed", "products", "basis")
        check_integers(self, 1, *sizes, "epochs", "batch", "window")
        check_integers(self, 0, "paths", "report")
        check_rates(self)
        check_seed(self.seed)
        if not 1e-5 <= self.limit <= 0.1:
            raise ValueError(f"limit must lie between 1e-5 and 0.1, got {self.limit}.")

    @property
    def sizes(self) -> Sizes:
        """Sizes of the law."""
        return Sizes(self.elements, self.memory, self.mixed, self.products, self.basis, self.width)


@small_batches()
def build(config: RecurrentConfig, train: Sets) -> RecurrentLaw:
    """A law with fresh weights for the material of the training data."""
    check_network_size(config.sizes.parameters())
    found = {moduli(part) for part in train.parts}
    if len(found) > 1:
        raise ValueError(f"Data sets trained on together must have the same moduli, got {sorted(found)}.")
    bulk, shear = found.pop()
    law = RecurrentLaw(Overlay(config.sizes, config.seed), bulk=bulk, shear=shear, limit=config.limit)
    if config.initial:
        try:
            law.overlay.load_state_dict(load_law(config.initial).module.overlay.state_dict())
        except (RuntimeError, AttributeError) as error:
            raise ValueError(
                f"initial must be an artifact with the same sizes ({config.sizes}), got {config.initial}."
            ) from error
    return law


class Trainer:
    """Loss and gradient of a law over batches of paths.

    Args:
        model: The law; its parameters get the gradients.
        paths: The rows of all paths.
        config: Of the training.
        compiled: Use the compiled form; None where it can be built and the law is on the CPU.
    """

    def __init__(
        self, model: RecurrentLaw, paths: list[Rows], config: RecurrentConfig, *, compiled: bool | None = None
    ) -> None:
        self.model, self.paths, self.config = model, paths, config
        self.lengths = np.array([len(path.values) for path in paths])
        self.workers: list[CompiledWindows] = []
        if compiled is not False and model.overlay.share.device.type == "cpu":
            try:
                count = max(1, torch.get_num_threads())
                self.workers = [CompiledWindows(config.sizes, config.window) for _ in range(count)]
            except BuildError:
                if compiled:
                    raise
        self.lanes = self.workers[0].lanes if self.workers else 16
        self.pool = ThreadPoolExecutor(max(1, len(self.workers)))
        if not self.workers:
            switch_fusion_off()
        self.step = torch.jit.script(model.overlay) if not self.workers else None
        self.parameters = [getattr(model.overlay, name) for name in config.sizes.shapes()]

    def windows(self, rows: np.ndarray) -> Any:
        """Advance a batch of paths window by window; after each the gradients are set, and its loss is given."""
        width, lanes = self.config.window, self.lanes
        # Each block holds paths of like length, so that few lanes are empty.
        rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
        blocks = [block([self.paths[r] for r in rows[i : i + lanes]], lanes, width) for i in range(0, len(rows), lanes)]
        states = [aligned((self.config.sizes.state, lanes)) for _ in blocks]
        for start in range(0, max(len(b.values) for b in blocks), width):
            alive = [k for k, b in enumerate(blocks) if len(b.values) > start]
            parts = [blocks[k].values[start : start + width] for k in alive]
            scales = [self._scale(blocks[k], part) for k, part in zip(alive, parts, strict=True)]
            total = sum(float(scale[1].sum()) for scale in scales)
            if total == 0:
                continue
            if total < FEWEST * len(rows):
                return
            for scale in scales:
                scale[1] /= total
            work = self._compiled if self.workers else self._torch
            yield work(parts, [states[k] for k in alive], scales)

    def error(self, paths: list[Rows]) -> float:
        """Mean relative error of the deviator over some paths, each followed from its start to its end."""
        total, lanes, weights = 0.0, self.lanes, self._weights()
        paths = sorted(paths, key=lambda path: -len(path.values))
        for start in range(0, len(paths), lanes):
            one = block(paths[start : start + lanes], lanes, 1)
            state = aligned((self.config.sizes.state, lanes))
            if self.workers:
                total += self.workers[0].run(weights, one.values, state, one.scale)
            else:
                arrays = (torch.from_numpy(array).to(self.parameters[0]) for array in (one.values, state, one.scale))
                with torch.no_grad():
                    total += float(window_loss(self.step, self.config.sizes, *arrays)[0])
        return total / len(paths)

    def _weights(self) -> np.ndarray:
        """The weights as the compiled form takes them."""
        return torch.cat([p.detach().flatten() for p in self.parameters]).cpu().numpy().astype(np.float32)

    @staticmethod
    def _scale(whole: Block, part: np.ndarray) -> np.ndarray:
        """The scale of a window: lanes without a stress in it do not count."""
        scale = aligned(whole.scale.shape)
        scale[:] = whole.scale
        scale[1] *= part[:, GIVEN].max(axis=0)
        return scale

    def _compiled(self, parts: list[np.ndarray], states: list[np.ndarray], scales: list[np.ndarray]) -> float:
        weights = self._weights()
        gradients = np.zeros((len(parts), weights.size))
        losses = np.zeros(len(parts))

        def share(worker: int) -> None:
            for k in range(worker, len(parts), len(self.workers)):
                losses[k] = self.workers[worker].run(weights, parts[k], states[k], scales[k], gradient=gradients[k])

        list(self.pool.map(share, range(len(self.workers))))
        flat = torch.from_numpy(gradients.sum(axis=0)).to(self.parameters[0].dtype)  # in the order of the blocks
        for p, g in zip(self.parameters, torch.split(flat, [p.numel() for p in self.parameters]), strict=True):
            p.grad = g.reshape(p.shape)
        return float(losses.sum())

    def _torch(self, parts: list[np.ndarray], states: list[np.ndarray], scales: list[np.ndarray]) -> float:
        values, state, scale = (
            torch.from_numpy(np.concatenate(arrays, axis=-1)).to(self.parameters[0])
            for arrays in (parts, states, scales)
        )
        self.model.overlay.zero_grad(set_to_none=True)
        loss, last = window_loss(self.step, self.config.sizes, values, state, scale)
        loss.backward()
        moved = np.split(last.detach().cpu().numpy(), len(states), axis=-1)
        for old, new in zip(states, moved, strict=True):
            old[:] = new
        return float(loss)


def window_loss(step: Any, sizes: Sizes, values: Tensor, state: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and last state (k, n) of a window by PyTorch, for n points; arrays as for the compiled form.

    Args:
        step: The learned step, an `Overlay`.
        sizes: Its sizes.
        values: (T, 18, n).
        state: (k, n).
        scale: (2, n).
    """
    n, K = values.shape[2], sizes.elements
    tensors = state.T.reshape(n, -1, 5)
    e, m = tensors[:, :K], tensors[:, K:]
    error, given = torch.zeros_like(scale[0]), torch.zeros_like(scale[0])
    for row in values:
        D, E, stress, dt, volume, there = row[:5].T, row[5:10].T, row[10:15].T, row[15], row[16], row[17]
        e, m, _, _ = step(e, m, E, volume, D, dt)
        error = error + there * (step.stress(e) - stress).square().sum(1)
        given = given + there
    loss = (scale[1] * torch.sqrt(error * scale[0] / given.clamp(min=1.0) + 1e-6)).sum()
    return loss, torch.cat([e, m], dim=1).reshape(n, -1).T


@small_batches()
def fit(
    model: RecurrentLaw, train: Sets, held_out: Sets, config: RecurrentConfig, *, progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train in place; returns the entries for the manifest.

    With `report`, these hold "history": rows of processor minutes since the start of this process, epoch, and errors
    of training (the mean loss of the windows) and of the held-out paths.
    """
    switch_fusion_off()
    start, history = process_time(), []
    watched = [r for part in held_out.parts for r in prepare(part, model.shear, model.limit)] if config.report else []
    first = slice(config.paths or None)
    paths = [rows for part in train.parts for rows in prepare(part[first], model.shear, model.limit)]
    kind: torch.dtype = model.overlay.share.dtype  # type: ignore[assignment]
    if model.overlay.share.device.type == "cpu":
        model.overlay.double()  # the optimiser works in double precision, the compiled form in single
    trainer = Trainer(model, paths, config)
    optimiser = Soap(trainer.parameters, lr=config.learning_rate)

    def epoch(number: int) -> dict[str, float]:
        # One stream per epoch: a resumed run draws the same numbers as an uninterrupted one.
        rng = np.random.Generator(np.random.Philox(key=config.seed, counter=[0, 0, 0, number]))
        losses = []
        for rows in batches(trainer.lengths, config.batch, config.window, rng):
            for loss in trainer.windows(rows):
                optimiser.step()
                losses.append(loss)
        shown = {"train": float(np.mean(losses))}
        if watched and (number + 1) % config.report == 0:
            shown["held_out"] = trainer.error(watched)
            history.append([(process_time() - start) / 60, number + 1, shown["train"], shown["held_out"]])
        return shown

    try:
        loss = run_epochs(
            model,
            optimiser,
            config.epochs,
            epoch,
            final_rate=config.final_rate,
            checkpoint=checkpoint,
            progress=progress,
        )
    finally:
        model.overlay.to(kind)
    return {"training_loss": loss, "pieces": int(trainer.lengths.sum())} | ({"history": history} if history else {})


@small_batches()
def export(model: RecurrentLaw, train: Sets, config: RecurrentConfig) -> RecurrentLaw:
    """The law on the CPU, with novelty and expected error calibrated on states along training paths."""
    law = model.cpu()
    states, errors = training_states(law, train.parts)
    with torch.no_grad():
        calibrate(law.trust, law.features(states), errors)
    return law


@small_batches()
def errors(model: RecurrentLaw, law: RecurrentLaw, held_out: Sets, config: RecurrentConfig) -> dict[str, float]:
    """Errors of the law on the held-out paths: of all, of each kind of set, and of the law against finer steps."""

    def measure(part: Samples) -> dict[str, float]:
        stress = follow(law, part)
        finer = follow(law, refined(part, 4))[:, ::4]
        change = deviator(finer - stress).flatten(1).norm(dim=1) / deviator(stress).flatten(1).norm(dim=1)
        return report(stress, part) | {"self_4": float(change.mean())}

    return errors_of_kinds(held_out, measure)


def material(train: Sets) -> Material:
    """The manifest's description of the crystals that a law was trained on."""
    ranges = [trained_range(part) for part in train.parts]
    pick = {name: [r[name] for r in ranges if r[name] is not None] for name in ranges[0]}
    limits = {
        name: (max(values) if name.endswith("_max") else min(values)) if values else None  # type: ignore[type-var]
        for name, values in pick.items()
    }
    first = train.parts[0]
    return Material("finite", 3, crystal_constant(first, "density", DENSITY), moduli(first), limits)


def write(output: Path, law: RecurrentLaw, train: Sets, config: RecurrentConfig, record: Record) -> dict[str, Any]:
    """Write the law as an artifact."""
    return write_trained_law(output, law, train, material(train), record)


Config, load = RecurrentConfig, load_sets
__all__ = ["DATA", "SUFFIX", "Config", "build", "errors", "export", "fit", "load", "write"]
