"""Summary and picture of a data set: ``python3 -m micro.inspect DATA [--output FOLDER]``.

The summary has the samples, the failed ones with their reasons, the arrays with shape, unit and range, and for strain
paths the ranges of strain, rate, duration, path length, volume and stress. The picture of paths and stresses is written
to FOLDER alone; without --output nothing is written.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from micro.data.cli import Parser, check_count, write_summary
from micro.data.dataset import read_arrays
from micro.data.files import whole_file
from micro.tensors import ORDERS, PATH_ORDER, from_components, mandel_factors

#: Arrays of a set of strain paths.
PATH_ARRAYS = ("U", "stress", "time", "duration")


def path_measures(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Return unit and values of what describes strain paths, by name; arrays of good samples alone.

    Args:
        arrays: U (n, T, 6), stress (n, T, 6) Pa, time (n, T) and duration (n,) s.
    """
    U, stress = from_components(arrays["U"]), arrays["stress"]
    J, mandel = np.linalg.det(U), np.array(mandel_factors(PATH_ORDER))
    logarithm = np.log(np.maximum(np.linalg.eigvalsh(U), np.finfo(float).tiny))  # whatever a damaged set holds
    deviator = logarithm - logarithm.mean(-1, keepdims=True)
    length = np.linalg.norm(np.diff(arrays["U"], axis=1) * mandel, axis=2)
    lapse = np.diff(arrays["time"], axis=1) * arrays["duration"][:, None]
    pressure = -stress[..., :3].mean(-1)
    shear = stress.copy()
    shear[..., :3] += pressure[..., None]
    return {
        "largest |U - I|": ("1", np.abs(U - np.eye(3)).max(axis=(1, 2, 3))),
        "equivalent log strain": ("1", np.sqrt(2 / 3 * (deviator**2).sum(-1)).max(1)),
        "path length |dU|": ("1", length.sum(1)),
        "strain per step": ("1", length.ravel()),
        "strain rate |dU|/dt": ("1/s", (length / lapse).ravel()),
        "volume change J - 1": ("1", (J - 1).ravel()),
        "von Mises stress": ("Pa", np.sqrt(1.5) * np.linalg.norm(shear * mandel, axis=-1).ravel()),
        "pressure": ("Pa", pressure.ravel()),
    }


def number(value: float) -> str:
    """Return a number in four digits."""
    return f"{value:.4g}"


def describe(name: str, unit: str, values: np.ndarray) -> str:
    """Return a line with smallest value, 5 % quantile, median, 95 % quantile and largest value."""
    words = [number(q) for q in np.quantile(values.astype(float), (0, 0.05, 0.5, 0.95, 1))] if values.size else []
    return "  ".join([f"{name:22s}", f"{unit:6s}", *(word.rjust(10) for word in words)])


def parameter_lines(parameters: dict, prefix: str = "") -> list[str]:
    """Return the parameters of a set, one line per value, nested ones with their full name."""
    lines: list[str] = []
    for name, value in sorted(parameters.items()):
        if isinstance(value, dict):
            lines += parameter_lines(value, f"{prefix}{name}.")
        else:
            lines.append(f"  {prefix}{name} = {value!r:.90}")
    return lines


