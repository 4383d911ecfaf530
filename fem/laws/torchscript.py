"""A law that is a PyTorch module, behind the interface of the compiled laws: an artifact, or a module of one's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from fem.laws.law import Buffers, check
from fem.threads import spread
from surrogates.artifact import Manifest, Microstructure, Observable, complete, describe, load_law, switch_fusion_off
from surrogates.artifact.compiled import CompiledLaw, compile_law
from surrogates.artifact.load import check_module
from surrogates.artifact.schema import column_of

CHUNK = 1024  # points evaluated at once; smaller pieces stay in the cache of a core


@final
class TorchLaw:
    """A PyTorch module at every point; made by `read_law` and `wrap`. Arrays cross to torch and back without a copy.

    Args:
        module: A module with the artifact's `initial_state`, `forward`, `tangent` and `observe`.
        name: For messages.
        strain: "finite" or "small".
        dimension: d, 2 or 3.
        density: Reference density, kg/m^3.
        bulk_modulus: K at rest, Pa.
        shear_modulus: G at rest, Pa.
        state_size: Numbers in the state of a point.
        observables: What `observe` returns, by name and role.
        chunk: Points evaluated at once by one thread; None takes all at once.
        manifest: Manifest of an artifact.
        compiled: The compiled form of the module, which then gives stress and state; PyTorch gives the tangent.

    Raises:
        ValueError: If chunk is not positive.
    """

    def __init__(
        self, module: Any, *, name: str, strain: str, dimension: int, density: float, bulk_modulus: float,
        shear_modulus: float, state_size: int, observables: tuple[Observable, ...], chunk: int | None = CHUNK,
        manifest: Manifest | None = None, compiled: CompiledLaw | None = None,
    ) -> None:  # fmt: skip
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}.")
        self.module = module
        self.name, self.strain, self.dimension = name, strain, dimension
        self.density, self.bulk_modulus, self.shear_modulus = density, bulk_modulus, shear_modulus
        self.state_size, self.observables, self.chunk = state_size, observables, chunk
        self.observed: tuple[str, ...] = tuple(entry.name for entry in observables)
        self.manifest, self.compiled = manifest, compiled
        self._stored, self._dissipated = self.column("stored_energy"), self.column("dissipation")
        self._mode = _mode(module, dimension)
        self._stresses, self._states = Buffers(), Buffers()

    @property
    def microstructure(self) -> Microstructure | None:
        """Cell and bars of a lattice law."""
        return None if self.manifest is None else self.manifest.microstructure

    def column(self, quantity: str, index: int | None = None, component: int | None = None) -> int | None:
        """Column of `observe` that holds a quantity (`surrogates.artifact.Observable`); None if it is not there."""
        return column_of(self.observables, quantity, index, component)

    def summary(self) -> str:
        """One line for the log: the law and the main numbers of its certificate (docs/guides/certificate.md)."""
        if self.manifest is None:
            return f"law {self.name} ({self.strain} strain, {self.dimension}-D), not certified"
        m, c = self.manifest, self.manifest.certificate
        return (
            f"law {m.name} ({m.kind}, {m.strain} strain, {m.dimension}-D, {m.dtype}): "
            f"{'compiled, ' if self.compiled else ''}"
            f"tangent to {c.tangent_difference:.1e}, asymmetry {c.asymmetry:.1e}, "
            f"smallest eigenvalue {c.eigenvalue_min:.2g} of the elastic one, "
            f"virgin stress {c.virgin_stress:.1e} Pa, zero increment {c.zero_increment:.1e}, "
            f"Newton order {c.newton_order_element:.1f} on an element, {c.newton_order_patch:.1f} on a patch"
        )

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, k)."""
        with self._mode():
            state: np.ndarray = self.module.initial_state(n).numpy()
        if state.shape != (n, self.state_size):
            raise ValueError(f"{self.name}: initial_state must have shape ({n}, {self.state_size}), got {state.shape}.")
        return state

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, d, d), Pa, and the new state (n, k), for F (n, d, d) reached in dt (s)."""
        F, state = check(F, state, self.state_size, self.dimension)
        P, new = self._stresses.empty(F.shape), self._states.empty(state.shape)

        def evaluate(part: slice) -> None:
            if self.compiled is not None:
                self.compiled.update_into(F[part], state[part], dt, P[part], new[part])
                return
            with self._mode():
                piece = self.module(torch.from_numpy(F[part]), torch.from_numpy(state[part]), float(dt))
            P[part], new[part] = (tensor.detach().numpy() for tensor in piece)

        spread(evaluate, self._parts(len(F)))
        return P, new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, d, d, d, d), Pa, with dP_dF[n, i, j, k, l] = dP_ij / dF_kl."""
        d = self.dimension
        F, state = check(F, state, self.state_size, d)
        P, new, dP_dF = np.empty_like(F), np.empty_like(state), np.empty((len(F), d, d, d, d))

        def evaluate(part: slice) -> None:
            # The module may differentiate inside, which inference tensors do not allow.
            piece = self.module.tangent(torch.from_numpy(F[part]), torch.from_numpy(state[part]), float(dt))
            P[part], new[part], dP_dF[part] = (tensor.detach().numpy() for tensor in piece)

        spread(evaluate, self._parts(len(F)))
        return P, new, dP_dF

    def _parts(self, n: int) -> list[slice]:
        step = self.chunk or max(n, 1)
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Named fields to plot, (n, m), in the order of `observed`."""
        if len(state) == 0:
            return np.zeros((0, len(self.observed)))
        with self._mode():
            observed: np.ndarray = self.module.observe(torch.from_numpy(np.ascontiguousarray(state))).numpy()
        return observed

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray | None:
        """Stored energy (n,), J/m^3, where the law observes it; else None."""
        return None if self._stored is None else self.observe(state)[:, self._stored]

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Energy dissipated so far (n,), J/m^3, where the law observes it; else None."""
        return None if self._dissipated is None else self.observe(state)[:, self._dissipated]


