"""The data job: the content of a set does not know how many processes made it, or what killed them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from micro import generate
from micro.data import provenance
from micro.data.dataset import read_dataset
from micro.data.ranks import world

needs_mpirun = pytest.mark.skipif(
    shutil.which("mpirun") is None or any(name.startswith("OMPI_COMM_WORLD") for name in os.environ),
    reason="needs mpirun, and not to be inside of it",
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, make_set):
    """The set of 20 samples, made by this process alone."""
    path = tmp_path_factory.mktemp("reference") / "set"
    assert make_set(path) == 0
    return path


def start(script, output, ranks=1, extra=None, **options):
    """Start the job in processes of its own."""
    # os.environ is the environment before MPI touched it: an mpirun inside must not take itself for a child.
    environment = dict(os.environ) | {"PYTHONPATH": os.getcwd(), "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    chosen = {"samples": 20, "seed": 3, "block": 4} | options
    command = [sys.executable, str(script), "fake", f"--output={output}", *(f"--{k}={v}" for k, v in chosen.items())]
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    return subprocess.Popen(
        launcher + command, env=environment | (extra or {}), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(condition, process, seconds=60.0):
    """Wait until a condition holds; the process must live until then."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    pytest.fail("the job came to nothing")


def shards(path):
    return sorted(file.name for file in path.glob("shard-*.h5"))


def manifest(path):
    """What a set says of itself, less what may differ from one process to the next and decides nothing."""
    told = json.loads((path / "dataset.json").read_text())
    del told["environment"], told["code"]["version"]
    return told


def leftovers(path):
    return [*path.glob(".*.part*"), *path.glob(".claims-*")]


def said_once(sentence, caplog):
    """Tell whether rank 0 said one sentence, this one, and the other ranks nothing."""
    if world().rank > 0:
        return caplog.text == ""
    return sentence in caplog.text and caplog.text.count("\n") == 1


@needs_mpirun
def test_three_processes_make_the_same_set(tmp_path, reference, fake_job):
    job = start(fake_job, tmp_path / "set", ranks=3)
    output = job.communicate(timeout=120)[0]
    assert job.returncode == 0, output
    assert output.count("20 samples, 2 failed, hash") == 1  # one rank speaks for all
    assert manifest(tmp_path / "set") == manifest(reference)
    assert read_dataset(tmp_path / "set").hash == read_dataset(reference).hash
    assert leftovers(tmp_path / "set") == []


@needs_mpirun
def test_kill_of_a_rank_loses_only_what_was_in_flight(tmp_path, reference, fake_job, make_set):
    output, pids = tmp_path / "set", tmp_path / "pids"
    pids.mkdir()
    job = start(fake_job, output, ranks=2, delay=0.3, block=1, extra={"FAKE_PIDS": str(pids)})
    wait_for(lambda: len(shards(output)) >= 3, job)
    os.kill(min(int(file.name) for file in pids.iterdir()), signal.SIGKILL)
    job.communicate(timeout=120)
    assert job.returncode != 0
    done = {name: (output / name).stat().st_mtime_ns for name in shards(output)}
    assert 3 <= len(done) < 20
    with pytest.raises(ValueError, match="not finished"):
        read_dataset(output)
    assert read_dataset(output, allow_partial=True).ids.size > 0  # every shard with a name is whole
    assert make_set(output, block=1) == 0
    assert {name: (output / name).stat().st_mtime_ns for name in done} == done  # none was made twice
    assert read_dataset(output).hash == read_dataset(reference).hash
    assert leftovers(output) == []


def test_kill_while_writing_leaves_no_shard(tmp_path, reference, fake_job, make_set):
    job = start(fake_job, tmp_path / "set", extra={"FAKE_DIE": "shard-0002.h5"})
    job.communicate(timeout=60)
    assert job.returncode == -signal.SIGKILL
    assert shards(tmp_path / "set") == ["shard-0000.h5", "shard-0001.h5"]
    assert len(leftovers(tmp_path / "set")) == 2  # a file without its name, and the claims
    assert make_set(tmp_path / "set") == 0
    assert read_dataset(tmp_path / "set").hash == read_dataset(reference).hash
    assert leftovers(tmp_path / "set") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_the_user(tmp_path, fake_job, number):
    job = start(fake_job, tmp_path / "set", delay=0.1)
    wait_for(lambda: shards(tmp_path / "set"), job)
    job.send_signal(number)
    output = job.communicate(timeout=60)[0]
    assert job.returncode == 130
    assert "Stopped; the same command continues from here." in output
    assert "Traceback" not in output
    assert leftovers(tmp_path / "set") == []


