"""Materials: the files that come with the package, and one sentence for every entry that does not fit."""

import dataclasses
import json
import math
import re
import tomllib
from pathlib import Path

import pytest

from micro.crystal import materials
from micro.crystal.materials import load_material, material_names, read_material

MAGNESIUM = materials.FOLDER / "magnesium.toml"


def content() -> dict:
    """The parsed file of magnesium, to be spoilt."""
    return tomllib.loads(MAGNESIUM.read_text())


@pytest.mark.parametrize("name", material_names())
def test_a_shipped_material_has_its_name_and_sources(name: str) -> None:
    p = load_material(name)
    assert p.name == name
    families = [*p.slip, *([p.twin] if p.twin else [])]
    for source in (p.source, *(f.source for f in families)):
        assert re.search(r"\(\d{4}\)", source)  # an author and a year
    assert any("doi:10." in source for source in (p.source, *(f.source for f in families)))
    restored = json.loads(json.dumps(dataclasses.asdict(p), allow_nan=False))  # what a data set's manifest keeps
    assert restored["G"] == p.G and restored["lambda_e"] == p.lambda_e and restored["density"] == p.density
    assert [f["tau_0"] for f in restored["slip"]] == [f.tau_0 for f in p.slip]


def test_magnesium_is_as_printed() -> None:
    p = load_material("magnesium")
    assert (p.lattice, p.G, p.lambda_e, p.density, p.c_over_a) == ("hcp", 25e9, 24e9, 1e4, 1.624)
    rows = {f.name: (f.h, f.sigma_inf, f.h_latent, f.m, f.rate_0) for f in p.slip}
    assert rows == {
        "basal": (7.1e9, 0.7e6, 0.0, 0.5, 1e5),
        "prismatic": (40e9, 170e6, 20e6, 0.5, 1e5),
        "pyramidal": (30e9, 200e6, 25e6, 0.5, 1e5),
    }
    assert p.family("pyramidal").tau_0 == 50.5e6
    assert p.twin is not None
    assert (p.twin.shear, p.twin.h, p.twin.h_latent) == (0.129, 7e6, 40e9)
    for name in ("basal", "prismatic", "twin"):
        assert "assumption" in p.family(name).source


def test_the_averages_of_cubic_constants_are_those_of_hill() -> None:
    for name, c11, c12, c44 in (("steel-316l", 197, 125, 122), ("ferrite", 232.1, 135.9, 117.0)):
        voigt, reuss = (c11 - c12 + 3 * c44) / 5, 5 / (4 / (c11 - c12) + 3 / c44)
        p = load_material(name)
        assert p.G == pytest.approx(1e9 * (voigt + reuss) / 2, rel=1e-3)
        assert 2 * p.lambda_e == pytest.approx(1e9 * (c11 + 2 * c12) / 3, rel=1e-3)


def test_derived_hardening_follows_from_the_published_numbers() -> None:
    steel, ferrite = load_material("steel-316l"), load_material("ferrite")
    mean = (24 * 1 + 24 * 0.6 + 24 * 1.8 + 48 * 1.6 + 12 * 12.3) / (144 - 12)
    assert steel.slip[0].h_latent == pytest.approx(10e6 * 3 * mean, rel=1e-3)
    assert steel.slip[0].h == 3 * steel.slip[0].sigma_inf and 1 / steel.slip[0].m == pytest.approx(11)
    for f, start, end in zip(ferrite.slip, (95, 96), (222, 412), strict=True):
        assert f.h == pytest.approx(1e9 * (1 - start / end) ** 2.25, rel=2e-3)
        assert f.sigma_inf == (end - start) * 1e6


