"""What the comparison of two variants comes to, whatever was compared and however."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from scipy import stats

from dbscore.experiments.statistics.arguments import require_share

__all__ = ["Arm", "Comparison", "Direction", "Verdict", "compared", "not_tested"]

Direction: TypeAlias = Literal["higher", "lower"]
Verdict: TypeAlias = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """The estimate of one variant.

    Attributes:
        value: A mean, a ratio, a proportion, an area.
        variance: Of the estimate, not of the units: its squared standard error.
    """

    value: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much the treatment differs from the control.

    What cannot be tested has no p-value, and no interval unless one needs no variance (Newcombe's). The difference is
    there if both variants have a value, and the method says what is missing. Nothing is ever NaN or infinite.

    Attributes:
        difference: The treatment's value less the control's.
        standard_error: Of the difference.
        lower: Where the two-sided interval of the difference begins.
        upper: Where it ends.
        relative: The difference as a share of the control's absolute value; None where that is 0.
        relative_standard_error: Of the relative difference, by the delta method.
        relative_lower: Where its interval begins; None where the control's own interval includes 0, since the relative
            difference can then be anything.
        relative_upper: Where it ends.
        statistic: What the p-value was read from.
        degrees_of_freedom: Of Student's t distribution; None for a normal one.
        p_value: Two-sided, of there being no difference.
        method: What computed it, or `not tested:` and why.
    """

    difference: float | None
    standard_error: float | None = None
    lower: float | None = None
    upper: float | None = None
    relative: float | None = None
    relative_standard_error: float | None = None
    relative_lower: float | None = None
    relative_upper: float | None = None
    statistic: float | None = None
    degrees_of_freedom: float | None = None
    p_value: float | None = None
    method: str

    def verdict(self, direction: Direction, *, alpha: float = 0.05) -> Verdict:
        """Say what the treatment is, given what is good.

        Args:
            direction: Whether a higher or a lower value is better.
            alpha: The significance level; the p-value may be one that was corrected.

        Raises:
            ExperimentError: The level is no share.
        """
        require_share("alpha", alpha)
        if self.p_value is None or self.difference is None or self.p_value > alpha or self.difference == 0:
            return "undecided"
        return "better" if (self.difference > 0) == (direction == "higher") else "worse"


def compared(
    control: Arm,
    treatment: Arm,
    *,
    method: str,
    alpha: float,
    degrees_of_freedom: float | None = None,
    covariance: float = 0.0,
) -> Comparison:
    """Compare two estimates by their difference divided by its standard error.

    Args:
        control: Its estimate.
        treatment: Its estimate.
        method: What the comparison is called.
        alpha: The interval covers the difference with the probability 1 - alpha.
        degrees_of_freedom: Of Student's t distribution; None for a normal one.
        covariance: Of both estimates; 0 where the variants have different units.

    Returns:
        The comparison; without a test where there is no variance.

    Raises:
        ExperimentError: The level is no share.

    Source:
        The relative difference: Deng, Knoblich & Lu (2018), Applying the Delta Method in Metric Analytics.
        That its interval has no bounds where the control's includes 0: Fieller (1954).
    """
    require_share("alpha", alpha)
    difference = treatment.value - control.value
    variance = treatment.variance + control.variance - 2 * covariance
    if variance <= 0:
        return not_tested("nothing varies", control=control.value, treatment=treatment.value, standard_error=0.0)
    standard_error = math.sqrt(variance)
    statistic = difference / standard_error
    distribution, shape = (stats.norm, ()) if degrees_of_freedom is None else (stats.t, (degrees_of_freedom,))
    reach = float(distribution.isf(alpha / 2, *shape))
    relative = relative_error = relative_lower = relative_upper = None
    base = abs(control.value)
    if base > 0 and math.isfinite(treatment.value / base):
        relative = difference / base
        ratio = treatment.value / control.value
        of_ratio = treatment.variance + ratio * ratio * control.variance - 2 * ratio * covariance
        relative_error = math.sqrt(max(of_ratio, 0.0)) / base
        if base > reach * math.sqrt(control.variance):
            relative_lower, relative_upper = relative - reach * relative_error, relative + reach * relative_error
        elif not math.isfinite(relative_error):
            relative_error = None
    return Comparison(
        difference=difference,
        standard_error=standard_error,
        lower=difference - reach * standard_error,
        upper=difference + reach * standard_error,
        relative=relative,
        relative_standard_error=relative_error,
        relative_lower=relative_lower,
        relative_upper=relative_upper,
        statistic=statistic,
        degrees_of_freedom=degrees_of_freedom,
        p_value=float(2 * distribution.sf(abs(statistic), *shape)),
        method=method,
    )


def not_tested(
    reason: str, *, control: float = math.nan, treatment: float = math.nan, standard_error: float | None = None
) -> Comparison:
    """Return a comparison that says why there is no test.

    Args:
        reason: What is missing.
        control: The control's value; NaN if it has none.
        treatment: The treatment's value; NaN if it has none.
        standard_error: Of the difference, where it is known: 0.0 if nothing varies.
    """
    difference = treatment - control
    known = math.isfinite(difference)
    return Comparison(
        difference=difference if known else None,
        standard_error=standard_error,
        relative=difference / abs(control) if known and control else None,
        method=f"not tested: {reason}",
    )
