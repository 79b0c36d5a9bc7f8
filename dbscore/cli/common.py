"""What the commands share: options, the client, how results are shown."""

from __future__ import annotations

import itertools
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dbscore.client import Client
from dbscore.local import LocalServer
from dbscore.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

__all__ = ["AsJson", "Url", "client", "notify", "printable", "query_text", "show_json", "show_table"]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The database; by default DBSCORE_URL, else the private server where it runs.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client(url: str | None) -> Client:
    """Return a client for a URL, for `DBSCORE_URL`, or for the private server where it runs."""
    settings = Settings.from_environment()
    if not (url or settings.url):
        local = LocalServer(settings.home)
        if local.is_running():
            url = local.url()
    return Client(url, settings=settings)


_WIDE = 120
# what a terminal takes for an order: other roles name models, tables and jobs too
_ORDERS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: object) -> str:
    """Return a text with its control characters spelled out, but for line ends and tabs; nothing for None."""
    return "" if text is None else str(text).translate(_ORDERS)


def notify(message: str) -> None:
    """Tell the user something that is not the result."""
    typer.echo(printable(message), err=True)


def query_text(path: Path) -> str:
    """Return a query from a file or, for -, the standard input, without the semicolon at its end."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"the query cannot be read: {error}") from error
    text = text.rstrip("; \t\r\n")
    if not text:
        raise typer.BadParameter(f"there is no query in {path}")
    return text


def show_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print one line of JSON."""
    typer.echo(json.dumps(value, default=str))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, wide: Collection[str] = ()) -> None:
    """Print rows: as a table on a terminal, tab-separated in a pipe.

    Args:
        columns: Their names.
        rows: A value for each column.
        wide: Columns that a terminal of fewer than 120 characters leaves out.
    """
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            typer.echo("\t".join(map(printable, row)))
        return
    console = Console()
    shown = [name not in wide or console.width >= _WIDE for name in columns]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in itertools.compress(columns, shown):
        table.add_column(column, overflow="fold")
    for row in rows:
        # text, not markup: an array's [1] stays
        table.add_row(*(Text(printable(value)) for value in itertools.compress(row, shown)))
    console.print(table)
