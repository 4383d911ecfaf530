"""The command that evaluates again the point at which a run has failed."""

import subprocess
import sys

import numpy as np
import pytest

from fem import failure, replay
from fem.explicit import ExplicitSolver, SolverError
from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws import load_law

LAW = '''
import numpy as np
from fem.laws import load_law

class Limited:
    """J2 that does not stand a plastic strain of more than `most` in one step."""

    def __init__(self, most):
        self._law, self.most, self.name = load_law("magnesium-j2"), most, "limited"

    def __getattr__(self, name):
        return getattr(self._law, name)

    def _spoilt(self, state, new, P):
        P[new[:, 6] - state[:, 6] > self.most] = np.nan
        return P

    def update(self, F, state, dt):
        P, new = self._law.update(F, state, dt)
        return self._spoilt(state, new, P), new

    def tangent(self, F, state, dt):
        P, new, dP_dF = self._law.tangent(F, state, dt)
        return self._spoilt(state, new, P), new, dP_dF
'''


@pytest.fixture
def limited(tmp_path):
    path = tmp_path / "limited.py"
    path.write_text(LAW)
    return lambda most: load_law(f"{path}:Limited", most=most)


def write(folder, law, F, dt=1e-9, point=0, method="update"):
    n = len(F)
    failure.write_replay(
        folder, problem=failure.Problem(point, "is wrong"), F_n=np.tile(np.eye(3), (n, 1, 1)), F=F,
        state=law.initial_state(n), dt=dt, time=1e-6, law=law, reason="Cell 3 is wrong.", method=method,
    )  # fmt: skip
    return str(folder / failure.REPLAY)


def shearing(x):
    return np.stack([4e5 * x[2], 0 * x[0], 0 * x[0]])


def sheared(amount):
    F = np.eye(3)[None].copy()
    F[0, 0, 1] = amount
    return F


@pytest.mark.parametrize("method", ["update", "tangent"])
def test_it_finds_the_size_of_step_from_which_on_the_law_works(limited, tmp_path, capsys, method):
    # Plastic strain is the shear / sqrt(3), less the elastic one: 0.1 is some 0.06, and 1/4 of it below 0.02.
    path = write(tmp_path, limited(0.02), sheared(0.1), method=method)
    assert replay.main([path]) == 0
    said = capsys.readouterr().out
    assert said.startswith("The run stopped: Cell 3 is wrong.\nLaw limited, method " + method)
    assert "The point fails: P[0, 0] = nan is the first value that is not finite." in said
    assert "step / 2, dt = 5e-10 s: part 1 of 2 fails" in said
    assert "The law works from the step 2.5e-10 s on, 1/4 of the one that failed." in said
    assert "det F = 1\n" in said


def test_another_law_may_be_tried(limited, tmp_path, capsys):
    path = write(tmp_path, limited(0.02), sheared(0.1))
    assert replay.main([path, "--law", "magnesium-j2"]) == 0
    said = capsys.readouterr().out
    P, _ = load_law("magnesium-j2").update(sheared(0.1), np.array([[1, 1, 1, 0, 0, 0, 0.0]]), 1e-9)
    assert "The law gives finite values at this point." in said and f"{P[0, 0, 1]: .10e}" in said
    assert replay.main([path, "--law-options", "most=1", "--law", f"{tmp_path}/limited.py:Limited"]) == 0
    assert "finite values" in capsys.readouterr().out


def test_a_law_that_never_works_and_an_inverted_point_are_told(limited, tmp_path, capsys):
    assert replay.main([write(tmp_path, limited(-1.0), sheared(0.1)), "--halvings", "3"]) == 0
    assert "The law does not get through the step in 8 parts." in capsys.readouterr().out
    assert replay.main([write(tmp_path, load_law("magnesium-j2"), np.diag([1.0, 1.0, -0.5])[None])]) == 0
    assert "The point fails: det F = -0.5 is not positive." in capsys.readouterr().out


def test_of_all_points_the_first_that_fails_is_shown(limited, tmp_path, capsys):
    F = np.concatenate([sheared(0.0), sheared(0.001), sheared(0.1), sheared(0.2)])
    assert replay.main([write(tmp_path, limited(0.02), F, point=-1)]) == 0
    assert "Point 2 of 4" in capsys.readouterr().out


def test_bad_input_is_one_sentence(tmp_path, capsys, limited):
    made = load_law("magnesium-j2")
    del made.source
    path = write(tmp_path, made, sheared(0.1))
    (tmp_path / "text.npz").write_text("hello")
    for arguments, sentence in (
        (["none.npz"], "There is no replay file none.npz."),
        ([str(tmp_path / "text.npz")], "text.npz is not a replay file"),
        ([path], "does not tell how its law j2 was made; name it by --law."),
        ([path, "--law", "magnesium-neo-hookean"], "must have a state of 7 numbers, neo-hookean has 0."),
        ([path, "--law", "magnesium-j2", "--halvings", "99"], "--halvings must be between 0 and 20, got 99."),
    ):
        assert replay.main(arguments) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1, said


@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_what_a_failed_run_leaves_is_replayed_by_the_command(box, limited, tmp_path, kind):
    law, folder = limited(1e-4), tmp_path / "run"
    domain = box((1e-3, 1e-3, 1e-3), (2, 2, 2))
    if kind == "explicit":
        run = ExplicitSolver(domain, law, initial_velocity=shearing, output=folder).run(1e-6)
    else:
        ends = [Dirichlet("foot"), Dirichlet("top", 0, lambda x, t: 1e-4 * t)]
        run = ImplicitSolver(domain, law, prescribed=ends, output=folder).run(1.0, smallest=0.3)
    with pytest.raises(SolverError, match=r"cell \d+, point \d has a stress that is not finite \(det F = "):
        run.finish()
    command = [sys.executable, "-m", "fem.replay", str(folder / failure.REPLAY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "has a stress that is not finite" in done.stdout and "The point fails: P[0, 0] = nan" in done.stdout
    assert "all parts work" in done.stdout
