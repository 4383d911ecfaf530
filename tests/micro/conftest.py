"""Fixtures of the tests of the microscale: threads, data sets."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from loading import load_file
from threadpoolctl import threadpool_limits

from micro import generate

FAKE_JOB = Path(__file__).with_name("fake_job.py")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """One thread: batches this small gain nothing by more, and threads that wait for each other lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def fake_job() -> Path:
    """The script that runs the data job with the fake source."""
    return FAKE_JOB


@pytest.fixture(scope="session")
def make_set() -> Callable[..., int]:
    """A function that makes a set of the fake source in this process and returns the job's exit code."""
    module = load_file(FAKE_JOB, "fake_job")

    def make(output: Path, **options: object) -> int:
        chosen = {"samples": 20, "seed": 3, "block": 4} | options
        argv = ["fake", f"--output={output}", *(f"--{name}={value}" for name, value in chosen.items())]
        return generate.main(argv, sources=[module.FakeSource])

    return make
