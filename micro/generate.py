"""The data job: ``mpirun -n N python3 -m micro.generate taylor --output DIR --samples N --seed S ...``.

Blocks of samples are shared among the ranks; without mpi4py the job is one process. Stop it or kill it at any moment
and give the same command again, on any number of ranks: it goes on, and ends with the same content. Give it with
more samples and the set grows.
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
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from micro.threads import check_threads, limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before the modules below load NumPy and PyTorch

from micro.data import job
from micro.data.manifest import parameter_hash
from micro.data.provenance import code_record, environment_record
from micro.data.ranks import Ranks, world
from micro.data.shards import SCHEMA
from micro.data.source import Source

logger = logging.getLogger("micro.generate")


class Parser(argparse.ArgumentParser):
    """A parser that raises where argparse would end the process, so that all ranks end alike."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint as ValueError."""
        raise ValueError(f"{message} (see {self.prog} --help).")


def standard_sources() -> list[type[Source]]:
    """Return the sources of this package; loaded late, torch takes its time."""
    from micro.crystal.source import TaylorSource
    from micro.lattice.source import LatticeSource
    from micro.voxel.source import VoxelSource

    return [TaylorSource, LatticeSource, VoxelSource]


def make_parser(sources: Sequence[type[Source]]) -> argparse.ArgumentParser:
    """Return the parser, with one subcommand a source."""
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
        sub.add_argument("--seed", default=0, type=int, metavar="S", help="seed; one random stream a sample")
        sub.add_argument("--block", default=16, type=int, metavar="N", help="samples solved at a time, and a shard")
        sub.add_argument(
            "--threads", default=1, type=int, metavar="N", help="threads per rank; they decide the content"
        )
        sub.add_argument("--device", default="cpu", metavar="D", help="cpu, or cuda (ranks share the devices)")
        source.add_arguments(sub)
    return parser


def canonical_command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the same set, without the place it is written to."""
    words = ["python3", "-m", "micro.generate", arguments.source]
    for name, value in vars(arguments).items():
        if name not in ("source", "make", "output"):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def check(arguments: argparse.Namespace) -> None:
    """Check the options that all sources share.

    Raises:
        ValueError: an option is out of its range.
    """
    for name in ("samples", "block"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(arguments, name)}.")
    check_threads(arguments.threads)
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
        raise ValueError("device is cuda, but torch finds no cuda device here.")
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
        "arrays": {
            name: {"units": field.units, "shape": list(field.shape), "axes": field.axes}
            for name, field in source.fields.items()
        },
        "code": code_record(Path(inspect.getfile(type(source)))),
        "environment": environment_record(),
        "command": canonical_command(arguments),
        "complete": False,
        "hash": None,
        "failed": None,
        "shards": [],
    }
    return manifest | {"parameter_hash": parameter_hash(manifest)}


def generate(argv: Sequence[str] | None, sources: Sequence[type[Source]], ranks: Ranks) -> None:
    """Parse the options and do the job; collective."""
    with contextlib.ExitStack() as stack:
        if ranks.rank > 0:  # --help once is enough
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        arguments = make_parser(sources).parse_args(argv)
    check(arguments)
    device, arguments.device = arguments.device, place(arguments.device, ranks.local)
    source = arguments.make.from_arguments(arguments)
    arguments.device = device
    manifest = ranks.on_first(lambda: make_manifest(arguments, source))
    manifest = job.run(source, arguments.output, manifest, ranks)
    logger.info("%d samples, %d failed, hash %s", manifest["samples"], manifest["failed"], manifest["hash"])


def keep_memory() -> None:
    """Let glibc keep freed memory: giving it back after every tensor operation took half of a solve's time."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            libc.mallopt(option, 1 << 30)


def interrupt(*_: object) -> NoReturn:
    """Treat the launcher's SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None, sources: Sequence[type[Source]] | None = None) -> int:
    """Run the job from a command line and return the exit code: 2 bad input, 1 failure, 130 stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    keep_memory()
    ranks = Ranks()
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        ranks = world()
        if ranks.rank > 0:
            logging.getLogger("micro").setLevel(logging.CRITICAL)  # all ranks fail alike, one of them says why
        generate(argv, standard_sources() if sources is None else sources, ranks)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except (OSError, RuntimeError) as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("Stopped; the same command goes on from here.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
        logging.getLogger("micro").setLevel(logging.NOTSET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
