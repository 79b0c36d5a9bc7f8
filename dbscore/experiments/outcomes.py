"""What came of an experiment's units by one metric: as sums, and unit by unit where a comparison needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dbscore.experiments import units
from dbscore.experiments.records import MetricSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from sqlalchemy import Connection

    from dbscore.experiments.records import Experiment, Metric
    from dbscore.experiments.statistics.arguments import Floats
    from dbscore.experiments.units import Sample

__all__ = ["Outcomes", "has_sums", "read"]

# what CUPED may adjust: means of numbers that each unit has by itself
_ADJUSTABLE = ("conversion", "mean", "count", "log_loss", "brier", "mae")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """What came of the units, by one metric.

    Attributes:
        metric: Which one.
        variants: The names of the variants, the control first.
        is_paired: Whether each unit has a prediction of every variant, as in shadow mode.
        sums: By period and variant; of a quantile or an area under a curve they say nothing.
        sample: Unit by unit; None where it was not read.
        covariates: Of the sample's rows, float64, shape (n_rows,); None where the metric is not adjusted.
    """

    metric: Metric
    variants: tuple[str, ...]
    is_paired: bool
    sums: tuple[MetricSummary, ...]
    sample: Sample | None
    covariates: Floats | None

    def only(self, rows: npt.NDArray[np.bool_]) -> Outcomes:
        """Return those of some rows of the sample, bool, shape (n_rows,), with the sums that they have."""
        if self.sample is None:
            raise TypeError("the units were not read")
        sample = self.sample.only(rows)
        return replace(
            self,
            sums=_sums(self.metric, self.variants, sample),
            sample=sample,
            covariates=None if self.covariates is None else self.covariates[rows],
        )


def has_sums(experiment: Experiment, metric: Metric) -> bool:
    """Whether the comparison of a metric needs sums only, rather than each unit."""
    return experiment.mode == "ab" and metric.kind not in ("quantile", "auc") and not _is_adjusted(experiment, metric)


def read(
    connection: Connection,
    experiment: Experiment,
    metric: Metric,
    summaries: Sequence[MetricSummary],
    *,
    by_unit: bool = False,
) -> Outcomes:
    """Read what came of the units by one metric.

    Args:
        connection: As a member of the owner.
        experiment: Which one.
        metric: One of its metrics.
        summaries: Of the experiment, from `lookup.summary`.
        by_unit: Read the units also where the comparison needs sums only.

    Raises:
        PrivilegeError: The role may not read what the covariate's query reads.
    """
    sample = covariates = None
    if by_unit or not has_sums(experiment, metric):
        sample = units.sample(connection, experiment.name, metric.name)
        if _is_adjusted(experiment, metric):
            covariates = units.covariate(connection, metric.covariate or "", sample.units)
    return Outcomes(
        metric=metric,
        variants=tuple(one.name for one in experiment.variants),
        is_paired=experiment.mode == "shadow",
        sums=tuple(one for one in summaries if one.metric == metric.name),
        sample=sample,
        covariates=covariates,
    )


def _is_adjusted(experiment: Experiment, metric: Metric) -> bool:
    return experiment.mode == "ab" and metric.covariate is not None and metric.kind in _ADJUSTABLE


def _sums(metric: Metric, variants: Sequence[str], sample: Sample) -> tuple[MetricSummary, ...]:
    """Add up the rows of a sample, as dbscore.experiment_summary adds up those of the tables."""
    found = []
    for period in np.unique(sample.allocations):
        for number, name in enumerate(variants, start=1):
            rows = (sample.allocations == period) & (sample.variants == number)
            values, denominators = sample.values[rows], sample.denominators[rows]
            n = len(values)
            total, divisor = float(values.sum()), float(denominators.sum())
            found.append(
                MetricSummary(
                    metric=metric.name,
                    kind=metric.kind,
                    variant=name,
                    allocation=int(period),
                    n=n,
                    sum=total,
                    sum_of_squares=float(values @ values),
                    mean=_mean(total, divisor if metric.kind == "ratio" else n),
                    variance=None,
                    denominator_sum=divisor,
                    denominator_sum_of_squares=float(denominators @ denominators),
                    sum_of_products=float(values @ denominators),
                )
            )
    return tuple(found)


def _mean(total: float, divisor: float) -> float | None:
    return total / divisor if divisor else None
