"""The analysis of an experiment: reads sums and units, and lets `statistics` compare them.

Nothing is computed here that `statistics` computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from dbscore.errors import ExperimentError
from dbscore.experiments import lookup, outcomes, segments, units
from dbscore.experiments.decision import decide
from dbscore.experiments.parts import Parts
from dbscore.experiments.report import Coverage, Health, Report
from dbscore.experiments.statistics.arguments import require_share
from dbscore.experiments.statistics.sample_ratio import Period, SampleRatio, check_periods
from dbscore.experiments.trends import trend
from dbscore.experiments.verdicts import Rules, compare, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dbscore.experiments.days import Daily
    from dbscore.experiments.records import Experiment
    from dbscore.experiments.report import Correction, Segmentation
    from dbscore.experiments.trends import Trend
    from dbscore.experiments.verdicts import Compared

__all__ = ["Analysis", "analyse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """A report, and what it was made of.

    Attributes:
        experiment: As it was read.
        report: Of it.
        trends: How the differences developed; empty where they were not asked for, or the results are withheld.
    """

    experiment: Experiment
    report: Report
    trends: tuple[Trend, ...]


def analyse(
    connection: Connection,
    name: str,
    *,
    alpha: float,
    correction: Correction | None,
    sequential: bool,
    cut_by: Mapping[str, str | None] | Sequence[str] = (),
    daily: Sequence[Daily] = (),
) -> Analysis:
    """Analyse an experiment.

    Args:
        connection: As a member of the owner.
        name: The experiment.
        alpha: The level of intervals and verdicts.
        correction: For there being several goals and treatments.
        sequential: Whether verdicts hold whenever one looks.
        cut_by: What the units are divided by: features, or by name a query of unit, segment.
        daily: Its sums by day, for the trends; none for none.

    Raises:
        NotFoundError: There is no such experiment.
        PrivilegeError: The role is no member of the owner, or may not read what a query reads.
        ExperimentError: The level is no share, there is no such correction, or the segments cannot be.
        FeatureError: There is no such feature.
    """
    require_share("alpha", alpha)
    if correction not in ("holm", "bh", None):
        raise ExperimentError(f"there is no correction {correction!r}", remedy="It is holm, bh or None.")
    units.require_membership(connection, "the report")
    experiment = lookup.experiment(connection, name)
    rules = Rules(alpha=alpha, correction=correction, sequential=sequential)
    assigned = units.assigned(connection, name) if cut_by else None
    cuts = segments.read(connection, experiment, cut_by, units=assigned.units) if assigned else ()
    ratio = _sample_ratio(connection, experiment)
    withheld = findings = None
    curves: list[Trend] = []
    divided: tuple[Segmentation, ...] = ()
    if ratio is not None and ratio.is_suspicious:
        withheld = (
            f"the units are not divided as the weights say (p = {ratio.p_value:.2g}): something loses some of them, or"
            " assigns them otherwise, and no difference means anything before that is found"
        )
    else:
        whole: list[Compared] = []
        parts = [Parts(experiment, cut, assigned) for cut in cuts] if assigned else []
        summaries = lookup.summary(connection, name)
        # one metric at a time, since its units may be many
        for metric in experiment.metrics or ():
            read = outcomes.read(connection, experiment, metric, summaries, by_unit=bool(cuts))
            whole += compare(read, alpha=alpha)
            for one in parts:
                one.add(read, alpha=alpha)
            if daily:
                needs_units = not outcomes.has_sums(experiment, metric)
                mine = [one for one in daily if one.metric == metric.name]
                curves += [
                    trend(read, mine, number, by_unit=needs_units, alpha=alpha)
                    for number in range(2, len(read.variants) + 1)
                ]
        findings = judge(whole, rules)
        divided = tuple(one.segmentation(rules) for one in parts)
    report = Report(
        experiment=name,
        mode=experiment.mode,
        status=experiment.status,
        control=experiment.variants[0].name,
        alpha=alpha,
        correction=correction,
        sequential=sequential,
        made_at=connection.execute(select(func.now())).scalar_one(),
        decision=decide(findings, control=experiment.variants[0].name, withheld=withheld),
        sample_ratio=ratio,
        withheld=withheld,
        health=_health(connection, name),
        findings=findings,
        segmentations=divided,
    )
    return Analysis(experiment=experiment, report=report, trends=tuple(curves))


def _sample_ratio(connection: Connection, experiment: Experiment) -> SampleRatio | None:
    if experiment.mode != "ab":
        return None
    got = units.exposures(connection, experiment.name)
    periods = [
        Period(units=got[one.number], weights=[one.weights[v.name] for v in experiment.variants])
        for one in experiment.allocations or ()
    ]
    return check_periods(periods)


def _health(connection: Connection, name: str) -> Health:
    counts = units.unit_counts(connection, name)
    return Health(
        units=counts.counted,
        forced=counts.forced,
        seen_in_two_variants=counts.seen_in_two_variants,
        held_out=counts.held_out,
        coverage=tuple(
            Coverage(
                metric=metric,
                variant=variant,
                units=n,
                with_outcome=known,
                missing=1 - known / n if n else None,
                mature=mature,
                mature_share=mature / n if n and mature is not None else None,
            )
            for metric, variant, n, known, mature in units.coverage(connection, name)
        ),
    )
