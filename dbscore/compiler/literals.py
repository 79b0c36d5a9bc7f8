"""Constants, features and types as PostgreSQL writes them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from dbscore.compiler.expression import ARRAY, INTEGERS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NAMES", "SYMBOLS", "TYPES", "array_literal", "literal", "placeholder", "with_features"]

TYPES = {
    "float64": "double precision",
    "float32": "real",
    "int64": "bigint",
    "int32": "integer",
    "bool": "boolean",
    ARRAY: "double precision[]",
    # the only one of them that is no key word, and so could be somebody else's
    "string": "pg_catalog.text",
}
# how PostgreSQL's functions name the types, and the comparisons
NAMES = {"float64": "float8", "float32": "float4", "int64": "int8", "int32": "int4", "bool": "bool", "string": "text"}
SYMBOLS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "<>"}
_MARK = "\x01"


def placeholder(index: int) -> str:
    """Return what stands for a feature in an expression's text."""
    return f"{_MARK}{index}{_MARK}"


def with_features(text: str, values: Sequence[str]) -> str:
    """Return an expression's text with the features' values in it."""
    return re.sub(f"{_MARK}([0-9]+){_MARK}", lambda found: values[int(found[1])], text)


def literal(value: Any, dtype: str | None) -> str:  # noqa: ANN401 - a number, a bool or a text
    """Return a constant; without a dtype, of the type that its place has."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return f"null::{TYPES[dtype or 'float64']}"
    if isinstance(value, tuple):
        numbers = ", ".join(_number(float(v), None) for v in value)
        return f"'{{{numbers}}}'::double precision[]"
    if dtype == "bool":
        return "true" if value else "false"
    if dtype == "string" or isinstance(value, str):
        quoted = "'" + str(value).replace("'", "''") + "'"
        # a backslash is one, whatever standard_conforming_strings says
        quoted = " E" + quoted.replace("\\", "\\\\") if "\\" in quoted else quoted
        return quoted if dtype is None else f"{quoted}::{TYPES['string']}"
    if dtype in INTEGERS or (dtype is None and isinstance(value, int)):
        return str(int(value)) if dtype is None else f"({int(value)}){'' if dtype == 'int32' else '::bigint'}"
    number = _number(float(value), dtype)
    return f"'{number}'" if dtype is None else f"{TYPES[dtype]} '{number}'"


def array_literal(values: Sequence[Any], dtype: str) -> str:
    """Return a constant array of numbers or truths."""

    def text(value: Any) -> str:  # noqa: ANN401 - a number or a bool
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "null"
        if dtype in INTEGERS:
            return str(int(value))
        if dtype == "bool":
            return "t" if value else "f"
        return _number(float(value), dtype)

    return f"'{{{','.join(map(text, values))}}}'::{TYPES[dtype]}[]"


def _number(value: float, dtype: str | None) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if dtype == "float32":
        import numpy as np

        return str(np.float32(value))
    return repr(value)
