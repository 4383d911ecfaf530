"""The shipped constants of Johnson-Cook: fitted to walks and to impact-like paths, with the errors that they state."""

import json
from pathlib import Path

import pytest
import torch

from micro import generate
from surrogates.artifact.shipped import find
from surrogates.path import johnson_cook
from surrogates.path.errors import report
from surrogates.path.sets import Sets, label, load_sets

SETS = Path(__file__).resolve().parents[3] / "demos" / "crystal" / "sets"


def shipped() -> dict:
    """The file."""
    entry = find("polycrystal-johnson-cook")
    assert entry is not None
    return json.loads(entry.file.read_text())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """A few walks and impact-like paths of other seeds, with fewer grains."""
    folder = tmp_path_factory.mktemp("classical")
    for seed, name in ((915, "walks"), (916, "impact")):
        words = [str(SETS / f"{name}.toml"), "--output", str(folder / name), "--seed", str(seed), "--samples", "25"]
        assert generate.main([*words, "--texture", "even", "--grains", "64", "--orientation", "random"]) == 0
    return load_sets([folder / "walks", folder / "impact"], 24, allow_partial=False)[1]


@pytest.mark.parametrize("kind", ["walk", "impact"])
def test_paths_of_other_seeds_have_the_error_that_is_stated(kind: str, fresh: Sets) -> None:
    content = shipped()
    p = torch.tensor([content["parameters"][name] for name in ("A", "B", "n", "C")], dtype=torch.float64)
    part = next(part for part in fresh.parts if label(part) == kind)
    with torch.no_grad():
        stress = johnson_cook.drive(
            part, p, content["parameters"]["shear_modulus"], content["parameters"]["bulk_modulus"]
        )
    assert report(stress, part)["deviatoric"] == pytest.approx(content["errors"][f"deviatoric_{kind}"], rel=0.25)


def test_both_kinds_gave_half_of_the_fit() -> None:
    commands = shipped()["data"]["commands"]
    assert [word for command in commands for word in ("walk", "impact") if f"--protocols {word} " in command] == [
        "walk", "impact",
    ]  # fmt: skip
