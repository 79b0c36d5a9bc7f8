"""Whether a difference is the same in several groups of units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from statsmodels.stats.meta_analysis import combine_effects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.statistics.comparison import Comparison

__all__ = ["Homogeneity", "check_homogeneity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Homogeneity:
    """How well the differences of several groups agree.

    Attributes:
        statistic: Cochran's Q; None where fewer than two groups were tested, or they differ by more than a float64.
        degrees_of_freedom: Groups that were tested, less one.
        p_value: Of so much disagreement by chance; None with fewer than two groups.
    """

    statistic: float | None
    degrees_of_freedom: int
    p_value: float | None


def check_homogeneity(comparisons: Sequence[Comparison]) -> Homogeneity:
    """Test that the differences are the same.

    Args:
        comparisons: One for each group of units; those that were not tested are left out.

    Source:
        Cochran (1954), The combination of estimates from different experiments; by statsmodels.
    """
    tested = [
        (one.difference, one.standard_error)
        for one in comparisons
        if one.difference is not None and one.standard_error and one.p_value is not None
    ]
    freedom = max(len(tested) - 1, 0)
    if not freedom:
        return Homogeneity(statistic=None, degrees_of_freedom=0, p_value=None)
    differences, errors = np.array(tested).T
    surest = errors.argmin()
    # from the surest difference, in units of its error: what is left cancels little, and small errors have squares.
    # Its random-effects estimates, which are not asked for, may be no numbers
    with np.errstate(all="ignore"):
        effects = (differences - differences[surest]) / errors[surest]
        variances = np.square(errors / errors[surest])
        found = combine_effects(effects, variances, method_re="dl").test_homogeneity()
    if not np.isfinite(found.statistic):
        # too far apart for a number
        return Homogeneity(statistic=None, degrees_of_freedom=freedom, p_value=0.0)
    return Homogeneity(
        statistic=max(float(found.statistic), 0.0), degrees_of_freedom=freedom, p_value=float(found.pvalue)
    )
