"""Whether a treatment is surely not much worse: what must hold of metrics that it is not meant to improve.

That a difference is not significant does not show that there is none. A guardrail holds when the test says that the
treatment is worse by less than the margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from scipy import stats

from dbscore.experiments.statistics.arguments import refused, require_share
from dbscore.experiments.statistics.sequential import TUNED_FOR, confidence_sequence

if TYPE_CHECKING:
    from dbscore.experiments.statistics.comparison import Comparison, Direction

__all__ = ["Guardrail", "Scale", "check_guardrail"]

Scale: TypeAlias = Literal["relative", "absolute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """Whether the treatment is not worse than the control by the margin.

    Attributes:
        verdict: `held`: it is worse by less than the margin, if at all; `broken`: it is worse by more; `undecided`:
            there are too few units to say, or it was not tested.
        p_value: One-sided, of its being worse by the margin or more; None if it was not tested.
        bound: The worst difference, in the margin's scale, that is left at this level: the lower bound where higher
            is better, the upper bound where lower is.
        margin: How much worse is too much, above or equal to 0.
        scale: `relative`: the margin and the bound are shares of the control's value; `absolute`: of its unit.
        method: What computed it, or why nothing did.
    """

    verdict: Literal["held", "broken", "undecided"]
    p_value: float | None
    bound: float | None
    margin: float
    scale: Scale
    method: str


def check_guardrail(
    comparison: Comparison,
    *,
    margin: float,
    direction: Direction,
    scale: Scale = "relative",
    alpha: float = 0.05,
    units: int | None = None,
    tuned_for: float = TUNED_FOR,
) -> Guardrail:
    """Test that the treatment is worse by less than a margin.

    Args:
        comparison: Of the two variants, as it was computed: not an always-valid one.
        margin: How much worse is too much: 0.02 is 2 % of the control's value, or 0.02 of its unit.
        direction: Whether a higher or a lower value is better.
        scale: What the margin is a share or an amount of.
        alpha: One-sided: the probability that the guardrail is said to hold where it does not.
        units: How many there are in both variants together. With it, the answer is right whenever one looks, and the
            p-value and the bound are those of the two-sided confidence sequence of this level.
        tuned_for: At how many units a confidence sequence is to be narrow.

    Returns:
        The verdict. The relative difference's error is that of the delta method; where it has none, or nothing was
        tested, the verdict is `undecided`.

    Raises:
        ExperimentError: The margin is negative or not finite, the level no share, or the number of units not positive.

    Source:
        Committee for Proprietary Medicinal Products (2000), Points to consider on switching between superiority and
        non-inferiority; Schultzberg, Ankargren & Frånberg (2024), Risk-aware product decisions in A/B tests with
        multiple metrics.
    """
    require_share("alpha", alpha)
    if not 0 <= margin < float("inf"):
        raise refused(f"the margin is {margin}", remedy="It is a finite number of 0 or more; the direction has a sign.")
    if scale == "relative":
        # without an interval, the control's value may be 0: nothing is known of a share of it
        is_known = comparison.relative_lower is not None
        value, error = comparison.relative, comparison.relative_standard_error
    else:
        is_known, value, error = True, comparison.difference, comparison.standard_error
    if value is None or not error or not is_known:
        reason = comparison.method if comparison.p_value is None else "not tested: the control's value may be 0"
        return Guardrail(verdict="undecided", p_value=None, bound=None, margin=margin, scale=scale, method=reason)
    sign = 1 if direction == "higher" else -1
    # how much better than worse by the margin
    spare = sign * value + margin
    if units is None:
        freedom = comparison.degrees_of_freedom
        distribution = stats.norm() if freedom is None else stats.t(freedom)
        p_value, p_broken = float(distribution.sf(spare / error)), float(distribution.cdf(spare / error))
        reach = float(distribution.isf(alpha)) * error
    else:
        found = confidence_sequence(spare, error, units=units, alpha=alpha, tuned_for=tuned_for)
        p_value, p_broken = (found.p_value if spare > 0 else 1.0), (found.p_value if spare < 0 else 1.0)
        reach = spare - found.lower
    return Guardrail(
        verdict="held" if p_value <= alpha else "broken" if p_broken <= alpha else "undecided",
        p_value=p_value,
        bound=value - sign * reach,
        margin=margin,
        scale=scale,
        method="non-inferiority" if units is None else f"non-inferiority, confidence sequence, N* = {tuned_for:g}",
    )
