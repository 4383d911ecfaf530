"""Paths with a closed-form law behind them, so that no test here waits for the polycrystal; walks of small lattices."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from micro.crystal.paths import random_walk
from micro.lattice.bars import KinematicBar
from micro.lattice.source import LatticeSource
from surrogates import tensors
from surrogates.artifact import switch_fusion_off
from surrogates.path.data import Samples, matrices
from surrogates.tann.data import LatticePaths, paths_of


def make_samples(count: int, *, seed: int = 3, steps: int = 40, duration=(1e-6, 1e-6), strain: float = 0.2) -> Samples:
    """Maxwell material on random walks: tau_hat' = 2 G E' - tau_hat / relaxation, pressure K (J - 1)."""
    paths = random_walk(range(count), seed, strain=strain, steps=steps, duration=duration)
    U = matrices(paths.U)
    flat = U.reshape(-1, 3, 3)
    J = tensors.determinant(flat)
    E = tensors.to_vector(tensors.rational_strain(tensors.isochoric(flat, J))).reshape(count, -1, 6)
    E = tensors.deviator(E)
    decay = torch.exp(-torch.from_numpy(np.diff(paths.time, axis=1) * paths.duration[:, None]) / 3e-7)[..., None]
    tau = torch.zeros_like(E)
    for k in range(1, E.shape[1]):
        tau[:, k] = decay[:, k - 1] * tau[:, k - 1] + 2 * 2.5e9 * (E[:, k] - E[:, k - 1])
    J = J.reshape(count, -1, 1)
    stress = tau / J
    stress[..., 3:] /= 2**0.5
    stress[..., :3] += 48e9 * (J - 1)
    return Samples(paths.U, stress.numpy(), paths.duration, paths.time, np.arange(count))


@pytest.fixture(scope="session", autouse=True)
def _scripted():
    """Before the first scripted call of all; one thread, for the matrices are small."""
    switch_fusion_off()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="session")
def samples() -> Samples:
    """Sixty paths of 41 times and one duration."""
    return make_samples(60)


@pytest.fixture(scope="session")
def uneven_samples() -> Samples:
    """Forty paths whose durations spread over a factor of ten."""
    return make_samples(40, duration=(1e-6, 1e-5))


def lattice_walks(
    cell="square-2", *, samples=60, steps=80, perturbation=0.2, bar=None, seed=0, increment=(0.01, 0.4)
) -> LatticePaths:
    """LatticePaths as the reader gives them."""
    source = LatticeSource(
        seed, cell=cell, perturbation=perturbation, cell_seed=0, bar=bar or KinematicBar(), steps=steps,
        increment=increment, zero=0.2, device="cpu", threads=1,
    )  # fmt: skip
    block = source.solve(np.arange(samples))
    assert not any(block.reason)
    meta = {"parameters": source.parameters, "seed": seed, "command": "made in a test", "code": {"version": "test"}}
    return paths_of(block.arrays, np.arange(samples), meta)


@pytest.fixture(scope="session")
def make_walks():
    """Maker of walks of a lattice cell."""
    return lattice_walks
