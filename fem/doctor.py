"""Checks the environment and reports missing or broken parts: ``python3 -m fem.doctor``.

It prints the versions of the libraries, their speed, and each problem with its remedy, and exits with 1 if there is a
problem. Under ``mpirun`` rank 0 prints. It runs in any environment: a package that is missing or cannot be imported is
reported as a problem.
"""

import argparse
import importlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

SUMMARY = "Check the environment and report missing or broken parts."
SLOW_BLAS = 3.0  # GFlop/s of a float64 product; the reference BLAS reaches about 1, an optimised one 10 per core
SMALL_SHM = 256 * 2**20  # bytes; the ranks of one machine exchange messages through /dev/shm
PRODUCT = 768  # rows of the matrices of the timed product
RENDER = (
    "import pyvista as v; p = v.Plotter(off_screen=True); p.add_mesh(v.Cube()); assert p.screenshot(None).std() > 0"
)
# The crystal law is another package's, so it is asked in a process of its own; a line of its log says what is wrong.
CRYSTAL = "from micro.crystal.compiled import available; raise SystemExit(not available())"


@dataclass
class Report:
    """Lines of the report, and the problems below them, each a pair (problem, remedy)."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)

    def say(self, name: str, text: str) -> None:
        """Adds one line."""
        self.lines.append((name, text))

    def find(self, wrong: str, remedy: str) -> None:
        """Adds one problem."""
        self.findings.append((wrong, remedy))

    def text(self) -> str:
        """The whole report."""
        width = max((len(name) for name, _ in self.lines), default=0)
        rows = [f"{name:<{width}}  {text}" for name, text in self.lines]
        problems = [f"PROBLEM: {wrong}\n         Remedy: {remedy}" for wrong, remedy in self.findings]
        rows += problems or ["No problems found."]
        return "\n".join(rows)


def load(name: str, report: Report, remedy: str) -> ModuleType | None:
    """Imports a module; one that is missing or broken is added as a problem."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        report.find(f"{name} cannot be imported: {error}.", remedy)
    except Exception as error:  # a broken library may raise anything when it is loaded
        report.find(f"Importing {name} fails: {type(error).__name__}: {error}.", remedy)
    return None


def product_speed(product: Callable[[], object]) -> float:
    """Speed of a product of two square matrices of ``PRODUCT`` rows, best of five, GFlop/s."""
    product()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return 2.0 * PRODUCT**3 / min(seconds) / 1e9


def version(module: ModuleType | None) -> str:
    """The version of a module, or "missing"."""
    return "missing" if module is None else str(getattr(module, "__version__", "unknown"))


def report_versions(report: Report) -> None:
    """Versions of the libraries that the packages need."""
    inside = "run it as docker/run python3 -m fem.doctor, or see environment.yml."
    found = {name: load(name, report, inside) for name in ("numpy", "scipy", "dolfinx", "petsc4py", "numba", "gmsh")}
    report.say("python", f"{platform.python_version()} ({sys.executable})")
    report.say("packages", ", ".join(f"{name} {version(module)}" for name, module in found.items()))
    h5py = load("h5py", report, "install h5py (Debian: python3-h5py and python3-h5py-mpi).")
    if h5py is not None:
        kind = "with MPI" if h5py.get_config().mpi else "serial"
        report.say("h5py", f"{version(h5py)}, {kind}, HDF5 {h5py.version.hdf5_version}")


def report_mpi(report: Report) -> Any:
    """MPI library, ranks, threads per rank; collective. Returns the communicator of all ranks, None without mpi4py."""
    mpi = load("mpi4py.MPI", report, "install mpi4py built for this MPI library (Debian: python3-mpi4py).")
    if shutil.which("mpirun") is None:
        report.find("mpirun is not in PATH.", "install it (Debian: openmpi-bin).")
    if mpi is None:
        return None
    mpi4py = importlib.import_module("mpi4py")
    report.say("MPI", f"mpi4py {version(mpi4py)}, {mpi.Get_library_version().splitlines()[0].split(',')[0]}")
    bound = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    try:
        from fem.threads import plan_threads

        plan = plan_threads(mpi.COMM_WORLD)
    except ImportError as error:
        report.say("ranks", f"{mpi.COMM_WORLD.size}, each may use {bound}; threads not planned: {error}")
        return mpi.COMM_WORLD
    report.say("ranks", f"{plan}; each may use {bound}")
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if threads.isdigit() and int(threads) > plan.cores:
        wrong = f"OMP_NUM_THREADS={threads} in {plan.ranks} ranks is more than the {plan.cores} cores per rank."
        report.find(wrong, f"leave it unset or set it to {plan.cores}.")
    return mpi.COMM_WORLD


