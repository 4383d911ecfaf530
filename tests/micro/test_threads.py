"""Threads of BLAS: set before the libraries that read them are loaded."""

import json
import os
import subprocess
import sys

import pytest

from micro.threads import VARIABLES, limit_threads

# Run a module as `python3 -m` does and say how many threads its libraries have.
SHOW = """
import contextlib, json, runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
with contextlib.suppress(SystemExit):
    runpy.run_module(module, run_name="__main__", alter_sys=True)
import numpy, threadpoolctl
print(json.dumps([pool["num_threads"] for pool in threadpoolctl.threadpool_info()]))
"""


@pytest.mark.parametrize(
    ("argv", "before", "after"),
    [
        ([], {}, "1"),
        (["taylor", "--threads", "3"], {}, "3"),
        (["--threads=3", "--samples", "5"], {}, "3"),
        (["--threads", "3"], {"OPENBLAS_NUM_THREADS": "7"}, "3"),
        (["--threads"], {}, "1"),
        (["--threads", "many"], {}, "1"),
        (["--threads", "0"], {}, "1"),
    ],
)
def test_command_line_governs_all_libraries(argv: list[str], before: dict[str, str], after: str) -> None:
    environment = dict(before)
    limit_threads(argv, environment)
    assert environment == dict.fromkeys(VARIABLES, after)


def test_environment_stays_where_the_command_line_says_nothing() -> None:
    environment = {"OPENBLAS_NUM_THREADS": "7"}
    limit_threads(["--samples", "5"], environment)
    assert environment == dict.fromkeys(VARIABLES, "1") | {"OPENBLAS_NUM_THREADS": "7"}


@pytest.mark.parametrize(
    ("command", "threads"),
    [
        (["micro.generate", "taylor", "--help"], 1),
        (["micro.generate", "taylor", "--threads", "2", "--help"], 2),
        (["surrogates.train", "pca-net", "--help"], 1),
    ],
)
def test_libraries_are_loaded_with_that_number(command: list[str], threads: int) -> None:
    """The libraries take what they are told, also on one core; some take no more threads than there are cores."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    answer = subprocess.run(
        [sys.executable, "-c", SHOW, *command], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    assert threads in found
    assert set(found) <= {threads, min(threads, len(os.sched_getaffinity(0)))}
