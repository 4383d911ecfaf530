"""The check of the environment: what it reports, and that it runs where libraries are missing."""

import os
import subprocess
import sys
from pathlib import Path

from fem.doctor import Report, attempt, load, report_crystal

ROOT = Path(__file__).resolve().parents[2]


def test_a_report_has_lines_problems_and_remedies():
    report = Report()
    report.say("python", "3")
    report.say("MPI", "none")
    assert report.text() == "python  3\nMPI     none\nNo problems found."
    report.find("There is no compiler.", "install one.")
    assert report.text().endswith("PROBLEM: There is no compiler.\n         Remedy: install one.")


def test_missing_and_broken_modules_are_problems(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    report = Report()
    assert load("no_such_library", report, "install it.") is None
    assert load("broken_library", report, "repair it.") is None
    assert load("json", report, "") is not None
    missing, broken = (wrong for wrong, _ in report.findings)
    assert missing.startswith("no_such_library cannot be imported: ")
    assert broken == "Importing broken_library fails: ZeroDivisionError: division by zero."


def test_it_runs_without_dolfinx_and_says_so():
    code = (
        "import sys; sys.modules['dolfinx'] = sys.modules['petsc4py'] = None\n"
        "from fem import doctor; raise SystemExit(doctor.main([]))"
    )
    environment = os.environ | {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "PROBLEM: dolfinx cannot be imported" in done.stdout
    assert "Traceback" not in done.stderr


def test_an_attempt_says_why_it_failed():
    assert attempt("pass", 60) == ""
    assert attempt("raise SystemExit(3)", 60) == "exit code 3"
    assert attempt("raise ValueError('no.')", 60) == "ValueError: no"
    assert "timed out" in attempt("import time; time.sleep(60)", 0.2)


def test_it_says_whether_the_crystal_can_be_compiled(monkeypatch):
    report = Report()
    monkeypatch.setenv("CC", "no-such-compiler")
    report_crystal(report)
    assert report.lines == [("crystal", "cannot be compiled")]
    ((wrong, remedy),) = report.findings
    assert wrong.endswith("there is no C compiler (no-such-compiler).")
    assert "gcc" in remedy
    report = Report()
    monkeypatch.delenv("CC")
    report_crystal(report)
    assert report.lines == [("crystal", "compiled")]
    assert report.findings == []
