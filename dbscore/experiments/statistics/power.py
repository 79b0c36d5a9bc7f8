"""How many units an experiment needs, and what it can find with those there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.optimize import brentq
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import power_proportions_2indep, samplesize_proportions_2indep_onetail

from dbscore.experiments.statistics.arguments import refused, require_positive, require_share

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore.experiments.statistics.comparison import Direction

__all__ = [
    "SampleSize",
    "detectable_difference_of_means",
    "detectable_difference_of_proportions",
    "power_of_means",
    "power_of_proportions",
    "sample_size_for_means",
    "sample_size_for_proportions",
]

_LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSize:
    """How many units.

    Attributes:
        control: In the control, two or more.
        treatment: In the treatment, two or more.
    """

    control: int
    treatment: int

    @property
    def total(self) -> int:
        """Of both."""
        return self.control + self.treatment


def power_of_means(difference: float, *, deviation: float, sizes: SampleSize, alpha: float = 0.05) -> float:
    """Return the probability of finding a difference of means, by a two-sided t-test.

    Args:
        difference: That there is, of either sign, in the values' unit.
        deviation: The standard deviation of units, the same in both variants.
        sizes: The units.
        alpha: The significance level.

    Raises:
        ExperimentError: The difference is not finite, the deviation not positive, a variant has fewer than two units,
            or the level is no share.

    Source:
        Cohen (1988), Statistical Power Analysis for the Behavioral Sciences, chapter 2: a noncentral t distribution,
        by statsmodels.
    """
    _require_difference(difference, allow_zero=True)
    require_positive("deviation", deviation)
    require_share("alpha", alpha)
    return _power_of_means(abs(difference) / deviation, sizes.control, _ratio_of(sizes), alpha)


def sample_size_for_means(
    difference: float, *, deviation: float, power: float = 0.8, alpha: float = 0.05, ratio: float = 1.0
) -> SampleSize:
    """Return how many units are needed to find a difference of means, by a two-sided t-test.

    Args:
        difference: To be found, of either sign, in the values' unit.
        deviation: The standard deviation of units, the same in both variants; adjusted for a covariate, if it will be.
        power: The probability of finding it.
        alpha: The significance level.
        ratio: Units of the treatment per unit of the control: the quotient of the weights.

    Raises:
        ExperimentError: The difference is 0 or not finite, the deviation or the ratio is not positive, or the level or
            the power no share, or the power not above the level.

    Source:
        As of `power_of_means`, solved by Brent's method, by scipy.
    """
    _require_difference(difference)
    require_positive("deviation", deviation)
    _require_design(power, alpha, ratio)
    effect = abs(difference) / deviation
    # statsmodels' own solver gives up on unequal weights, and on few units it ends where it began
    units = _root(lambda n: power - _power_of_means(effect, n, ratio, alpha), max(_LEAST, _LEAST / ratio))
    return _whole(units, ratio)


def detectable_difference_of_means(
    sizes: SampleSize, *, deviation: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the least difference of means that is found with a probability, by a two-sided t-test.

    Args:
        sizes: The units.
        deviation: The standard deviation of units, the same in both variants.
        power: The probability of finding it.
        alpha: The significance level.

    Returns:
        Above 0, in the values' unit; of either direction.

    Raises:
        ExperimentError: A variant has fewer than two units, the deviation is not positive, or the level or the power no
            share, or the power not above the level.

    Source:
        As of `power_of_means`, solved by Brent's method, by scipy.
    """
    require_positive("deviation", deviation)
    ratio = _ratio_of(sizes)
    _require_design(power, alpha, ratio)
    one_error = math.sqrt(1 / sizes.control + 1 / sizes.treatment)
    found = _root(lambda d: power - _power_of_means(d * one_error, sizes.control, ratio, alpha), 0.0)
    return found * one_error * deviation


def power_of_proportions(difference: float, *, baseline: float, sizes: SampleSize, alpha: float = 0.05) -> float:
    """Return the probability of finding a difference of proportions, by a two-sided z-test with pooled variance.

    Args:
        difference: That there is, the treatment's less the control's.
        baseline: The control's proportion.
        sizes: The units.
        alpha: The significance level.

    Raises:
        ExperimentError: A proportion or the level is no share, or a variant has fewer than two units.

    Source:
        Fleiss, Levin & Paik (2003), Statistical Methods for Rates and Proportions, chapter 4, without a continuity
        correction: by statsmodels.
    """
    _require_difference(difference, allow_zero=True)
    require_share("baseline", baseline)
    require_share("the treatment's proportion", baseline + difference)
    require_share("alpha", alpha)
    return _power_of_proportions(difference, baseline, sizes.treatment, 1 / _ratio_of(sizes), alpha)


