"""Bad input at every public entry: one clear sentence, the right exit code, in bounded time.

Each file `tests/bad_input/cases_<area>.py` holds a list CASES. The entry of a case is a module with `main(arguments)`
("micro.generate") or a demo by its path ("demos/taylor_anvil.py"). A case runs in this process under a watchdog;
a case with `ranks` above one, or with `own_process=True`, runs as a process of its own, where one that hangs is ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loading import load_file

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60  # a watchdog against hangs, far above what any refusal needs: no assertion on time


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        entry: Module with `main`, or path of a demo.
        arguments: Command line; "{folder}" stands for a fresh folder, which is also the current one.
        sentence: Regular expression that the message must match.
        prepare: Called with the folder before the run, to put damaged files there.
        ranks: MPI ranks; above one the case runs by mpirun.
        code: Exit code.
        own_process: Run as a process of its own.
    """

    entry: str
    arguments: Sequence[str]
    sentence: str
    prepare: Callable[[Path], Any] | None = None
    ranks: int = 1
    code: int = 2
    own_process: bool = False


sys.modules.setdefault("bad_input", sys.modules[__name__])  # the tables say `from bad_input import Case`


def cases() -> Iterator[Any]:
    """All cases of all tables, as pytest shows them."""
    for path in sorted((ROOT / "tests" / "bad_input").glob("cases_*.py")):
        table = load_file(path).CASES
        for case in table:
            label = f"{path.stem.removeprefix('cases_')}: {case.entry} {' '.join(case.arguments)}"[:120]
            yield pytest.param(case, id=label)


@contextlib.contextmanager
def watchdog(seconds: int) -> Iterator[None]:
    """End the process with the stacks of all threads if the block hangs where Python cannot interrupt it."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, previous)


def run_here(case: Case, arguments: list[str]) -> tuple[int, str]:
    """Exit code and everything said, of a run in this process."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    try:
        with watchdog(SECONDS), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            file = case.entry.endswith(".py")
            module = load_file(ROOT / case.entry) if file else importlib.import_module(case.entry)
            try:
                code = module.main(arguments)
            except SystemExit as stop:
                code = stop.code
    finally:
        logging.getLogger().removeHandler(handler)
    return int(code or 0), said.getvalue()


def run_apart(case: Case, arguments: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and everything said, of a process of its own."""
    words = [str(ROOT / case.entry)] if case.entry.endswith(".py") else ["-m", case.entry]
    command = [sys.executable, *words, *arguments]
    if case.ranks > 1:
        command = ["mpirun", "-n", str(case.ranks), *command]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"no answer within {SECONDS} s; said: {said[-2000:]}")
    # What mpirun adds of its own when a program ends with an error: a notice of a few lines between two of dashes.
    notice = r"-{40,}\n(?=.*\n?.*(?:mpirun|prterun|MPI_ABORT))(?:(?!-{40,}|Traceback).*\n)+-{40,}\n"
    return process.returncode, re.sub(notice, "", said)


@pytest.mark.parametrize("case", cases())
def test_one_sentence(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if case.prepare is not None:
        case.prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = [word.replace("{folder}", str(tmp_path)) for word in case.arguments]
    apart = case.own_process or case.ranks > 1
    code, said = run_apart(case, arguments, tmp_path) if apart else run_here(case, arguments)
    said = re.sub(r"-{60,}\n(prterun|mpirun|Primary job)\b.*?-{60,}\n", "", said, flags=re.DOTALL)  # the launcher's own
    assert "Traceback" not in said, said
    assert re.search(case.sentence, said), said
    assert code == case.code, said
    sentence = said.split("-" * 74)[0] if case.ranks > 1 else said  # without what mpirun says of the exit code
    assert sentence.strip().count("\n") <= (4 if apart else 1), f"more than one sentence: {said}"
    assert [path for path in before if not path.exists()] == [], "something was lost"
