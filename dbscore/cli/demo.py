"""`dbscore demo`: from data to predictions in SQL, on a server of its own where there is no other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbscore.cli.common import AsJson, Url, notify, show_json
from dbscore.settings import Settings

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def demo(
    *,
    data: Annotated[
        Path | None, typer.Option(help="A parquet or csv file; by default scikit-learn's breast-cancer data.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Its column to predict.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Train, convert, deploy, SELECT, promote, roll back: on real data, showing the SQL and the rows."""
    from dbscore.demo import run_demo
    from dbscore.local import ensure_server

    if data is not None and not data.exists():
        raise typer.BadParameter(f"there is no file {data}")
    if url is None:
        server = ensure_server(Settings.from_environment(), notify=notify)
        url = server.url if server.local is None else server.local.url(_database(server.local.url()))
    result = run_demo(url, data=data, target=target, say=notify if as_json else typer.echo)
    if as_json:
        show_json(result.to_json())


def _database(url: str) -> str:
    """Make the private server's database for the demo, and return its name."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = 'demo'").fetchone() is None:
            connection.execute("create database demo")
    return "demo"
