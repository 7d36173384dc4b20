"""How commands print what they found: tables for people, JSON for programs. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

TABLE, JSON = "table", "json"
FORMATS = (TABLE, JSON)

# Characters in a column at most; longer texts go on in the next line. A thumbprint has 64, and is
# to be copied whole.
_WIDTH = 64


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a table with a frame.

    :param rows: a value a column; None is shown as an empty cell.
    """
    cells = [[_lines(value) for value in row] for row in rows]
    names = [[name] for name in headers]
    widths = [max(len(line) for row in [names, *cells] for line in row[column] or [""])
              for column in range(len(headers))]
    frame = "+%s+" % "+".join("-" * (width + 2) for width in widths)
    yield frame
    yield from _row(names, widths)
    yield frame
    for row in cells:
        yield from _row(row, widths)
    if cells:
        yield frame


def as_json(value: Any) -> str:
    """A value of dictionaries, lists and texts, as JSON."""
    return json.dumps(value, indent=2)


def _lines(value: object) -> list[str]:
    text = "" if value is None else str(value)
    return [line for part in text.splitlines()
            for line in textwrap.wrap(
                part, _WIDTH, break_on_hyphens=False, break_long_words=False) or [""]]


def _row(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for number in range(max(1, *map(len, cells))):
        yield "|%s|" % "|".join(
            " %s " % (cell[number] if number < len(cell) else "").ljust(width)
            for cell, width in zip(cells, widths))
