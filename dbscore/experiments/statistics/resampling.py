"""How far an estimate that has no formula for its error would have come out otherwise: the bootstrap."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from dbscore.experiments.statistics.arguments import Floats, refused, require_share
from dbscore.experiments.statistics.comparison import Comparison, not_tested

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RESAMPLES", "compare_by_resampling"]

RESAMPLES = 2000
# numbers that are held at once: 32 MB
_NUMBERS = 4_000_000
_LEAST_RESAMPLES = 100


def compare_by_resampling(
    control: Floats,
    treatment: Floats,
    *,
    estimate: Callable[..., Any],
    paired: bool,
    method: str,
    alpha: float,
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare an estimate of two samples by what it is for samples drawn from them.

    The interval is between percentiles of the differences. The p-value is twice the smaller share of them that are on
    one side of 0, counting 0 to both and the observed as one more; it is never less than 2 / (resamples + 1).

    Args:
        control: One number per unit, shape (n_control,), float64.
        treatment: Shape (n_treatment,), float64; in the same order where units are the same.
        estimate: Of an array and `axis`, such as `numpy.mean`.
        paired: Whether both samples are of the same units, which are then drawn together.
        method: What the comparison is called.
        alpha: The interval covers the difference with the probability 1 - alpha.
        resamples: How many samples are drawn: 100 or more.
        seed: The same seed draws the same samples.

    Returns:
        The comparison, without degrees of freedom or a statistic. It is not tested where a sample has fewer than two
        units, or where the difference is the same in all that are drawn. The relative difference has no interval where
        the estimate of the control was 0, or of both signs, in some of them.

    Raises:
        ExperimentError: The level is no share, or there are too few resamples.

    Source:
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, section 13.3; the p-value: Davison & Hinkley
        (1997), Bootstrap Methods and their Application, eq. 4.11. The samples are drawn by scipy.
    """
    require_share("alpha", alpha)
    if resamples < _LEAST_RESAMPLES:
        raise refused(f"resamples is {resamples}", remedy=f"Draw {_LEAST_RESAMPLES} or more.")
    ends = [float(estimate(one, axis=0)) if len(one) else math.nan for one in (control, treatment)]
    for name, sample in (("control", control), ("treatment", treatment)):
        if len(sample) <= 1:
            reason = f"the {name} has {len(sample)} units, and two are needed"
            return not_tested(reason, control=ends[0], treatment=ends[1])

    def both(first: Floats, second: Floats, axis: int = -1) -> Floats:
        return np.stack([estimate(first, axis=axis), estimate(second, axis=axis)])

    drawn = stats.bootstrap(
        (control, treatment),
        both,
        n_resamples=resamples,
        batch=max(1, _NUMBERS // max(len(control), len(treatment))),
        paired=paired,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    differences = drawn[1] - drawn[0]
    if differences.min() == differences.max():
        reason = "the difference is the same whatever is drawn"
        return not_tested(reason, control=ends[0], treatment=ends[1], standard_error=0.0)
    shares = [alpha / 2, 1 - alpha / 2]
    lower, upper = map(float, np.quantile(differences, shares))
    smaller = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    base, difference = abs(ends[0]), ends[1] - ends[0]
    relative_error = relative_lower = relative_upper = None
    if drawn[0].min() > 0 or drawn[0].max() < 0:
        relatives = differences / np.abs(drawn[0])
        relative_error = float(relatives.std(ddof=1))
        relative_lower, relative_upper = map(float, np.quantile(relatives, shares))
    return Comparison(
        difference=difference,
        standard_error=float(differences.std(ddof=1)),
        lower=lower,
        upper=upper,
        relative=difference / base if base else None,
        relative_standard_error=relative_error,
        relative_lower=relative_lower,
        relative_upper=relative_upper,
        p_value=min(1.0, 2 * (1 + int(smaller)) / (resamples + 1)),
        method=f"{method}, percentile bootstrap of {resamples}",
    )
