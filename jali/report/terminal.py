"""Tables in a terminal, whatever its width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jali.report.tables import Table, printable, show

if TYPE_CHECKING:
    from rich.console import Console

BORDER = 3  # characters: a line and a space on either side


def print_table(table: Table, console: Console) -> None:
    """Print a table; its strings are shown as they are, never read as markup or terminal commands.

    Columns that have no room beside the first are printed under it again, so that no number is cut.
    """
    cells = [
        [printable(cell) for cell in table.columns],
        *([printable(show(cell)) for cell in row] for row in table.rows),
    ]
    widths = _widths(cells)
    parts, room = [[0]], console.width - 1
    for k in range(1, len(widths)):
        if len(parts[-1]) > 1 and sum(widths[i] + BORDER for i in (*parts[-1], k)) > room:
            parts.append([0])
        parts[-1].append(k)
    for number, part in enumerate(parts):
        title = table.title if number == 0 else f"{table.title} (more columns)"
        _print_columns(cells, widths, part, title, table.caption if number == len(parts) - 1 else "", console)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    """Characters that each column needs; of the header, whose words may stand on several lines, the longest word."""
    header, *rows = cells
    return [
        max(len(word) for word in ("", *name.split(), *column)) for name, *column in zip(header, *rows, strict=True)
    ]


def _print_columns(
    cells: Sequence[Sequence[str]],
    least: Sequence[int],
    part: Sequence[int],
    title: str,
    caption: str,
    console: Console,
) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(printable(title)), caption=Text(printable(caption)))
    shown.title_justify = shown.caption_justify = "left"
    spare = max(console.width - 1 - sum(least[k] + BORDER for k in part), 0)
    for k in part:
        more = min(spare, max(len(cells[0][k]) - least[k], 0))  # the header on fewer lines, where there is room
        spare -= more
        shown.add_column(Text(cells[0][k]), justify="right" if k else "left", width=least[k] + more)
    for row in cells[1:]:
        shown.add_row(*(Text(row[k]) for k in part))
    console.print(shown)
