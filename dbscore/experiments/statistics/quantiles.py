"""Whether a quantile of two variants differs: the 95th percentile of a latency, the median of a basket."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dbscore.experiments.statistics.arguments import floats, require_share
from dbscore.experiments.statistics.resampling import RESAMPLES, compare_by_resampling

if TYPE_CHECKING:
    import numpy.typing as npt

    from dbscore.experiments.statistics.comparison import Comparison

__all__ = ["compare_quantiles"]


def compare_quantiles(
    control: npt.ArrayLike,
    treatment: npt.ArrayLike,
    *,
    quantile: float,
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare a quantile of two samples of different units.

    A quantile is between two units' values where it falls between them, as `percentile_cont` has it. One needs units
    on both sides of it: some ten beyond a 95th percentile, for the interval to cover what it says. It takes time in
    proportion to the units times the resamples.

    Args:
        control: One number per unit, shape (n_control,).
        treatment: Shape (n_treatment,).
        quantile: A share: 0.5 is the median.
        alpha: The interval covers the difference with the probability 1 - alpha.
        resamples: How many samples are drawn.
        seed: The same seed gives the same interval.

    Returns:
        The comparison. It is not tested where a sample has fewer than two units, or where the difference is the same
        in all samples that are drawn.

    Raises:
        ExperimentError: The quantile or the level is no share, a value is NULL, NaN or infinite, or there are too few
            resamples.

    Source:
        As of `compare_by_resampling`; the quantile is Hyndman & Fan's (1996) definition 7.
    """
    require_share("quantile", quantile)
    return compare_by_resampling(
        floats("control", control),
        floats("treatment", treatment),
        estimate=partial(np.quantile, q=quantile),
        paired=False,
        method=f"quantile {quantile:g}",
        alpha=alpha,
        resamples=resamples,
        seed=seed,
    )
