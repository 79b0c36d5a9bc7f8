"""Which comparison two variants get, by the metric's kind: of sums, or of values unit by unit.

Where the weights changed, periods are compared apart and put together, each weighed by its units of both variants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dbscore.experiments.statistics.comparison import Arm, Comparison, compared, not_tested
from dbscore.experiments.statistics.covariates import adjust, compare_with_covariate
from dbscore.experiments.statistics.means import compare_means, compare_ratios, untestable
from dbscore.experiments.statistics.moments import CovariateMoments, Moments, RatioMoments
from dbscore.experiments.statistics.paired import compare_accuracies, compare_areas, compare_losses
from dbscore.experiments.statistics.proportions import compare_proportions
from dbscore.experiments.statistics.quality import Quality, area_under_curve
from dbscore.experiments.statistics.quantiles import compare_quantiles
from dbscore.experiments.statistics.strata import Stratum, compare_strata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dbscore.experiments.outcomes import Outcomes
    from dbscore.experiments.records import Metric, MetricSummary
    from dbscore.experiments.statistics.arguments import Floats
    from dbscore.experiments.units import Sample

__all__ = ["Contrast", "by_sums", "contrast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One treatment beside the control, before anything is made of it: the fields are those of `Finding`.

    Attributes:
        control_n: Units of the control.
        n: Units of the treatment.
        control_value: The control's value, before any adjustment.
        value: The treatment's.
        comparison: At a time that was fixed before.
        units: In both variants together; in shadow mode each once.
        unadjusted: The comparison without the covariate.
        variance_reduction: By the covariate.
        accuracy: In shadow mode, of classifiers.
    """

    control_n: int
    n: int
    control_value: float | None
    value: float | None
    comparison: Comparison
    units: int
    unadjusted: Comparison | None = None
    variance_reduction: float | None = None
    accuracy: Comparison | None = None


def contrast(outcomes: Outcomes, number: int, *, alpha: float) -> Contrast:
    """Compare a treatment with the control, by what the metric's kind needs.

    Args:
        outcomes: By one metric; with the sample where the comparison needs more than sums.
        number: Of the treatment, from 2.
        alpha: The interval covers the difference with the probability 1 - alpha.
    """
    metric, sample = outcomes.metric, outcomes.sample
    if sample is not None and outcomes.is_paired:
        return _of_pairs(metric, sample, number, alpha=alpha)
    if sample is not None and metric.kind == "auc":
        return _of_areas(sample, number, alpha=alpha)
    if sample is not None and metric.kind == "quantile":
        return _of_quantiles(sample, number, quantile=metric.quantile or 0.5, alpha=alpha)
    one = by_sums(metric.kind, outcomes.sums, (outcomes.variants[0], outcomes.variants[number - 1]), alpha=alpha)
    if sample is None or outcomes.covariates is None:
        return one
    return _with_covariate(one, sample, outcomes.covariates, number, alpha=alpha)


def by_sums(kind: str, sums: Sequence[MetricSummary], names: tuple[str, str], *, alpha: float) -> Contrast:
    """Compare by the sums of each period: means, shares, ratios, and losses with their root."""
    by_period: dict[int, dict[str, MetricSummary]] = {}
    for one in sums:
        if one.n and one.variant in names:
            by_period.setdefault(one.allocation, {})[one.variant] = one
    arms = [[by_period[key].get(name) for name in names] for key in sorted(by_period)]
    counts = [sum(one.n for one in side if one is not None) for side in zip(*arms, strict=True)] if arms else [0, 0]
    strata = [Stratum(control=_moments(kind, a), treatment=_moments(kind, b)) for a, b in arms]
    values = _stratified_values(strata)
    if len(arms) == 1 and kind == "ratio":
        control, treatment = (_ratio_moments(one) for one in arms[0])
        comparison = compare_ratios(control, treatment, alpha=alpha)
    elif kind == "rmse":
        comparison = _roots(strata, alpha=alpha)
        values = [None if v is None else math.sqrt(v) for v in values]
    elif len(strata) == 1:
        compare = compare_proportions if kind == "conversion" else compare_means
        comparison = compare(strata[0].control, strata[0].treatment, alpha=alpha)
    else:
        comparison = compare_strata(strata, alpha=alpha)
    return Contrast(
        control_n=counts[0],
        n=counts[1],
        control_value=values[0],
        value=values[1],
        comparison=comparison,
        units=sum(counts),
    )


def _moments(kind: str, one: MetricSummary | None) -> Moments:
    if one is None:
        return Moments(n=0, mean=math.nan, variance=math.nan)
    if kind == "ratio":
        return _ratio_moments(one).linearised()
    return Moments.from_sums(one.n, total=one.sum, squares=one.sum_of_squares)


