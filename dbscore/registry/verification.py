"""The last part of the parity gate: what the functions in the database answer, beside the native model's answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dbscore.database import run
from dbscore.functions import sql_call

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dbscore.convert.conversion import Checks, Tolerance
    from dbscore.functions import FunctionSet

__all__ = ["verify"]


def verify(connection: Connection, functions: FunctionSet, checks: Checks, tolerance: Tolerance) -> list[str]:
    """Score the rows through the functions that analysts call; return what differs, a sentence a row."""
    wrong = []
    suffixes = [suffix for suffix, _ in functions.results() if suffix != "_score"]
    columns = sql.SQL(", ").join(sql_call(functions, suffix) for suffix in suffixes)
    # every call takes the same values, so they are named once
    statement = sql.SQL("select {} from (select {}) as row").format(columns, _values(functions))
    for index, row in enumerate(checks.rows):
        answer = run(connection, statement, row).fetchone()
        expected: tuple[Any, ...] = (checks.predictions[index],)
        if checks.probabilities is not None and "_proba" in suffixes:
            expected += (checks.probabilities[index],)
        if answer is None or not all(_equal(a, e, tolerance) for a, e in zip(answer, expected, strict=False)):
            wrong.append(f"row {row!r}: native {expected!r}, in the database {answer!r}")
    return wrong


def _values(functions: FunctionSet) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("%s::{} as {}").format(sql.SQL(f.type), sql.Identifier(f.name)) for f in functions.signature.features
    )


def _equal(found: Any, expected: Any, tolerance: Tolerance) -> bool:  # noqa: ANN401 - any label, any number
    if isinstance(expected, list | tuple):
        return (
            found is not None
            and len(found) == len(expected)
            and all(_equal(f, e, tolerance) for f, e in zip(found, expected, strict=True))
        )
    if found is None or expected is None or isinstance(expected, str | bool) or not isinstance(expected, float):
        return bool(found == expected)
    if math.isnan(expected) or math.isnan(found):
        return math.isnan(expected) and math.isnan(found)
    return bool(found == expected or abs(found - expected) <= tolerance.absolute + tolerance.relative * abs(expected))
