"""Textures: Euler angles, files, symmetry, and the orientations after a deformation."""

import math
from pathlib import Path

import pytest
import torch

from micro.crystal.systems import twin_systems
from micro.crystal.texture import (
    Texture,
    deformed_orientations,
    deformed_texture,
    even_texture,
    fibre_texture,
    from_euler,
    odf_texture,
    random_texture,
    read_texture,
    sample_rotations,
    to_euler,
    write_texture,
)
from micro.tensors import random_rotations, rotation_about

X, Y, Z = torch.eye(3, dtype=torch.float64)
ONE = torch.eye(3, dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-12) -> bool:
    """Whether two tensors agree."""
    return a.shape == b.shape and float((a - b).abs().max()) <= atol


def test_a_random_texture_has_the_orientations_of_its_seed() -> None:
    texture = random_texture(16, 3)
    assert torch.equal(texture.orientations, random_rotations(16, 3))
    assert close(texture.weights, torch.full((16,), 1 / 16, dtype=torch.float64))
    assert not torch.equal(texture.orientations, random_texture(16, 4).orientations)


def test_an_even_texture_is_nearer_to_the_isotropic_limit_than_random_ones() -> None:
    """The mean of n n and of n n n n over the c axes and over the a axes n, against the isotropic ones."""

    def distance(texture: Texture) -> float:
        axes = texture.orientations[:, :, [2, 0]].mT
        second = torch.einsum("g,gai,gaj->aij", texture.weights, axes, axes) - ONE / 3
        fourth = torch.einsum("g,gai,gaj,gak,gal->aijkl", texture.weights, axes, axes, axes, axes)
        pairs = torch.einsum("ij,kl->ijkl", ONE, ONE)
        fourth = fourth - (pairs + pairs.transpose(1, 2) + pairs.transpose(1, 3)) / 15
        return float(second.norm() + fourth.norm())

    for grains in (50, 200, 800):
        random = min(distance(random_texture(grains, seed)) for seed in range(20))
        assert distance(even_texture(grains)) < 0.7 * random
    assert distance(even_texture(800)) < 0.15 * distance(even_texture(50))


def test_euler_angles_are_three_turns_about_z_x_z() -> None:
    angles = torch.tensor([[30.0, 50.0, 200.0], [359.0, 0.0, 10.0], [10.0, 180.0, 0.0]], dtype=torch.float64)
    for (a, b, c), found in zip(torch.deg2rad(angles).tolist(), from_euler(angles)):
        assert close(found, rotation_about(Z, a) @ rotation_about(X, b) @ rotation_about(Z, c))


def test_euler_angles_and_matrices_round_trip() -> None:
    q = random_rotations(500, 1)
    angles = to_euler(q)
    assert close(from_euler(angles), q, 1e-12)
    assert bool((angles >= 0).all()) and bool((angles < torch.tensor([360.0, 180.0001, 360.0])).all())
    flat = torch.stack([rotation_about(Z, 0.3), rotation_about(X, math.pi) @ rotation_about(Z, 1.0), ONE])
    assert close(from_euler(to_euler(flat)), flat, 1e-9)


def test_the_textbook_components_of_fcc() -> None:
    """Goss {110}<001> is (0, 45, 0), copper {112}<11-1> (90, 35.26, 45): plane along ND (z), direction along RD (x)."""
    for angles, plane, direction in (
        ((0, 45, 0), (0, 1, 1), (1, 0, 0)),
        ((90, 35.264389682754654, 45), (1, 1, 2), (1, 1, -1)),
        ((35.264389682754654, 45, 0), (0, 1, 1), (2, -1, 1)),  # brass {110}<112>
    ):
        q = from_euler(torch.tensor(angles, dtype=torch.float64))
        n, d = (torch.tensor(v, dtype=torch.float64) for v in (plane, direction))
        assert abs(float((q @ n) @ Z)) == pytest.approx(float(n.norm()), rel=1e-12)
        assert abs(float((q @ d) @ X)) == pytest.approx(float(d.norm()), rel=1e-12)


