"""Material laws, one interface: compiled classical laws and exported learned laws."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

KNOWN = ("neo-hookean", "j2", "johnson-cook")


class Law(Protocol):
    """What a solver asks of a law. Arrays are float64, points first; n = 0 works; nothing is kept between calls."""

    name: str
    density: float
    bulk_modulus: float
    shear_modulus: float
    state_size: int
    observed: tuple[str, ...]

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state, (n, k)."""

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """P (n, 3, 3) in Pa and the new state."""

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P, new state, and dP_dF (n, 3, 3, 3, 3)."""

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Fields to plot, (n, len(observed))."""

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray | None:
        """Stored energy (n,) in J/m^3, or None."""


def load(name: str | PathLike[str], **options: Any) -> Law:
    """Make a law from its name, or load an artifact from its path.

    Args:
        name: "neo-hookean", "j2", "johnson-cook", or the path of an artifact (`.pt`).
        **options: Passed to the law, for example `parameters` of Johnson-Cook or `dtype="float64"` of an artifact.

    Returns:
        The law.

    Raises:
        ValueError: If there is no such law or file, or the law refuses an option.
    """
    if name == "neo-hookean":
        from fem.laws.neo_hookean import NeoHookean

        return NeoHookean(**options)
    if name == "j2":
        from fem.laws.j2 import J2

        return J2(**options)
    if name == "johnson-cook":
        from fem.laws.johnson_cook import JohnsonCook

        return JohnsonCook(**options)
    if not Path(name).is_file():
        raise ValueError(f'There is no law or artifact file "{name}"; known laws are {", ".join(KNOWN)}.')
    from fem.laws.torch_law import TorchLaw

    return TorchLaw(name, **options)
