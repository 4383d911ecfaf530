"""Epochs: the loop around a training, with its schedule, progress bar and checkpoint."""

from collections.abc import Callable

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
    """Train for some epochs at a learning rate that falls as a cosine; a stored run goes on where it was.

    Args:
        model: what is trained; its state dict is stored, buffers included.
        optimiser: its optimiser, at the first learning rate.
        epochs: epochs of this stage.
        work: the work of one epoch, counted from 0; returns what the progress bar shows, the mean loss as "train".
        final_rate: learning rate at the end.
        checkpoint: where the state is kept.
        progress: show a bar.
        generator: source of randomness whose state is kept, too, if `work` draws from one stream.
        stage: number of this stage of a training in several, from 1; a stored later stage skips this one.

    Returns:
        The mean training loss of the last epoch, nan if there was none.
    """
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, epochs), eta_min=final_rate)
    first, loss = 0, float("nan")
    stored = checkpoint.load() if checkpoint else None
    reached = stored.get("stage", 1) if stored else 0
    if stored is not None and reached >= stage:
        model.load_state_dict(stored["model"])
        if reached > stage:
            return loss
        optimiser.load_state_dict(stored["optimiser"])
        schedule.load_state_dict(stored["schedule"])
        first, loss = stored["epoch"], stored["loss"]
        if generator is not None:
            generator.set_state(stored["generator"])
    bar = tqdm(range(first, epochs), initial=first, total=epochs, disable=not progress, unit="epoch")
    for epoch in bar:
        shown = work(epoch)
        schedule.step()
        loss = shown["train"]
        bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})
        if checkpoint and checkpoint.due(epoch + 1, epochs):
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epoch": epoch + 1}
            state |= {"schedule": schedule.state_dict(), "loss": loss, "stage": stage}
            checkpoint.save(state | ({} if generator is None else {"generator": generator.get_state()}))
    return loss
