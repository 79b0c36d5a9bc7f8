"""`dbscore experiment report|power|audit|aa`: which variant is better, how surely, and whether to believe it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dbscore.cli.common import AsJson, Url, client, notify, show_json, show_table
from dbscore.cli.outcomes import Name
from dbscore.experiments.extra import statistics_needed

if TYPE_CHECKING:
    from dbscore.experiments.report import Finding, Report
    from dbscore.experiments.statistics.power import SampleSize

__all__ = ["commands"]

commands = typer.Typer()

# done, and something is to be looked at
_TO_LOOK_AT = 3

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
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Say which variant is better, by each metric, and how surely; withheld where units are not divided by weight."""
    with client(url) as c:
        made = c.experiments.report(
            name, alpha=alpha, correction=None if correction == "none" else correction, sequential=sequential
        )
    if as_json:
        show_json(made.to_json())
        return
    _show_health(made)
    if made.findings is None:
        show_table(["metric", "results"], [(metric, "withheld") for metric in _metrics(made)])
        notify(f"the results are withheld: {made.withheld}")
        return
    columns = ["metric", "variant", "n", "control n", "value", "control", "difference", "lift", _interval_name(made)]
    show_table([*columns, "p", "corrected p", "verdict"], map(_finding, made.findings))
    for one in made.findings:
        if one.comparison.p_value is None:
            notify(f"{one.metric}, {one.variant}: {one.comparison.method}")


