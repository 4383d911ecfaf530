"""The study of structures of a law, small: all rows are there, are kept, and isotropy is what the structures say."""

import json
from pathlib import Path

from micro.generate import main as generate

DEMO = "crystal/law_structures.py"


def test_all_structures_are_trained_and_kept(demo, tmp_path: Path) -> None:
    data = tmp_path / "walks"
    size = ["--samples", "6", "--steps", "20", "--grains", "2", "--strain", "0.05", "--orientation", "random"]
    assert generate(["taylor", "--output", str(data), "--seed", "1", *size]) == 0
    words = ["--train", str(data), "--test", f"walks={data}", "--output", str(tmp_path / "out"), "--minutes", "0.002"]
    words += ["--base", "4", "--frames", "2", "--others", "8", "--grains", "2", "--cycles", "1", "--window", "10"]
    assert demo.main(words) == 0
    kept = (tmp_path / "out" / "summary.json").read_text()
    laws = json.loads(kept)["laws"]
    assert list(laws) == [
        "elements", "potentials", "grains and elements", "frames", "shipped", "4 grains", "8 grains"
    ]  # fmt: skip
    for name, law in laws.items():
        assert set(law["errors"]) == {"walks", "ringing", "finer", "turned"} and law["state"] > 0
        isotropic = name in ("elements", "potentials", "shipped")
        assert (law["errors"]["turned"] < 1e-3) == isotropic, name
    assert laws["elements"]["updates"] > 0
    assert demo.main(words) == 0
    assert (tmp_path / "out" / "summary.json").read_text() == kept


def test_bad_input_is_one_sentence(demo, tmp_path: Path, capsys) -> None:
    words = ["--train", str(tmp_path), "--test", "walks", "--output", str(tmp_path / "out")]
    assert demo.main(words) == 2
    assert capsys.readouterr().err == "--test must be NAME=DIR, got walks.\n"
    words[3] = f"walks={tmp_path}"
    assert demo.main([*words, "--only", "fields"]) == 2
    assert "--only must name structures" in capsys.readouterr().err
