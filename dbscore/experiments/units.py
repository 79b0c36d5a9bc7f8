"""What the analysis reads of an experiment beyond its views: values by unit, counts of units, covariates."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from dbscore.database import run, scalar
from dbscore.errors import ExperimentError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

__all__ = [
    "Assigned",
    "Sample",
    "UnitCounts",
    "ask",
    "assigned",
    "covariate",
    "coverage",
    "exposures",
    "require_membership",
    "sample",
    "unit_counts",
]

_VALUES = """
select u.unit, u.variant, u.allocation, u.value, u.denominator, u.predicted, u.is_right,
       (u.assigned_at at time zone 'UTC')::pg_catalog.date
from dbscore.unit_values(%(experiment)s, %(metric)s) u
order by u.unit, u.variant
"""
_ASSIGNED = """
select a.unit, a.variant, l.number
from dbscore.assignment a
join dbscore.experiment e using (experiment_id)
join dbscore.allocation l using (allocation_id)
where e.name = %(experiment)s and a.variant > 0 and a.left_out_xact is null
"""
_EXPOSURES = """
select l.number, v.number, coalesce(sum(s.units), 0)::bigint
from dbscore.experiment e
join dbscore.allocation l using (experiment_id)
join dbscore.variant v using (experiment_id)
left join lateral (
    -- `offset 0` keeps the condition within, so that no other experiment is added up
    select x.* from dbscore.exposure_sums x where x.experiment_id = e.experiment_id offset 0
) s on s.allocation_id = l.allocation_id and s.variant = v.number
where e.name = %(experiment)s
group by l.number, v.number
order by l.number, v.number
"""
_COUNTS = """
select count(*) filter (where a.left_out_xact is null and a.variant > 0),
       count(*) filter (where a.forced_by is not null),
       count(*) filter (where a.left_out_xact is not null and a.forced_by is null),
       count(*) filter (where a.left_out_xact is null and a.variant = 0)
from dbscore.assignment a
join dbscore.experiment e using (experiment_id)
where e.name = %(experiment)s
"""
# in shadow mode all versions predict for each unit, whatever variant it has
_COVERAGE = """
with e as (select x.* from dbscore.experiment x where x.name = %(experiment)s),
units as (
    select m.metric_id, case e.mode when 'ab' then a.variant end as variant, count(*) as units,
           case when m."window" is not null
               then count(*) filter (where a.assigned_at + m."window" <= pg_catalog.now()) end as mature
    from e join dbscore.metric m using (experiment_id) join dbscore.assignment a using (experiment_id)
    where a.variant > 0 and a.left_out_xact is null
    group by m.metric_id, m."window", case e.mode when 'ab' then a.variant end
), outcomes as (
    select m.metric_id, s.variant, sum(s.units)::bigint as units
    from e join dbscore.metric m using (experiment_id)
    cross join lateral (select x.* from dbscore.metric_sums x where x.metric_id = m.metric_id offset 0) s
    group by m.metric_id, s.variant
)
select m.name, v.name, coalesce(u.units, 0), coalesce(o.units, 0),
       case when m."window" is not null then coalesce(u.mature, 0) end
