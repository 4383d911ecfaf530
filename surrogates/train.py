"""Train a law or a network on a data set and write it, with its held-out errors, to one file.

    python3 -m surrogates.train KIND --data DIR --output FILE.pt [--epochs N --seed S --device cpu --threads N ...]
    python3 -m surrogates.train KIND --help

    KIND           trained on                   result
    recurrent      strain paths of a crystal    recurrent law in time: viscoplastic elements
    pca-net        strain paths of a crystal    history map of paper 1
    johnson-cook   strain paths of a crystal    constants of Johnson-Cook, a law to compare with
    tann           paths of a lattice cell      thermodynamics-based law with a quadratic free energy
    tann-network   paths of a lattice cell      thermodynamics-based network of paper 2
    lattice-exact  no data: the cell itself     exact law of a lattice cell
    voxels         voxel cells                  network that predicts the effective stiffness of a cell

`--data` may be repeated. With `--checkpoint FILE --resume` a stopped training continues to the same result.
`run` does the same from Python:

    result = surrogates.train.run("recurrent", data="data/paths", output="law.pt", epochs=100)
    law = surrogates.artifact.load_law(result.path)
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from micro.data.cli import Parser
from micro.threads import add_threads_option, check_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

from surrogates.training.checkpoint import Checkpoint
from surrogates.training.config import add_config, check_device, check_output
from surrogates.training.kind import Kind, Record

#: Modules of the kinds; each implements `surrogates.training.kind.Kind`.
KINDS = {
    "recurrent": "surrogates.path.recurrent_training",
    "pca-net": "surrogates.path.pca_net",
    "johnson-cook": "surrogates.path.johnson_cook",
    "tann": "surrogates.tann.train",
    "tann-network": "surrogates.tann.network.train",
    "lattice-exact": "surrogates.tann.exact",
    "voxels": "surrogates.cells.train",
}


@dataclass(frozen=True)
class Result:
    """What a training wrote.

    Attributes:
        path: The file: an artifact, a voxel network, or the JSON file of classical constants.
        manifest: Its manifest, which also stands beside it as `.json`.
    """

    path: Path
    manifest: dict[str, Any]


def load_kind(kind: str) -> Kind:
    """The module of a kind.

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind}.")
    return cast(Kind, importlib.import_module(KINDS[kind]))


def run(
    kind: str, *, output: str | Path, data: str | Path | Sequence[str | Path] = (), name: str = "",
    held_out: int | None = None, allow_partial: bool = False, device: str = "cpu", threads: int | None = None,
    checkpoint: str | Path | None = None, every: int = 10, resume: bool = False, progress: bool = False,
    command: str = "", **config: Any,
) -> Result:  # fmt: skip
    """Train and write one law or network; the same as the command, from Python.

    Args:
        kind: One of `KINDS`.
        output: The file to write; its manifest is written beside it.
        data: Folder of a data set, or several of them.
        name: Name of the law in its manifest; empty for that of the file.
        held_out: Number of samples held out of each data set; None for a tenth.
        allow_partial: Accept a data set whose job has not finished.
        device: "cpu", "cuda", "cuda:1" and so on.
        threads: Threads of PyTorch; None leaves them as they are.
        checkpoint: File that keeps the state of the training.
        every: Epochs between two writes of it.
        resume: Continue from the checkpoint if it exists.
        progress: Show a progress bar.
        command: What the manifest records as the command; empty for a call of this function.
        **config: Fields of the configuration of the kind, for instance `epochs` and `seed`.

    Returns:
        The file and its manifest.

    Raises:
        ValueError: An argument, a data set or the checkpoint does not fit; nothing is written.
        RuntimeError: The training failed, for instance because its loss is no longer finite.
    """
    module = load_kind(kind)
    settings = make_config(kind, module, config)
    paths = [data] if isinstance(data, (str, Path)) else list(data)
    if bool(paths) != bool(module.DATA):
        wanted = "given" if module.DATA else "left out"
        raise ValueError(f"data must be {wanted} for kind {kind}, got {len(paths)} data sets.")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}.")
    if resume and checkpoint is None:
        raise ValueError("resume needs a checkpoint to continue from: give --checkpoint FILE.")
    check_device(device)
    if threads is not None:
        use_threads(threads)
    output, kept = Path(output), None if checkpoint is None else Path(checkpoint)
    prepare_outputs(output, kept, [Path(path) for path in paths], module.SUFFIX)
    train, held = module.load(paths, held_out, allow_partial=allow_partial)
    fingerprint = "" if kept is None else identity(kind, settings, train)
    store = None if kept is None else Checkpoint(kept, every, resume, fingerprint)
    model = module.build(settings, train).to(device)
    fitted = module.fit(model, train, held, settings, progress=progress, checkpoint=store)
    law = module.export(model, train, settings)
    errors = module.errors(model, law, held, settings)
    training = {
        "command": command or f"surrogates.train.run({kind!r})", "seed": settings.seed, "epochs": settings.epochs,
        "config": dataclasses.asdict(settings), "parameters": sum(p.numel() for p in model.parameters()), **fitted,
    }  # fmt: skip
    record = Record(kind, name, 0 if held is None else len(held), errors, training)
    return Result(output, module.write(output, law, train, settings, record))