def test_second_job_is_kept_out(tmp_path, fake_job, make_set, caplog):
    job = start(fake_job, tmp_path / "set", delay=0.2)
    wait_for(lambda: shards(tmp_path / "set"), job)
    assert make_set(tmp_path / "set") == 2
    assert f"is in use by another job (process {job.pid} on" in caplog.text
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=60)


def test_blocks_do_not_change_the_content_of_samples(tmp_path, reference, make_set):
    assert make_set(tmp_path / "set", block=7) == 0
    assert read_dataset(tmp_path / "set").hash == read_dataset(reference).hash


@pytest.mark.parametrize("samples", [8, 10])
def test_set_grows_to_what_it_would_have_been(tmp_path, reference, make_set, samples):
    assert make_set(tmp_path / "set", samples=samples) == 0
    assert read_dataset(tmp_path / "set").meta["samples"] == samples
    assert make_set(tmp_path / "set") == 0
    assert manifest(tmp_path / "set") == manifest(reference)


def test_finished_set_stays_as_it_is(tmp_path, reference, make_set):
    path = shutil.copytree(reference, tmp_path / "set")
    before = {file.name: file.stat().st_mtime_ns for file in path.glob("shard-*.h5")}
    assert make_set(path) == 0
    assert {file.name: file.stat().st_mtime_ns for file in path.glob("shard-*.h5")} == before


def test_damaged_shard_is_made_again(tmp_path, reference, make_set):
    path = shutil.copytree(reference, tmp_path / "set")
    with open(path / "shard-0003.h5", "r+b") as file:
        file.truncate(3000)
    assert make_set(path) == 0
    assert read_dataset(path).hash == read_dataset(reference).hash


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stiffness": 2.5}, "parameters.stiffness is 2.5, but the set was begun with 2.0"),
        ({"steps": 5}, "is 5, but the set was begun with 4"),
        ({"seed": 4}, "seed is 4, but the set was begun with 3"),
        ({"block": 5}, "block is 5, but the set was begun with 4"),
        ({"threads": 2}, "threads is 2, but the set was begun with 1"),
        ({"samples": 19}, "samples is 19, but the set was begun with 20 and cannot shrink"),
    ],
)
def test_resume_refuses_other_parameters(reference, make_set, caplog, options, sentence):
    before = (reference / "dataset.json").read_text()
    assert make_set(reference, **options) == 2
    assert said_once(sentence, caplog)
    assert (reference / "dataset.json").read_text() == before


def test_resume_refuses_other_code(reference, make_set, caplog, monkeypatch):
    monkeypatch.setattr(provenance, "source_hash", lambda path: "0" * 64)
    assert make_set(reference) == 2
    assert "code of fake_job, micro is not the code the set was begun with" in caplog.text


def test_shards_of_another_set_are_not_taken_over(tmp_path, reference, make_set, caplog):
    assert make_set(tmp_path / "set", seed=4) == 0
    shutil.copy(reference / "shard-0001.h5", tmp_path / "set")
    assert make_set(tmp_path / "set", seed=4) == 2
    assert "shard-0001.h5 was made with other parameters" in caplog.text
    (tmp_path / "set" / "dataset.json").unlink()
    assert make_set(tmp_path / "set", seed=4) == 2
    assert "holds shards but no dataset.json" in caplog.text


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"samples": "many"}, "Argument --samples: invalid int value: 'many'"),
        ({"block": -1}, "block must be at least 1, got -1"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"seed": -1}, "seed must lie between 0 and 2**63 - 1, got -1"),
        ({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"stepz": 1}, "Unrecognized arguments: --stepz=1"),
    ],
)
def test_bad_options(tmp_path, make_set, caplog, options, sentence):
    assert make_set(tmp_path / "set", **options) == 2  # on every rank
    assert said_once(sentence, caplog)
    assert not (tmp_path / "set").exists()


@pytest.mark.mpi
def test_output_that_is_a_file(shared_path, make_set, caplog):
    (shared_path / "file").write_text("not a directory")
    assert make_set(shared_path / "file") == 2
    assert said_once("output must be a directory", caplog)


