"""`dbscore install|upgrade|uninstall|status|sql`: the schema in the database."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dbscore.cli.common import AsJson, Url, client, notify, show_json, show_table
from dbscore.schema import Status, printed_sql

__all__ = ["commands"]

commands = typer.Typer()

ModelsSchema = Annotated[
    str | None, typer.Option(help="The schema for the generated functions, where `models` is taken.")
]


@commands.command()
def install(*, url: Url = None, models_schema: ModelsSchema = None, as_json: AsJson = False) -> None:
    """Create the schema dbscore, or bring it to this version. Safe to repeat, and when two do it at once."""
    with client(url) as c:
        _show(c.install(models_schema=models_schema), as_json=as_json)


@commands.command()
def upgrade(*, url: Url = None, as_json: AsJson = False) -> None:
    """Bring an installed schema, and every version's functions, to this version of dbscore."""
    with client(url) as c:
        _show(c.upgrade(), as_json=as_json)


@commands.command()
def uninstall(
    *,
    url: Url = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    cascade: Annotated[bool, typer.Option(help="Drop views and columns that use a model along.")] = False,
) -> None:
    """Drop the schemas, with every model in them."""
    with client(url) as c:
        count = c.status().models
        if not yes and not typer.confirm(f"Drop dbscore with its {count} models?", err=True):
            raise typer.Exit(1)
        c.uninstall(cascade=cascade)
    notify("uninstalled")


@commands.command()
def status(*, url: Url = None, as_json: AsJson = False) -> None:
    """Say what is installed, what the server can compute, and what stands in the way (exit code 1 then)."""
    with client(url) as c:
        found = c.status()
    _show(found, as_json=as_json)
    if found.problems:
        raise typer.Exit(1)


@commands.command(name="sql")
def print_sql(
    *,
    part: Annotated[
        Literal["all", "superuser", "owner"],
        typer.Option(help="`superuser`: what only a superuser can create."),
    ] = "all",
    owner: Annotated[str | None, typer.Option(help="The role that will own the schemas and deploy.")] = None,
    models_schema: Annotated[str, typer.Option(help="The schema for the generated functions.")] = "models",
    plpython: Annotated[bool, typer.Option(help="Whether the server has PL/Python.")] = True,
) -> None:
    """Print the SQL of a fresh installation, for a DBA to read and to run by hand."""
    typer.echo(printed_sql(part, owner=owner, models=models_schema, plpython=plpython), nl=False)


def _show(found: Status, *, as_json: bool) -> None:
    if as_json:
        show_json(found.to_json())
        return
    shown = {k: v for k, v in found.to_json().items() if k not in ("problems", "notes")}
    shown["engines"] = ", ".join(found.engines) or "none"
    shown["python"] = ", ".join(f"{k} {v}" for k, v in (found.python or {}).items()) or "none"
    show_table(["what", "value"], [(k.replace("_", " "), v) for k, v in shown.items()])
    for note in found.notes:
        notify(f"note: {note}")
    for problem in found.problems:
        notify(f"problem: {problem}")
