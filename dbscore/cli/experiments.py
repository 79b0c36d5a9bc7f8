"""`dbscore experiment`: A/B and shadow tests of versions, from the design to the winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dbscore.cli.common import AsJson, Url, client, notify, printable, query_text, show_json, show_table
from dbscore.cli.outcomes import Name, Unit, described
from dbscore.experiments.records import Experiment, Mode, Scheme

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["app"]

app = typer.Typer(
    name="experiment",
    help="A/B and shadow tests of versions: units are assigned, predictions recorded, outcomes compared.",
    no_args_is_help=True,
)

RoleName = Annotated[str, typer.Argument(help="The role.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the experiment's history.")]


@app.command()
def create(  # noqa: PLR0913 - one option each
    name: Name,
    *,
    unit: Annotated[str, typer.Option(help="The column that tells units apart, such as customer_id.", metavar="COL")],
    variant: Annotated[
        list[str],
        typer.Option(
            help="Name, version and percentage of the units: control=tip:3:50, treatment=tip@challenger:50; in shadow "
            "mode without the percentage; the control first.",
            metavar="NAME=VERSION:WEIGHT",
        ),
    ],
    mode: Annotated[
        Mode, typer.Option(help="shadow: all versions predict, and the control's prediction is the answer.")
    ] = "ab",
    scheme: Annotated[
        Scheme, typer.Option(help="What draws the variants; growthbook2: as GrowthBook's SDKs do.")
    ] = "sha256",
    salt: Annotated[
        str | None, typer.Option(help="What is hashed with the unit; by default the experiment's name.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="A layer, whose experiments share no unit.")] = None,
    layer_share: Annotated[
        float | None, typer.Option(help="How much of the layer, in percent; by default what is left in one piece.")
    ] = None,
    eligible: Annotated[
        str | None,
        typer.Option(help="Only units whose features fulfil this condition take part: 'distance < 30'.", metavar="SQL"),
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="The share of units, from 0 to 1, that are compared with nothing.")
    ] = 0.0,
    record_features: Annotated[
        bool, typer.Option("--record-features", help="Record the features with each prediction.")
    ] = False,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Draft an experiment and make its SQL functions; it answers nothing until it is started."""
    with client(url) as c:
        made = c.experiments.create(
            name,
            unit=unit,
            variants=variant,
            mode=mode,
            scheme=scheme,
            salt=salt,
            layer=layer,
            layer_share=layer_share,
            eligible=eligible,
            holdout=holdout,
            record_features=record_features,
            description=description,
        )
    _changed(made, as_json=as_json)


@app.command()
def start(name: Name, *, reason: Reason = "", url: Url = None, as_json: AsJson = False) -> None:
    """Start a draft, or go on after a pause."""
    with client(url) as c:
        _changed(c.experiments.start(name, reason=reason), as_json=as_json)


@app.command()
def pause(name: Name, *, reason: Reason = "", url: Url = None, as_json: AsJson = False) -> None:
    """Let a running experiment answer nothing until it is started again."""
    with client(url) as c:
        _changed(c.experiments.pause(name, reason=reason), as_json=as_json)


