"""Epochs: the loop around a training, with its schedule, progress bar and checkpoint."""

import math
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from micro.threads import small_batches
from surrogates.training.checkpoint import Checkpoint


@small_batches()
def run_epochs(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    epochs: int,
    work: Callable[[int], dict[str, float]],
    *,
    final_rate: float,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
    generator: torch.Generator | None = None,
    stage: int = 1,
) -> float:
    """Train for some epochs at a learning rate that falls as a cosine; a stored run continues where it stopped.

    Args:
        model: what is trained; its state dict is stored, buffers included.
        optimiser: its optimiser, at the first learning rate.
        epochs: epochs of this stage.
        work: the work of one epoch, counted from 0; returns the values for the progress bar, the mean loss as "train".
        final_rate: learning rate at the end.
        checkpoint: where the state is kept.
        progress: show a bar.
        generator: source of randomness whose state is kept, too, if `work` draws from one stream.
        stage: number of this stage of a training in several, from 1; a stored later stage skips this one.

    Returns:
        The mean training loss of the last epoch, nan if there was none.

    Raises:
        ValueError: the checkpoint is damaged or belongs to another run.
        RuntimeError: the loss is not finite; the last checkpoint is the one before.
    """
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, epochs), eta_min=final_rate)
    first, loss = 0, float("nan")
    stored = checkpoint.load() if checkpoint else None
    if checkpoint is not None and stored is not None:
        reached = _number(stored, "stage", int, checkpoint) if "stage" in stored else 1
        if reached >= stage:
            _restore(model.load_state_dict, stored, "model", checkpoint)
        if reached > stage:
            return loss
        if reached == stage:
            _restore(optimiser.load_state_dict, stored, "optimiser", checkpoint)
            _restore(schedule.load_state_dict, stored, "schedule", checkpoint)
            first, loss = _number(stored, "epoch", int, checkpoint), _number(stored, "loss", float, checkpoint)
            if generator is not None:
                _restore(generator.set_state, stored, "generator", checkpoint)
    bar = tqdm(range(first, epochs), initial=first, total=epochs, disable=not progress, unit="epoch")
    for epoch in bar:
        shown = work(epoch)
        schedule.step()
        loss = shown["train"]
        if not math.isfinite(loss):
            raise RuntimeError(f"loss must stay finite, got {loss} in epoch {epoch + 1}; try a lower learning rate.")
        bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})
        if checkpoint and checkpoint.due(epoch + 1, epochs):
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epoch": epoch + 1}
            state |= {"schedule": schedule.state_dict(), "loss": loss, "stage": stage}
            checkpoint.save(state | ({} if generator is None else {"generator": generator.get_state()}))
    return loss


def _restore(load: Callable[[Any], Any], stored: dict[str, Any], name: str, checkpoint: Checkpoint) -> None:
    """Load one part of a stored state; a ValueError names it if it is missing or does not fit."""
    if name not in stored:
        raise ValueError(f"{checkpoint.path} is damaged: it holds no {name}.")
    try:
        load(stored[name])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{checkpoint.path} is damaged: its {name} does not fit this training.") from error


def _number(stored: dict[str, Any], name: str, kind: type, checkpoint: Checkpoint) -> Any:
    """One number of a stored state, finite and not negative; a ValueError names it if it is missing or another."""
    value = stored.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{checkpoint.path} is damaged: its {name} must be a number of at least 0, got {value}.")
    return kind(value)
