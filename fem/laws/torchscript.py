"""An exported TorchScript law, read from its artifact, behind the interface of the compiled laws."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from fem.laws.shapes import check
from fem.parallel import spread
from surrogates.artifact import load_law


@final
class TorchLaw:
    """A law artifact at every point. Arrays cross to torch and back without a copy.

    Args:
        path: The `.pt` file.
        dtype: None keeps the precision the law was exported with; "float64" evaluates it in double precision.
        chunk: Points evaluated at once by one thread; smaller pieces stay in the cache of a core. None takes all at
            once.

    Raises:
        ValueError: If the loader refuses the artifact.
    """

    def __init__(self, path: str | PathLike[str], *, dtype: str | None = None, chunk: int | None = 1024) -> None:
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}.")
        law = load_law(Path(path), dtype=dtype)
        manifest: dict[str, Any] = law.manifest
        self.module = law.module
        self.manifest = manifest
        self.certificate: dict[str, Any] = manifest["certificate"]
        self.name = str(manifest["name"])
        self.strain = str(manifest["strain"])
        self.dimension = int(manifest["dimension"])
        self.density = float(manifest["density"])
        self.bulk_modulus = float(manifest["moduli"]["bulk"])
        self.shear_modulus = float(manifest["moduli"]["shear"])
        self.state_size = int(manifest["state"]["size"])
        self.observed: tuple[str, ...] = tuple(manifest["observe"])
        self.chunk = chunk

    def summary(self) -> str:
        """One line for the log: what the law is and what its certificate says (see docs/certificate.md)."""
        c = self.certificate
        return (
            f"law {self.name} ({self.manifest['kind']}, {self.manifest['strain']} strain, "
            f"{self.manifest['dimension']}-D, {self.manifest['dtype']}): tangent to {c['tangent_difference']:.1e}, "
            f"asymmetry {c['asymmetry']:.1e}, smallest eigenvalue {c['eigenvalue_min']:.2g} of the elastic one, "
            f"virgin stress {c['virgin_stress']:.1e} Pa, zero increment {c['zero_increment']:.1e}, "
            f"Newton order {c['newton_order_element']:.1f} on an element, {c['newton_order_patch']:.1f} on a patch"
        )

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, k)."""
        with torch.inference_mode():
            state = self.module.initial_state(n).numpy()
        if state.shape != (n, self.state_size):
            raise ValueError(f"{self.name}: initial_state must have shape ({n}, {self.state_size}), got {state.shape}.")
        return state

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, d, d), Pa, and the new state (n, k), for F (n, d, d) reached in dt (s)."""
        F, state = check(F, state, self.state_size, self.dimension)
        P, new = np.empty_like(F), np.empty_like(state)

        @torch.inference_mode()
        def evaluate(part: slice) -> None:
            piece = self.module(torch.from_numpy(F[part]), torch.from_numpy(state[part]), float(dt))
            P[part], new[part] = (tensor.numpy() for tensor in piece)

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
        with torch.inference_mode():
            return self.module.observe(torch.from_numpy(np.ascontiguousarray(state))).numpy()

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray | None:
        """Stored energy (n,), J/m^3, where the law observes "psi"; else None."""
        return self._observed("psi", state)

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Energy dissipated so far (n,), J/m^3, where the law observes "dissipation"; else None."""
        return self._observed("dissipation", state)

    def _observed(self, name: str, state: np.ndarray) -> np.ndarray | None:
        return self.observe(state)[:, self.observed.index(name)] if name in self.observed else None
