"""Whether the variants have the shares of the units that they were to have.

They have not where units were lost or assigned wrongly, and then no comparison of them means anything: look for the
cause before the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import stats

from dbscore.experiments.statistics.arguments import refused, require_same_length, require_share

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["THRESHOLD", "Period", "SampleRatio", "check_periods", "check_sample_ratio"]

# the p-value below which a mismatch is reported: experiments are many and are looked at often
THRESHOLD = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Units by variant while the weights did not change.

    Attributes:
        units: How many each variant got.
        weights: Their shares, in any unit: 50 and 50 are as good as 0.5 and 0.5.
    """

    units: Sequence[int]
    weights: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """How well the units agree with the shares.

    Attributes:
        expected: How many units each variant was to get.
        statistic: Pearson's chi-squared. None where it cannot be computed, or would be infinite since a variant of
            weight 0 has units.
        degrees_of_freedom: Of it.
        p_value: Of such a mismatch by chance; None without units or with a single variant.
        is_suspicious: Whether it is less than the threshold.
    """

    expected: tuple[float, ...]
    statistic: float | None
    degrees_of_freedom: int
    p_value: float | None
    is_suspicious: bool


def check_sample_ratio(units: Sequence[int], weights: Sequence[float], *, threshold: float = THRESHOLD) -> SampleRatio:
    """Compare how many units the variants have with how many they were to have.

    Args:
        units: By variant.
        weights: By variant, in any unit.
        threshold: A p-value below it is suspicious.

    Raises:
        ExperimentError: The lengths differ, a count or a weight is negative, all weights are 0, or the threshold is no
            share.

    Source:
        Fabijan et al. (2019), Diagnosing Sample Ratio Mismatch in Online Controlled Experiments; Pearson's test, by
        scipy.
    """
    return check_periods([Period(units=units, weights=weights)], threshold=threshold)


def check_periods(periods: Sequence[Period], *, threshold: float = THRESHOLD) -> SampleRatio:
    """Compare them within each period, whose weights differ, and add up what each is off by.

    Args:
        periods: With the same variants, in the same order.
        threshold: A p-value below it is suspicious.

    Returns:
        The sums of the periods' expected units, statistics and degrees of freedom. Periods without units add nothing.

    Raises:
        ExperimentError: As of `check_sample_ratio`, or the periods have different variants, or there is none.

    Source:
        The sum of independent chi-squared statistics is one, with the sum of their degrees of freedom.
    """
    require_share("threshold", threshold)
    if not periods:
        raise refused("there is no period", remedy="Pass one period or more.")
    variants = {f"period {number}": one.units for number, one in enumerate(periods, start=1)}
    require_same_length(**variants)
    expected = [0.0] * len(periods[0].units)
    statistics: list[float] = []
    freedom = 0
    is_impossible = False
    for one in periods:
        shares = _shares(one)
        total = sum(one.units)
        wanted = [share * total for share in shares]
        expected = [a + b for a, b in zip(expected, wanted, strict=True)]
        got = [count for count, share in zip(one.units, shares, strict=True) if share > 0]
        is_impossible |= sum(got) < total
        if total and len(got) > 1 and not is_impossible:
            statistics.append(float(stats.chisquare(got, [w for w in wanted if w > 0]).statistic))
            freedom += len(got) - 1
    statistic, p_value = _summed(statistics, freedom, is_impossible=is_impossible)
    return SampleRatio(
        expected=tuple(expected),
        statistic=statistic,
        degrees_of_freedom=freedom,
        p_value=p_value,
        is_suspicious=p_value is not None and p_value < threshold,
    )


def _shares(period: Period) -> list[float]:
    require_same_length(units=period.units, weights=period.weights)
    wrong = [value for value in (*period.units, *period.weights) if not (value >= 0 and math.isfinite(value))]
    if wrong:
        raise refused(f"{wrong[0]} is a count or a weight", remedy="They are finite and not negative.")
    whole = math.fsum(period.weights)
    if whole <= 0:
        raise refused("all weights are 0", remedy="Pass the weights that units were assigned by.")
    return [weight / whole for weight in period.weights]


def _summed(statistics: Sequence[float], freedom: int, *, is_impossible: bool) -> tuple[float | None, float | None]:
    if is_impossible:
        return None, 0.0
    if not freedom:
        return None, None
    statistic = math.fsum(statistics)
    return statistic, float(stats.chi2.sf(statistic, freedom))
