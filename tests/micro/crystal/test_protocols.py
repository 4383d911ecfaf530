"""Protocols, insertions, impact-like paths and mixtures: their kinematics, and what they depend on."""

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import logm, polar

from micro.crystal.paths import PROTOCOLS, Insertions, PathOptions, draw_paths, random_walk
from micro.crystal.paths.protocols import SIMPLE, random_deviator
from micro.tensors import from_components

EVERYTHING = Insertions(holds=(0, 2), jumps=(0, 2), ringing=(0, 2), spacing="random")
START = np.array([1.0, 1, 1, 0, 0, 0])


def draw(name: str, strain: float = 0.3, **options: object) -> np.ndarray:
    """Stretch (T, 6) of sample 4 of a protocol."""
    chosen = {"protocols": (name,), "strain": (strain, strain), "steps": 100} | options
    return draw_paths([4], 1, PathOptions(**chosen)).U[0]


def logarithm(U: np.ndarray) -> np.ndarray:
    """Logarithm (..., 3, 3) of stretches (..., 6)."""
    values, axes = np.linalg.eigh(from_components(U))
    return np.einsum("...ik,...k,...jk->...ij", axes, np.log(values), axes)


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_protocols_start_at_the_identity_and_keep_the_volume(name: str) -> None:
    U = draw(name)
    np.testing.assert_allclose(U[0], START, rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.linalg.det(from_components(U)), 1.0, rtol=0, atol=1e-12)
    assert np.abs(U - START).max() > 0.1


def test_protocols_of_the_paper() -> None:
    """U and L-U: U11 = f, U22 = 1/f; C: U11 = 1/U22 = 1/sqrt(1 + k t^2)."""
    t = np.linspace(0, 1, 101)
    np.testing.assert_allclose(draw("uniaxial")[:, 0], 1 + 0.3 * t, rtol=1e-14)
    back = draw("load-unload")
    np.testing.assert_allclose(back[[50, 100], 0], [1.3, 1.0], rtol=1e-14)
    np.testing.assert_allclose(back[:, 1], 1 / back[:, 0], rtol=1e-14)
    cavity = draw("cavity")
    k = 1 / cavity[-1, 0] ** 2 - 1
    np.testing.assert_allclose(cavity[:, 0], 1 / np.sqrt(1 + k * t**2), rtol=1e-13)
    assert cavity[-1, 1] == pytest.approx(1.3, rel=1e-14)


