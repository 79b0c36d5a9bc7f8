"""What the analysis of an experiment says: of each treatment by each metric, and of whether that can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dbscore.experiments.records import as_json

if TYPE_CHECKING:
    from datetime import datetime

    from dbscore.experiments.decision import Decision
    from dbscore.experiments.statistics.comparison import Comparison, Verdict
    from dbscore.experiments.statistics.guardrails import Guardrail
    from dbscore.experiments.statistics.sample_ratio import SampleRatio

__all__ = ["Correction", "Coverage", "Finding", "Health", "Heterogeneity", "Report", "Segment", "Segmentation"]

Correction: TypeAlias = Literal["holm", "bh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One treatment beside the control, by one metric.

    Attributes:
        metric: The metric's name.
        kind: Its kind.
        direction: Which is better: `higher` or `lower`.
        role: `goal` or `guardrail`.
        variant: The treatment's name.
        control_n: Units of the control that count.
        n: Units of the treatment that count; in shadow mode the same, which both have predicted.
        control_value: The control's mean, ratio, share, quantile, area or loss, before any adjustment; of several
            periods, each is weighed by its units of both variants. None where there is none.
        value: The treatment's.
        comparison: At a time that was fixed before; adjusted for the covariate where the metric has one.
        unadjusted: The comparison without the covariate; None where there is none.
        variance_reduction: The share of the difference's variance that the covariate took away; None without one.
        always_valid: The comparison with an interval and a p-value that hold whenever one looks; None where it was not
            asked for.
        p_value: What the verdict rests on: of `always_valid` where it was asked for, else of `comparison`. None where
            nothing was tested.
        p_corrected: It, corrected for there being several goals and treatments; None of a guardrail.
        verdict: `better`, `worse` or `undecided`, by the corrected p-value; None of a guardrail.
        guardrail: Whether the treatment is not worse by the margin; None of a goal.
        accuracy: In shadow mode, of classifiers: how often each version's class was the truth, by McNemar's test.
    """

    metric: str
    kind: str
    direction: str
    role: str
    variant: str
    control_n: int
    n: int
    control_value: float | None
    value: float | None
    comparison: Comparison
    unadjusted: Comparison | None
    variance_reduction: float | None
    always_valid: Comparison | None
    p_value: float | None
    p_corrected: float | None
    verdict: Verdict | None
    guardrail: Guardrail | None
    accuracy: Comparison | None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return as_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Of how many units of a variant it is known what came of them, by one metric.

    Attributes:
        metric: The metric's name.
        variant: The variant's.
        units: Those that count.
        with_outcome: Those with an outcome that counts.
        missing: The share of the others; None without units. Where no outcome means 0, they are not missing.
        mature: Those whose window has passed, so that no more can come; None where the metric has no window.
        mature_share: Of all; None without a window or without units.
    """

    metric: str
    variant: str
    units: int
    with_outcome: int
    missing: float | None
    mature: int | None
    mature_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the results rest on.

    Attributes:
        units: Units that count.
        forced: Units of testers, left out.
        seen_in_two_variants: Units that an application has shown two variants, left out.
        held_out: Units that get the control's prediction and are compared with nothing.
        coverage: By metric and variant.
    """

    units: int
    forced: int
    seen_in_two_variants: int
    held_out: int
    coverage: tuple[Coverage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the units, by what was known of them before.

    Attributes:
        value: The feature's or the query's value, or a range of numbers; None of the units that have none.
        units: Those that count.
        sample_ratio: How well they agree with the weights; None in shadow mode.
        findings: By metric, then variant; None where the sample ratio is suspicious.
    """

    value: str | None
    units: int
    sample_ratio: SampleRatio | None
    findings: tuple[Finding, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """Whether a treatment's difference is the same in all segments, by one metric.

    Attributes:
        metric: The metric's name.
        variant: The treatment's.
        statistic: Cochran's Q; None where fewer than two segments were tested.
        degrees_of_freedom: Segments that were tested, less one.
        p_value: Of so much disagreement by chance.
        p_corrected: It, corrected for there being several metrics and treatments.
    """

    metric: str
    variant: str
    statistic: float | None
    degrees_of_freedom: int
    p_value: float | None
    p_corrected: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """The findings in parts of the units. They explore: verdicts are corrected for there being so many.

    Attributes:
        name: Of the feature, or as the user calls it.
        statement: What gave the segments.
        segments: In the order of their values, the units that have none last.
        heterogeneity: By metric and variant.
    """

    name: str
    statement: str
    segments: tuple[Segment, ...]
    heterogeneity: tuple[Heterogeneity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The analysis of an experiment.

    Attributes:
        experiment: Its name.
        mode: `ab` or `shadow`.
        status: Of the experiment: `running`, say.
        control: The control's name.
        alpha: The level of intervals and verdicts.
        correction: `holm`, `bh` (Benjamini and Hochberg) or None.
        sequential: Whether the verdicts hold whenever one looks.
        made_at: When the database was read.
        decision: What is to be done, and why.
        sample_ratio: How well the units agree with the weights; None in shadow mode.
        withheld: Why there are no findings; None where there are.
        health: What the results rest on.
        findings: By metric, then variant; None where they are withheld.
        segmentations: The findings in parts of the units, where they were asked for; empty where they are withheld.
    """

    experiment: str
    mode: str
    status: str
    control: str
    alpha: float
    correction: Correction | None
    sequential: bool
    made_at: datetime
    decision: Decision
    sample_ratio: SampleRatio | None
    withheld: str | None
    health: Health
    findings: tuple[Finding, ...] | None
    segmentations: tuple[Segmentation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return as_json(self)
