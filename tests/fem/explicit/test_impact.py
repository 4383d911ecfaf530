"""Impact of blocks with plastic laws: energy balance, symmetry, objectivity, hourglass control, refinement."""

import itertools

import numpy as np
import pytest
import ufl

from fem import laws, steps
from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law

NEO_HOOKEAN = load_law("magnesium-neo-hookean")
METAL = load_law("magnesium-j2")

SIZE = (1e-3, 1e-3, 2e-3)
every_law = pytest.mark.parametrize("name", laws.FINITE)


@pytest.mark.parametrize("integration", ["one-point", "full"])
@pytest.mark.parametrize("name", ["magnesium-j2", "magnesium-johnson-cook"])
def test_energy_and_momentum_of_an_impact_balance(box, name, integration):
    solver = ExplicitSolver(
        box(SIZE, (4, 4, 10), distort=0.1), laws.load_law(name), contact=[RigidPlane()],
        initial_velocity=(0.0, 0.0, -150.0),
        integration=integration,
    )
    worst = [solver.energy_balance() for step in solver.run(2e-6) if step.number % 10 == 0]
    assert max(balance.energy_error for balance in worst) < 1e-2
    assert max(balance.momentum_error for balance in worst) < 1e-9
    balance = worst[-1]
    assert balance.contact_impulse[2] > 0.0
    assert balance.contact_loss > 0.0
    assert balance.viscous_energy > 0.0
    assert balance.external_work == balance.reaction_work == balance.contact_energy == 0.0
    assert balance.hourglass_energy < 0.05 * balance.internal_energy
    assert solver.law.observe(solver.state).max() > 0.1


def test_the_energy_error_is_of_second_order_in_the_step(box):
    """Elastic vibration of a free block, no contact: the energy error falls as dt^2."""
    errors = []
    for safety in (0.8, 0.4, 0.2):
        solver = ExplicitSolver(
            box(SIZE, (3, 3, 6)), NEO_HOOKEAN, safety=safety,
            initial_velocity=lambda x: 50.0 * np.stack([np.sin(2e3 * x[1]), np.cos(1e3 * x[2]), np.sin(1e3 * x[2])]),
        )
        solver.run(6e-7).finish()
        errors.append(solver.energy_balance().energy_error)
    assert errors[0] < 1e-2
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 1.7) & (orders < 2.6))


def test_stored_energy_of_an_elastic_run_is_the_internal_work(box):
    law = NEO_HOOKEAN
    solver = ExplicitSolver(
        box(SIZE, (4, 4, 8)), law, contact=[RigidPlane()],
        initial_velocity=(0.0, 0.0, -50.0), safety=0.3,
    )
    solver.run(5e-7).finish()
    stored = float(np.sum(law.stored_energy(solver.points.F, solver.state) * solver.points.volume))
    assert solver.energy_balance().internal_energy == pytest.approx(stored, rel=2e-2)


@every_law
def test_rotating_the_whole_problem_rotates_the_answer(box, nodes, rotations, name):
    Q = rotations(1, seed=8)[0]
    v, normal, point = np.array([20.0, 0.0, -150.0]), np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, -1e-6])
    answers = []
    for turn in (np.eye(3), Q):
        solver = ExplicitSolver(
            box(SIZE, (2, 3, 4), distort=0.1), laws.load_law(name),
            contact=[RigidPlane(tuple(turn @ point), tuple(turn @ normal))],
            initial_velocity=tuple(turn @ v), initial_displacement=lambda x: turn @ x - x,
        )
        solver.run(6e-7).finish()
        x, u, velocity = nodes(solver)
        answers.append(((x + u) @ turn, velocity @ turn, solver.energy_balance()))
    (x0, v0, balance0), (x1, v1, balance1) = answers
    assert balance0.contact_impulse[2] > 0.0
    assert np.abs(x1 - x0).max() < 1e-10 * 2e-3
    assert np.abs(v1 - v0).max() < 1e-10 * 150.0
    assert balance1.internal_energy == pytest.approx(balance0.internal_energy, rel=1e-10)


@every_law
def test_a_rigid_rotation_makes_no_stress_and_no_spin(box, rotations, name):
    Q = rotations(1)[0]
    solver = ExplicitSolver(
        box(SIZE, (2, 2, 3), distort=0.2), laws.load_law(name),
        initial_displacement=lambda x: Q @ x - x,
    )
    solver.run(2e-7).finish()
    assert np.abs(solver.points.P).max() < 1e-4  # Pa, of 25e9
    assert np.abs(solver.velocity.x.array).max() < 1e-9