def test_tau_0_is_scaled_by_option() -> None:
    p = load_material()
    scaled = p.with_tau_0(basal=2.0, twin=0.5)
    assert scaled.family("basal").tau_0 == 2 * p.family("basal").tau_0
    assert scaled.family("twin").tau_0 == p.family("twin").tau_0 / 2
    assert scaled.family("prismatic") == p.family("prismatic")
    assert scaled.with_tau_0(basal=0.5, twin=2.0) == p
    with pytest.raises(ValueError, match="families of magnesium are basal, prismatic, pyramidal, twin, got 'cubic'"):
        p.with_tau_0(cubic=2.0)
    with pytest.raises(ValueError, match="The factor of tau_0 of 'basal' must be positive, got 0"):
        p.with_tau_0(basal=0.0)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "soft.toml"
    path.write_text(MAGNESIUM.read_text().replace('name = "magnesium"', 'name = "soft"').replace("10e6", "1e6"))
    p = load_material(path)
    assert p.name == "soft" and p.family("basal").tau_0 == 1e6
    assert load_material(str(path)) == p


def test_a_material_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="material must be one of ferrite, magnesium, .* path .*got 'unobtainium'"):
        load_material("unobtainium")


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("G = = 1")
    with pytest.raises(ValueError, match="bad.toml is not a TOML file"):
        load_material(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lattice": "fcp"}, "lattice in m must be one of hcp, fcc, bcc, square, got 'fcp'"),
        ({"lattice": None}, "lattice in m must be one of"),
        ({"slip": None}, "m must have at least one slip family"),
        ({"slip": {"twin": {}}}, "must not be called 'twin'"),
        ({"c_over_a": None}, "c_over_a in m must be given for the hcp lattice"),
        ({"G": -1.0}, "G of m must be positive and finite, got -1.0"),
        ({"G": math.inf}, "G of m must be positive and finite"),
        ({"G": "stiff"}, "G of m must be a number, got 'stiff'"),
        ({"density": None}, "m must have the entry 'density'"),
        ({"source": " "}, "source of m must be a text"),
        ({"colour": "grey"}, "m has the unknown entry 'colour'; known are name, lattice, G"),
        ({"slip.basal.tau_0": -1e6}, "tau_0 of .slip.basal. in m must be positive"),
        ({"slip.basal.h": -1.0}, "h of .slip.basal. in m must be zero or positive"),
        ({"slip.basal.m": 0.0}, "m of .slip.basal. in m must be positive"),
        ({"slip.basal.m": True}, "m of .slip.basal. in m must be a number"),
        ({"slip.basal.rate_0": None}, "slip.basal. in m must have the entry 'rate_0'"),
        ({"slip.basal.tau0": 1.0}, "slip.basal. in m has the unknown entry 'tau0'"),
        ({"slip.basal": 3}, "slip.basal. in m must be a table, got 3"),
        ({"slip.basal.direction": [0, 0, 0, 1]}, r"direction \[0, 0, 0, 1\] of .* must lie in its plane"),
        ({"slip.basal.direction": [1, 0, 0]}, "direction of .* must be 4 integers that are not all zero .hcp lattice."),
        ({"slip.basal.direction": [2, -1, -1, 0.5]}, "direction of .* must be 4 integers"),
        ({"slip.basal.plane": [0, 0, 0, 0]}, "plane of .* must be 4 integers that are not all zero"),
        ({"slip.basal.plane": [1, 0, 0, 1]}, "The first three indices of plane of .* must sum to zero"),
        ({"twin.shear": None}, ".twin. in m must have the entry 'shear'"),
        ({"twin.h_latent": -1}, "h_latent of .twin. in m must be zero or positive"),
    ],
)
def test_one_sentence_for_each_bad_entry(change: dict, sentence: str) -> None:
    spoilt = content()
    for path, value in change.items():
        table, (*folders, key) = spoilt, path.split(".")
        for folder in folders:
            table = table[folder]
        if value is None:
            del table[key]
        else:
            table[key] = value
    with pytest.raises(ValueError, match=sentence) as caught:
        read_material(spoilt, "m")
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_the_square_lattice_has_no_third_index() -> None:
    spoilt = tomllib.loads((materials.FOLDER / "two-slip-2d.toml").read_text())
    spoilt["slip"]["square"]["direction"] = [0, 0, 1]
    with pytest.raises(ValueError, match="must lie in the plane x, y of the square lattice"):
        read_material(spoilt)
