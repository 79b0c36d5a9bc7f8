"""Checks of experiments themselves: their units' shares, many p-values at once, A/A tests, power."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tea_tasting as tt
from scipy import stats
from tea_tasting.aggr import Aggregates

from dbscore.errors import ExperimentError
from dbscore.experiments.statistics.corrections import benjamini_hochberg, holm
from dbscore.experiments.statistics.power import (
    SampleSize,
    detectable_difference_of_means,
    detectable_difference_of_proportions,
    power_of_means,
    power_of_proportions,
    sample_size_for_means,
    sample_size_for_proportions,
)
from dbscore.experiments.statistics.sample_ratio import Period, check_periods, check_sample_ratio
from dbscore.experiments.statistics.uniformity import check_uniformity


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def published(value: float) -> Any:
    """Compare with a number that is known to ten decimals."""
    return pytest.approx(value, abs=1e-10)


def test_a_sample_ratio_of_two_variants_is_the_published_one() -> None:
    found = check_sample_ratio([50_421, 49_579], [50, 50])
    assert found.statistic == close(7.08964)
    assert found.p_value == published(0.0077530820)
    assert found.p_value == close(2 * stats.norm.sf(421 / math.sqrt(25_000)))
    assert not found.is_suspicious
    assert found.expected == (50_000, 50_000)
    assert check_sample_ratio([50_421, 49_579], [1, 1], threshold=0.01).is_suspicious


def test_a_sample_ratio_of_three_variants_has_two_degrees_of_freedom() -> None:
    found = check_sample_ratio([810, 90, 145], [0.8, 0.1, 0.1])
    expected = np.array([836.0, 104.5, 104.5])
    statistic = float((np.square(np.array([810, 90, 145]) - expected) / expected).sum())
    assert (found.statistic, found.degrees_of_freedom) == (close(statistic), 2)
    # a chi-squared variable of two degrees of freedom is exponential
    assert found.p_value == close(math.exp(-statistic / 2))
    assert found.is_suspicious


def test_periods_of_different_weights_are_checked_each_and_added_up() -> None:
    early, late = Period(units=[900, 110], weights=[90, 10]), Period(units=[500, 520], weights=[50, 50])
    found = check_periods([early, late, Period(units=[0, 0], weights=[1, 0])])
    statistic = 81 / 909 + 81 / 101 + 2 * 100 / 510
    assert (found.statistic, found.degrees_of_freedom) == (close(statistic), 2)
    assert found.p_value == close(math.exp(-statistic / 2))
    assert found.expected == close((909 + 510, 101 + 510))


def test_a_variant_of_weight_0_has_no_units_or_something_is_wrong() -> None:
    assert check_sample_ratio([60, 40, 0], [1, 1, 0]).statistic == close(4.0)
    found = check_sample_ratio([50, 50, 1], [1, 1, 0])
    assert (found.statistic, found.p_value, found.is_suspicious) == (None, 0.0, True)


def test_without_units_there_is_no_ratio_to_suspect() -> None:
    found = check_sample_ratio([0, 0], [1, 1])
    assert (found.statistic, found.p_value, found.is_suspicious) == (None, None, False)


@pytest.mark.parametrize(
    ("units", "weights", "told"),
    [([1, 2], [1], "units has 2, weights has 1"), ([1, 2], [0, 0], "all weights are 0"), ([-1, 2], [1, 1], "-1 is a")],
)
def test_a_sample_ratio_refuses_nonsense(units: list[int], weights: list[float], told: str) -> None:
    with pytest.raises(ExperimentError, match=told):
        check_sample_ratio(units, weights)


def test_holms_p_values_are_those_computed_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == close((0.03, 0.06, 0.06, 0.02))


def test_what_was_not_tested_does_not_count_and_stays_none() -> None:
    assert holm([0.01, None, 0.03, math.nan]) == (0.02, None, 0.03, None)
    assert benjamini_hochberg([0.02, None, 0.04]) == (0.04, None, 0.04)


def test_benjamini_and_hochbergs_p_values_are_those_of_scipy() -> None:
    raw = [0.041, 0.2, 0.0003, 0.9, 0.013, 0.013]
    assert benjamini_hochberg(raw) == close(tuple(stats.false_discovery_control(raw, method="bh")))


def test_no_p_values_are_corrected_to_none() -> None:
    assert holm([]) == ()
    assert benjamini_hochberg([None, math.nan]) == (None, None)
    with pytest.raises(ExperimentError, match=r"a p-value is 1\.2"):
        holm([0.1, 1.2])


def test_uniform_p_values_are_certified() -> None:
    p_values = np.random.default_rng(4).uniform(size=500)
    found = check_uniformity([*p_values.tolist(), None, math.nan])
    ordered = np.sort(p_values)
    distance = max((np.arange(1, 501) / 500 - ordered).max(), (ordered - np.arange(500) / 500).max())
    assert (found.n, found.statistic) == (500, close(distance))
    rejected = int((p_values <= 0.05).sum())
    assert (found.rejected, found.share) == (rejected, close(rejected / 500))
    assert found.lower == close(stats.beta.ppf(0.005, rejected, 501 - rejected))
    assert found.upper == close(stats.beta.ppf(0.995, rejected + 1, 500 - rejected))
    assert found.is_uniform


def test_p_values_that_are_too_small_or_too_few_are_not_certified() -> None:
    p_values = np.random.default_rng(4).uniform(size=500) ** 1.5
    assert check_uniformity(p_values.tolist()).is_uniform is False
    assert check_uniformity([None]).is_uniform is None
    with pytest.raises(ExperimentError, match="a p-value is -1"):
        check_uniformity([-1])


def test_the_power_of_means_is_that_of_a_noncentral_t_distribution() -> None:
    found = power_of_means(-0.5, deviation=2.0, sizes=SampleSize(control=300, treatment=150))
    center, critical = 0.25 / math.sqrt(1 / 300 + 1 / 150), stats.t.isf(0.025, 448)
    assert found == close(stats.nct.sf(critical, 448, center) + stats.nct.cdf(-critical, 448, center))
    assert power_of_means(0.0, deviation=2.0, sizes=SampleSize(control=9, treatment=9)) == close(0.05)


def test_the_sample_size_for_means_is_that_of_a_textbook_and_of_tea_tasting() -> None:
    # R: power.t.test(delta = 1, sd = 1, power = 0.9) gives n = 22.02110
    assert sample_size_for_means(1, deviation=1, power=0.9) == SampleSize(control=23, treatment=23)
    found = sample_size_for_means(0.1, deviation=1.5, ratio=1 / 3)
    design = tt.Mean("y", effect_size=0.1, ratio=1 / 3, power=0.8, alpha=0.05, equal_var=True)
    other = design.solve_power_from_aggregates(Aggregates(9, {"y": 1.0}, {"y": 1.5**2}), "n_obs")[0]
    assert found.total - other.n_obs in (0, 1)
    assert found.treatment == math.ceil(other.n_obs / 4)


def test_a_sample_size_for_means_is_the_least_with_the_power() -> None:
    found = sample_size_for_means(0.1, deviation=1.5, ratio=0.5)
    less = SampleSize(control=found.control - 2, treatment=found.treatment - 1)
    assert power_of_means(0.1, deviation=1.5, sizes=less) < 0.8 <= power_of_means(0.1, deviation=1.5, sizes=found)
    assert sample_size_for_means(50, deviation=1.0, ratio=0.5) == SampleSize(control=4, treatment=2)


def test_a_sample_size_of_millions_is_that_of_a_normal_distribution() -> None:
    center = 0.001 * math.sqrt(sample_size_for_means(0.001, deviation=1.0).control / 2)
    critical = stats.norm.isf(0.025)
    assert stats.norm.sf(critical - center) + stats.norm.cdf(-critical - center) == pytest.approx(0.8, abs=1e-7)


@pytest.mark.parametrize("ratio", [0.001, 1000])
def test_a_sample_size_of_very_unequal_weights_is_that_of_the_smaller_variant(ratio: float) -> None:
    found = sample_size_for_means(0.05, deviation=1.0, ratio=ratio)
    # (1.96 + 0.84)**2 / 0.05**2 units, and one in a thousand more
    assert min(found.control, found.treatment) == pytest.approx(3142.7, abs=2)
    assert found.treatment == pytest.approx(found.control * ratio, abs=ratio + 1)


@pytest.mark.parametrize(("control", "treatment", "power"), [(5000, 1000, 0.9), (2, 2, 0.999), (2, 10**6, 0.999)])
def test_a_detectable_difference_of_means_is_found_with_the_power(control: int, treatment: int, power: float) -> None:
    sizes = SampleSize(control=control, treatment=treatment)
    found = detectable_difference_of_means(sizes, deviation=3.0, power=power)
    center = found / 3 / math.sqrt(1 / control + 1 / treatment)
    freedom = control + treatment - 2
    critical = stats.t.isf(0.025, freedom)
    reached = stats.nct.sf(critical, freedom, center) + stats.nct.cdf(-critical, freedom, center)
    assert reached == pytest.approx(power, abs=1e-9)


def test_the_power_of_proportions_is_that_of_the_pooled_z_test() -> None:
    found = power_of_proportions(0.01, baseline=0.1, sizes=SampleSize(control=10_000, treatment=5000))
    pooled = (0.1 * 10_000 + 0.11 * 5000) / 15_000
    under_null = math.sqrt(pooled * (1 - pooled) * (1 / 10_000 + 1 / 5000))
    spread = math.sqrt(0.1 * 0.9 / 10_000 + 0.11 * 0.89 / 5000)
    critical = stats.norm.isf(0.025) * under_null
    assert found == close(stats.norm.sf(critical, 0.01, spread) + stats.norm.cdf(-critical, 0.01, spread))


def test_the_sample_size_for_proportions_is_that_of_a_textbook() -> None:
    # R: power.prop.test(p1 = 0.50, p2 = 0.75, power = 0.9) gives n = 76.7
    assert sample_size_for_proportions(0.25, baseline=0.5, power=0.9) == SampleSize(control=77, treatment=77)
    assert sample_size_for_proportions(-0.25, baseline=0.75, power=0.9).control == 77


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_a_sample_size_for_proportions_is_the_least_with_the_power(ratio: float) -> None:
    found = sample_size_for_proportions(0.01, baseline=0.1, ratio=ratio)
    assert found.treatment == pytest.approx(found.control * ratio, abs=2)
    less = SampleSize(control=found.control - 4, treatment=math.floor((found.control - 4) * ratio))
    powers = [power_of_proportions(0.01, baseline=0.1, sizes=sizes) for sizes in (less, found)]
    assert powers[0] < 0.8 <= powers[1]


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_detectable_difference_of_proportions_is_found_with_the_power(direction: Any) -> None:
    sizes = SampleSize(control=8000, treatment=2000)
    found = detectable_difference_of_proportions(sizes, baseline=0.1, direction=direction)
    assert (found > 0) == (direction == "higher")
    assert power_of_proportions(found, baseline=0.1, sizes=sizes) == pytest.approx(0.8, abs=1e-9)
    few = SampleSize(control=2, treatment=2)
    assert detectable_difference_of_proportions(few, baseline=0.1, direction="lower") is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"difference": 0}, "the difference is 0"),
        ({"deviation": 0}, "deviation is 0"),
        ({"power": 1}, "power is 1"),
        ({"power": 0.05}, "the power is 0.05"),
        ({"alpha": 0}, "alpha is 0"),
        ({"ratio": -1}, "ratio is -1"),
    ],
)
def test_a_design_of_nonsense_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ExperimentError, match=told):
        sample_size_for_means(**{"difference": 1, "deviation": 1, **wrong})


def test_designs_of_impossible_proportions_or_too_few_units_are_refused() -> None:
    with pytest.raises(ExperimentError, match=r"treatment's proportion is 1\.1"):
        sample_size_for_proportions(0.2, baseline=0.9)
    with pytest.raises(ExperimentError, match="1 and 5 units"):
        power_of_means(1, deviation=1, sizes=SampleSize(control=1, treatment=5))
