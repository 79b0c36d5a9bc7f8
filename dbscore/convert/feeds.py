"""The tensors that a version is fed for some rows: the rule that the runtime in the server follows too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.errors import FeatureError
from dbscore.signature import Feature, NullPolicy, Signature, SqlType

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["feeds", "scorable"]

_FLOATS = (SqlType.REAL, SqlType.DOUBLE, SqlType.REAL_ARRAY, SqlType.DOUBLE_ARRAY)


def scorable(signature: Signature, rows: Sequence[tuple[Any, ...]]) -> list[bool]:
    """Return for each row whether the model is called at all: no feature of policy `null` is missing."""
    strict = [i for i, f in enumerate(signature.features) if f.null_policy is NullPolicy.NULL]
    return [not any(row[i] is None for i in strict) for row in rows]


def feeds(signature: Signature, rows: Sequence[tuple[Any, ...]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the ONNX inputs for rows of values in the order of the signature's features.

    Numbers are cast to the tensor's dtype as C does (booleans to 0 and 1); a missing number becomes NaN, a missing
    text the feature's `missing` string. Rows that are not `scorable` must have been left out.

    Args:
        signature: What the version takes.
        rows: Values as psycopg gives them; an array feature's value is a sequence of its width.

    Returns:
        An array per ONNX input, shape (rows, width), or (rows,) where the input has rank 1.

    Raises:
        FeatureError: A value is NaN or infinite or too large where the model takes none such, not among the
            accepted categories, equal to the string that stands for a missing value, or an array of another length.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for tensor in signature.tensors:
        dtype = np.dtype(object) if tensor.dtype == "string" else np.dtype(tensor.dtype)
        arrays[tensor.name] = np.empty((len(rows), tensor.width), dtype=dtype)
    for i, feature in enumerate(signature.features):
        array = arrays[feature.tensor]
        values = [row[i] for row in rows]
        span = slice(feature.position, feature.position + feature.width)
        array[:, span] = _texts(feature, values) if array.dtype == object else _numbers(feature, values, array)
    return {t.name: arrays[t.name][:, 0] if t.rank == 1 else arrays[t.name] for t in signature.tensors}


def _texts(feature: Feature, values: list[Any]) -> np.ndarray[Any, Any]:
    for value in values:
        if value == feature.missing and value is not None:
            raise FeatureError(
                f"{feature.name} is {value!r}, the string that stands for a missing value",
                remedy="Pass NULL if the value is missing.",
            )
    _check_categories(feature, values)
    filled = [feature.missing if value is None else value for value in values]
    shaped = [f if feature.type.is_array else [f] for f in filled]
    return _matrix(feature, shaped, np.dtype(object))


def _check_categories(feature: Feature, values: list[Any]) -> None:
    if feature.categories is None:
        return
    known = frozenset(feature.categories)
    for value in values:
        # NaN, which equals nothing, is a missing value
        if value is not None and value == value and value not in known:  # noqa: PLR0124
            raise FeatureError(
                f"{feature.name} is {value!r}, which the model was not trained with",
                remedy=f"It takes {', '.join(map(repr, feature.categories[:20]))}.",
            )


def _numbers(feature: Feature, values: list[Any], array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    gap: Any = [np.nan] * feature.width
    if feature.type.is_array:
        shaped = [gap if v is None else [np.nan if w is None else w for w in v] for v in values]
    else:
        shaped = [gap if v is None else [v] for v in values]
    # integers and booleans are not taken through float64, which would round those beyond 2**53
    whole = array.dtype.kind in "iub" and feature.type not in _FLOATS
    numbers = _matrix(feature, shaped, np.dtype(np.int64) if whole else np.dtype(np.float64))
    if feature.type in _FLOATS:
        _check_range(feature, numbers)
    _check_categories(feature, values)
    # beyond float32's range a float64 becomes infinite, as in C
    with np.errstate(over="ignore"):
        return numbers.astype(array.dtype)


def _check_range(feature: Feature, numbers: np.ndarray[Any, Any]) -> None:
    bad = np.zeros(numbers.shape, dtype=bool)
    if feature.null_policy is NullPolicy.NULL:
        bad |= np.isnan(numbers)
    if not feature.accepts_infinity:
        bad |= np.isinf(numbers)
    if feature.largest is not None:
        bad |= np.isfinite(numbers) & (np.abs(numbers) > feature.largest)
    if bad.any():
        raise FeatureError(
            f"{feature.name} is {numbers[bad][0]}, which the model does not take",
            remedy="Pass a finite number in the model's range, or NULL.",
        )


def _matrix(feature: Feature, shaped: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    wrong = next((row for row in shaped if len(row) != feature.width), None)
    if wrong is not None:
        raise FeatureError(
            f"{feature.name} has {len(wrong)} elements, not {feature.width}",
            remedy=f"Pass an array of {feature.width}.",
        )
    return np.array(shaped, dtype=dtype).reshape(len(shaped), feature.width)
