"""Whether the means of two variants differ, and the ratios of two means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from scipy import stats

from dbscore.experiments.statistics.comparison import Arm, Comparison, compared, not_tested

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbscore.experiments.statistics.moments import Moments, RatioMoments

__all__ = ["compare_means", "compare_ratios", "satterthwaite", "untestable"]


def compare_means(
    control: Moments, treatment: Moments, *, alpha: float = 0.05, method: str = "Welch's t-test"
) -> Comparison:
    """Compare two means without assuming that the variances are equal.

    Args:
        control: The moments of its units.
        treatment: The moments of its units.
        alpha: The interval covers the difference with the probability 1 - alpha.
        method: What the comparison is called.

    Returns:
        The comparison. It is not tested where a variant has fewer than two units, or where neither varies.

    Raises:
        ExperimentError: The level is no share.

    Source:
        Welch (1947), The generalization of "Student's" problem, Biometrika 34. The test is scipy's.
    """
    reason = untestable(control, treatment)
    if reason:
        return not_tested(reason, control=control.mean, treatment=treatment.mean)
    arms = [Arm(value=one.mean, variance=one.variance / one.n) for one in (control, treatment)]
    freedom = satterthwaite((arm.variance, one.n) for arm, one in zip(arms, (control, treatment), strict=True))
    result = compared(*arms, method=method, alpha=alpha, degrees_of_freedom=freedom)
    if result.p_value is None:
        return result
    statistic, p_value = stats.ttest_ind_from_stats(
        treatment.mean,
        math.sqrt(treatment.variance),
        treatment.n,
        control.mean,
        math.sqrt(control.variance),
        control.n,
        equal_var=False,
    )
    return replace(result, statistic=float(statistic), p_value=float(p_value))


def compare_ratios(control: RatioMoments, treatment: RatioMoments, *, alpha: float = 0.05) -> Comparison:
    """Compare two ratios of means, whose denominators vary from unit to unit as the numerators do.

    Args:
        control: The moments of its units.
        treatment: The moments of its units.
        alpha: The interval covers the difference with the probability 1 - alpha.

    Returns:
        The comparison. It is not tested where a variant has fewer than two units or denominators of mean 0, or where
        neither varies.

    Raises:
        ExperimentError: The level is no share.

    Source:
        Deng, Knoblich & Lu (2018), Applying the Delta Method in Metric Analytics; then Welch's test.
    """
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.denominator_mean == 0:
            return not_tested(f"the denominators of the {name} have the mean 0")
    method = "delta method, Welch's t-test"
    return compare_means(control.linearised(), treatment.linearised(), alpha=alpha, method=method)


def untestable(control: Moments, treatment: Moments) -> str | None:
    """Return why two means cannot be tested, or None if they can be.

    Args:
        control: The moments of its units.
        treatment: The moments of its units.
    """
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.n <= 1:
            return f"the {name} has {arm.n} units, and two are needed"
        if not arm.can_be_tested:
            return f"the {name}'s mean or variance is no finite number"
    return None


def satterthwaite(components: Iterable[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of estimated variances.

    Args:
        components: Each variance, and the units it was estimated from: two or more.

    Returns:
        At least 1. Infinite variances or none at all give 1.0.

    Source:
        Satterthwaite (1946), An approximate distribution of estimates of variance components, Biometrics Bulletin 2.
    """
    pairs = list(components)
    whole = math.fsum(variance for variance, _ in pairs)
    # as shares, so that squares of small variances are no zeros
    parts = math.fsum((variance / whole) ** 2 / (n - 1) for variance, n in pairs) if whole > 0 else 1.0
    return 1 / parts
