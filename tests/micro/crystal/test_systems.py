"""Slip and twin systems: their numbers, symmetry and Schmid factors, and the lattice of a twin."""

import math
from collections import Counter

import pytest
import torch

from micro.crystal.materials import CrystalParameters, SlipFamily, TwinFamily, load_material, material_names
from micro.crystal.systems import (
    Systems,
    crystal_systems,
    direction,
    normal,
    plane_normals,
    slip_systems,
    twin_shear,
    twin_systems,
    twinned,
)

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


@pytest.mark.parametrize("systems", [twin_systems(), *(slip_systems(load_material(name)) for name in material_names())])
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


def crystal(lattice: str, *pairs: tuple[tuple[int, ...], tuple[int, ...]]) -> CrystalParameters:
    """A crystal with the slip families of these pairs of direction and plane."""
    ratio = 1.624 if lattice == "hcp" else None
    slip = tuple(SlipFamily(str(k), d, p, 1e6, 1.0, 0.5, 1e6, 1e6, "test") for k, (d, p) in enumerate(pairs))
    return CrystalParameters("test", lattice, 1e9, 1e9, 1e3, slip, "test", c_over_a=ratio)


@pytest.mark.parametrize(
    ("lattice", "direction", "plane", "count"),
    [
        ("fcc", (0, 1, -1), (1, 1, 1), 12),
        ("bcc", (1, -1, 1), (0, 1, 1), 12),
        ("bcc", (-1, 1, 1), (2, 1, 1), 12),
        ("bcc", (1, 1, -1), (1, 2, 3), 24),
        ("hcp", (2, -1, -1, 0), (0, 1, -1, 1), 6),  # pyramidal <a>
        ("hcp", (-2, 1, 1, 3), (1, 0, -1, 1), 12),  # pyramidal-I <c + a>
        ("square", (1, 0, 0), (0, 1, 0), 2),
        ("square", (1, 1, 0), (1, -1, 0), 2),
    ],
)
def test_a_family_has_the_number_of_systems_of_the_textbooks(lattice, direction, plane, count) -> None:
    systems = slip_systems(crystal(lattice, (direction, plane)))
    assert len(systems.family) == count
    assert float((systems.s * systems.m).sum(-1).abs().max()) < 1e-12


def test_the_sense_of_the_given_pair_does_not_matter_for_slip() -> None:
    a = slip_systems(crystal("fcc", ((0, 1, -1), (1, 1, 1)))).schmid
    b = slip_systems(crystal("fcc", ((1, 0, 1), (1, 1, -1)))).schmid
    assert same_systems(a, b, signed=False)


def largest_schmid_factor(systems: Systems, axis: torch.Tensor) -> float:
    """Of a uniaxial stress along the axis (3,)."""
    axis = axis / axis.norm()
    return float(((systems.s @ axis) * (systems.m @ axis)).abs().max())


@pytest.mark.parametrize(
    ("axis", "factor", "active"),
    [((0, 0, 1), 1 / math.sqrt(6), 8), ((1, 1, 1), math.sqrt(6) / 9, 6), ((0, 1, 1), 1 / math.sqrt(6), 4)],
)
def test_schmid_factors_of_fcc(axis, factor, active) -> None:
    systems, a = slip_systems(load_material("steel-316l")), torch.tensor(axis, dtype=torch.float64)
    assert largest_schmid_factor(systems, a) == pytest.approx(factor, rel=1e-12)  # 0.408, 0.272, 0.408
    a = a / a.norm()
    factors = ((systems.s @ a) * (systems.m @ a)).abs()
    assert int((factors > factor - 1e-9).sum()) == active


def test_schmid_factors_of_bcc() -> None:
    systems = slip_systems(load_material("ferrite"))
    assert Counter(systems.family) == {"110": 12, "112": 12}
    a = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    factors = ((systems.s @ a) * (systems.m @ a)).abs()
    assert float(factors[:12].max()) == pytest.approx(1 / math.sqrt(6), rel=1e-12)  # 0.408
    assert float(factors[12:].max()) == pytest.approx(math.sqrt(2) / 3, rel=1e-12)  # 0.471


def test_schmid_factors_of_hcp() -> None:
    systems = slip_systems()
    basal = Systems(systems.family[:3], systems.s[:3], systems.m[:3])
    along_c = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert largest_schmid_factor(basal, along_c) < 1e-12
    tilted = along_c + torch.tensor(direction((2, -1, -1, 0), 1.624)) / 3  # 45 degrees between c and a
    assert largest_schmid_factor(basal, tilted) == pytest.approx(0.5, rel=1e-12)
    prismatic = Systems(systems.family[3:6], systems.s[3:6], systems.m[3:6])
    assert largest_schmid_factor(prismatic, along_c) < 1e-12
    assert largest_schmid_factor(prismatic, torch.tensor(normal((0, 1, -1, 0), 1.624))) == pytest.approx(
        math.sqrt(3) / 4, rel=1e-12
    )