def _mirrored(x, u, axis, width):
    """Displacements of the mirrored nodes, in the order of the nodes."""
    flipped = x.copy()
    flipped[:, axis] = width - flipped[:, axis]
    key = lambda p: np.lexsort(np.round(p / 1e-7).T)
    partner = np.empty(len(x), dtype=int)
    partner[key(x)] = key(flipped)
    sign = np.ones(3)
    sign[axis] = -1.0
    return u[partner] * sign


def test_mirror_and_quarter_symmetry(box, nodes):
    """A square block: both mirrors to round-off, and a quarter with symmetry planes equals the whole."""
    law, cells = load_law("magnesium-j2", yield_stress=100e6, linear_hardening=300e6), 6
    options = {"contact": [RigidPlane()], "initial_velocity": (0.0, 0.0, -150.0)}
    whole = ExplicitSolver(box(SIZE, (cells, cells, 6)), law, **options)
    whole.run(1e-6).finish()
    x, u, _ = nodes(whole)
    scale = np.abs(u).max()
    for axis in (0, 1):
        assert np.abs(_mirrored(x, u, axis, SIZE[0]) - u).max() < 1e-10 * scale  # rounding, grown by plastic flow
    domain = box((SIZE[0] / 2, SIZE[1] / 2, SIZE[2]), (cells // 2, cells // 2, 6))
    centre = domain_with_planes(domain)
    quarter = ExplicitSolver(centre, law, **options)
    quarter.prescribe("plane_x", 0)
    quarter.prescribe("plane_y", 1)
    # Both must take the same steps: the critical cell is the same.
    quarter.run(1e-6).finish()
    x_quarter, u_quarter, _ = nodes(quarter)
    inside = np.all(x[:, :2] <= 0.5 * SIZE[0] + 1e-9, axis=1)
    mirrored = _mirrored(x, _mirrored(x, u, 0, SIZE[0]), 1, SIZE[0])
    order = np.lexsort(np.round(x[inside] / 1e-7).T)
    order_quarter = np.lexsort(np.round(x_quarter / 1e-7).T)
    assert np.abs(mirrored[inside][order] - u_quarter[order_quarter]).max() < 1e-9 * scale
    whole_balance, balance = whole.energy_balance(), quarter.energy_balance()
    assert 4.0 * balance.internal_energy == pytest.approx(whole_balance.internal_energy, rel=1e-9)
    assert balance.momentum_error < 1e-9
    assert abs(balance.reaction_impulse[0]) > 0.0
    assert balance.reaction_work == 0.0


def domain_with_planes(domain):
    from fem.mesh import domain_from_mesh

    half = SIZE[0] / 2
    return domain_from_mesh(
        domain.mesh, {"plane_x": lambda p: np.isclose(p[0], half), "plane_y": lambda p: np.isclose(p[1], half)}
    )


def test_one_point_and_full_integration_meet_under_refinement(box):
    """Motion of the free end of a plastic block; full integration locks a little, so it differs on coarse meshes."""
    differences = []
    for n in (2, 4, 8):
        end = []
        for integration in ("one-point", "full"):
            solver = ExplicitSolver(
                box(SIZE, (n, n, 2 * n)), METAL, contact=[RigidPlane()],
                initial_velocity=(0, 0, -150.0), integration=integration,
            )
            solver.run(2e-6).finish()
            top = np.isclose(solver.points.V.tabulate_dof_coordinates()[:, 2], SIZE[2])
            end.append(float(solver.u.x.array.reshape(-1, 3)[top, 2].mean()))
        differences.append(abs(end[0] / end[1] - 1.0))
    assert differences[2] < 1e-2
    assert differences[2] < 0.5 * differences[1] < 0.25 * differences[0]


def test_a_run_lands_on_its_times_and_hardly_depends_on_stops(box, nodes):
    make = lambda: ExplicitSolver(
        box(SIZE, (4, 4, 8)), METAL, contact=[RigidPlane()], initial_velocity=(0.0, 0.0, -100.0), safety=0.3
    )
    once, stops = make(), make()
    once.run(1e-6).finish()
    for time in (3e-7, 3.0001e-7, 1e-6):
        assert stops.run(time).finish().time == time
        assert stops.time == time
    assert stops.steps > once.steps
    assert np.abs(nodes(once)[1] - nodes(stops)[1]).max() < 1e-2 * np.abs(nodes(once)[1]).max()


def test_steps_counts_and_clocks(box, monkeypatch):
    """By a clock that moves on by a second whenever it is read: a phase takes one second each time."""
    ticks = itertools.count()
    monkeypatch.setattr(steps, "perf_counter", lambda: float(next(ticks)))
    solver = ExplicitSolver(box(SIZE, (2, 2, 4)), METAL, initial_velocity=(0.0, 0.0, -100.0))
    before, n = solver.total_points(), solver.total_seconds()["law"]
    assert solver.run(1e-7).finish().number == solver.steps
    assert solver.total_points() - before == 16 * solver.steps
    with solver.timed("output"):
        pass
    seconds = solver.total_seconds()
    assert set(seconds) == {"gather", "law", "assemble", "contact", "step", "output"}
    assert seconds["output"] == 1.0
    assert seconds["law"] - n == seconds["gather"] == seconds["assemble"] == seconds["step"] == solver.steps
    assert sum(seconds.values()) < next(ticks)
    flat = solver.energy_balance().as_dict()
    assert {"time", "energy_error", "momentum_error", "contact_impulse_z", "contact_nodes"} <= set(flat)


BAD = {
    "integration must be": {"integration": "reduced"},
    "safety must be": {"safety": 1.5},
    "density must be positive": {"density": -1.0},
    "hourglass must not be negative": {"hourglass": -0.1},
    r"initial velocity must have shape \(3,\)": {"initial_velocity": (1.0, 2.0)},
    "initial velocity must be finite": {"initial_velocity": (0.0, float("nan"), 0.0)},
    "contact must be a list of obstacles, as RigidPlane, got tuple": {"contact": [(0.0, 0.0, 1.0)]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_get_one_sentence(box, message):
    with pytest.raises(ValueError, match=message):
        ExplicitSolver(box(SIZE, (1, 1, 2)), METAL, **BAD[message])


def test_bad_pieces_get_one_sentence(box):
    with pytest.raises(ValueError, match="normal of a rigid plane must not be zero"):
        RigidPlane(normal=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="point of a rigid plane must be three finite numbers"):
        RigidPlane(point=(0.0, float("inf"), 0.0))
    solver = ExplicitSolver(box(SIZE, (1, 1, 2)), METAL)
    for where, component, sentence in (
        ("foot", 3, "prescribed component must be 0, 1 or 2, got 3"),
        ("symmetry_x", 0, 'no surface group "symmetry_x"'),
        (lambda x: x[0] > 1.0, 0, "no node to prescribe"),
    ):
        with pytest.raises(ValueError, match=sentence):
            solver.prescribe(where, component)
    with pytest.raises(ValueError, match=r"linear in solver.test_function, got a form of rank 0"):
        solver.external += ufl.inner(solver.u, solver.u) * ufl.dx
    with pytest.raises(ValueError, match="external must be a UFL form in solver.test_function, got float"):
        solver.external = 1.0
    with pytest.raises(ValueError, match=r"would take about .* steps of"):
        solver.run(1e9)
    with pytest.raises(ValueError, match="rebound needs a rigid plane"):
        solver.run("rebound")
    with pytest.raises(ValueError, match="cannot end at -1.0 s"):
        solver.run(-1.0)


def test_a_rebound_waits_for_one_passage_of_a_longitudinal_wave(box):
    """A body counts as rebounded when it has been free for as long as a wave of its own moduli takes through it."""
    away = (0.0, 0.0, 50.0)
    solver = ExplicitSolver(box(SIZE, (1, 1, 2)), NEO_HOOKEAN, contact=[RigidPlane()], initial_velocity=away)
    wave_speed = np.sqrt((NEO_HOOKEAN.bulk_modulus + 4.0 / 3.0 * NEO_HOOKEAN.shear_modulus) / NEO_HOOKEAN.density)
    passage = SIZE[2] / wave_speed
    solver.last_contact = 0.0  # it has touched the plane at time zero and now flies away from it
    for factor, expected in ((0.98, False), (1.02, True)):
        solver.time = factor * passage
        assert solver.rebounded() is expected
