"""`dbscore server`: the private PostgreSQL server of the demo, tests and notebooks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dbscore.errors import ServerError
from dbscore.local import LocalServer, ServerStatus

__all__ = ["app"]

NOT_RUNNING = 3

app = typer.Typer(
    name="server",
    help="The private PostgreSQL server of the demo, tests and notebooks; never the system's.",
    no_args_is_help=True,
)

Home = Annotated[
    Path | None, typer.Option(help="Where clusters are kept; by default DBSCORE_HOME.", show_default=False)
]
Name = Annotated[str, typer.Option(help="The cluster's name.")]
Database = Annotated[str, typer.Option(help="The database in the URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def start(home: Home = None, name: Name = "main") -> None:
    """Start the server, making it first if need be; print its URL, which has the password in it."""
    typer.echo(_server(home, name).start())


@app.command()
def stop(home: Home = None, name: Name = "main") -> None:
    """Stop the server; its data stays."""
    if not _server(home, name).stop():
        typer.echo(f"the server {name!r} was not running", err=True)


@app.command()
def status(*, home: Home = None, name: Name = "main", as_json: AsJson = False) -> None:
    """Print what there is to say of the server, without its password. Exit code 3: it does not run."""
    said = _server(home, name).status()
    typer.echo(json.dumps(asdict(said), default=str) if as_json else _table(said))
    if not said.running:
        raise typer.Exit(NOT_RUNNING)


@app.command()
def url(home: Home = None, name: Name = "main", database: Database = "postgres") -> None:
    """Print the URL of the running server, with the password, as psql takes it."""
    server = _server(home, name)
    if not server.is_running():
        raise ServerError(
            f"the server {name!r} in {server.layout.home} does not run", remedy="Run: dbscore server start"
        )
    typer.echo(server.url(database))


def _table(said: ServerStatus) -> str:
    shown = {
        **asdict(said),
        "running": "yes" if said.running else "no",
        "packages": ", ".join(f"{package} {version}" for package, version in said.packages.items()),
        "engines": ", ".join(said.engines),
    }
    width = max(map(len, shown))
    return "\n".join(f"{key.replace('_', ' '):<{width}}  {value or '-'}" for key, value in shown.items())


def _server(home: Path | None, name: str) -> LocalServer:
    return LocalServer(home, name=name, notify=lambda said: typer.echo(said, err=True))
