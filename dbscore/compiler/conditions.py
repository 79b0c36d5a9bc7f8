"""What a WHERE clause says of a model's features: values, bounds, NULL or not.

The clause is read by sqlglot, in PostgreSQL's dialect. What it says is taken from the parts that `and` joins, each a
comparison of a column with constants; any other part holds for the rows too, and says nothing that is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.compiler.substitution import Known
from dbscore.errors import DbscoreError, FeatureError
from dbscore.signature import NullPolicy, SqlType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlglot import exp

    from dbscore.signature import Feature

__all__ = ["Column", "Conditions", "read_conditions"]

_INTEGERS = (SqlType.SMALLINT, SqlType.INTEGER, SqlType.BIGINT)
_NUMBERS = (*_INTEGERS, SqlType.REAL, SqlType.DOUBLE)
_NUMERIC_COLUMNS = (*_NUMBERS, "numeric")
_TEXT_COLUMNS = ("text", "character varying")
Constant = bool | str | Decimal
# how a comparison reads from its other side
_TURNED = {"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte", "eq": "eq"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the table that holds a feature.

    Attributes:
        index: The feature's number.
        feature: The feature.
        type: The column's type, as PostgreSQL spells it, without length.
        is_exact: Whether equal texts are the same: false of a nondeterministic collation.
    """

    index: int
    feature: Feature
    type: str
    is_exact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a WHERE clause says.

    Attributes:
        known: What is known of features, by number.
        used: The parts of the clause from which it is, as SQL.
        kept: The other parts, which only filter.
    """

    known: Mapping[int, Known]
    used: tuple[str, ...]
    kept: tuple[str, ...]


def read_conditions(clause: str, columns: Mapping[str, Column]) -> Conditions:
    """Return what a WHERE clause says of features.

    Args:
        clause: The condition, without the word WHERE; it is one expression.
        columns: The columns that hold features, by name.

    Raises:
        FeatureError: It is no condition, or no value of a feature fulfils it.
        DbscoreError: The package sqlglot is not installed.
    """
    try:
        import sqlglot
        from sqlglot import exp
    except ImportError as error:
        raise DbscoreError(
            "the package sqlglot, which reads conditions, is not installed",
            remedy="Install it: pip install 'dbscore[specialise]'.",
        ) from error
    try:
        whole = sqlglot.condition(clause, dialect="postgres")
    except sqlglot.errors.SqlglotError as error:
        raise FeatureError(
            f"{clause!r} is no condition: {str(error).splitlines()[0]}",
            remedy="Write what stands after WHERE in SQL: \"payment_type = 'CRD' and passenger_count > 1\".",
        ) from error
    known: dict[int, Known] = {}
    used, kept = [], []
    for part in _parts(whole, exp):
        text = part.sql(dialect="postgres", comments=False)
        found = _said(part, columns, exp)
        if found is None:
            kept.append(text)
            continue
        column, says = found
        used.append(text)
        known[column.index] = known.get(column.index, Known()) & says
        values, now = known[column.index].values, known[column.index]
        if values == frozenset() or now.low > now.high or (now.is_missing and now.is_present):
            raise FeatureError(f"no value of {column.feature.name} fulfils {clause!r}", remedy="Change the condition.")
    return Conditions(known=known, used=tuple(used), kept=tuple(kept))


def _parts(one: exp.Expr, exp: Any) -> list[exp.Expr]:  # noqa: ANN401 - the module
    """Return what `and` joins."""
    one = _bare(one, exp)
    if isinstance(one, exp.And):
        return [*_parts(one.left, exp), *_parts(one.right, exp)]
    return [one]


def _bare(one: Any, exp: Any) -> Any:  # noqa: ANN401
    """Return an expression without parentheses around it."""
    while isinstance(one, exp.Paren):
        one = one.this
    return one


def _said(part: exp.Expr, columns: Mapping[str, Column], exp: Any) -> tuple[Column, Known] | None:  # noqa: ANN401
    """Return which column a part speaks of, and what it says; None where that is not understood."""
    part = _bare(part, exp)
    is_negated = isinstance(part, exp.Not)
    inner = _bare(part.this, exp) if is_negated else part
    op, other = type(inner).__name__.lower(), _bare(inner.args.get("expression"), exp)
    subject = inner if isinstance(inner, exp.Column) else _bare(inner.args.get("this"), exp)
    if op in _TURNED and isinstance(other, exp.Column):
        op, subject, other = _TURNED[op], other, subject
    column = _column(subject, columns, exp)
    if column is None:
        return None
    if isinstance(inner, exp.Column):
        says = _truth(column, value=not is_negated)
    elif op == "is":
        says = _is(column, other, exp, is_negated=is_negated)
    else:
        says = None if is_negated else _compares(column, op, inner, other, exp)
    return None if says is None else (column, says)


def _compares(column: Column, op: str, inner: exp.Expr, other: Any, exp: Any) -> Known | None:  # noqa: ANN401
    """Return what a comparison with constants says."""
    if op == "in" and not (inner.args.get("query") or inner.args.get("unnest")):
        return _one_of(column, inner.args["expressions"], exp)
    if op == "between" and not inner.args.get("symmetric"):
        low = _compared(column, "gte", inner.args["low"], exp)
        high = _compared(column, "lte", inner.args["high"], exp)
        return low & high if low is not None and high is not None else None
    if op == "eq":
        return _one_of(column, [other], exp)
    return _compared(column, op, other, exp) if op in _TURNED else None


def _column(subject: Any, columns: Mapping[str, Column], exp: Any) -> Column | None:  # noqa: ANN401
    if not isinstance(subject, exp.Column) or subject.args.get("db") or subject.table not in ("", "t"):
        return None
    name = subject.this
    # PostgreSQL folds what is not quoted to lower case
    return columns.get(name.name if name.args.get("quoted") else name.name.lower())


def _constant(one: Any, exp: Any) -> Constant | None:  # noqa: ANN401
    """Return a constant; None where it is none that is understood."""
    one = _bare(one, exp)
    found: Constant | None = None
    if isinstance(one, exp.Neg):
        inner = _constant(one.this, exp)
        found = -inner if isinstance(inner, Decimal) else None
    elif isinstance(one, exp.Boolean):
        found = bool(one.this)
    elif isinstance(one, exp.Literal) and one.is_string:
        # what a backslash means depends on a setting
        found = None if "\\" in one.this else str(one.this)
    elif isinstance(one, exp.Literal):
        found = Decimal(one.this)
    elif isinstance(one, exp.Cast) and one.to.this in (exp.DataType.Type.TEXT, exp.DataType.Type.VARCHAR):
        inner = _constant(one.this, exp)
        found = inner if isinstance(inner, str) and not one.to.expressions else None
    return found


def _truth(column: Column, *, value: bool) -> Known | None:
    if column.feature.type is SqlType.BOOLEAN and column.type == "boolean":
        return Known(values=frozenset([value]), is_present=True)
    return None


def _is(column: Column, other: Any, exp: Any, *, is_negated: bool) -> Known | None:  # noqa: ANN401
    """Return what `is null`, `is not null`, `is true` and `is false` say."""
    if isinstance(other, exp.Boolean) and not is_negated:
        return _truth(column, value=bool(other.this))
    if not isinstance(other, exp.Null):
        return None
    if is_negated:
        # NaN is not NULL, and means a missing value too
        return Known(is_present=True) if not _has_nan(column) else None
    return Known(is_missing=True) if column.feature.null_policy is NullPolicy.NAN else None


def _has_nan(column: Column) -> bool:
    return column.type in (SqlType.REAL, SqlType.DOUBLE, "numeric") or column.feature.type.is_array


def _one_of(column: Column, constants: list[Any], exp: Any) -> Known | None:  # noqa: ANN401
    """Return what it says that a column equals one of some constants."""
    values = [_value(column, _constant(one, exp)) for one in constants]
    if any(value is None for value in values):
        return None
    if column.feature.type in (SqlType.TEXT, SqlType.BOOLEAN):
        return Known(values=frozenset(values), is_present=True)
    numbers = [v for v in values if v is not None and not isinstance(v, str)]
    return Known(values=frozenset(numbers), low=min(numbers), high=max(numbers), is_present=True)


def _value(column: Column, constant: Constant | None) -> bool | int | float | str | None:
    """Return the value that the feature has where its column equals a constant; None where that is not certain."""
    kind = column.feature.type
    if isinstance(constant, bool):
        return constant if kind is SqlType.BOOLEAN and column.type == "boolean" else None
    if isinstance(constant, str):
        return constant if kind is SqlType.TEXT and column.type in _TEXT_COLUMNS and column.is_exact else None
    if constant is None or kind not in _NUMBERS or column.type not in _NUMERIC_COLUMNS:
        return None
    number = float(constant)
    if column.type == SqlType.REAL and float(np.float32(number)) != number:
        # no real equals it
        return None
    if kind in _INTEGERS:
        whole = column.type in _INTEGERS and constant == constant.to_integral_value()
        return int(constant) if whole else None
    return float(np.float32(number)) if kind is SqlType.REAL else number


def _compared(column: Column, op: str, other: Any, exp: Any) -> Known | None:  # noqa: ANN401
    """Return what it says that a column is less or more than a constant, or equal to it."""
    constant, kind = _constant(other, exp), column.feature.type
    if not isinstance(constant, Decimal) or kind not in _NUMBERS or column.type not in _NUMERIC_COLUMNS:
        return None
    is_low = op in ("gt", "gte")
    if column.type in _INTEGERS:
        bound = math.ceil(constant) if is_low else math.floor(constant)
        if op in ("gt", "lt") and bound == constant:
            bound += 1 if is_low else -1
        # an integer that a float does not have is rounded
        limit = float(bound) if abs(bound) < 2**53 or kind not in _INTEGERS else bound + (-1025 if is_low else 1025)
    else:
        limit = _nearest(column, float(constant), is_low=is_low, is_open=op in ("gt", "lt"))
    # NaN is greater than every number
    present = not is_low or not _has_nan(column)
    return Known(low=limit, is_present=present) if is_low else Known(high=limit, is_present=present)


def _nearest(column: Column, bound: float, *, is_low: bool, is_open: bool) -> float:
    """Return the least, or the greatest, value of a feature beyond a bound of its column."""
    if column.feature.type is SqlType.REAL:
        rounded = float(np.float32(bound))
        if column.type != SqlType.REAL:
            return rounded
        beyond = rounded > bound if is_low else rounded < bound
        if beyond or (rounded == bound and not is_open):
            return rounded
        return float(np.nextafter(np.float32(rounded), np.float32(math.inf if is_low else -math.inf)))
    if is_open and column.type in (SqlType.DOUBLE, SqlType.REAL):
        return math.nextafter(bound, math.inf if is_low else -math.inf)
    return bound
