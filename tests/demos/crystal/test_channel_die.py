"""The channel-die study: its table and picture are there, and its closed form holds."""

import json

import pytest

DEMO = "crystal/channel_die.py"


@pytest.fixture
def study(demo, tmp_path, monkeypatch):
    """The demo, which writes into a folder of the test."""
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    return demo


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
