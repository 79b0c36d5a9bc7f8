"""Always-valid intervals and guardrails, and how often tests of what does not differ reject."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import integrate, stats

from dbscore.errors import ExperimentError
from dbscore.experiments.statistics.guardrails import check_guardrail
from dbscore.experiments.statistics.means import compare_means
from dbscore.experiments.statistics.moments import Moments
from dbscore.experiments.statistics.proportions import compare_proportions
from dbscore.experiments.statistics.sequential import always_valid, confidence_sequence

if TYPE_CHECKING:
    from dbscore.experiments.statistics.comparison import Comparison

A = np.array([12.1, 9.8, 15.3, 11.0, 8.7, 13.4, 10.2, 14.9, 9.1, 12.8])
B = np.array([14.2, 11.9, 16.8, 13.1, 9.9, 15.7, 12.4, 17.5, 10.3, 14.6, 18.1, 13.3])
RHO_SQUARED = (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 5000


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def moments(values: np.ndarray) -> Moments:
    return Moments.from_sums(len(values), total=values.sum(), squares=(values**2).sum())


def proportions() -> Comparison:
    a, b = (Moments.from_sums(10_000, total=k, squares=k) for k in (1000, 1100))
    return compare_proportions(a, b)


def test_the_always_valid_interval_of_two_proportions_is_the_published_one() -> None:
    found = always_valid(proportions(), units=20_000)
    assert found.lower == pytest.approx(-0.0035552373, abs=1e-9)
    assert found.upper == pytest.approx(0.0235552373, abs=1e-9)
    assert found.method == "asymptotic confidence sequence, N* = 5000"
    assert found.relative == proportions().relative
    assert found.relative_upper > proportions().relative_upper


@pytest.mark.parametrize(("difference", "error", "units"), [(0.01, 0.0043, 20_000), (-3.0, 0.7, 900), (0.1, 1.0, 50)])
def test_the_interval_and_the_p_value_are_those_of_the_mixture_of_likelihood_ratios(
    difference: float, error: float, units: int
) -> None:
    # of n units with variance 1 and the sum s: the mean of exp(l s - l**2 n / 2) over l ~ N(0, rho**2)
    def evidence(standardised: float) -> float:
        s, rho = standardised * math.sqrt(units), math.sqrt(RHO_SQUARED)
        center = s / (units + 1 / RHO_SQUARED)

        def mixed(x: float) -> float:
            return math.exp(x * s - x * x * units / 2) * stats.norm.pdf(x, scale=rho)

        spread = 12 / math.sqrt(units + 1 / RHO_SQUARED)
        return integrate.quad(mixed, center - spread, center + spread, epsabs=0, epsrel=1e-12)[0]

    found = confidence_sequence(difference, error, units=units)
    assert found.p_value == close(min(1.0, 1 / evidence(difference / error)))
    assert evidence((found.upper - difference) / error) == close(20.0)
    assert evidence((difference - found.lower) / error) == close(20.0)


def test_the_p_value_is_alpha_just_where_the_interval_ends_at_0() -> None:
    reach = confidence_sequence(0.0, 1.0, units=7000).upper
    assert confidence_sequence(reach, 1.0, units=7000).p_value == close(0.05)
    assert confidence_sequence(1e6, 1.0, units=7000).p_value == 0.0


def test_the_interval_is_narrower_at_the_units_it_is_tuned_for() -> None:
    widths = {n: confidence_sequence(0.0, 1.0, units=5000, tuned_for=n).upper for n in (1000, 5000, 25_000)}
    assert widths[5000] < min(widths[1000], widths[25_000])


def test_what_was_not_tested_stays_so() -> None:
    untested = compare_means(moments(A[:1]), moments(B))
    assert always_valid(untested, units=13) is untested


@pytest.mark.parametrize("wrong", [{"units": 0}, {"alpha": 1}, {"tuned_for": -1}])
def test_a_confidence_sequence_refuses_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ExperimentError, match=next(iter(wrong))):
        confidence_sequence(0.1, 0.2, **{"units": 100, **wrong})


def simulated(units: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(20)
    return random.exponential(size=(2000, units)), random.exponential(size=(2000, units))


def test_welchs_test_rejects_5_percent_of_what_does_not_differ() -> None:
    a, b = simulated(200)
    found = [
        compare_means(Moments(n=200, mean=x, variance=v), Moments(n=200, mean=y, variance=w)).p_value
        for x, v, y, w in zip(a.mean(1), a.var(1, ddof=1), b.mean(1), b.var(1, ddof=1), strict=True)
    ]
    assert 0.04 <= np.mean(np.array(found) <= 0.05) <= 0.06


def test_twenty_looks_reject_too_often_by_the_usual_interval_and_not_by_the_always_valid_one() -> None:
    a, b = simulated(1000)
    looks = np.arange(50, 1001, 50)
    sums = [np.cumsum(x, axis=1)[:, looks - 1] for x in (a, a**2, b, b**2)]
    means = sums[0] / looks, sums[2] / looks
    variances = [(s - looks * m**2) / (looks - 1) for s, m in zip(sums[1::2], means, strict=True)]
    z = np.abs(means[1] - means[0]) / np.sqrt((variances[0] + variances[1]) / looks)
    reach = np.array([confidence_sequence(0.0, 1.0, units=2 * n, tuned_for=1000).upper for n in looks.tolist()])
    assert np.mean((z > stats.norm.isf(0.025)).any(axis=1)) > 0.15
    assert 0.001 < np.mean((z > reach).any(axis=1)) <= 0.05


@pytest.mark.parametrize(("direction", "sign"), [("higher", 1), ("lower", -1)])
def test_an_absolute_guardrail_is_a_one_sided_test_of_shifted_values(direction: Any, sign: int) -> None:
    a, b = sign * B, sign * np.concatenate([A, A + 0.3])
    comparison = compare_means(moments(a), moments(b))
    found = check_guardrail(comparison, margin=4, scale="absolute", direction=direction)
    raw = stats.ttest_ind(sign * b + 4, sign * a, equal_var=False, alternative="greater")
    assert found.p_value == close(raw.pvalue)
    one_sided = stats.ttest_ind(sign * b, sign * a, equal_var=False, alternative="greater").confidence_interval(0.95)
    assert found.bound == close(sign * one_sided.low)
    assert found.verdict == "held"


def test_a_relative_guardrail_uses_the_relative_difference_and_its_error() -> None:
    comparison = proportions()
    found = check_guardrail(comparison, margin=0.02, direction="higher")
    variance = (0.11 * 0.89 + 1.1**2 * 0.1 * 0.9) / 10_000 / 0.1**2
    assert found.p_value == close(stats.norm.sf((0.1 + 0.02) / math.sqrt(variance)))
    assert found.bound == close(0.1 - stats.norm.isf(0.05) * math.sqrt(variance))


@pytest.mark.parametrize(
    ("margin", "direction", "verdict"),
    [(0.0, "higher", "held"), (0.001, "lower", "broken"), (0.01, "lower", "undecided"), (0.05, "lower", "held")],
)
def test_a_guardrail_is_held_broken_or_undecided(margin: float, direction: Any, verdict: str) -> None:
    found = check_guardrail(proportions(), margin=margin, scale="absolute", direction=direction)
    assert found.verdict == verdict
    # the bound says the same
    if verdict != "broken":
        is_within = found.bound >= -margin if direction == "higher" else found.bound <= margin
        assert is_within == (verdict == "held")


def test_a_guardrail_that_is_looked_at_often_has_the_bound_of_the_confidence_sequence() -> None:
    options: dict[str, Any] = {"scale": "absolute", "direction": "lower", "units": 20_000}
    found = check_guardrail(proportions(), margin=0.03, **options)
    assert found.bound == pytest.approx(0.0235552373, abs=1e-9)
    assert found.verdict == "held"
    at_bound = check_guardrail(proportions(), margin=found.bound, **options)
    assert at_bound.p_value == close(0.05)
    assert check_guardrail(proportions(), margin=0.001, **options).verdict == "undecided"
    assert check_guardrail(proportions(), margin=0.001, **options).p_value == 1.0


def test_a_guardrail_of_what_was_not_tested_is_undecided_and_says_why() -> None:
    untested = compare_means(moments(A[:1]), moments(B))
    found = check_guardrail(untested, margin=0.1, direction="higher")
    assert (found.verdict, found.p_value, found.bound) == ("undecided", None, None)
    assert found.method == untested.method
    around_0 = compare_means(moments(np.array([-1.0, 2.0, 0.1])), moments(B))
    assert check_guardrail(around_0, margin=0.1, direction="higher").method == (
        "not tested: the control's value may be 0"
    )
    with pytest.raises(ExperimentError, match=r"margin is -0\.1"):
        check_guardrail(proportions(), margin=-0.1, direction="higher")
