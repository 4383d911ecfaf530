"""Errors of exported laws and voxel networks on the held-out samples of data sets.

    python3 -m surrogates.evaluate FILE... --data DIR [--data DIR2] [--held-out N | --all] [--json FILE]

The files are laws of crystals, laws of lattice cells, or voxel networks; all of them must be of the kind that
the data sets are for. A data set of voxel cells may also be a `.npy` file of densities. Laws are reported as JSON,
networks as the table of paper 3. `run` does the same from Python.
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from micro.data.cli import Parser
from micro.threads import add_threads_option, check_threads, limit_threads, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

from micro.data.files import whole_file
from micro.lattice.data import lattice_of
from surrogates.artifact.load import Law, load_law
from surrogates.cells import data as cells
from surrogates.cells.evaluate import as_text, table
from surrogates.cells.networks.file import load_network
from surrogates.path.data import join as join_samples
from surrogates.path.data import load_samples
from surrogates.path.errors import resolution_report
from surrogates.path.trust import forecast
from surrogates.tann.data import join as join_paths
from surrogates.tann.data import load_paths
from surrogates.tann.errors import recall_errors
from surrogates.tann.exact import internal_coordinates
from surrogates.training.config import check_device, check_output

#: Errors by file, then by data set. A multiscale network has a row for each number of steps.
Errors = dict[str, dict[str, dict[str, float]]]


def run(
    files: str | Path | Sequence[str | Path], *, data: str | Path | Sequence[str | Path], held_out: int | None = None,
    all_samples: bool = False, allow_partial: bool = False, device: str = "cpu", threads: int | None = None,
) -> Errors:  # fmt: skip
    """Measure the errors of laws or networks on data sets; the same as the command, from Python.

    Args:
        files: Artifacts or voxel networks.
        data: Folders of data sets, of the kind that all files are for.
        held_out: Number of samples held out of each data set, on which the errors are measured; None for a tenth.
        all_samples: Measure on all samples of each data set instead.
        allow_partial: Accept a data set whose job has not finished.
        device: Of PyTorch, for networks and laws.
        threads: Threads of PyTorch; None leaves them as they are.

    Returns:
        The errors of each file (named by its stem) on each data set (named by its folder), and the number of samples.

    Raises:
        ValueError: A file or a data set cannot be read, or they do not go together.
    """
    paths, sets = as_paths(files), as_paths(data)
    check_names("files", [path.stem for path in paths])
    check_names("data", [path.name for path in sets])
    if all_samples and held_out is not None:
        raise ValueError("held_out must not be given together with all_samples.")
    check_device(device)
    if threads is not None:
        use_threads(threads)
    networks = [not is_archive_of_code(path) for path in paths]
    if all(networks):
        modules = {path.stem: load_network(path, device).module for path in paths}
        parts = {path.name: held_cells(path, held_out, all_samples, allow_partial) for path in sets}
        rows = table(modules, {name: cells.solve(part, device=device) for name, part in parts.items()}, device)
        return {
            label: {name: {**row, "samples": len(parts[name])} for name, row in found.items()}
            for label, found in rows.items()
        }
    if any(networks):
        network = paths[networks.index(True)]
        raise ValueError(f"files must be laws alone or voxel networks alone, got {network}, which is no law.")
    laws = [load_law(path, device=device) for path in paths]
    return {
        path.stem: {folder.name: law_errors(law, folder, held_out, all_samples, allow_partial) for folder in sets}
        for path, law in zip(paths, laws, strict=True)
    }


def law_errors(
    law: Law, folder: Path, held_out: int | None, all_samples: bool, allow_partial: bool
) -> dict[str, float]:
    """Errors of a law on the held-out paths of one data set: of a crystal at finite strain, of a lattice at small.

    Raises:
        ValueError: The data set is not of the law's kind or dimension.
    """
    dimension = law.manifest.dimension
    if law.manifest.strain == "finite":
        if dimension != 3:
            raise ValueError(f"{law.path} must be a law of 3 dimensions for strain paths of crystals, got {dimension}.")
        train, samples = load_samples([folder], held_out, allow_partial=allow_partial)
        samples = join_samples([train, samples]) if all_samples else samples
        trust = forecast(law.module, [entry.name for entry in law.manifest.observables], samples)
        return {**resolution_report(law.module, samples), **trust, "samples": len(samples)}
    train_paths, paths = load_paths([folder], held_out, allow_partial=allow_partial)
    paths = join_paths([train_paths, paths]) if all_samples else paths
    if paths.dimension != dimension:
        raise ValueError(f"{law.path} is a law of {dimension} dimensions, but {folder} has paths of {paths.dimension}.")
    names = internal_coordinates(lattice_of(paths.lattice)[0])
    if law.manifest.observables[-len(names) :] != names:
        raise ValueError(f"{law.path} is a law of another cell than that of {folder}, with other nodes and bars.")
    return {**recall_errors(law.module, paths), "samples": len(paths)}


def held_cells(path: Path, held_out: int | None, all_samples: bool, allow_partial: bool) -> cells.Cells:
    """The held-out cells of one data set, or all of it."""
    if all_samples:
        return cells.read_cells(path, allow_partial=allow_partial)
    return cells.load_cells([path], held_out, allow_partial=allow_partial)[1]


def is_archive_of_code(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as laws are; networks hold weights alone.

    Raises:
        ValueError: It does not exist, or is no archive of PyTorch.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is not a file.")
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path} is neither a law nor a voxel network, or it is truncated.") from error


def as_paths(values: str | Path | Sequence[str | Path]) -> list[Path]:
    """One path or several, as a list."""
    return [Path(values)] if isinstance(values, (str, Path)) else [Path(value) for value in values]


def check_names(what: str, names: list[str]) -> None:
    """Check that the rows or columns of a table have different names."""
    if not names:
        raise ValueError(f"{what} must name at least one, got none.")
    if len(set(names)) < len(names):  # one would hide the other
        raise ValueError(f"{what} must have names that differ, got {', '.join(names)}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 done, 2 bad input, 1 failure."""
    parser = Parser(
        prog="surrogates.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="law or voxel network")
    add("--data", action="append", required=True, metavar="DIR", help="data set; may be repeated")
    add("--held-out", type=int, metavar="N", help="samples held out of each data set (default: a tenth)")
    add("--all", action="store_true", help="measure on all samples of each data set")
    add("--allow-partial", action="store_true", help="accept a data set whose job has not finished")
    add("--json", type=Path, metavar="FILE", help="write all errors to this file")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add_threads_option(parser)
    try:
        options = parser.parse_args(arguments)
        check_threads(options.threads)
        if options.json is not None:
            check_output("json", options.json, [*options.files, *map(Path, options.data)])
        rows = run(
            options.files, data=options.data, held_out=options.held_out, all_samples=options.all,
            allow_partial=options.allow_partial, device=options.device, threads=options.threads,
        )  # fmt: skip
        text = json.dumps(rows, indent=1) + "\n"
        if options.json is not None:
            with whole_file(options.json) as part:
                part.write_text(text)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (RuntimeError, MemoryError) as error:
        lines = str(error).strip().splitlines() or ["The memory of this machine is exhausted."]
        sys.stderr.write(f"{lines[0]}\n")
        return 1
    networks = all("energy_least" in row for found in rows.values() for row in found.values())
    sys.stdout.write(as_text(rows) if networks else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
