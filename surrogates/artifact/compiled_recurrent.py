"""The recurrent law in compiled form: the weights of an artifact, evaluated by a C library, NumPy in and out.

The C code in surrogates/artifact/kernel does what `surrogates.path.recurrent` does: kinematics in double precision, the
network in single precision with one material point in each lane of a vector.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surrogates.artifact.evaluator import Evaluator

MAIN = Path(__file__).parent / "kernel" / "evaluate.c"
#: The weights in the order of `places` in kernel/overlay.h.
WEIGHTS = (
    *("mix", "left", "right", "basis", "W1", "b1", "W2", "b2", "W3", "b3"),
    *("strength", "viscosity", "share", "rate"),
)
#: Sizes of a law, by macro of the C code, and the weights whose lengths they are.
COUNTED = {
    "ELEMENTS": "strength", "MEMORY": "rate", "MIXED": "mix", "PRODUCTS": "left", "BASIS": "basis", "WIDTH": "b1",
}  # fmt: skip
#: Parts of `Job` in evaluate.c.
JOB: dict[str, tuple[str, ...]] = {
    "arrays": ("weights", "F", "state", "P", "state_new"),
    "numbers": ("dt", "bulk", "shear", "limit"),
}


class CompiledRecurrentLaw:
    """The compiled form of a recurrent law in single precision.

    Args:
        module: The law, scripted or not.

    Raises:
        BuildError: It cannot be compiled here.
        ValueError: The sizes of its weights do not fit.
    """

    #: Rounding makes up small dissipated energies; relative to them it does not matter.
    relative_to_stress: tuple[int, ...] = (-1,)
    smallest_scale = 1e-3  # strains are in per cent

    def __init__(self, module: Any) -> None:
        weights = {name: getattr(module.overlay, name).detach() for name in WEIGHTS}
        self._weights = torch.cat([weights[name].flatten() for name in WEIGHTS]).float().numpy().copy()
        self._numbers = tuple(float(getattr(module, name)) for name in ("bulk", "shear", "limit"))
        state = module.initial_state(0).shape[1]
        self._evaluate = Evaluator(MAIN, defines(weights), **JOB, weights=self._weights.size, state=state)

    def update_into(self, F: np.ndarray, state: np.ndarray, dt: float, P: np.ndarray, new: np.ndarray) -> None:
        """See `CompiledLaw`."""
        self._evaluate(len(F), (self._weights, F, state, P, new), (float(dt), *self._numbers))

    def durations(self, strains: np.ndarray) -> np.ndarray:
        """Durations (s) of steps of these strains, to compare laws with: at 1e3 to 1e6 1/s."""
        return np.asarray(strains / 10.0 ** (3 + 3 * ((np.arange(len(strains)) * 0.414) % 1)))


def defines(weights: Mapping[str, Any]) -> tuple[str, ...]:
    """The macros of the C code for weights of these shapes."""
    return tuple(f"{macro}={len(weights[name])}" for macro, name in COUNTED.items())


def is_recurrent(module: Any) -> bool:
    """Whether a module is a recurrent law in single precision."""
    overlay = getattr(module, "overlay", None)
    if overlay is None or not all(hasattr(overlay, name) for name in WEIGHTS):
        return False
    return all(getattr(overlay, name).dtype == torch.float32 for name in WEIGHTS)
