"""What `surrogates.train` requires of a kind of law or network: a module with all names of the protocol `Kind`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from surrogates.artifact.export import Material, Origin, write_law
from surrogates.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Record:
    """What the manifest of a trained law or network records besides its material and its data.

    Attributes:
        kind: Kind, as on the command line.
        name: Name of the law; empty for that of the file.
        held_out: Number of held-out samples.
        errors: Errors on them.
        training: Command, seed, epochs, configuration, number of parameters and what `fit` returned.
    """

    kind: str
    name: str
    held_out: int
    errors: dict[str, Any]
    training: dict[str, Any]


class Kind(Protocol):
    """A kind of law or network. The modules named in `surrogates.train.KINDS` implement it with functions.

    A data set has a length, the attributes `hash` (content) and `meta` (the manifests of its sets), and can be split,
    see `surrogates.training.split`. A kind without training data (`DATA` empty) has None in the place of both sets.

    Attributes:
        Config: Frozen dataclass of the configuration. Its fields are the options of the command, `epochs` and `seed`
            among them; see `surrogates.training.config`.
        DATA: Description of the data for the help; empty where there are no training data.
        SUFFIX: Ending of the file written; its manifest ends in `.json`.
    """

    @property
    def Config(self) -> type[Any]:
        """Frozen dataclass of the configuration."""

    @property
    def DATA(self) -> str:
        """What `--data` takes."""

    @property
    def SUFFIX(self) -> str:
        """Ending of the file written."""

    def load(self, paths: list[str | Path], held_out: int | None, *, allow_partial: bool) -> tuple[Any, Any]:
        """Read data sets and split them; returns training samples and held-out samples.

        Raises:
            ValueError: The sets do not fit the kind or one another.
        """

    def build(self, config: Any, train: Any) -> torch.nn.Module:
        """The model with its initial parameters.

        Raises:
            ValueError: The configuration does not fit the data.
        """

    def fit(
        self, model: Any, train: Any, held_out: Any, config: Any, *, progress: bool, checkpoint: Checkpoint | None
    ) -> dict[str, Any]:
        """Train in place, on the device of the model; returns the entries for the manifest."""

    def export(self, model: Any, train: Any, config: Any) -> torch.nn.Module:
        """The trained law or network, on the CPU, as it is tested and written.

        A law is accepted by `torch.jit.script` and has, besides the methods of the artifact, a plain Python method
        `describe() -> {"state": ..., "observe": ..., "time_window": ...}` for the manifest.
        """

    def errors(self, model: Any, law: Any, held_out: Any, config: Any) -> dict[str, Any]:
        """Held-out errors."""

    def write(self, output: Path, law: Any, train: Any, config: Any, record: Record) -> dict[str, Any]:
        """Write the file and its manifest; returns the manifest."""


def write_trained_law(
    output: Path, law: torch.nn.Module, train: Any, material: Material, record: Record
) -> dict[str, Any]:
    """Write a law that was trained on data as an artifact, with the origin of its data.

    Returns:
        The manifest as written.
    """
    meta = train.meta[0] if train.meta else {}
    origin = Origin(
        hash=train.hash,
        code_version=str(meta.get("code", {}).get("version", "unknown")),
        samples=len(train),
        seed=int(meta.get("seed", -1)),
        command="; ".join(str(entry.get("command", "")) for entry in train.meta),
    )
    return write_law(
        output, law, kind=record.kind, name=record.name, material=material, origin=origin,
        errors={**record.errors, "held_out_paths": record.held_out}, training=record.training,
    )  # fmt: skip
