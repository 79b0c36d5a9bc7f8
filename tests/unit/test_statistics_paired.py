"""Two models on the same units, the quality of one, and quantiles: against brute force and other libraries."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from scipy import stats
from sklearn import metrics

from dbscore.errors import ExperimentError
from dbscore.experiments.statistics.auc import placements
from dbscore.experiments.statistics.paired import compare_accuracies, compare_areas, compare_losses
from dbscore.experiments.statistics.quality import (
    absolute_errors,
    area_under_curve,
    brier_losses,
    log_losses,
    mean_loss,
    root_mean_loss,
    squared_errors,
)
from dbscore.experiments.statistics.quantiles import compare_quantiles

RANDOM = np.random.default_rng(8)
N = 240
TRUTH = RANDOM.uniform(size=N) < 0.35
# rounded, so that there are ties within and between the labels
FIRST = np.clip(np.round(0.3 + 0.15 * TRUTH + RANDOM.normal(0, 0.2, N), 2), 0, 1)
SECOND = np.clip(np.round(0.5 * FIRST + 0.15 + 0.2 * TRUTH + RANDOM.normal(0, 0.1, N), 2), 0, 1)


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def wins(scores: np.ndarray) -> np.ndarray:
    """Return, for each pair of a positive and a negative unit, 1 if it is ranked right, 0.5 if it is tied."""
    positive, negative = scores[TRUTH][:, None], scores[~TRUTH][None, :]
    return (positive > negative) + 0.5 * (positive == negative)


def right(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    cells = [both, only_first, only_second, neither]
    return np.repeat([1, 1, 0, 0], cells), np.repeat([1, 0, 1, 0], cells)


def test_placements_are_those_of_all_pairs() -> None:
    found = placements(TRUTH, FIRST)
    assert found.positives == close(wins(FIRST).mean(axis=1))
    assert found.negatives == close(wins(FIRST).mean(axis=0))


def test_delongs_test_is_that_of_all_pairs() -> None:
    found = compare_areas(TRUTH, FIRST, SECOND)
    a, b = wins(FIRST), wins(SECOND)
    gap = b - a
    variance = gap.mean(axis=1).var(ddof=1) / gap.shape[0] + gap.mean(axis=0).var(ddof=1) / gap.shape[1]
    assert found.difference == close(b.mean() - a.mean())
    assert found.standard_error == close(math.sqrt(variance))
    assert found.p_value == close(math.erfc(abs(gap.mean()) / math.sqrt(2 * variance)))
    assert found.upper == close(gap.mean() + 1.959963984540054 * math.sqrt(variance))
    assert found.difference == close(metrics.roc_auc_score(TRUTH, SECOND) - metrics.roc_auc_score(TRUTH, FIRST))


def test_the_relative_difference_of_areas_has_the_error_of_linearised_placements() -> None:
    found = compare_areas(TRUTH, FIRST, SECOND)
    a, b = wins(FIRST), wins(SECOND)
    gap = (b - a * b.mean() / a.mean()) / a.mean()
    variance = gap.mean(axis=1).var(ddof=1) / gap.shape[0] + gap.mean(axis=0).var(ddof=1) / gap.shape[1]
    assert found.relative_standard_error == close(math.sqrt(variance))


def test_the_area_of_one_model_is_that_of_scikit_learn_with_the_error_of_all_pairs() -> None:
    found = area_under_curve(TRUTH, FIRST)
    assert found.value == close(metrics.roc_auc_score(TRUTH, FIRST))
    a = wins(FIRST)
    variance = a.mean(axis=1).var(ddof=1) / a.shape[0] + a.mean(axis=0).var(ddof=1) / a.shape[1]
    assert (found.n, found.standard_error) == (N, close(math.sqrt(variance)))


def test_areas_without_two_units_of_each_label_or_with_the_same_ranks_are_not_tested() -> None:
    found = compare_areas([1, 0, 0], [0.9, 0.2, 0.1], [0.1, 0.2, 0.3])
    assert (found.difference, found.p_value) == (-1.0, None)
    assert "1 units of label 1 and 2 of label 0" in found.method
    assert compare_areas([1, 1], [0.9, 0.2], [0.1, 0.2]).difference is None
    assert compare_areas(TRUTH, FIRST, 2 * FIRST).method == "not tested: both models rank all units alike"
    assert area_under_curve([1, 1], [0.3, 0.4]).value is None
    assert area_under_curve([1, 0], [0.3, 0.4]).standard_error is None


def test_mcnemars_test_is_exact_with_few_units_that_tell_the_models_apart() -> None:
    first, second = right(40, 3, 12, 9)
    found = compare_accuracies(first, second)
    assert found.p_value == close(stats.binomtest(3, 15).pvalue)
    assert found.method == "McNemar's test, exact"
    assert found.difference == close(9 / 64)
    assert found.standard_error == close((second - first).std() / 8)


def test_mcnemars_test_is_of_the_chi_squared_statistic_with_many() -> None:
    found = compare_accuracies(*right(100, 40, 61, 20))
    assert found.statistic == close(21**2 / 101)
    assert found.p_value == close(stats.chi2.sf(21**2 / 101, 1))


def test_models_that_no_unit_tells_apart_are_not_tested_and_opposite_ones_are() -> None:
    same = compare_accuracies(*right(5, 0, 0, 5))
    assert (same.difference, same.p_value) == (0.0, None)
    assert same.method == "not tested: no unit tells the models apart"
    assert compare_accuracies(*right(0, 0, 10, 0)).p_value == close(2 / 1024)
    assert compare_accuracies([], []).method == "not tested: there are 0 units"


def test_losses_per_unit_add_up_to_the_scores_of_scikit_learn() -> None:
    sure = np.concatenate([FIRST, [0.0, 1.0]])
    labels = np.concatenate([TRUTH, [True, False]])
    assert mean_loss(log_losses(labels, sure)).value == close(metrics.log_loss(labels, sure))
    assert mean_loss(brier_losses(labels, sure)).value == close(metrics.brier_score_loss(labels, sure))
    truth = RANDOM.normal(size=N)
    assert mean_loss(absolute_errors(truth, FIRST)).value == close(metrics.mean_absolute_error(truth, FIRST))
    assert root_mean_loss(squared_errors(truth, FIRST)).value == close(metrics.root_mean_squared_error(truth, FIRST))


def test_the_error_of_a_root_mean_is_that_of_the_delta_method() -> None:
    losses = squared_errors(TRUTH, FIRST)
    found = root_mean_loss(losses)
    assert found.standard_error == close(stats.sem(losses) * 0.5 * losses.mean() ** -0.5)
    assert mean_loss(losses).standard_error == close(stats.sem(losses))
    assert root_mean_loss([0.0, 0.0]).standard_error is None
    assert mean_loss([]).value is None
    assert mean_loss([3.0]).standard_error is None


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: log_losses([0, 2], [0.1, 0.2]), "labels holds 2"),
        (lambda: log_losses([0, 1], [0.1, 1.2]), r"a probability is 1\.2"),
        (lambda: brier_losses([0, 1], [0.1]), "labels has 2, probabilities has 1"),
        (lambda: squared_errors([0, math.nan], [1, 2]), "1 of 2 values of truths are NULL, NaN or infinite"),
        (lambda: absolute_errors([[0]], [1]), "truths has 2 dimensions"),
        (lambda: root_mean_loss([-1.0]), "a loss is -1"),
        (lambda: compare_losses([-1.0], [1.0], estimate="root mean"), "a loss is negative"),
        (lambda: compare_quantiles([1, 2], [1, 2], quantile=1), "quantile is 1"),
        (lambda: compare_quantiles([1, 2], [1, 2], quantile=0.5, resamples=9), "resamples is 9"),
    ],
)
def test_nonsense_is_refused(call: Any, told: str) -> None:
    with pytest.raises(ExperimentError, match=told):
        call()


@pytest.mark.parametrize("estimate", ["mean", "root mean"])
def test_paired_losses_are_drawn_together(estimate: Any) -> None:
    a, b = squared_errors(TRUTH, FIRST), squared_errors(TRUTH, SECOND)
    found = compare_losses(a, b, estimate=estimate, seed=3)
    rows = np.random.default_rng(0).integers(0, N, (20_000, N))
    power = 0.5 if estimate == "root mean" else 1.0
    drawn = b[rows].mean(axis=1) ** power - a[rows].mean(axis=1) ** power
    assert found.difference == close(b.mean() ** power - a.mean() ** power)
    assert found.standard_error == pytest.approx(drawn.std(), rel=0.06)
    assert (found.lower, found.upper) == pytest.approx(
        tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.15 * drawn.std()
    )
    assert found == compare_losses(a, b, estimate=estimate, seed=3)
    assert found != compare_losses(a, b, estimate=estimate, seed=4)
    assert found.verdict("lower") == "better"


def test_models_with_the_same_losses_are_not_tested() -> None:
    losses = squared_errors(TRUTH, FIRST)
    found = compare_losses(losses, losses)
    assert (found.difference, found.standard_error, found.p_value) == (0.0, 0.0, None)
    assert compare_losses([1.0], [3.0]).difference == 2.0
    assert compare_losses([], []).method == "not tested: the control has 0 units, and two are needed"


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_a_difference_of_quantiles_has_the_interval_of_tea_tasting(quantile: float) -> None:
    a, b = RANDOM.lognormal(0, 1, 300), RANDOM.lognormal(0.3, 1, 200)
    found = compare_quantiles(a, b, quantile=quantile, resamples=1000, seed=5)
    metric = tt.Quantile("y", quantile, method="percentile", n_resamples=1000, rng=np.random.default_rng(5))
    other = metric.analyze_granular(pa.table({"y": a}), pa.table({"y": b}))
    assert (found.difference, found.lower, found.upper) == close(
        (other.effect_size, other.effect_size_ci_lower, other.effect_size_ci_upper)
    )
    assert (found.relative, found.relative_lower, found.relative_upper) == close(
        (other.rel_effect_size, other.rel_effect_size_ci_lower, other.rel_effect_size_ci_upper)
    )


def test_a_p_value_of_resamples_is_below_alpha_about_where_the_interval_leaves_out_0() -> None:
    a = RANDOM.normal(size=200)
    for shift in np.linspace(0, 1, 11):
        found = compare_quantiles(a, a + shift, quantile=0.5, resamples=500)
        if not 0.03 < found.p_value < 0.07:
            assert (found.p_value <= 0.05) == (found.lower > 0)
    far = compare_quantiles(a, a + 100, quantile=0.5, resamples=500)
    assert far.p_value == close(2 / 501)
    assert compare_quantiles(np.ones(9), np.ones(9), quantile=0.5).p_value is None


def test_the_package_loads_neither_scipy_nor_statsmodels() -> None:
    code = "import sys, dbscore, dbscore.experiments.statistics; print({'scipy', 'statsmodels'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
