"""Each kind of comparison, on outcomes built by hand, beside numpy, scipy and statsmodels on the raw values."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportions_ztest

from dbscore.experiments.contrasts import by_sums, contrast
from dbscore.experiments.outcomes import Outcomes, _sums
from dbscore.experiments.records import Metric
from dbscore.experiments.units import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.contrasts import Contrast
    from dbscore.experiments.statistics.comparison import Comparison

NAMES = ("control", "b", "c")
ALPHA = 0.05
TREATMENTS = pytest.mark.parametrize("number", [2, 3])
# units by period and variant, at other weights in each
ONE = [(60, 45, 80)]
SEVERAL = [(60, 45, 80), (20, 90, 35), (50, 12, 41)]
PERIODS = pytest.mark.parametrize("sizes", [ONE, SEVERAL], ids=["one", "several"])

Arms = dict[tuple[int, int], np.ndarray]


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def metric(kind: str, *, quantile: float | None = None, covariate: str | None = None) -> Metric:
    return Metric(
        name="m",
        kind=kind,
        direction="higher",
        role="goal",
        margin=None,
        window=None,
        quantile=quantile,
        source=None,
        covariate=covariate,
        created_by="somebody",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def outcomes(
    kind: str,
    values: Arms,
    *,
    others: dict[str, Arms] | None = None,
    covariates: Arms | None = None,
    is_paired: bool = False,
    quantile: float | None = None,
) -> Outcomes:
    """Return outcomes of values by period and variant; the rows are in no order, and in shadow mode units are shared."""
    keys = list(values)
    sizes = [len(values[key]) for key in keys]

    def column(arms: Arms | None, fill: float) -> np.ndarray:
        parts = [np.full(n, fill) if arms is None else arms[key] for key, n in zip(keys, sizes, strict=True)]
        return np.concatenate([np.zeros(0), *parts]).astype(np.float64)

    total = sum(sizes)
    shuffled = np.random.default_rng(5).permutation(total)
    names = [f"{i}" if is_paired else f"{v}-{p}-{i}" for (p, v), n in zip(keys, sizes, strict=True) for i in range(n)]
    given = others or {}
    sample = Sample(
        units=[names[row] for row in shuffled],
        variants=np.repeat([v for _, v in keys], sizes).astype(np.int64)[shuffled],
        allocations=np.repeat([p for p, _ in keys], sizes).astype(np.int64)[shuffled],
        values=column(values, 0)[shuffled],
        denominators=column(given.get("denominators"), 0)[shuffled],
        predicted=column(given.get("predicted"), math.nan)[shuffled],
        is_right=column(given.get("is_right"), math.nan)[shuffled],
        days=np.full(total, np.datetime64("2026-01-01")),
    )
    asked = metric(kind, quantile=quantile, covariate=None if covariates is None else "select 1")
    return Outcomes(
        metric=asked,
        variants=NAMES,
        is_paired=is_paired,
        sums=_sums(asked, NAMES, sample),
        sample=sample,
        covariates=None if covariates is None else column(covariates, 0)[shuffled],
    )


def drawn(sizes: Sequence[tuple[int, ...]], draw: Any) -> Arms:
    """Return draw(random, units, period, variant) by period and variant."""
    random = np.random.default_rng(17)
    return {
        (period, variant): np.asarray(draw(random, n, period, variant), dtype=np.float64)
        for period, row in enumerate(sizes, start=1)
        for variant, n in enumerate(row, start=1)
    }


def normal(random: np.random.Generator, n: int, period: int, variant: int) -> np.ndarray:
    return np.asarray(random.normal(period + 0.2 * variant, 1 + 0.1 * variant, n))


def weights(values: Arms, number: int) -> dict[int, float]:
    counts = {p: len(values[p, 1]) + len(values[p, number]) for p in {period for period, _ in values}}
    return {p: n / sum(counts.values()) for p, n in counts.items()}


def stratified(values: Arms, number: int) -> tuple[list[float], list[float], float]:
    """Return the means and their variances, weighed by periods, and Satterthwaite's degrees of freedom."""
    means, variances, parts = [0.0, 0.0], [0.0, 0.0], []
    for period, w in sorted(weights(values, number).items()):
        for side, variant in enumerate((1, number)):
            mine = values[period, variant]
            part = w**2 * mine.var(ddof=1) / len(mine)
            means[side] += w * mine.mean()
            variances[side] += part
            parts.append(part**2 / (len(mine) - 1))
    return means, variances, sum(variances) ** 2 / sum(parts)


