"""Options of the commands: the configuration of a training, a frozen dataclass, and checks of devices and files.

A field of a configuration is described by `option`. One with `export=True` affects the exported law only, so that a
finished checkpoint can be exported again with another value.
"""

import argparse
import dataclasses
import math
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from micro.data.cli import check_memory

#: Largest values that the checks below accept: beyond any training, and far below what would never end.
MOST_EPOCHS = 1_000_000
#: Bytes per parameter in training: the value, its gradient and two moments of the optimiser, in single precision.
BYTES_PER_PARAMETER = 16


def option(default: Any, text: str, *, export: bool = False) -> Any:
    """A field with its default and the help that the command line prints.

    Args:
        default: Its value where none is given.
        text: What the command line prints.
        export: Whether training does not depend on it, only the exported law.
    """
    return dataclasses.field(default=default, metadata={"help": text, "export": export})


def add_config(parser: argparse.ArgumentParser, config: type) -> None:
    """Give the parser one option for each field of a configuration dataclass."""
    hints = typing.get_type_hints(config)
    for entry in dataclasses.fields(config):
        name, kind = "--" + entry.name.replace("_", "-"), hints[entry.name]
        text = f"{entry.metadata.get('help', entry.name.replace('_', ' '))} (default: {entry.default})"
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=entry.default, help=text)
        elif typing.get_origin(kind) is typing.Literal:
            parser.add_argument(name, choices=typing.get_args(kind), default=entry.default, help=text)
        else:
            parser.add_argument(name, type=kind, default=entry.default, metavar="X", help=text)


def check_integers(config: Any, least: int, *names: str, most: int = MOST_EPOCHS) -> None:
    """Check that integer fields lie in a range.

    Raises:
        ValueError: One of them does not; the sentence names it.
    """
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be an integer from {least} to {most}, got {value}.")


def check_seed(seed: int) -> None:
    """Check that a seed is one that all generators accept.

    Raises:
        ValueError: It is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer from 0 to 2^63 - 1, got {seed}.")


def check_rates(config: Any) -> None:
    """Check the first and the last learning rate of a cosine.

    Raises:
        ValueError: One of them is not finite, not positive, or the last one is above the first.
    """
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite, got {config.learning_rate}.")
    if not 0 <= config.final_rate <= config.learning_rate:
        raise ValueError(
            f"final_rate must lie between 0 and learning_rate, {config.learning_rate}, got {config.final_rate}."
        )


def check_network_size(parameters: float) -> None:
    """Check that a network can be trained in the memory of this machine.

    Args:
        parameters: Estimated number of parameters.

    Raises:
        ValueError: It cannot; the sentence gives the estimate.
    """
    check_memory(f"the {parameters:.3g} parameters in training", BYTES_PER_PARAMETER * parameters, name="The network")


def check_device(device: str) -> None:
    """Check that a device string is valid and that the device is available.

    Args:
        device: cpu, cuda, cuda:1 and so on.

    Raises:
        ValueError: The string is not valid, or PyTorch has no such device.
    """
    kind, colon, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} is not available: this PyTorch finds no GPU.")
    if number and int(number) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {device} is not available: this PyTorch finds {count}, counted from cuda:0.")


def check_output(name: str, path: Path, others: Sequence[Path] = ()) -> None:
    """Check that a file can be written and does not replace another file of the command.

    Args:
        name: Name of the option, for the message.
        path: The file to write.
        others: Files that the command reads, or writes as well.

    Raises:
        ValueError: The folder does not exist, the path is a folder, or it is one of the others.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {path}.")
    if path.resolve() in [other.resolve() for other in others]:
        raise ValueError(f"{name} must be a file of its own, got {path}, which this command reads or writes as well.")