from e join dbscore.metric m using (experiment_id) join dbscore.variant v using (experiment_id)
left join units u on u.metric_id = m.metric_id and (u.variant is null or u.variant = v.number)
left join outcomes o on o.metric_id = m.metric_id and o.variant = v.number
order by m.metric_id, v.number
"""
_ARRAYS = ("variants", "allocations", "values", "denominators", "predicted", "is_right", "days")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """What came of units, by one metric; all arrays have the shape (n_rows,).

    Attributes:
        units: What tells them apart; in shadow mode each is there once for each variant.
        variants: Numbers from 1, int64.
        allocations: Numbers of periods from 1, int64.
        values: float64: 0 without an outcome, where that means 0; of auc the truth, 0 or 1.
        denominators: float64, of a ratio; else 0.
        predicted: float64: what the truth was compared with; NaN of other metrics.
        is_right: In shadow mode, of classifiers, whether the class was the truth: 1, 0 or NaN; float64.
        days: On which the units were assigned, in UTC; datetime64[D].
    """

    units: list[str]
    variants: npt.NDArray[np.int64]
    allocations: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    denominators: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    is_right: npt.NDArray[np.float64]
    days: npt.NDArray[np.datetime64]

    def only(self, rows: npt.NDArray[np.bool_]) -> Sample:
        """Return those rows, bool, shape (n_rows,)."""
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return Sample(units=list(itertools.compress(self.units, rows)), **arrays)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assigned:
    """The units that count; the arrays have the shape (n_units,).

    Attributes:
        units: What tells them apart.
        variants: Numbers from 1, int64.
        allocations: Numbers of periods from 1, int64.
    """

    units: list[str]
    variants: npt.NDArray[np.int64]
    allocations: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCounts:
    """How many units count, and how many do not.

    Attributes:
        counted: Those that do.
        forced: Testers' units.
        seen_in_two_variants: Those that an application has shown two.
        held_out: Those that are compared with nothing.
    """

    counted: int
    forced: int
    seen_in_two_variants: int
    held_out: int


def require_membership(connection: Connection, what: str) -> None:
    """Refuse a role that may not read unit by unit.

    Args:
        connection: As the role.
        what: What it wanted.

    Raises:
        PrivilegeError: It is no member of the owner of the schema dbscore.
    """
    owner = scalar(
        connection,
        "select n.nspowner::pg_catalog.regrole::text from pg_catalog.pg_namespace n"
        " where n.nspname = 'dbscore' and not pg_catalog.pg_has_role(n.nspowner, 'usage')",
    )
    if owner is not None:
        raise PrivilegeError(
            f"{what} reads units one by one, and the role is no member of the owner of the schema dbscore",
            remedy=f"Ask for: grant {owner} to your role. `dbscore experiment results` needs no more than "
            "`dbscore experiment grant`.",
        )


def sample(connection: Connection, experiment: str, metric: str) -> Sample:
    """Return what came of the units that count.

    Raises:
        NotFoundError: There is no such experiment or metric.
    """
    rows = run(connection, _VALUES, {"experiment": experiment, "metric": metric}).fetchall()
    units, variants, allocations, values, denominators, predicted, is_right, days = (
        zip(*rows, strict=True) if rows else ((),) * 8
    )
    return Sample(
        units=list(units),
        variants=np.array(variants, dtype=np.int64),
        allocations=np.array(allocations, dtype=np.int64),
        values=np.array(values, dtype=np.float64),
        denominators=np.array(denominators, dtype=np.float64),
        predicted=np.array(predicted, dtype=np.float64),
        is_right=np.array(is_right, dtype=np.float64),
        days=np.array(days, dtype="datetime64[D]"),
    )


def assigned(connection: Connection, experiment: str) -> Assigned:
    """Return the units that count, with their variants and periods."""
    rows = run(connection, _ASSIGNED, {"experiment": experiment}).fetchall()
    names, variants, allocations = zip(*rows, strict=True) if rows else ((),) * 3
    return Assigned(
        units=list(names),
        variants=np.array(variants, dtype=np.int64),
        allocations=np.array(allocations, dtype=np.int64),
    )


def exposures(connection: Connection, experiment: str) -> dict[int, list[int]]:
    """Return how many units each variant got in each period: by the period's number, in the order of the variants."""
    found: dict[int, list[int]] = defaultdict(list)
    for period, _, units in run(connection, _EXPOSURES, {"experiment": experiment}):
        found[period].append(units)
    return found


def unit_counts(connection: Connection, experiment: str) -> UnitCounts:
    """Return how many units count, and how many do not."""
    row = run(connection, _COUNTS, {"experiment": experiment}).fetchall()[0]
    return UnitCounts(counted=row[0], forced=row[1], seen_in_two_variants=row[2], held_out=row[3])


def coverage(connection: Connection, experiment: str) -> list[tuple[str, str, int, int, int | None]]:
    """Return by metric and variant: units, those with an outcome, and those whose window has passed."""
    return [tuple(row) for row in run(connection, _COVERAGE, {"experiment": experiment})]


def ask(connection: Connection, query: str, column: str, *, what: str) -> Iterator[tuple[str | None, Any]]:
    """Run a user's query of units, with the rights of the role.

    Args:
        connection: As the role.
        query: A SELECT; its column unit is read as a text.
        column: The expression that is read beside it.
        what: What the query is for, as an error has it.

    Raises:
        PrivilegeError: The role may not read what the query reads.
        ExperimentError: The query is refused otherwise.
    """
    text = query.rstrip("; \n\t\r")
    asked = sql.SQL("select (unit)::pg_catalog.text, {} from ({}\n) as asked").format(sql.SQL(column), sql.SQL(text))
    try:
        yield from run(connection, asked)
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise
        name = column.partition(")")[0].lstrip("(")
        raise ExperimentError(
            f"the query of the {what} is refused: {error.diag.message_primary}",
            remedy=f"It is a SELECT with the columns unit and {name}: {text!r}.",
        ) from error


def covariate(connection: Connection, query: str, units: Sequence[str]) -> npt.NDArray[np.float64]:
    """Run a metric's covariate query, with the rights of the role, and return it by unit.

    Args:
        connection: As the role.
        query: Of unit, value; a unit that is there several times gets the sum, NULL and what is not finite count as 0.
        units: Whose values are wanted.

    Returns:
        float64, shape (n_units,), in their order; 0 for a unit that the query does not have.

    Raises:
        PrivilegeError: The role may not read what the query reads.
        ExperimentError: The query is refused otherwise.
    """
    found: dict[Any, float] = defaultdict(float)
    for unit, value in ask(connection, query, "(value)::pg_catalog.float8", what="covariate"):
        if value is not None and np.isfinite(value):
            found[unit] += value
    return np.array([found.get(unit, 0.0) for unit in units], dtype=np.float64)
