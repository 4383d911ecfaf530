"""Data sets of the micro solvers: ``mpirun -n N python3 -m micro.generate taylor --output DIR --samples N ...``.

``python3 -m micro.generate CONFIG.toml`` takes the options from a file, where they have the same names, and the source
as ``source``; options after it override the file.

Blocks of samples are distributed among the ranks; without mpi4py the job is one process. It may be stopped or killed at
any moment: the same command, on any number of ranks, continues it and ends with the same content. The same command with
more samples extends the set. ``--verify`` solves samples of a set again and writes nothing. `run` is the same from
Python.
"""

import argparse
import contextlib
import ctypes
import inspect
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from micro.threads import check_threads, limit_threads

if __name__ == "__main__":
    from micro.data.config import file_threads

    limit_threads([*file_threads(sys.argv[1:]), *sys.argv])  # before the modules below load NumPy and PyTorch

from micro.data import job
from micro.data.cli import Parser, check_count
from micro.data.config import config_words, is_config, read_config
from micro.data.manifest import describe_fields, parameter_hash
from micro.data.provenance import code_record, environment_record
from micro.data.ranks import Ranks, world
from micro.data.shards import SCHEMA
from micro.data.source import Source
from micro.data.verify import FACTOR, report, verify

logger = logging.getLogger("micro.generate")
VERIFY_BY = ("tolerance", "reference")
#: Options that say nothing of the content of a set.
ASIDE = ("source", "make", "output", "verify", "verify_by")


def standard_sources() -> list[type[Source]]:
    """Return the sources of this package; imported late, because loading PyTorch is slow."""
    from micro.crystal.cell_source import CellSource
    from micro.crystal.source import TaylorSource
    from micro.lattice.source import LatticeSource
    from micro.voxel.source import VoxelSource

    return [TaylorSource, CellSource, LatticeSource, VoxelSource]


def make_parser(sources: Sequence[type[Source]]) -> argparse.ArgumentParser:
    """Return the parser, with one subcommand per source."""
    parser = Parser(prog="micro.generate", description=(__doc__ or "").split("\n\n", 1)[1])
    commands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for source in sources:
        sub = commands.add_parser(
            source.name,
            help=(source.__doc__ or "").strip().split("\n")[0],
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(make=source)
        sub.add_argument("--output", required=True, type=Path, metavar="DIR", help="directory of the data set")
        sub.add_argument("--samples", required=True, type=int, metavar="N", help="number of samples")
        sub.add_argument("--seed", default=0, type=int, metavar="S", help="seed; each sample has a stream of its own")
        sub.add_argument("--block", default=16, type=int, metavar="N", help="samples per shard, solved together")
        sub.add_argument(
            "--threads", default=1, type=int, metavar="N", help="threads per rank; the content of the set depends on it"
        )
        sub.add_argument("--device", default="cpu", metavar="D", help="cpu, or cuda (ranks take the devices in turn)")
        sub.add_argument(
            "--verify", default=0, nargs="?", const=4, type=int, metavar="N",
            help="make nothing, but solve N samples of the set again, 4 if N is not given, and print the differences",
        )  # fmt: skip
        sub.add_argument(
            "--verify-by", default="tolerance", choices=VERIFY_BY,
            help="verify with a ten times tighter tolerance, or with the independent reference of the source",
        )  # fmt: skip
        source.add_arguments(sub)
    return parser


def canonical_command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the same set, without its output directory."""
    words = ["python3", "-m", "micro.generate", arguments.source]
    for name, value in vars(arguments).items():
        if name not in ASIDE:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def check(arguments: argparse.Namespace) -> None:
    """Check the options that all sources have.

    Raises:
        ValueError: an option is out of its range.
    """
    for name in ("samples", "block"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(arguments, name)}.")
        if getattr(arguments, name) >= 2**63:
            raise ValueError(f"{name} must be below 2**63, got {getattr(arguments, name)}.")
    check_threads(arguments.threads)
    if arguments.verify != 0:
        check_count("verify", arguments.verify, 10**6)
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"seed must lie between 0 and 2**63 - 1, got {arguments.seed}.")
    if arguments.device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {arguments.device!r}.")


def place(device: str, local: int) -> str:
    """Return the device of a rank: the ranks of a machine take its cuda devices in turn."""
    if device != "cuda":
        return device
    import torch

    if not torch.cuda.is_available():
        raise ValueError("device is cuda, but PyTorch finds no CUDA device here.")
    return f"cuda:{local % torch.cuda.device_count()}"


def make_manifest(arguments: argparse.Namespace, source: Source) -> dict:
    """Return the manifest of the set that a job is to make."""
    manifest = {
        "schema": SCHEMA,
        "source": source.name,
        "samples": arguments.samples,
        "seed": arguments.seed,
        "block": arguments.block,
        "device": arguments.device,
        "threads": arguments.threads,
        "parameters": source.parameters,
        "tolerances": source.tolerances,
        "arrays": describe_fields(source.fields),
        "code": code_record(Path(inspect.getfile(type(source)))),
        "environment": environment_record(),
        "command": canonical_command(arguments),
        "complete": False,
        "hash": None,
        "failed": None,
        "shards": [],
    }
    return manifest | {"parameter_hash": parameter_hash(manifest)}


def prepare(
    argv: Sequence[str] | None, sources: Sequence[type[Source]], ranks: Ranks
) -> tuple[argparse.Namespace, Source]:
    """Parse and check the options and make the source, on this rank.

    Raises:
        ValueError: an option is unknown or does not fit.
    """
    with contextlib.ExitStack() as stack:
        if ranks.rank > 0:  # rank 0 prints the help
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        parser = make_parser(sources)
        arguments = parser.parse_args(expand(sys.argv[1:] if argv is None else argv, parser))
    check(arguments)
    device, arguments.device = arguments.device, place(arguments.device, ranks.local)
    source = arguments.make.from_arguments(arguments)
    arguments.device = device
    return arguments, source


def expand(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Replace the configuration file that a command line begins with by its options.

    Raises:
        ValueError: the file, its source or one of its options does not fit.
    """
    if not is_config(argv):
        return list(argv)
    path = Path(argv[0])
    content = read_config(path)
    name = content["source"]
    commands = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if name not in commands:
        raise ValueError(f"source in {path} must be one of {', '.join(commands)}, got {name!r}.")
    options = {key: value for key, value in content.items() if key != "source"}
    return [name, *config_words(path, name, options, commands[name]), *argv[1:]]


def print_verification(arguments: argparse.Namespace, source: Source) -> dict:
    """Verify samples of a set, print the differences and return the manifest of the job; on one rank."""
    manifest = make_manifest(arguments, source)
    by, solve = "the independent reference", getattr(source, "reference", None)
    if arguments.verify_by == "tolerance":
        by = f"a tolerance {FACTOR:g} times tighter"
        solve = arguments.make.from_arguments(arguments.make.tighten(arguments, FACTOR)).solve
    elif solve is None:
        raise ValueError(f"verify-by must be tolerance, the source {source.name} has no independent reference.")
    sys.stdout.write(report(verify(arguments.output, manifest, arguments.verify, solve), by) + "\n")
    return manifest


def generate(argv: Sequence[str] | None, sources: Sequence[type[Source]], ranks: Ranks) -> dict:
    """Parse the options and make the set; collective.

    Returns:
        The manifest of the finished set, or of the one that was verified.
    """
    arguments, source = ranks.together(lambda: prepare(argv, sources, ranks))
    if arguments.verify:
        return ranks.on_first(lambda: print_verification(arguments, source))
    manifest = ranks.on_first(lambda: make_manifest(arguments, source))
    manifest = job.run(source, arguments.output, manifest, ranks)
    logger.info("%d samples, %d failed, hash %s", manifest["samples"], manifest["failed"], manifest["hash"])
    return manifest


def words(options: dict[str, Any]) -> Iterator[str]:
    """Write options as the words of a command line: names by keyword, several values as a list or tuple."""
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, list | tuple):
            yield from (option, *map(str, value))
        else:
            yield f"{option}={value}"


