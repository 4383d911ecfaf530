"""Slip and twin systems of hcp crystals."""

from collections import Counter

import pytest
import torch

from micro.crystal.systems import Systems, slip_systems, twin_shear, twin_systems, twinned

SIX_FOLD = torch.tensor([[0.5, -(3**0.5) / 2, 0.0], [3**0.5 / 2, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def same_systems(a: torch.Tensor, b: torch.Tensor, *, signed: bool) -> bool:
    """Whether two sets of Schmid tensors (n, 3, 3) are the same set, up to signs unless `signed`."""
    plus = (a[:, None] - b[None]).flatten(2).norm(dim=-1) < 1e-12
    minus = (a[:, None] + b[None]).flatten(2).norm(dim=-1) < 1e-12
    match = plus if signed else plus | minus
    return bool((match.sum(0) == 1).all() and (match.sum(1) == 1).all())


def test_families_have_the_known_number_of_systems() -> None:
    assert Counter(slip_systems().family) == {"basal": 3, "prismatic": 3, "pyramidal": 6}
    assert len(twin_systems().family) == 6


@pytest.mark.parametrize("systems", [slip_systems(), twin_systems()])
def test_directions_lie_in_their_planes(systems: Systems) -> None:
    torch.testing.assert_close((systems.s * systems.m).sum(-1), torch.zeros(len(systems.s), dtype=torch.float64))
    for vectors in (systems.s, systems.m):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors), dtype=torch.float64))


def test_six_fold_symmetry_maps_the_systems_onto_themselves() -> None:
    for systems, signed in ((slip_systems(), False), (twin_systems(), True)):
        turned = SIX_FOLD @ systems.schmid @ SIX_FOLD.T
        assert same_systems(turned, systems.schmid, signed=signed)


def test_twins_extend_the_c_axis() -> None:
    assert bool((twin_systems().schmid[:, 2, 2] > 0).all())
    shear = twin_shear(1.624)
    assert shear == pytest.approx(0.1289, abs=5e-5)
    # The twin shear makes of the lattice its own mirror image: (I + g s m) maps c onto the twinned c axis.
    twins = twin_systems()
    turn = 2 * twins.m[0][:, None] * twins.m[0][None] - torch.eye(3, dtype=torch.float64)
    c = torch.tensor([0.0, 0.0, 1.624], dtype=torch.float64)
    basal = torch.tensor([[1.0, 0.0, 0.0], [-0.5, 3**0.5 / 2, 0.0]], dtype=torch.float64)
    lattice = torch.vstack([2 * basal, 2 * c[None]])  # even multiples: twinning may shuffle the odd points
    sheared = lattice + shear * (lattice @ twins.m[0])[:, None] * twins.s[0]
    coordinates = torch.linalg.solve((turn @ torch.vstack([basal, c[None]]).T), sheared.T)
    torch.testing.assert_close(coordinates, coordinates.round(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_a_partly_twinned_crystal_keeps_five_independent_slips(fraction: float) -> None:
    slip, twin = slip_systems(), twin_systems()
    inside = twinned(slip, twin)
    for b in range(6):
        mixed = (1 - fraction) * slip.schmid + fraction * inside[:, b]
        symmetric = (mixed + mixed.mT).flatten(1) / 2
        assert torch.linalg.svdvals(symmetric)[4] > 0.6
