"""The analysis of an experiment: reads sums and units, and lets `statistics` compare them.

Nothing is computed here that `statistics` computes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from dbscore.errors import ExperimentError
from dbscore.experiments import lookup, units
from dbscore.experiments.contrasts import by_sums, of_areas, of_pairs, of_quantiles, with_covariate
from dbscore.experiments.report import Coverage, Finding, Health, Report
from dbscore.experiments.statistics.arguments import require_share
from dbscore.experiments.statistics.corrections import benjamini_hochberg, holm
from dbscore.experiments.statistics.guardrails import check_guardrail
from dbscore.experiments.statistics.sample_ratio import Period, SampleRatio, check_periods
from dbscore.experiments.statistics.sequential import always_valid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dbscore.experiments.contrasts import Contrast
    from dbscore.experiments.records import Experiment, Metric
    from dbscore.experiments.report import Correction
    from dbscore.experiments.statistics.comparison import Comparison, Direction

__all__ = ["report"]

# what CUPED may adjust: means of numbers that each unit has by itself
_ADJUSTABLE = ("conversion", "mean", "count", "log_loss", "brier", "mae")


def report(
    connection: Connection, name: str, *, alpha: float, correction: Correction | None, sequential: bool
) -> Report:
    """Analyse an experiment.

    Raises:
        NotFoundError: There is no such experiment.
        PrivilegeError: The role is no member of the owner, or may not read what a covariate's query reads.
        ExperimentError: The level is no share, or there is no such correction.
    """
    require_share("alpha", alpha)
    if correction not in ("holm", "bh", None):
        raise ExperimentError(f"there is no correction {correction!r}", remedy="It is holm, bh or None.")
    units.require_membership(connection, "the report")
    experiment = lookup.experiment(connection, name)
    ratio = _sample_ratio(connection, experiment)
    withheld = None
    findings = None
    if ratio is not None and ratio.is_suspicious:
        withheld = (
            f"the units are not divided as the weights say (p = {ratio.p_value:.2g}): something loses some of them, or"
            " assigns them otherwise, and no difference means anything before that is found"
        )
    else:
        raw = _findings(connection, experiment, alpha=alpha)
        findings = _judged(raw, alpha=alpha, correction=correction, sequential=sequential)
    return Report(
        experiment=name,
        mode=experiment.mode,
        status=experiment.status,
        control=experiment.variants[0].name,
        alpha=alpha,
        correction=correction,
        sequential=sequential,
        made_at=connection.execute(select(func.now())).scalar_one(),
        sample_ratio=ratio,
        withheld=withheld,
        health=_health(connection, name),
        findings=findings,
    )


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


# --- which comparison ---


def _findings(connection: Connection, experiment: Experiment, *, alpha: float) -> list[tuple[Metric, str, Contrast]]:
    summaries = lookup.summary(connection, experiment.name)
    found = []
    for metric in experiment.metrics or ():
        needs_units = experiment.mode == "shadow" or metric.kind in ("quantile", "auc") or _is_adjusted(metric)
        sample = units.sample(connection, experiment.name, metric.name) if needs_units else None
        covariates = None
        if sample is not None and metric.covariate is not None and _is_adjusted(metric) and experiment.mode == "ab":
            covariates = units.covariate(connection, metric.covariate, sample.units)
        sums = [one for one in summaries if one.metric == metric.name]
        for number, variant in enumerate(experiment.variants[1:], start=2):
            if sample is not None and experiment.mode == "shadow":
                one = of_pairs(metric, sample, number, alpha=alpha)
            elif sample is not None and metric.kind == "auc":
                one = of_areas(sample, number, alpha=alpha)
            elif sample is not None and metric.kind == "quantile":
                one = of_quantiles(sample, number, quantile=metric.quantile or 0.5, alpha=alpha)
            else:
                one = by_sums(metric.kind, sums, (experiment.variants[0].name, variant.name), alpha=alpha)
                if sample is not None and covariates is not None:
                    one = with_covariate(one, sample, covariates, number, alpha=alpha)
            found.append((metric, variant.name, one))
    return found


def _is_adjusted(metric: Metric) -> bool:
    return metric.covariate is not None and metric.kind in _ADJUSTABLE


# --- verdicts ---


def _judged(
    found: Sequence[tuple[Metric, str, Contrast]],
    *,
    alpha: float,
    correction: Correction | None,
    sequential: bool,
) -> tuple[Finding, ...]:
    # no units, no interval: the comparison says why, and stays as it is
    later = [
        always_valid(one.comparison, units=one.units, alpha=alpha) if sequential and one.units else None
        for _, _, one in found
    ]
    p_values = [
        (one.comparison if valid is None else valid).p_value for (_, _, one), valid in zip(found, later, strict=True)
    ]
    goals = [p if metric.role == "goal" else None for p, (metric, _, _) in zip(p_values, found, strict=True)]
    corrected = {"holm": holm, "bh": benjamini_hochberg}[correction](goals) if correction else tuple(goals)
    return tuple(
        _finding(metric, variant, one, valid=valid, p_value=p, p_corrected=best, alpha=alpha)
        for (metric, variant, one), valid, p, best in zip(found, later, p_values, corrected, strict=True)
    )


def _finding(
    metric: Metric,
    variant: str,
    one: Contrast,
    *,
    valid: Comparison | None,
    p_value: float | None,
    p_corrected: float | None,
    alpha: float,
) -> Finding:
    direction: Direction = "higher" if metric.direction == "higher" else "lower"
    guardrail = verdict = None
    if metric.role == "guardrail":
        guardrail = check_guardrail(
            one.comparison,
            margin=metric.margin or 0.0,
            direction=direction,
            alpha=alpha,
            units=one.units if valid is not None else None,
        )
    else:
        verdict = replace(one.comparison, p_value=p_corrected).verdict(direction, alpha=alpha)
    return Finding(
        metric=metric.name,
        kind=metric.kind,
        direction=direction,
        role=metric.role,
        variant=variant,
        control_n=one.control_n,
        n=one.n,
        control_value=one.control_value,
        value=one.value,
        comparison=one.comparison,
        unadjusted=one.unadjusted,
        variance_reduction=one.variance_reduction,
        always_valid=valid,
        p_value=p_value,
        p_corrected=p_corrected,
        verdict=verdict,
        guardrail=guardrail,
        accuracy=one.accuracy,
    )
