"""The recurrent law in compiled form: the weights of an artifact, evaluated by a C library, NumPy in and out.

The C code in surrogates/artifact/kernel does what `surrogates.path.recurrent` does: kinematics in double precision, the
network in single precision with one material point in each lane of a vector. It is several times faster than
TorchScript, which moves every intermediate result through memory. `compile_law` compares the two and returns None where
they differ, or where nothing can be compiled: then the artifact is evaluated by PyTorch.
"""

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micro.build import BuildError, build

logger = logging.getLogger(__name__)

MAIN = Path(__file__).parent / "kernel" / "evaluate.c"
#: The weights in the order of `places` in kernel/overlay.h.
WEIGHTS = (
    *("mix", "left", "right", "basis", "W1", "b1", "W2", "b2", "W3", "b3"),
    *("strength", "viscosity", "share", "rate"),
)
#: Largest difference of the stress from that of TorchScript, relative to the largest stress of the comparison.
AGREEMENT = 1e-4


class _Job(ctypes.Structure):
    """`Job` of evaluate.c."""

    _fields_ = (
        ("points", ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ("weights", "F", "state", "P", "state_new")),
        *((name, ctypes.c_double) for name in ("dt", "bulk", "shear", "limit")),
    )


class CompiledLaw:
    """The compiled form of a recurrent law in single precision.

    Args:
        module: The law, scripted or not.

    Raises:
        BuildError: It cannot be compiled here.
        ValueError: The sizes of its weights do not fit.
    """

    def __init__(self, module: Any) -> None:
        weights = {name: getattr(module.overlay, name).detach() for name in WEIGHTS}
        self._library = _library(defines(weights))
        self._weights = torch.cat([weights[name].flatten() for name in WEIGHTS]).float().numpy().copy()
        self._numbers = tuple(float(getattr(module, name)) for name in ("bulk", "shear", "limit"))
        size = module.initial_state(0).shape[1]
        found = (self._library.weights_size(), self._library.state_size())
        if found != (self._weights.size, size):
            raise ValueError(f"The compiled law needs {found} weights and numbers, got {(self._weights.size, size)}.")

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and new state (n, k); contiguous float64 arrays.

        Raises:
            MemoryError: There is no memory for the intermediate results.
        """
        P, new = np.empty_like(F), np.empty_like(state)
        self.update_into(F, state, dt, P, new)
        return P, new

    def update_into(self, F: np.ndarray, state: np.ndarray, dt: float, P: np.ndarray, new: np.ndarray) -> None:
        """As `update`, into arrays that are there; all are contiguous.

        Raises:
            MemoryError: There is no memory for the intermediate results.
        """
        arrays = (array.ctypes.data for array in (self._weights, F, state, P, new))
        job = _Job(len(F), *arrays, float(dt), *self._numbers)
        if self._library.evaluate(ctypes.byref(job)):
            raise MemoryError("The compiled law has no memory for its intermediate results.")


def defines(weights: dict[str, Any]) -> tuple[str, ...]:
    """The macros of the C code for weights of these shapes."""
    elements, memory = len(weights["strength"]), len(weights["rate"])
    sizes = {
        "ELEMENTS": elements, "MEMORY": memory, "MIXED": len(weights["mix"]), "PRODUCTS": len(weights["left"]),
        "BASIS": len(weights["basis"]), "WIDTH": len(weights["b1"]),
    }  # fmt: skip
    return tuple(f"{name}={value}" for name, value in sizes.items())


@cache
def _library(macros: tuple[str, ...]) -> ctypes.CDLL:
    library = build(MAIN, macros)
    library.evaluate.argtypes, library.evaluate.restype = [ctypes.c_void_p], ctypes.c_int
    for name in ("weights_size", "job_bytes", "state_size"):
        getattr(library, name).restype = ctypes.c_long
    if library.job_bytes() != ctypes.sizeof(_Job):
        raise BuildError(f"the job of evaluate.c has {library.job_bytes()} bytes, not {ctypes.sizeof(_Job)}")
    return library


def is_recurrent(module: Any) -> bool:
    """Whether a module is a recurrent law in single precision."""
    overlay = getattr(module, "overlay", None)
    if overlay is None or not all(hasattr(overlay, name) for name in WEIGHTS):
        return False
    return all(getattr(overlay, name).dtype == torch.float32 for name in WEIGHTS)


def compile_law(module: Any) -> CompiledLaw | None:
    """The compiled form of a law, if it is a recurrent law in single precision that can be compiled and agrees.

    A line of the log says why a recurrent law is evaluated by PyTorch.
    """
    if not is_recurrent(module):
        return None
    try:
        law = CompiledLaw(module)
    except (BuildError, ValueError, AttributeError) as error:
        logger.warning("The recurrent law is evaluated by PyTorch, and slower: %s.", error)
        return None
    found = disagreement(law, module)
    if not found <= AGREEMENT:
        logger.warning("The compiled recurrent law differs from the artifact by %.1e; PyTorch evaluates it.", found)
        return None
    return law


def disagreement(law: CompiledLaw, module: Any, points: int = 37, steps: int = 12) -> float:
    """Largest difference of stress and state along random paths, relative to the largest stress and each largest field.

    The paths have steps of 1e-4 to 1e-2 of strain at 1e3 to 1e6 1/s, turn, and pause.
    """
    generator = torch.Generator().manual_seed(0)
    F = torch.eye(3, dtype=torch.float64).repeat(points, 1, 1)
    state = module.initial_state(points)
    worst = 0.0
    for k in range(steps):
        L = torch.randn(points, 3, 3, generator=generator, dtype=torch.float64)
        L = L - 0.95 * torch.einsum("nii->n", L).reshape(-1, 1, 1) / 3 * torch.eye(3, dtype=torch.float64)
        size, rate = 10.0 ** (-4 + 2 * ((k * 0.618) % 1)), 10.0 ** (3 + 3 * ((k * 0.414) % 1))
        F = F if k % 5 == 4 else torch.matmul(torch.matrix_exp(size * L), F)
        with torch.no_grad():
            P, new = module(F, state, size / rate)
        P_c, new_c = law.update(F.numpy(), state.numpy(), size / rate)
        # Rounding makes up small dissipated energies; relative to them it does not matter.
        scale = new.abs().amax(0).clamp_min(1e-3)
        scale[-1] = scale[-1].clamp_min(1e-3 * float(P.abs().max()))
        deviations = [(torch.from_numpy(P_c) - P).abs().max() / P.abs().max().clamp_min(1.0)]
        deviations += [((torch.from_numpy(new_c) - new).abs() / scale).max()]
        worst = max([worst, *(float(d) if bool(torch.isfinite(d)) else float("inf") for d in deviations)])
        state = new
    return worst
