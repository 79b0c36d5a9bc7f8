"""Whether the shares of units that did something differ between two variants."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from dbscore.experiments.statistics.arguments import refused, require_share
from dbscore.experiments.statistics.comparison import Arm, Comparison, compared, not_tested

if TYPE_CHECKING:
    from dbscore.experiments.statistics.moments import Moments

__all__ = ["compare_proportions"]


def compare_proportions(control: Moments, treatment: Moments, *, alpha: float = 0.05) -> Comparison:
    """Compare two proportions.

    The p-value is that of the z-test with pooled variance. The interval is Newcombe's, which covers what it says with
    few units too and never leaves [-1, 1]; at the margin it may disagree with the test. The standard error, which the
    relative difference, guardrails and always-valid intervals use, is the unpooled one: p (1 - p) / n of each variant.

    Args:
        control: The moments of its units' zeros and ones; the variance is not used.
        treatment: The moments of its units' zeros and ones.
        alpha: The interval covers the difference with the probability 1 - alpha.

    Returns:
        The comparison. It is not tested where a variant has no units, or where all units of both did the same; the
        latter has an interval.

    Raises:
        ExperimentError: The level is no share, or a mean is none.

    Source:
        Newcombe (1998), Interval estimation for the difference between independent proportions, method 10. Both are
        statsmodels'.
    """
    require_share("alpha", alpha)
    for name, one in (("control", control), ("treatment", treatment)):
        if one.n == 0:
            return not_tested(f"the {name} has 0 units", control=control.mean, treatment=treatment.mean)
        if not 0 <= one.mean <= 1:
            raise refused(f"the {name}'s proportion is {one.mean}", remedy="Outcomes of this kind are 0 or 1.")
    counts, units = [one.n * one.mean for one in (treatment, control)], [treatment.n, control.n]
    lower, upper = confint_proportions_2indep(
        counts[0], units[0], counts[1], units[1], method="newcomb", compare="diff", alpha=alpha
    )
    arms = [Arm(value=one.mean, variance=one.mean * (1 - one.mean) / one.n) for one in (control, treatment)]
    result = replace(
        compared(*arms, method="pooled z-test, Newcombe's interval", alpha=alpha),
        lower=float(lower),
        upper=float(upper),
    )
    if control.mean == treatment.mean and control.mean in (0, 1):
        return replace(result, method="not tested: all units of both variants did the same")
    statistic, p_value = proportions_ztest(counts, units)
    method = "pooled z-test, Newcombe's interval"
    return replace(result, statistic=float(statistic), p_value=float(p_value), method=method)
