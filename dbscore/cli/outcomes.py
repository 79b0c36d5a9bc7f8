"""`dbscore experiment metric|outcome|collect|refresh|results`: what came of the units of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbscore.cli.common import AsJson, Url, client, notify, query_text, show_json, show_table
from dbscore.experiments.records import Direction, Kind, Metric, MetricResult, Role

__all__ = ["Name", "Unit", "commands", "described"]

commands = typer.Typer()

Name = Annotated[str, typer.Argument(help="The experiment's name.", show_default=False)]
Unit = Annotated[str, typer.Argument(help="What tells the unit apart, such as a customer's number.")]
MetricName = Annotated[str, typer.Argument(help="The metric's name.")]


@commands.command()
def metric(  # noqa: PLR0913 - one option each
    name: Name,
    metric: MetricName,
    *,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="conversion: any outcome but 0; mean: the sum of a unit's outcomes; count: how many; ratio: values "
            "over denominators; quantile: of units' sums; the others compare predictions with the truth.",
            show_default=False,
        ),
    ] = None,
    direction: Annotated[Direction | None, typer.Option(help="Which is better; by default lower for losses.")] = None,
    role: Annotated[Role, typer.Option(help="A guardrail must not get worse by more than --margin.")] = "goal",
    margin: Annotated[float | None, typer.Option(help="A share of the control's mean; of a guardrail.")] = None,
    window: Annotated[
        str | None, typer.Option(help="How long after its assignment a unit's outcomes count: '7 days'.")
    ] = None,
    quantile: Annotated[float | None, typer.Option(help="Which one, between 0 and 1.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--sql", help="A file with a query of unit, value[, denominator], at, for collect; - for stdin."),
    ] = None,
    covariate: Annotated[
        Path | None,
        typer.Option(
            "--covariate-sql", help="A file with a query of unit, value: what was before the assignment; - for stdin."
        ),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the metric with its outcomes.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Give an experiment a metric, or drop one."""
    if drop == (kind is not None):
        raise typer.BadParameter("write either --kind or --drop")
    if source is not None and covariate is not None and str(source) == str(covariate) == "-":
        raise typer.BadParameter("only one of --sql and --covariate-sql can be the standard input")
    texts = [None if path is None else query_text(path) for path in (source, covariate)]
    with client(url) as c:
        if kind is None:
            c.experiments.drop_metric(name, metric)
            notify(f"dropped the metric {metric} of {name}")
            return
        made = c.experiments.add_metric(
            name,
            metric,
            kind=kind,
            direction=direction,
            role=role,
            margin=margin,
            window=window,
            quantile=quantile,
            source=texts[0],
            covariate=texts[1],
        )
    if as_json:
        show_json(made.to_json())
    else:
        notify(f"metric {metric} of {name}: {described(made)}")


# a value may be negative, and is no option then
@commands.command(context_settings={"ignore_unknown_options": True})
def outcome(
    name: Name,
    unit: Unit,
    metric: MetricName,
    value: Annotated[str, typer.Argument(help="A number, or the class that the unit turned out to be of.")],
    *,
    at: Annotated[
        str | None, typer.Option(help="When it came, as PostgreSQL reads it; by default now.", metavar="TIME")
    ] = None,
    denominator: Annotated[float | None, typer.Option(help="Of a ratio.")] = None,
    url: Url = None,
) -> None:
    """Record what came of a unit."""
    with client(url) as c:
        c.experiments.record_outcome(name, unit, metric=metric, value=value, at=at, denominator=denominator)
    notify(f"recorded {metric} of unit {unit}")


@commands.command()
def collect(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Run the queries of an experiment's metrics, and take their rows for the outcomes there were before."""
    with client(url) as c:
        collected = c.experiments.collect(name)
    if as_json:
        show_json({"experiment": name, "collected": collected})
    else:
        notify(f"collected {collected:,} outcomes of {name}")


@commands.command()
def refresh(
    name: Annotated[str | None, typer.Argument(help="The experiment; by default all.", show_default=False)] = None,
    *,
    url: Url = None,
) -> None:
    """Add what was recorded since the last time to the sums by day, so that results are read fast."""
    with client(url) as c:
        c.experiments.refresh(name)
    notify(f"refreshed {name or 'all experiments'}")


@commands.command()
def results(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show each variant beside the control, by metric: difference, 95 percent interval, p."""
    with client(url) as c:
        found = c.experiments.results(name)
    if as_json:
        show_json([one.to_json() for one in found])
    else:
        columns = ["metric", "variant", "n", "control n", "mean", "control mean", "difference", "lift", "95 %", "p"]
        show_table(columns, map(_result, found))
    suspicious = {one.sample_ratio_p for one in found if one.sample_ratio_suspicious}
    for p in suspicious:
        notify(
            f"warning: the units are not divided as the weights say (p = {_number(p)}): something loses some of them, "
            "and the differences mean little"
        )


def described(metric: Metric) -> str:
    """Return what a metric is, in a line."""
    kind = metric.kind if metric.quantile is None else f"{metric.kind} {metric.quantile:g}"
    role = metric.role if metric.margin is None else f"{metric.role} with margin {metric.margin:.2%}"
    window = "" if metric.window is None else f", within {metric.window}"
    queries = [text for text, query in (("a query", metric.source), ("a covariate", metric.covariate)) if query]
    return f"{role}, {kind}, {metric.direction} is better{window}" + "".join(f", {text}" for text in queries)


def _result(one: MetricResult) -> tuple[object, ...]:
    interval = "" if one.lower is None or one.upper is None else f"{_number(one.lower)} to {_number(one.upper)}"
    return (
        one.metric,
        one.variant,
        one.n,
        one.control_n,
        _number(one.mean),
        _number(one.control_mean),
        _number(one.difference),
        None if one.lift is None else f"{one.lift:+.2%}",
        interval,
        _number(one.p),
    )


def _number(number: float | None) -> str | None:
    return None if number is None else f"{number:.5g}"