@pytest.mark.mpi
def test_failure_of_one_rank_ends_all(shared_path, make_set, caplog):
    assert make_set(shared_path / "set", crash=9, delay=0.02) == 1  # on every rank, and none waits for ever
    assert said_once("failed: ZeroDivisionError: a bug in the solver", caplog)
    assert make_set(shared_path / "set") == 0
    data = read_dataset(shared_path / "set")
    assert data.ids.size == 18


@pytest.fixture
def shared_path(tmp_path):
    """A directory that all ranks of this test see."""
    comm = pytest.importorskip("mpi4py.MPI").COMM_WORLD
    path = comm.bcast(tmp_path, root=0)
    yield path
    comm.Barrier()


def test_code_hash_sees_numbers_not_comments(tmp_path):
    texts = {
        "plain": "def f(x):\n    return 2 * x\n",
        "told": '"""Doubles."""\n\n\ndef f(x):  # doubles\n    """Double x."""\n    return 2 * x\n',
        "other": "def f(x):\n    return 3 * x\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    plain, told, other = (provenance.source_hash(tmp_path / name) for name in texts)
    assert plain != other
    assert provenance.source_hash(tmp_path / "told") == told
    (tmp_path / "told").write_text('"""Doubles!"""\ndef f(x):\n    """Double it."""\n\n    return 2 * x\n')
    assert provenance.source_hash(tmp_path / "told") == told


def test_manifest_tells_how_the_set_was_made(reference):
    told = json.loads((reference / "dataset.json").read_text())
    assert told["command"].startswith("python3 -m micro.generate fake --samples 20 --seed 3 --block 4")
    assert told["arrays"]["stress"] == {"units": "Pa", "shape": [5, 6], "axes": "time, component"}
    assert [entry["samples"] for entry in told["shards"]] == [4] * 5
    assert sum(entry["failed"] for entry in told["shards"]) == told["failed"] == 2
    assert told["code"]["version"]


def test_run_from_python_makes_what_the_command_makes(tmp_path):
    options = {"steps": 4, "perturbation": 0.1, "increment": (0.01, 0.1), "cell_seed": 2, "block": 2}
    before = torch.get_num_threads()
    made = generate.run("lattice", output=tmp_path / "python", samples=4, seed=3, **options)
    assert torch.get_num_threads() == before
    words = "--samples 4 --seed 3 --steps 4 --perturbation 0.1 --increment 0.01 0.1 --cell-seed 2 --block 2"
    assert generate.main(["lattice", "--output", str(tmp_path / "command"), *words.split()]) == 0
    told = manifest(tmp_path / "command")
    assert manifest(tmp_path / "python") == told
    assert made["hash"] == told["hash"] and made["complete"]
    with pytest.raises(ValueError, match="Unrecognized arguments: --stepz=1"):
        generate.run("lattice", output=tmp_path / "none", samples=4, stepz=1)
    with pytest.raises(ValueError, match="invalid choice: 'latice'"):
        generate.run("latice", output=tmp_path / "none", samples=4)


@needs_mpirun
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_full_disk_ends_all_ranks_with_one_sentence_and_loses_nothing(
    tmp_path, reference, fake_job, make_set, ranks
):
    """No file may grow beyond 6000 bytes: the manifest can be written, a shard cannot."""
    output = tmp_path / "set"
    job = start(fake_job, output, ranks=ranks, extra={"FAKE_LIMIT": "6000"})
    said = job.communicate(timeout=120)[0]
    assert job.returncode == 1, said
    assert said.count("cannot be written to") == 1, said
    assert f"{output}: File too large." in said
    assert "Traceback" not in said
    assert shards(output) == leftovers(output) == []
    assert make_set(output) == 0
    assert read_dataset(output).hash == read_dataset(reference).hash


def test_samples_that_do_not_fit_on_the_disk_are_refused_with_an_estimate(tmp_path, make_set, caplog):
    assert make_set(tmp_path / "set", samples=10**15, block=10**10) == 2
    assert said_once("samples 1000000000000000 need about", caplog)
    assert not (tmp_path / "set").exists()


def test_an_argument_that_the_source_refuses_for_a_sample_is_bad_input(tmp_path, caplog):
    words = "taylor --samples 1 --grains 1 --steps 20 --strain 90".split()
    assert generate.main([*words, f"--output={tmp_path / 'set'}"]) == 2
    assert said_once("strain 90 is too large: no path of sample 0 respects the margin", caplog)
