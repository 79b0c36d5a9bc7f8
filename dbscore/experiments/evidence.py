"""What the page of a report shows beside its findings: scores, calibration, and the SQL of every part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import class_row
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from dbscore.database import run
from dbscore.experiments import days, outcomes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dbscore.experiments.days import Daily
    from dbscore.experiments.records import Experiment, Metric

__all__ = ["CalibrationBin", "Evidence", "ScoreBin", "evidence"]

_SCORES = "select variant, label, lower, upper, predictions from dbscore.score_distribution({experiment})"
_CALIBRATION = """select variant, bin, n, predicted, observed, observed_deviation
from dbscore.calibration({experiment}, {metric})"""
_SAMPLE_RATIO = """select variant, allocation, count(*) as units
from dbscore.experiment_assignments
where experiment = {experiment} and left_out is null
group by variant, allocation"""
_LEFT_OUT = """select left_out, count(*) as units
from dbscore.experiment_assignments
where experiment = {experiment} and left_out is not null
group by left_out"""
_COVERAGE = """select metric, variant, sum(assigned) as assigned, sum(units) as with_outcome
from dbscore.experiment_daily
where experiment = {experiment}
group by metric, variant"""
_SUMS = """select variant, allocation, n, sum, sum_of_squares, mean, variance
from dbscore.experiment_summary
where experiment = {experiment} and metric = {metric}"""
_UNIT_VALUES = "select * from dbscore.unit_values({experiment}, {metric})"
# what compares predictions with the truth, best first: all say the same of calibration, so that one is enough
_QUALITY = ("brier", "log_loss", "auc", "rmse", "mae")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBin:
    """How often a version predicted a class, or a score in a range.

    Attributes:
        variant: The variant's name.
        label: The class; None of a range.
        lower: Where the range begins; None of a class.
        upper: Where it ends.
        predictions: How many.
    """

    variant: str
    label: str | None
    lower: float | None
    upper: float | None
    predictions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """A tenth of a variant's outcomes, by their predictions.

    Attributes:
        metric: The metric that has the truth.
        variant: The variant's name.
        n: Outcomes.
        predicted: The mean prediction, of two classes the second one's probability.
        observed: The mean truth, of two classes the second one's share.
        lower: Of the interval of the observed: Wilson's of a share, Student's of a mean. None of one outcome.
        upper: Where it ends.
    """

    metric: str
    variant: str
    n: int
    predicted: float
    observed: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the page draws beside the findings.

    Attributes:
        daily: Units and sums by day.
        scores: By variant.
        calibration: By variant; empty where no metric compares predictions of two classes, or of numbers, with a truth.
        statements: What gives these numbers and those of the report, by the part of the page: `daily`, `scores`,
            `calibration`, `sample_ratio`, `left_out`, `coverage`, and `metric ...` for each metric.
    """

    daily: tuple[Daily, ...]
    scores: tuple[ScoreBin, ...]
    calibration: tuple[CalibrationBin, ...]
    statements: dict[str, str]


def evidence(connection: Connection, experiment: Experiment, daily: tuple[Daily, ...], *, alpha: float) -> Evidence:
    """Read what the page shows, as a member of the owner.

    Args:
        connection: In the transaction of the report, so that both tell of the same time.
        experiment: Which one.
        daily: Its days.
        alpha: The intervals of the calibration cover with the probability 1 - alpha.
    """
    metric = _truth(experiment)
    asked = {
        "sample_ratio": (_SAMPLE_RATIO, None),
        "left_out": (_LEFT_OUT, None),
        "coverage": (_COVERAGE, None),
        "scores": (_SCORES, None),
        **({} if metric is None else {"calibration": (_CALIBRATION, metric.name)}),
        **{
            f"metric {one.name}": (_SUMS if outcomes.has_sums(experiment, one) else _UNIT_VALUES, one.name)
            for one in experiment.metrics or ()
        },
    }
    statements = {"daily": days.statement(experiment.name)} | {
        part: sql.SQL(text).format(experiment=sql.Literal(experiment.name), metric=sql.Literal(of)).as_string()
        for part, (text, of) in asked.items()
    }
    return Evidence(
        daily=daily,
        scores=_scores(connection, statements["scores"]),
        calibration=() if metric is None else _calibration(connection, statements["calibration"], metric, alpha=alpha),
        statements=statements,
    )


def _scores(connection: Connection, statement: str) -> tuple[ScoreBin, ...]:
    cursor = run(connection, statement)
    make = class_row(ScoreBin)(cursor)
    return tuple(make(row) for row in cursor)


def _truth(experiment: Experiment) -> Metric | None:
    """Return a metric whose outcomes are the truth."""
    metrics = [one for one in experiment.metrics or () if one.kind in _QUALITY]
    return min(metrics, key=lambda one: _QUALITY.index(one.kind)) if metrics else None


def _calibration(connection: Connection, statement: str, metric: Metric, *, alpha: float) -> tuple[CalibrationBin, ...]:
    is_share = metric.kind in ("brier", "log_loss", "auc")
    found = []
    lower: float | None
    upper: float | None
    for variant, _, n, predicted, observed, deviation in run(connection, statement):
        if is_share:
            lower, upper = map(float, proportion_confint(round(observed * n), n, alpha=alpha, method="wilson"))
        elif n > 1:
            reach = float(stats.t.isf(alpha / 2, n - 1)) * deviation / math.sqrt(n)
            lower, upper = observed - reach, observed + reach
        else:
            lower = upper = None
        found.append(
            CalibrationBin(
                metric=metric.name,
                variant=variant,
                n=n,
                predicted=predicted,
                observed=observed,
                lower=lower,
                upper=upper,
            )
        )
    return tuple(found)
