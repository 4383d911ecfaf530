"""Options of a job as the fields of a dataclass, on the command line, and in a TOML file.

A configuration file holds the options of ``micro.generate`` by their names, with underscores or hyphens, and `source`:

    source = "taylor"
    output = "data/walks"
    samples = 1000
    strain = [0.02, 0.6]

Options on the command line override the file. A table named after the source may hold its options as well.
"""

import argparse
import dataclasses
import difflib
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from micro.data.cli import as_range, check_between, check_count

Config = TypeVar("Config")
SUFFIX = ".toml"


def option(
    default: Any,
    text: str,
    *,
    unit: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    choices: Sequence[str] = (),
    shape: str = "one",
    item: type = str,
) -> Any:
    """Return a field of a dataclass of options.

    Args:
        default: Default value, of the type of the field.
        text: What it is, for the help.
        unit: Its unit; empty where it has none.
        low: Least number allowed.
        high: Largest number allowed.
        choices: Words allowed.
        shape: "one" value, a "range" (one number or two that increase, positive), "counts" (the same for whole numbers
            that may be zero) or a "list" of any length.
        item: Type of the values of a list that is empty by default.
    """
    metadata: dict[str, Any] = {"text": text, "unit": unit, "low": low, "high": high, "choices": tuple(choices)}
    metadata |= {"shape": shape, "item": item}
    return dataclasses.field(default=default, metadata=metadata)


def _type(field: dataclasses.Field) -> type:
    sample = field.default
    if isinstance(sample, tuple):
        return type(sample[0]) if sample else field.metadata["item"]
    return type(sample)


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """Add an option for each field of a dataclass whose fields were made by `option`."""
    for field in dataclasses.fields(config):
        data, kind = field.metadata, _type(field)
        several = {"one": None, "range": "+", "counts": "+", "list": "*"}[data["shape"]]
        words: dict[str, Any] = {"choices": data["choices"]} if data["choices"] else {}
        words["metavar"] = None if data["choices"] and several is None else {int: "N", float: "X", str: "NAME"}[kind]
        form = {"one": "", "range": ", or its range", "counts": ", or its range", "list": ""}[data["shape"]]
        unit = f" in {data['unit']}" if data["unit"] else ""
        default: Any = list(field.default) if isinstance(field.default, tuple) else field.default
        if data["shape"] in ("range", "counts") and default[0] == default[-1]:
            default = default[:1]
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", default=default, type=kind, nargs=several,
            help=f"{data['text']}{unit}{form}".replace("%", "%%"), **words,
        )  # fmt: skip


def as_counts(name: str, values: Sequence[int]) -> tuple[int, int]:
    """Return the pair (lo, hi) of an option that takes one whole number or two, which may be zero."""
    if not 1 <= len(values) <= 2 or values[0] < 0 or values[0] > values[-1] or values[-1] > 10**6:
        given = " ".join(map(str, values)) or "none"
        raise ValueError(f"{name} must be one whole number from 0 to 1000000 or two that increase, got {given}.")
    return values[0], values[-1]


def make_config(config: type[Config], arguments: argparse.Namespace) -> Config:
    """Make a dataclass of options from parsed options.

    Raises:
        ValueError: a number is out of its range; the sentence names the field, what was required and what came.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        name, data = field.name.replace("_", "-"), field.metadata
        value = getattr(arguments, field.name)
        if data["shape"] == "range":
            value = as_range(name, value)
        elif data["shape"] == "counts":
            value = as_counts(name, value)
        elif data["shape"] == "list":
            value = tuple(value)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and data["low"] == 1 and data["high"] == math.inf:
                check_count(name, number)
            elif not isinstance(number, str):
                check_between(name, number, data["low"], data["high"])
        values[field.name] = value
    return config(**values)


def read_config(path: Path) -> dict[str, Any]:
    """Return the options of a TOML file, the table of the source among them.

    Raises:
        ValueError: it is missing or not TOML, has no source, or an option twice.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a valid TOML file: {' '.join(str(error).split())}.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    content = {key.replace("-", "_"): value for key, value in content.items()}
    source = content.get("source")
    if not isinstance(source, str):
        raise ValueError(f"source in {path} must be the name of a source, got {source!r:.40}.")
    table = content.pop(source, {})
    if not isinstance(table, dict):
        raise ValueError(f"{source} in {path} must be a table of options, got {table!r:.40}.")
    table = {key.replace("-", "_"): value for key, value in table.items()}
    twice = sorted(content.keys() & table.keys())
    if twice:
        raise ValueError(f"{twice[0]} in {path} must be given once, got it twice.")
    return content | table


def _is(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, int if kind is int else str)


def config_words(path: Path, source: str, content: dict[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a file as the words of a command line, each checked against the parser of its source.

    Raises:
        ValueError: an option is unknown or of another type; the sentence names it.
    """
    known = {action.dest: action for action in parser._actions if action.option_strings and action.dest != "help"}
    words: list[str] = []
    for name, value in content.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; {near[0]} is one" if near else ""
            raise ValueError(f"{name} in {path} is not an option of {source}{hint}.")
        action = known[name]
        kind = {int: "a whole number", float: "a number"}.get(action.type, "a text")  # type: ignore[call-overload]
        several = action.nargs in ("+", "*")
        values = value if several and isinstance(value, list) else [value]
        if not all(_is(item, action.type) for item in values) or (action.nargs == "+" and not values):
            wanted = f"{kind}, or a list of such," if several else kind
            raise ValueError(f"{name} in {path} must be {wanted.rstrip(',')}, got {value!r:.40}.")
        flag = action.option_strings[-1]
        words += [flag, *map(str, values)] if several else [f"{flag}={values[0]}"]
    return words


def is_config(argv: Sequence[str]) -> bool:
    """Return whether a command line begins with a configuration file."""
    return bool(argv) and argv[0].endswith(SUFFIX)


def file_threads(argv: Sequence[str]) -> list[str]:
    """Return the option ``--threads`` of the configuration file that a command line begins with, if it has one."""
    if not is_config(argv):
        return []
    try:
        threads = read_config(Path(argv[0])).get("threads")
    except ValueError:
        return []  # the command refuses it, in its own time
    return [f"--threads={threads}"] if isinstance(threads, int) else []
