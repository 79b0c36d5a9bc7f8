"""What is left of outcomes when what was known of the units before is taken out: fewer units are needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dbscore.experiments.statistics.comparison import Comparison, not_tested
from dbscore.experiments.statistics.means import compare_means
from dbscore.experiments.statistics.moments import CovariateMoments, Moments, cancelled

__all__ = ["Adjustment", "adjust", "compare_with_covariate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """Outcomes less what the covariate says of them.

    Attributes:
        theta: How much of the outcome goes with one unit of the covariate.
        variance_reduction: The share of the variance of a difference that is gone: 1 - adjusted / unadjusted.
        control: The moments of the control's adjusted outcomes.
        treatment: The moments of the treatment's adjusted outcomes.
    """

    theta: float
    variance_reduction: float
    control: Moments
    treatment: Moments


def adjust(control: CovariateMoments, treatment: CovariateMoments) -> Adjustment:
    """Take out of the outcomes y what their covariate x says: y - theta (x - mean(x)).

    Theta is the covariance of x and y divided by the variance of x, and mean(x) the mean, over the units of both
    variants together: the same is taken out of both. A covariate that varies in neither variant takes out nothing.

    Args:
        control: The moments of its units, two or more.
        treatment: The moments of its units, two or more.

    Source:
        Deng, Xu, Kohavi & Walker (2013), Improving the Sensitivity of Online Controlled Experiments by Utilizing
        Pre-Experiment Data.
    """
    arms = (control, treatment)
    n = control.n + treatment.n
    center = math.fsum(arm.n * arm.covariate_mean for arm in arms) / n
    scatter = math.fsum((arm.n - 1) * arm.covariate_variance for arm in arms)
    theta = 0.0
    # if it varies in neither variant, what it differs by between them is rounding, or no covariate
    if scatter > 0:
        between = control.n * treatment.n / n * (treatment.covariate_mean - control.covariate_mean)
        shared = [*((arm.n - 1) * arm.covariance for arm in arms), between * (treatment.mean - control.mean)]
        theta = math.fsum(shared) / (scatter + between * (treatment.covariate_mean - control.covariate_mean))
    adjusted = [
        Moments(
            n=arm.n,
            mean=arm.mean - theta * (arm.covariate_mean - center),
            variance=cancelled(arm.variance, theta * theta * arm.covariate_variance, -2 * theta * arm.covariance),
        )
        for arm in arms
    ]
    before, after = (math.fsum(one.variance / one.n for one in some) for some in (arms, adjusted))
    return Adjustment(
        theta=theta,
        variance_reduction=1 - after / before if before > 0 else 0.0,
        control=adjusted[0],
        treatment=adjusted[1],
    )


def compare_with_covariate(
    control: CovariateMoments, treatment: CovariateMoments, *, alpha: float = 0.05
) -> Comparison:
    """Compare two means by what the covariate leaves of them (CUPED), with Welch's t-test.

    Args:
        control: The moments of its units.
        treatment: The moments of its units.
        alpha: The interval covers the difference with the probability 1 - alpha.

    Returns:
        The comparison; the relative one is to the control's adjusted mean. It is not tested where a variant has fewer
        than two units, or where nothing is left that varies.

    Raises:
        ExperimentError: The level is no share.

    Source:
        As of `adjust`.
    """
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.n <= 1:
            reason = f"the {name} has {arm.n} units, and two are needed"
            return not_tested(reason, control=control.mean, treatment=treatment.mean)
    adjusted = adjust(control, treatment)
    return compare_means(adjusted.control, adjusted.treatment, alpha=alpha, method="CUPED, Welch's t-test")