def run(
    source: str,
    *,
    output: str | Path,
    samples: int,
    seed: int = 0,
    sources: Sequence[type[Source]] | None = None,
    **options: Any,
) -> dict:
    """Make a data set from Python; the same options as those of the command give the same content.

    Collective: under mpirun all ranks call it with the same arguments. A set that was begun is continued.

    Args:
        source: name of the source, "taylor", "cell", "lattice" or "voxels".
        output: directory of the set.
        samples: number of samples.
        seed: seed; each sample has a random stream of its own.
        sources: sources to choose from; by default those of this package.
        options: further options of the command by name, with underscores, for instance ``grains=16``,
            ``strain=(0.1, 0.5)`` or ``grain_seed=3``.

    Returns:
        The manifest of the finished set; ``micro.data.dataset.read_dataset(output)`` reads it.

    Raises:
        ValueError: an option is unknown or does not fit, or the directory holds another set.
        OSError: a file cannot be written.
        RuntimeError: a rank failed.
    """
    import torch

    argv = [source, *words({"output": output, "samples": samples, "seed": seed} | options)]
    threads = torch.get_num_threads()
    try:
        return generate(argv, standard_sources() if sources is None else sources, world())
    finally:
        torch.set_num_threads(threads)  # a source uses the threads of the set


def keep_memory() -> None:
    """Let glibc keep freed memory: returning it after every tensor operation took half of the time of a solve."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            libc.mallopt(option, 1 << 30)


def interrupt(*_: object) -> NoReturn:
    """Treat the launcher's SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt


def sentence(error: BaseException) -> str:
    """Return the message of an error as one sentence."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or 'A file'} cannot be read or written: {error.strerror}."
    return " ".join(str(error).split()) or f"{type(error).__name__}."


def main(argv: Sequence[str] | None = None, sources: Sequence[type[Source]] | None = None) -> int:
    """Run the job from a command line and return the exit code: 0 done, 2 bad input, 1 failure, 130 stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    keep_memory()
    ranks = Ranks()
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        ranks = world()
        if ranks.rank > 0:
            logging.getLogger("micro").setLevel(logging.CRITICAL)  # all ranks fail alike, and one of them reports it
        generate(argv, standard_sources() if sources is None else sources, ranks)
    except ValueError as error:
        logger.error("%s", sentence(error))
        return 2
    except (OSError, RuntimeError, MemoryError) as error:
        logger.error("%s", sentence(error))
        return 1
    except KeyboardInterrupt:
        logger.error("Stopped; the same command continues from here.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
        logging.getLogger("micro").setLevel(logging.NOTSET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