def sample_size_for_proportions(
    difference: float, *, baseline: float, power: float = 0.8, alpha: float = 0.05, ratio: float = 1.0
) -> SampleSize:
    """Return how many units are needed to find a difference of proportions, by a two-sided z-test with pooled variance.

    Args:
        difference: To be found, the treatment's less the control's.
        baseline: The control's proportion.
        power: The probability of finding it; that of finding it with the wrong sign is left out.
        alpha: The significance level.
        ratio: Units of the treatment per unit of the control: the quotient of the weights.

    Raises:
        ExperimentError: The difference is 0, the ratio not positive, a proportion, the level or the power no share, or
            the power not above the level.

    Source:
        As of `power_of_proportions`.
    """
    _require_difference(difference)
    require_share("baseline", baseline)
    require_share("the treatment's proportion", baseline + difference)
    _require_design(power, alpha, ratio)
    # statsmodels' first sample is the treatment: its difference is taken from the second
    treatment = samplesize_proportions_2indep_onetail(difference, baseline, power, ratio=1 / ratio, alpha=alpha)
    return _whole(max(float(treatment) / ratio, _LEAST, _LEAST / ratio), ratio)


def detectable_difference_of_proportions(
    sizes: SampleSize,
    *,
    baseline: float,
    power: float = 0.8,
    alpha: float = 0.05,
    direction: Direction = "higher",
) -> float | None:
    """Return the least difference of proportions that is found with a probability.

    Args:
        sizes: The units.
        baseline: The control's proportion.
        power: The probability of finding it, by a two-sided z-test with pooled variance.
        alpha: The significance level.
        direction: Whether the treatment's proportion is higher or lower: it is not the same difference.

    Returns:
        The treatment's proportion less the control's: above 0 for `higher`, below for `lower`. None where even the
        largest difference is found less often.

    Raises:
        ExperimentError: A variant has fewer than two units, or the baseline, the level or the power is no share, or the
            power not above the level.

    Source:
        As of `power_of_proportions`, solved by Brent's method, by scipy.
    """
    require_share("baseline", baseline)
    ratio = _ratio_of(sizes)
    _require_design(power, alpha, ratio)
    largest = (1 - baseline if direction == "higher" else -baseline) * (1 - 1e-9)

    def missing(difference: float) -> float:
        return power - _power_of_proportions(difference, baseline, sizes.treatment, 1 / ratio, alpha)

    if missing(largest) > 0:
        return None
    return float(brentq(missing, *sorted((0.0, largest)), xtol=1e-15, rtol=1e-14))


def _root(missing: Callable[[float], float], least: float) -> float:
    """Return where a falling function is 0, by Brent's method: at `least` where it is not above 0 there."""
    low, high = least, least + 1
    while missing(high) > 0:
        low, high = high, 2 * high
    return float(brentq(missing, low, high, xtol=1e-12, rtol=1e-12)) if missing(low) > 0 else low


def _power_of_means(effect: float, control: float, ratio: float, alpha: float) -> float:
    found, wrong_sign = (
        float(TTestIndPower().power(effect, control, alpha / 2, ratio=ratio, alternative=side))
        for side in ("larger", "smaller")
    )
    # scipy's noncentral t has no numbers where it is next to 0
    return found if math.isnan(wrong_sign) else found + wrong_sign


def _power_of_proportions(difference: float, baseline: float, treatment: int, ratio: float, alpha: float) -> float:
    found = power_proportions_2indep(difference, baseline, treatment, ratio=ratio, alpha=alpha, return_results=False)
    return float(found)


def _ratio_of(sizes: SampleSize) -> float:
    if min(sizes.control, sizes.treatment) < _LEAST:
        raise refused(f"{sizes.control} and {sizes.treatment} units", remedy="A variant needs two or more.")
    return sizes.treatment / sizes.control


def _whole(control: float, ratio: float) -> SampleSize:
    return SampleSize(control=math.ceil(control), treatment=math.ceil(control * ratio))


def _require_difference(difference: float, *, allow_zero: bool = False) -> None:
    if not math.isfinite(difference) or (difference == 0 and not allow_zero):
        raise refused(f"the difference is {difference}", remedy="Name the least difference that matters.")


def _require_design(power: float, alpha: float, ratio: float) -> None:
    require_share("power", power)
    require_share("alpha", alpha)
    require_positive("ratio", ratio)
    if power <= alpha:
        raise refused(f"the power is {power} and alpha {alpha}", remedy="A test finds what is not there with alpha.")
