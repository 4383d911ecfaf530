"""The benchmarks of the stable step and of messages, small."""

import json

import pytest
from loading import load_demo

DEMO = "benchmarks/bench_stable_step.py"


@pytest.fixture(scope="module")
def messages():
    """The benchmark of messages."""
    return load_demo("benchmarks/bench_messages.py")


@pytest.mark.parametrize("cells", [[], ["--tetrahedra"]])
def test_the_step_is_held_against_the_largest(demo, tmp_path, cells):
    small = ["--cells", "4", "--until", "2e-5", "--times", "2", "--output", str(tmp_path), *cells]
    assert demo.main(small) == 0
    found = json.loads((tmp_path / "summary.json").read_text())
    assert len(found["rows"]) == 3
    assert [row["time"] for row in found["rows"]] == pytest.approx([0.0, 10.0, 20.0])
    for row in found["rows"]:
        assert row["ours"] == pytest.approx(row["step"] / row["largest"])
        assert 0.1 < row["ours"] < 1.0
    # Flat cells: the cube root of the volume says less and less of their step.
    assert found["rows"][-1]["cube root"] > 1.3 * found["rows"][0]["cube root"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 32])
def test_one_reduction_per_step_and_the_answer_of_one_rank(messages, tmp_path, ranks):
    """Two exchanges per step, also where a face is driven by a function of time; checked by the benchmark itself."""
    small = ["--ranks", "1", str(ranks), "--cells", "3", "--steps", "5", "--drive", "--output", str(tmp_path)]
    assert messages.main(small) == 0
    one, many = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert one["messages"] == 0.0
    assert many["messages_most"] <= 2.0 * (ranks - 1)
    assert many["reductions"] == many["reductions_most"] == 1.0
    # Three numbers of eight bytes for each copy of a node, there and back.
    assert many["bytes"] == pytest.approx(2 * 24 * many["ghosts"])


def test_the_model_for_many_ranks(messages):
    """No network on one rank; the same work on more ranks takes less time, with less efficiency."""
    assert messages.expected(1000.0, 1, 2.0, 100.0) == pytest.approx((2100.0, 1.0))
    found = [messages.expected(1e5, ranks, 2.0, 100.0) for ranks in (1, 64, 1024)]
    assert found[0][0] > found[1][0] > found[2][0]
    assert found[0][1] > found[1][1] > found[2][1] > 0.0


def test_more_than_one_reduction_is_seen(messages):
    row = {"ranks": 2, "reductions_most": 1.0, "collectives_most": 0.0, "exchanges_most": 2.0}
    row |= {"other_messages_most": 0.0, "kinetic_energy": 1.0, "impulse": 2.0}
    messages.check([row, row])
    changes = {"reductions_most": 2.0, "exchanges_most": 3.0, "impulse": 2.0 + 1e-8, "collectives_most": 0.1}
    for name, value in changes.items():
        with pytest.raises(RuntimeError, match="2 ranks"):
            messages.check([row, row | {name: value}])
