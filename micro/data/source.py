"""Source: what makes the samples of a data set, one block of sample ids at a time."""

import argparse
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Field:
    """One array of a data set.

    Attributes:
        units: unit of its numbers, "1" where there is none.
        shape: shape of one sample.
        axes: meaning of the axes of one sample, in words.
        names: names of the values 0, 1, 2, ... of an array of small integers (int16); empty for numbers (float64).
    """

    units: str
    shape: tuple[int, ...]
    axes: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """The samples of one block.

    Attributes:
        arrays: array (s, ...) by name, float64, or int16 where the field has names.
        reason: why a sample failed, empty where it is good, (s,).
    """

    arrays: dict[str, np.ndarray]
    reason: list[str] = field(default_factory=list)


class Source(ABC):
    """A solver that makes samples; content must depend on the parameters, the seed and the ids alone.

    A block is always solved whole and alone, so that a sample sees the same batch on any number of ranks.

    Attributes:
        name: name of the source, its subcommand in ``micro.generate``.
        seed: seed of the random streams, one stream per sample id.
        parameters: what determines the content beside the seed, JSON.
        tolerances: solver tolerances, JSON.
        fields: the arrays it makes, by name.
    """

    name: str
    seed: int
    parameters: dict
    tolerances: dict
    fields: dict[str, Field]

    @staticmethod
    @abstractmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the source's own options to its subcommand."""

    @classmethod
    @abstractmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "Source":
        """Make the source from parsed options; ValueError names the option that does not fit."""

    @classmethod
    def tighten(cls, arguments: argparse.Namespace, factor: float) -> argparse.Namespace:
        """Return the options of a solver whose tolerance is `factor` times tighter, to verify samples.

        Raises:
            ValueError: the source has no option for its tolerance.
        """
        if not hasattr(arguments, "tolerance"):
            raise ValueError(f"verify needs a source with the option tolerance, {cls.name} has none.")
        return argparse.Namespace(**vars(arguments) | {"tolerance": arguments.tolerance / factor})

    @abstractmethod
    def solve(self, ids: np.ndarray) -> Block:
        """Make the samples of one block.

        Args:
            ids: sample ids (s,), int64.
        """