def expect(
    found: Comparison, values: Sequence[float], variances: Sequence[float], freedom: float | None = None
) -> None:
    """Check a comparison whose statistic is the difference by its standard error, and the relative one."""
    a, b = values
    difference, error = b - a, math.sqrt(sum(variances))
    distribution = stats.norm() if freedom is None else stats.t(freedom)
    reach = distribution.isf(ALPHA / 2)
    assert found.difference == close(difference)
    assert found.standard_error == close(error)
    assert found.statistic == close(difference / error)
    assert found.degrees_of_freedom == (None if freedom is None else close(freedom))
    assert found.p_value == close(2 * distribution.sf(abs(difference / error)))
    assert (found.lower, found.upper) == close((difference - reach * error, difference + reach * error))
    # d(b / a) = db / a - b da / a^2
    relative_error = math.sqrt(variances[1] / a**2 + b**2 / a**4 * variances[0])
    assert found.relative == close(b / a - 1)
    assert found.relative_standard_error == close(relative_error)
    ends = (b / a - 1 - reach * relative_error, b / a - 1 + reach * relative_error)
    assert (found.relative_lower, found.relative_upper) == close(ends)


def counted(found: Contrast, values: Arms, number: int) -> None:
    control, treatment = (sum(len(one) for (_, v), one in values.items() if v == variant) for variant in (1, number))
    assert (found.control_n, found.n, found.units) == (control, treatment, control + treatment)


def said(found: Contrast, expected: Sequence[float]) -> None:
    assert (found.control_value, found.value) == close(tuple(expected))


# --- by sums ---


@TREATMENTS
@pytest.mark.parametrize("kind", ["mean", "count", "log_loss", "brier", "mae"])
def test_a_mean_in_one_period_is_welchs_test(kind: str, number: int) -> None:
    values = drawn(ONE, normal)
    made = outcomes(kind, values)
    found = contrast(made, number, alpha=ALPHA)
    expected = stats.ttest_ind(values[1, number], values[1, 1], equal_var=False)
    assert found.comparison.p_value == close(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.comparison.lower, found.comparison.upper) == close((interval.low, interval.high))
    expect(found.comparison, *stratified(values, number))
    counted(found, values, number)
    said(found, [values[1, 1].mean(), values[1, number].mean()])
    assert found.comparison.method == "Welch's t-test"
    assert (found.unadjusted, found.variance_reduction, found.accuracy) == (None, None, None)
    assert by_sums(kind, made.sums, ("control", NAMES[number - 1]), alpha=ALPHA) == found


@TREATMENTS
def test_a_mean_in_several_periods_is_weighed_by_their_units(number: int) -> None:
    values = drawn(SEVERAL, normal)
    found = contrast(outcomes("mean", values), number, alpha=ALPHA)
    expect(found.comparison, *stratified(values, number))
    said(found, stratified(values, number)[0])
    counted(found, values, number)
    assert found.comparison.method == "stratified t-test, 3 periods"


@TREATMENTS
def test_a_conversion_in_one_period_is_the_pooled_test(number: int) -> None:
    values = drawn(ONE, lambda random, n, _, v: random.random(n) < 0.3 + 0.1 * v)
    found = contrast(outcomes("conversion", values), number, alpha=ALPHA)
    a, b = values[1, 1], values[1, number]
    statistic, p_value = proportions_ztest([b.sum(), a.sum()], [len(b), len(a)])
    assert (found.comparison.statistic, found.comparison.p_value) == close((statistic, p_value))
    assert found.comparison.difference == close(b.mean() - a.mean())
    assert found.comparison.standard_error == close(math.sqrt(a.var() / len(a) + b.var() / len(b)))
    # Newcombe's method 10, from Wilson's intervals
    (la, ua), (lb, ub) = (
        (
            (2 * n * p + z * z - z * math.sqrt(z * z + 4 * n * p * (1 - p))) / (2 * (n + z * z)),
            (2 * n * p + z * z + z * math.sqrt(z * z + 4 * n * p * (1 - p))) / (2 * (n + z * z)),
        )
        for n, p, z in ((len(one), one.mean(), stats.norm.isf(ALPHA / 2)) for one in (a, b))
    )
    d = b.mean() - a.mean()
    expected = (d - math.hypot(b.mean() - lb, ua - a.mean()), d + math.hypot(ub - b.mean(), a.mean() - la))
    assert (found.comparison.lower, found.comparison.upper) == close(expected)
    said(found, [a.mean(), b.mean()])
    counted(found, values, number)


