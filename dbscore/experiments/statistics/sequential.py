"""Intervals that may be looked at every day: they cover the difference at all times together.

A usual interval covers it at one time that was fixed before. Whoever looks daily and stops when it leaves out 0, stops
wrongly far more often than alpha says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dbscore.experiments.statistics.arguments import refused, require_positive, require_share

if TYPE_CHECKING:
    from dbscore.experiments.statistics.comparison import Comparison

__all__ = ["TUNED_FOR", "AlwaysValid", "always_valid", "confidence_sequence"]

# at how many units the interval is narrowest, relative to a usual one
TUNED_FOR = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysValid:
    """An interval and a p-value that hold whenever one looks.

    Attributes:
        lower: Where the interval begins.
        upper: Where it ends.
        p_value: Of there being no difference; it is at most alpha just where the interval leaves out 0.
    """

    lower: float
    upper: float
    p_value: float


def confidence_sequence(
    difference: float, standard_error: float, *, units: int, alpha: float = 0.05, tuned_for: float = TUNED_FOR
) -> AlwaysValid:
    """Return the interval of a difference at this time out of all times.

    It is asymptotic: it holds as the usual intervals of means do, once there are some hundred units.

    Args:
        difference: Of anything that is a mean in the limit.
        standard_error: Of the difference, above 0. Of proportions, with the variance p (1 - p) / n of each variant.
        units: How many there are in both variants together, n. The variance per unit is n times the squared standard
            error.
        alpha: All intervals together cover the difference with the probability 1 - alpha.
        tuned_for: At how many units it is to be narrow (N*): about those the experiment will have. It, as alpha, is
            fixed before one looks.

    Raises:
        ExperimentError: The level is no share; the error, the units or N* are no positive numbers; the difference is
            not finite.

    Source:
        Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), Time-uniform central limit theory and asymptotic
        confidence sequences, Annals of Statistics 52 (arXiv 2103.06476v7): the interval is eq. 9, rho eq. 161 for N*,
        the p-value the alpha at which the interval ends at 0 with rho kept (eq. 155). GrowthBook has the same default.
    """
    require_share("alpha", alpha)
    for name, value in (("standard_error", standard_error), ("units", units), ("tuned_for", tuned_for)):
        require_positive(name, value)
    if not math.isfinite(difference):
        raise refused(f"the difference is {difference}", remedy="It is a finite number.")
    rho_squared = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tuned_for
    grown = units * rho_squared + 1
    # the squared number of standard errors, by which an interval is twice its logarithm wide
    scale = grown / (units * rho_squared)
    reach = standard_error * math.sqrt(scale * (math.log(grown) - 2 * math.log(alpha)))
    evidence = (difference / standard_error) ** 2 / (2 * scale) - math.log(grown) / 2
    return AlwaysValid(lower=difference - reach, upper=difference + reach, p_value=math.exp(-max(evidence, 0.0)))


def always_valid(
    comparison: Comparison, *, units: int, alpha: float = 0.05, tuned_for: float = TUNED_FOR
) -> Comparison:
    """Return a comparison with intervals and a p-value that hold whenever one looks.

    Args:
        comparison: Of means, proportions, ratios, with or without a covariate or strata. What was not tested is
            returned as it is.
        units: How many there are in both variants together.
        alpha: All intervals together cover the difference with the probability 1 - alpha.
        tuned_for: At how many units they are to be narrow.

    Raises:
        ExperimentError: As of `confidence_sequence`.

    Source:
        As of `confidence_sequence`.
    """
    if comparison.p_value is None or comparison.difference is None or not comparison.standard_error:
        return comparison
    found = confidence_sequence(
        comparison.difference, comparison.standard_error, units=units, alpha=alpha, tuned_for=tuned_for
    )
    relative_lower = relative_upper = None
    if comparison.relative is not None and comparison.relative_lower is not None and comparison.relative_standard_error:
        relative = confidence_sequence(
            comparison.relative, comparison.relative_standard_error, units=units, alpha=alpha, tuned_for=tuned_for
        )
        relative_lower, relative_upper = relative.lower, relative.upper
    return replace(
        comparison,
        lower=found.lower,
        upper=found.upper,
        relative_lower=relative_lower,
        relative_upper=relative_upper,
        degrees_of_freedom=None,
        p_value=found.p_value,
        method=f"asymptotic confidence sequence, N* = {tuned_for:g}",
    )
