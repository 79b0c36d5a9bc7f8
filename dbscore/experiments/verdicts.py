"""From comparisons to findings: p-values are corrected for there being several, and verdicts rest on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dbscore.experiments.contrasts import contrast
from dbscore.experiments.report import Finding
from dbscore.experiments.statistics.corrections import benjamini_hochberg, holm
from dbscore.experiments.statistics.guardrails import check_guardrail
from dbscore.experiments.statistics.sequential import always_valid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.contrasts import Contrast
    from dbscore.experiments.outcomes import Outcomes
    from dbscore.experiments.records import Metric
    from dbscore.experiments.report import Correction
    from dbscore.experiments.statistics.comparison import Comparison, Direction

__all__ = ["Compared", "Rules", "compare", "correct", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How verdicts are found: the arguments of `analysis.analyse`."""

    alpha: float
    correction: Correction | None
    sequential: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A treatment beside the control by one metric, before verdicts."""

    metric: Metric
    variant: str
    contrast: Contrast


def compare(read: Outcomes, *, alpha: float) -> list[Compared]:
    """Compare each treatment with the control by one metric."""
    return [
        Compared(metric=read.metric, variant=name, contrast=contrast(read, number, alpha=alpha))
        for number, name in enumerate(read.variants[1:], start=2)
    ]


def judge(found: Sequence[Compared], rules: Rules) -> tuple[Finding, ...]:
    """Return the findings, with verdicts by p-values that are corrected for there being so many goals among them."""
    # no units, no interval: the comparison says why, and stays as it is
    later = [
        always_valid(one.contrast.comparison, units=one.contrast.units, alpha=rules.alpha)
        if rules.sequential and one.contrast.units
        else None
        for one in found
    ]
    p_values = [
        (one.contrast.comparison if valid is None else valid).p_value for one, valid in zip(found, later, strict=True)
    ]
    goals = [p if one.metric.role == "goal" else None for p, one in zip(p_values, found, strict=True)]
    corrected = correct(goals, rules.correction)
    return tuple(
        _finding(one.metric, one.variant, one.contrast, valid=valid, p_value=p, p_corrected=best, alpha=rules.alpha)
        for one, valid, p, best in zip(found, later, p_values, corrected, strict=True)
    )


def correct(p_values: Sequence[float | None], correction: Correction | None) -> tuple[float | None, ...]:
    """Return p-values corrected for there being several; None of what was not tested."""
    return {"holm": holm, "bh": benjamini_hochberg}[correction](p_values) if correction else tuple(p_values)


def _finding(
    metric: Metric,
    variant: str,
    one: Contrast,
    *,
    valid: Comparison | None,
    p_value: float | None,
    p_corrected: float | None,
    alpha: float,
) -> Finding:
    direction: Direction = "higher" if metric.direction == "higher" else "lower"
    guardrail = verdict = None
    if metric.role == "guardrail":
        guardrail = check_guardrail(
            one.comparison,
            margin=metric.margin or 0.0,
            direction=direction,
            alpha=alpha,
            units=one.units if valid is not None else None,
        )
    else:
        verdict = replace(one.comparison, p_value=p_corrected).verdict(direction, alpha=alpha)
    return Finding(
        metric=metric.name,
        kind=metric.kind,
        direction=direction,
        role=metric.role,
        variant=variant,
        control_n=one.control_n,
        n=one.n,
        control_value=one.control_value,
        value=one.value,
        comparison=one.comparison,
        unadjusted=one.unadjusted,
        variance_reduction=one.variance_reduction,
        always_valid=valid,
        p_value=p_value,
        p_corrected=p_corrected,
        verdict=verdict,
        guardrail=guardrail,
        accuracy=one.accuracy,
    )
