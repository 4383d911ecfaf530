"""Paths with a closed-form law behind them, so that no test here waits for the polycrystal; walks of small lattices."""

from collections.abc import Callable, Iterable
from typing import Any

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


def conjugate_power(law: Any, fields: list[dict[str, Any]], F, state, new):
    """What the conjugate forces do in a step from `state` to `new` at F, by the free energy alone.

    A step of no strain changes nothing, so that the law tells psi of any state, and T = dpsi/dZ is its derivative.

    Args:
        law: the law, scripted or not; its state holds Z, the hardening variables p if there are any, and psi.
        fields: layout of the state, as the manifest has it.
        F: deformation gradients at the end of the step (n, d, d).
        state, new: states at its start and end (n, k).

    Returns:
        -T . dZ less what hardening stores, (n,), and the sum of the absolute values of its terms, (n,), J/m^3.
    """
    where = {f["name"]: slice(f["offset"], f["offset"] + f["shape"][0]) for f in fields}
    end = new.detach().clone().requires_grad_(True)
    psi = law.forward(F, end, 1.0)[1][:, where["psi"]]
    (T,) = torch.autograd.grad(psi.sum(), end)
    terms = torch.cat([(T * (new - state))[:, where[name]] for name in ("Z", "p") if name in where], dim=1).detach()
    return -terms.sum(dim=1), terms.abs().sum(dim=1)


@pytest.fixture(scope="session", name="conjugate_power")
def _conjugate_power():
    """`conjugate_power`, for tests of the second law."""
    return conjugate_power


def first_order_gain(loss: Callable[[], torch.Tensor], parameters: Iterable[torch.nn.Parameter], rate: float) -> float:
    """By how much one small step of Adam lowers a loss: every number moves by `rate` against the sign of its slope."""
    trained = [p for p in parameters if p.requires_grad]
    slopes = torch.autograd.grad(loss(), trained, allow_unused=True)
    return rate * sum(float(slope.abs().sum()) for slope in slopes if slope is not None)


def jolt(module: torch.nn.Module, size: float = 0.05) -> None:
    """Change all numbers by some per cent: at the first ones errors may be zero, where their size has a kink."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1 + size * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))


@pytest.fixture(scope="session", name="jolt")
def _jolt():
    """`jolt`, for tests of trainings that must hold for any rounding."""
    return jolt


@pytest.fixture(scope="session", name="first_order_gain")
def _first_order_gain():
    """`first_order_gain`, for tests of trainings that must hold for any rounding."""
    return first_order_gain


def check_descent(loss_after: Callable[[int, float], float], rate: float) -> None:
    """Small steps lower the loss in proportion to their length, for any rounding.

    Args:
        loss_after: gives the loss in the last of so many epochs at a learning rate, each of one step with all data: the
            loss before the step of that epoch.
        rate: a learning rate so small that the loss is linear in the step, and so large that no rounding shows.
    """
    before = loss_after(1, rate)
    whole, half = (before - loss_after(2, r) for r in (rate, rate / 2))
    assert half > 1e-5 * abs(before)
    assert whole == pytest.approx(2 * half, rel=0.1)


@pytest.fixture(scope="session", name="check_descent")
def _check_descent():
    """`check_descent`, for tests of trainings."""
    return check_descent
