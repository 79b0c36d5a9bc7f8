"""The last part of the parity gate: what the functions in the database answer, beside the native model's answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dbscore.database import run
from dbscore.functions import ENGINE_SCHEMA, MAX_ARGUMENTS
from dbscore.signature import SqlType

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dbscore.convert.conversion import Checks, Tolerance
    from dbscore.functions import FunctionSet
    from dbscore.signature import Signature

__all__ = ["verify"]


def verify(connection: Connection, functions: FunctionSet, checks: Checks, tolerance: Tolerance) -> list[str]:
    """Score the rows through the version's functions; return what differs, a sentence a row."""
    wrong = []
    suffixes = [suffix for suffix, _ in functions.results() if suffix != "_score"]
    wide = len(functions.signature.features) > MAX_ARGUMENTS
    statement = (_wide if wide else _named)(functions, suffixes)
    for index, row in enumerate(checks.rows):
        answer = run(connection, statement, _packed(functions.signature, row) if wide else row).fetchone()
        expected: tuple[Any, ...] = (checks.predictions[index],)
        if checks.probabilities is not None and "_proba" in suffixes:
            expected += (checks.probabilities[index],)
        if answer is None or not all(_equal(a, e, tolerance) for a, e in zip(answer, expected, strict=False)):
            wrong.append(f"row {row!r}: native {expected!r}, in the database {answer!r}")
    return wrong


def _named(functions: FunctionSet, suffixes: list[str]) -> sql.Composed:
    """Return a statement that calls the functions as analysts do, every value named once."""
    names = sql.SQL(", ").join(sql.Identifier(f.name) for f in functions.signature.features)
    calls = [sql.SQL("{}({})").format(sql.Identifier(functions.schema, functions.name + s), names) for s in suffixes]
    values = sql.SQL(", ").join(
        sql.SQL("%s::{} as {}").format(sql.SQL(f.type), sql.Identifier(f.name)) for f in functions.signature.features
    )
    return sql.SQL("select {} from (select {}) as row").format(sql.SQL(", ").join(calls), values)


def _wide(functions: FunctionSet, suffixes: list[str]) -> sql.Composed:
    """Return a statement for more features than a function has arguments: numbers and texts are arrays."""
    has_text = any(f.type is SqlType.TEXT for f in functions.signature.features)
    arrays = sql.SQL("numbers, texts" if has_text else "numbers")
    calls = [
        sql.SQL("{}({}(), {})").format(
            sql.Identifier(ENGINE_SCHEMA, functions.name + suffix),
            sql.Identifier(ENGINE_SCHEMA, functions.name + "_pin"),
            arrays,
        )
        for suffix in suffixes
    ]
    values = sql.SQL("%s::double precision[] as numbers, %s::text[] as texts")
    return sql.SQL("select {} from (select {}) as row").format(sql.SQL(", ").join(calls), values)


def _packed(signature: Signature, row: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    numbers: list[Any] = []
    texts: list[Any] = []
    for feature, value in zip(signature.features, row, strict=True):
        if feature.type is SqlType.TEXT:
            texts.append(value)
        elif feature.type.is_array:
            numbers += [None] * feature.width if value is None else list(value)
        else:
            numbers.append(value if value is None else float(value))
    return numbers, texts


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