def test_a_fibre_texture_has_its_axis_and_spread() -> None:
    axis = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) / 3
    sharp = fibre_texture(40, 0, sample=(1.0, 2.0, 2.0))
    c = sharp.orientations[:, :, 2]
    assert close(c, axis.expand(40, 3), 1e-12)
    a = sharp.orientations[:, :, 0]
    assert float(a.mean(0).norm()) < 0.5  # random about the fibre
    wide = fibre_texture(2000, 0, spread=10.0)
    angle = torch.rad2deg(torch.acos(wide.orientations[:, 2, 2]))
    assert float(angle.square().mean().sqrt()) == pytest.approx(10 * math.sqrt(2), rel=0.05)
    opposite = fibre_texture(5, 0, crystal=(0.0, 0.0, -1.0))
    assert close(opposite.orientations[:, :, 2], -Z.expand(5, 3))
    tilted = fibre_texture(5, 0, crystal=(1.0, 1.0, 1.0))
    assert close(tilted.orientations.sum(-1) / math.sqrt(3), Z.expand(5, 3))


def test_a_file_keeps_the_texture(tmp_path: Path) -> None:
    rough = torch.arange(1.0, 11.0, dtype=torch.float64)
    texture = Texture(random_rotations(10, 5), rough / rough.sum())
    write_texture(tmp_path / "t.txt", texture)
    again = read_texture(tmp_path / "t.txt")
    assert close(again.orientations, texture.orientations, 1e-12) and close(again.weights, texture.weights)


