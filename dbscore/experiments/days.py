"""Units and sums of an experiment by the day of the assignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import class_row

from dbscore.database import run

if TYPE_CHECKING:
    from datetime import date

    from sqlalchemy import Connection

__all__ = ["Daily", "read", "statement"]

_DAILY = """select metric, variant, allocation, day, assigned, units, total, squares,
       denominator_total, denominator_squares, products
from dbscore.experiment_daily
where experiment = {experiment} and variant <> 'holdout'
order by metric, day, allocation, variant"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """A row of `dbscore.experiment_daily`: what came of the units that were assigned on a day.

    Attributes:
        metric: The metric's name; None where the experiment has none.
        variant: The variant's.
        allocation: The number of the period of weights.
        day: In UTC.
        assigned: Units assigned on that day; in shadow mode all are the control's.
        units: Those of them with an outcome that counts.
        total: The sum of their values.
        squares: The sum of the squares.
        denominator_total: Of a ratio.
        denominator_squares: The sum of the squares.
        products: The sum of value times denominator.
    """

    metric: str | None
    variant: str
    allocation: int
    day: date
    assigned: int
    units: int
    total: float
    squares: float
    denominator_total: float
    denominator_squares: float
    products: float


def statement(experiment: str) -> str:
    """Return the query of an experiment's days."""
    return sql.SQL(_DAILY).format(experiment=sql.Literal(experiment)).as_string()


def read(connection: Connection, experiment: str) -> tuple[Daily, ...]:
    """Return what came of the units of each day, oldest first within a metric."""
    cursor = run(connection, statement(experiment))
    make = class_row(Daily)(cursor)
    return tuple(make(row) for row in cursor)
