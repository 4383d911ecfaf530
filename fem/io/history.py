"""The history of a run: rows of numbers over time, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from os import PathLike

from fem.io.files import write_text


class History:
    """Rows of numbers, all with the names of the first one.

    Attributes:
        rows: The rows so far.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; one of the same time as the last row takes its place.

        Raises:
            ValueError: If its names are not those of the first row.
        """
        if self.rows and list(row) != list(self.rows[0]):
            raise ValueError(f"A row of the history must have the columns {', '.join(self.rows[0])}.")
        if self.rows and "time" in row and row["time"] == self.rows[-1]["time"]:
            self.rows.pop()
        self.rows.append(dict(row))

    def text(self) -> str:
        """The rows as CSV."""
        sheet = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(sheet, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return sheet.getvalue()

    def write(self, path: str | PathLike[str]) -> None:
        """Write the rows to a CSV file, whole or not at all."""
        write_text(path, self.text())
