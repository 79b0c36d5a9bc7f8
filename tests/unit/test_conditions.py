"""What a WHERE clause says of features."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dbscore.compiler.conditions import Column, read_conditions
from dbscore.compiler.substitution import Known
from dbscore.signature import Feature, NullPolicy, SqlType


def column(kind: SqlType, of: str | None = None, *, index: int = 0, nulls: str = "null", exact: bool = True) -> Column:
    feature = Feature(name="f", source="f", type=kind, null_policy=NullPolicy(nulls), tensor="t")
    return Column(index=index, feature=feature, type=of or kind, is_exact=exact)


def said(where: str, one: Column) -> Known | None:
    return read_conditions(where, {"x": one}).known.get(0)


DOUBLE, REAL, INTEGER = column(SqlType.DOUBLE), column(SqlType.REAL), column(SqlType.INTEGER)
TEXT, BOOLEAN = column(SqlType.TEXT), column(SqlType.BOOLEAN)


@pytest.mark.parametrize(
    ("where", "low", "high"),
    [
        ("x < 5", -math.inf, 4),
        ("x <= 5", -math.inf, 5),
        ("x > 5", 6, math.inf),
        ("x >= 5", 5, math.inf),
        ("5 > x", -math.inf, 4),
        ("5.5 < x", 6, math.inf),
        ("x >= -5.5", -5, math.inf),
        ("x between -2 and 3", -2, 3),
        ("(x > 1) and ((x < 9))", 2, 8),
    ],
)
def test_an_integer_s_bounds_are_the_integers_within(where: str, low: float, high: float) -> None:
    known = said(where, INTEGER)
    assert known is not None
    assert (known.low, known.high, known.is_present) == (low, high, True)


def test_an_open_bound_of_a_double_is_the_next_number() -> None:
    below, above = said("x < 2.5", DOUBLE), said("x > 2.5", DOUBLE)
    assert below is not None
    assert above is not None
    assert below.high == 2.4999999999999996
    assert above.low == 2.5000000000000004


def test_a_bound_of_a_real_is_a_real_within() -> None:
    # the nearest real to 0.1 is more than 0.1
    below, above = said("x < 0.1", REAL), said("x > 0.1", REAL)
    assert below is not None
    assert above is not None
    assert below.high == float(np.nextafter(np.float32(0.1), np.float32(0)))
    assert above.low == float(np.float32(0.1))


def test_a_bound_of_a_numeric_column_is_rounded_as_its_values_are() -> None:
    # 2.49999999999999999999 is less than 2.5, and 2.5 as a double
    known = said("x < 2.5", column(SqlType.DOUBLE, "numeric"))
    assert known is not None
    assert known.high == 2.5


def test_a_lower_bound_alone_leaves_nan() -> None:
    known, both = said("x > 1", DOUBLE), said("x > 1 and x < 2", DOUBLE)
    assert known is not None
    assert both is not None
    assert not known.is_present
    assert both.is_present


@pytest.mark.parametrize("where", ["x = 'a'", "'a' = x", "x = 'a'::text", "x in ('a')", "(x) = ('a')", "t.x = 'a'"])
def test_an_equal_text_is_the_only_value(where: str) -> None:
    known = said(where, TEXT)
    assert known is not None
    assert known.values == {"a"}


@pytest.mark.parametrize(("where", "value"), [("x", True), ("not x", False), ("x = true", True), ("x is false", False)])
def test_a_boolean_is_known_by_itself(where: str, value: bool) -> None:  # noqa: FBT001
    known = said(where, BOOLEAN)
    assert known is not None
    assert known.values == {value}


@pytest.mark.parametrize(
    ("where", "one"),
    [
        ("x = 0.1", REAL),
        ("x = 2.5", INTEGER),
        ("x = '5'", INTEGER),
        ("x <> 5", INTEGER),
        ("not (x = 5)", INTEGER),
        ("x not in (5)", INTEGER),
        ("x between symmetric 5 and 2", INTEGER),
        ("x = 5 or x = 6", INTEGER),
        ("x + 1 = 5", INTEGER),
        ("abs(x) = 5", INTEGER),
        ("x in (select 5)", INTEGER),
        ("x = null", INTEGER),
        ("x is null", INTEGER),
        ("x is not null", DOUBLE),
        ("other.x = 5", INTEGER),
        ('"X" = 5', INTEGER),
        (r"x = 'a\b'", TEXT),
        (r"x = E'a'", TEXT),
        ("x = 'a' collate \"C\"", TEXT),
        ("x = 'a'", column(SqlType.TEXT, "character")),
        ("x = 'a'", column(SqlType.TEXT, exact=False)),
        ("x < 'a'", TEXT),
        ("x like 'a'", TEXT),
    ],
)
def test_what_is_not_certain_says_nothing(where: str, one: Column) -> None:
    found = read_conditions(where, {"x": one})
    assert found.known == {}
    assert len(found.kept) == 1


def test_null_is_a_missing_value_where_the_feature_may_be_missing() -> None:
    assert said("x is null", column(SqlType.DOUBLE, nulls="nan")) == Known(is_missing=True)


def test_a_quoted_column_is_that_of_its_own_case() -> None:
    found = read_conditions('"X y" = 5 and X = 6', {"X y": INTEGER, "x": column(SqlType.INTEGER, index=1)})
    assert {index: known.values for index, known in found.known.items()} == {0: {5}, 1: {6}}
