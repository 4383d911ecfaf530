"""The contract of a law as a PyTorch module: what its author writes, and what this module adds.

A law of your own is a `torch.nn.Module` with two methods and five attributes:

    class Rubber(torch.nn.Module):
        strain, dimension = "finite", 3                          # or "small"; 2 or 3
        density, bulk_modulus, shear_modulus = 1e3, 2e9, 1e6     # kg/m^3, Pa, Pa: for the stable time step

        def initial_state(self, n: int) -> torch.Tensor:         # virgin state (n, k), float64
        def forward(self, F, state, dt: float):                  # P (n, d, d) in Pa and the new state (n, k)

Optional are `tangent(F, state, dt)` (else automatic differentiation), `observe(state) -> (n, m)` with the attribute
`observed` (m names, or `Observable`s with roles), `name`, `strain_max`, the strain that the law is meant for, and
`time_step`, s, in which a tenth of it is reached: the certificate is of steps as long.
"""

# mypy: disable-error-code="operator, no-any-return"
# (TorchScript reads type comments itself, so none may stand in `Completed`.)

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from surrogates.artifact.schema import Observable

ATTRIBUTES = ("strain", "dimension", "density", "bulk_modulus", "shear_modulus")
STRAIN_MAX = 0.1  # to which a law is certified that states no strain_max


@dataclass(frozen=True)
class Description:
    """The attributes of a module.

    Attributes:
        name: for messages and files.
        strain: "finite" or "small".
        dimension: d, 2 or 3.
        density: kg/m^3.
        bulk_modulus: K at rest, Pa.
        shear_modulus: G at rest, Pa.
        state_size: numbers in the state of a point.
        observables: what `observe` returns.
        strain_max: strain that the law is meant for.
        time_step: of the certificate, s.
    """

    name: str
    strain: str
    dimension: int
    density: float
    bulk_modulus: float
    shear_modulus: float
    state_size: int
    observables: tuple[Observable, ...]
    strain_max: float
    time_step: float


class Completed(torch.nn.Module):
    """A law with the methods of the contract that its author left out; it runs eagerly and as TorchScript.

    Args:
        law: a module with `initial_state` and `forward`.
    """

    observes: Final[bool]
    differentiates: Final[bool]

    def __init__(self, law: torch.nn.Module) -> None:
        super().__init__()
        self.law = law
        self.observes = hasattr(law, "observe")
        self.differentiates = hasattr(law, "tangent")

    @torch.jit.export
    def initial_state(self, n: int) -> Tensor:
        """Virgin state (n, k)."""
        return self.law.initial_state(n)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """First Piola-Kirchhoff stress (n, d, d), Pa, and new state (n, k) for F (n, d, d) reached in dt, s."""
        return self.law(F, state, dt)

    @torch.jit.export
    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` and its derivative dP_dF (n, d, d, d, d): the law's own, or by automatic differentiation."""
        if self.differentiates:
            return self.law.tangent(F, state, dt)
        graded = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        F = F.detach().requires_grad_(True)
        P, new_state = self.law(F, state, dt)
        d = F.shape[1]
        rows: list[Tensor] = []
        for i in range(d):
            for j in range(d):
                row = torch.zeros_like(F)
                if P.requires_grad:  # a constant stress has the derivative zero
                    found = torch.autograd.grad([P[:, i, j].sum()], [F], retain_graph=True, allow_unused=True)[0]
                    if found is not None:
                        row = found
                rows.append(row)
        torch.set_grad_enabled(graded)
        return P.detach(), new_state.detach(), torch.stack(rows, dim=1).reshape(-1, d, d, d, d).detach()

    @torch.jit.export
    def observe(self, state: Tensor) -> Tensor:
        """The law's observed fields (n, m); none where it has no `observe`."""
        if self.observes:
            return self.law.observe(state)
        return state[:, :0]


def complete(law: torch.nn.Module) -> torch.nn.Module:
    """The law itself where it has all methods of the contract, else one that adds what its author left out.

    Raises:
        ValueError: it lacks `initial_state`.
    """
    if not hasattr(law, "initial_state"):
        raise ValueError(f"{type(law).__name__}: the module has no method initial_state.")
    if isinstance(law, Completed) or (hasattr(law, "tangent") and hasattr(law, "observe")):
        return law
    return Completed(law)


def describe(law: Any) -> Description:
    """Read and check the attributes of a module; see the head of this file.

    Raises:
        ValueError: an attribute is missing or does not fit.
    """
    while isinstance(law, Completed):
        law = law.law
    label = type(law).__name__
    for attribute in ATTRIBUTES:
        if not hasattr(law, attribute):
            raise ValueError(f"{label}: a law needs the attributes {', '.join(ATTRIBUTES)}; {attribute} is missing.")
    if law.strain not in ("finite", "small") or law.dimension not in (2, 3):
        raise ValueError(
            f"{label}: strain must be finite or small and dimension 2 or 3, got {law.strain!r} and {law.dimension!r}."
        )
    limits = {"strain_max": getattr(law, "strain_max", STRAIN_MAX), "time_step": getattr(law, "time_step", 1.0)}
    numbers = {name: getattr(law, name) for name in ATTRIBUTES[2:]} | limits
    for attribute, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"{label}: {attribute} must be a positive number, got {value!r}.")
    state = law.initial_state(0)
    if not isinstance(state, Tensor) or state.ndim != 2:
        raise ValueError(f"{label}: initial_state(n) must return a tensor of shape (n, k).")
    given = getattr(law, "observed", ())
    observables = tuple(entry if isinstance(entry, Observable) else Observable(str(entry)) for entry in given)
    return Description(
        name=str(getattr(law, "name", "") or label),
        strain=law.strain,
        dimension=law.dimension,
        **{name: float(getattr(law, name)) for name in ATTRIBUTES[2:]},
        state_size=state.shape[1],
        observables=observables,
        **{name: float(value) for name, value in limits.items()},
    )
