"""Configuration of a training: a frozen dataclass whose fields are the options on the command line.

A field is described by `option`. One with `export=True` shapes the exported law only, so that a finished checkpoint can
be exported again with another value.
"""

import argparse
import dataclasses
import math
import typing
from typing import Any

#: Largest values that the checks below accept: beyond any training, and far below what would never end.
MOST_EPOCHS = 1_000_000
MOST_SAMPLES = 1_000_000_000
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


def check_memory(parameters: float, available: float | None = None) -> None:
    """Check that a network of this many parameters can be trained in the memory of this machine.

    Args:
        parameters: Estimated number of parameters.
        available: Bytes; None for what the operating system reports.

    Raises:
        ValueError: It cannot; the sentence gives the estimate.
    """
    needed = BYTES_PER_PARAMETER * parameters
    have = available_memory() if available is None else available
    if needed > have:
        raise ValueError(
            f"The network must fit in memory: its {parameters:.3g} parameters need about {needed / 1e9:.3g} GB "
            f"in training, this machine has {have / 1e9:.3g} GB available."
        )


def available_memory() -> float:
    """Bytes of memory that new data can take, as Linux estimates it; infinite where it is not known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024.0 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return math.inf