def test_twins_reorient_the_c_axis_by_the_known_angle() -> None:
    """86.3 degrees about <1-210>, and the c axis of the sheared crystal is longer by 6.4 %."""
    twins, c = twin_systems(), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    turned = 2 * twins.m * (twins.m @ c)[:, None] - c
    angle = torch.rad2deg(torch.acos((turned @ c).abs()))
    torch.testing.assert_close(angle, torch.full((6,), 86.3, dtype=torch.float64), atol=0.05, rtol=0)
    assert float(angle[0]) == pytest.approx(2 * math.degrees(math.atan(1.624 / math.sqrt(3))), abs=1e-9)
    extension = 0.1289 * (twins.s @ c) * (twins.m @ c)
    torch.testing.assert_close(extension, torch.full((6,), 0.064, dtype=torch.float64), atol=5e-4, rtol=0)


def test_slip_in_a_twin_is_that_of_the_turned_parent() -> None:
    slip, twin = slip_systems(), twin_systems()
    inside = twinned(slip, twin)
    for b in range(6):
        turn = 2 * twin.m[b][:, None] * twin.m[b][None] - torch.eye(3, dtype=torch.float64)
        torch.testing.assert_close(turn @ turn, torch.eye(3, dtype=torch.float64))
        assert float(torch.linalg.det(turn)) == pytest.approx(1.0)
        s, m = slip.s @ turn.T, slip.m @ turn.T
        for a in range(12):
            reference = s[a][:, None] * m[a][None]
            assert min(float((inside[a, b] - f * reference).abs().max()) for f in (1, -1)) < 1e-12


def test_a_twin_without_a_sense_is_refused() -> None:
    p = crystal("fcc", ((0, 1, -1), (1, 1, 1)))
    twin = TwinFamily((0, 1, -1), (1, 1, 1), 0.7, 1e6, 1.0, 0.5, 1e6, 1e6, "test")
    with pytest.raises(ValueError, match="has no sense on the lattice fcc"):
        twin_systems(CrystalParameters(**{**vars(p), "twin": twin}))
    real = TwinFamily((1, 1, -2), (1, 1, 1), 2**-0.5, 1e6, 1.0, 0.5, 1e6, 1e6, "test")
    assert len(twin_systems(CrystalParameters(**{**vars(p), "twin": real})).family) == 12


def test_the_square_crystal_has_two_systems_and_one_shear() -> None:
    systems = crystal_systems(load_material("two-slip-2d"))
    assert (systems.n_slip, systems.n_twin) == (2, 0)
    first, second = systems.slip[:, 0].reshape(2, 3, 3)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[0, 1] = 1.0
    for a, b in ((first, expected), (second, expected.T)):
        assert min(float((a - f * c).abs().max()) for f in (1, -1) for c in (b, b.T)) < 1e-12
    assert float((first - second).abs().max()) > 0.5 and float((first + second).abs().max()) > 0.5
    assert torch.linalg.matrix_rank(systems.slip5[:, 0]) == 1  # both shear the plane in one and the same way
    e = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    assert float(systems.resistance(e, e[:, :0])[0].abs().max()) == 0.0  # no hardening


@pytest.mark.parametrize("name", material_names())
def test_constants_have_the_shapes_of_the_crystal(name: str) -> None:
    systems = crystal_systems(load_material(name))
    s, t = systems.n_slip, systems.n_twin
    assert systems.slip.shape == (s, 1 + t, 9) and systems.slip5.shape == (s, 1 + t, 5)
    assert systems.twin.shape == (t, 9) and systems.twin5.shape == (t, 5) and len(systems.families) == s
    for field in ("tau_0", "rate_0", "h", "sigma_inf", "r_0", "v"):
        assert getattr(systems, field).shape == (s,)
    off = systems.v[:, None] * systems.v[None] * (1 - torch.eye(s, dtype=torch.float64))
    torch.testing.assert_close(systems.latent, off)
    e = torch.rand(4, s, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    resistance = systems.resistance(e, e.new_zeros(4, t))[0]
    rank_one = systems.v * (e @ systems.v)[:, None] - systems.v**2 * e
    alone = systems.r_0 + systems.sigma_inf * (1 - torch.exp(-systems.h * e / systems.sigma_inf))
    torch.testing.assert_close(resistance, alone + rank_one)


@pytest.mark.parametrize(
    ("lattice", "plane", "count"),
    [
        ("fcc", (1, 1, 1), 4),
        ("fcc", (0, 0, 1), 3),
        ("bcc", (1, 1, 0), 6),
        ("hcp", (0, 0, 0, 1), 1),
        ("hcp", (1, 0, -1, 0), 3),
    ],
)
def test_a_plane_has_the_known_number_of_normals(lattice, plane, count) -> None:
    d, p = ((2, -1, -1, 0), (0, 0, 0, 1)) if lattice == "hcp" else ((0, 1, -1), (1, 1, 1))
    found = plane_normals(crystal(lattice, (d, p)), plane)
    assert found.shape == (count, 3)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(count, dtype=torch.float64))
