"""The four data sets of paper 3, of its sizes, by one command: ``python3 -m micro.voxel_sets --output DIR``.

Each is a set of ``micro.generate voxels`` in a folder of its own; further options go to that command. A set that is
there is checked and kept, one that was begun goes on.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; section 5.1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from micro.generate import main as generate
from micro.voxel_draw import PAPER_SIZES


def main(argv: Sequence[str] | None = None) -> int:
    """Make the sets and return the exit code of the first that fails, or 0."""
    parser = argparse.ArgumentParser(prog="micro.voxel_sets", description=(__doc__ or "").split("\n\n", 1)[1])
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the sets")
    parser.add_argument("--seed", default=0, type=int, metavar="S", help="seed of all sets")
    parser.add_argument("--part", default=1.0, type=float, metavar="X", help="part of the paper's sizes to make")
    arguments, options = parser.parse_known_args(argv)
    for family, size in PAPER_SIZES.items():
        samples = max(1, round(arguments.part * size))
        command = ["voxels", f"--family={family}", f"--samples={samples}", f"--seed={arguments.seed}"]
        status = generate([*command, f"--output={arguments.output / family}", *options])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
