"""Cochran's Q agrees with its formula in numpy, and is never a NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dbscore.experiments.statistics.comparison import Comparison, not_tested
from dbscore.experiments.statistics.heterogeneity import check_homogeneity


def comparison(difference: float, standard_error: float, p_value: float | None = 0.5) -> Comparison:
    return Comparison(difference=difference, standard_error=standard_error, p_value=p_value, method="z")


def cochran(differences: list[float], errors: list[float]) -> tuple[float, float]:
    d, w = np.array(differences), 1 / np.square(errors)
    mean = (w * d).sum() / w.sum()
    q = (w * (d - mean) ** 2).sum()
    return float(q), float(stats.chi2.sf(q, len(d) - 1))


@pytest.mark.parametrize("groups", [2, 3, 7, 20])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_q_is_the_weighed_sum_of_squares_about_the_weighed_mean(groups: int, scale: float) -> None:
    random = np.random.default_rng(groups)
    differences = (scale * random.normal(0.3, 2, groups)).tolist()
    errors = (scale * random.uniform(0.5, 3, groups)).tolist()
    found = check_homogeneity([comparison(d, e) for d, e in zip(differences, errors, strict=True)])
    assert (found.statistic, found.p_value) == pytest.approx(cochran(differences, errors), rel=1e-9)
    assert found.degrees_of_freedom == groups - 1


def test_what_agrees_exactly_has_a_statistic_of_zero() -> None:
    found = check_homogeneity([comparison(0.25, 0.1), comparison(0.25, 2.0), comparison(0.25, 0.5)])
    assert found.statistic == pytest.approx(0, abs=1e-12)
    assert found.p_value == pytest.approx(1)


def test_differences_that_are_large_beside_their_disagreement_lose_no_digits() -> None:
    # in halves, so that the differences from each other are exact
    errors = [0.5, 0.25, 2.0]
    for base in (0.0, 2.0**30, -(2.0**40)):
        found = check_homogeneity([comparison(base + d, e) for d, e in zip((1.0, 2.0, 2.5), errors, strict=True)])
        assert (found.statistic, found.p_value) == pytest.approx(cochran([1.0, 2.0, 2.5], errors), rel=1e-9)


@pytest.mark.parametrize("known", [0, 1])
def test_with_fewer_than_two_groups_there_is_no_test(known: int) -> None:
    found = check_homogeneity([comparison(1.0, 0.1)] * known + [not_tested("there are 0 units")] * 2)
    assert (found.statistic, found.degrees_of_freedom, found.p_value) == (None, 0, None)


def test_groups_that_were_not_tested_are_left_out() -> None:
    # without any value, without an error, with an error of 0, with an interval but no test
    others = [
        not_tested("there are 0 units"),
        not_tested("one unit", control=1.0, treatment=9.0),
        not_tested("nothing varies", control=1.0, treatment=9.0, standard_error=0.0),
        comparison(9.0, 0.1, p_value=None),
    ]
    tested = [comparison(1.0, 0.5), comparison(2.0, 0.25), comparison(2.5, 1.5)]
    mixed = check_homogeneity([others[0], tested[0], others[1], others[2], tested[1], tested[2], others[3]])
    assert mixed == check_homogeneity(tested)
    assert mixed.degrees_of_freedom == 2
    assert (mixed.statistic, mixed.p_value) == pytest.approx(cochran([1.0, 2.0, 2.5], [0.5, 0.25, 1.5]), rel=1e-9)


@pytest.mark.parametrize("exponent", [-300, -200, -160, -150, 150, 200, 300])
def test_units_of_any_size_give_the_same_test(exponent: int) -> None:
    scale = 10.0**exponent
    found = check_homogeneity([comparison(d * scale, e * scale) for d, e in ((1.0, 0.5), (2.0, 0.25), (2.5, 1.5))])
    assert (found.statistic, found.p_value) == pytest.approx(cochran([1.0, 2.0, 2.5], [0.5, 0.25, 1.5]), rel=1e-9)


@pytest.mark.parametrize("errors", [(1e-150, 1e-150), (1e-150, 1.0), (1e-300, 1e-300), (1e-300, 1.0), (1e-300, 1e300)])
@pytest.mark.parametrize("differences", [(1.0, 1.0), (1.0, 2.0), (-1e300, 1e300)])
def test_tiny_variances_give_numbers(differences: tuple[float, float], errors: tuple[float, float]) -> None:
    found = check_homogeneity([comparison(d, e) for d, e in zip(differences, errors, strict=True)])
    assert found.p_value is not None
    assert 0 <= found.p_value <= 1
    assert found.statistic is None or math.isfinite(found.statistic)
    if errors[1] <= 1e-150 and differences[0] != differences[1]:
        assert found.p_value == 0
