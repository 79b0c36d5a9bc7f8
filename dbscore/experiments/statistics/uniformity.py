"""Whether p-values are what they say: of tests of what does not differ (A/A), all values are equally likely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import stats

from dbscore.experiments.statistics.arguments import refused, require_share

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Uniformity", "check_uniformity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniformity:
    """What p-values of A/A tests look like.

    Attributes:
        n: How many there are.
        statistic: Kolmogorov and Smirnov's: the largest distance from a uniform distribution function; None without
            p-values.
        p_value: Of such a distance by chance; None without p-values.
        rejected: How many are at most alpha.
        share: Of all.
        lower: Where the interval of that share begins, exact (Clopper & Pearson), of the confidence asked for.
        upper: Where it ends.
        is_uniform: Whether alpha is in the interval, and the distance could be by chance at the same confidence; None
            without p-values.
    """

    n: int
    statistic: float | None
    p_value: float | None
    rejected: int
    share: float | None
    lower: float | None
    upper: float | None
    is_uniform: bool | None


def check_uniformity(p_values: Sequence[float | None], *, alpha: float = 0.05, confidence: float = 0.99) -> Uniformity:
    """Compare p-values with a uniform distribution.

    Args:
        p_values: Of tests of what does not differ, independent of each other. None and NaN are of no test and are left
            out. Always-valid and exact ones are larger than uniform, as they should be: only `lower` matters for them.
        alpha: The level whose share of rejections is to be checked.
        confidence: Of the interval and of the verdict: a certificate is refused wrongly in at most 2 (1 - confidence)
            of all cases.

    Raises:
        ExperimentError: A p-value is below 0 or above 1, or the level or the confidence is no share.

    Source:
        Kohavi, Tang & Xu (2020), Trustworthy Online Controlled Experiments, chapter 19; the tests are scipy's.
    """
    require_share("alpha", alpha)
    require_share("confidence", confidence)
    tested = [p for p in p_values if p is not None and not math.isnan(p)]
    wrong = [p for p in tested if not 0 <= p <= 1]
    if wrong:
        raise refused(f"a p-value is {wrong[0]}", remedy="They are between 0 and 1.")
    n, rejected = len(tested), sum(p <= alpha for p in tested)
    if not n:
        return Uniformity(
            n=0, statistic=None, p_value=None, rejected=0, share=None, lower=None, upper=None, is_uniform=None
        )
    test = stats.kstest(tested, "uniform")
    interval = stats.binomtest(rejected, n).proportion_ci(confidence_level=confidence, method="exact")
    return Uniformity(
        n=n,
        statistic=float(test.statistic),
        p_value=float(test.pvalue),
        rejected=rejected,
        share=rejected / n,
        lower=float(interval.low),
        upper=float(interval.high),
        is_uniform=bool(interval.low <= alpha <= interval.high and test.pvalue >= 1 - confidence),
    )
