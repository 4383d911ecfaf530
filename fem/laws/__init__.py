"""Material laws, one interface: compiled classical laws and exported learned laws."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mpi4py import MPI

logger = logging.getLogger(__name__)

KNOWN = ("neo-hookean", "j2", "johnson-cook")  # finite strain, 3-D
SMALL = ("linear-elastic",)  # small strain


class Law(Protocol):
    """What a solver asks of a law. Arrays are float64, points first; n = 0 works; nothing is kept between calls.

    `strain` is "finite" or "small", `dimension` d is 2 or 3. Both kinds take F (n, d, d) = I + grad u; a law of small
    strain takes sym(F - I) from it and returns a symmetric stress as P.
    """

    name: str
    strain: str
    dimension: int
    density: float
    bulk_modulus: float
    shear_modulus: float
    state_size: int
    observed: tuple[str, ...]

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state, (n, k)."""

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """P (n, d, d) in Pa and the new state."""

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P, new state, and dP_dF (n, d, d, d, d)."""

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Fields to plot, (n, len(observed))."""

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray | None:
        """Stored energy (n,) in J/m^3, or None."""

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Energy dissipated so far (n,) in J/m^3, or None."""


def check_fit(law: Law, solver: str, strains: tuple[str, ...], dimension: int) -> None:
    """Refuse a law that a solver cannot use.

    Args:
        law: The law.
        solver: Name of the solver, for the message.
        strains: Kinds of strain that it takes, "finite" and "small".
        dimension: Dimensions of its mesh.

    Raises:
        ValueError: If the law does not fit.
    """
    if law.strain not in strains or law.dimension != dimension:
        raise ValueError(
            f"{law.name} is a law of {law.strain} strain in {law.dimension} dimensions; "
            f"the {solver} solver needs {' or '.join(strains)} strain in {dimension} dimensions."
        )


def load(name: str | PathLike[str], **options: Any) -> Law:
    """Make a law from its name, or load an artifact from its path.

    Args:
        name: "neo-hookean", "j2", "johnson-cook", "linear-elastic", or the path of an artifact (`.pt`).
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
    if name == "linear-elastic":
        from fem.laws.linear_elastic import LinearElastic

        return LinearElastic(**options)
    if not Path(name).is_file():
        raise ValueError(f'There is no law or artifact file "{name}"; known laws are {", ".join(KNOWN + SMALL)}.')
    from fem.laws.torchscript import TorchLaw

    law = TorchLaw(name, **options)
    if MPI.COMM_WORLD.rank == 0:
        logger.info(law.summary())
    return law
