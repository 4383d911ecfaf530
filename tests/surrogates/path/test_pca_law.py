"""The on-line PCA-Net: what it accumulates is the code of the whole padded history, whatever the solver's steps."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from micro import build
from micro.build import BuildError
from surrogates import tensors
from surrogates.artifact import evaluator, switch_fusion_off
from surrogates.artifact.compiled import AGREEMENT, compile_law, disagreement, update
from surrogates.artifact.compiled_pca import CompiledPCALaw
from surrogates.path.pca_law import PCALaw, Shifted

TIMES, MODES, WINDOW = 21, 5, 2e-6


def make_law(*, horizon: float = 0.0, dtype: torch.dtype = torch.float64, width: int = 16, **options) -> PCALaw:
    """A law with random orthonormal modes and random weights."""
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    phi, psi = (
        torch.stack([torch.linalg.qr(random(TIMES, MODES))[0] for _ in range(6)], dim=1) for _ in range(2)
    )
    sizes = [6 * MODES, width, width]
    hidden = [Shifted((random(b, a) / a**0.5).to(dtype), random(b).to(dtype)) for a, b in zip(sizes[:-1], sizes[1:])]
    settings = {"isochoric_measure": False, "full_stress": False, **options}
    return PCALaw(
        phi.to(dtype), psi.to(dtype), hidden, (random(6 * MODES, width) / 4).to(dtype), window=WINDOW,
        stress_scale=1e9, bulk=48e9, strain_max=0.5, horizon=horizon, **settings,
    ).eval()  # fmt: skip


def history(steps: int, *, seed: int = 0, end: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Uneven times (K,), s, from a first step on up to `end` of the window, and V (K, n, 6) there."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.rand(steps - 1, generator=generator, dtype=torch.float64).sort().values
    t = WINDOW * end * torch.cat([cuts, torch.ones(1, dtype=torch.float64)])
    V = 0.02 * torch.randn(steps, 3, 6, generator=generator, dtype=torch.float64).cumsum(0)
    return t, V


def far(ahead: float, horizon: float) -> float:
    """Integral of a rate that is one now and falls by e in each horizon, by small steps."""
    if horizon in (0.0, math.inf):
        return ahead if horizon else 0.0
    h = ahead / 20_000
    return h * sum(math.exp(-(k + 0.5) * h / horizon) for k in range(20_000))


def re_encode(law: PCALaw, t: torch.Tensor, V: torch.Tensor, horizon: float) -> torch.Tensor:
    """First layer (n, width) of the piecewise linear history through (0, 0) and (t, V), continued to the end."""
    t = torch.cat([torch.zeros(1, dtype=torch.float64), t])
    V = torch.cat([torch.zeros_like(V[:1]), V])
    grid = torch.linspace(0, WINDOW, TIMES, dtype=torch.float64)
    sampled = torch.zeros(TIMES, V.shape[1], 6, dtype=torch.float64)
    for j, time in enumerate(grid):
        k = int(torch.searchsorted(t, time).clamp(1, len(t) - 1))
        slope = (V[k] - V[k - 1]) / (t[k] - t[k - 1])
        if time <= t[-1]:
            sampled[j] = V[k - 1] + slope * (time - t[k - 1])
        else:
            sampled[j] = V[-1] + slope * WINDOW * far(float(time - t[-1]) / WINDOW, horizon)
    return first_layer(law, sampled)


def first_layer(law: PCALaw, sampled: torch.Tensor) -> torch.Tensor:
    """The first layer, without its base, of a history (T, n, 6) known at the times of the data: encoder, then layer."""
    code = torch.einsum("tnc,tcd->ncd", sampled, law.phi)
    return code.flatten(1) @ law.hidden[0].weight.t()


@pytest.mark.parametrize("horizon", [0.0, 0.15, math.inf])
@pytest.mark.parametrize(("steps", "end"), [(4, 0.9), (20, 1.0), (57, 0.63), (400, 1.0)])
def test_first_layer_is_that_of_the_padded_history(horizon, steps, end):
    law = make_law(horizon=horizon)
    t, V = history(steps, end=end)
    state = law.initial_state(3)
    for k in range(steps):
        now = torch.full((3,), float(t[k]), dtype=torch.float64)
        first, padded = law.encode(V[k], state, now)
        state = torch.cat([first, V[k], now[:, None], now[:, None]], dim=1)
    assert torch.allclose(padded, re_encode(law, t, V, horizon), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("horizon", [0.0, 0.15, math.inf])
def test_steps_on_the_grid_encode_the_samples_themselves(horizon):
    law = make_law(horizon=horizon)
    V = history(TIMES - 1)[1]
    state = law.initial_state(3)
    for k in range(TIMES - 1):
        now = state[:, -2] + WINDOW / (TIMES - 1)
        first, padded = law.encode(V[k], state, now)
        state = torch.cat([first, V[k], now[:, None], now[:, None]], dim=1)
    whole = torch.cat([torch.zeros_like(V[:1]), V])
    assert torch.allclose(padded, first_layer(law, whole), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 5, 33])
def test_virgin_stress_is_exactly_zero_at_all_times(dtype, n):
    law = make_law(dtype=dtype)
    F = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    state = law.initial_state(n)
    for _ in range(30):
        P, state = law.forward(F, state, 0.05 * WINDOW)
        assert P.shape == (n, 3, 3)
        assert not P.any()


def test_stress_is_continuous_where_the_history_passes_a_time_of_the_data():
    law = make_law()
    F = torch.eye(3, dtype=torch.float64).repeat(1, 1, 1)
    F[0, 0, 1] = 0.1
    stress = []
    for part in (1 - 1e-9, 1 + 1e-9):
        P, _ = law.forward(F, law.initial_state(1), part * WINDOW / (TIMES - 1))
        stress.append(P)
    assert torch.allclose(stress[0], stress[1], rtol=1e-6, atol=1e-6 * float(stress[0].abs().max()))


def random_gradients(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(3, dtype=torch.float64) + 0.05 * torch.randn(n, 3, 3, generator=generator, dtype=torch.float64)


def rotations(n: int, seed: int) -> torch.Tensor:
    A = torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.matrix_exp(A - A.transpose(1, 2))


OPTIONS = [
    {},
    {"horizon": math.inf},
    {"horizon": 0.15},
    {"isochoric_measure": True},
    {"full_stress": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_law_turns_with_the_body_and_its_stress_is_symmetric(options):
    law = make_law(**options)
    state = turned_state = law.initial_state(4)
    for k in range(6):
        F, Q = random_gradients(4, k), rotations(4, 10 + k)
        P, state = law.forward(F, state, 0.13e-6)
        turned, turned_state = law.forward(Q @ F, turned_state, 0.13e-6)
        assert torch.allclose(turned, Q @ P, rtol=1e-10, atol=1e-10 * float(P.abs().max()))
        sigma = P @ F.transpose(1, 2)
        assert torch.allclose(sigma, sigma.transpose(1, 2), rtol=1e-10, atol=1e-10 * float(P.abs().max()))
    assert torch.allclose(state, turned_state, atol=1e-12)


def test_pressure_is_exact():
    law = make_law()
    F = random_gradients(5, 3)
    P, _ = law.forward(F, law.initial_state(5), 1e-7)
    J = tensors.determinant(F)
    mean = torch.einsum("nij,nij->n", P, F) / J / 3
    assert torch.allclose(mean, 48e9 * (J - 1), rtol=1e-10)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dt", [0.02e-6, 0.5e-6, 3e-6])  # between two times of the data, over several, past the window
def test_tangent_matches_differences(options, dt):
    law = make_law(**options)
    _, state = law.forward(random_gradients(2, 1), law.initial_state(2), 0.33e-6)
    F = random_gradients(2, 2)
    P, new_state, dP_dF = law.tangent(F, state, dt)
    assert torch.equal(P, law.forward(F, state, dt)[0]) and torch.equal(new_state, law.forward(F, state, dt)[1])
    for i in range(3):
        for j in range(3):
            h = torch.zeros(3, 3, dtype=torch.float64)
            h[i, j] = 1e-6
            difference = (law.forward(F + h, state, dt)[0] - law.forward(F - h, state, dt)[0]) / 2e-6
            assert torch.allclose(dP_dF[:, :, :, i, j], difference, atol=1e-7 * float(dP_dF.abs().max()))


@pytest.mark.parametrize("options", OPTIONS)
def test_scripted_equals_eager_and_no_points_work(options):
    switch_fusion_off()
    law = make_law(**options)
    scripted = torch.jit.script(law)
    state = scripted_state = law.initial_state(3)
    for k in range(5):
        F = random_gradients(3, k)
        P, state = law.forward(F, state, 0.3e-6)
        scripted_P, scripted_state = scripted.forward(F, scripted_state, 0.3e-6)
        assert torch.allclose(P, scripted_P, rtol=1e-13, atol=1e-3)
        assert torch.allclose(state, scripted_state, atol=1e-14)
    none = torch.zeros(0, 3, 3, dtype=torch.float64)
    P, _, dP_dF = scripted.tangent(none, scripted.initial_state(0), 1e-9)
    assert P.shape == (0, 3, 3) and dP_dF.shape == (0, 3, 3, 3, 3)
    assert scripted.observe(scripted.initial_state(0)).shape == (0, 4)


def test_points_do_not_feel_each_other():
    law = make_law()
    F, order = random_gradients(6, 1), torch.tensor([3, 1, 5, 0, 4, 2])
    _, state = law.forward(random_gradients(6, 2), law.initial_state(6), 0.4e-6)
    P, new_state = law.forward(F, state, 0.17e-6)
    shuffled, shuffled_state = law.forward(F[order], state[order], 0.17e-6)
    alone, _ = law.forward(F[2:3], state[2:3], 0.17e-6)
    assert torch.allclose(shuffled, P[order], rtol=1e-12, atol=1e-3)
    assert torch.allclose(shuffled_state, new_state[order], atol=1e-13)
    assert torch.allclose(alone, P[2:3], rtol=1e-12, atol=1e-3)


def test_state_does_not_grow_with_the_modes():
    law = make_law()
    size = law.describe()["state"]["size"]
    assert size == law.hidden[0].weight.shape[0] + 8 == law.initial_state(2).shape[1]


def test_points_at_different_times_get_what_each_gets_alone():
    law = make_law(horizon=math.inf)
    F = random_gradients(3, 1)
    state = law.initial_state(3)
    dt = torch.tensor([0.11e-6, 0.52e-6, 1.4e-6], dtype=torch.float64)
    _, state = law.step(random_gradients(3, 2), state, dt)
    together, _ = law.forward(F, state, 0.3e-6)
    for i in range(3):
        alone, _ = law.forward(F[i : i + 1], state[i : i + 1], 0.3e-6)
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-12, atol=1e-3)


def test_single_precision_stays_close_to_double():
    single = make_law(dtype=torch.float32)
    double = copy.deepcopy(single).double()
    states = [law.initial_state(4) for law in (single, double)]
    for k in range(20):
        F = random_gradients(4, k)
        (P, states[0]), (P_double, states[1]) = (
            law.forward(F, state, 0.09e-6) for law, state in zip((single, double), states)
        )
    assert states[0].dtype == torch.float64
    assert torch.allclose(P, P_double, rtol=0, atol=1e-5 * float(P_double.abs().max()))


def test_observe_flags_what_leaves_window_and_range():
    law = make_law()
    F = torch.eye(3, dtype=torch.float64).repeat(1, 1, 1)
    F[0, 0, 0] = 2.0
    _, state = law.forward(F, law.initial_state(1), 0.5 * WINDOW)
    assert torch.allclose(law.observe(state)[:, :2], torch.tensor([[0.5, 2.0]], dtype=torch.float64))
    F[0, 0, 0] = 1.1
    P, state = law.forward(F, state, 1.5 * WINDOW)
    trust = law.observe(state)[0]
    assert trust[0] == pytest.approx(2.0) and trust[1] == pytest.approx(2.0)  # the peak is not forgotten
    assert torch.isfinite(P).all()


def compiled_or_skip(law: torch.nn.Module) -> CompiledPCALaw:
    """The compiled form."""
    try:
        return CompiledPCALaw(law)
    except BuildError as error:
        pytest.skip(str(error))


def deformed(n: int, seed: int = 3) -> np.ndarray:
    """F (n, 3, 3) up to some ten per cent, with rotation and change of volume."""
    generator = torch.Generator().manual_seed(seed)
    L = 0.1 * torch.randn(n, 3, 3, generator=generator, dtype=torch.float64)
    return torch.matrix_exp(L).numpy()


@pytest.mark.parametrize("horizon", [0.0, 0.1, 0.001, math.inf])
@pytest.mark.parametrize(
    "options",
    [{}, {"isochoric_measure": True}, {"full_stress": True}, {"width": 1}, {"width": 37}, {"width": 80}],
    ids=str,
)
def test_compiled_form_agrees(horizon: float, options: dict) -> None:
    law = make_law(horizon=horizon, dtype=torch.float32, **options)
    compiled = compiled_or_skip(law)
    assert disagreement(compiled, law, points=50, steps=20) < AGREEMENT
    compiled._sums.plain[:] *= 1.001
    compiled._last = None
    assert disagreement(compiled, law, points=50, steps=20) > AGREEMENT, "the comparison sees a thousandth"


@pytest.mark.parametrize("options", [{}, {"horizon": math.inf, "full_stress": True}], ids=str)
def test_compiled_form_is_taken_for_single_precision(options: dict) -> None:
    compiled_or_skip(make_law(dtype=torch.float32))
    switch_fusion_off()
    assert compile_law(torch.jit.script(make_law(dtype=torch.float32, **options))) is not None
    assert compile_law(make_law(**options)) is None


@pytest.mark.parametrize("machine", ["-march=x86-64", "-mavx2"])
def test_compiled_form_agrees_with_shorter_vectors(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_or_skip(make_law(dtype=torch.float32))
    caches = (build._target, build.build, evaluator._library)
    monkeypatch.setattr(build, "NATIVE", machine)
    for kept in caches:
        kept.cache_clear()
    try:
        law = make_law(horizon=0.1, dtype=torch.float32, width=37)
        assert disagreement(compiled_or_skip(law), law, points=50) < AGREEMENT
    finally:
        for kept in caches:
            kept.cache_clear()


@pytest.mark.parametrize("time", [0.0, 0.4, 1.0, 1.7])
def test_compiled_steps_without_duration_are_those_of_pytorch(time: float) -> None:
    law = make_law(horizon=0.1, dtype=torch.float32)
    F, state = deformed(5), np.zeros((5, 24))
    if time:
        _, state = update(compiled_or_skip(law), deformed(5, seed=4), state, time * WINDOW)
    P, new = update(compiled_or_skip(law), F, state, 0.0)
    with torch.no_grad():
        expected, state_expected = law(torch.from_numpy(F), torch.from_numpy(state), 0.0)
    np.testing.assert_allclose(P, expected.numpy(), atol=1e-5 * float(expected.abs().max()))
    np.testing.assert_allclose(new, state_expected.numpy(), rtol=1e-12, atol=1e-14)


def test_compiled_pieces_on_threads_are_those_of_one_call() -> None:
    law = compiled_or_skip(make_law(horizon=0.1, dtype=torch.float32))
    F, state = deformed(400), np.zeros((400, 24))
    pieces = [slice(start, start + 20) for start in range(0, 400, 20)]
    with ThreadPoolExecutor(4) as pool:
        for k in range(5):
            dt = (0.05 + 0.1 * k) * WINDOW
            P, new = update(law, F, state, dt)
            again, state_again = np.empty_like(P), np.empty_like(new)

            def piece(part: slice, state=state, dt=dt, P=again, new=state_again) -> None:
                law.update_into(F[part], state[part], dt, P[part], new[part])

            list(pool.map(piece, pieces))
            np.testing.assert_array_equal(again, P)
            np.testing.assert_array_equal(state_again, new)
            state = new


def test_compiled_points_do_not_depend_on_their_batch() -> None:
    law = compiled_or_skip(make_law(horizon=0.1, dtype=torch.float32))
    F, state = deformed(101), np.zeros((101, 24))
    for _ in range(2):  # the second step starts from a state
        P, new = update(law, F, state, 0.3 * WINDOW)
        for part in (slice(0, 1), slice(3, 20), slice(40, 90), slice(100, 101), slice(0, 0)):
            alone, own = update(law, np.ascontiguousarray(F[part]), np.ascontiguousarray(state[part]), 0.3 * WINDOW)
            np.testing.assert_array_equal(alone, P[part])
            np.testing.assert_array_equal(own, new[part])
        state = new


def test_compiled_points_of_different_times_are_those_of_pytorch() -> None:
    law = make_law(horizon=0.1, dtype=torch.float32)
    F, state = deformed(4), law.initial_state(4).numpy().copy()
    state[:, -2] = [0.0, 0.1 * WINDOW, 0.5 * WINDOW, 2 * WINDOW]
    P, new = update(compiled_or_skip(law), F, state, 1e-2 * WINDOW)
    with torch.no_grad():
        expected = law(torch.from_numpy(F), torch.from_numpy(state), 1e-2 * WINDOW)
    np.testing.assert_array_equal(P, expected[0].numpy())
    np.testing.assert_array_equal(new, expected[1].numpy())


def test_compiled_virgin_points_have_no_stress_and_nan_stays() -> None:
    law = compiled_or_skip(make_law(horizon=0.1, dtype=torch.float32))
    F, state = np.tile(np.eye(3), (3, 1, 1)), np.zeros((3, 24))
    for _ in range(3):
        P, state = update(law, F, state, 0.4 * WINDOW)
        np.testing.assert_array_equal(P, 0.0)
        np.testing.assert_array_equal(state[:, :22], 0.0)
    F[1, 0, 2], state[2, 0], state[0, 23] = np.nan, np.nan, np.nan
    P, state = update(law, F, state, 0.1 * WINDOW)
    assert np.isfinite(P[0]).all() and np.isnan(state[0, 23])
    assert np.isnan(P[1]).any() and np.isnan(P[2]).any()
