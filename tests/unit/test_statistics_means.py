"""Means, proportions, ratios, CUPED and strata from summary moments agree with other libraries on the raw values."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import statsmodels.api as sm
import tea_tasting as tt
from scipy import stats
from tea_tasting.aggr import Aggregates

from dbscore.errors import ExperimentError
from dbscore.experiments.statistics.covariates import adjust, compare_with_covariate
from dbscore.experiments.statistics.means import compare_means, compare_ratios
from dbscore.experiments.statistics.moments import CovariateMoments, Moments, RatioMoments
from dbscore.experiments.statistics.proportions import compare_proportions
from dbscore.experiments.statistics.strata import Stratum, compare_strata

if TYPE_CHECKING:
    from collections.abc import Callable

A = np.array([12.1, 9.8, 15.3, 11.0, 8.7, 13.4, 10.2, 14.9, 9.1, 12.8])
B = np.array([14.2, 11.9, 16.8, 13.1, 9.9, 15.7, 12.4, 17.5, 10.3, 14.6, 18.1, 13.3])
RANDOM = np.random.default_rng(11)
X = [RANDOM.gamma(3.0, 2.0, 400), RANDOM.gamma(3.0, 2.0, 650)]
Y = [0.7 * X[0] + RANDOM.normal(5, 1.5, 400), 0.7 * X[1] + RANDOM.normal(5.3, 2.5, 650)]


Arm = tuple[float, float]


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def published(value: float) -> Any:
    """Compare with a number that is known to ten decimals."""
    return pytest.approx(value, abs=1e-10)


def moments(values: np.ndarray) -> Moments:
    return Moments.from_sums(len(values), total=values.sum(), squares=(values**2).sum())


def proportion(n: int, successes: int) -> Moments:
    return Moments.from_sums(n, total=successes, squares=successes)


def ratio(y: np.ndarray, x: np.ndarray) -> RatioMoments:
    return RatioMoments.from_sums(
        len(y),
        total=y.sum(),
        squares=y @ y,
        denominator_total=x.sum(),
        denominator_squares=x @ x,
        products=x @ y,
    )


def covariate(y: np.ndarray, x: np.ndarray) -> CovariateMoments:
    return CovariateMoments.from_sums(
        len(y), total=y.sum(), squares=y @ y, covariate_total=x.sum(), covariate_squares=x @ x, products=x @ y
    )


def aggregates(y: np.ndarray, x: np.ndarray) -> Aggregates:
    return Aggregates(
        len(y),
        {"y": y.mean(), "x": x.mean()},
        {"y": y.var(ddof=1), "x": x.var(ddof=1)},
        {("x", "y"): np.cov(x, y)[0, 1]},
    )


def error_by_differentiation(function: Callable[[complex, complex], complex], a: Arm, b: Arm) -> float:
    """Return a standard error by the delta method, with derivatives by complex steps."""
    step = 1e-20
    by_a = function(a[0] + step * 1j, b[0]).imag / step
    by_b = function(a[0], b[0] + step * 1j).imag / step
    return math.sqrt(by_a**2 * a[1] + by_b**2 * b[1])


def test_welchs_test_is_that_of_the_raw_values() -> None:
    found = compare_means(moments(A), moments(B))
    assert found.statistic == published(2.1023099038)
    assert found.degrees_of_freedom == published(19.9306969829)
    assert found.p_value == published(0.0484393525)
    raw = stats.ttest_ind(B, A, equal_var=False)
    assert found.p_value == close(raw.pvalue)
    assert (found.lower, found.upper) == close(tuple(raw.confidence_interval(0.95)))
    assert found.difference == close(B.mean() - A.mean())
    assert found.method == "Welch's t-test"


def test_another_level_gives_the_interval_of_that_level() -> None:
    found = compare_means(moments(A), moments(B), alpha=0.2)
    assert (found.lower, found.upper) == close(tuple(stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.8)))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_relative_difference_has_the_error_of_the_delta_method_and_the_sign_of_the_difference(sign: int) -> None:
    found = compare_means(moments(sign * A), moments(sign * B))
    assert found.relative == close(sign * (B.mean() / A.mean() - 1))
    error = error_by_differentiation(
        lambda a, b: b / a, (A.mean(), A.var(ddof=1) / len(A)), (B.mean(), B.var(ddof=1) / len(B))
    )
    assert found.relative_standard_error == close(error)
    reach = stats.t.ppf(0.975, 19.9306969829) * error
    assert (found.relative_lower, found.relative_upper) == pytest.approx(
        (found.relative - reach, found.relative + reach), rel=1e-9
    )


def test_the_relative_difference_has_no_interval_where_the_controls_mean_may_be_0() -> None:
    found = compare_means(moments(np.array([-1.0, 2.0, 0.1])), moments(B))
    assert found.p_value is not None
    assert found.relative is not None
    assert (found.relative_lower, found.relative_upper) == (None, None)
    assert compare_means(moments(np.array([-1.0, 1.0])), moments(B)).relative is None


@pytest.mark.parametrize(
    ("a", "b", "difference", "reason"),
    [
        ([], [1.0, 2.0], None, "the control has 0 units"),
        ([1.0, 2.0], [4.0], 2.5, "the treatment has 1 units"),
        ([2.0, 2.0], [3.0, 3.0], 1.0, "nothing varies"),
        ([2.0, 2.0], [2.0, 2.0], 0.0, "nothing varies"),
        ([2.0, math.inf], [2.0, 2.0], None, "the control's mean or variance is no finite number"),
    ],
)
def test_what_cannot_be_tested_has_a_difference_and_says_why(
    a: list[float], b: list[float], difference: float | None, reason: str
) -> None:
    found = compare_means(moments(np.array(a)), moments(np.array(b)))
    assert found.difference == difference
    assert (found.p_value, found.lower, found.upper, found.statistic) == (None, None, None, None)
    assert found.method.startswith(f"not tested: {reason}")
    assert found.verdict("higher") == "undecided"


def test_one_variant_that_does_not_vary_is_tested_as_a_known_value() -> None:
    found = compare_means(moments(np.full(10, 12.5)), moments(B))
    assert found.p_value == close(stats.ttest_1samp(B, 12.5).pvalue)
    assert found.degrees_of_freedom == close(11.0)


def test_equal_values_have_no_variance_however_their_sums_are_rounded() -> None:
    total = squares = 0.0
    for _ in range(100_000):
        total += 0.1
        squares += 0.1 * 0.1
    assert squares != total**2 / 100_000
    assert Moments.from_sums(100_000, total=total, squares=squares).variance == 0.0
    assert Moments.from_sums(2, total=1e200, squares=math.inf).can_be_tested is False


def test_sums_may_be_of_any_numeric_type_of_sql() -> None:
    found = Moments.from_sums(Decimal(4), total=Decimal("10.5"), squares=Decimal("30.25"))
    assert found == Moments(n=4, mean=2.625, variance=(30.25 - 10.5**2 / 4) / 3)


def test_a_verdict_depends_on_the_direction_and_the_level() -> None:
    found = compare_means(moments(A), moments(B))
    assert [found.verdict("higher"), found.verdict("lower")] == ["better", "worse"]
    assert found.verdict("higher", alpha=0.01) == "undecided"


def test_nonsense_is_refused_with_what_to_do() -> None:
    with pytest.raises(ExperimentError, match="alpha is 5"):
        compare_means(moments(A), moments(B), alpha=5)
    with pytest.raises(ExperimentError, match="variance is -1"):
        Moments(n=3, mean=0, variance=-1)
    with pytest.raises(ExperimentError, match=r"the treatment's proportion is 1\.5"):
        compare_proportions(proportion(10, 5), Moments(n=2, mean=1.5, variance=0))


def test_two_proportions_have_the_pooled_z_test() -> None:
    found = compare_proportions(proportion(10_000, 1000), proportion(10_000, 1100))
    assert found.statistic == published(2.3066347738)
    assert found.p_value == published(0.0210751893)
    table = [[1100, 8900], [1000, 9000]]
    assert found.p_value == close(stats.chi2_contingency(table, correction=False).pvalue)
    assert found.standard_error == close(math.sqrt(0.1 * 0.9 / 10_000 + 0.11 * 0.89 / 10_000))


def test_the_interval_of_two_proportions_is_newcombes() -> None:
    # the first example of his paper: 56 of 70 and 48 of 80, by method 10
    found = compare_proportions(proportion(80, 48), proportion(70, 56))
    assert (found.lower, found.upper) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    (low_b, high_b), (low_a, high_a) = (
        stats.binomtest(k, n).proportion_ci(0.95, method="wilson") for k, n in ((56, 70), (48, 80))
    )
    assert found.lower == close(0.2 - math.hypot(0.8 - low_b, high_a - 0.6))
    assert found.upper == close(0.2 + math.hypot(high_b - 0.8, 0.6 - low_a))


def test_proportions_of_0_and_1_are_compared_if_they_differ() -> None:
    same = compare_proportions(proportion(50, 0), proportion(60, 0))
    assert (same.difference, same.p_value) == (0.0, None)
    assert same.method == "not tested: all units of both variants did the same"
    assert same.lower == close(-stats.binomtest(0, 50).proportion_ci(0.95, method="wilson").high)
    apart = compare_proportions(proportion(10, 0), proportion(10, 10))
    assert apart.p_value == close(stats.chi2_contingency([[10, 0], [0, 10]], correction=False).pvalue)
    assert compare_proportions(proportion(0, 0), proportion(9, 1)).method == "not tested: the control has 0 units"


def test_ratios_are_compared_as_their_linearised_raw_values_are() -> None:
    found = compare_ratios(ratio(Y[0], X[0]), ratio(Y[1], X[1]))
    a, b = (y.sum() / x.sum() + (y - x * y.sum() / x.sum()) / x.mean() for y, x in zip(Y, X, strict=True))
    raw = stats.ttest_ind(b, a, equal_var=False)
    assert found.p_value == close(raw.pvalue)
    assert (found.lower, found.upper) == close(tuple(raw.confidence_interval(0.95)))


def test_ratios_are_compared_as_tea_tasting_does() -> None:
    found = compare_ratios(ratio(Y[0], X[0]), ratio(Y[1], X[1]))
    other = tt.RatioOfMeans("y", "x").analyze_aggregates(aggregates(Y[0], X[0]), aggregates(Y[1], X[1]))
    assert (found.difference, found.p_value, found.lower, found.statistic, found.relative) == close(
        (other.effect_size, other.pvalue, other.effect_size_ci_lower, other.statistic, other.rel_effect_size)
    )


def test_a_ratio_without_denominators_is_not_tested() -> None:
    nothing = ratio(Y[0], np.zeros(400))
    found = compare_ratios(nothing, ratio(Y[1], X[1]))
    assert (found.difference, found.p_value) == (None, None)
    assert "denominators of the control" in found.method
    assert math.isnan(nothing.linearised().mean)


def test_a_ratio_that_is_the_same_for_all_units_has_no_variance() -> None:
    assert ratio(0.3 * X[0], X[0]).linearised().variance == 0.0


def test_cuped_compares_what_the_raw_values_are_without_their_covariate() -> None:
    found = compare_with_covariate(covariate(Y[0], X[0]), covariate(Y[1], X[1]))
    x, y = np.concatenate(X), np.concatenate(Y)
    theta = np.cov(x, y)[0, 1] / x.var(ddof=1)
    a, b = (y - theta * (x - np.concatenate(X).mean()) for x, y in zip(X, Y, strict=True))
    raw = stats.ttest_ind(b, a, equal_var=False)
    assert (found.statistic, found.p_value) == close((raw.statistic, raw.pvalue))
    assert (found.lower, found.upper) == close(tuple(raw.confidence_interval(0.95)))
    adjusted = adjust(covariate(Y[0], X[0]), covariate(Y[1], X[1]))
    assert (adjusted.theta, adjusted.control.mean) == close((theta, a.mean()))
    before = Y[0].var(ddof=1) / 400 + Y[1].var(ddof=1) / 650
    assert adjusted.variance_reduction == close(1 - raw._standard_error**2 / before)


def test_cuped_is_that_of_tea_tasting() -> None:
    found = compare_with_covariate(covariate(Y[0], X[0]), covariate(Y[1], X[1]))
    other = tt.Mean("y", covariate="x").analyze_aggregates(aggregates(Y[0], X[0]), aggregates(Y[1], X[1]))
    assert (found.difference, found.p_value, found.upper, found.relative) == close(
        (other.effect_size, other.pvalue, other.effect_size_ci_upper, other.rel_effect_size)
    )


def test_a_covariate_that_does_not_vary_takes_out_nothing() -> None:
    constant = [np.full(400, 3.7), np.full(650, 3.7)]
    found = compare_with_covariate(covariate(Y[0], constant[0]), covariate(Y[1], constant[1]))
    assert found.p_value == close(stats.ttest_ind(Y[1], Y[0], equal_var=False).pvalue)
    none = compare_with_covariate(covariate(Y[0][:1], X[0][:1]), covariate(Y[1], X[1]))
    assert none.method.startswith("not tested: the control has 1 units")


def test_strata_are_those_of_a_saturated_regression_with_the_error_of_hc2() -> None:
    sizes = [(60, 30), (20, 70), (45, 45)]
    raw = [(RANDOM.normal(k, 1 + k, a), RANDOM.normal(k + 0.4, 2, b)) for k, (a, b) in enumerate(sizes)]
    found = compare_strata([Stratum(control=moments(a), treatment=moments(b)) for a, b in raw])
    outcome = np.concatenate([np.concatenate(pair) for pair in raw])
    period = np.repeat([0, 1, 2], [90, 90, 90])
    treated = np.concatenate([np.repeat([0, 1], pair) for pair in sizes])
    design = np.column_stack([*(period == k for k in range(3)), *((period == k) * treated for k in range(3))])
    fitted = sm.OLS(outcome, design.astype(float)).fit(cov_type="HC2")
    contrast = fitted.t_test(np.array([0, 0, 0, 90, 90, 90]) / 270)
    assert found.difference == close(contrast.effect.item())
    assert found.standard_error == close(contrast.sd.item())
    parts = [(v.var(ddof=1) / len(v) / 9, len(v)) for pair in raw for v in pair]
    freedom = sum(p for p, _ in parts) ** 2 / sum(p**2 / (n - 1) for p, n in parts)
    assert found.degrees_of_freedom == close(freedom)
    assert found.p_value == close(2 * stats.t.sf(abs(contrast.effect.item() / contrast.sd.item()), freedom))
    assert found.method == "stratified t-test, 3 periods"


def test_one_stratum_is_welchs_test() -> None:
    found = compare_strata([Stratum(control=moments(A), treatment=moments(B))])
    assert found.p_value == published(0.0484393525)
    assert found.degrees_of_freedom == published(19.9306969829)


def test_strata_undo_what_a_change_of_the_weights_does() -> None:
    # no difference within a period, and twice as many in the treatment where values are high
    low, high = np.array([1.0, 2.0, 3.0] * 20), np.array([11.0, 12.0, 13.0] * 20)
    periods = [
        Stratum(control=moments(np.tile(low, 2)), treatment=moments(low)),
        Stratum(control=moments(high), treatment=moments(np.tile(high, 2))),
    ]
    assert compare_strata(periods).difference == pytest.approx(0, abs=1e-12)


def test_periods_without_both_variants_are_left_out_and_counted() -> None:
    whole = Stratum(control=moments(A), treatment=moments(B))
    part = Stratum(control=moments(A), treatment=moments(B[:1]))
    found = compare_strata([whole, part])
    assert found.method == "stratified t-test, 1 of 2 periods"
    assert found.p_value == published(0.0484393525)
    assert compare_strata([part]).method == "not tested: no period has two units of both variants"
    assert compare_strata([]).p_value is None
