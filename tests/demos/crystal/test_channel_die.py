"""The channel-die study: its table and picture are there, and its closed form holds."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def study(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("channel_die", ROOT / "demos" / "crystal" / "channel_die.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OUTPUT", tmp_path)
    return module


def test_seven_tests_at_two_rates(study, tmp_path):
    assert study.main() == 0
    assert (tmp_path / "channel_die.png").is_file()
    summary = json.loads((tmp_path / "summary.json").read_text())
    for rows in summary["tests"].values():
        assert list(rows) == list("ABCDEFG")
        for row in rows.values():
            assert sum(row["share"].values()) == pytest.approx(1.0)
    assert study.exhausted(summary["twinning alone"]["twins"]) == pytest.approx(0.065, abs=0.002)
    assert study.exhausted([0.0] * (study.STEPS + 1)) is None