@app.command()
def ramp(
    name: Name,
    weights: Annotated[
        list[str],
        typer.Argument(help="Of each variant, in percent: control=20 treatment=80.", metavar="VARIANT=WEIGHT"),
    ],
    *,
    reason: Reason = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Change the weights, for units that are assigned from now on; the others keep their variant."""
    with client(url) as c:
        _changed(c.experiments.ramp(name, weights, reason=reason), as_json=as_json)


@app.command()
def stop(name: Name, *, reason: Reason = "", url: Url = None, as_json: AsJson = False) -> None:
    """Conclude an experiment without a winner."""
    with client(url) as c:
        _changed(c.experiments.stop(name, reason=reason), as_json=as_json)


@app.command()
def conclude(
    name: Name,
    *,
    winner: Annotated[str, typer.Option(help="The variant whose version becomes the champion.", metavar="VARIANT")],
    reason: Reason = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Conclude an experiment, and make the winner's version its model's champion."""
    with client(url) as c:
        _changed(c.experiments.conclude(name, winner, reason=reason), as_json=as_json)


@app.command()
def drop(name: Name, *, reason: Reason = "", url: Url = None) -> None:
    """Drop a draft or a concluded experiment, with everything that it recorded; its history stays."""
    with client(url) as c:
        c.experiments.drop(name, reason=reason)
    notify(f"dropped the experiment {name}")


@app.command(name="list")
def list_experiments(*, url: Url = None, as_json: AsJson = False) -> None:
    """List the experiments, oldest first: those that you may use, or all where you own the schema."""
    with client(url) as c:
        found = c.experiments.list()
    if as_json:
        show_json([one.to_json() for one in found])
        return
    show_table(
        ["experiment", "status", "mode", "unit", "variants", "layer", "winner", "made", "by"],
        [
            (
                one.name,
                one.status,
                one.mode,
                one.unit,
                _variants(one),
                one.layer,
                one.winner,
                f"{one.created_at:%Y-%m-%d %H:%M}",
                one.created_by,
            )
            for one in found
        ],
    )


@app.command()
def show(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show one experiment: its design, its variants, the periods of its weights, its metrics."""
    with client(url) as c:
        found = c.experiments.get(name)
    if as_json:
        show_json(found.to_json())
    else:
        show_table(["what", "value"], [row for row in _rows(found) if row[1]])


@app.command()
def score(
    name: Name,
    *,
    source: Annotated[
        str | None, typer.Option("--from", help="The table or view to score, as SQL writes its name.", metavar="TABLE")
    ] = None,
    query: Annotated[
        Path | None,
        typer.Option(help="A file with the SELECT whose rows are scored; - reads it from the standard input."),
    ] = None,
    key: Annotated[str, typer.Option(help="The column that tells the units apart.", metavar="COL")],
    request_id: Annotated[
        str | None, typer.Option(help="Run again with the same id, it does nothing.", metavar="ID")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Assign the units of a table's or a query's rows, predict for them, and record both, in one transaction."""
    if (source is None) == (query is None):
        raise typer.BadParameter("write either --from or --query")
    text = None if query is None else query_text(query)
    with client(url) as c:
        recorded = c.experiments.run(name, text, key=key, source=source, request_id=request_id)
    if as_json:
        show_json({"experiment": name, "request_id": request_id, "recorded": recorded})
    else:
        notify(f"recorded {recorded:,} predictions of {name}")


@app.command()
def assign(name: Name, unit: Unit, *, url: Url = None, as_json: AsJson = False) -> None:
    """Print the variant that a unit has, or would get; nothing is recorded."""
    with client(url) as c:
        assigned = c.experiments.assign(name, unit)
    if as_json:
        show_json({"experiment": name, "unit": unit, "variant": assigned})
    elif assigned is None:
        notify(f"unit {unit} is in another part of the layer, and does not take part in {name}")
    else:
        typer.echo(printable(assigned))


@app.command()
def force(
    name: Name,
    unit: Unit,
    variant: Annotated[str, typer.Argument(help="The variant that it gets.")],
    *,
    url: Url = None,
) -> None:
    """Give a tester's unit a variant; the unit is left out of the analysis."""
    with client(url) as c:
        c.experiments.force(name, unit, variant=variant)
    notify(f"unit {unit} gets variant {variant} of {name}")


@app.command()
def record(
    name: Name,
    unit: Unit,
    variant: Annotated[str, typer.Argument(help="The variant that it has seen.")],
    *,
    at: Annotated[
        str | None, typer.Option(help="When, as PostgreSQL reads it; by default now.", metavar="TIME")
    ] = None,
    url: Url = None,
) -> None:
    """Record the variant that a unit has seen, where an application draws variants by itself; the first one stays."""
    with client(url) as c:
        c.experiments.record_assignment(name, unit, variant=variant, at=at)
    notify(f"recorded that unit {unit} has seen variant {variant} of {name}")


@app.command()
def grant(name: Name, role: RoleName, *, url: Url = None) -> None:
    """Let a role use an experiment: ask it, record what came of it, and read its views."""
    with client(url) as c:
        c.experiments.grant(name, role)
    notify(f"{role} may use the experiment {name}")


@app.command()
def revoke(name: Name, role: RoleName, *, url: Url = None) -> None:
    """Take from a role what `grant` gave for this experiment."""
    with client(url) as c:
        c.experiments.revoke(name, role)
    notify(f"{role} may no longer use the experiment {name}")


@app.command()
def history(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show what was done to an experiment, when, by whom and why; also to one that was dropped."""
    with client(url) as c:
        events = c.experiments.history(name)
    if as_json:
        show_json([event.to_json() for event in events])
        return
    show_table(
        ["when", "who", "action", "detail", "reason"],
        [(_time(event.done_at), event.done_by, event.action, _detail(event.detail), event.reason) for event in events],
    )


def _changed(found: Experiment, *, as_json: bool) -> None:
    if as_json:
        show_json(found.to_json())
        return
    won = "" if found.winner is None else f"; {_winner(found)} is the champion"
    status = "a draft" if found.status == "draft" else found.status
    notify(f"experiment {found.name} is {status}: {_variants(found)}{won}")


def _winner(found: Experiment) -> str:
    return next(v.reference for v in found.variants if v.name == found.winner)


def _variants(found: Experiment) -> str:
    return ", ".join(f"{v.name} {_weighted(found, v.reference, v.weight, ' ')}" for v in found.variants)


def _weighted(found: Experiment, reference: str, weight: float | None, between: str) -> str:
    return reference if found.mode == "shadow" else f"{reference}{between}{weight:g} %"


def _rows(found: Experiment) -> list[tuple[str, object]]:
    layer = None if found.layer is None else f"{found.layer}, buckets {found.layer_from} to {(found.layer_to or 0) - 1}"
    return [
        ("experiment", found.name),
        ("description", found.description),
        ("status", found.status),
        ("mode", found.mode),
        ("winner", found.winner),
        ("unit", found.unit),
        *(
            (f"variant {v.name}", v.reference + ("" if found.mode == "shadow" else f", {v.weight:g} %"))
            for v in found.variants
        ),
        ("drawn by", f"{found.scheme}, salt {found.salt}"),
        ("layer", layer),
        ("eligible", found.eligible),
        ("holdout", found.holdout and f"{found.holdout:.2%}"),
        ("features", ", ".join(found.features) + (", recorded" if found.record_features else "")),
        *_periods(found),
        *((f"metric {m.name}", described(m)) for m in found.metrics or ()),
        ("made", f"{_time(found.created_at)} by {found.created_by}"),
        ("started", found.started_at and _time(found.started_at)),
        ("concluded", found.concluded_at and _time(found.concluded_at)),
    ]


def _periods(found: Experiment) -> Iterable[tuple[str, str]]:
    for a in found.allocations or ():
        if found.mode == "ab":
            weights = " ".join(f"{name}={weight:g}" for name, weight in a.weights.items())
            until = "" if a.valid_to is None else f" to {_time(a.valid_to)}"
            yield f"weights {a.number}", f"{weights} from {_time(a.valid_from)}{until}" + (a.reason and f": {a.reason}")


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _detail(detail: object) -> str:
    if isinstance(detail, dict):
        return ", ".join(f"{key} {_detail(value)}" for key, value in detail.items())
    return " ".join(map(str, detail)) if isinstance(detail, list) else str(detail)
