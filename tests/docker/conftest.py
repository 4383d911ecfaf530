"""Runs docker/run with stand-ins for engines and packages, so that nothing is downloaded."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RUN = PROJECT / "docker" / "run"
# What the root filesystem's scripts need, and the tests' commands.
PROGRAMS = "bash cat chmod dirname id mkdir readlink rm sleep touch true umount unshare".split()

Runner = Callable[..., subprocess.CompletedProcess[str]]
Stub = Callable[[str, str], None]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment without DOLFINx or a container engine, with a cache folder of its own."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    left_out = ("ANVILX_ENVIRONMENT", "ANVILX_PROJECT", "PYTHONPATH", "OMPI_MCA_btl", "PRTE_MCA_prte_tmpdir_base")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": f"{stubs}:/usr/sbin:/usr/bin:/sbin:/bin"}
    env |= {"ANVILX_DISPLAY": "no", "STUBS": str(stubs)}
    return env


@pytest.fixture
def stub(environment: dict[str, str]) -> Stub:
    """Puts a program, a bash script, before all others of the environment; to begin with, none of these works."""

    def put(name: str, body: str) -> None:
        path = Path(environment["STUBS"]) / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    for name in ("python3", "docker", "podman", "mmdebstrap", "apt-get", "sudo"):
        put(name, "exit 1")
    return put


@pytest.fixture
def run(environment: dict[str, str], stub: Stub, tmp_path: Path) -> Runner:
    """Calls docker/run to its end; keywords add to the environment or go to subprocess.run."""

    def call(*arguments: str, cwd: Path = tmp_path, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
        command = [str(RUN), *arguments]
        env = environment | extra
        return subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=120)

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root filesystem of a shell and a few programs of this machine, some megabytes."""
    probe = ["unshare", "--mount", "--propagation", "private"] + ([] if os.getuid() == 0 else ["--user", "-r"])
    if shutil.which("unshare") is None or subprocess.run([*probe, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow a private mount namespace")
    root = tmp_path_factory.mktemp("tiny") / "root"
    for name in ("etc", "run", "tmp", "proc", "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for name in ("resolv.conf", "hosts", "passwd", "group"):
        (root / "etc" / name).touch()
    for program in PROGRAMS:
        path = shutil.which(program)
        assert path is not None
        for source in [path, *libraries(path)]:
            target = root / "usr/bin" / program if source == path else root / source.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(source), target)
    # Stands for pip and for the imports that a new environment is tried with.
    (root / "usr/bin/python3").write_text("#!/bin/bash\nexit 0\n")
    (root / "usr/bin/python3").chmod(0o755)
    return root


def libraries(program: str) -> Iterator[str]:
    """The shared libraries that a program loads, its loader included."""
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
        yield from (word for word in line.split() if word.startswith("/"))


@pytest.fixture
def bootstrapped(stub: Stub, tiny: Path, tmp_path: Path) -> Path:
    """mmdebstrap stands in for itself by copying the tiny root; returns the file that counts its calls."""
    calls = tmp_path / "calls"
    copy = f'mkdir -p "$target" && cp -a {tiny}/. "$target"'
    if os.getuid() != 0:
        copy = f"tar -c -C {tiny} ."
    body = f'echo "$@" >> {calls}\ntarget=${{@: -1}}\n[ ! -e {tmp_path}/slow ] || sleep 2\n{copy}'
    stub("mmdebstrap", body)
    stub("newuidmap", "exit 0")
    return calls