def test_comments_commas_and_weights_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("# two grains\n\n0, 0, 0, 3  # the large one\n90 0 0 1\n")
    texture = read_texture(tmp_path / "t.txt")
    assert close(texture.weights, torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert close(texture.orientations[1], rotation_about(Z, math.pi / 2))
    (tmp_path / "u.txt").write_text("0 0 0\n90 0 0\n")
    assert close(read_texture(tmp_path / "u.txt").weights, torch.full((2,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 2\n", "Line 1 of .* must have three angles in degrees.*got '1 2'"),
        ("1 2 3\n1 2 3 4\n", "Line 2 of .* must have three angles"),
        ("1 2 x\n", "Line 1 of .* got '1 2 x'"),
        ("1 2 nan\n", "Line 1 of .* got '1 2 nan'"),
        ("1 2 3 -1\n", "The weight in line 1 of .* must not be negative, got -1"),
        ("1 2 3 0\n", "must have a positive sum, got 0"),
        ("# nothing\n", "has no line of Euler angles"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_texture(tmp_path / "t.txt")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_texture(tmp_path / "none.txt")


def grid(path: Path, step: int, intensity) -> Path:
    """An ODF on a regular grid of Euler angles."""
    lines = [
        f"{a} {b} {c} {intensity(a, b, c)}"
        for a in range(0, 360, step)
        for b in range(0, 181, step)
        for c in range(0, 360, step)
    ]
    path.write_text("\n".join(lines))
    return path


def test_an_odf_without_texture_is_isotropic(tmp_path: Path) -> None:
    """The mean of Q (x) Q of uniform orientations is delta delta / 3: with the weights sin(Phi), and not without."""
    path = grid(tmp_path / "odf.txt", 15, lambda a, b, c: 1.0)
    q, expected = odf_texture(path), torch.einsum("ik,jl->ijkl", ONE, ONE) / 3
    mean = torch.einsum("g,gij,gkl->ijkl", q.weights, q.orientations, q.orientations)
    assert close(mean, expected, 0.01)
    plain = read_texture(path)
    mean = torch.einsum("g,gij,gkl->ijkl", plain.weights, plain.orientations, plain.orientations)
    assert not close(mean, expected, 0.05)


def test_grains_drawn_from_an_odf(tmp_path: Path) -> None:
    path = grid(tmp_path / "odf.txt", 30, lambda a, b, c: float(b == 60) * (3 if a < 180 else 1))
    drawn = odf_texture(path, 4000, seed=2)
    angles = to_euler(drawn.orientations)
    assert close(angles[:, 1], torch.full((4000,), 60.0, dtype=torch.float64), 1e-9)
    assert float((angles[:, 0] < 179).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(drawn.orientations, odf_texture(path, 4000, seed=2).orientations)


@pytest.mark.parametrize(("group", "count"), [("orthorhombic", 4), ("cubic", 24)])
def test_a_symmetrised_texture_has_the_symmetry(group: str, count: int) -> None:
    turns = sample_rotations(group)
    assert turns.shape == (count, 3, 3) and close(torch.linalg.det(turns), torch.ones(count, dtype=torch.float64))
    rough = random_texture(3, 7)
    full = rough.symmetrised(group)
    assert full.orientations.shape == (3 * count, 3, 3)
    for turn in turns:  # the set is mapped onto itself
        distance = ((turn @ full.orientations)[:, None] - full.orientations[None]).flatten(2).norm(dim=-1)
        assert bool(((distance < 1e-9).sum(1) == 1).all())
    mean = torch.einsum("g,gij,gkl->ijkl", full.weights, full.orientations, full.orientations)
    off = mean[0, :, 1, :]
    assert close(off, torch.zeros_like(off), 1e-12)
    with pytest.raises(ValueError, match="group must be 'orthorhombic' or 'cubic', got 'hexagonal'"):
        rough.symmetrised("hexagonal")


def test_bad_textures() -> None:
    q, w = random_rotations(2, 0), torch.tensor([0.5, 0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"orientations must have shape \(g, 3, 3\), got \(3, 3\)"):
        Texture(q[0], w)
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\), got \(1,\)"):
        Texture(q, w[:1])
    with pytest.raises(ValueError, match="orientations must be rotations"):
        Texture(2 * q, w)
    with pytest.raises(ValueError, match="orientations must be rotations"):
        Texture(-q, w)
    with pytest.raises(ValueError, match="must sum to one"):
        Texture(q, 2 * w)
    with pytest.raises(ValueError, match="weights must not be negative"):
        Texture(q, torch.tensor([1.5, -0.5], dtype=torch.float64))
    for call in (random_texture, even_texture, fibre_texture):
        with pytest.raises(ValueError, match="grains must be at least 1, got 0"):
            call(0)
    with pytest.raises(ValueError, match="spread must lie between 0 and 90 degrees, got -1"):
        fibre_texture(2, spread=-1.0)
    with pytest.raises(ValueError, match="sample must be three numbers that are not all zero"):
        fibre_texture(2, sample=(0.0, 0.0, 0.0))


def test_a_rotation_of_the_sample_turns_the_lattice() -> None:
    texture, R = random_texture(6, 1), rotation_about(X + Y, 0.7)
    F_in = ONE.expand(6, 3, 3)
    assert close(deformed_orientations(texture.orientations, R, F_in), R @ texture.orientations, 1e-12)


def test_plastic_shear_alone_does_not_turn_the_lattice() -> None:
    """Where F is the plastic shear itself, the lattice has neither stretched nor turned."""
    texture = random_texture(6, 1)
    shear = ONE + 0.4 * torch.outer(X, Y)
    q = texture.orientations
    F_in = q.mT @ shear @ q  # the same shear in the frame of each crystal
    assert close(deformed_orientations(q, shear, F_in), q, 1e-12)


def test_a_fully_twinned_grain_is_the_parent_turned_by_180_degrees() -> None:
    texture, twins = random_texture(2, 3), twin_systems()
    lam = torch.zeros(2, 6, dtype=torch.float64)
    lam[0, 4], lam[1, 1] = 1.0, 0.25
    F_in = ONE.expand(2, 3, 3)
    after = deformed_texture(texture, ONE, F_in, lam)
    assert close(after.weights, torch.tensor([0.5, 0.375, 0.125], dtype=torch.float64))
    relative = texture.orientations[0].mT @ after.orientations[0]
    assert float(relative.trace()) == pytest.approx(-1.0)  # 180 degrees
    assert close(relative @ twins.m[4], twins.m[4], 1e-12)
    c = after.orientations[0, :, 2] @ texture.orientations[0, :, 2]
    assert math.degrees(math.acos(abs(float(c)))) == pytest.approx(86.3, abs=0.05)
    assert close(after.orientations[1], texture.orientations[1])
    with pytest.raises(ValueError, match=r"lam must have shape \(2, 6\), got \(2, 5\)"):
        deformed_texture(texture, ONE, F_in, lam[:, :5])
