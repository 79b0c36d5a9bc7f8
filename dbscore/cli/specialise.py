"""`dbscore specialise`: a view of the rows that fulfil a condition, with predictions computed for them alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dbscore.cli.common import AsJson, Url, client, show_json, show_table

if TYPE_CHECKING:
    from dbscore.registry import Specialisation

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def specialise(
    reference: Annotated[str, typer.Argument(help="churn (its champion), churn@challenger or churn:3.")],
    *,
    where: Annotated[str, typer.Option(help="Which rows, as it stands after WHERE: \"payment_type = 'CRD'\".")],
    table: Annotated[
        str | None, typer.Option("--from", help="Whose rows; by default the table that the model was deployed with.")
    ] = None,
    view: Annotated[
        str | None, typer.Option(help="The view's name; by default of the model's name and the condition.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a view that is there.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a view of the rows that fulfil a condition, with what is known there folded into the model."""
    with client(url) as c:
        made = c.specialise(reference, where=where, table=table, view=view, replace=replace)
    if as_json:
        show_json(made.to_json())
    else:
        show_table(["what", "value"], [row for row in _rows(made) if row[1]])


def _rows(made: Specialisation) -> list[tuple[str, str]]:
    speed = ""
    if made.speed_up is not None:
        speed = (
            f"{made.speed_up:.2f} times: {made.view_rows_per_second:,.0f} rows/s, "
            f"{made.function_rows_per_second:,.0f} by the function (engine {made.engine})"
        )
    return [
        ("view", made.view),
        ("version", made.reference),
        ("rows", f"{made.rows:,} of {made.table}, all predicted as by the function"),
        ("known", ", ".join(made.features)),
        ("only filters", " and ".join(made.kept)),
        ("splits", _change(made.splits)),
        ("terms", _change(made.terms)),
        ("speed", speed),
    ]


def _change(count: tuple[int, int]) -> str:
    return f"{count[0]:,} before, {count[1]:,} left" if count[0] else ""