@TREATMENTS
def test_a_conversion_in_several_periods_is_weighed_by_their_units(number: int) -> None:
    values = drawn(SEVERAL, lambda random, n, p, v: random.random(n) < 0.1 + 0.2 * p - 0.05 * v)
    found = contrast(outcomes("conversion", values), number, alpha=ALPHA)
    expect(found.comparison, *stratified(values, number))
    said(found, stratified(values, number)[0])
    counted(found, values, number)


@TREATMENTS
@PERIODS
def test_a_ratio_is_that_of_sums_within_each_period(number: int, sizes: Sequence[tuple[int, ...]]) -> None:
    x = drawn(sizes, lambda random, n, p, _: random.poisson(p + 2, n) + 1.0)
    noise = drawn(sizes, normal)
    y = {key: 0.3 * x[key] + noise[key] for key in x}
    found = contrast(outcomes("ratio", y, others={"denominators": x}), number, alpha=ALPHA)
    linear = {}
    for key, mine in y.items():
        ratio = mine.sum() / x[key].sum()
        linear[key] = ratio + (mine - ratio * x[key]) / x[key].mean()
    expect(found.comparison, *stratified(linear, number))
    said(found, stratified(linear, number)[0])
    if len(sizes) == 1:
        said(found, [y[1, v].sum() / x[1, v].sum() for v in (1, number)])
    counted(found, y, number)


@TREATMENTS
@PERIODS
def test_an_rmse_is_the_root_of_the_weighed_mean(number: int, sizes: Sequence[tuple[int, ...]]) -> None:
    values = drawn(sizes, lambda *given: np.square(normal(*given)))
    found = contrast(outcomes("rmse", values), number, alpha=ALPHA)
    means, variances, _ = stratified(values, number)
    roots = [math.sqrt(one) for one in means]
    # d sqrt(m) = dm / (2 sqrt(m))
    expect(found.comparison, roots, [v / (4 * m) for v, m in zip(variances, means, strict=True)])
    said(found, roots)
    counted(found, values, number)


# --- unit by unit ---


@TREATMENTS
def test_a_quantile_in_one_period_is_bootstrapped(number: int) -> None:
    values = drawn(ONE, normal)
    found = contrast(outcomes("quantile", values, quantile=0.75), number, alpha=ALPHA)
    expected = [np.quantile(values[1, v], 0.75) for v in (1, number)]
    said(found, expected)
    counted(found, values, number)
    assert found.comparison.difference == close(expected[1] - expected[0])
    assert found.comparison.standard_error == pytest.approx(bootstrapped(values[1, 1], values[1, number]), rel=0.1)


def bootstrapped(a: np.ndarray, b: np.ndarray) -> float:
    random = np.random.default_rng(99)
    draws = [np.quantile(random.choice(one, (4000, len(one))), 0.75, axis=1) for one in (a, b)]
    return float((draws[1] - draws[0]).std(ddof=1))


@TREATMENTS
def test_quantiles_of_several_periods_are_put_together_by_their_bootstrap_errors(number: int) -> None:
    values = drawn(SEVERAL, normal)
    found = contrast(outcomes("quantile", values, quantile=0.75), number, alpha=ALPHA)
    shares = weights(values, number)
    expected = [sum(w * np.quantile(values[p, v], 0.75) for p, w in shares.items()) for v in (1, number)]
    said(found, expected)
    counted(found, values, number)
    # each period's error is that of its own comparison, which has the same seed
    errors = {}
    for period in shares:
        mine = {(1, v): values[period, v] for v in (1, number)}
        alone = contrast(outcomes("quantile", in_order(mine), quantile=0.75), number, alpha=ALPHA)
        errors[period] = alone.comparison.standard_error
        assert errors[period] == pytest.approx(bootstrapped(values[period, 1], values[period, number]), rel=0.15)
    error = found.comparison.standard_error
    assert error == pytest.approx(math.sqrt(sum((w * errors[p]) ** 2 for p, w in shares.items())), rel=0.1)
    assert error is not None
    z = (expected[1] - expected[0]) / error
    reach = stats.norm.isf(ALPHA / 2) * error
    difference = expected[1] - expected[0]
    assert found.comparison.p_value == close(2 * stats.norm.sf(abs(z)))
    assert (found.comparison.lower, found.comparison.upper) == close((difference - reach, difference + reach))
    assert found.comparison.relative == close(expected[1] / expected[0] - 1)
    assert (found.comparison.relative_lower, found.comparison.relative_standard_error) == (None, None)