def _mode(module: Any, d: int) -> Callable[[], AbstractContextManager[Any]]:
    """Inference mode, the fastest, unless the law differentiates inside `forward`, which that mode does not allow."""
    try:
        with torch.inference_mode():
            module(torch.eye(d, dtype=torch.float64)[None], module.initial_state(1), 1e-9)
    except RuntimeError:
        return torch.no_grad
    return torch.inference_mode


def read_law(
    path: str | PathLike[str], *, dtype: str | None = None, chunk: int | None = CHUNK, compiled: bool = True
) -> TorchLaw:
    """Read a law artifact.

    Args:
        path: The `.pt` file.
        dtype: None keeps the precision the law was exported with; "float64" evaluates it in double precision.
        chunk: Points evaluated at once; None takes all at once.
        compiled: Evaluate a recurrent law or PCA-Net in single precision in compiled form, if there is a compiler here.

    Raises:
        ValueError: If the loader refuses the artifact.
    """
    law = load_law(Path(path), dtype=dtype)
    m = law.manifest
    return TorchLaw(
        law.module, name=m.name, strain=m.strain, dimension=m.dimension, density=float(m.density),
        bulk_modulus=float(m.moduli.bulk), shear_modulus=float(m.moduli.shear), state_size=m.state.size,
        observables=m.observables, chunk=chunk, manifest=m,
        compiled=compile_law(law.module) if compiled else None,
    )  # fmt: skip


def wrap(module: torch.nn.Module, *, chunk: int | None = CHUNK) -> TorchLaw:
    """Make a law of a PyTorch module; `surrogates.artifact.contract` describes what the module needs.

    Args:
        module: The module, scripted or not; it is evaluated as it is, on the CPU.
        chunk: Points evaluated at once; None takes all at once.

    Raises:
        ValueError: If an attribute or a method is missing, or its results do not match its attributes.
    """
    switch_fusion_off()
    about, whole = describe(module), complete(module)
    d, k, m = about.dimension, about.state_size, len(about.observables)
    check_module(whole, about.name, dimension=d, state_size=k, observed=m)
    return TorchLaw(
        whole, name=about.name, strain=about.strain, dimension=d, density=about.density,
        bulk_modulus=about.bulk_modulus,
        shear_modulus=about.shear_modulus, state_size=k, observables=about.observables, chunk=chunk,
    )  # fmt: skip