def make_config(kind: str, module: Kind, values: dict[str, Any]) -> Any:
    """The configuration of a kind from its fields by name.

    Raises:
        ValueError: There is no such field, or a value does not fit.
    """
    known = [entry.name for entry in dataclasses.fields(module.Config)]
    for name in values:
        if name not in known:
            raise ValueError(f"{name} is no field of the configuration of {kind}, which has {', '.join(known)}.")
    return module.Config(**values)


def identity(kind: str, config: Any, train: Any) -> str:
    """Fingerprint of what a training depends on: kind, configuration without the options of the export, and data."""
    fields = {e.name: getattr(config, e.name) for e in dataclasses.fields(config) if not e.metadata.get("export")}
    content = [kind, fields, *([] if train is None else [train.hash, len(train)])]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def prepare_outputs(output: Path, checkpoint: Path | None, read: list[Path], suffix: str) -> None:
    """Make the folders of the output, and check, before the training begins, that it can be written.

    Raises:
        ValueError: A file cannot be written, has the wrong ending, or would take the place of another one.
    """
    if output.suffix != suffix:
        raise ValueError(f"output must end in {suffix}, got {output}.")
    kept = [] if checkpoint is None else [checkpoint]
    files = [("output", output, [*read, *kept])]
    if suffix != ".json":
        files.append(("output's manifest", output.with_suffix(".json"), [*read, *kept]))
    files += [("checkpoint", path, read) for path in kept]
    for name, path, others in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{name} must be in a folder that can be made, got {path}: {error.strerror}.") from error
        check_output(name, path, others)


def make_parser(kind: str, module: Kind) -> Parser:
    """The options of one kind."""
    parser = Parser(prog=f"surrogates.train {kind}", description=f"Train a law or network of kind {kind} and write it.")
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help=f"the {module.SUFFIX} file to write")
    add("--name", default="", help="name of the law in its manifest (default: that of the file)")
    if module.DATA:
        add("--data", action="append", required=True, metavar="DIR", help=f"{module.DATA}; may be repeated")
        add("--held-out", type=int, metavar="N", help="samples held out of each data set (default: a tenth)")
        add("--allow-partial", action="store_true", help="accept a data set whose job has not finished")
        add("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
        add("--checkpoint", type=Path, metavar="FILE", help="file for the state of the training")
        add("--every", type=int, default=10, metavar="N", help="epochs between checkpoints (default: 10)")
        add("--resume", action="store_true", help="continue from the checkpoint if it exists")
    add_threads_option(parser)
    add_config(parser, module.Config)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 done, 2 bad input, 1 failure."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = Parser(
        prog="surrogates.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    first.add_argument("kind", choices=tuple(KINDS), help="what to train; give it --help for its options")
    try:
        kind = first.parse_args(words[:1]).kind
        options = vars(make_parser(kind, load_kind(kind)).parse_args(words[1:]))
        check_threads(options["threads"])
        result = run(
            kind, **options, command=" ".join(["python3 -m surrogates.train", *words]), progress=sys.stderr.isatty()
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (RuntimeError, MemoryError) as error:
        lines = str(error).strip().splitlines() or ["The memory of this machine is exhausted."]
        sys.stderr.write(f"{lines[0]}\n")
        return 1
    shown = {key: result.manifest[key] for key in ("parameters", "errors", "certificate") if key in result.manifest}
    sys.stdout.write(json.dumps(shown, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
