"""The bars of one rank: the protocol of their law, their committed state, and the trial values of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from mpi4py import MPI

from fem.errors import ConvergenceError
from fem.parallel import raise_together


class BarLaw(Protocol):
    """What is required of a bar law; arrays have one entry per bar (b,), the state (b, k) is zero at first."""

    @property
    def name(self) -> str:
        """Name of the law."""

    @property
    def state_size(self) -> int:
        """Numbers k in the state of a bar."""

    def update(self, strain: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stress (b,), Pa, new state (b, k) and tangent (b,), Pa."""

    def energy(self, strain: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Stored energy (b,), J/m^3."""

    def dissipation(self, state_n: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Dissipation of a step (b,), J/m^3."""


class Bars:
    """State of the owned bars at the last commit, and the trial values of the present step.

    Args:
        law: The law of all bars.
        volume: Volumes of the owned bars, (b,), m^3.
        total: Bars of all ranks.
        comm: Communicator.

    Attributes:
        strain: At the last commit, (b,). stress: There, (b,), Pa. state: There, (b, k).
        state_before: State at the start of the step that ended there, (b, k): with it the law gives its tangent again.
        dissipated: Up to there, (b,), J/m^3.
        trial_strain, trial_stress, trial_state, tangent: Of the last evaluation.
        calls: Calls of the law so far, all ranks: bars times evaluations.
        failure: Why the last evaluation that failed did so; None if none has failed since `roll_back` or `commit`.
    """

    def __init__(self, law: BarLaw, volume: np.ndarray, total: int, comm: MPI.Comm) -> None:
        n = len(volume)
        self.law, self.comm, self._volume, self._total = law, comm, volume, total
        self.strain, self.stress, self.dissipated = np.zeros(n), np.zeros(n), np.zeros(n)
        self.state = np.zeros((n, law.state_size))
        self.trial_strain, self.trial_stress, self.trial_state = self.strain, self.stress, self.state
        self.state_before = self.state
        self.tangent = np.zeros(n)
        self.calls = 0
        self.failure: str | None = None

    def evaluate(self, strain: np.ndarray) -> None:
        """Evaluate the law at trial strains (b,), from the state at the last commit; collective.

        Raises:
            ConvergenceError: On all ranks, if the law fails on one or gives a value that is not finite.
        """
        error: Exception | None = None
        self.trial_strain = strain
        try:
            self.trial_stress, self.trial_state, self.tangent = self.law.update(strain, self.state)
            # The sums are finite if all values are (overflow aside).
            if not np.isfinite(self.trial_stress.sum() + self.trial_state.sum() + self.tangent.sum()):
                error = ConvergenceError(f"The bar law {self.law.name} gave a value that is not finite.")
        except Exception as caught:  # a law may fail in any way; the ranks must still decide together
            error = ConvergenceError(f"The bar law {self.law.name} failed: {caught}")
        self.calls += self._total
        try:
            raise_together(self.comm, error)
        except ConvergenceError as known:
            self.failure = str(known)
            raise

    def commit(self) -> None:
        """Take the last trial values as the start of the next step."""
        self.dissipated = self.dissipated + self.law.dissipation(self.state, self.trial_state)
        self.state_before = self.state
        self.strain, self.stress, self.state = self.trial_strain, self.trial_stress, self.trial_state
        self.failure = None

    def roll_back(self) -> None:
        """Discard the trial values."""
        self.trial_strain, self.trial_stress, self.trial_state = self.strain, self.stress, self.state
        self.failure = None

    def restore(self, arrays: Mapping[str, np.ndarray], calls: int) -> None:
        """Take the last step of an earlier run as committed, its tangent included; collective.

        Args:
            arrays: strain, stress, state, state_before and dissipated of the owned bars.
            calls: Calls of the law in the earlier run.

        Raises:
            ConvergenceError: On all ranks, if the law fails. All but the tangent is then restored.
        """
        self.state = self.state_before = arrays["state_before"]
        try:
            self.evaluate(arrays["strain"])
        finally:
            self.strain, self.stress, self.state = arrays["strain"], arrays["stress"], arrays["state"]
            self.dissipated, self.calls = arrays["dissipated"], calls
            self.roll_back()

    def stored_energy(self) -> float:
        """Stored energy of all ranks at the last commit, J; collective."""
        return float(self.comm.allreduce(float(self._volume @ self.law.energy(self.strain, self.state))))

    def dissipation(self) -> float:
        """Energy that all ranks have dissipated up to the last commit, J; collective."""
        return float(self.comm.allreduce(float(self._volume @ self.dissipated)))
