"""Reference paths of a shipped path law: a few paths and the stress of its polycrystal, in one small file beside it.

    python3 -m surrogates.path.reference_paths choose DIR --output FILE.npz [--count 8]
    python3 -m surrogates.path.reference_paths record LAW.pt FILE.npz

`choose` takes the first path of each protocol of a data set, and more in order if there are fewer protocols. `record`
measures the law on them and writes the error into its manifest (`errors.reference_paths`). A test holds the shipped law
to this error, and a law with random weights fails it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from micro.data.cli import Parser, check_count
from micro.data.dataset import good_samples, read_arrays
from micro.data.files import whole_file
from surrogates.artifact import load_law
from surrogates.artifact.export import replace_manifest, write_beside
from surrogates.path.data import Samples, mandel
from surrogates.path.errors import follow, relative_errors
from surrogates.tensors import deviator


def choose(folder: str | Path, count: int = 8) -> Samples:
    """The first path of each protocol of a data set, then others in their order, `count` in all.

    Raises:
        ValueError: The set has fewer paths.
    """
    arrays, _ = good_samples(read_arrays(folder)[0], folder)
    check_count("count", count)
    missing = [name for name in ("protocol", "U") if name not in arrays]
    if missing or count > len(arrays["U"]):
        got = f"no {missing[0]}" if missing else f"{len(arrays['U'])} paths"
        raise ValueError(f"{folder} must be a set of at least {count} strain paths, got {got}.")
    first = np.unique(arrays["protocol"], return_index=True)[1]
    others = [row for row in range(len(arrays["U"])) if row not in first]
    rows = np.array([*sorted(first), *others][:count])
    names = ("U", "stress", "duration", "time", "sample")
    return Samples(*(arrays[name][rows] for name in names))


def write_paths(path: Path, samples: Samples) -> None:
    """Write paths: stretch and stress in single precision, times in double."""
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file, U=samples.U.astype(np.float32), stress=samples.stress.astype(np.float32), time=samples.time,
            duration=samples.duration, ids=samples.ids,
        )  # fmt: skip


def read_paths(path: Path) -> Samples:
    """Read what `write_paths` wrote.

    Raises:
        ValueError: The file is missing or is no such file.
    """
    try:
        with np.load(path) as stored:
            arrays = {name: np.asarray(stored[name], dtype=np.float64) for name in ("U", "stress", "duration", "time")}
            ids = np.asarray(stored["ids"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} must be a file of reference paths, and cannot be read: {error}.") from error
    arrays["U"][:, 0] = (1, 1, 1, 0, 0, 0)
    return Samples(arrays["U"], arrays["stress"], arrays["duration"], arrays["time"], ids)


def reference_error(law: object, samples: Samples) -> float:
    """Mean relative error of the deviator of a law along reference paths."""
    return float(relative_errors(deviator(follow(law, samples)), deviator(mandel(samples.stress))).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 done, 2 bad input."""
    parser = Parser(
        prog="surrogates.path.reference_paths", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    kinds = parser.add_subparsers(dest="work", required=True)
    one = kinds.add_parser("choose", help="choose paths of a data set")
    one.add_argument("data", type=Path, metavar="DIR", help="data set")
    one.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .npz file to write")
    one.add_argument("--count", type=int, default=8, metavar="N", help="number of paths (default: 8)")
    two = kinds.add_parser("record", help="measure a law and write the error into its manifest")
    two.add_argument("law", type=Path, metavar="LAW", help="the artifact")
    two.add_argument("paths", type=Path, metavar="FILE", help="the .npz file of its reference paths")
    try:
        o = parser.parse_args(arguments)
        if o.work == "choose":
            write_paths(o.output, choose(o.data, o.count))
            return 0
        samples, law = read_paths(o.paths), load_law(o.law)
        error = reference_error(law.module, samples)
        manifest = dict(law.stored) | {"errors": dict(law.stored["errors"]) | {"reference_paths": error}}
        write_beside(o.law, replace_manifest(o.law, manifest))
    except (ValueError, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    sys.stdout.write(json.dumps({"reference_paths": error}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
