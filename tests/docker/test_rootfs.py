"""The root filesystem: made whole or not at all, seen by its command alone."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RUN = PROJECT / "docker" / "run"

Runner = Callable[..., subprocess.CompletedProcess[str]]
Stub = Callable[[str, str], None]


def wait_for(condition: Callable[[], object]) -> None:
    """Waits until something is there; the test's own limit is a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "did not come"
        time.sleep(0.02)


def made(tmp_path: Path) -> list[str]:
    """What lies in the cache folder, the lock apart."""
    return sorted(path.name for path in (tmp_path / "cache/anvilx").iterdir() if path.name != "lock")


def test_made_once_then_used(run: Runner, bootstrapped: Path, tmp_path: Path) -> None:
    first = run("--engine", "rootfs", "bash", "-c", "echo out; exit 3")
    assert (first.returncode, first.stdout) == (3, "out\n"), first.stderr
    assert "making the environment" in first.stderr
    assert len(made(tmp_path)) == 1
    second = run("bash", "-c", "echo out")
    assert (second.returncode, second.stdout, second.stderr) == (0, "out\n", "")
    options = bootstrapped.read_text().splitlines()
    assert len(options) == 1
    assert "python3-dolfinx-real," in options[0]
    assert "xvfb" in options[0]


def test_command_passes_through(run: Runner, bootstrapped: Path, tmp_path: Path) -> None:
    there = tmp_path / "a folder"
    there.mkdir()
    script = 'cat; printf "<%s>" "$@" "$NOTE" "$PWD" "${LD_LIBRARY_PATH-none}"; echo oops >&2; touch made; exit 7'
    words = ("a b", "c\nd", "", "*", "$HOME")
    command = ("--engine", "rootfs", "bash", "-c", script, "bash", *words)
    assert run("--engine", "rootfs", "true").returncode == 0
    done = run(*command, cwd=there, stdin="in\n", NOTE="x\ny", LD_LIBRARY_PATH="/usr/lib")
    assert done.returncode == 7
    assert done.stdout == "in\n" + "".join(f"<{word}>" for word in (*words, "x\ny", str(there), "none"))
    assert done.stderr == "oops\n"
    status = (there / "made").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert run("--engine", "rootfs", "no-such-command").returncode == 127


def test_mpirun_has_a_folder_of_its_own_that_goes(run: Runner, bootstrapped: Path) -> None:
    assert run("--engine", "rootfs", "true").returncode == 0
    script = 'cd "$PRTE_MCA_prte_tmpdir_base" && echo "$PWD" * && touch left'
    for _ in range(2):
        done = run("bash", "-c", script)
        assert (done.returncode, done.stdout) == (0, "/run/anvilx/mpi *\n"), done.stderr
    assert not Path("/run/anvilx/mpi/left").exists()
    done = run("bash", "-c", 'echo "$PRTE_MCA_prte_tmpdir_base"', PRTE_MCA_prte_tmpdir_base="/of/the/user")
    assert done.stdout == "/of/the/user\n"


def test_names_of_the_host_are_known(run: Runner, bootstrapped: Path) -> None:
    done = run("--engine", "rootfs", "cat", "/etc/hosts", "/etc/resolv.conf")
    assert done.returncode == 0
    host = [Path(f"/etc/{name}") for name in ("hosts", "resolv.conf")]
    assert done.stdout.split() == "".join(path.read_text() for path in host if path.exists()).split()


def test_signal_reaches_the_command(run: Runner, environment: dict[str, str], bootstrapped: Path) -> None:
    assert run("--engine", "rootfs", "true").returncode == 0
    script = 'trap "echo got it; exit 5" TERM; echo $$; while :; do sleep 0.05; done'
    with subprocess.Popen([RUN, "--engine=rootfs", "bash", "-c", script], env=environment, stdout=-1, text=True) as job:
        assert job.stdout is not None
        assert int(job.stdout.readline()) == job.pid
        job.send_signal(signal.SIGTERM)
        assert job.stdout.read() == "got it\n"
    assert job.returncode == 5


