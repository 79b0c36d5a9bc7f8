"""`dbscore experiment report`: which variant is better, how surely; in the terminal, as JSON, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dbscore.cli.common import AsJson, Url, client, notify, show_json, show_table
from dbscore.cli.outcomes import Name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.report import Finding, Report, Segmentation

__all__ = ["Alpha", "commands", "number"]

commands = typer.Typer()

# what a narrow terminal has no room for
_WIDE = ("n", "control n", "difference", "p")

Alpha = Annotated[float, typer.Option(help="The significance level, between 0 and 1.")]


@commands.command()
def report(
    name: Name,
    *,
    alpha: Alpha = 0.05,
    correction: Annotated[
        Literal["holm", "bh", "none"],
        typer.Option(help="For several goals and treatments: Holm, Benjamini and Hochberg, or none."),
    ] = "holm",
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential/--no-sequential",
            help="Whether the verdicts hold whenever one looks; otherwise for one look at a fixed time.",
        ),
    ] = True,
    segment: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare also within parts of the units: a recorded feature, or NAME=a query of unit, segment;"
            " repeat for several.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the page to this file, which needs no network.", show_default=False)
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Say which variant is better, by each metric, and how surely; withheld where units are not divided by weight."""
    if html is not None and not html.parent.is_dir():
        raise typer.BadParameter(f"the page cannot be written: there is no folder {html.parent}")
    options: dict[str, Any] = {
        "alpha": alpha,
        "correction": None if correction == "none" else correction,
        "sequential": sequential,
        "segments": _segments(segment or []),
    }
    with client(url) as c:
        if html is None:
            made = c.experiments.report(name, **options)
        else:
            page = c.experiments.page(name, **options)
            made = page.report
            _write(html, page.to_html())
            notify(f"the page is written to {html}")
    if as_json:
        show_json(made.to_json())
        return
    _show_health(made)
    _show_findings(made)
    for one in made.segmentations:
        _show_segments(made, one)
    notify(f"decision: {made.decision.headline}")


def _segments(asked: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for one in asked:
        name, is_query, query = one.partition("=")
        if name in found:
            raise typer.BadParameter(f"the segments {name!r} are asked for twice")
        found[name] = query if is_query else None
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"the page cannot be written: {error}") from error


def _show_findings(made: Report) -> None:
    if made.findings is None:
        show_table(["metric", "results"], [(metric, "withheld") for metric in _metrics(made)])
        notify(f"the results are withheld: {made.withheld}")
        return
    show_table(_columns(made), map(_finding, made.findings), wide=_WIDE)
    for one in made.findings:
        if one.comparison.p_value is None:
            notify(f"{one.metric}, {one.variant}: {one.comparison.method}")


def _show_segments(made: Report, segmentation: Segmentation) -> None:
    rows = []
    for part in segmentation.segments:
        value = "(none)" if part.value is None else part.value
        rows += [(value, *_finding(one)) for one in part.findings or ()]
        if part.findings is None:
            p = None if part.sample_ratio is None else number(part.sample_ratio.p_value)
            notify(f"{segmentation.name} {value}: the results are withheld, sample ratio p = {p}")
    show_table([segmentation.name, *_columns(made)], rows, wide=_WIDE)
    for one in segmentation.heterogeneity:
        if one.p_corrected is not None or one.p_value is not None:
            corrected = one.p_value if one.p_corrected is None else one.p_corrected
            notify(
                f"{one.metric}, {one.variant}: homogeneity of the segments p = {number(corrected)}"
                f" (Cochran's Q {number(one.statistic)}, degrees of freedom {one.degrees_of_freedom})"
            )


def _show_health(made: Report) -> None:
    health = made.health
    left_out = [
        f"{count:,} {what}"
        for count, what in (
            (health.forced, "forced"),
            (health.seen_in_two_variants, "seen in two variants"),
            (health.held_out, "held out"),
        )
        if count
    ]
    ratio = made.sample_ratio
    p = "" if ratio is None or ratio.p_value is None else f"; sample ratio p = {number(ratio.p_value)}"
    notify(f"{health.units:,} units" + (f", without {', '.join(left_out)}" if left_out else "") + p)
    for one in health.coverage:
        mature = "" if one.mature_share is None else f", the window has passed for {one.mature_share:.2%}"
        if one.missing is not None:
            notify(f"{one.metric}, {one.variant}: {one.missing:.2%} without an outcome{mature}")


def _metrics(made: Report) -> list[str]:
    return list(dict.fromkeys(one.metric for one in made.health.coverage))


def _columns(made: Report) -> list[str]:
    interval = f"{100 * (1 - made.alpha):.4g} % interval"
    return [
        *("metric", "variant", "n", "control n", "value", "control", "difference", "lift", interval),
        *("p", "corrected p", "verdict"),
    ]


def _finding(one: Finding) -> tuple[object, ...]:
    shown = one.always_valid or one.comparison
    interval = "" if shown.lower is None else f"{shown.lower:.4g} to {shown.upper:.4g}"
    verdict: str | None = one.verdict
    p_value = one.p_value
    if one.guardrail is not None:
        verdict, p_value = one.guardrail.verdict, one.guardrail.p_value
    return (
        one.metric,
        one.variant,
        one.n,
        one.control_n,
        number(one.value),
        number(one.control_value),
        number(shown.difference),
        None if shown.relative is None else f"{shown.relative:+.2%}",
        interval,
        number(p_value),
        number(one.p_corrected),
        verdict,
    )


def number(value: float | None) -> str | None:
    """Return a number with five digits."""
    return None if value is None else f"{value:.5g}"
