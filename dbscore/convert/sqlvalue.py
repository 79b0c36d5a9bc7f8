"""A value of the sample as a column of a SQL type would hold it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dbscore.errors import FeatureError
from dbscore.signature import SqlType

__all__ = ["INTEGER_RANGES", "as_sql", "integer_type"]

INTEGER_RANGES = {
    SqlType.SMALLINT: (-(2**15), 2**15 - 1),
    SqlType.INTEGER: (-(2**31), 2**31 - 1),
    SqlType.BIGINT: (-(2**63), 2**63 - 1),
}
_ELEMENTS = {
    SqlType.REAL_ARRAY: SqlType.REAL,
    SqlType.DOUBLE_ARRAY: SqlType.DOUBLE,
    SqlType.BIGINT_ARRAY: SqlType.BIGINT,
    SqlType.BOOLEAN_ARRAY: SqlType.BOOLEAN,
    SqlType.TEXT_ARRAY: SqlType.TEXT,
}


def integer_type(dtype: np.dtype[Any]) -> SqlType:
    """Return the smallest SQL integer type that holds every value of a numpy integer dtype (bigint for uint64)."""
    bits = dtype.itemsize * 8 + (dtype.kind == "u")
    if bits <= 16:  # noqa: PLR2004 - bits of a smallint
        return SqlType.SMALLINT
    return SqlType.INTEGER if bits <= 32 else SqlType.BIGINT  # noqa: PLR2004 - bits of an integer


def as_sql(value: Any, type_: SqlType, name: str) -> Any:  # noqa: ANN401 - any SQL value
    """Return a value as a column of this type would give it back: `real` rounded to float32, NaN as None.

    Raises:
        FeatureError: The type cannot hold the value; `name` is the feature it names.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        if type_.is_array:
            return [as_sql(v, _ELEMENTS[type_], name) for v in value]
        return _scalar(value, type_)
    except (ValueError, TypeError, OverflowError) as error:
        raise FeatureError(
            f"{name} is {value!r} in the sample, which is no {type_}",
            remedy="Give the column another type, or pass the rows that the estimator was fitted on.",
        ) from error


def _scalar(value: Any, type_: SqlType) -> Any:  # noqa: ANN401 - any SQL value
    if type_ is SqlType.TEXT:
        if not isinstance(value, str):
            raise TypeError(value)
        return str(value)
    if isinstance(value, str):
        raise TypeError(value)
    if type_ is SqlType.DOUBLE:
        return float(value)
    if type_ is SqlType.REAL:
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    whole = int(value)
    if whole != value:
        raise ValueError(value)
    if type_ is SqlType.BOOLEAN:
        if whole not in (0, 1):
            raise ValueError(value)
        return bool(whole)
    low, high = INTEGER_RANGES[type_]
    if not low <= whole <= high:
        raise ValueError(value)
    return whole