def test_simple_shear_is_the_stretch_of_a_shear() -> None:
    U = from_components(draw("simple-shear", 0.4))
    for x, found in zip(np.linspace(0, 1, 101)[::20], U[::20]):
        F = np.eye(3)
        F[0, 1] = 2 * 0.4 * x
        np.testing.assert_allclose(found, polar(F)[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["proportional", "plane-strain", "axisymmetric"])
def test_proportional_paths_have_one_direction_of_strain(name: str) -> None:
    U = draw(name, 0.6)
    last = np.asarray(logm(from_components(U[-1])))
    np.testing.assert_allclose(logm(from_components(U[40])), 0.4 * last, rtol=0, atol=1e-12)
    equivalent = np.sqrt(2 / 3 * np.sum(last**2))
    assert equivalent == pytest.approx(0.6 * (2 / 3**0.5 if name == "plane-strain" else 1.0), rel=1e-10)
    assert name != "plane-strain" or np.abs(U[:, [4, 5]]).max() == 0


def test_random_deviators_have_no_preferred_direction() -> None:
    rng = np.random.default_rng(0)
    N = np.stack([random_deviator(rng) for _ in range(4000)])
    moments = np.einsum("nij,nkl->ijkl", N, N) / len(N)  # isotropic: 3/10 (I_sym - 1/3 1 x 1)
    one = np.eye(3)
    symmetric = (np.einsum("ik,jl->ijkl", one, one) + np.einsum("il,jk->ijkl", one, one)) / 2
    exact = 0.3 * (symmetric - np.einsum("ij,kl->ijkl", one, one) / 3)
    assert np.abs(moments - exact).max() < 4 * 0.3 / np.sqrt(4000)


def test_cyclic_paths_go_both_ways_and_close() -> None:
    U = draw("cyclic", 0.2, steps=1200)
    assert U[:, 0].max() == pytest.approx(1.2, rel=1e-3)
    assert U[:, 0].min() == pytest.approx(1 / 1.2, rel=1e-3)
    np.testing.assert_allclose(U[-1], START, rtol=0, atol=1e-12)


def test_walks_of_a_mixture_are_the_random_walks() -> None:
    options = {"strain": (0.1, 0.5), "knots": (2, 10), "duration": (1e-6, 1e-4)}
    walk, path = random_walk(range(8), 4, **options), draw_paths(range(8), 4, PathOptions(**options))
    for name in ("U", "time", "duration"):
        np.testing.assert_array_equal(getattr(path, name), getattr(walk, name))


def test_what_is_inserted_leaves_the_path_as_it_is() -> None:
    """A walk with holds and jumps visits the same stretches: its end is that of the walk, its points lie on it."""
    options = {"strain": (0.2, 0.2), "intervals": "fixed", "steps": 400, "knots": (2, 2)}
    plain = draw_paths(range(6), 2, PathOptions(**options))
    inserted = draw_paths(range(6), 2, PathOptions(**options, insertions=Insertions(holds=(1, 2), jumps=(1, 2))))
    np.testing.assert_allclose(inserted.U[:, -1], plain.U[:, -1], rtol=0, atol=1e-14)
    for path, points in zip(plain.U, inserted.U):
        away = np.abs(points[:, None] - path[None]).max(axis=2).min(axis=1)
        assert away.max() < np.abs(np.diff(path, axis=0)).max()


def test_a_hold_rests_for_its_time() -> None:
    options = PathOptions(
        ("proportional",), duration=(1e-6, 1e-6), insertions=Insertions(holds=(2, 2), hold_duration=(3e-6, 3e-6))
    )
    for U, time, duration in zip(*(getattr(draw_paths(range(5), 3, options), n) for n in ("U", "time", "duration"))):
        assert duration == pytest.approx(7e-6, rel=1e-12)
        rest = np.abs(np.diff(U, axis=0)).max(axis=1) == 0
        assert np.diff(time)[rest].sum() * duration == pytest.approx(6e-6, rel=1e-9)
        steps = np.diff(time)[rest]
        assert steps.max() > 100 * steps.min()  # fine at first


def test_a_jump_changes_the_rate_by_its_factor() -> None:
    options = PathOptions(("proportional",), insertions=Insertions(jumps=(1, 1), jump_factor=(4.0, 4.0)))
    paths = draw_paths(range(5), 3, options)
    for U, time in zip(paths.U, paths.time * paths.duration[:, None]):
        rate = np.linalg.norm(np.diff(logarithm(U), axis=0), axis=(1, 2)) / np.diff(time)
        np.testing.assert_allclose(rate[-1] / rate[0], 4.0, rtol=1e-8)
        assert np.all(np.isclose(rate, rate[0], rtol=1e-8) | np.isclose(rate, rate[-1], rtol=1e-8))


def test_ringing_has_its_amplitude_and_period() -> None:
    """A period above the duration of the path rings at rest; nearly without strain it is all that is seen."""
    ringing = Insertions(
        ringing=(1, 1), ringing_amplitude=(1e-3, 1e-3), ringing_period=(2e-6, 2e-6), ringing_cycles=(3, 3)
    )
    paths = draw_paths(range(5), 3, PathOptions(("proportional",), strain=(1e-7, 1e-7), insertions=ringing))
    np.testing.assert_allclose(paths.duration, 1e-6 + 3 * 2e-6, rtol=1e-12)
    for U, time in zip(paths.U, paths.time * paths.duration[:, None]):
        strain = np.linalg.eigvalsh(from_components(U) - np.eye(3))
        assert np.abs(strain).max() == pytest.approx(1e-3, rel=1e-3)
        size = np.linalg.norm(from_components(U) - np.eye(3), axis=(1, 2))
        crests = time[size > 0.99 * size.max()]
        np.testing.assert_allclose(np.diff(crests), 1e-6, rtol=1e-9)  # two crests in a period
        assert len(crests) == 6


def test_impact_paths_are_those_described() -> None:
    """The logarithmic strain moves no faster than the largest rate, over a length of the strain drawn, J within 6 %."""
    options = PathOptions(("impact",), strain=(0.02, 1.4), duration=(1e-6, 5e-5), steps=600, margin=0.05)
    paths = draw_paths(range(40), 6, options)
    J = np.linalg.det(from_components(paths.U))
    assert np.abs(np.log(J)).max() <= np.log(1.06) + 1e-12
    assert np.abs(J - 1).max() > 0.03
    assert np.all((paths.duration >= 1e-6) & (paths.duration <= 5e-5))
    H = logarithm(paths.U)
    H = H - np.trace(H, axis1=2, axis2=3)[..., None, None] / 3 * np.eye(3)
    length = np.sqrt(2 / 3) * np.linalg.norm(np.diff(H, axis=1), axis=(2, 3))
    rate = length / (np.diff(paths.time, axis=1) * paths.duration[:, None])
    assert rate.max() <= 1e6 * (1 + 1e-3)
    assert 0.5 < length.sum(axis=1).max() <= 1.4 * (1 + 1e-9)
    ends = np.array([r[np.flatnonzero(r > 1e-3 * r.max())] for r in rate], dtype=object)
    assert np.median([r[0] / r[-1] for r in ends]) > 5  # fast at first


@pytest.mark.parametrize("name", PROTOCOLS[:-1])
def test_a_path_depends_on_seed_and_id_alone(name: str) -> None:
    options = PathOptions(
        (name,), strain=(0.1, 0.3), steps=300, duration=(1e-6, 1e-5), orientation="random", insertions=EVERYTHING
    )
    many, few = draw_paths(range(6), 4, options), draw_paths([5, 2], 4, options)
    for field in ("U", "time", "duration"):
        np.testing.assert_array_equal(getattr(few, field), getattr(many, field)[[5, 2]])
    assert np.abs(draw_paths([5], 5, options).U - few.U[:1]).max() > 1e-3
    assert np.diff(many.time, axis=1).min() > 0
    np.testing.assert_array_equal(many.time[:, [0, -1]], [[0.0, 1.0]] * 6)
    np.testing.assert_array_equal(many.U[:, 0], [START] * 6)


def test_random_axes_turn_a_path_and_nothing_else() -> None:
    fixed, turned = (draw_paths(range(20), 7, PathOptions(("uniaxial",), orientation=o)).U for o in ("fixed", "random"))
    a, b = (np.linalg.eigvalsh(from_components(U)) for U in (fixed, turned))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    axes = np.linalg.eigh(from_components(turned[:, -1]))[1][:, 2, 2]
    assert stats.kstest(np.abs(axes), "uniform").pvalue > 0.001  # uniform on the sphere


def test_fractions_are_those_of_the_set() -> None:
    options = PathOptions(("uniaxial", "cavity", "cyclic"), (1.0, 2.0, 5.0), steps=1, duration=(1e-6, 1e-6))
    drawn = draw_paths(range(1600), 8, options).protocol
    counts = [int((drawn == PROTOCOLS.index(name)).sum()) for name in options.protocols]
    assert stats.chisquare(counts, [200, 400, 1000]).pvalue > 0.001


def test_margin_is_kept_with_all_that_is_inserted() -> None:
    options = PathOptions(strain=(0.5, 0.5), margin=0.4, steps=200, insertions=EVERYTHING)
    assert np.linalg.eigvalsh(from_components(draw_paths(range(10), 9, options).U)).min() >= 0.4


def test_a_strain_that_a_protocol_does_not_bear_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no path of uniaxial of sample 0 respects the margin"):
        draw_paths([0], 0, PathOptions(("uniaxial",), strain=(9.0, 9.0), steps=2))
