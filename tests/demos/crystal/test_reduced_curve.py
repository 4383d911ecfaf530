"""The study of reduced polycrystals, small."""

import json
from pathlib import Path
from types import ModuleType

DEMO = "crystal/reduced_curve.py"


def test_the_curve_is_drawn_and_written(demo: ModuleType, tmp_path: Path) -> None:
    words = ["--keep", "2", "4", "--walks", "2", "--isotropic", "16", "--isotropic-walks", "2"]
    assert demo.main([*words, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "reduced_curve.png").is_file()
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert list(results) == ["128 random grains", "isotropic limit"]
    for result in results.values():
        assert [row["grains"] for row in result["rows"]] == [2, 4]
        for kind in ("walks", "impact"):
            few, more = (row[kind] for row in result["rows"])
            assert more["training"] < few["training"]  # more grains are chosen among the same ones
            assert 0.0 < min(few["random"], few["even"]) and result["half"][kind] > 0.0
