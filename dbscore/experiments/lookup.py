"""What the database has of experiments: read from the views that every role with a grant may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from sqlalchemy import Text, cast, select

from dbscore import tables
from dbscore.database import run, scalar
from dbscore.errors import NotFoundError, SchemaError
from dbscore.experiments.records import (
    Allocation,
    Experiment,
    ExperimentEvent,
    Metric,
    MetricResult,
    MetricSummary,
    Variant,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

__all__ = ["experiment", "experiments", "history", "require_experiments", "results", "summary"]

_EXPERIMENTS = """
select e.experiment as name, e.description, e.mode, e.status, e.unit, e.scheme, e.salt, e.layer, e.layer_from,
       e.layer_to, e.eligible, e.holdout, e.variants, e.features, e.records_features as record_features, e.winner,
       e.created_by, e.created_at, e.started_at, e.concluded_at, e.experiment_id
from dbscore.experiments e
where %(name)s::text is null or e.experiment = %(name)s::text
order by e.experiment_id
"""
_SUMMARY = """
select s.metric, s.kind, s.variant, s.allocation, s.n, s.sum, s.sum_of_squares, s.mean, s.variance,
       s.denominator_sum, s.denominator_sum_of_squares, s.sum_of_products
from dbscore.experiment_summary s
where s.experiment = %(name)s::text
order by s.metric, s.allocation, s.variant
"""
_RESULTS = """
select r.metric, r.kind, r.direction, r.role, r.variant, r.control_n, r.n, r.control_mean, r.mean, r.difference,
       r.lift, r.standard_error, r.lower, r.upper, r.z, r.p, r.allocations, r.sample_ratio_chi_square,
       r.sample_ratio_p, r.sample_ratio_suspicious
from dbscore.experiment_results r
where r.experiment = %(name)s::text
order by r.metric, r.variant
"""


def require_experiments(connection: Connection) -> None:
    """Refuse a database whose dbscore has no experiments.

    Raises:
        SchemaError: It has none.
        PrivilegeError: The role may not look.
    """
    if scalar(connection, "select pg_catalog.to_regclass('dbscore.experiments')") is None:
        raise SchemaError("dbscore has no experiments in this database", remedy="Run `dbscore install`.")


def experiments(connection: Connection, name: str | None = None) -> list[Experiment]:
    """Return the experiments that the role may use, oldest first; with a name, that one or none."""
    rows = _rows(connection, _EXPERIMENTS, name)
    if not scalar(connection, "select pg_catalog.has_table_privilege('dbscore.allocation', 'select')"):
        return [_experiment(row, None, None) for row in rows]
    return [_experiment(row, _allocations(connection, row), _metrics(connection, row)) for row in rows]


def experiment(connection: Connection, name: str) -> Experiment:
    """Return one experiment.

    Raises:
        NotFoundError: There is none of that name that the role may use.
    """
    found = experiments(connection, name)
    if not found:
        known = ", ".join(row["name"] for row in _rows(connection, _EXPERIMENTS, None))
        raise NotFoundError(
            f"there is no experiment {name!r}",
            remedy=f"Experiments: {known}." if known else "There is none that you may use: see `dbscore experiment`.",
        )
    return found[0]


def summary(connection: Connection, name: str) -> list[MetricSummary]:
    """Return what came of the units, by metric, period and variant; without quantiles and areas under curves.

    Raises:
        NotFoundError: There is no such experiment.
    """
    experiment(connection, name)
    return [MetricSummary(**row) for row in _rows(connection, _SUMMARY, name)]


def results(connection: Connection, name: str) -> list[MetricResult]:
    """Return each variant beside the control, by metric; without quantiles and areas under curves.

    Raises:
        NotFoundError: There is no such experiment.
    """
    experiment(connection, name)
    return [MetricResult(**row) for row in _rows(connection, _RESULTS, name)]


def history(connection: Connection, name: str) -> list[ExperimentEvent]:
    """Return what was done to an experiment, oldest first; also to one that was dropped.

    Raises:
        NotFoundError: There never was such an experiment.
        PrivilegeError: The role does not own the schema.
    """
    h = tables.experiment_history
    query = select(h).where(h.c.experiment == name).order_by(h.c.experiment_history_id)
    events = [
        ExperimentEvent(
            experiment=r.experiment,
            action=r.action,
            detail=r.detail,
            reason=r.reason,
            done_by=r.done_by,
            done_at=r.done_at,
        )
        for r in connection.execute(query)
    ]
    if not events:
        experiment(connection, name)
    return events


def _rows(connection: Connection, query: str, name: str | None) -> list[dict[str, Any]]:
    cursor = run(connection, query, {"name": name})
    make = dict_row(cursor)
    return [make(row) for row in cursor]


def _experiment(
    row: Mapping[str, Any], allocations: tuple[Allocation, ...] | None, metrics: tuple[Metric, ...] | None
) -> Experiment:
    values = {key: value for key, value in row.items() if key != "experiment_id"}
    values["variants"] = tuple(
        Variant(name=v["name"], reference=v["version"], weight=float(v["weight"])) for v in row["variants"]
    )
    values["features"] = tuple(feature["name"] for feature in row["features"])
    return Experiment(**values, allocations=allocations, metrics=metrics)


def _allocations(connection: Connection, row: Mapping[str, Any]) -> tuple[Allocation, ...]:
    a = tables.allocation
    names = [variant["name"] for variant in row["variants"]]
    query = select(a).where(a.c.experiment_id == row["experiment_id"]).order_by(a.c.number)
    return tuple(
        Allocation(
            number=r.number,
            weights={name: weight / 100 for name, weight in zip(names, r.weights, strict=True)},
            boundaries=tuple(r.boundaries),
            valid_from=r.valid_from,
            valid_to=r.valid_to,
            reason=r.reason,
            created_by=r.created_by,
        )
        for r in connection.execute(query)
    )


def _metrics(connection: Connection, row: Mapping[str, Any]) -> tuple[Metric, ...]:
    m = tables.metric
    # a month is no number of days, and an interval may be infinite: as text
    columns = [cast(c, Text).label(c.name) if c is m.c.window else c for c in m.c]
    query = select(*columns).where(m.c.experiment_id == row["experiment_id"]).order_by(m.c.metric_id)
    return tuple(
        Metric(
            name=r.name,
            kind=r.kind,
            direction=r.direction,
            role=r.role,
            margin=r.margin,
            window=r.window,
            quantile=r.quantile,
            source=r.source,
            covariate=r.covariate,
            created_by=r.created_by,
            created_at=r.created_at,
        )
        for r in connection.execute(query)
    )