def report_speed(report: Report) -> None:
    """BLAS of NumPy and torch, its speed on one thread, and devices."""
    remedy = "use an optimised BLAS (Debian: libopenblas0; update-alternatives --list shows what is chosen)."
    numpy = load("numpy", Report(), "")
    torch = load("torch", report, "install PyTorch (Debian: python3-torch; conda: pytorch).")
    speeds = {}
    with one_thread(torch):
        if numpy is not None:
            a = numpy.random.default_rng(0).random((PRODUCT, PRODUCT))
            speeds["numpy float64"] = product_speed(partial(numpy.matmul, a, a))
        if torch is not None:
            for name in ("float64", "float32"):
                b = torch.ones((PRODUCT, PRODUCT), dtype=getattr(torch, name))
                speeds[f"torch {name}"] = product_speed(partial(torch.matmul, b, b))
    report.say("BLAS", blas_names())
    report.say("speed", ", ".join(f"{name} {speed:.0f} GFlop/s" for name, speed in speeds.items()) + " (one thread)")
    for name, speed in speeds.items():
        if speed < SLOW_BLAS:
            report.find(f"{name} matrix products reach {speed:.1f} GFlop/s only.", remedy)
    if torch is not None:
        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = ["cpu"] + [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(cuda)]
        report.say("devices", f"{', '.join(names)} (torch {version(torch)})")


@contextmanager
def one_thread(torch: ModuleType | None) -> Iterator[None]:
    """Limits torch and every BLAS to one thread, as far as they are there."""
    threadpoolctl = load("threadpoolctl", Report(), "")
    threads = torch.get_num_threads() if torch else 1
    with threadpoolctl.threadpool_limits(1) if threadpoolctl else nullcontext():
        if torch:
            torch.set_num_threads(1)
        yield
    if torch:
        torch.set_num_threads(threads)


def blas_names() -> str:
    """The BLAS libraries in this process, with their architecture where it is known."""
    threadpoolctl = load("threadpoolctl", Report(), "")
    if threadpoolctl is None:
        return "BLAS unknown (no threadpoolctl)"
    found = [p for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
    names = {f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in found}
    return ", ".join(sorted(names)) or "the reference BLAS, or one unknown to threadpoolctl"


def report_system(report: Report) -> None:
    """Shared memory, compiler, crystal law, rendering."""
    try:
        stat = os.statvfs("/dev/shm")
        size, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
        report.say("/dev/shm", f"{size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free")
        if free < SMALL_SHM:
            report.find(f"/dev/shm has {free / 2**20:.0f} MiB free.", "give the container more (--ipc host).")
    except OSError as error:
        report.find(f"/dev/shm cannot be used: {error}.", "mount a tmpfs there.")
    compiler = next((path for name in (os.environ.get("CC", "cc"), "gcc") if (path := shutil.which(name))), None)
    report.say("compiler", compiler or "missing")
    if compiler is None:
        report.find("There is no C compiler, which DOLFINx needs for its forms.", "install one (Debian: gcc).")
    report_crystal(report)
    report_rendering(report)


def attempt(code: str, seconds: float) -> str:
    """Runs Python code in a process of its own and returns why it fails, or nothing."""
    try:
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return done.stderr.strip().splitlines()[-1].rstrip(".") if done.stderr.strip() else f"exit code {done.returncode}"


def report_crystal(report: Report) -> None:
    """Compiles the crystal law, or finds the library of an earlier time."""
    reason = attempt(CRYSTAL, 300)
    report.say("crystal", "cannot be compiled" if reason else "compiled")
    if reason:
        wrong = f"The crystal law cannot be compiled (polycrystals are slow, and no law of a structure): {reason}."
        report.find(wrong, "install a C compiler that works (Debian: gcc), or let the variable CC name one.")


def report_rendering(report: Report) -> None:
    """Renders off screen in a process of its own, since VTK ends the process where there is no display."""
    reason = attempt(RENDER, 60)
    report.say("rendering", "off screen does not work" if reason else "off screen works")
    if reason:
        remedy = "install pyvista and, for Debian's VTK, xvfb (docker/run brings a display; else xvfb-run CMD)."
        report.find(f"pyvista cannot draw off screen: {reason}.", remedy)


def agree(comm: Any, code: int) -> int:
    """The code of rank 0 on all ranks; the others sleep meanwhile, so that they do not disturb its measurements."""
    if comm is None or comm.size == 1:
        return code
    import numpy as np

    shared = np.array([code], dtype=np.int64)
    request = comm.Ibcast(shared, root=0)
    while not request.Test():
        time.sleep(0.02)
    return int(shared[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report on rank 0; collective.

    Returns:
        0 if there is no problem, else 1, the same on all ranks.
    """
    argparse.ArgumentParser(prog="python3 -m fem.doctor", description=SUMMARY).parse_args(arguments)
    report = Report()
    # On all ranks: loading PETSc is collective.
    report_versions(report)
    comm = report_mpi(report)
    if comm is None or comm.rank == 0:
        report_speed(report)
        report_system(report)
        sys.stdout.write(report.text() + "\n")
        sys.stdout.flush()
    return agree(comm, int(bool(report.findings)))


if __name__ == "__main__":
    sys.exit(main())
