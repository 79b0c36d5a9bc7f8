"""Whether two models differ on the same units, each of which both have predicted, as in shadow mode.

Units that are hard for one model are hard for the other: comparing them unit by unit needs far fewer of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

from dbscore.experiments.statistics.arguments import booleans, floats, refused, require_same_length
from dbscore.experiments.statistics.auc import placements
from dbscore.experiments.statistics.comparison import Arm, Comparison, compared, not_tested
from dbscore.experiments.statistics.resampling import RESAMPLES, compare_by_resampling

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["compare_accuracies", "compare_areas", "compare_losses"]

# with so few units on which the models differ, the binomial distribution is used, not its limit
_FEW = 25


def compare_accuracies(control: npt.ArrayLike, treatment: npt.ArrayLike, *, alpha: float = 0.05) -> Comparison:
    """Compare how often two models are right, by the units on which only one of them is: McNemar's test.

    Args:
        control: Whether the control was right, per unit; shape (n_units,).
        treatment: Whether the treatment was, for the same units in the same order.
        alpha: The interval covers the difference with the probability 1 - alpha.

    Returns:
        The comparison of the accuracies. The p-value is exact where at most 25 units tell the models apart, and of the
        chi-squared statistic without a continuity correction elsewhere; the interval is Wald's for pairs. It is not
        tested where no unit tells them apart.

    Raises:
        ExperimentError: The shapes differ, a value is neither 0 nor 1, or the level is no share.

    Source:
        Fagerland, Lydersen & Laake (2013), The McNemar test for binary matched-pairs data. The test is statsmodels'.
    """
    first, second = booleans("control", control), booleans("treatment", treatment)
    require_same_length(control=first, treatment=second)
    n = len(first)
    if not n:
        return not_tested("there are 0 units")
    table = [[int(np.count_nonzero((first == a) & (second == b))) for b in (True, False)] for a in (True, False)]
    shares = [float(one.mean()) for one in (first, second)]
    arms = [Arm(value=share, variance=share * (1 - share) / n) for share in shares]
    told_apart = table[0][1] + table[1][0]
    if not told_apart:
        reason = "no unit tells the models apart"
        return not_tested(reason, control=shares[0], treatment=shares[1], standard_error=0.0)
    is_exact = told_apart <= _FEW
    covariance = (table[0][0] / n - shares[0] * shares[1]) / n
    method = "McNemar's test, exact" if is_exact else "McNemar's test"
    result = compared(*arms, method=method, alpha=alpha, covariance=covariance)
    test = mcnemar(table, exact=is_exact, correction=False)
    # without a spread, since one was always right and the other always wrong, there is a test all the same
    return replace(result, statistic=float(test.statistic), p_value=float(test.pvalue), method=method)


def compare_areas(
    labels: npt.ArrayLike, control: npt.ArrayLike, treatment: npt.ArrayLike, *, alpha: float = 0.05
) -> Comparison:
    """Compare the areas under the ROC curves of two models' scores of the same units: DeLong's test.

    Args:
        labels: 0 or 1 per unit, shape (n_units,).
        control: The control's scores, shape (n_units,).
        treatment: The treatment's, for the same units in the same order.
        alpha: The interval covers the difference with the probability 1 - alpha.

    Returns:
        The comparison. It is not tested where there are fewer than two units of a label, or where both models rank
        all units alike.

    Raises:
        ExperimentError: The shapes differ, a label is neither 0 nor 1, a score is NULL, NaN or infinite, or the level
            is no share.

    Source:
        DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44, by the algorithm of Sun & Xu (2014).
    """
    first, second = placements(labels, control), placements(labels, treatment)
    if not first.can_be_tested:
        units = f"{len(first.positives)} units of label 1 and {len(first.negatives)} of label 0"
        reason = f"there are {units}, and two of each are needed"
        return not_tested(reason, control=first.area, treatment=second.area)
    if np.array_equal(first.positives, second.positives) and np.array_equal(first.negatives, second.negatives):
        reason = "both models rank all units alike"
        return not_tested(reason, control=first.area, treatment=second.area, standard_error=0.0)
    arms = [Arm(value=one.area, variance=one.covariance(one)) for one in (first, second)]
    return compared(*arms, method="DeLong's test", alpha=alpha, covariance=first.covariance(second))


def compare_losses(
    control: npt.ArrayLike,
    treatment: npt.ArrayLike,
    *,
    estimate: Literal["mean", "root mean"] = "mean",
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare the losses of two models on the same units, by drawing units.

    Args:
        control: The control's loss per unit, shape (n_units,): see `quality`.
        treatment: The treatment's, for the same units in the same order.
        estimate: `mean`: the difference of log-losses, of Brier scores, of mean absolute errors; `root mean`: of
            squared errors, the difference of RMSEs.
        alpha: The interval covers the difference with the probability 1 - alpha.
        resamples: How many samples are drawn.
        seed: The same seed gives the same interval.

    Returns:
        The comparison; a lower loss is better. It is not tested with fewer than two units, or where the difference is
        the same in all samples that are drawn.

    Raises:
        ExperimentError: The shapes differ, a loss is NULL, NaN or infinite, or negative under a root, or there are too
            few resamples.

    Source:
        As of `compare_by_resampling`.
    """
    first, second = floats("control", control), floats("treatment", treatment)
    require_same_length(control=first, treatment=second)
    if estimate == "root mean" and len(first) and min(first.min(), second.min()) < 0:
        raise refused("a loss is negative", remedy="Pass squared errors.")
    return compare_by_resampling(
        first,
        second,
        estimate=np.mean if estimate == "mean" else _root_mean,
        paired=True,
        method=f"{estimate} loss of pairs",
        alpha=alpha,
        resamples=resamples,
        seed=seed,
    )


def _root_mean(values: npt.NDArray[np.float64], *, axis: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.sqrt(values.mean(axis=axis)))
