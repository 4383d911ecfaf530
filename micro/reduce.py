"""Reduced polycrystals: ``python3 -m micro.reduce --keep 16 --output FILE.json``.

A few grains of a texture are chosen, with positive weights, so that their mean stress is that of all grains along
random walks and along histories of an impact (`micro.crystal.reduced`). Half of the paths choose, the other half
measure the error. The paths of an impact are read from files that `demos/taylor_anvil.py --record 96` writes; without
such a file, paths like those of an impact are drawn. `fem` takes the result as ``load_law("taylor-polycrystal",
reduced="FILE.json")``.
"""

import argparse
import contextlib
import hashlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from micro.threads import add_threads_option, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before the modules below load NumPy and PyTorch

import numpy as np

from micro.crystal import reduced
from micro.crystal.compiled import CompiledPolycrystal
from micro.crystal.materials import load_material
from micro.crystal.paths import PathOptions, draw_paths
from micro.crystal.paths.recorded import read_recorded
from micro.crystal.polycrystal_law import make_grains
from micro.crystal.reduced import Deviations, Histories
from micro.crystal.reduced_texture import ReducedTexture, write_reduced
from micro.crystal.texture import Texture, even_texture, random_texture, read_texture, to_euler
from micro.data.cli import Parser, check_between, check_count, check_memory
from micro.data.provenance import code_record
from micro.tensors import from_components

#: Instants of a path that enter the choice.
INSTANTS = 100
#: Bytes of a stress in the memory while it is computed, its deviation and copies.
STRESS_BYTES = 4 * 6 * 8