def is_paths(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the arrays are those of strain paths in three dimensions."""
    return all(name in arrays for name in PATH_ARRAYS) and arrays["U"].ndim == 3 and arrays["U"].shape[2] == 6


def summary(path: Path, arrays: dict[str, np.ndarray], manifest: dict, digest: str) -> str:
    """Return the summary of a set.

    Args:
        path: directory of the set.
        arrays: arrays by name, of `micro.data.dataset.read_arrays`.
        manifest: its manifest.
        digest: its content hash.
    """
    good = arrays["status"] == 0
    finished = "finished" if manifest["complete"] else "unfinished"
    lines = [
        f"set       {path}, {finished}",
        f"source    {manifest['source']}, seed {manifest['seed']}, code {manifest['code']['version']}",
        f"samples   {len(good)} of {manifest['samples']}, {int((~good).sum())} failed",
        f"hash      {digest}",
        f"command   {manifest['command']}",
    ]
    reasons = Counter(str(text) for text in arrays["reason"][~good])
    lines += [f"failed    {count} times: {text}" for text, count in reasons.most_common()]
    lines += ["", f"{'array':22s}  {'unit':6s}  {'shape of a sample':20s}  least and largest value"]
    for name, entry in sorted(manifest["arrays"].items()):
        values = arrays[name][good]
        span = f"{number(values.min())} to {number(values.max())}" if values.size else "no good sample"
        lines.append(f"{name:22s}  {entry['units']:6s}  {entry['shape']!s:20s}  {span}")
        if entry.get("names"):
            counts = Counter(entry["names"][int(value)] for value in values.ravel())
            lines.append("  " + ", ".join(f"{word}: {count}" for word, count in counts.most_common()))
    if is_paths(arrays) and good.any():
        heads = ("least", "5 %", "median", "95 %", "largest")
        lines += ["", "  ".join([f"{'paths':22s}", f"{'unit':6s}", *(head.rjust(10) for head in heads)])]
        measures = {"duration": ("s", arrays["duration"][good])}
        measures |= path_measures({name: arrays[name][good] for name in PATH_ARRAYS})
        lines += [describe(name, unit, values) for name, (unit, values) in measures.items()]
    return "\n".join([*lines, "", "parameters", *parameter_lines(manifest["parameters"] | manifest["tolerances"])])


def inputs_and_outputs(arrays: dict[str, np.ndarray]) -> tuple[str, str] | None:
    """Return the names of the strain and the stress histories of a set, None if it has none."""
    for strain in ("U", "strain"):
        if strain in arrays and "stress" in arrays and arrays[strain].ndim == 3:
            return strain, "stress"
    return None


def picture(arrays: dict[str, np.ndarray], manifest: dict, path: Path, count: int) -> bool:
    """Draw strain paths and stresses of some good samples, spread evenly over the set.

    Args:
        arrays: arrays by name.
        manifest: manifest of the set.
        path: the PNG file.
        count: number of samples.

    Returns:
        Whether there was something to draw: histories of strain and stress in a good sample.
    """
    names, good = inputs_and_outputs(arrays), np.flatnonzero(arrays["status"] == 0)
    if names is None or not len(good):
        return False
    from matplotlib.figure import Figure

    rows = good[np.unique(np.linspace(0, len(good) - 1, min(count, len(good))).astype(int))]
    deviatoric = arrays["stress"].shape[2] == 6  # the pressure, often larger, would hide the deviator
    figure: Any = Figure(figsize=(3.2 * len(rows), 7.5 if deviatoric else 5.5), layout="constrained")
    axes = figure.subplots(3 if deviatoric else 2, len(rows), squeeze=False, sharex="col")
    order = ORDERS[2 if arrays[names[0]].shape[2] == 3 else 3]
    scale, unit = (
        (1e9, "GPa") if np.nanmax(np.abs(arrays["stress"])) > 1e7 else (1.0, manifest["arrays"]["stress"]["units"])
    )
    kinds = manifest["arrays"].get("protocol", {}).get("names", [])
    for column, row in enumerate(rows.tolist()):
        strain = arrays[names[0]][row]
        time = arrays["time"][row] * arrays["duration"][row] * 1e6 if "time" in arrays else np.arange(len(strain))
        upper, lower = axes[:2, column]
        stress = arrays["stress"][row] / scale
        mean = stress[:, :3].mean(axis=1) if deviatoric else 0.0
        for c, component in enumerate(order.names.split()):
            shift = 1.0 if names[0] == "U" and c < order.dimension else 0.0
            upper.plot(time, strain[:, c] - shift, lw=1, label=component)
            lower.plot(time, stress[:, c], lw=1)
            if deviatoric:
                axes[2, column].plot(time, stress[:, c] - (mean if c < 3 else 0.0), lw=1)
        kind = f", {kinds[int(arrays['protocol'][row])]}" if kinds else ""
        upper.set_title(f"sample {arrays['sample'][row]}{kind}", fontsize=9)
        axes[-1, column].set_xlabel("time (us)" if "time" in arrays else "step")
    axes[0, 0].set_ylabel("U - I" if names[0] == "U" else "strain")
    axes[1, 0].set_ylabel(f"stress ({unit})")
    if deviatoric:
        axes[2, 0].set_ylabel(f"deviator ({unit})")
    axes[0, 0].legend(fontsize=7, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120)
    return True


def inspect(argv: Sequence[str] | None) -> str:
    """Do what the command line says and return what is to be printed; ValueError if it does not fit."""
    parser = Parser(prog="micro.inspect", description=(__doc__ or "").split("\n\n", 1)[1])
    parser.add_argument("path", type=Path, metavar="DATA", help="directory of the data set")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of the picture; none is drawn without it")
    parser.add_argument("--samples", default=5, type=int, metavar="N", help="samples in the picture (default: 5)")
    parser.add_argument("--allow-partial", action="store_true", help="read the finished shards of an unfinished set")
    arguments = parser.parse_args(argv)
    check_count("samples", arguments.samples, 20)
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise ValueError(f"output must be a folder, {arguments.output} is a file.")
    arrays, manifest, digest = read_arrays(arguments.path, allow_partial=arguments.allow_partial)
    text = summary(arguments.path, arrays, manifest, digest)
    if arguments.output is not None:
        file = arguments.output / f"{arguments.path.resolve().name}.png"
        drawn = picture(arrays, manifest, file, arguments.samples)
        text += f"\n\npicture   {file if drawn else 'none: no good sample has histories of strain and stress'}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Inspect a set from the command line; return 2 if it is refused, 1 if the machine fails."""
    try:
        text = inspect(argv)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, MemoryError) as error:
        sys.stderr.write(f"The data set cannot be inspected: {error or 'memory is exhausted'}.\n")
        return 1
    return write_summary(text)


if __name__ == "__main__":
    sys.exit(main())
