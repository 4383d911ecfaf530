"""All data sets of paper 1 and of the law in time: ``mpirun -n N python3 demos/crystal/make_sets.py --output FOLDER``.

Each file of `sets` is the configuration of one set, which ``micro.generate`` makes in a folder of its own name:

    walks               20 000 random walks with holds, rate jumps and ringing
    impact              4000 paths like those of an impact
    taylor-10, -50      5000 random walks each of the paper's 3DTaylor at 10 % and 50 %, random intervals
    taylor-*-fixed, -uniaxial, -load-unload, -cavity    the test protocols of table 1
    protocols, holds    axisymmetric, plane strain, simple shear, cyclic, proportional; ramps that stop
    taylor-50-large     32 000 random walks at 50 %; taylor-10-exponent-5: 4200 at 10 % with the rate exponent 5
    cell-10, -50        400 random walks each of the paper's 2DFFT at 10 % and 50 %, each in a cell of its own
    cell-10-coarse*     the protocols of table 1 in one cell on a coarser grid

The script may be stopped at any moment; the same command continues it, and skips what is finished. ``--samples N``
makes at most N samples of each set, for a trial; without it the trial grows to the full set. Options that the script
does not know are passed to ``micro.generate``, for instance ``--device cuda``. A set whose source this
installation lacks is named and left out.

References:
    Liu et al. (2022), section 3 and table 1, doi:10.1016/j.jmps.2021.104668.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before NumPy and PyTorch are loaded

from micro.data.cli import Parser, check_count
from micro.data.config import read_config
from micro.data.ranks import world
from micro.generate import main as generate
from micro.generate import standard_sources

SETS = Path(__file__).with_name("sets")
#: Options of ``micro.generate`` that differ from set to set.
OWN = ("--seed", "--strain", "--protocols", "--duration")


def check(names: Sequence[str], known: Sequence[str], options: Sequence[str]) -> None:
    """Check the names of sets and the options that are passed on; ValueError names what does not fit."""
    for name in names:
        if name not in known:
            raise ValueError(f"--only must name sets among {', '.join(known)}, got {name!r}.")
    for word in options:
        name = word.split("=")[0]
        if len(name) > 2 and any(own.startswith(name) for own in OWN):  # argparse also accepts abbreviations
            raise ValueError(f"{name} must not be given, it differs from set to set.")


def main(argv: Sequence[str] | None = None) -> int:
    """Make the sets and return the exit code of the first that fails, or 0; collective under mpirun."""
    known = sorted(path.stem for path in SETS.glob("*.toml"))
    parser = Parser(prog="make_sets.py", description=(__doc__ or "").split("\n\n", 1)[1], allow_abbrev=False)
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="folder of the sets")
    parser.add_argument("--samples", type=int, metavar="N", help="at most so many samples of each set, for a trial")
    parser.add_argument("--only", nargs="+", default=known, metavar="SET", help="names of the sets to make (all)")
    parser.add_argument("--list", action="store_true", help="print the sets and their sizes, and make nothing")
    first = world().rank == 0
    try:
        arguments, options = parser.parse_known_args(argv)
        if arguments.samples is not None:
            check_count("--samples", arguments.samples)
        check(arguments.only, known, options)
    except ValueError as error:
        if first:
            sys.stderr.write(f"{error}\n")
        return 2
    sources = {source.name for source in standard_sources()}
    for name in arguments.only:
        content = read_config(SETS / f"{name}.toml")
        samples = min(content["samples"], arguments.samples or content["samples"])
        missing = content["source"] not in sources
        if first:
            note = f", left out: there is no source {content['source']}" if missing else ""
            print(f"{name}: {samples} samples of {content['source']}{note}", flush=True)
        if missing or arguments.list:
            continue
        output = [f"--output={arguments.output / name}", f"--samples={samples}"]
        status = generate([str(SETS / f"{name}.toml"), *output, *options])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