@dataclass(frozen=True)
class Kind:
    """A kind of path: what chooses, and what is held out.

    Attributes:
        name: "walks" or "impact".
        training, held_out: The paths.
        source: What they are, for the file.
    """

    name: str
    training: Histories
    held_out: Histories
    source: dict[str, Any]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    p = Parser(
        prog="micro.reduce",
        description=(__doc__ or "").split("\n\n", 1)[1],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--output", required=True, metavar="FILE", help="file to write, .json; {grains} in it is the number")
    p.add_argument("--material", default="magnesium", help="name or file of the material")
    p.add_argument("--texture", default="random", help="random, even, or a text file of Euler angles and weights")
    p.add_argument("--grains", default=128, type=int, metavar="N", help="grains of a random or even texture")
    p.add_argument("--seed", default=0, type=int, metavar="S", help="seed of a random texture")
    p.add_argument("--keep", type=int, nargs="+", metavar="N", help="grains to keep; a file for each number")
    p.add_argument("--error", type=float, metavar="X", help="keep the fewest grains with this error instead")
    p.add_argument("--walks", default=96, type=int, metavar="N", help="random walks, and as many held out")
    p.add_argument("--strain", default=0.5, type=float, metavar="X", help="largest strain of the walks")
    p.add_argument("--duration", default=[1e-6, 1e-4], type=float, nargs=2, metavar="X", help="of the walks, s")
    p.add_argument("--history", default=[], type=Path, nargs="*", metavar="FILE", help="recorded F of an impact, .npz")
    p.add_argument("--share", default=0.5, type=float, metavar="X", help="weight of the impact paths in the choice")
    p.add_argument("--path-seed", default=1, type=int, metavar="S", help="seed of the walks")
    add_threads_option(p)
    return p


def check(o: argparse.Namespace) -> None:
    """Check the options.

    Raises:
        ValueError: One is out of its range.
    """
    if (o.keep is None) == (o.error is None):
        raise ValueError("Give either --keep, a number of grains, or --error, the error to be reached.")
    for name in ("grains", "walks"):
        check_count(name, getattr(o, name), 10**6)
    for name in ("seed", "path_seed"):
        if not 0 <= getattr(o, name) < 2**63:
            raise ValueError(f"{name} must lie between 0 and 2**63 - 1, got {getattr(o, name)}.")
    check_between("share", o.share, 0.0, 1.0)
    check_between("strain", o.strain, 1e-6, 10.0)
    if not 0 < o.duration[0] <= o.duration[1]:
        raise ValueError(f"duration must be two positive numbers that increase, got {o.duration}.")
    if o.error is not None:
        check_between("error", o.error, 1e-4, 1.0)
    if Path(o.output).suffix != ".json" or not Path(o.output).parent.is_dir():
        raise ValueError(f"output must be a .json file in a folder that exists, got {o.output}.")
    if len(o.keep or []) > 1 and "{grains}" not in o.output:
        raise ValueError(f"output must contain {{grains}} where several numbers are to be kept, got {o.output}.")


def drawn(name: str, numbers: range, seed: int, options: PathOptions) -> Histories:
    """Return paths of a protocol, C linear between 200 stored instants."""
    paths = draw_paths(numbers, seed, options)
    U = from_components(paths.U)
    return Histories(U @ U, paths.time * paths.duration[:, None])


def walks(o: argparse.Namespace) -> Kind:
    """Return the random walks."""
    options = PathOptions(strain=(0.1 * o.strain, o.strain), duration=tuple(o.duration))
    source = {"paths": o.walks, "seed": o.path_seed, "strain": list(options.strain), "duration": list(o.duration)}
    sets = [drawn("walk", range(k * o.walks, (k + 1) * o.walks), o.path_seed, options) for k in (0, 1)]
    return Kind("walks", sets[0], sets[1], source)


def impact(o: argparse.Namespace) -> Kind:
    """Return the histories of an impact: every second point of each file chooses; without files, drawn paths.

    Raises:
        ValueError: A file cannot be read, or the files have different numbers of instants.
    """
    if not o.history:
        options = PathOptions(protocols=("impact",), strain=(0.05, 1.5), duration=(1e-6, 2e-5))
        sets = [drawn("impact", range(k * o.walks, (k + 1) * o.walks), o.path_seed, options) for k in (0, 1)]
        return Kind("impact", sets[0], sets[1], {"paths": o.walks, "drawn": True, "seed": o.path_seed})
    files = [read_recorded(path) for path in o.history]
    if len({file.time.shape[1] for file in files}) > 1:
        raise ValueError("The files of --history must have the same number of instants.")
    whole = [np.concatenate([getattr(file, name) for file in files]) for name in ("C", "time")]
    sets = [Histories(whole[0][k::2], whole[1][k::2]) for k in (0, 1)]
    digests = {path.name: file.digest for path, file in zip(o.history, files, strict=True)}
    return Kind("impact", sets[0], sets[1], {"paths": len(sets[0]), "drawn": False, "files": digests})


def full_texture(o: argparse.Namespace) -> tuple[Texture, dict[str, Any]]:
    """Return the texture of all grains, and what it is."""
    if o.texture == "random":
        return random_texture(o.grains, o.seed), {"kind": "random", "grains": o.grains, "seed": o.seed}
    if o.texture == "even":
        return even_texture(o.grains), {"kind": "even", "grains": o.grains}
    texture = read_texture(o.texture)
    digest = hashlib.sha256(Path(o.texture).read_bytes()).hexdigest()
    return texture, {"kind": "file", "grains": len(texture.weights), "file": Path(o.texture).name, "sha256": digest}


def summary(deviations: dict[str, tuple[Deviations, Deviations]], chosen: np.ndarray, weights: np.ndarray) -> dict:
    """Return the root mean square over the paths of the relative errors, by kind of path."""

    def rms(found: Deviations) -> float:
        return float(np.sqrt(np.mean(found.errors(chosen, weights) ** 2)))

    return {name: {"training": rms(a), "held_out": rms(b)} for name, (a, b) in deviations.items()}


def solve_paths(grains: CompiledPolycrystal, kinds: Sequence[Kind]) -> dict[str, tuple[Deviations, Deviations]]:
    """Solve all paths; training and held out, by kind."""
    found = {}
    for kind in kinds:
        parts = (kind.training, kind.held_out)
        solved = [reduced.deviations(grains, part, instants=INSTANTS, progress=True) for part in parts]
        found[kind.name] = (solved[0], solved[1])
    return found


def choose(
    o: argparse.Namespace, found: dict[str, tuple[Deviations, Deviations]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield grains and weights for every number of --keep, or for --error."""
    shares = {"walks": 1.0 - o.share, "impact": o.share}
    matrix = np.sum([share * found[name][0].matrix() for name, share in shares.items()], axis=0)
    if o.keep is None:
        yield reduced.smallest(matrix, o.error)
    for keep in o.keep or []:
        yield reduced.choose(matrix, keep)


def run(o: argparse.Namespace) -> list[ReducedTexture]:
    """Choose the grains and write the files."""
    check(o)
    use_threads(o.threads)
    start, (texture, source) = time.perf_counter(), full_texture(o)
    g, kinds = len(texture.weights), [walks(o), impact(o)]
    if o.keep is not None and not all(1 <= keep <= g for keep in o.keep):
        raise ValueError(f"keep must lie between 1 and the {g} grains of the texture, got {o.keep}.")
    paths = sum(len(kind.training) + len(kind.held_out) for kind in kinds)
    check_memory(f"{paths} paths of {g} grains", paths * g * INSTANTS * STRESS_BYTES)
    found = solve_paths(make_grains(texture, load_material(o.material)), kinds)
    made_by = {
        "command": shlex.join(words(o)),
        "paths": {kind.name: kind.source for kind in kinds},
        "code": code_record(Path(reduced.__file__))["hash"],
    }
    written = []
    for chosen, weights in choose(o, found):
        result = ReducedTexture(
            material=o.material,
            source=source,
            index=chosen,
            euler=to_euler(texture.orientations[chosen]).numpy(),
            weights=weights,
            errors=summary(found, chosen, weights),
            made_by=made_by,
        )
        path = Path(o.output.replace("{grains}", str(len(chosen))))
        write_reduced(path, result)
        sys.stdout.write(f"{result.describe()} ({time.perf_counter() - start:.0f} s): {path}\n")
        sys.stdout.flush()
        written.append(result)
    return written


def words(o: argparse.Namespace) -> list[str]:
    """Return the command that makes the same set, files by name."""
    found = ["python3", "-m", "micro.reduce"]
    for name, value in vars(o).items():
        if value not in (None, []) and name not in ("output", "threads"):
            values = value if isinstance(value, list) else [value]
            found += [f"--{name.replace('_', '-')}", *(v.name if isinstance(v, Path) else str(v) for v in values)]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 for bad input and 1 where a path cannot be solved."""
    try:
        with contextlib.suppress(BrokenPipeError):
            run(make_parser().parse_args(argv))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
