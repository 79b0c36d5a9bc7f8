"""An experiment's findings in parts of its units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dbscore.experiments.report import Heterogeneity, Segment, Segmentation
from dbscore.experiments.statistics.heterogeneity import check_homogeneity
from dbscore.experiments.statistics.sample_ratio import Period, SampleRatio, check_periods
from dbscore.experiments.verdicts import compare, correct, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dbscore.experiments.outcomes import Outcomes
    from dbscore.experiments.records import Experiment
    from dbscore.experiments.report import Correction
    from dbscore.experiments.segments import Cut
    from dbscore.experiments.statistics.comparison import Comparison
    from dbscore.experiments.units import Assigned
    from dbscore.experiments.verdicts import Compared, Rules

__all__ = ["Parts"]


class Parts:
    """The segments of one division of the units, metric by metric.

    Args:
        experiment: Whose units.
        cut: What divides them.
        assigned: Those that count.
    """

    def __init__(self, experiment: Experiment, cut: Cut, assigned: Assigned) -> None:
        self._cut = cut
        places = cut.of(assigned.units)
        # the last one is that of the units without a label, if there are any
        self._values: list[str | None] = [*cut.order, *([None] if (places == len(cut.order)).any() else [])]
        self._counts = [int((places == place).sum()) for place in range(len(self._values))]
        self._ratios = [
            _ratio_of(experiment, assigned, places == place) if experiment.mode == "ab" else None
            for place in range(len(self._values))
        ]
        self._compared: list[list[Compared]] = [[] for _ in self._values]

    def add(self, read: Outcomes, *, alpha: float) -> None:
        """Compare within each segment by one metric."""
        if read.sample is None:
            return
        places = self._cut.of(read.sample.units)
        for place, ratio in enumerate(self._ratios):
            if ratio is None or not ratio.is_suspicious:
                self._compared[place] += compare(read.only(places == place), alpha=alpha)

    def segmentation(self, rules: Rules) -> Segmentation:
        """Return the segments with their verdicts, which are corrected together."""
        judged = iter(judge([one for found in self._compared for one in found], rules))
        parts = tuple(
            Segment(
                value=value,
                units=count,
                sample_ratio=ratio,
                findings=None if ratio is not None and ratio.is_suspicious else tuple(next(judged) for _ in found),
            )
            for value, count, ratio, found in zip(self._values, self._counts, self._ratios, self._compared, strict=True)
        )
        return Segmentation(
            name=self._cut.name,
            statement=self._cut.statement,
            segments=parts,
            heterogeneity=_heterogeneity(parts, rules.correction),
        )


def _ratio_of(experiment: Experiment, assigned: Assigned, rows: npt.NDArray[np.bool_]) -> SampleRatio:
    counts = np.zeros((len(experiment.allocations or ()) + 1, len(experiment.variants) + 1), dtype=np.int64)
    np.add.at(counts, (assigned.allocations[rows], assigned.variants[rows]), 1)
    return check_periods(
        [
            Period(units=counts[one.number, 1:].tolist(), weights=[one.weights[v.name] for v in experiment.variants])
            for one in experiment.allocations or ()
        ]
    )


def _heterogeneity(parts: Sequence[Segment], correction: Correction | None) -> tuple[Heterogeneity, ...]:
    by_test: dict[tuple[str, str], list[Comparison]] = {}
    for part in parts:
        for one in part.findings or ():
            by_test.setdefault((one.metric, one.variant), []).append(one.comparison)
    found = [check_homogeneity(comparisons) for comparisons in by_test.values()]
    corrected = correct([one.p_value for one in found], correction)
    return tuple(
        Heterogeneity(
            metric=metric,
            variant=variant,
            statistic=one.statistic,
            degrees_of_freedom=one.degrees_of_freedom,
            p_value=one.p_value,
            p_corrected=p,
        )
        for (metric, variant), one, p in zip(by_test, found, corrected, strict=True)
    )
