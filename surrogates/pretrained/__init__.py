"""The shipped laws: `python3 -m surrogates.pretrained` lists them with their held-out errors.

`index.json` gives each file its name; `surrogates.artifact.shipped` reads it, and `fem.load_law` takes the names. The
script `make` beside it makes each file again.
"""

import sys
from collections.abc import Sequence

from micro.data.cli import Parser
from surrogates.artifact.shipped import Shipped, shipped


def table(entries: Sequence[Shipped]) -> str:
    """One line per file: name, kind, dimensions, strain, held-out error and what it is."""
    rows = [("name", "kind", "d", "strain", "held-out error", "")]
    for entry in entries:
        error = "none: exact" if entry.error is None else f"{entry.error[0]} {entry.error[1]:.1e}"
        rows.append((entry.name, entry.kind, str(entry.dimension), entry.strain, error, entry.about))
    widths = [max(len(row[k]) for row in rows) for k in range(6)]
    return "".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() + "\n" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """List the shipped laws; 2 where the index cannot be read."""
    parser = Parser(
        prog="surrogates.pretrained",
        description="List the shipped laws. fem.load_law and the option --law of the commands take their names.",
    )
    try:
        parser.parse_args(arguments)
        text = table(shipped())
    except (ValueError, KeyError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(text)
    return 0
