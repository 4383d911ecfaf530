"""Threads of PyTorch and BLAS: what the user asks for, what libraries find when they are loaded, small batches.

No clocks: that sleeping threads and one thread of BLAS are fast is measured by `demos/benchmarks/bench_explicit.py
--layouts`.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

from micro import generate, threads
from micro.threads import asked_threads, check_threads, limit_threads, most_threads, openblas, small_batches

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Run a module as `python3 -m` does and say how many threads its libraries have.
SHOW = """
import contextlib, json, runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
with contextlib.suppress(SystemExit):
    runpy.run_module(module, run_name="__main__", alter_sys=True)
import os, torch, threadpoolctl
pools = {pool["internal_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
print(json.dumps({**pools, "torch": torch.get_num_threads(), "wait": os.environ.get("OMP_WAIT_POLICY")}))
"""
# Import a package, before or after PyTorch, and say how threads of OpenMP will wait.
WAIT = "import os, sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
WAIT += "print(os.environ.get('OMP_WAIT_POLICY'))"


def clean(**more: str) -> dict[str, str]:
    """The environment of these tests, without what says something about threads."""
    left_out = (*VARIABLES, "OMP_WAIT_POLICY", "ANVILX_ENVIRONMENT")
    return {key: value for key, value in os.environ.items() if key not in left_out} | more


@pytest.mark.parametrize(
    ("argv", "before", "openmp", "blas"),
    [
        ([], {}, "1", "1"),
        (["taylor", "--threads", "3"], {}, "3", "1"),
        (["--threads=3", "--samples", "5"], {}, "3", "1"),
        (["--threads", "3"], {"OMP_NUM_THREADS": "5", "OPENBLAS_NUM_THREADS": "7"}, "3", "7"),
        (["--samples", "5"], {"OMP_NUM_THREADS": "5"}, "5", "1"),
        (["--threads"], {}, "1", "1"),
        (["--threads", "many"], {}, "1", "1"),
        (["--threads", "0"], {}, "1", "1"),
        (["--threads", "100000000"], {}, "1", "1"),
    ],
)
def test_what_libraries_will_read(argv: list[str], before: dict[str, str], openmp: str, blas: str) -> None:
    environment = dict(before)
    limit_threads(argv, environment)
    expected = {"OMP_NUM_THREADS": openmp, "OPENBLAS_NUM_THREADS": blas, "OMP_WAIT_POLICY": "passive"}
    assert {key: environment[key] for key in expected} == expected


def test_a_wish_to_spin_stays() -> None:
    environment = {"OMP_WAIT_POLICY": "active"}
    limit_threads([], environment)
    assert environment["OMP_WAIT_POLICY"] == "active"


@pytest.mark.parametrize(
    ("command", "wish", "expected"),
    [
        (["micro.generate", "taylor", "--help"], {}, 1),
        (["micro.generate", "taylor", "--threads", "2", "--help"], {}, 2),
        (["surrogates.train", "pca-net", "--help"], {}, 1),
        (["surrogates.train", "pca-net", "--help"], {"OMP_NUM_THREADS": "2"}, 2),
        (["surrogates.train", "tann", "--threads=2", "--help"], {"OMP_NUM_THREADS": "3"}, 2),
        *(([f"surrogates.{name}", "--help"], {}, 1) for name in ("certificate", "homogenise", "effective", "evaluate")),
        (["micro.voxel.sets", "--help"], {}, 1),
    ],
)
def test_libraries_are_loaded_with_that_number(command: list[str], wish: dict[str, str], expected: int) -> None:
    """Two threads are seen even on one core: the libraries take what they are told."""
    answer = subprocess.run(
        [sys.executable, "-c", SHOW, *command],
        capture_output=True, text=True, check=True, env=clean(**wish), timeout=300,
    )  # fmt: skip
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found.pop("wait") == "passive"
    assert found.pop("torch") == expected
    assert found.pop("openblas", 1) == 1
    # Some libraries take no more threads than there are cores.
    assert set(found.values()) <= {expected, min(expected, len(os.sched_getaffinity(0)))}


@pytest.mark.parametrize(
    ("modules", "policy", "expected"),
    [
        (["micro", "torch"], {}, "passive"),
        (["surrogates", "torch"], {}, "passive"),
        (["surrogates.artifact"], {}, "passive"),
        (["surrogates.artifact"], {"OMP_WAIT_POLICY": "active"}, "active"),
        (["torch", "micro.threads"], {}, "None"),  # too late: it must not look as if it were set
    ],
)
def test_importing_a_package_lets_threads_sleep(modules: list[str], policy: dict[str, str], expected: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", WAIT, *modules], capture_output=True, text=True, check=True, env=clean(**policy)
    )
    assert answer.stdout.strip() == expected


def test_threads_that_can_be_had() -> None:
    assert most_threads() >= max(os.cpu_count() or 1, 2)
    assert check_threads(most_threads()) == most_threads()
    for number, bound in ((0, "least 1"), (-1, "least 1"), (most_threads() + 1, f"most {most_threads()} on this")):
        with pytest.raises(ValueError, match=f"threads must be at {bound}.*, got {number}."):
            check_threads(number)


def test_the_data_job_refuses_too_many(tmp_path, caplog) -> None:
    command = ["taylor", f"--output={tmp_path / 'set'}", "--samples=1", "--threads=100000"]
    assert generate.main(command) == 2
    assert "got 100000." in caplog.text
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("said", "expected"), [("3", 3), ("2,1", 2), ("100000000", most_threads()), ("0", None), ("x", None), ("", None)]
)
def test_what_the_user_asks_for(said: str, expected: int | None) -> None:
    assert asked_threads({"OMP_NUM_THREADS": said}) == expected


@pytest.mark.parametrize(
    ("environment", "pytorch", "blas"),
    [
        ({}, 1, 1),  # PyTorch came first, its threads spin
        ({"OMP_WAIT_POLICY": "passive"}, 2, 1),
        ({"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "2"}, 2, 2),
        ({"OMP_NUM_THREADS": "2"}, 2, 1),  # a wish
    ],
)
def test_small_batches_take_what_is_not_slower(monkeypatch, environment, pytorch, blas) -> None:
    for name in (*VARIABLES, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    library, before = openblas(), torch.get_num_threads()
    had = library.openblas_get_num_threads() if library is not None else None

    @small_batches()
    def inside() -> tuple[int, int]:
        return torch.get_num_threads(), library.openblas_get_num_threads() if library is not None else blas

    try:
        torch.set_num_threads(2)
        if library is not None:
            library.openblas_set_num_threads(2)
        two = library.openblas_get_num_threads() if library is not None else 2
        assert inside() == (pytorch, min(blas, two))
        assert torch.get_num_threads() == 2
        assert library is None or library.openblas_get_num_threads() == two
    finally:
        torch.set_num_threads(before)
        if library is not None:
            library.openblas_set_num_threads(had)


def test_one_thread_is_said_once(monkeypatch, caplog) -> None:
    for name in (*VARIABLES, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    threads._say_once.cache_clear()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in range(2):
            with small_batches():
                pass
    finally:
        torch.set_num_threads(before)
        threads._say_once.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
