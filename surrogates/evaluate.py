"""Errors of an exported law on the held-out paths of a data set, its own or another's.

python3 -m surrogates.evaluate surrogates/pretrained/recurrent.pt --data DIR [--held-out N]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from micro.threads import add_threads_option, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

from surrogates.artifact.load import load_law
from surrogates.path.data import load_samples
from surrogates.path.errors import resolution_report


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 2 where the input is refused."""
    parser = argparse.ArgumentParser(prog="surrogates.evaluate", description="Errors of a law on held-out paths.")
    parser.add_argument("law", type=Path, help="artifact")
    parser.add_argument("--data", action="append", required=True, metavar="DIR", help="data set; repeat for more")
    parser.add_argument("--held-out", type=int, metavar="N", help="paths held out of each set (default: 10 %%)")
    add_threads_option(parser)
    options = parser.parse_args(argv)
    try:
        use_threads(options.threads)
        law = load_law(options.law)
        _, held_out = load_samples(options.data, options.held_out)
        found = resolution_report(law.module, held_out)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps({**found, "held_out_paths": len(held_out)}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
