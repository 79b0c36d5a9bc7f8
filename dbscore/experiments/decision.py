"""What is to be done after an experiment's analysis: made of its findings, by rules that are written down here.

A treatment is promoted where it is better by one goal at least, worse by none, and every guardrail holds. It is given
up where it is worse by a goal, or breaks a guardrail. In between the experiment goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.report import Finding

__all__ = ["Action", "Decision", "decide"]

Action: TypeAlias = Literal["promote", "keep", "wait", "mend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done, and why.

    Attributes:
        action: `promote`: a treatment is better; `keep`: the control, as every treatment is worse or breaks a
            guardrail; `wait`: nothing is sure yet; `mend`: first what makes the units uneven.
        headline: The same in a few words.
        variant: Which one to promote or to keep; None of `wait` and `mend`.
        reasons: A sentence for each treatment and metric that bears on it.
    """

    action: Action
    headline: str
    variant: str | None
    reasons: tuple[str, ...]


def decide(findings: Sequence[Finding] | None, *, control: str, withheld: str | None) -> Decision:
    """Return what the findings say is to be done.

    Args:
        findings: Of all treatments; None where they are withheld.
        control: The control's name.
        withheld: Why there are none.

    Returns:
        The decision. Of several treatments that can be promoted, the one that is better by most goals; of those the
        one whose lifts of these goals sum to most.
    """
    if findings is None:
        return _decision("mend", None, (withheld or "the results are withheld",))
    treatments = list(dict.fromkeys(one.variant for one in findings))
    by_treatment = [[one for one in findings if one.variant == name] for name in treatments]
    reasons = tuple(_reason(one) for one in findings)
    if not any(one.role == "goal" for one in findings):
        return _decision("wait", None, ("no metric is a goal", *reasons))
    winners = [mine for mine in by_treatment if _is_better(mine)]
    if winners:
        return _decision("promote", max(winners, key=_gain)[0].variant, reasons)
    if all(map(_is_worse, by_treatment)):
        return _decision("keep", control, reasons)
    return _decision("wait", None, reasons)


def _decision(action: Action, variant: str | None, reasons: tuple[str, ...]) -> Decision:
    headline = {
        "promote": f"promote {variant}",
        "keep": f"keep {variant}",
        "wait": "wait: nothing is sure yet",
        "mend": "mend the assignment: the units are not divided as the weights say",
    }[action]
    return Decision(action=action, headline=headline, variant=variant, reasons=reasons)


def _is_better(mine: Sequence[Finding]) -> bool:
    verdicts = [one.verdict for one in mine if one.role == "goal"]
    held = all(one.guardrail.verdict == "held" for one in mine if one.guardrail is not None)
    return "better" in verdicts and "worse" not in verdicts and held


def _is_worse(mine: Sequence[Finding]) -> bool:
    return any(
        one.verdict == "worse" or (one.guardrail is not None and one.guardrail.verdict == "broken") for one in mine
    )


def _gain(mine: Sequence[Finding]) -> tuple[int, float]:
    better = [one for one in mine if one.verdict == "better"]
    return len(better), sum(abs(one.comparison.relative or 0.0) for one in better)


def _reason(one: Finding) -> str:
    """Say what one finding adds."""
    if one.guardrail is not None:
        bound = (
            ""
            if one.guardrail.bound is None
            else f": at worst {one.guardrail.bound:+.2%}, margin {one.guardrail.margin:.2%}"
        )
        return f"{one.variant}: guardrail {one.metric} is {one.guardrail.verdict}{bound}"
    shown = one.always_valid or one.comparison
    if one.verdict is None or shown.p_value is None:
        return f"{one.variant}: {one.metric} was {shown.method}"
    lift = f"{shown.difference:+.4g}" if shown.relative is None else f"{shown.relative:+.2%}"
    p = one.p_value if one.p_corrected is None else one.p_corrected
    return f"{one.variant}: {one.verdict} by {one.metric} ({lift}, p = {p:.2g})"
