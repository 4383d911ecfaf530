"""The lattice laws that the repository ships: thermodynamics, and the errors that their manifests tell, found anew."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from micro.lattice.cell_problem import LatticeCell
from micro.lattice.data import lattice_of
from surrogates.artifact import Law, load_law
from surrogates.tann.errors import compare, cycle_errors, divided, recall, solved

FOLDER = Path(__file__).resolve().parents[3] / "surrogates" / "pretrained"
KINDS = {file: json.loads(file.with_suffix(".json").read_text()).get("kind") for file in sorted(FOLDER.glob("*.pt"))}
FILES = [file for file, kind in KINDS.items() if kind in ("tann", "lattice")]
DISSIPATIVE = [file for file, kind in KINDS.items() if kind in ("tann", "lattice", "tann-network")]
TARGETS = {"stress": 2e-3, "psi": 2e-3, "dissipation": 1e-2}  # the issue that asked for these laws
PERTURBED = {"stress": 5e-3, "psi": 5e-3, "dissipation": 1e-2}
Power = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def law(request: pytest.FixtureRequest) -> Law:
    return load_law(request.param)


@pytest.fixture(scope="module", params=DISSIPATIVE, ids=lambda file: file.stem)
def dissipative(request: pytest.FixtureRequest) -> Law:
    """A law with the second law by construction, the paper's networks among them."""
    return load_law(request.param)


def random_states(law: Law, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """F (n, d, d) and states (n, k) of no history: strains and internal variables drawn at random, far out of range."""
    rng, manifest = np.random.default_rng(seed), law.manifest
    d, strain_max = manifest.dimension, manifest.certificate.strain_max
    state = law.module.initial_state(n)
    for field in manifest.state.fields:
        if field.name in ("Z", "strain"):
            part = slice(field.offset, field.offset + field.shape[0])
            state[:, part] = torch.from_numpy(strain_max * rng.normal(size=(n, field.shape[0])))
    return torch.eye(d) + torch.from_numpy(strain_max * rng.normal(size=(n, d, d))), state


def check_second_law(law: Law, power: Power, n: int, seed: int) -> float:
    """Steps from random states: D = -T . dZ with T from the shipped energy, not negative; the share of steps that flow.

    To what is lost in sums of terms of both signs.
    """
    F, state = random_states(law, n, seed)
    with torch.no_grad():
        new = law.module.forward(F, state, 1.0)[1]
    fields = law.stored["state"]["fields"]
    (D,) = (new[:, f["offset"]] - state[:, f["offset"]] for f in fields if f["name"] == "dissipation")
    done, terms = power(law.module, fields, F, state, new)
    assert torch.isfinite(new).all()
    assert bool(((D - done).abs() <= 1e-7 * terms).all())
    assert bool((done >= -1e-7 * terms).all())
    return float((terms > 0).double().mean())


def test_all_lattices_are_there() -> None:
    names = {file.stem for file in FILES}
    squares = {f"tann_square_{k}{end}" for k in (2, 4, 6) for end in ("", "_perturbed")}
    assert squares | {"tann_cube_1", "tann_cube_2_perturbed", "lattice_cube_1"} <= names


def test_dissipation_is_the_power_of_the_conjugate_forces_and_not_negative(
    dissipative: Law, conjugate_power: Power
) -> None:
    assert check_second_law(dissipative, conjugate_power, 1000, 0) > 0.3


@pytest.mark.slow
def test_second_law_at_a_million_states(dissipative: Law, conjugate_power: Power) -> None:
    for seed in range(100):
        assert check_second_law(dissipative, conjugate_power, 10_000, 1000 + seed) > 0.3


def test_a_step_of_no_strain_changes_nothing_to_the_bit(law: Law) -> None:
    F, state = random_states(law, 50, 1)
    P, state = law.module.forward(F, state, 1.0)
    again, same = law.module.forward(F, state, 1.0)
    assert torch.equal(P, again)
    assert torch.equal(state, same)


def test_elastic_cycles_close(law: Law) -> None:
    d = law.manifest.dimension
    rng = np.random.default_rng(2)
    E = 0.02 * rng.uniform(-1, 1, (12, 5, d, d))  # no bar of any cell yields
    E[-1] = 0.0
    state = law.module.initial_state(5)
    for E_k in E:
        P, state = law.module.forward(torch.eye(d) + torch.from_numpy(E_k), state, 1.0)
    assert float(P.abs().max()) < 1e-10
    assert float(state.abs().max()) < 1e-10


def test_cycles_are_within_the_targets_and_as_the_manifest_tells(law: Law) -> None:
    targets = PERTURBED if law.path.stem.endswith("perturbed") else TARGETS
    found = cycle_errors(law.module, LatticeCell(*lattice_of(law.manifest.microstructure.parameters())))
    for name, value in found.items():
        assert value < targets.get(name.split("_")[0], 5e-3), name
        assert value == pytest.approx(law.manifest.errors[name], rel=0.5, abs=1e-8), name


def test_walks_of_other_steps_are_within_the_targets(law: Law) -> None:
    """New walks, then cut in ten, then twice as large."""
    targets = PERTURBED if law.path.stem.endswith("perturbed") else TARGETS
    d, rng = law.manifest.dimension, np.random.default_rng(7)
    H = rng.uniform(-0.2, 0.2, (2, 30, d, d))
    walk = np.concatenate([np.zeros((2, 1, d, d)), np.cumsum(0.5 * (H + H.swapaxes(2, 3)), axis=1)], axis=1)
    E = torch.from_numpy(walk)
    cell = LatticeCell(*lattice_of(law.manifest.microstructure.parameters()))
    for path in (E, divided(E[:, :20], 10), 2 * E):
        errors = compare(recall(law.module, path), solved(cell, path))
        for name, target in targets.items():
            assert errors[name] < target, name
