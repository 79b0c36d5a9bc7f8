"""One comparison out of several: of the periods in which the variants had different shares of the traffic.

When shares change during an experiment, so does who is in which variant: weekdays in one, weekends in the other.
Comparing within each period and then adding up is right where comparing everything is not (Simpson's paradox).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbscore.experiments.statistics.comparison import Arm, Comparison, compared, not_tested
from dbscore.experiments.statistics.means import satterthwaite, untestable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.statistics.moments import Moments

__all__ = ["Stratum", "compare_strata"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Both variants in one period.

    Attributes:
        control: The moments of its units: of their values, of a ratio linearised, or adjusted for a covariate.
        treatment: The moments of its units.
    """

    control: Moments
    treatment: Moments

    @property
    def n(self) -> int:
        """How many units there are in both variants."""
        return self.control.n + self.treatment.n


def compare_strata(strata: Sequence[Stratum], *, alpha: float = 0.05) -> Comparison:
    """Compare the means of two variants within periods, and weigh the differences by the periods' units.

    The difference is the sum of w d, and its variance the sum of w * w times each difference's, where w is the share of
    the units, of both variants together, that came in the period. With one period this is Welch's t-test.

    Args:
        strata: The periods.
        alpha: The interval covers the difference with the probability 1 - alpha.

    Returns:
        The comparison. Periods in which a variant has fewer than two units are left out, and the method says how many.
        It is not tested where none is left, or where nothing varies.

    Raises:
        ExperimentError: The level is no share.

    Source:
        Miratrix, Sekhon & Yu (2013), Adjusting treatment effect estimates by post-stratification in randomized
        experiments, J. R. Statist. Soc. B 75; the degrees of freedom: Satterthwaite (1946).
    """
    kept = [one for one in strata if untestable(one.control, one.treatment) is None]
    if not kept:
        return not_tested("no period has two units of both variants")
    n = sum(one.n for one in kept)
    weights = [one.n / n for one in kept]
    sides = [[one.control for one in kept], [one.treatment for one in kept]]
    arms = [
        Arm(
            value=math.fsum(w * arm.mean for w, arm in zip(weights, side, strict=True)),
            variance=math.fsum(w * w * arm.variance / arm.n for w, arm in zip(weights, side, strict=True)),
        )
        for side in sides
    ]
    freedom = satterthwaite(
        (w * w * arm.variance / arm.n, arm.n) for side in sides for w, arm in zip(weights, side, strict=True)
    )
    of_all = f"{len(kept)} of {len(strata)} periods" if len(kept) < len(strata) else f"{len(kept)} periods"
    return compared(*arms, method=f"stratified t-test, {of_all}", alpha=alpha, degrees_of_freedom=freedom)