@commands.command()
def power(  # noqa: PLR0913 - one option each
    *,
    kind: Annotated[Literal["conversion", "mean"], typer.Option(help="Of shares of units, or of numbers.")],
    baseline: Annotated[
        float | None, typer.Option(help="The control's share, between 0 and 1; of conversion.", show_default=False)
    ] = None,
    lift: Annotated[
        float | None,
        typer.Option(help="The relative lift to be found: 0.05 is 5 % of the control's.", show_default=False),
    ] = None,
    mean: Annotated[
        float | None, typer.Option(help="The control's mean, for a relative lift.", show_default=False)
    ] = None,
    sd: Annotated[
        float | None, typer.Option(help="The standard deviation of units; of mean.", show_default=False)
    ] = None,
    difference: Annotated[
        float | None, typer.Option(help="The difference to be found, rather than a lift.", show_default=False)
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(
            help="The control's units: print the least difference that they find, rather than how many are needed.",
            show_default=False,
        ),
    ] = None,
    power: Annotated[float, typer.Option(help="The probability of finding the difference.")] = 0.8,
    alpha: Alpha = 0.05,
    ratio: Annotated[float, typer.Option(help="Units of the treatment per unit of the control.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say how many units each variant needs, or what difference so many find; no database is needed."""
    if kind == "conversion" and (baseline is None or mean is not None or sd is not None):
        raise typer.BadParameter("conversion has --baseline, and neither --mean nor --sd")
    if kind == "mean" and (sd is None or baseline is not None):
        raise typer.BadParameter("mean has --sd, and no --baseline")
    if (units is not None) + (lift is not None) + (difference is not None) != 1:
        raise typer.BadParameter("write one of --lift, --difference and --units")
    control = baseline if kind == "conversion" else mean
    if lift is not None:
        if control is None:
            raise typer.BadParameter("--lift is a share of the control's mean: write --mean, or --difference")
        difference = lift * abs(control)
    with statistics_needed():
        from dbscore.experiments.statistics import power as statistics
    common: dict[str, Any] = {"power": power, "alpha": alpha}
    sizes: SampleSize
    if units is not None:
        sizes = statistics.SampleSize(control=units, treatment=round(units * ratio))
        if baseline is not None:
            difference = statistics.detectable_difference_of_proportions(sizes, baseline=baseline, **common)
        else:
            difference = statistics.detectable_difference_of_means(sizes, deviation=sd or 0.0, **common)
    elif baseline is not None:
        sizes = statistics.sample_size_for_proportions(difference or 0.0, baseline=baseline, ratio=ratio, **common)
    else:
        sizes = statistics.sample_size_for_means(difference or 0.0, deviation=sd or 0.0, ratio=ratio, **common)
    relative = difference / abs(control) if difference is not None and control else None
    found = {
        "kind": kind,
        "control": sizes.control,
        "treatment": sizes.treatment,
        "total": sizes.total,
        "difference": difference,
        "lift": relative,
        "power": power,
        "alpha": alpha,
    }
    if as_json:
        show_json(found)
        return
    show_table(
        ["what", "value"],
        [
            ("units of the control", f"{sizes.control:,}"),
            ("units of the treatment", f"{sizes.treatment:,}"),
            ("units", f"{sizes.total:,}"),
            ("difference", "none is found so often" if difference is None else f"{difference:.6g}"),
            *([("lift", f"{relative:+.3%}")] if relative is not None else []),
            ("power", f"{power:g}"),
            ("alpha", f"{alpha:g}"),
        ],
    )


@commands.command()
def audit(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Recompute every recorded assignment, and list those that differ; then the exit code is 3."""
    with client(url) as c:
        found = c.experiments.audit(name)
    if as_json:
        show_json(found.to_json())
    else:
        if found.differing:
            show_table(
                ["unit", "recorded", "expected", "allocation", "assigned", "recorded by"],
                [
                    (
                        one.unit,
                        one.recorded,
                        one.expected or "in another part of the layer",
                        one.allocation,
                        one.assigned_at,
                        "an application" if one.by_application else "the experiment",
                    )
                    for one in found.differing
                ],
            )
        forced = f"; {found.forced:,} are forced, and were not looked at" if found.forced else ""
        notify(f"{len(found.differing):,} of {found.checked:,} assignments of {name} differ{forced}")
    if found.differing:
        raise typer.Exit(_TO_LOOK_AT)


@commands.command()
def aa(
    name: Name,
    *,
    salts: Annotated[int, typer.Option(help="How many divisions of the units are compared.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same salts.")] = 0,
    sample: Annotated[int, typer.Option(help="How many units are divided, where there are more.")] = 20_000,
    alpha: Alpha = 0.05,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Divide the units anew with many salts (A/A): tests must find nothing; where they do, the exit code is 3."""
    with client(url) as c:
        found = c.experiments.certify(name, salts=salts, seed=seed, sample=sample, alpha=alpha)
    if as_json:
        show_json(found.to_json())
    else:
        show_table(
            ["metric", "variant", "tests", f"p <= {alpha:g}", "99 %", "distance", "p", "uniform"],
            [
                (
                    one.metric,
                    one.variant,
                    one.tests,
                    None if one.share is None else f"{one.share:.2%}",
                    None if one.lower is None else f"{one.lower:.2%} to {one.upper:.2%}",
                    _number(one.distance),
                    _number(one.p_value),
                    {True: "yes", False: "no", None: "not tested"}[one.is_uniform],
                )
                for one in found.metrics
            ],
        )
        if found.not_replayed:
            notify(f"not replayed, since each test takes too long: {', '.join(found.not_replayed)}")
    if not found.is_uniform:
        raise typer.Exit(_TO_LOOK_AT)


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
    p = "" if ratio is None or ratio.p_value is None else f"; sample ratio p = {_number(ratio.p_value)}"
    notify(f"{health.units:,} units" + (f", without {', '.join(left_out)}" if left_out else "") + p)
    for one in health.coverage:
        mature = "" if one.mature_share is None else f", the window has passed for {one.mature_share:.2%}"
        if one.missing is not None:
            notify(f"{one.metric}, {one.variant}: {one.missing:.2%} without an outcome{mature}")


def _metrics(made: Report) -> list[str]:
    return list(dict.fromkeys(one.metric for one in made.health.coverage))


def _interval_name(made: Report) -> str:
    return f"{100 * (1 - made.alpha):.4g} %" + (", always valid" if made.sequential else "")


def _finding(one: Finding) -> tuple[object, ...]:
    shown = one.always_valid or one.comparison
    interval = "" if shown.lower is None else f"{_number(shown.lower)} to {_number(shown.upper)}"
    verdict: str | None = one.verdict
    if one.guardrail is not None:
        verdict = f"guardrail {one.guardrail.verdict}"
    return (
        one.metric,
        one.variant,
        one.n,
        one.control_n,
        _number(one.value),
        _number(one.control_value),
        _number(shown.difference),
        None if shown.relative is None else f"{shown.relative:+.2%}",
        interval,
        _number(one.p_value),
        _number(one.p_corrected),
        verdict,
    )


def _number(number: float | None) -> str | None:
    return None if number is None else f"{number:.5g}"
