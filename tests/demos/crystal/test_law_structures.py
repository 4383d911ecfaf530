"""The study of structures of a law, small: all rows are there, are kept, and isotropy is what the structures say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from micro.generate import main as generate

FOLDER = Path(__file__).parents[3] / "demos" / "crystal"


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(FOLDER))  # it reads the paths of law_study
    try:
        spec = importlib.util.spec_from_file_location("law_structures", FOLDER / "law_structures.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["law_structures"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))


def test_all_structures_are_trained_and_kept(study, tmp_path: Path) -> None:
    data = tmp_path / "walks"
    size = ["--samples", "6", "--steps", "20", "--grains", "2", "--strain", "0.05", "--orientation", "random"]
    assert generate(["taylor", "--output", str(data), "--seed", "1", *size]) == 0
    words = ["--train", str(data), "--test", f"walks={data}", "--output", str(tmp_path / "out"), "--minutes", "0.002"]
    words += ["--base", "4", "--frames", "2", "--others", "8", "--grains", "2", "--cycles", "1", "--window", "10"]
    assert study.main(words) == 0
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
    assert study.main(words) == 0
    assert (tmp_path / "out" / "summary.json").read_text() == kept


def test_bad_input_is_one_sentence(study, tmp_path: Path, capsys) -> None:
    words = ["--train", str(tmp_path), "--test", "walks", "--output", str(tmp_path / "out")]
    assert study.main(words) == 2
    assert capsys.readouterr().err == "--test must be NAME=DIR, got walks.\n"
    words[3] = f"walks={tmp_path}"
    assert study.main([*words, "--only", "fields"]) == 2
    assert "--only must name structures" in capsys.readouterr().err
