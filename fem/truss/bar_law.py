"""What a truss asks of the law of its bars."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class BarLaw(Protocol):
    """What is asked of a bar law; arrays have one entry a bar (b,), the state (b, k) is zero at first."""

    @property
    def name(self) -> str: ...

    @property
    def state_size(self) -> int: ...

    def update(self, strain: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stress (b,), Pa, new state (b, k) and tangent (b,), Pa."""

    def energy(self, strain: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Stored energy (b,), J/m^3."""

    def dissipation(self, state_n: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Dissipation of a step (b,), J/m^3."""
