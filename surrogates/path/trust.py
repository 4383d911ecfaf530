"""How far a learned law can be trusted at a state: a distance from its training, and the error that it expects there.

Both come from features x of a state, with the mean c and the covariance of those along the paths of the training:

    d = |W (x - c)| / q            Mahalanobis distance; q its 99.9 % quantile, so that 1 is the edge            (1)
    log r = a . (W (x - c) / q, d, 1)                                                                            (2)

(1) is the *novelty*: it tells whether a law has seen a state, not if it is right there. (2) is the *expected error*:
a is fitted, by ridge regression, to the errors of the deviator along the paths of the training, each relative to the
root mean square of the deviator of its path. It says where the law errs among the states that it has seen.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.threads import small_batches
from surrogates.path.data import Samples, mandel, matrices
from surrogates.path.errors import cauchy, walk
from surrogates.tensors import deviator

#: Quantile of the distances of the training that is set to one.
QUANTILE = 0.999
#: Directions without spread in the data count as if they had this part of the largest variance.
SPREAD = 1e-6
#: Smallest error that the fit tells from none, and its ridge relative to the mean square of the features.
LEAST, RIDGE = 1e-3, 0.01
#: Paths that calibrate a law, and the steps between two states taken from each.
CALIBRATION, EVERY = 256, 10
#: Names of the two fields that a law observes.
NOVELTY, EXPECTED = "novelty", "expected_error"


class Trust(torch.nn.Module):
    """Novelty and expected error of features; a new one gives 0 and 1.

    Args:
        features: Their number.
    """

    centre: Tensor
    whitening: Tensor
    weights: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        zeros = lambda *shape: torch.nn.Buffer(torch.zeros(*shape, dtype=torch.float64))
        self.centre, self.whitening, self.weights = zeros(features), zeros(features, features), zeros(features + 2)

    @torch.jit.export
    def inputs(self, x: Tensor) -> Tensor:
        """Whitened features, novelty and one (n, f + 2) of features (n, f), Eqs. (1) and (2)."""
        y = torch.matmul(x - self.centre.to(x.dtype), self.whitening.to(x.dtype))
        return torch.cat([y, y.square().sum(1, keepdim=True).sqrt(), torch.ones_like(y[:, :1])], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Novelty and expected error, at most 1, (n, 2) of features (n, f)."""
        inputs = self.inputs(x)
        return torch.stack([inputs[:, -2], torch.matmul(inputs, self.weights.to(x.dtype)).clamp(max=0.0).exp()], dim=1)


def calibrate(trust: Trust, features: Tensor, errors: Tensor) -> None:
    """Set the centre, the whitening and the weights.

    The 99.9 % quantile of the novelty of the features becomes one, and the mean of the expected errors that of the
    errors.

    Args:
        trust: What is calibrated.
        features: (s, f), of states along the paths of the training.
        errors: (s,), of the law there, relative; larger ones count as 1.
    """
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(torch.cov(features.T))
        trust.centre.copy_(features.mean(0))
        trust.whitening.copy_(vectors / values.clamp_min(SPREAD * float(values.max())).sqrt())
        trust.whitening.div_(torch.quantile(trust.inputs(features)[:, -2], QUANTILE).clamp_min(1e-12))
        errors = errors.clamp(LEAST, 1.0)
        A, b = trust.inputs(features), errors.log()
        ridge = RIDGE * len(A) * A.square().mean() * torch.eye(A.shape[1], dtype=A.dtype)
        ridge[-1, -1] = 0.0
        trust.weights.copy_(torch.linalg.solve(A.T @ A + ridge, A.T @ b))
        trust.weights[-1] += (errors.mean() / trust(features)[:, 1].mean()).log()


def training_states(law: Any, parts: Sequence[Samples]) -> tuple[Tensor, Tensor]:
    """States (s, k) of a law along paths of its training, evenly from all sets, and its errors (s,) there."""
    share = max(1, CALIBRATION // len(parts))
    rows = (part[np.linspace(0, len(part) - 1, min(share, len(part))).astype(int)] for part in parts)
    states, errors = zip(*(states_along(law, part) for part in rows), strict=True)
    return torch.cat(states), torch.cat(errors)


@small_batches()
def states_along(law: Any, samples: Samples) -> tuple[Tensor, Tensor]:
    """States (s, k) along paths, and the error (s,) of the deviator there over its root mean square along the path.

    Args:
        law: A law with `initial_state(n)` and `step(F, state, dt)`.
        samples: The paths.
    """
    F = matrices(samples.U)
    dt = torch.from_numpy(np.diff(samples.time, axis=1) * samples.duration[:, None])
    truth = deviator(mandel(samples.stress))
    scale = truth.square().sum(2).mean(1).sqrt().clamp_min(1.0)
    kept, errors = [law.initial_state(len(F))], [torch.zeros_like(scale)]
    with torch.no_grad():
        for k, P, state in walk(law, F, dt):
            if k % EVERY == 0 or k == F.shape[1] - 1:
                kept.append(state)
                errors.append((deviator(cauchy(P, F[:, k])) - truth[:, k]).norm(dim=1) / scale)
    return torch.cat(kept), torch.cat(errors)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of a (n,) and b (n,)."""
    from scipy.stats import spearmanr  # slow to load, and laws need it not

    return float(spearmanr(a, b).statistic)


def observes_trust(fields: Sequence[str]) -> bool:
    """Whether a law that observes these fields observes novelty and expected error."""
    return {NOVELTY, EXPECTED} <= set(fields)


def trust_of_paths(
    observed: np.ndarray, fields: Sequence[str], weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Largest novelty (s,) of paths, and their expected error (s,), the root mean square over the states.

    Args:
        observed: What a law observes at states of each path, (s, T, m).
        fields: Names of its m columns, novelty and expected error among them.
        weights: Weights of the states in the mean, (s, T); None: all alike.
    """
    novelty, expected = (observed[..., fields.index(name)] for name in (NOVELTY, EXPECTED))
    return novelty.max(axis=1), np.sqrt(np.average(expected**2, axis=1, weights=weights))


def forecast(law: Any, fields: Sequence[str], samples: Samples) -> dict[str, float]:
    """What novelty and expected error of a law say of its errors along paths.

    Args:
        law: A law as for `states_along`, with `observe`.
        fields: Names of what it observes.
        samples: The paths.

    Returns:
        Mean over the paths of the expected error, as root mean square along each; median of the largest novelty; and,
        for more than two paths, the rank correlation of each of the two with the error. Nothing for a law that does
        not observe them.
    """
    if not observes_trust(fields):
        return {}
    states, errors = states_along(law, samples)
    with torch.no_grad():
        seen = law.observe(states).reshape(-1, len(samples), len(fields)).numpy()
    error = np.sqrt(np.mean(errors.reshape(-1, len(samples)).numpy() ** 2, axis=0))
    novelty, expected = trust_of_paths(seen.swapaxes(0, 1), fields)
    found = {EXPECTED: float(expected.mean()), NOVELTY: float(np.median(novelty))}
    if len(samples) > 2:
        found |= {f"{name}_correlation": rank_correlation(values, error)
                  for name, values in ((EXPECTED, expected), (NOVELTY, novelty))}  # fmt: skip
    return found
