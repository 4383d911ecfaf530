"""The learned step: laws of viscoplastic elements in parallel, which hold whatever the weights."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from micro.tensors import random_rotations
from surrogates.path.corotated import five, from_five
from surrogates.path.overlay import Overlay, Sizes, product

SIZES = Sizes(3, 2, mixed=4, products=3, basis=5, width=12)


@pytest.fixture(scope="module")
def overlay() -> Overlay:
    """A step with random weights in double precision."""
    made = Overlay(SIZES, seed=1).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


def constant() -> Overlay:
    """A step whose strengths and viscosities are constant and whose back strains vanish."""
    made = Overlay(SIZES, seed=1).double()
    with torch.no_grad():
        made.W3.zero_()
        made.b3.zero_()
    return made


def random_state(n: int, seed: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    return {
        "e": 0.4 * draw(n, 3, 5), "m": 0.5 * draw(n, 2, 5), "E": 0.3 * draw(n, 5), "volume": 0.01 * draw(n),
        "D": 0.2 * draw(n, 5), "dt": 10.0 ** (-3 + 2 * torch.rand(n, generator=generator, dtype=torch.float64)),
    }  # fmt: skip


def test_a_virgin_material_is_elastic(overlay: Overlay) -> None:
    zero = torch.zeros(1, 3, 5, dtype=torch.float64)
    D = torch.tensor([[1e-3, 0, -2e-3, 0, 5e-4]], dtype=torch.float64)
    step = overlay(zero, zero[:, :2], zero[:, 0], zero[:, 0, 0], D, torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(overlay.stress(step.e), D, rtol=1e-12, atol=0)
    assert float(step.plastic) == float(step.m.abs().max()) == 0.0


def test_a_step_of_no_strain_and_no_duration_changes_nothing(overlay: Overlay) -> None:
    state = random_state(50)
    state |= {"D": 0 * state["D"], "dt": 0 * state["dt"]}
    step = overlay(**state)
    torch.testing.assert_close(step.e, state["e"], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(step.m, state["m"], rtol=1e-12, atol=1e-13)


def test_a_hold_relaxes_as_the_closed_form_says() -> None:
    """d z / dt = -a z^2 at constant strain: z = z0 / (1 + a z0 t)."""
    law = constant()
    r, a = law.strength.exp(), law.viscosity.exp()
    direction = torch.tensor([0.6, 0, 0.8, 0, 0], dtype=torch.float64)
    e = (2 * r).reshape(1, 3, 1) * direction
    zero = torch.zeros(1, 5, dtype=torch.float64)
    for t in (1e-4, 1e-2, 1.0, 100.0):
        dt = torch.tensor([t], dtype=torch.float64)
        step = law(e, torch.zeros(1, 2, 5, dtype=torch.float64), zero, zero[:, 0], zero, dt)
        expected = (r + r / (1 + a * r * t)).reshape(1, 3, 1) * direction
        torch.testing.assert_close(step.e, expected, rtol=2e-4, atol=0)  # the regularisation of tanh(x)/x


def test_constant_elements_follow_their_rate_equation() -> None:
    """Against SciPy on de/dt = D - a <|e| - r>^2 e / |e| along a path that turns; the error falls with the step."""
    law = constant()
    r, a = law.strength.detach().exp().numpy(), law.viscosity.detach().exp().numpy()
    first, second = np.array([0.8, -0.3, 0.1, 0.2, 0.0]), np.array([-0.2, 0.5, 0.6, 0.0, -0.4])

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        e = y.reshape(3, 5)
        size = np.linalg.norm(e, axis=1) + 1e-30
        return ((first if t < 1 else second) - (a * np.maximum(size - r, 0) ** 2 / size)[:, None] * e).ravel()

    middle = solve_ivp(rate, (0, 1), np.zeros(15), method="Radau", rtol=1e-9, atol=1e-11).y[:, -1]
    truth = solve_ivp(rate, (1, 2), middle, method="Radau", rtol=1e-9, atol=1e-11).y[:, -1].reshape(3, 5)
    errors = []
    for steps in (40, 80, 160):
        e = torch.zeros(1, 3, 5, dtype=torch.float64)
        m, zero = torch.zeros(1, 2, 5, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)
        dt = torch.tensor([1 / steps], dtype=torch.float64)
        for D in (first, second):
            for _ in range(steps):
                e = law(e, m, zero, zero[:, 0], torch.from_numpy(D / steps)[None], dt).e
        errors.append(float(np.abs(e[0].detach().numpy() - truth).max()))
    assert errors[-1] < 1e-3 * np.abs(truth).max()
    assert errors[0] / errors[1] > 1.8 and errors[1] / errors[2] > 1.8


def test_flow_dissipates(overlay: Overlay) -> None:
    step = overlay(**random_state(2000))
    assert float(step.plastic.min()) >= 0 and float(step.plastic.max()) > 0.01
    assert float(step.lost.min()) > -1e-12


def test_elastic_cycles_leave_the_memory(overlay: Overlay) -> None:
    state = random_state(20)
    state |= {"e": 1e-3 * state["e"], "D": 1e-3 * state["D"]}
    state["m"] *= 0
    step = overlay(**state)
    back = overlay(**(state | {"e": step.e, "D": -state["D"]}))
    still = (step.plastic == 0) & (back.plastic == 0)
    assert int(still.sum()) >= 10
    torch.testing.assert_close(back.e[still], state["e"][still], rtol=0, atol=1e-15)
    torch.testing.assert_close(back.m[still], state["m"][still], rtol=0, atol=0)


def test_stress_is_bounded_however_far_the_law_is_driven(overlay: Overlay) -> None:
    """Slow and far: no element holds more than strength and back strain, r (1 + 0.95), with r < r_0 exp(1.5)."""
    state = random_state(200)
    state |= {"D": 1e4 * state["D"], "dt": torch.full((200,), 1e9, dtype=torch.float64)}
    step = overlay(**state)
    bound = 1.95 * torch.exp(overlay.strength + 1.5) + 1e-2
    assert bool((step.e.norm(dim=2) <= bound).all())
    assert bool((step.m.norm(dim=2) <= torch.maximum(state["m"].norm(dim=2), torch.tensor(2.0))).all())


def test_the_law_is_isotropic(overlay: Overlay) -> None:
    state = random_state(30)
    Q = random_rotations(1, 4)[0]
    turn = lambda v: five(Q @ from_five(v) @ Q.T)
    plain = overlay(**state)
    turned = overlay(**{k: turn(v) if v.ndim > 1 else v for k, v in state.items()})
    torch.testing.assert_close(turned.e, turn(plain.e), rtol=0, atol=1e-11)
    torch.testing.assert_close(turned.m, turn(plain.m), rtol=0, atol=1e-11)
    torch.testing.assert_close(turned.plastic, plain.plastic, rtol=1e-10, atol=1e-12)


def test_product_of_deviators() -> None:
    a, b = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A, B = from_five(a), from_five(b)
    torch.testing.assert_close(product(a, b), five(0.5 * (A @ B + B @ A)), rtol=1e-12, atol=1e-12)
