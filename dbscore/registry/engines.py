"""Choosing what computes a version: both engines are measured in the database, and the faster one is taken."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dbscore.database import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from dbscore.convert.conversion import Checks
    from dbscore.functions import FunctionSet

__all__ = ["Choice", "choose", "measured", "unmeasured"]

# a measurement is as long as this, or longer; there are several, and the least of them counts
SECONDS = 0.03
ROUNDS = 3
MOST_ROWS = 20_000
# how many splits of trees SQL decides as quickly as ONNX Runtime, where nothing can be measured
FEW_SPLITS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What computes a version.

    Attributes:
        rows: The engine of single rows, `onnx` or `sql`.
        batches: The engine of the rows of a query or a table.
        reason: Why, in a sentence.
        microseconds: What a row costs, by engine, one at a time and in a batch; empty where it was not measured.
        refused: Why the version is not compiled; None where it is.
    """

    rows: str
    batches: str
    reason: str
    microseconds: dict[str, dict[str, float]]
    refused: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        return {"reason": self.reason, "microseconds": self.microseconds, "refused": self.refused}


def unmeasured(engine: str, reason: str, *, refused: str | None = None) -> Choice:
    """Return a choice that needs no measurement."""
    return Choice(rows=engine, batches=engine, reason=reason, microseconds={}, refused=refused)


def choose(microseconds: dict[str, dict[str, float]]) -> Choice:
    """Return the faster engine of each kind.

    Args:
        microseconds: What a row costs, by engine, `row` and `batch`.
    """
    fastest = {kind: min(microseconds, key=lambda engine: microseconds[engine][kind]) for kind in ("row", "batch")}
    said = ", ".join(
        f"{kind}: " + " against ".join(f"{engine} {cost[kind]:.2f} us" for engine, cost in microseconds.items())
        for kind in ("row", "batch")
    )
    return Choice(
        rows=fastest["row"],
        batches=fastest["batch"],
        reason=f"the faster in this database for each: {said}",
        microseconds=microseconds,
    )


def measured(connection: Connection, functions: FunctionSet, checks: Checks) -> dict[str, float]:
    """Return what a row costs with the functions as they are now, one at a time and in a batch, in microseconds.

    The results are those of all functions that there are; what reading the rows costs is taken off.
    """
    _sample(connection, functions, checks)
    names = sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(f.name)) for f in functions.signature.features)
    suffixes = [suffix for suffix, _ in functions.results() if suffix != "_score"]
    calls = sql.SQL(", ").join(
        sql.SQL("count({}({}))").format(sql.Identifier(functions.schema, functions.name + suffix), names)
        for suffix in suffixes
    )
    batches = sql.Identifier(functions.schema, functions.name + "_batch")

    def few(count: int) -> sql.Composed:
        return sql.SQL("select * from pg_temp.dbscore_sample where dbscore_row <= {}").format(sql.Literal(count))

    def rows(count: int) -> sql.Composed:
        return sql.SQL("select {} from ({}) as s").format(calls, few(count))

    def scan(count: int) -> sql.Composed:
        return sql.SQL("select count(s.dbscore_row) from ({}) as s").format(few(count))

    def batch(count: int) -> sql.Composed:
        query = sql.Literal(few(count).as_string())
        return sql.SQL("select count(prediction) from {}({}, 'dbscore_row')").format(batches, query)

    return {"row": _cost(connection, rows, scan), "batch": _cost(connection, batch, scan)}


def _sample(connection: Connection, functions: FunctionSet, checks: Checks) -> None:
    """Make a table of the checked rows, again and again, in this transaction."""
    if run(connection, "select to_regclass('pg_temp.dbscore_sample')").fetchone() != (None,):
        return
    features = functions.signature.features
    columns = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(f.type)) for f in features)
    run(connection, sql.SQL("create temporary table dbscore_checked ({}) on commit drop").format(columns))
    insert = sql.SQL("insert into pg_temp.dbscore_checked values ({})").format(
        sql.SQL(", ").join(sql.SQL("%s") for _ in features)
    )
    for row in checks.rows:
        run(connection, insert, row)
    many = sql.Literal(MOST_ROWS // max(len(checks.rows), 1) + 1)
    run(
        connection,
        sql.SQL(
            "create temporary table dbscore_sample on commit drop as"
            " select row_number() over () as dbscore_row, c.* from pg_temp.dbscore_checked c, generate_series(1, {})"
        ).format(many),
    )
    run(connection, "analyze pg_temp.dbscore_sample")


def _cost(
    connection: Connection, statement: Callable[[int], sql.Composed], scan: Callable[[int], sql.Composed]
) -> float:
    """Return what a row costs more than reading it."""
    # the first call loads the model, or makes the plan
    _seconds(connection, statement(1))
    count, took = 64, 0.0
    while True:
        took = _seconds(connection, statement(count))
        if took >= SECONDS or count >= MOST_ROWS:
            break
        count = min(MOST_ROWS, max(2 * count, int(count * 1.2 * SECONDS / max(took, 1e-6))))
    times = [min(took, *(_seconds(connection, statement(count)) for _ in range(ROUNDS - 1)))]
    reading = statistics.median(_seconds(connection, scan(count)) for _ in range(ROUNDS))
    return max(min(times) - reading, 0.0) / count * 1e6


def _seconds(connection: Connection, statement: sql.Composed) -> float:
    begin = time.perf_counter()
    run(connection, statement).fetchall()
    return time.perf_counter() - begin
