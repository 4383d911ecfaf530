"""Training of the structures of `surrogates.path.structures` in equal processor time, by PyTorch.

Truncated backpropagation through windows of pieces with carried states, as for the shipped law
(`surrogates.path.recurrent_training`): the same batches, the same loss and the same optimiser.
"""

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from micro.crystal.reduced_texture import find_reduced
from micro.crystal.taylor import TaylorPolycrystal
from surrogates.path.data import Samples
from surrogates.path.recurrent import LIMIT
from surrogates.path.structures import Piece, Structure
from surrogates.path.windows import GIVEN, Rows, batches, prepare
from surrogates.training.soap import Soap

#: Columns of the stress of the polycrystal, and of that of the few grains, both at the end of a piece.
STRESS, BASE = slice(10, 15), slice(18, 23)
COLUMNS = 23
#: Part of the paths of a batch below which its last windows are left out.
FEWEST = 0.5
#: Updates whose mean loss is reported.
LAST = 50


@dataclass(frozen=True)
class Budget:
    """What each structure may spend.

    Attributes:
        seconds: Processor time, s.
        batch: Paths of a batch.
        window: Pieces of a window.
        rates: First and last learning rate; between them a cosine of the time.
        warm_up: Updates over which the learning rate rises at first.
        seed: Of the batches.
    """

    seconds: float
    batch: int = 128
    window: int = 20
    rates: tuple[float, float] = (3e-3, 1e-5)
    warm_up: int = 20
    seed: int = 0


def reduced(grains: int) -> TaylorPolycrystal:
    """A shipped reduced polycrystal of magnesium."""
    return TaylorPolycrystal(find_reduced(grains, "magnesium", 0).texture)


def grain_stress(samples: Samples, grains: int) -> Samples:
    """The same paths with the stress of a reduced polycrystal.

    Raises:
        RuntimeError: It could not be solved.
    """
    U, seconds = (torch.from_numpy(x) for x in (samples.U, samples.time * samples.duration[:, None]))
    result = reduced(grains).solve(U, seconds)
    if not bool(result.ok.all()):
        raise RuntimeError(f"The reduced polycrystal could not be solved: {next(r for r in result.reason if r)}.")
    return replace(samples, stress=result.stress.numpy())


def pieces(samples: Samples, grains: int, shear: float) -> list[Rows]:
    """Pieces (T, 23) of paths: those of `surrogates.path.windows`, and the stress of a few grains at the end of each.

    Within a step this stress is taken to change evenly.

    Args:
        samples: Strain paths and stresses.
        grains: Number of grains.
        shear: G, Pa.
    """
    found = []
    both = (prepare(one, shear, LIMIT) for one in (samples, grain_stress(samples, grains)))
    for path, few in zip(*both, strict=True):
        given = np.flatnonzero(path.values[:, GIVEN] > 0)
        known = np.concatenate([np.zeros((1, 5)), few.values[given, STRESS]])
        at = np.arange(len(path.values))
        between = [np.interp(at, np.concatenate([[-1], given]), known[:, i]) for i in range(5)]
        found.append(Rows(np.column_stack([path.values, *between]).astype(np.float32), path.square))
    return found


def given(paths: list[Rows]) -> list[np.ndarray]:
    """The stress (steps, 5) of each path at the end of its steps."""
    return [path.values[path.values[:, GIVEN] > 0, STRESS] for path in paths]


def padded(paths: list[Rows], window: int) -> tuple[Tensor, Tensor]:
    """Pieces (T, n, 23), zero beyond the end of a path, T a multiple of the window, and the mean squares (n,)."""
    length = -(-max(len(path.values) for path in paths) // window) * window
    values = torch.zeros(length, len(paths), COLUMNS)
    for lane, path in enumerate(paths):
        values[: len(path.values), lane] = torch.from_numpy(path.values)
    return values, torch.tensor([max(path.square, 1e-12) for path in paths])


def piece(row: Tensor) -> Piece:
    """The piece of n paths from its columns (n, 23)."""
    return Piece(D=row[:, :5], E=row[:, 5:10], dt=row[:, 15], volume=row[:, 16], base=row[:, BASE])


def window_loss(law: Structure, state: Tensor, window: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Mean relative error of the deviator of the paths in a window (T, n, 23), and the state after it."""
    error = torch.zeros_like(square)
    for row in window:
        stress, state = law(state, piece(row))
        error = error + row[:, GIVEN] * (stress - row[:, STRESS]).square().sum(1)
    count = window[..., GIVEN].sum(0)
    each = torch.sqrt(error / square / count.clamp(min=1) + 1e-6)
    return each[count > 0].mean(), state


def train(law: Structure, paths: list[Rows], budget: Budget) -> dict[str, float]:
    """Train in place for the time given.

    Args:
        law: The structure.
        paths: Pieces (T, 23) of the paths.
        budget: Time, and how it is spent.

    Returns:
        The number of updates, the passes over the data, and the mean loss of the last updates.
    """
    optimiser = Soap(law.parameters(), lr=budget.rates[0], warm_up=budget.warm_up)
    lengths = np.array([len(path.values) for path in paths])
    rng, start, seen = np.random.default_rng(budget.seed), time.process_time(), 0
    losses: list[float] = []
    first, last = budget.rates
    while True:
        for chosen in batches(lengths, budget.batch, budget.window, rng):
            values, square = padded([paths[r] for r in chosen], budget.window)
            state = torch.zeros(len(chosen), law.state)
            for window in values.split(budget.window):
                spent = (time.process_time() - start) / budget.seconds
                if spent >= 1 and losses:
                    passes = seen / float(lengths.sum())
                    return {"updates": len(losses), "passes": passes, "loss": float(np.mean(losses[-LAST:]))}
                if float((window[..., GIVEN].sum(0) > 0).float().mean()) < FEWEST:
                    break
                optimiser.param_groups[0]["lr"] = last + (first - last) * (1 + math.cos(math.pi * min(spent, 1.0))) / 2
                loss, state = window_loss(law, state, window, square)
                law.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                state = state.detach()
                losses.append(float(loss.detach()))
                seen += int((window[..., 15] > 0).sum())


def follow(law: Structure, paths: list[Rows]) -> list[np.ndarray]:
    """Stress (steps, 5) of a law at the end of the steps of each path."""
    order = sorted(range(len(paths)), key=lambda k: -len(paths[k].values))
    lengths = np.array([len(paths[k].values) for k in order])
    values, _ = padded([paths[k] for k in order], 1)
    state, stress = torch.zeros(len(paths), law.state), torch.zeros(*values.shape[:2], 5)
    with torch.no_grad():
        for t, row in enumerate(values):
            n = int((lengths > t).sum())  # the longer paths come first
            stress[t, :n], state = law(state[:n], piece(row[:n]))
    found: list[np.ndarray] = [np.empty(0)] * len(paths)
    for lane, k in enumerate(order):
        there = values[: lengths[lane], lane, GIVEN] > 0
        found[k] = stress[: lengths[lane], lane][there].numpy()
    return found


def cost(law: Structure, points: int = 1024, repeats: int = 30) -> float:
    """Processor time of a point-step in PyTorch, s: the least of some repetitions."""
    generator = torch.Generator().manual_seed(0)
    D, E, base = (0.2 * torch.randn(points, 5, generator=generator) for _ in range(3))
    one = Piece(D, E, torch.full((points,), 0.05), torch.zeros(points), base)
    state, best = torch.zeros(points, law.state), math.inf
    with torch.no_grad():
        for _ in range(repeats):
            start = time.process_time()
            _, state = law(state, one)
            best = min(best, time.process_time() - start)
    return best / points
