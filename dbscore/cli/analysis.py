"""`dbscore experiment power|audit|aa`: how many units are needed, and whether the assignments can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dbscore.cli.common import AsJson, Url, client, notify, show_json, show_table
from dbscore.cli.outcomes import Name
from dbscore.cli.report import Alpha, number
from dbscore.experiments.extra import statistics_needed

if TYPE_CHECKING:
    from dbscore.experiments.statistics.power import SampleSize

__all__ = ["commands"]

commands = typer.Typer()

# done, and something is to be looked at
_TO_LOOK_AT = 3


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
                    number(one.distance),
                    number(one.p_value),
                    {True: "yes", False: "no", None: "not tested"}[one.is_uniform],
                )
                for one in found.metrics
            ],
        )
        if found.not_replayed:
            notify(f"not replayed, since each test takes too long: {', '.join(found.not_replayed)}")
    if not found.is_uniform:
        raise typer.Exit(_TO_LOOK_AT)