def test_deleting_the_cache_while_a_command_runs_reaches_nothing_else(
    run: Runner, environment: dict[str, str], bootstrapped: Path, tmp_path: Path
) -> None:
    assert run("--engine", "rootfs", "true").returncode == 0
    kept = tmp_path / "kept"
    kept.write_text("mine")
    mounts = Path("/proc/self/mounts").read_text()
    command = [RUN, "--engine=rootfs", "bash", "-c", f"cat {kept}; echo; cat; cat {kept}"]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True, cwd=tmp_path) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "mine\n"
        # The command sees the clone, by a mount of it or of a folder above; the host sees no more mounts than before.
        rows = Path(f"/proc/{job.pid}/mountinfo").read_text().splitlines()
        assert {row.split()[4] for row in rows} & {str(path) for path in (PROJECT, *list(PROJECT.parents)[:-1])}
        assert Path("/proc/self/mounts").read_text() == mounts
        subprocess.run(["rm", "-rf", tmp_path / "cache"], check=True)
        assert job.communicate("")[0] == ""
    assert kept.read_text() == "mine"
    assert RUN.exists()
    assert not (tmp_path / "cache").exists()


def test_two_at_once_wait_for_each_other(environment: dict[str, str], bootstrapped: Path, tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    command = [RUN, "--engine=rootfs", "bash", "-c", "echo $$"]
    jobs = [subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    outputs = [job.communicate(timeout=60) for job in jobs]
    assert [out for out, _ in outputs] == [f"{job.pid}\n" for job in jobs]
    assert sum("waiting for it" in err for _, err in outputs) == 1
    assert len(bootstrapped.read_text().splitlines()) == 1
    assert len(made(tmp_path)) == 1


def processes_of(tmp_path: Path) -> list[int]:
    """Processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(tmp_path / "stubs/mmdebstrap").encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_interrupted_set_up_leaves_nothing_that_is_used(
    run: Runner, environment: dict[str, str], bootstrapped: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "slow").touch()
    with subprocess.Popen([RUN, "--engine=rootfs", "true"], env=environment, stderr=-1, text=True) as job:
        wait_for(bootstrapped.exists)
        job.send_signal(number)
        job.communicate(timeout=60)
    wait_for(lambda: not processes_of(tmp_path))
    if number == signal.SIGKILL:
        assert job.returncode == -signal.SIGKILL
        assert [name for name in made(tmp_path) if not name.startswith(".new-")] == []
    else:
        assert job.returncode == 128 + number
        assert made(tmp_path) == []
    (tmp_path / "slow").unlink()
    done = run("--engine", "rootfs", "bash", "-c", "echo whole")
    assert done.stdout == "whole\n", done.stderr
    assert len(made(tmp_path)) == 1


@pytest.mark.parametrize("broken", ["mmdebstrap", "import"])
def test_failed_set_up_is_not_kept(
    run: Runner, environment: dict[str, str], stub: Stub, bootstrapped: Path, tmp_path: Path, broken: str
) -> None:
    works = (Path(environment["STUBS"]) / "mmdebstrap").read_text()
    if broken == "mmdebstrap":
        stub("mmdebstrap", works + "echo no network >&2; exit 25")
    else:
        after = 'printf "#!/bin/bash\\nexit 1\\n" >"$target/usr/bin/python3"'
        stub("mmdebstrap", works + after if os.getuid() == 0 else "exit 1")
    done = run("--engine", "rootfs", "true")
    assert done.returncode == 125
    assert "nothing was kept" in done.stderr
    assert made(tmp_path) == []


def test_without_mmdebstrap_or_apt_there_is_one_sentence(run: Runner, environment: dict[str, str]) -> None:
    for name in ("mmdebstrap", "apt-get", "sudo"):
        (Path(environment["STUBS"]) / name).unlink()
    tools = Path(environment["STUBS"])
    names = "awk bash cut df dirname env flock id mkdir mktemp paste readlink rm sed setpriv setsid sha256sum sort tail"
    for name in names.split():
        (tools / name).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d) / name).exists()))
    done = run("--engine", "rootfs", "true", PATH=str(tools))
    assert done.returncode == 125
    assert "mmdebstrap is missing" in done.stderr