def _ratio_moments(one: MetricSummary | None) -> RatioMoments:
    if one is None:
        return RatioMoments.from_sums(0, total=0, squares=0, denominator_total=0, denominator_squares=0, products=0)
    return RatioMoments.from_sums(
        one.n,
        total=one.sum,
        squares=one.sum_of_squares,
        denominator_total=one.denominator_sum,
        denominator_squares=one.denominator_sum_of_squares,
        products=one.sum_of_products,
    )


def _kept(strata: Sequence[Stratum]) -> list[tuple[float, Stratum]]:
    """Return the periods that can be tested, and what each weighs; all of them where there is one."""
    kept = [one for one in strata if len(strata) == 1 or untestable(one.control, one.treatment) is None]
    n = sum(one.n for one in kept)
    return [(one.n / n, one) for one in kept]


def _stratified_values(strata: Sequence[Stratum]) -> list[float | None]:
    kept = _kept(strata)
    sides = [[(w, one.control) for w, one in kept], [(w, one.treatment) for w, one in kept]]
    sums = [math.fsum(w * one.mean for w, one in side) if side else math.nan for side in sides]
    return [value if math.isfinite(value) else None for value in sums]


def _roots(strata: Sequence[Stratum], *, alpha: float) -> Comparison:
    """Compare roots of mean squared errors, with errors by the delta method."""
    kept = [(w, one) for w, one in _kept(strata) if untestable(one.control, one.treatment) is None]
    if not kept:
        return not_tested("no period has two units of both variants")
    arms = []
    for side in ([(w, one.control) for w, one in kept], [(w, one.treatment) for w, one in kept]):
        mean = math.fsum(w * one.mean for w, one in side)
        variance = math.fsum(w * w * one.variance / one.n for w, one in side)
        arms.append(Arm(value=math.sqrt(mean), variance=variance / (4 * mean) if mean > 0 else 0.0))
    method = "root of mean squared errors, delta method" + (f", {len(kept)} periods" if len(strata) > 1 else "")
    return compared(*arms, method=method, alpha=alpha)


# --- unit by unit ---


