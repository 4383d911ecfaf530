"""Compiled forms of learned laws: the weights of an artifact, evaluated by a C library several times faster.

TorchScript moves every intermediate result through memory. The C code in surrogates/artifact/kernel does the same for a
block of points at once: `compiled_recurrent` for recurrent laws, `compiled_pca` for PCA-Net. `compile_law` compares a
compiled form with the artifact and returns None where they differ, or where nothing can be compiled: then PyTorch
evaluates the artifact.
"""

import logging
from typing import Any, Protocol

import numpy as np
import torch

from micro.build import BuildError
from surrogates.artifact.compiled_pca import CompiledPCALaw, is_pca_net
from surrogates.artifact.compiled_recurrent import CompiledRecurrentLaw, is_recurrent

logger = logging.getLogger(__name__)

#: Largest difference of stress and state from those of PyTorch, relative to the largest values of the comparison.
AGREEMENT = 1e-4


class CompiledLaw(Protocol):
    """What compiled forms have in common."""

    #: Fields of the state whose differences count relative to the stress where they are small.
    relative_to_stress: tuple[int, ...]
    #: Differences of fields that are smaller than this count relative to it.
    smallest_scale: float

    def update_into(self, F: np.ndarray, state: np.ndarray, dt: float, P: np.ndarray, new: np.ndarray) -> None:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and new state (n, k), into arrays that are there.

        All arrays are contiguous and float64; `new` must not be `state`, which is read while `new` is written.

        Raises:
            MemoryError: There is no memory for the intermediate results.
        """

    def durations(self, strains: np.ndarray) -> np.ndarray:
        """Durations (s) of steps of these strains, to compare laws with."""


def update(law: CompiledLaw, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Stress (n, 3, 3), Pa, and new state (n, k) of a compiled law; contiguous float64 arrays.

    Raises:
        MemoryError: There is no memory for the intermediate results.
    """
    P, new = np.empty_like(F), np.empty_like(state)
    law.update_into(F, state, dt, P, new)
    return P, new


def compile_law(module: Any) -> CompiledLaw | None:
    """The compiled form of a recurrent law or PCA-Net in single precision, if it can be compiled and agrees.

    A line of the log says why such a law is evaluated by PyTorch.
    """
    kinds = (("recurrent law", is_recurrent, CompiledRecurrentLaw), ("PCA-Net", is_pca_net, CompiledPCALaw))
    for name, is_kind, form in kinds:
        if not is_kind(module):
            continue
        try:
            law: CompiledLaw = form(module)
        except (BuildError, ValueError, AttributeError) as error:
            logger.warning("The %s is evaluated by PyTorch, and slower: %s.", name, str(error).rstrip("."))
            return None
        found = disagreement(law, module)
        if found <= AGREEMENT:
            return law
        logger.warning("The compiled %s differs from the artifact by %.1e; PyTorch evaluates it.", name, found)
        return None
    return None


def disagreement(law: CompiledLaw, module: Any, points: int = 37, steps: int = 12) -> float:
    """Largest difference of stress and state along random paths, relative to the largest stress and each largest field.

    The paths have steps of 1e-4 to 3e-2 of strain, turn, and pause; the law says in what time, and down to what size a
    field counts.
    """
    generator = torch.Generator().manual_seed(0)
    F = torch.eye(3, dtype=torch.float64).repeat(points, 1, 1)
    state = module.initial_state(points)
    strains = 10.0 ** (-4 + 2.5 * ((np.arange(steps) * 0.618) % 1))
    stresses, states = [], []  # of PyTorch, and the differences from them
    for k, (size, dt) in enumerate(zip(strains, law.durations(strains), strict=True)):
        L = torch.randn(points, 3, 3, generator=generator, dtype=torch.float64)
        L = L - 0.95 * torch.einsum("nii->n", L).reshape(-1, 1, 1) / 3 * torch.eye(3, dtype=torch.float64)
        F = F if k % 5 == 4 else torch.matmul(torch.matrix_exp(float(size) * L), F)
        with torch.no_grad():
            P, new = module(F, state, float(dt))
        P_c, new_c = update(law, F.numpy(), state.numpy(), float(dt))
        stresses.append(torch.stack([P, torch.from_numpy(P_c) - P]).abs().amax((1, 2, 3)))
        states.append(torch.stack([new, torch.from_numpy(new_c) - new]).abs().amax(1))
        state = new
    largest, deviation = torch.stack(stresses).amax(0)
    scale, deviations = torch.stack(states).amax(0)
    scale = scale.clamp_min(law.smallest_scale)
    for field in law.relative_to_stress:
        scale[field] = scale[field].clamp_min(1e-3 * float(largest))
    found = torch.cat([deviation.reshape(1) / largest.clamp_min(1.0), deviations / scale])
    return float(found.max()) if bool(torch.isfinite(found).all()) else float("inf")
