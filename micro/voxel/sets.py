"""The four data sets of paper 3 in its sizes, by one command: ``python3 -m micro.voxel.sets --output DIR``.

Each is a set of ``micro.generate voxels`` in a folder of its own; further options are passed to that command. A set
that exists is checked and kept; one that was begun is continued.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 5.1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy is loaded, and PyTorch later

from micro.data.cli import Parser
from micro.generate import main as generate
from micro.voxel.source import PAPER_SIZES

#: Options of ``micro.generate voxels`` that differ from set to set.
OWN = ("--family", "--samples", "--kinds")


def check(part: float, options: Sequence[str]) -> None:
    """Check the part of the sizes, and that no option is given that differs from set to set."""
    if not 0 < part <= 1:
        raise ValueError(f"part must be above 0 and at most 1, got {part}.")
    for name in (word.split("=")[0] for word in options):
        if len(name) > 2 and any(own.startswith(name) for own in OWN):  # argparse also accepts abbreviations
            raise ValueError(f"{name} must not be given, it differs from set to set.")


def main(argv: Sequence[str] | None = None) -> int:
    """Make the sets and return the exit code of the first that fails, or 0."""
    parser = Parser(
        prog="micro.voxel.sets", description=(__doc__ or "").split("\n\n", 1)[1], allow_abbrev=False
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the sets")
    parser.add_argument("--seed", default=0, type=int, metavar="S", help="seed of all sets")
    parser.add_argument("--part", default=1.0, type=float, metavar="X", help="part of the paper's sizes to make")
    try:
        arguments, options = parser.parse_known_args(argv)
        check(arguments.part, options)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for family, size in PAPER_SIZES.items():
        samples = max(1, round(arguments.part * size))
        command = ["voxels", f"--family={family}", f"--samples={samples}", f"--seed={arguments.seed}"]
        status = generate([*command, f"--output={arguments.output / family}", *options])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
