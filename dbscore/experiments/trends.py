"""How the difference of two variants developed: by the units assigned up to each day, by what is known of them now."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dbscore.experiments.contrasts import by_sums, contrast
from dbscore.experiments.records import MetricSummary
from dbscore.experiments.statistics.sequential import always_valid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from dbscore.experiments.contrasts import Contrast
    from dbscore.experiments.days import Daily
    from dbscore.experiments.outcomes import Outcomes
    from dbscore.experiments.records import Metric

__all__ = ["Trend", "TrendPoint", "trend"]

# a curve has no more points: of a longer experiment every second day, or third
_POINTS = 60
# and fewer where all units are read for each
_POINTS_BY_UNIT = 15
_QUALITY = ("log_loss", "brier", "rmse", "mae")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """The difference of the units assigned until the end of a day.

    Attributes:
        day: In UTC.
        units: Of both variants together.
        difference: The treatment's value less the control's; None where it has none.
        lower: Of the always-valid interval; None where nothing was tested.
        upper: Where it ends.
        relative: The difference as a share of the control's value.
        relative_lower: Of its always-valid interval.
        relative_upper: Where it ends.
    """

    day: date
    units: int
    difference: float | None
    lower: float | None
    upper: float | None
    relative: float | None
    relative_lower: float | None
    relative_upper: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The curve of one treatment by one metric.

    Attributes:
        metric: The metric's name.
        variant: The treatment's.
        points: By day, oldest first; empty where there is no curve.
        note: What the curve is of, or why there is none.
    """

    metric: str
    variant: str
    points: tuple[TrendPoint, ...]
    note: str


def trend(outcomes: Outcomes, daily: Sequence[Daily], number: int, *, by_unit: bool, alpha: float) -> Trend:
    """Return the curve of one treatment by one metric.

    Args:
        outcomes: By the metric; with the sample where the comparison needs it.
        daily: The metric's rows of the days.
        number: Of the treatment, from 2.
        by_unit: Compare the units of the sample, rather than the sums of the days.
        alpha: The band covers the whole curve with the probability 1 - alpha.
    """
    metric, variant = outcomes.metric, outcomes.variants[number - 1]
    if metric.kind == "quantile":
        note = "A quantile has no curve: the bootstrap behind each point would take too long."
        return Trend(metric=metric.name, variant=variant, points=(), note=note)
    if by_unit:
        until, most = _until_by_units(outcomes, number, alpha=alpha), _POINTS_BY_UNIT
    else:
        until = _until_by_sums(metric, daily, (outcomes.variants[0], variant), alpha=alpha)
        most = _POINTS
    days = sorted({one.day for one in daily})
    return Trend(metric=metric.name, variant=variant, points=_points(days, until, alpha=alpha, most=most), note="")


def _points(
    days: Sequence[date], until: Callable[[date], Contrast], *, alpha: float, most: int
) -> tuple[TrendPoint, ...]:
    """Return a point for each of the days, or of some of them where there are more.

    Args:
        days: Those on which units were assigned, oldest first.
        until: Compares the units assigned until the end of a day; it is called with later and later days.
        alpha: The band covers the whole curve with the probability 1 - alpha.
        most: How many points there may be.
    """
    step = -(-len(days) // most)
    found = []
    # from the last day backwards, so that the curve ends where the scorecard does
    for day in days[::-1][:: step or 1][::-1]:
        one = until(day)
        shown = always_valid(one.comparison, units=one.units, alpha=alpha) if one.units else one.comparison
        found.append(
            TrendPoint(
                day=day,
                units=one.units,
                difference=shown.difference,
                lower=shown.lower,
                upper=shown.upper,
                relative=shown.relative,
                relative_lower=shown.relative_lower,
                relative_upper=shown.relative_upper,
            )
        )
    return tuple(found)


def _until_by_sums(
    metric: Metric, daily: Sequence[Daily], names: tuple[str, str], *, alpha: float
) -> Callable[[date], Contrast]:
    """Return what compares two variants by the sums of days; ask it for later and later days.

    Args:
        metric: Which one.
        daily: Its rows, oldest first.
        names: The control and the treatment.
        alpha: Of the comparison.
    """
    # by period and variant: n and the five sums
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0] * 6)
    rows = iter(sorted((one for one in daily if one.variant in names), key=lambda one: one.day))
    ahead = next(rows, None)

    def until(day: date) -> Contrast:
        nonlocal ahead
        while ahead is not None and ahead.day <= day:
            n = ahead.units if metric.kind in _QUALITY else ahead.assigned
            parts = (n, ahead.total, ahead.squares, ahead.denominator_total, ahead.denominator_squares, ahead.products)
            mine = sums[ahead.allocation, ahead.variant]
            mine[:] = [a + b for a, b in zip(mine, parts, strict=True)]
            ahead = next(rows, None)
        return by_sums(metric.kind, [_summary(metric, *key, *mine) for key, mine in sums.items()], names, alpha=alpha)

    return until


def _until_by_units(outcomes: Outcomes, number: int, *, alpha: float) -> Callable[[date], Contrast]:
    """Return what compares a variant with the control unit by unit."""

    def until(day: date) -> Contrast:
        if outcomes.sample is None:
            raise TypeError("the units were not read")
        return contrast(outcomes.only(outcomes.sample.days <= np.datetime64(day)), number, alpha=alpha)

    return until


def _summary(metric: Metric, allocation: int, variant: str, n: float, *sums: float) -> MetricSummary:
    total, squares, denominator_total, denominator_squares, products = sums
    return MetricSummary(
        metric=metric.name,
        kind=metric.kind,
        variant=variant,
        allocation=allocation,
        n=int(n),
        sum=total,
        sum_of_squares=squares,
        mean=total / n if n else None,
        variance=None,
        denominator_sum=denominator_total,
        denominator_sum_of_squares=denominator_squares,
        sum_of_products=products,
    )