def in_order(values: Arms) -> Arms:
    return dict(sorted(values.items()))


def delong(labels: np.ndarray, *scores: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Return the areas and their covariances, by all pairs of units."""
    columns = []
    for one in scores:
        positive, negative = one[labels == 1][:, None], one[labels == 0]
        wins = (positive > negative) + 0.5 * (positive == negative)
        columns.append((wins.mean(axis=1), wins.mean(axis=0)))
    of_positives = np.atleast_2d(np.cov(np.array([c[0] for c in columns])))
    of_negatives = np.atleast_2d(np.cov(np.array([c[1] for c in columns])))
    areas = [float(roc_auc_score(labels, one)) for one in scores]
    return areas, of_positives / (labels == 1).sum() + of_negatives / (labels == 0).sum()


@TREATMENTS
@PERIODS
def test_areas_of_different_units_have_delongs_errors(number: int, sizes: Sequence[tuple[int, ...]]) -> None:
    labels = drawn(sizes, lambda random, n, *_: random.permutation(n) % 2)
    noise = drawn(sizes, normal)
    # one digit, so that some are equal
    scores = {key: (labels[key] + noise[key] * key[1] / 2).round(1) for key in labels}
    found = contrast(outcomes("auc", labels, others={"predicted": scores}), number, alpha=ALPHA)
    areas, variances = [0.0, 0.0], [0.0, 0.0]
    for period, w in weights(labels, number).items():
        for side, variant in enumerate((1, number)):
            (area,), spread = delong(labels[period, variant], scores[period, variant])
            areas[side] += w * area
            variances[side] += w**2 * spread[0, 0]
    expect(found.comparison, areas, variances)
    said(found, areas)
    counted(found, labels, number)


def test_a_period_without_two_of_each_label_is_left_out_of_the_area() -> None:
    labels = drawn(SEVERAL[:2], lambda random, n, *_: random.permutation(n) % 2)
    labels[2, 2] = np.zeros(90)
    scores = {key: one + np.random.default_rng(1).normal(size=len(one)) for key, one in labels.items()}
    found = contrast(outcomes("auc", labels, others={"predicted": scores}), 2, alpha=ALPHA)
    both = [delong(labels[1, v], scores[1, v]) for v in (1, 2)]
    expect(found.comparison, [one[0][0] for one in both], [one[1][0, 0] for one in both])
    counted(found, labels, 2)


# --- with a covariate ---


def cuped(y: Arms, x: Arms, number: int) -> Arms:
    """Return what is left of outcomes within each period, by a regression over both variants together."""
    left = {}
    for period in {p for p, _ in y}:
        keys = [(period, 1), (period, number)]
        design = sm.add_constant(np.concatenate([x[key] for key in keys]))
        theta = sm.OLS(np.concatenate([y[key] for key in keys]), design).fit().params[1]
        center = design[:, 1].mean()
        left |= {key: y[key] - theta * (x[key] - center) for key in keys}
    return left


@TREATMENTS
@PERIODS
def test_a_covariate_is_taken_out_within_each_period(number: int, sizes: Sequence[tuple[int, ...]]) -> None:
    x = drawn(sizes, lambda random, n, p, _: random.gamma(2, p, n))
    noise = drawn(sizes, normal)
    y = {key: 2 * x[key] / key[0] + noise[key] for key in x}
    found = contrast(outcomes("mean", y, covariates=x), number, alpha=ALPHA)
    plain = contrast(outcomes("mean", y), number, alpha=ALPHA)
    expect(found.comparison, *stratified(cuped(y, x, number), number))
    assert found.unadjusted == plain.comparison
    expect(plain.comparison, *stratified(y, number))
    said(found, stratified(y, number)[0])
    counted(found, y, number)
    before, after = (sum(stratified(one, number)[1]) for one in (y, cuped(y, x, number)))
    assert found.variance_reduction == close(1 - after / before)
    assert found.comparison.method.startswith("CUPED")


def test_a_covariate_of_nothing_changes_nothing() -> None:
    y = drawn(ONE, normal)
    x = {key: np.full(len(one), 3.0) for key, one in y.items()}
    found = contrast(outcomes("mean", y, covariates=x), 2, alpha=ALPHA)
    expect(found.comparison, *stratified(y, 2))
    assert found.variance_reduction == close(0)


# --- the same units ---


@TREATMENTS
def test_losses_of_pairs_are_compared_as_in_a_paired_test(number: int) -> None:
    values = drawn([(80, 80, 80)], lambda *given: np.square(normal(*given)))
    found = contrast(outcomes("brier", values, is_paired=True), number, alpha=ALPHA)
    a, b = values[1, 1], values[1, number]
    expected = stats.ttest_rel(b, a)
    assert found.comparison.difference == close((b - a).mean())
    # a bootstrap's error is off by some percent
    error = (b - a).mean() / expected.statistic
    assert found.comparison.standard_error == pytest.approx(error, rel=0.06)
    interval = expected.confidence_interval(0.95)
    ends = (found.comparison.lower, found.comparison.upper)
    assert ends == pytest.approx((interval.low, interval.high), abs=0.4 * error)
    said(found, [a.mean(), b.mean()])
    assert (found.control_n, found.n, found.units) == (80, 80, 80)
    assert found.accuracy is None


@TREATMENTS
def test_roots_of_pairs_are_bootstrapped(number: int) -> None:
    values = drawn([(80, 80, 80)], lambda *given: np.square(normal(*given)))
    found = contrast(outcomes("rmse", values, is_paired=True), number, alpha=ALPHA)
    a, b = values[1, 1], values[1, number]
    random = np.random.default_rng(3)
    rows = random.integers(0, 80, (4000, 80))
    draws = np.sqrt(b[rows].mean(axis=1)) - np.sqrt(a[rows].mean(axis=1))
    roots = [math.sqrt(one.mean()) for one in (a, b)]
    said(found, roots)
    assert found.comparison.difference == close(roots[1] - roots[0])
    error = draws.std(ddof=1)
    assert found.comparison.standard_error == pytest.approx(error, rel=0.1)
    ends = (found.comparison.lower, found.comparison.upper)
    assert ends == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.3 * error)
    assert (found.control_n, found.n, found.units) == (80, 80, 80)


@TREATMENTS
def test_areas_of_pairs_are_correlated(number: int) -> None:
    truth = np.random.default_rng(2).permutation(90) % 2
    labels = drawn([(90, 90, 90)], lambda *_: truth)
    hardness = np.random.default_rng(4).normal(size=90)
    noise = drawn([(90, 90, 90)], normal)
    scores = {key: (truth + hardness + 0.5 * noise[key]).round(1) for key in noise}
    found = contrast(outcomes("auc", labels, others={"predicted": scores}, is_paired=True), number, alpha=ALPHA)
    areas, spread = delong(truth, scores[1, 1], scores[1, number])
    error = math.sqrt(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    assert spread[0, 1] > 0
    assert found.comparison.difference == close(areas[1] - areas[0])
    assert found.comparison.standard_error == close(error)
    assert found.comparison.p_value == close(2 * stats.norm.sf(abs(areas[1] - areas[0]) / error))
    said(found, areas)
    assert (found.control_n, found.n, found.units) == (90, 90, 90)


@TREATMENTS
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_accuracy_of_pairs_is_mcnemars(number: int, share: float) -> None:
    random = np.random.default_rng(6)
    first = random.random(200) < 0.6
    flipped = {v: np.where(random.random(200) < share, ~first, first) if v > 1 else first for v in (1, 2, 3)}
    right = drawn([(200, 200, 200)], lambda _random, _n, _p, v: flipped[v])
    values = drawn([(200, 200, 200)], normal)
    found = contrast(outcomes("log_loss", values, others={"is_right": right}, is_paired=True), number, alpha=ALPHA)
    a, b = first, flipped[number]
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    exact = bool(table[0][1] + table[1][0] <= 25)
    assert exact == (share < 0.1)
    assert found.accuracy is not None
    assert found.accuracy.p_value == close(mcnemar(table, exact=exact, correction=False).pvalue)
    gaps = b.astype(float) - a
    assert found.accuracy.difference == close(gaps.mean())
    assert found.accuracy.standard_error == close(gaps.std() / math.sqrt(200))


def test_units_that_one_version_only_has_predicted_are_no_pairs() -> None:
    values = drawn([(80, 50, 80)], normal)
    found = contrast(outcomes("mae", values, is_paired=True), 2, alpha=ALPHA)
    # units are called 0, 1, ... in each variant
    a, b = values[1, 1][:50], values[1, 2]
    said(found, [a.mean(), b.mean()])
    assert (found.control_n, found.n, found.units) == (50, 50, 50)
    assert found.comparison.difference == close((b - a).mean())


def test_pairs_are_the_same_whatever_the_periods() -> None:
    values = drawn([(60, 60, 60)], normal)
    split = {
        (p, v): values[1, v][:20] if p == 1 else values[1, v][20:] for p, v in itertools.product((1, 2), (1, 2, 3))
    }
    made = outcomes("mae", split, is_paired=True)
    assert made.sample is not None
    # units of the second period are others
    units = [f"{p}-{unit}" for p, unit in zip(made.sample.allocations, made.sample.units, strict=True)]
    found = contrast(replace(made, sample=replace(made.sample, units=units)), 3, alpha=ALPHA)
    said(found, [values[1, 1].mean(), values[1, 3].mean()])
    assert found.units == 60
    assert found.comparison.difference == close((values[1, 3] - values[1, 1]).mean())


# --- with few units or none ---

KINDS = ["conversion", "mean", "count", "ratio", "quantile", "log_loss", "brier", "auc", "rmse", "mae"]


def checked(found: Contrast) -> None:
    """Check that nothing was tested, and that nothing is NaN or infinite."""
    numbers = [found.control_value, found.value, found.variance_reduction]
    for one in (found.comparison, found.unadjusted, found.accuracy):
        if one is not None:
            numbers += [getattr(one, name) for name in one.__slots__ if name != "method"]
    assert all(value is None or math.isfinite(value) for value in numbers)
    assert found.comparison.p_value is None
    assert found.comparison.method.startswith("not tested")


def few(kind: str, sizes: Sequence[tuple[int, ...]], *, is_paired: bool = False, covariate: bool = False) -> Outcomes:
    values = drawn(sizes, lambda random, n, *_: random.integers(0, 2, n))
    columns = {"denominators": drawn(sizes, lambda _, n, *__: np.ones(n)), "predicted": drawn(sizes, normal)}
    if is_paired:
        columns["is_right"] = values
    return outcomes(
        kind,
        values,
        others=columns,
        is_paired=is_paired,
        quantile=0.5,
        covariates=columns["predicted"] if covariate else None,
    )


@pytest.mark.parametrize("sizes", [[], [(0, 0, 0)], [(0, 0, 9)], [(0, 0, 9), (0, 0, 4)]])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_paired", [False, True])
def test_without_units_there_is_nothing(kind: str, sizes: list[tuple[int, ...]], *, is_paired: bool) -> None:
    found = contrast(few(kind, sizes, is_paired=is_paired), 2, alpha=ALPHA)
    checked(found)
    assert (found.control_n, found.n, found.units) == (0, 0, 0)
    assert (found.control_value, found.value, found.accuracy) == (None, None, None)


@pytest.mark.parametrize("sizes", [[(30, 0, 9)], [(0, 30, 9)], [(30, 0, 9), (8, 0, 2)], [(30, 0, 9), (0, 20, 2)]])
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_units_of_one_variant_there_is_no_test(kind: str, sizes: list[tuple[int, ...]]) -> None:
    made = few(kind, sizes)
    found = contrast(made, 2, alpha=ALPHA)
    checked(found)
    counts = [sum(row[side] for row in sizes) for side in (0, 1)]
    assert [found.control_n, found.n, found.units] == [*counts, sum(counts)]
    # what one of several periods has is no value of the whole
    if len(sizes) == 1:
        assert (found.control_value is None, found.value is None) == (counts[0] == 0, counts[1] == 0)


@pytest.mark.parametrize("sizes", [[(30, 1, 9)], [(1, 30, 9)], [(1, 1, 9)], [(30, 1, 9), (1, 20, 2)]])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "conversion"])
def test_with_one_unit_of_a_variant_there_is_no_test(kind: str, sizes: list[tuple[int, ...]]) -> None:
    found = contrast(few(kind, sizes), 2, alpha=ALPHA)
    checked(found)
    counts = [sum(row[side] for row in sizes) for side in (0, 1)]
    assert [found.control_n, found.n, found.units] == [*counts, sum(counts)]


def test_one_unit_that_converted_can_be_tested() -> None:
    values = {(1, 1): np.array([1.0]), (1, 2): np.array([0.0] * 30), (1, 3): np.array([1.0])}
    found = contrast(outcomes("conversion", values), 2, alpha=ALPHA)
    assert found.comparison.p_value == close(proportions_ztest([0, 1], [30, 1])[1])
    said(found, [1.0, 0.0])
    checked(contrast(outcomes("conversion", values), 3, alpha=ALPHA))


@pytest.mark.parametrize("kind", KINDS)
def test_one_pair_is_not_tested(kind: str) -> None:
    made = few(kind, [(1, 1, 1)], is_paired=True)
    found = contrast(made, 3, alpha=ALPHA)
    checked(found)
    assert found.units == 1


@pytest.mark.parametrize("sizes", [[], [(0, 0, 9)], [(1, 1, 9)], [(30, 1, 9)], [(30, 0, 9), (1, 20, 2)]])
def test_with_a_covariate_few_units_are_not_tested_either(sizes: list[tuple[int, ...]]) -> None:
    found = contrast(few("mean", sizes, covariate=True), 2, alpha=ALPHA)
    checked(found)
    assert (found.unadjusted, found.variance_reduction) == (None, None)


@pytest.mark.parametrize("kind", ["mean", "conversion", "ratio", "rmse", "auc", "quantile"])
def test_a_period_with_few_units_is_left_out(kind: str) -> None:
    sizes = [(40, 50, 9), (30, 1, 2), (0, 7, 2)]
    made, first = few(kind, sizes), few(kind, sizes[:1])
    found, alone = contrast(made, 2, alpha=ALPHA), contrast(first, 2, alpha=ALPHA)
    said(found, [alone.control_value or 0, alone.value or 0])
    assert found.comparison.difference == close(alone.comparison.difference)
    assert found.comparison.p_value is not None
    assert (found.control_n, found.n, found.units) == (70, 58, 128)


def test_periods_of_few_units_leave_the_covariate_of_the_others() -> None:
    x, noise = (drawn([(40, 50, 9), (30, 1, 2)], draw) for draw in (lambda r, n, *_: r.gamma(2, 1, n), normal))
    y = {key: 2 * x[key] + noise[key] for key in x}
    found = contrast(outcomes("mean", y, covariates=x), 2, alpha=ALPHA)
    first = {key: one for key, one in y.items() if key[0] == 1}
    expect(found.comparison, *stratified(cuped(first, x, 2), 2))
    said(found, stratified(first, 2)[0])
    assert found.unadjusted is not None
    assert found.unadjusted.difference == close(first[1, 2].mean() - first[1, 1].mean())
    assert found.variance_reduction is not None
    assert 0 < found.variance_reduction < 1


def test_rows_of_outcomes_are_taken_with_their_sums() -> None:
    x = drawn(SEVERAL, lambda random, n, p, _: random.gamma(2, p, n))
    y = {key: one + drawn(SEVERAL, normal)[key] for key, one in x.items()}
    made = outcomes("mean", y, covariates=x)
    assert made.sample is not None
    kept = made.only(made.sample.allocations == 2)
    found = contrast(kept, 3, alpha=ALPHA)
    second = {(1, v): y[2, v] for v in (1, 2, 3)}
    expect(found.comparison, *stratified(cuped(second, {(1, v): x[2, v] for v in (1, 2, 3)}, 3), 3))
    said(found, stratified(second, 3)[0])
    with pytest.raises(TypeError, match="not read"):
        Outcomes(
            metric=made.metric, variants=NAMES, is_paired=False, sums=made.sums, sample=None, covariates=None
        ).only(np.ones(0, dtype=bool))
