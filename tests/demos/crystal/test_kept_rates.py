"""Constants of the recurrent law that are kept: what never keeps them is the law, and less keeping is nearer to it."""

import kept_rates
import numpy as np
import pytest
import torch

from surrogates.path.data import Samples, mandel
from surrogates.path.errors import follow
from surrogates.path.overlay import Overlay, Sizes
from surrogates.path.recurrent import RecurrentLaw
from surrogates.tensors import deviator

SIZES = Sizes(2, 2, 3, 2, 3, 8)


@pytest.fixture
def module() -> RecurrentLaw:
    """A law whose constants depend on its state."""
    overlay = Overlay(SIZES, seed=1)
    with torch.no_grad():
        overlay.W3.mul_(30.0)
    return RecurrentLaw(overlay, bulk=48e9, shear=25e9, limit=kept_rates.ONE_PIECE)


@pytest.fixture
def samples(module: RecurrentLaw) -> Samples:
    """Compression that turns into tension, and its stress by the law itself."""
    t = np.linspace(0, 1, 61)
    strain = np.where(t < 0.6, t, 1.2 - t)[None] * np.array([0.02, 0.05])[:, None]
    U = np.zeros((2, 61, 6))
    U[..., 0] = U[..., 1] = np.exp(strain / 2)
    U[..., 2] = np.exp(-strain)
    path = Samples(U, np.zeros_like(U), np.full(2, 1e-6), np.tile(t, (2, 1)), np.arange(2))
    stress = follow(module, path).numpy() / np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    return Samples(U, stress, path.duration, path.time, path.ids)


def test_the_shorter_they_are_kept_the_nearer_is_the_law(module: RecurrentLaw, samples: Samples) -> None:
    rows = {(row["length"], row["criteria"]): row for row in kept_rates.study(module, samples, 2)}
    assert len(rows) == 1 + len(kept_rates.LENGTHS) * len(kept_rates.CRITERIA)
    assert rows[0.0, ""]["difference"] == 0.0 and rows[0.0, ""]["error"] < 0.02  # finer steps alone
    kept = [rows[length, ""] for length in kept_rates.LENGTHS]
    assert 0 < kept[0]["difference"] < kept[-1]["difference"]
    assert 1 > kept[0]["points"] > kept[1]["points"] > kept[2]["points"] > 0
    for row in rows.values():
        assert row["points"] <= row["blocks"] <= 1  # a block is evaluated if one of its points is
    assert rows[0.3, "turn+rate"]["points"] >= rows[0.3, "turn"]["points"] > rows[0.3, ""]["points"] - 1e-12


def test_constants_change_only_where_they_are_stale(module: RecurrentLaw, samples: Samples) -> None:
    kept = kept_rates.Kept(SIZES, 1e9, ())
    law = kept_rates.law_with(module, kept)
    follow(law, samples)
    assert kept.points == 1.0 < kept.steps  # in the first step alone
    always = kept_rates.Kept(SIZES, 0.0, ())
    found = follow(kept_rates.law_with(module, always), samples)
    assert always.points == always.steps
    assert torch.equal(deviator(found), deviator(follow(module, samples)))
    assert float((deviator(found) - deviator(mandel(samples.stress))).abs().max()) < 1.0  # Pa


def test_bad_options_are_refused(tmp_path, capsys) -> None:
    assert kept_rates.main(["--data", str(tmp_path), "--factor", "0", "--output", str(tmp_path / "out")]) == 2
    assert "--factor must be" in capsys.readouterr().err
