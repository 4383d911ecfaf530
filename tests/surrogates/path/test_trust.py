"""Novelty and expected error: the edge of the data, and errors that are known functions of the features."""

import numpy as np
import pytest
import torch

from surrogates.path.data import Samples
from surrogates.path.trust import Trust, calibrate, forecast, rank_correlation, trust_of_paths


@pytest.fixture
def features() -> torch.Tensor:
    """Correlated features (4000, 3) of different sizes about a mean, the third a sum of the others."""
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x @ torch.tensor([[10.0, 1.0], [0.0, 0.1]], dtype=torch.float64) + 5.0
    return torch.cat([x, x.sum(1, keepdim=True)], dim=1)


def test_a_new_one_knows_nothing() -> None:
    found = Trust(3)(torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(found, torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64))


def test_the_edge_of_the_data_has_the_novelty_one(features: torch.Tensor) -> None:
    trust = Trust(3)
    calibrate(trust, features, torch.full((4000,), 0.02, dtype=torch.float64))
    novelty = trust(features)[:, 0]
    assert float((novelty > 1).double().mean()) == pytest.approx(0.001, abs=5e-4)
    middle = features.mean(0, keepdim=True)
    assert float(trust(middle)[0, 0]) < 1e-6
    along = middle + torch.tensor([[0.0, 5.0, 5.0]], dtype=torch.float64)
    assert float(trust(along)[0, 0]) > 5, "far along a direction of small spread, near in the others"


def test_the_expected_error_is_the_mean_and_the_order_of_the_errors(features: torch.Tensor) -> None:
    errors = 0.02 * (0.08 * (features[:, 0] - 5)).exp()
    trust = Trust(3)
    calibrate(trust, features[::2], errors[::2])
    found, true = trust(features[1::2])[:, 1], errors[1::2]
    assert float(found.mean()) == pytest.approx(float(true.mean()), rel=0.05)
    assert float(torch.corrcoef(torch.stack([found.log(), true.log()]))[0, 1]) > 0.99
    calibrate(trust, features, torch.full_like(errors, 50.0).scatter(0, torch.tensor([0]), 0.0))
    assert float(trust(features).max(0).values[1]) <= 1.0


def test_errors_that_grow_with_the_distance_are_expected_far_away(features: torch.Tensor) -> None:
    trust = Trust(3)
    calibrate(trust, features, torch.full((4000,), 0.02, dtype=torch.float64))
    calibrate(trust, features, 0.005 * (2 * trust(features)[:, 0]).exp())
    far = features.mean(0, keepdim=True) + 3 * (features[:200] - features.mean(0, keepdim=True))
    assert bool((trust(far)[:, 1] > trust(features[:200])[:, 1]).all())


def test_it_can_be_scripted(features: torch.Tensor) -> None:
    trust = Trust(3)
    calibrate(trust, features, features[:, 1].abs() / 100)
    torch.testing.assert_close(torch.jit.script(trust)(features), trust(features))


def test_a_law_in_single_precision_still_observes(features: torch.Tensor) -> None:
    trust = Trust(3)
    calibrate(trust, features, features[:, 1].abs() / 100)
    expected = trust(features)
    torch.testing.assert_close(trust.float()(features), expected, rtol=1e-3, atol=1e-3)


class Known:
    """A law with F as its state and stress, one of whose fields is its error."""

    def initial_state(self, n: int) -> torch.Tensor:
        return torch.eye(3, dtype=torch.float64).repeat(n, 1, 1).flatten(1)

    def step(self, F: torch.Tensor, state: torch.Tensor, dt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F - torch.eye(3, dtype=F.dtype), F.flatten(1)

    def observe(self, state: torch.Tensor) -> torch.Tensor:
        strain = (state - self.initial_state(len(state))).norm(dim=1)
        return torch.stack([strain, 2 * strain, 0.5 - strain], dim=1)


def test_a_forecast_is_compared_with_the_errors_of_each_path() -> None:
    """The data have no stress but a unit one at first, so that the law errs by its stress."""
    size = np.array([0.01, 0.04, 0.02, 0.03])
    t = np.linspace(0, 1, 21)
    U = np.zeros((4, 21, 6)) + np.array([1.0, 1, 1, 0, 0, 0])
    U[..., 3] += size[:, None] * t
    stress = np.zeros_like(U)
    stress[:, 0, 3] = 21**0.5
    samples = Samples(U, stress, np.ones(4), np.tile(t, (4, 1)), np.arange(4))
    found = forecast(Known(), ["novelty", "expected_error", "else"], samples)
    assert found["expected_error_correlation"] == pytest.approx(1) == found["novelty_correlation"]
    wrong = forecast(Known(), ["novelty", "else", "expected_error"], samples)
    assert wrong["expected_error_correlation"] == pytest.approx(-1)
    kept = np.array([0.0, 0.5, 1.0])  # every tenth step
    assert found["expected_error"] == pytest.approx(2 * 2**0.5 * size.mean() * np.sqrt((kept**2).mean()))
    assert forecast(Known(), ["novelty"], samples) == {}


def test_novelty_of_a_path_is_its_largest_and_the_expected_error_its_mean_over_time() -> None:
    """Two paths of three states; the second stays in its last state three times as long as in the others."""
    novelty = np.array([[0.1, 0.7, 0.2], [2.0, 1.0, 0.5]])
    expected = np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.5]])
    observed = np.stack([expected, np.full((2, 3), 9.0), novelty], axis=2)
    fields = ("expected_error", "else", "novelty")
    far, alike = trust_of_paths(observed, fields)
    assert far.tolist() == [0.7, 2.0]
    assert alike == pytest.approx([0.1, 0.5 * (1 / 3) ** 0.5])
    steps = np.array([[1.0, 1.0, 1.0], [1e-6, 1e-6, 3e-6]])
    assert trust_of_paths(observed, fields, steps)[1] == pytest.approx([0.1, 0.5 * (3 / 5) ** 0.5])


def test_rank_correlation_does_not_depend_on_scales() -> None:
    a = np.array([3.0, 1.0, 2.0, 10.0])
    assert rank_correlation(a, a**3) == pytest.approx(1) == -rank_correlation(a, -np.log(a))