def _periods(sample: Sample, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each period which rows are the control's, and which the treatment's."""
    found = []
    for period in np.unique(sample.allocations):
        rows = sample.allocations == period
        found.append((rows & (sample.variants == 1), rows & (sample.variants == number)))
    return [pair for pair in found if pair[0].any() or pair[1].any()]


def _with_covariate(one: Contrast, sample: Sample, covariates: Floats, number: int, *, alpha: float) -> Contrast:
    """Take the covariate, shape (n_rows,), out of the outcomes within each period; the values stay as they were."""
    arms = [
        tuple(_covariate_moments(sample.values[rows], covariates[rows]) for rows in pair)
        for pair in _periods(sample, number)
    ]
    arms = [pair for pair in arms if min(pair[0].n, pair[1].n) > 1]
    if not arms:
        return one
    adjustments = [adjust(*pair) for pair in arms]
    if len(arms) == 1:
        comparison = compare_with_covariate(*arms[0], alpha=alpha)
        reduction = adjustments[0].variance_reduction
    else:
        comparison = compare_strata(
            [Stratum(control=a.control, treatment=a.treatment) for a in adjustments], alpha=alpha
        )
        comparison = replace(comparison, method=f"CUPED, {comparison.method}")
        before, after = one.comparison.standard_error, comparison.standard_error
        reduction = 1 - (after / before) ** 2 if before and after is not None else 0.0
    return replace(one, comparison=comparison, unadjusted=one.comparison, variance_reduction=reduction)


def _covariate_moments(values: Floats, covariates: Floats) -> CovariateMoments:
    n = len(values)
    if n <= 1:
        return CovariateMoments(
            n=n,
            mean=float(values.mean()) if n else math.nan,
            variance=math.nan,
            covariate_mean=float(covariates.mean()) if n else math.nan,
            covariate_variance=math.nan,
            covariance=math.nan,
        )
    spread = np.cov(values, covariates)
    return CovariateMoments(
        n=n,
        mean=float(values.mean()),
        variance=float(spread[0, 0]),
        covariate_mean=float(covariates.mean()),
        covariate_variance=float(spread[1, 1]),
        covariance=float(spread[0, 1]),
    )


def _of_areas(sample: Sample, number: int, *, alpha: float) -> Contrast:
    """Compare areas under curves of different units: by DeLong's error of each."""
    pairs = _periods(sample, number)
    areas = [tuple(area_under_curve(sample.values[rows], sample.predicted[rows]) for rows in pair) for pair in pairs]
    kept = [pair for pair in areas if all(one.standard_error is not None for one in pair)]
    counts = [sum(pair[side].n for pair in areas) for side in (0, 1)]
    if not kept:
        values = [pair.value for pair in areas[0]] if len(areas) == 1 else [None, None]
        comparison = not_tested(
            "two units of each label are needed in both variants",
            control=math.nan if values[0] is None else values[0],
            treatment=math.nan if values[1] is None else values[1],
        )
        return Contrast(
            control_n=counts[0],
            n=counts[1],
            control_value=values[0],
            value=values[1],
            comparison=comparison,
            units=sum(counts),
        )
    n = sum(one.n for pair in kept for one in pair)
    weights = [sum(one.n for one in pair) / n for pair in kept]
    arms = [_area_arm([pair[side] for pair in kept], weights) for side in (0, 1)]
    method = "DeLong's error of each area" + (f", {len(kept)} periods" if len(areas) > 1 else "")
    return Contrast(
        control_n=counts[0],
        n=counts[1],
        control_value=arms[0].value,
        value=arms[1].value,
        comparison=compared(*arms, method=method, alpha=alpha),
        units=sum(counts),
    )


def _area_arm(areas: Sequence[Quality], weights: Sequence[float]) -> Arm:
    pairs = list(zip(weights, areas, strict=True))
    return Arm(
        value=math.fsum(w * (one.value or 0.0) for w, one in pairs),
        variance=math.fsum((w * (one.standard_error or 0.0)) ** 2 for w, one in pairs),
    )


def _of_quantiles(sample: Sample, number: int, *, quantile: float, alpha: float) -> Contrast:
    """Compare quantiles by drawing units; several periods are put together by their bootstrap errors."""
    pairs = [tuple(sample.values[rows] for rows in pair) for pair in _periods(sample, number)]
    counts = [sum(len(pair[side]) for pair in pairs) for side in (0, 1)]
    if len(pairs) == 1:
        comparison = compare_quantiles(*pairs[0], quantile=quantile, alpha=alpha)
        values = [float(np.quantile(one, quantile)) if len(one) else None for one in pairs[0]]
    else:
        found = [(pair, compare_quantiles(*pair, quantile=quantile, alpha=alpha)) for pair in pairs]
        tested = [(pair, one.standard_error) for pair, one in found if one.p_value is not None and one.standard_error]
        n = sum(len(pair[0]) + len(pair[1]) for pair, _ in tested)
        weighed = [((len(pair[0]) + len(pair[1])) / n, pair, error) for pair, error in tested]
        values = [
            math.fsum(w * float(np.quantile(pair[side], quantile)) for w, pair, _ in weighed) if weighed else None
            for side in (0, 1)
        ]
        comparison = not_tested("no period has two units of both variants that differ")
        if values[0] is not None and values[1] is not None:
            # only the difference has an error: a relative one would need the control's own
            error = math.fsum((w * e) ** 2 for w, _, e in weighed)
            method = f"quantile {quantile:g}, bootstrap errors of {len(weighed)} periods"
            comparison = replace(
                compared(
                    Arm(value=values[0], variance=0.0), Arm(value=values[1], variance=error), method=method, alpha=alpha
                ),
                relative_standard_error=None,
                relative_lower=None,
                relative_upper=None,
            )
    return Contrast(
        control_n=counts[0],
        n=counts[1],
        control_value=values[0],
        value=values[1],
        comparison=comparison,
        units=sum(counts),
    )


def _of_pairs(metric: Metric, sample: Sample, number: int, *, alpha: float) -> Contrast:
    """Compare two versions on the units that both have predicted, and whose truth is known."""
    places: list[Mapping[str, int]] = [
        {sample.units[row]: int(row) for row in np.flatnonzero(sample.variants == variant)} for variant in (1, number)
    ]
    both = [unit for unit in places[0] if unit in places[1]]
    first, second = (np.array([side[unit] for unit in both], dtype=np.int64) for side in places)
    n = len(both)
    if metric.kind == "auc":
        labels = sample.values[first]
        scores = (sample.predicted[first], sample.predicted[second])
        comparison = compare_areas(labels, *scores, alpha=alpha)
        values = [area_under_curve(labels, one).value for one in scores]
    else:
        losses = (sample.values[first], sample.values[second])
        is_root = metric.kind == "rmse"
        comparison = compare_losses(*losses, estimate="root mean" if is_root else "mean", alpha=alpha)
        finish: Callable[[float], float] = math.sqrt if is_root else float
        values = [finish(float(one.mean())) if n else None for one in losses]
    right = (sample.is_right[first], sample.is_right[second])
    accuracy = None
    if n and not np.isnan(right).any():
        accuracy = compare_accuracies(*right, alpha=alpha)
    return Contrast(
        control_n=n,
        n=n,
        control_value=values[0],
        value=values[1],
        comparison=comparison,
        units=n,
        accuracy=accuracy,
    )
