"""An exported TorchScript law, read from its artifact, behind the interface of the compiled laws."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from fem.laws.shapes import check
from surrogates.artifact import load_law


@final
class TorchLaw:
    """A law artifact at every point. Arrays cross to torch and back without a copy.

    Args:
        path: The `.pt` file.
        dtype: None keeps the precision the law was exported with; "float64" evaluates it in double precision.
        chunk: Points evaluated at once; smaller pieces stay in the cache of a core. None takes all at once.

    Raises:
        ValueError: If the loader refuses the artifact, or it is no finite-strain law in three dimensions.
    """

    def __init__(self, path: str | PathLike[str], *, dtype: str | None = None, chunk: int | None = 1024) -> None:
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}.")
        law = load_law(Path(path), dtype=dtype)
        manifest: dict[str, Any] = law.manifest
        if manifest["strain"] != "finite" or manifest["dimension"] != 3:
            raise ValueError(
                f"{path} is a law of {manifest['strain']} strain in {manifest['dimension']} dimensions; "
                "the solver needs finite strain in 3."
            )
        self.module = law.module
        self.manifest = manifest
        self.certificate: dict[str, Any] = manifest["certificate"]
        self.name = str(manifest["name"])
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
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and the new state (n, k), for F (n, 3, 3) reached in dt (s)."""
        F, state = check(F, state, self.state_size)
        n = len(F)
        step = self.chunk or n
        if n <= step:
            return self._piece(F, state, dt)
        P, new = np.empty_like(F), np.empty_like(state)
        for start in range(0, n, step):
            part = slice(start, start + step)
            P[part], new[part] = self._piece(F[part], state[part], dt)
        return P, new

    def _piece(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        if len(F) == 0:
            return np.zeros((0, 3, 3)), np.zeros((0, self.state_size))
        with torch.inference_mode():
            P, new = self.module(torch.from_numpy(F), torch.from_numpy(state), float(dt))
            return P.contiguous().numpy(), new.contiguous().numpy()

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, 3, 3, 3, 3), Pa, with dP_dF[n, i, j, k, l] = dP_ij / dF_kl."""
        F, state = check(F, state, self.state_size)
        if len(F) == 0:
            return np.zeros((0, 3, 3)), np.zeros((0, self.state_size)), np.zeros((0, 3, 3, 3, 3))
        # The module may differentiate inside, which inference tensors do not allow.
        P, new, dP_dF = self.module.tangent(torch.from_numpy(F), torch.from_numpy(state), float(dt))
        return P.detach().numpy(), new.detach().numpy(), dP_dF.detach().numpy()

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Named fields to plot, (n, m), in the order of `observed`."""
        if len(state) == 0:
            return np.zeros((0, len(self.observed)))
        with torch.inference_mode():
            return self.module.observe(torch.from_numpy(np.ascontiguousarray(state))).numpy()

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> None:
        """A learned law has no stored energy to report: None."""
        return None
