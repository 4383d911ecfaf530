"""Checkpoint of a training run: written whole or not at all, and resumed only by the run that it belongs to."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from micro.data.files import whole_file


@dataclass(frozen=True)
class Checkpoint:
    """The file with the state of a training run.

    Attributes:
        path: the file.
        every: epochs between two writes.
        resume: whether to continue from the file if it exists.
        fingerprint: what the run depends on (configuration, data); a file of another run is refused.
    """

    path: Path
    every: int = 10
    resume: bool = False
    fingerprint: str = ""

    def load(self) -> dict[str, Any] | None:
        """The stored state, or None to begin from the start.

        Raises:
            ValueError: the file cannot be read, is damaged, or belongs to another run.
        """
        if not self.resume or not self.path.is_file():
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                damaged = archive.testzip()  # PyTorch does not compare the checksums of its archives
            if damaged is not None:
                raise ValueError(damaged)
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            fingerprint = state.pop("fingerprint")
        except Exception as error:  # torch.load raises whatever its zip and pickle readers do
            raise ValueError(f"{self.path} is not a checkpoint, or it is truncated or damaged.") from error
        if fingerprint != self.fingerprint:
            raise ValueError(f"{self.path} belongs to a run with another configuration or other data.")
        for name, value in tensors_of(state):
            if value.is_floating_point() and bool(torch.isnan(value).any()):
                raise ValueError(f"{self.path} is damaged: {name} holds nan.")
        return dict(state)

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether to write after `epoch` (counted from 1) of `epochs`."""
        return epoch % self.every == 0 or epoch == epochs

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors, numbers, and dicts and lists of them (weights, optimiser, scheduler, generator states)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as part, part.open("wb") as file:
            torch.save({**state, "fingerprint": self.fingerprint}, file)


def tensors_of(state: Any, name: str = "state") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of nested dicts and lists, with their names."""
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from tensors_of(value, f"{name}.{key}")
    elif isinstance(state, (list, tuple)):
        for key, value in enumerate(state):
            yield from tensors_of(value, f"{name}.{key}")
