"""docker/run: which environment it takes, and that the command notices nothing of it."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RUN = PROJECT / "docker" / "run"

Runner = Callable[..., subprocess.CompletedProcess[str]]
Stub = Callable[[str, str], None]


def test_help_names_the_engines(run: Runner) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("current", "docker", "podman", "rootfs", "--engine"))


@pytest.mark.parametrize("arguments", [(), ("--engine",), ("--engine", "vm", "true"), ("--nonsense", "true")])
def test_misuse_gets_a_sentence(run: Runner, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("docker/run: ")
    assert done.stderr.splitlines()[0].endswith(".")


def test_command_passes_through(run: Runner, tmp_path: Path) -> None:
    there = tmp_path / "a folder"
    there.mkdir()
    script = 'cat; printf "<%s>" "$@" "$NOTE" "$PWD"; echo oops >&2; exit 7'
    words = ("a b", "c\nd", "", "*", "--engine", "$HOME")
    done = run("--engine", "current", "bash", "-c", script, "bash", *words, cwd=there, stdin="in\n", NOTE="x\ny")
    assert done.returncode == 7
    assert done.stdout == "in\n" + "".join(f"<{word}>" for word in (*words, "x\ny", str(there)))
    assert done.stderr == "oops\n"


def test_signal_reaches_the_command(environment: dict[str, str]) -> None:
    script = 'trap "echo got it; exit 5" TERM; echo $$; while :; do sleep 0.05; done'
    with subprocess.Popen(
        [RUN, "--engine=current", "bash", "-c", script], env=environment, stdout=-1, text=True
    ) as job:
        assert job.stdout is not None
        assert int(job.stdout.readline()) == job.pid
        job.send_signal(signal.SIGTERM)
        assert job.stdout.read() == "got it\n"
    assert job.returncode == 5


def test_missing_command_is_127(run: Runner) -> None:
    assert run("--engine", "current", "no-such-command").returncode == 127


def test_packages_of_the_clone_come_first_and_mpi_may_oversubscribe(run: Runner) -> None:
    names = "$PYTHONPATH|$OMPI_ALLOW_RUN_AS_ROOT|$PRTE_MCA_rmaps_default_mapping_policy|$OMPI_MCA_btl"
    done = run("--engine", "current", "bash", "-c", f'echo "{names}"', PYTHONPATH="/mine", OMPI_MCA_btl="tcp,self")
    assert done.stdout == f"{PROJECT}:/mine|1|:oversubscribe|tcp,self\n"


@pytest.mark.parametrize("home", ["", "relative", "/not/there"])
def test_a_home_that_is_no_directory_is_replaced_by_that_of_the_account(
    run: Runner, environment: dict[str, str], stub: Stub, tmp_path: Path, home: str
) -> None:
    (tmp_path / "account").mkdir()
    stub("getent", f"echo name:x:0:0::{tmp_path}/account:/bin/bash")
    (tmp_path / "relative").mkdir()
    done = run("--engine", "current", "bash", "-c", "echo $HOME", HOME=home)
    assert done.stdout == f"{tmp_path}/account\n"
    stub("getent", "exit 2")
    assert run("--engine", "current", "bash", "-c", "echo $HOME", HOME=home).stdout == "/tmp\n"
    assert run("--engine", "current", "bash", "-c", "echo $HOME", HOME=str(tmp_path)).stdout == f"{tmp_path}\n"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"XDG_CACHE_HOME": "odd"}, "XDG_CACHE_HOME must be an absolute path, got odd."),
        ({"XDG_CACHE_HOME": "", "HOME": "odd"}, "there is no home directory for the cache folder"),
        ({"XDG_CACHE_HOME": "", "HOME": "/not/there"}, "there is no home directory for the cache folder"),
    ],
)
def test_no_environment_is_made_in_an_odd_place(
    run: Runner, stub: Stub, tmp_path: Path, extra: dict[str, str], sentence: str
) -> None:
    stub("getent", "exit 2")
    stub("mmdebstrap", f"touch {tmp_path}/made")
    for engine in ([], ["--engine", "rootfs"]):
        done = run(*engine, "true", **extra)
        assert done.returncode == 125
        assert done.stderr.startswith(f"docker/run: {sentence}")
        assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stubs"]


def test_current_environment_is_tried_once(
    run: Runner, environment: dict[str, str], stub: Stub, tmp_path: Path
) -> None:
    stub("python3", f'[ "$1" = - ] && echo found || echo tried >> {tmp_path}/tries')
    for _ in range(2):
        done = run("echo", "here")
        assert (done.returncode, done.stdout) == (0, "here\n")
    assert (tmp_path / "tries").read_text() == "tried\n"


def test_environment_where_they_do_not_import_is_not_taken(run: Runner, stub: Stub) -> None:
    stub("python3", '[ "$1" = - ] && echo found')
    done = run("echo", "here")
    assert done.returncode == 125
    assert "mmdebstrap failed" in done.stderr


ENGINE = """
case "$1" in
    info) exit 0 ;;
    image) [ -e "$STUBS/image" ] ;;
    build) echo "$*" >"$STUBS/build"; [ ! -e "$STUBS/broken" ] && touch "$STUBS/image" ;;
    run) printf '%s\\n' "$@" ;;
