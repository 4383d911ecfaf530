"""Train a law on a data set and export it, with its errors, as one artifact.

    python3 -m surrogates.train pca-net --data DIR --output FILE.pt [--epochs N --seed S --device cpu --threads N]
    python3 -m surrogates.train recurrent --data DIR --data DIR2 --output FILE.pt --checkpoint FILE --resume
    python3 -m surrogates.train tann --data DIR --output FILE.pt [--variables N --internal given]
    python3 -m surrogates.train tann-network --data DIR --output FILE.pt

A kind of law is a module of this package with
- a frozen dataclass of its configuration, whose fields are the options on the command line (`epochs`, `seed` needed);
  a field with the metadata `export` shapes the exported law only, so a finished checkpoint exports anew with another;
- `build(config, train) -> model`;
- `fit(model, train, held_out, config, *, progress, checkpoint) -> dict of numbers`;
- `export(model, train, config) -> law`, a module that `torch.jit.script` accepts and that has, besides the methods of
  the artifact, `describe() -> {"state": ..., "observe": ..., "time_window": ...}` for the manifest (a plain Python
  method); may be left out where the model is the law;
- `errors(model, law, held_out, config) -> dict of numbers`: held-out errors, `full` and `deviatoric` among them; may be
  left out where driving the law along the paths is all there is to say (`surrogates.path.errors.resolution_report`);
- `load(paths, held_out, allow_partial=) -> (train, held_out)` and `material(train) ->
surrogates.artifact.export.Material`,
  where the data are not stretches and stresses of polycrystals; the samples have a length, `hash` and `meta`.
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import logging
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

import torch

from surrogates.artifact.export import Material, Origin, write_law
from surrogates.path.data import DENSITY, Samples, crystal_constant, load_samples, moduli, trained_range
from surrogates.path.errors import resolution_report
from surrogates.training.checkpoint import Checkpoint
from surrogates.training.device import check_device

logger = logging.getLogger(__name__)

KINDS = {
    "pca-net": ("surrogates.path.pca_net", "PCANetConfig"),
    "recurrent": ("surrogates.path.recurrent", "RecurrentConfig"),
    "tann": ("surrogates.tann.train", "TannConfig"),
    "tann-network": ("surrogates.tann.network.train", "TannNetworkConfig"),
}


def crystal_material(train: Samples) -> Material:
    """What the manifest of a law of polycrystals says of them."""
    density = crystal_constant(train, "density", DENSITY)
    return Material("finite", 3, density, moduli(train), trained_range(train))


def add_config(parser: argparse.ArgumentParser, config: type) -> None:
    """Give the parser one option for each field of a configuration dataclass."""
    hints = typing.get_type_hints(config)
    for entry in dataclasses.fields(config):
        name, kind = "--" + entry.name.replace("_", "-"), hints[entry.name]
        text = f"{entry.metadata.get('help', entry.name.replace('_', ' '))} (default: {entry.default})"
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=entry.default, help=text)
        elif typing.get_origin(kind) is typing.Literal:
            parser.add_argument(name, choices=typing.get_args(kind), default=entry.default, help=text)
        else:
            parser.add_argument(name, type=kind, default=entry.default, metavar="X", help=text)


def make_parser(kind: str, config: type) -> argparse.ArgumentParser:
    """Options of one kind of law."""
    parser = argparse.ArgumentParser(prog=f"surrogates.train {kind}", description=f"Train and export a {kind} law.")
    parser.add_argument("--data", action="append", required=True, metavar="DIR", help="data set; repeat for more")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="artifact; its manifest goes beside")
    parser.add_argument("--name", default="", help="name of the law in its manifest (default: that of the file)")
    parser.add_argument("--held-out", type=int, metavar="N", help="paths held out of each set (default: 10 %%)")
    parser.add_argument("--allow-partial", action="store_true", help="accept a data set whose job has not finished")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of PyTorch and BLAS (default: 1)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="where training keeps its state")
    parser.add_argument("--every", type=int, default=10, metavar="N", help="epochs between checkpoints (default: 10)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint if it is there")
    add_config(parser, config)
    return parser


def train_law(
    kind: str, config: Any, train: Any, held_out: Any, output: Path, *, checkpoint: Checkpoint | None,
    device: str, name: str, command: str, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    """Build, fit, test and export one law.

    Returns:
        The manifest of the artifact written.
    """
    module = importlib.import_module(KINDS[kind][0])
    model = module.build(config, train).to(device)
    fitted = module.fit(model, train, held_out, config, progress=progress, checkpoint=checkpoint)
    law = module.export(model, train, config) if hasattr(module, "export") else model
    if hasattr(module, "errors"):
        errors = module.errors(model, law, held_out, config)
    else:
        errors = resolution_report(law, held_out)
    meta = train.meta[0] if train.meta else {}
    return write_law(
        output,
        law,
        kind=kind,
        name=name,
        material=getattr(module, "material", crystal_material)(train),
        origin=Origin(
            hash=train.hash,
            code_version=str(meta.get("code", {}).get("version", "unknown")),
            samples=len(train),
            seed=int(meta.get("seed", -1)),
            command="; ".join(str(entry.get("command", "")) for entry in train.meta),
        ),
        errors={**errors, "held_out_paths": len(held_out)},
        training={
            "command": command,
            "seed": config.seed,
            "epochs": config.epochs,
            "config": dataclasses.asdict(config),
            "parameters": sum(p.numel() for p in model.parameters()),
            **fitted,
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 2 where the input is refused."""
    words = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(prog="surrogates.train", description="Train a law and export it as an artifact.")
    first.add_argument("kind", choices=tuple(KINDS), help="the law; give it --help for its options")
    kind = first.parse_args(words[:1]).kind
    module, config_name = KINDS[kind]
    try:
        config_type = getattr(importlib.import_module(module), config_name)
        options = vars(make_parser(kind, config_type).parse_args(words[1:]))
        config = config_type(**{entry.name: options[entry.name] for entry in dataclasses.fields(config_type)})
        if options["threads"] < 1 or options["every"] < 1:
            raise ValueError("threads and every must be at least 1.")
        if options["resume"] and options["checkpoint"] is None:
            raise ValueError("resume needs the checkpoint to go on from: give --checkpoint FILE.")
        check_device(options["device"])
        torch.set_num_threads(options["threads"])
        load = getattr(importlib.import_module(module), "load", load_samples)
        train, held_out = load(options["data"], options["held_out"], allow_partial=options["allow_partial"])
        checkpoint = None
        if options["checkpoint"] is not None:
            trained = {e.name: options[e.name] for e in dataclasses.fields(config) if not e.metadata.get("export")}
            belongs = json.dumps([kind, trained, train.hash, len(train)], sort_keys=True)
            fingerprint = hashlib.sha256(belongs.encode()).hexdigest()
            checkpoint = Checkpoint(options["checkpoint"], options["every"], options["resume"], fingerprint)
        manifest = train_law(
            kind, config, train, held_out, options["output"], checkpoint=checkpoint, device=options["device"],
            name=options["name"], command=" ".join(["python3 -m surrogates.train", *words]),
            progress=sys.stderr.isatty(),
        )  # fmt: skip
    except (ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    shown = {key: manifest[key] for key in ("errors", "certificate")}
    sys.stdout.write(json.dumps(shown, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
