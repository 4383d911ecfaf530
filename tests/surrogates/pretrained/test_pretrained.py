"""The pretrained artifacts that the repository ships: whole, sized, certified, and what their manifests say holds."""

import json
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from surrogates.artifact import Law, load_law
from surrogates.artifact.certify import LATER
from surrogates.artifact.self_consistency import self_consistency
from surrogates.certificate import certify, disagreements, settings
from surrogates.path.reference_paths import read_paths, reference_error

FOLDER = Path(__file__).resolve().parents[3] / "surrogates" / "pretrained"
EYE = torch.eye(3, dtype=torch.float64)
STRAIN = {file: json.loads(file.with_suffix(".json").read_text()).get("strain") for file in sorted(FOLDER.glob("*.pt"))}
FILES = [file for file, strain in STRAIN.items() if strain]  # a network of voxel cells is no law
# SELU has a kink where its argument changes sign: where a difference crosses one, it says nothing about the tangent.
# With a smooth function in its place the same weights have no kink at all.
KINKS = {"pca_net": 0.05}
FINITE = [file for file in FILES if STRAIN[file] == "finite"]


def test_both_laws_are_there_and_small() -> None:
    assert {"recurrent.pt", "pca_net.pt"} <= {file.name for file in FILES}
    sizes = [file.stat().st_size for file in FOLDER.iterdir()]
    assert max(sizes) < 20e6 and sum(sizes) < 80e6


@pytest.fixture(scope="module", params=FINITE, ids=lambda file: file.stem)
def law(request: pytest.FixtureRequest) -> Law:
    """A law of finite strain."""
    return load_law(request.param, dtype="float64")


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def any_law(request: pytest.FixtureRequest) -> Law:
    return load_law(request.param, dtype="float64")


@pytest.fixture(scope="module")
def path() -> torch.Tensor:
    """F along 100 steps (100, 4, 3, 3), up to some ten per cent, with a turn of direction."""
    generator = torch.Generator().manual_seed(4)
    A, B = 0.12 * torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.01, 1, 100, dtype=torch.float64)[:, None, None, None]
    return torch.matrix_exp(A * t + B * torch.sin(4 * t) * t)


def drive(law: Law, F: torch.Tensor, dt: float = 9e-9) -> tuple[torch.Tensor, torch.Tensor]:
    state, P = law.module.initial_state(F.shape[1]), []
    with torch.no_grad():
        for F_k in F:
            P_k, state = law.module.forward(F_k, state, dt)
            P.append(P_k)
    return torch.stack(P), state


def test_manifest_states_data_errors_and_command(law: Law) -> None:
    manifest = law.manifest
    assert manifest.data.samples >= 4000
    assert {"full", "deviatoric", "held_out_paths"} <= set(manifest.errors)
    for group in (manifest.data, manifest.training):
        assert group.command.startswith("python3 -m ")


def test_virgin_stress_is_zero(any_law: Law) -> None:
    d = any_law.manifest.dimension
    P, _ = any_law.module.forward(EYE[:d, :d].repeat(3, 1, 1), any_law.module.initial_state(3), 1e-8)
    assert float(P.abs().max()) == 0.0


def test_tangent_is_the_derivative(law: Law, path: torch.Tensor) -> None:
    _, state = drive(law, path[:60])
    _, _, dP_dF = law.module.tangent(path[60], state, 9e-9)
    worst, h = 0.0, 1e-7
    for k in range(3):
        for l in range(3):
            step = torch.zeros(3, 3, dtype=torch.float64)
            step[k, l] = h
            with torch.no_grad():
                plus, minus = (law.module.forward(path[60] + s * step, state, 9e-9)[0] for s in (1, -1))
            worst = max(worst, float((dP_dF[..., k, l] - (plus - minus) / (2 * h)).abs().max()))
    assert worst < 1e-6 * float(dP_dF.abs().max())


def test_certificate_is_what_the_law_gives(any_law: Law) -> None:
    """To `TOLERANCES`, which another test of this folder holds to tell a changed law from another machine."""
    with threadpool_limits(limits=1):  # the matrices are small
        found = certify(any_law.module, **settings(any_law.manifest), against_itself=False)
    assert disagreements(any_law.stored["certificate"], found) == []
    assert found["tangent_difference"] < 1e-6 and found["kinks"] < KINKS.get(any_law.path.stem, 0.01)


@pytest.mark.slow
def test_law_agrees_with_itself_as_its_certificate_says(any_law: Law) -> None:
    """Certificates of before these entries state nothing that could differ."""
    stored = {name: any_law.stored["certificate"][name] for name in LATER if name in any_law.stored["certificate"]}
    if not stored:
        pytest.skip("an older certificate, without these entries")
    chosen = settings(any_law.manifest)
    with threadpool_limits(limits=1):
        found = self_consistency(
            any_law.module, **{name: chosen[name] for name in ("strain", "dimension", "strain_max", "dt")}
        )
    assert disagreements(stored, found) == []


@pytest.mark.parametrize("name", ["recurrent", "pca_net"])
def test_a_path_law_is_as_true_as_its_manifest_says(name: str) -> None:
    """On the reference paths beside it, which it was not trained on; the same law with random weights fails."""
    law, paths = load_law(FOLDER / f"{name}.pt"), read_paths(FOLDER / f"{name}_paths.npz")
    assert len(paths) == 8
    stated = law.stored["errors"]["reference_paths"]
    assert reference_error(law.module, paths) == pytest.approx(stated, rel=0.01)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in law.module.parameters():
            if parameter.numel() > 1:
                size = parameter.std().clamp_min(1e-3)
                parameter.copy_(parameter.mean() + size * torch.randn(parameter.shape, generator=generator))
    assert not reference_error(law.module, paths) < 2 * stated


def test_manifest_beside_is_the_one_inside(any_law: Law) -> None:
    assert json.loads(any_law.path.with_suffix(".json").read_text()) == any_law.stored


def test_frame_indifference(law: Law, path: torch.Tensor) -> None:
    spin = torch.tensor([[0.0, -0.7, 0.3], [0.7, 0.0, -0.2], [-0.3, 0.2, 0.0]], dtype=torch.float64)
    Q = torch.matrix_exp(torch.linspace(0.02, 2, len(path), dtype=torch.float64)[:, None, None] * spin)[:, None]
    plain, _ = drive(law, path)
    turned, _ = drive(law, Q @ path)
    torch.testing.assert_close(turned, Q @ plain, rtol=0, atol=1e-10 * float(plain.abs().max()))


def test_recurrent_law_is_elastic_at_first_and_does_not_see_the_step() -> None:
    law = load_law(FOLDER / "recurrent.pt", dtype="float64")
    G = law.manifest.moduli.shear
    strain = 1e-7 * torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    P, _ = law.module.forward(EYE + strain, law.module.initial_state(1), 1e-9)
    torch.testing.assert_close(P, 2 * G * strain, rtol=1e-3, atol=1.0)
    t = torch.linspace(0, 1, 801, dtype=torch.float64)[1:, None, None, None]
    direction = 0.1 * torch.diag(torch.tensor([-0.5, -0.5, 1.0], dtype=torch.float64))
    ends = [drive(law, torch.matrix_exp(t[n - 1 :: n] * direction), n * 2e-9)[0][-1] for n in (1, 2, 4, 8)]
    deviators = [P - P.diagonal(dim1=1, dim2=2).mean() * EYE for P in ends]
    for other in deviators[1:]:
        assert float((other - deviators[0]).norm()) < 0.03 * float(deviators[0].norm())