esac
"""


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_container_of_the_engine_that_answers(
    run: Runner, environment: dict[str, str], stub: Stub, engine: str
) -> None:
    stub(engine, ENGINE)
    project = environment["STUBS"]
    done = run("echo", "a b", cwd=Path(project), NOTE="x\ny")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "run"
    assert lines[-2:] == ["echo", "a b"]
    assert lines[-3].startswith("anvilx:")
    for path in (PROJECT, project, "/tmp"):
        assert f"type=bind,source={path},target={path}" in lines
    assert lines[lines.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert lines[lines.index("--tmpfs") + 1] == "/run/anvilx/mpi:mode=1777"
    assert "NOTE" in lines
    assert "PATH" not in lines
    build = (Path(project) / "build").read_text()
    assert "--target base" in build
    (Path(project) / "build").unlink()
    assert run("true").returncode == 0
    assert not (Path(project) / "build").exists(), "the image is built once"


def test_image_that_cannot_be_built(run: Runner, environment: dict[str, str], stub: Stub) -> None:
    stub("docker", ENGINE)
    (Path(environment["STUBS"]) / "broken").touch()
    done = run("--engine", "docker", "true")
    assert done.returncode == 125
    assert "docker could not build the image" in done.stderr
    done = run("true")
    assert "making a root filesystem instead" in done.stderr


@pytest.mark.skipif(
    "PRTE_MCA_prte_tmpdir_base" not in os.environ or any(name.startswith("OMPI_COMM_WORLD") for name in os.environ),
    reason="needs the mpirun of docker/run, and not to be inside of it",
)
def test_mpirun_starts_where_a_killed_one_left_its_folder() -> None:
    """Open MPI 5 names the folder by its process number and does not start if it is there (PMIX_ERR_EXISTS)."""
    start = subprocess.Popen(
        ["bash", "-c", "read -r && exec mpirun -n 1 echo started"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    left = Path(f"/tmp/prterun.{socket.gethostname().split('.')[0]}.{start.pid}.{os.getuid()}")
    left.mkdir(exist_ok=True)
    try:
        said, complaint = start.communicate("go\n", timeout=60)
    finally:
        start.kill()
        shutil.rmtree(left)
    assert (start.returncode, said) == (0, "started\n"), complaint


@pytest.mark.slow
def test_engine_that_hangs_is_left(run: Runner, stub: Stub) -> None:
    stub("docker", "exec sleep 600")
    done = run("--engine", "docker", "true")  # has a limit of its own
    assert done.returncode == 125
    assert "docker does not answer" in done.stderr


def test_every_package_has_its_reason_and_stands_once() -> None:
    rows = (PROJECT / "docker/packages.txt").read_text().splitlines()
    rows = [row for row in rows if row and not row.startswith("#")]
    names = [row.split()[0] for row in rows]
    assert len(names) == len(set(names)) > 20
    assert [row for row in rows if " # " not in row] == []
