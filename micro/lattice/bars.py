"""Bar laws: one-dimensional elastoplasticity with hardening, returned exactly, on NumPy arrays and PyTorch tensors.

A bar law works on arrays of any shape (...), one entry per bar, and stores nothing: the caller has the state (..., k).

References:
    Masi and Stefanou (2022), section IV, doi:10.1016/j.cma.2022.115190.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

#: A NumPy array or a PyTorch tensor; what goes in as one comes out as the same.
Array = TypeVar("Array", bound=Any)


class BarLaw(Protocol):
    """What the solvers require of a bar law.

    Attributes:
        name: Name of the law.
        state_size: Numbers k of the state of a bar; the first is the plastic strain, virgin bars are all zero.
        modulus: Tangent of a virgin bar, Pa.
    """

    name: ClassVar[str]
    state_size: ClassVar[int]

    @property
    def modulus(self) -> float:
        """Young's modulus, Pa."""

    def update(self, strain: Array, state: Array) -> tuple[Array, Array, Array]:
        """Advance the bars to a strain.

        Args:
            strain: Strain at the end of the step (...).
            state: State at its start (..., k).

        Returns:
            Stress (...), Pa; the new state (..., k); the tangent d stress/d strain (...), Pa.
        """

    def energy(self, strain: Array, state: Array) -> Array:
        """Return the free energy per volume of the bar (...), J/m^3."""

    def dissipation(self, state_n: Array, state: Array) -> Array:
        """Return what a step from `state_n` to `state` dissipates per volume of the bar (...), J/m^3, never < 0."""


def _check(**parameters: float) -> None:
    for name, value in parameters.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive, got {value}.")


@dataclass(frozen=True)
class KinematicBar:
    """Linear kinematic hardening.

    psi = E/2 (eps - alpha)^2 + H/2 alpha^2, X = E (eps - alpha) - H alpha, |X| <= k, D = k |d alpha|. The backward
    Euler step projects X on the interval; it is exact for any strain path that does not turn within the step.

    Attributes:
        modulus: Young's modulus E, Pa.
        hardening: Hardening modulus H, Pa.
        strength: Yield strength k, Pa. The defaults are those of the authors' computations.

    Raises:
        ValueError: A parameter is not positive.
    """

    name: ClassVar[str] = "kinematic"
    state_size: ClassVar[int] = 1

    modulus: float = 1.0
    hardening: float = 0.1
    strength: float = 1 / 3

    def __post_init__(self) -> None:
        _check(modulus=self.modulus, hardening=self.hardening, strength=self.strength)

    def update(self, strain: Array, state: Array) -> tuple[Array, Array, Array]:
        """Return stress, new state (..., 1) = alpha and tangent; see `BarLaw.update`."""
        E, H, k = self.modulus, self.hardening, self.strength
        alpha = state[..., 0]
        X = E * (strain - alpha) - H * alpha
        step = (X - X.clip(-k, k)) / (E + H)
        drop = 0 * X + E**2 / (E + H)  # in the type of X: PyTorch would make a number times a truth value float32
        return E * (strain - (alpha + step)), state + step[..., None], E - drop * (step != 0)

    def energy(self, strain: Array, state: Array) -> Array:
        """Return the free energy per volume; see `BarLaw.energy`."""
        alpha = state[..., 0]
        return self.modulus / 2 * (strain - alpha) ** 2 + self.hardening / 2 * alpha**2

    def dissipation(self, state_n: Array, state: Array) -> Array:
        """Return the dissipation of the step per volume; see `BarLaw.dissipation`."""
        return self.strength * abs(state[..., 0] - state_n[..., 0])


@dataclass(frozen=True)
class IsotropicBar:
    """Linear isotropic hardening.

    psi = E/2 (eps - alpha)^2 + H/2 p^2, |sigma| <= k + H p, dp = |d alpha|, D = k |d alpha|: of the plastic work the
    part H p dp is stored.

    Attributes:
        modulus: Young's modulus E, Pa.
        hardening: Hardening modulus H, Pa.
        strength: Yield strength k of the virgin bar, Pa.

    Raises:
        ValueError: A parameter is not positive.
    """

    name: ClassVar[str] = "isotropic"
    state_size: ClassVar[int] = 2

    modulus: float = 1.0
    hardening: float = 0.1
    strength: float = 1 / 3

    def __post_init__(self) -> None:
        _check(modulus=self.modulus, hardening=self.hardening, strength=self.strength)

    def update(self, strain: Array, state: Array) -> tuple[Array, Array, Array]:
        """Return stress, new state (..., 2) = alpha, p and tangent; see `BarLaw.update`."""
        E, H = self.modulus, self.hardening
        alpha, p = state[..., 0], state[..., 1]
        trial, limit = E * (strain - alpha), self.strength + H * p
        step = (trial - trial.clip(-limit, limit)) / (E + H)
        new = state * 1.0  # a copy that works for arrays and tensors
        new[..., 0] += step
        new[..., 1] += abs(step)
        drop = 0 * trial + E**2 / (E + H)  # in the type of the strain, as above
        return E * (strain - (alpha + step)), new, E - drop * (step != 0)

    def energy(self, strain: Array, state: Array) -> Array:
        """Return the free energy per volume; see `BarLaw.energy`."""
        return self.modulus / 2 * (strain - state[..., 0]) ** 2 + self.hardening / 2 * state[..., 1] ** 2

    def dissipation(self, state_n: Array, state: Array) -> Array:
        """Return the dissipation of the step per volume; see `BarLaw.dissipation`."""
        return self.strength * abs(state[..., 0] - state_n[..., 0])


#: The parameters printed in the paper, which do not fit the loads of its section V.
PRINTED = KinematicBar(modulus=100e9, hardening=10e9, strength=300e6)

#: The laws by name.
LAWS: dict[str, type[KinematicBar] | type[IsotropicBar]] = {law.name: law for law in (KinematicBar, IsotropicBar)}
