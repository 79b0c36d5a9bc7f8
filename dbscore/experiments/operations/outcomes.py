"""The outcomes of experiments: the metrics, what came of the units, and its sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbscore.database import scalar
from dbscore.experiments import lookup
from dbscore.experiments.operations.transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from dbscore.experiments.records import Direction, Kind, Metric, MetricResult, MetricSummary, Role

__all__ = ["Outcomes"]

_CREATE_METRIC = """
select dbscore.create_metric(
    %(experiment)s, %(name)s, %(kind)s,
    direction => %(direction)s,
    role => %(role)s,
    margin => %(margin)s::double precision,
    "window" => %(window)s::interval,
    quantile => %(quantile)s::double precision,
    source => %(source)s,
    covariate => %(covariate)s)
"""
_RECORD = """
select dbscore.record_outcome(
    %(experiment)s, %(unit)s, %(metric)s, %(value)s::text,
    at => coalesce(%(at)s::timestamptz, pg_catalog.now()),
    denominator => %(denominator)s::double precision)
"""


class Outcomes(Transactions):
    """What came of an experiment's units."""

    def add_metric(  # noqa: PLR0913 - what a metric may say
        self,
        name: str,
        metric: str,
        *,
        kind: Kind,
        direction: Direction | None = None,
        role: Role = "goal",
        margin: float | None = None,
        window: timedelta | str | None = None,
        quantile: float | None = None,
        source: str | None = None,
        covariate: str | None = None,
    ) -> Metric:
        """Give an experiment a metric.

        Args:
            name: The experiment.
            metric: The metric's name: a lower-case identifier.
            kind: `conversion`: whether there is an outcome other than 0; `mean`: the sum of a unit's outcomes;
                `count`: how many there are; `ratio`: the sum of values over the sum of denominators; `quantile`: of
                units' sums. `log_loss`, `brier`, `auc`, `rmse` and `mae` compare predictions with the truth.
            direction: Which is better: `higher` or `lower`; by default lower for losses.
            role: `goal`, or `guardrail`, which must not get worse by more than `margin`.
            margin: Of a guardrail, a share of the control's mean, 0 or more.
            window: How long after its assignment a unit's outcomes count; by default for ever.
            quantile: Which one, in (0, 1); of the kind `quantile` only.
            source: A query of unit, value[, denominator], at, for `collect`.
            covariate: A query of unit, value: what was before the assignment, for CUPED.

        Raises:
            NotFoundError: There is no such experiment.
            NameRefusedError: The name is refused or taken.
            ExperimentError: The metric cannot be; the message says why.
        """
        parameters = {
            "experiment": name,
            "name": metric,
            "kind": kind,
            "direction": direction,
            "role": role,
            "margin": margin,
            "window": window,
            "quantile": quantile,
            "source": source,
            "covariate": covariate,
        }
        made = self._changed(name, _CREATE_METRIC, parameters)
        return next(m for m in made.metrics or () if m.name == metric)

    def drop_metric(self, name: str, metric: str) -> None:
        """Drop a metric with its outcomes.

        Raises:
            NotFoundError: There is no such experiment or metric.
        """
        self._call("select dbscore.drop_metric(%s, %s)", [name, metric])

    def record_outcome(
        self,
        name: str,
        unit: str,
        *,
        metric: str,
        value: float | str,
        at: datetime | str | None = None,
        denominator: float | None = None,
    ) -> None:
        """Record what came of a unit.

        Args:
            name: The experiment.
            unit: The unit, which was exposed before.
            metric: The metric.
            value: A number; or the truth that a prediction is compared with, which may be a class.
            at: When it came; by default now.
            denominator: Of a ratio.

        Raises:
            NotFoundError: There is no such experiment or metric.
            ExperimentError: The unit was never exposed, or the value is none of the metric's.
        """
        parameters = {
            "experiment": name,
            "unit": unit,
            "metric": metric,
            # a truth as PostgreSQL writes it; a number by its shortest text is the same number again
            "value": str(int(value)) if isinstance(value, bool) else str(value),
            "at": at,
            "denominator": denominator,
        }
        self._call(_RECORD, parameters)

    def collect(self, name: str) -> int:
        """Run the queries of an experiment's metrics, with the rights of the role; their rows replace the outcomes.

        Returns:
            How many outcomes there are now.

        Raises:
            NotFoundError: There is no such experiment.
            PrivilegeError: The role does not own the schema, or may not read what a query reads.
        """
        with self._begun() as connection:
            return int(scalar(connection, "select dbscore.collect_outcomes(%s)", [name]))

    def refresh(self, name: str | None = None) -> None:
        """Add what was recorded since the last time to the sums by day, of one experiment or of all: views get faster.

        Raises:
            NotFoundError: There is no such experiment.
        """
        if name is None:
            self._call("select dbscore.refresh_experiments()", [])
        else:
            self._call("select dbscore.refresh_experiment(%s)", [name])

    def summary(self, name: str) -> Sequence[MetricSummary]:
        """Return what came of the units, by metric, period and variant; without quantiles and `auc`.

        Raises:
            NotFoundError: There is none of that name that the role may use.
        """
        with self._begun() as connection:
            return lookup.summary(connection, name)

    def results(self, name: str) -> Sequence[MetricResult]:
        """Return each variant beside the control, by metric; without quantiles and `auc`.

        Raises:
            NotFoundError: There is none of that name that the role may use.
        """
        with self._begun() as connection:
            return lookup.results(connection, name)
